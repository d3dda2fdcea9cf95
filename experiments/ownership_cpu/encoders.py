"""The encoders of the study: what is trained, and on which images."""

import functools
import zlib
from typing import NamedTuple

import numpy as np

import ssl_extract
from ssl_extract import data, ownership, recovery
from ssl_extract.api.asking import Answers
from ssl_extract.encoders.trained import Encoder, content_hash
from ssl_extract.ownership import sslguard, sslguard_injection
from ssl_extract.runtime import files, locks

VIEW = (
    'random_resized_crop(scale=(0.2, 1.0)) | flip(p=0.5) | '
    'color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8) | grayscale(p=0.2)'
)


class Sizes(NamedTuple):
    """The images and the networks of the study; the defaults are those of the study."""

    data: str = 'cifar10'
    side: int = 16
    private: str = 'train[:5000]'
    shadows: str = 'train[5000:15000]'
    attacker: str = 'train[15000:25000]'
    others: str = 'train[25000:45000]'
    labeled: str = 'train[45000:49000]'
    public: str = 'train[49000:]'  # drawn as the private images were: the set is shuffled
    tested: str = 'test'
    judged: int = 1_000  # of the private images
    encoder: str = 'resnet18(stem="patch", width=16, stages=(1, 1, 1))'
    deeper: str = 'resnet18(stem="patch", width=16, stages=(2, 2, 1))'
    other: str = 'vit(depth=3, width=64, heads=4, patch=4)'
    view: str = VIEW
    epochs: int = 30
    batch_size: int = 256
    num_shadows: int = 20
    num_others: int = 32  # every fourth is compared with, and 24 are a null
    num_same: int = 6
    seeds: int = 3  # of each attack and budget; of hidden copies, two of a mark
    budgets: tuple[tuple[int, int], ...] = ((500, 40), (2_000, 16), (8_000, 6))  # and epochs
    steps: int = 400  # of what trains after the theft


SIMCLR = 'simclr(temperature=0.2, hidden=256, dim=64)'
BYOL = 'byol(hidden=256, dim=64)'  # by SimSiam, 1 to 6 effective dimensions are left here
ROTATION = 'rotation_watermark(temperature=0.2, hidden=256, dim=64, predictor=64)'
RATE = 2e-3
# Attack, loss, plan, and how many views of an image are paid for.
ATTACKS = {
    'mse': ('direct', 'mse', 'once', 1),
    'infonce': ('direct', 'infonce(temperature=0.07)', 'once', 1),
    'softnn': ('direct', 'softnn(temperature=100.0)', 'once', 1),
    'wasserstein': ('direct', 'wasserstein', 'once', 1),
    'symmetrized': ('symmetrized(hidden=256, dim=256, bottleneck=64)', '', 'views(m=2)', 2),
    'cont_steal': ('cont_steal', '', 'views(m=1)', 1),
    'stolen_encoder': ('stolen_encoder(lambda_=20.0, views=1)', '', 'once', 1),
    'rda': ('rda', '', 'views(m=10)', 10),
}
VIEWS = {'mse_of_views': ('direct', 'mse', 'views(m=4)', 4)}  # for the removal of marks


class Study:
    """The encoders of the study; each is trained once, and read from its folder afterwards."""

    def __init__(self, workdir: str, data_dir: str, sizes: Sizes):
        self.where, self.sizes = files.absolute(workdir), sizes
        self._load = functools.partial(
            data.load, sizes.data, size=sizes.side, data_dir=data_dir or None
        )

    @functools.cache  # noqa: B019 (one study is one process)
    def set(self, name: str) -> data.Dataset:
        """Loads one of the sets of `Sizes`."""
        return self._load(getattr(self.sizes, name))

    def decoded(self, name: str) -> np.ndarray:
        """Returns the images of a set as encoders see them."""
        dataset = self.set(name)
        return np.asarray(data.decoder(dataset)(dataset.inputs))

    def pretrain(self, folder: str, inputs: data.Dataset, seed: int, **how: str) -> Encoder:
        """Pretrains an encoder by the victim's recipe, but for what is named."""
        return ssl_extract.pretrain(
            inputs._replace(labels=None),
            seed=seed,
            folder=self.where / folder,
            **{**self.recipe(), **how},
        )

    def recipe(self) -> dict[str, str | int | float]:
        """Returns the victim's recipe."""
        return {
            'encoder': self.sizes.encoder,
            'method': SIMCLR,
            'augmentation': self.sizes.view,
            'epochs': self.sizes.epochs,
            'batch_size': self.sizes.batch_size,
            'learning_rate': RATE,
        }

    def victim(self, name: str = 'plain') -> Encoder:
        """Returns a victim: 'plain', 'rotation', 'sslguard', or 'another' that nobody claims."""
        if name == 'sslguard':
            return self.marked()[0]
        if name == 'another':
            inputs = _part(self.set('others'), len(self.set('private').inputs), 8_000)
            return self.pretrain('another', inputs, 8_000)
        method = {'plain': SIMCLR, 'rotation': ROTATION}[name]
        return self.pretrain(f'victims/{name}', self.set('private'), 0, method=method)

    def marked(self) -> tuple[Encoder, sslguard.Secret]:
        """Returns SSLGuard's victim and its secret."""
        clean = self.victim()
        where = self.where / 'sslguard' / content_hash(clean)[:16]
        encoder, secret = where / 'encoder.safetensors', where / 'secret.safetensors'
        with locks.lock(where / '.lock', 'the marked victim'):
            if not encoder.exists():  # it is written last
                made = sslguard_injection.inject(
                    clean,
                    self.decoded('shadows')[: 10 * self.sizes.judged],
                    self.decoded('private')[:100],
                    epochs=5,
                    batch_size=64,
                    optimizer='adam',
                    encoder_rate=1e-3,
                    shadow_rate=1e-3,
                    secret_rate=1e-3,
                    seed=7,
                )
                sslguard.save(secret, made.secret)
                ssl_extract.export(made.encoder, encoder)
        return ssl_extract.load(encoder), sslguard.load(secret)

    def independents(self) -> dict[str, Encoder]:
        """Returns the encoders of the null: other seeds and images, two methods, two depths."""
        available, size = self.set('others'), len(self.set('private').inputs)
        found = {}
        for number in range(self.sizes.num_others):
            method = 'simclr' if number % 3 else 'byol'
            deep = number % 12 == 1
            name = f'{method}{"-deep" if deep else ""}-{number}'
            found[name] = self.pretrain(
                f'independents/{name}',
                _part(available, size, number),
                1_000 + number,
                method=SIMCLR if number % 3 else BYOL,
                encoder=self.sizes.deeper if deep else self.sizes.encoder,
            )
        return found

    def same_data(self, number: int) -> Encoder:
        """Returns an encoder that was trained on the victim's images without the victim."""
        method = BYOL if number % 3 == 2 else SIMCLR
        inputs = self.set('private')
        return self.pretrain(f'same_data/{number}', inputs, 2_000 + number, method=method)

    def shadows(self) -> dict[str, Encoder]:
        """Returns the owner's shadows."""
        seeds = range(3_000, 3_000 + self.sizes.num_shadows)
        inputs = self.set('shadows')._replace(labels=None)
        trained = ssl_extract.train_shadows(
            inputs, seeds, folder=self.where / 'shadows', **self.recipe()
        )
        return dict(zip(map(str, seeds), trained, strict=True))

    def stolen(
        self, victim: str, name: str, budget: int, seed: int, defense: str = '', recover: str = ''
    ) -> Encoder:
        """Returns an encoder that was stolen by an attack behind a defense."""
        attack, loss, plan, views = {**ATTACKS, **VIEWS}[name]
        epochs = dict(self.sizes.budgets)[budget]
        behind = '-'.join(part.split('(')[0] for part in (defense, recover) if part)
        where = f'{victim}/{name}-{budget}-{seed}-{behind}'.rstrip('-')
        draw = zlib.crc32(where.encode()) >> 1  # each theft has images and weights of its own
        asked = _part(self.set('attacker'), budget // views, draw)
        oracle = ssl_extract.make_oracle(self.victim(victim), defense or None, budget=budget)
        answers = ssl_extract.collect(
            oracle,
            asked._replace(labels=None),
            plan=plan,
            seed=seed,
            folder=self.where / 'answers' / where,
        )
        if recover:
            answers = self.recovered(answers, recover)
        return ssl_extract.steal(
            answers,
            encoder=self.sizes.encoder,
            attack=attack,
            loss=loss,
            epochs=epochs * views,
            batch_size=min(64, len(asked.inputs) // 16 * 8),  # for up to eight devices
            seed=draw,
            folder=self.where / 'stolen' / where,
        )

    def recovered(self, answers: Answers, recover: str) -> Answers:
        """Returns answers as an attacker repairs them, who has an encoder of their own."""
        inputs = self.set('attacker')
        own = self.pretrain(
            'attackers_shadow', _part(inputs, len(self.set('private').inputs), 7_000), 7_000
        )
        decode = data.decoder(inputs)
        shadow = recovery.Shadow(lambda stored: np.asarray(own.apply(decode(stored))), 7_000)
        count, *_, dim = answers.representations.shape
        received = recovery.Received(
            answers.inputs,
            answers.representations.reshape(count, -1, dim),
            answers.granted.reshape(count, -1),
        )
        received = recovery.make(recover)(received, shadow)
        return answers._replace(
            representations=received.answers.reshape(answers.representations.shape),
            granted=received.answered.reshape(answers.granted.shape),
        )

    def hidden(self, source: Encoder, chain: str, seed: int) -> ownership.Represent | Encoder:
        """Returns a copy that hides; one with weights of its own is made once."""
        of = {'source': content_hash(source), 'chain': chain, 'seed': seed}
        where = self.where / 'hidden' / f'{files.checksum(of)[:16]}.safetensors'
        with locks.lock(where.with_suffix('.lock'), where.stem):
            if where.exists():
                return ssl_extract.load(where)
            inputs = self.decoded('attacker')
            made = ownership.obfuscate(chain, source, inputs=inputs, seed=6_000 + seed)
            if isinstance(made, Encoder) and chain:
                ssl_extract.export(made, where)
            return made


def _part(dataset: data.Dataset, size: int, seed: int) -> data.Dataset:
    """Draws images of a set, in increasing order."""
    rows = np.random.default_rng(seed).permutation(len(dataset.inputs))[:size]
    rows = np.sort(rows)
    labels = None if dataset.labels is None else dataset.labels[rows]
    return dataset._replace(inputs=dataset.inputs[rows], labels=labels)
