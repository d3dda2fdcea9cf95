"""Which ownership test finds which theft: about 200 encoders of known truth, at laptop size.

    python experiments/ownership_cpu.py --data_dir=DIR --workdir=DIR

A program, not a config: what an owner would do with the functions of the package, for many cases.
DIR holds a TFDS copy of cifar10. All networks are small, and answer with 64 numbers.

Victims: SimCLR on 5,000 private images; the same with the rotation watermark; and the first with
SSLGuard's mark. Independent encoders, the null of every test: 24 of other seeds and other images,
by SimCLR and SimSiam, two of them with more layers. Shadows: 20 of the victim's recipe on other
images. Suspects: stolen by each attack with 500, 2,000 and 8,000 queries, with two losses behind
five defenses, and copies of the victim and of a stolen encoder that hide in ten ways; encoders that
were trained on the victim's images without the victim, which are independent too; of a mark, also
those stolen without it. False claims: a claimant who chooses among tests and images.

Written are `scores.csv`, `truth.csv`, `report/report.html`, `accuracy.csv` (linear probes, of the
victims and of what was stolen) and `claims.csv`. The same command goes on after a stop, and
`--stages=independents,shadows` runs a part: two processes may share the work.
"""

import csv
import functools
import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from absl import app, flags, logging
from etils import epath

import ssl_extract
from ssl_extract import data, ownership, recovery
from ssl_extract.api.asking import Answers
from ssl_extract.encoders.trained import Encoder
from ssl_extract.ownership import (
    false_claims,
    known_truth,
    page,
    rotation_watermark,
    scoring,
    sslguard,
    sslguard_injection,
    verdict,
)
from ssl_extract.ownership.known_truth import Truth
from ssl_extract.runtime import files, locks, programs, progress

_DATA = flags.DEFINE_string('data_dir', '', 'Folder of prepared TFDS sets.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/ownership', 'Of encoders and results.')
STAGES = ('victims', 'independents', 'shadows', 'stolen', 'score', 'claims')
_STAGES = flags.DEFINE_list('stages', list(STAGES), f'Some of {", ".join(STAGES)}.')

Make = Callable[[], ownership.Represent | Encoder]
VIEW = (
    'random_resized_crop(scale=(0.2, 1.0)) | flip(p=0.5) | '
    'color_jitter(0.4, 0.4, 0.4, 0.1, p=0.8) | grayscale(p=0.2)'
)


class Sizes(NamedTuple):
    """The images and the networks of the study; the defaults are those of the study."""

    data: str = 'cifar10'
    side: int = 32
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
    seeds: int = 3  # of each attack and budget
    budgets: tuple[tuple[int, int], ...] = ((500, 40), (2_000, 16), (8_000, 6))  # and epochs
    steps: int = 400  # of what trains after the theft


SIMCLR = 'simclr(temperature=0.2, hidden=256, dim=64)'
SIMSIAM = 'simsiam(hidden=256, dim=256, bottleneck=64)'
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
DEFENSES = (
    'gaussian_noise(stddev=1.0)',
    'round(decimals=0)',
    'top_k(k=16)',
    'orthogonal',
    'affine',
)
TESTS = (
    *("dataset_inference(covariance='diag')", f'augmentation_inference(augmentation={VIEW!r})'),
    *('distance_inference', 'dataset_relations'),
    *('cosine', 'cka', 'mutual_information', 'neighbor_overlap', 'affine_residual'),
    *('shadow_score', "shadow_score(agreement='residuals')", "shadow_score(probes='noise')"),
)
MARKS = {'region_mark': 'region_mark(key=11)', 'espew': 'espew(key=11)'}
REMOVALS = {
    'mse': ('cluster_select_eliminate',),
    'mse_of_views': ('', 'semantic_perturbation'),
}
CLAIMED = (*TESTS[:2], 'cosine', 'cka', 'neighbor_overlap')


class Suspects(NamedTuple):
    """The suspects of one victim, the functions that make them, and what is known of them."""

    make: dict[str, Make]
    truth: dict[str, Truth]

    def add(self, name: str, truth: Truth, make: Make) -> None:
        """Adds a suspect."""
        self.make[name], self.truth[name] = make, truth


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
        encoder, secret = (self.where / 'victims' / f'sslguard_{x}.safetensors' for x in 'es')
        with locks.lock(self.where / 'victims' / 'sslguard.lock', 'the marked victim'):
            if not encoder.exists():  # it is written last
                made = sslguard_injection.inject(
                    self.victim(),
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
            method = 'simclr' if number % 3 else 'simsiam'
            deep = number % 12 == 1
            name = f'{method}{"-deep" if deep else ""}-{number}'
            found[name] = self.pretrain(
                f'independents/{name}',
                _part(available, size, number),
                1_000 + number,
                method=SIMCLR if number % 3 else SIMSIAM,
                encoder=self.sizes.deeper if deep else self.sizes.encoder,
            )
        return found

    def same_data(self, number: int) -> Encoder:
        """Returns an encoder that was trained on the victim's images without the victim."""
        method = SIMSIAM if number % 3 == 2 else SIMCLR
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
            batch_size=min(64, len(asked.inputs) // 2),
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

    def suspects(self, victim: str) -> Suspects:
        """Lists the suspects of the victim 'plain', 'rotation' or 'sslguard', or of a mark."""
        suspects = Suspects({}, {})
        if victim == 'plain':
            self._add_stolen(suspects, victim, ATTACKS)
            most = self.sizes.budgets[-1][0]
            for defense in DEFENSES:
                self._add_behind(suspects, ('mse', 'infonce'), most, defense)
            for name in ('mse', 'infonce'):
                for seed in range(self.sizes.seeds):
                    make = functools.partial(self.stolen, 'another', name, most, seed)
                    truth = Truth(False, 'stolen from another encoder')
                    suspects.add(f'another-{name}-{seed}', truth, make)
            for number in range(self.sizes.num_same):
                make = functools.partial(self.same_data, number)
                truth = Truth(False, "the victim's images")
                suspects.add(f'same-data-{number}', truth, make)
        elif victim in MARKS:
            self._add_marked(suspects, victim)
        else:
            self._add_stolen(suspects, victim, ('mse', 'infonce'))
            self._add_unmarked(suspects)
        self._add_hidden(suspects, victim)
        return suspects

    def _add_stolen(self, suspects: Suspects, victim: str, attacks: Iterable[str]) -> None:
        for name in attacks:
            for budget, _ in self.sizes.budgets:
                for seed in range(self.sizes.seeds):
                    make = functools.partial(self.stolen, victim, name, budget, seed)
                    suspects.add(f'{name}-{budget}-{seed}', Truth(True, name, budget), make)

    def _add_behind(
        self,
        suspects: Suspects,
        attacks: tuple[str, ...],
        budget: int,
        defense: str,
        recover: str = '',
    ) -> None:
        """Adds what was stolen behind a defense, by an attacker who may recover answers."""
        for name in attacks:
            for seed in range(self.sizes.seeds):
                make = functools.partial(self.stolen, 'plain', name, budget, seed, defense, recover)
                short = defense.split('(')[0]
                what = 'the mark' if defense in MARKS.values() else short
                how = f'{name} behind {what}' + (f', {recover}' if recover else '')
                truth = Truth(True, how, budget)
                suspects.add(f'{name}-{budget}-{short}-{recover}-{seed}', truth, make)

    def _add_marked(self, suspects: Suspects, mark: str) -> None:
        """Adds what was stolen with a mark in the answers, and without it."""
        for budget, _ in self.sizes.budgets:
            self._add_behind(suspects, ('mse', 'infonce'), budget, MARKS[mark])
        most = self.sizes.budgets[-1][0]
        self._add_unmarked(suspects)
        for name, removals in REMOVALS.items():
            for recover in removals:
                self._add_behind(suspects, (name,), most, MARKS[mark], recover)

    def _add_unmarked(self, suspects: Suspects) -> None:
        """Adds what was stolen from the victim without a mark, by queries without one."""
        most = self.sizes.budgets[-1][0]
        for name in ('mse', 'infonce'):
            for seed in range(self.sizes.seeds):
                make = functools.partial(self.stolen, 'plain', name, most, seed)
                truth = Truth(False, 'stolen without the mark')
                suspects.add(f'unmarked-{name}-{seed}', truth, make)

    def _add_hidden(self, suspects: Suspects, victim: str) -> None:
        """Adds copies of the victim, and of what was stolen from it, that hide."""
        steps, most = self.sizes.steps, self.sizes.budgets[-1][0]
        view = self.sizes.view
        tune = f'fine_tune(steps={steps}, method={SIMCLR!r}, augmentation={view!r})'
        ways = {
            'as it is': '',
            'fine-tuned': tune,
            'half pruned': 'prune(share=0.5)',
            'half pruned, fine-tuned': f'prune(share=0.5) | {tune}',
            'noise of 10 % on weights': 'noise(scale=0.1)',
            'weights of 4 bits': 'quantize(bits=4)',
            'permuted': 'permute',
            'padded': 'pad(count=64)',
            'rotated': 'rotate',
            'mapped affinely': 'rotate | scale | rotate',
            'distilled': f'distill(encoder={self.sizes.encoder!r}, steps={4 * steps})',
            'distilled into a ViT': f'distill(encoder={self.sizes.other!r}, steps={4 * steps})',
        }
        defense = MARKS.get(victim, '')
        stolen_from = 'plain' if defense else victim
        sources = {'mse': lambda seed: self.stolen(stolen_from, 'mse', most, seed, defense)}
        if not defense:  # a copy of the victim itself holds no mark of the answers
            sources['a copy'] = lambda seed: self.victim(victim)
        for source, of in sources.items():
            for how, chain in ways.items():
                if source == 'mse' and not chain:
                    continue
                for seed in range(self.sizes.seeds if source == 'mse' else 1):
                    name = f'{source}-{how}-{seed}'
                    truth = Truth(True, f'{source}, {how}', most if source == 'mse' else None)
                    where = self.where / 'hidden' / victim / f'{name}.safetensors'
                    suspects.add(
                        name, truth, functools.partial(self._hidden, where, of, chain, seed)
                    )

    def _hidden(
        self, where: epath.Path, of: Callable[[int], Encoder], chain: str, seed: int
    ) -> ownership.Represent | Encoder:
        """Returns a copy that hides; one with weights of its own is made once."""
        with locks.lock(where.with_suffix('.lock'), where.stem):
            if where.exists():
                return ssl_extract.load(where)
            inputs = self.decoded('attacker')
            made = ownership.obfuscate(chain, of(seed), inputs=inputs, seed=6_000 + seed)
            if isinstance(made, Encoder) and chain:
                ssl_extract.export(made, where)
            return made


def _part(dataset: data.Dataset, size: int, seed: int) -> data.Dataset:
    """Draws images of a set, in increasing order."""
    rows = np.random.default_rng(seed).permutation(len(dataset.inputs))[:size]
    rows = np.sort(rows)
    labels = None if dataset.labels is None else dataset.labels[rows]
    return dataset._replace(inputs=dataset.inputs[rows], labels=labels)


def scored(study: Study) -> Iterator[tuple[list[scoring.Score], dict[str, Truth]]]:
    """Scores the suspects of each victim and mark by the tests that apply to it."""
    private = study.set('private')
    private = private._replace(inputs=private.inputs[: study.sizes.judged], labels=None)
    public = study.set('public')._replace(labels=None)
    given = {'public': public, 'independents': study.independents()}
    rotated = ('rotation_watermark', 'rotation_watermark(aligned=True)')
    inferred = {'private': private, 'shadows': study.shadows()}
    plans = {
        'plain': (TESTS, inferred),
        'rotation': (rotated, {'mark': rotation_watermark.mark_of(study.victim('rotation'))}),
        'sslguard': (
            ('sslguard(threshold=None)',),
            {'mark': (study.marked()[1],), 'private': private},
        ),
        **{name: ((test,), {}) for name, test in MARKS.items()},
    }
    for name, (tests, more) in plans.items():
        suspects = study.suspects(name)
        made = {f'{name}/{key}': make() for key, make in _bar(suspects.make, f'suspects of {name}')}
        victim = study.victim('plain' if name in MARKS else name)
        folder = study.where / 'kept' / name
        rows = ssl_extract.score(victim, made, **given, **more, tests=tests, folder=folder)
        yield rows, {f'{name}/{key}': truth for key, truth in suspects.truth.items()}


def accuracies(study: Study) -> list[list[str | float]]:
    """Measures the victims, and one seed of what was stolen, by linear probes."""
    encoders = {name: study.victim(name) for name in ('plain', 'rotation', 'sslguard')}
    for attack in ATTACKS:
        for budget, _ in study.sizes.budgets:
            encoders[f'{attack}, {budget} queries'] = study.stolen('plain', attack, budget, 0)
    for defense in DEFENSES:
        most = study.sizes.budgets[-1][0]
        encoders[f'mse behind {defense}'] = study.stolen('plain', 'mse', most, 0, defense)
    rows: list[list[str | float]] = [['encoder', 'accuracy', 'low', 'high', 'n']]
    for name, encoder in _bar(encoders, 'probes'):
        (found,) = ssl_extract.evaluate(
            encoder,
            train=study.set('labeled'),
            test=study.set('tested'),
            metrics=('linear_probe',),
        )
        rows.append([name, *(found[key] for key in ('value', 'ci_low', 'ci_high', 'n'))])
    return rows


def claims(study: Study) -> list[list[str | float]]:
    """Lets a claimant choose a test and images against each independent encoder."""
    others = [ownership.represent_of(encoder) for encoder in study.independents().values()]
    case = ownership.Case(
        ownership.represent_of(study.victim()),
        private=study.decoded('private'),
        public=study.decoded('public'),
        independents=tuple(others[0::4]),
    )
    null = [other for place, other in enumerate(others) if place % 4]
    cases = false_claims.subsets(case, count=5, size=study.sizes.judged // 2)
    rows: list[list[str | float]] = [
        ['choices', 'chosen', 'low', 'high', 'counted', 'low', 'high', 'n']
    ]
    for tests in (CLAIMED[:1], CLAIMED):
        found = false_claims.claims(cases, tests, null)
        chosen, counted = (
            verdict.rate(sum(getattr(claim, name) < 0.05 for claim in found), len(found))
            for name in ('p_value', 'corrected')
        )
        rows.append([found[0].choices, *chosen[:3], *counted])
    return rows


def _bar(entries: dict, words: str) -> Iterator[tuple]:
    return iter(progress.progress(list(entries.items()), desc=words, unit='encoder'))


def _as_csv(rows: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def run(study: Study, stages: tuple[str, ...]) -> None:
    """Runs stages of the study."""
    if 'victims' in stages:
        for name in ('plain', 'rotation', 'sslguard'):
            study.victim(name)
    if 'independents' in stages:
        study.independents()
        for number in range(study.sizes.num_same):
            study.same_data(number)
    if 'shadows' in stages:
        study.shadows()
    if 'stolen' in stages:
        for name in ('plain', 'rotation', 'sslguard', *MARKS):
            for key, make in _bar(study.suspects(name).make, f'stolen from {name}'):
                if not key.startswith('same-data'):
                    make()
        if not (study.where / 'accuracy.csv').exists():
            files.write_text(study.where / 'accuracy.csv', _as_csv(accuracies(study)))
    if 'score' in stages:
        rows, truths = [], {}
        for found, known in scored(study):
            rows += found
            truths |= known
            files.write_text(study.where / 'scores.csv', scoring.as_csv(rows))
            files.write_text(study.where / 'truth.csv', known_truth.as_csv(truths))
        page.write(study.where / 'report', rows, truths, title='Which test finds which theft')
        print(f'report: {study.where / "report" / "report.html"}')
    if 'claims' in stages:
        files.write_text(study.where / 'claims.csv', _as_csv(claims(study)))


def main(argv: list[str]) -> None:
    """Runs the stages that the flags name."""
    del argv
    if unknown := set(_STAGES.value) - set(STAGES):
        raise app.UsageError(f'--stages: {", ".join(unknown)}: write some of {", ".join(STAGES)}')
    logging.set_verbosity(logging.WARNING)
    programs.keep()
    run(Study(_WORKDIR.value, _DATA.value, Sizes()), tuple(_STAGES.value))


if __name__ == '__main__':
    app.run(main)
