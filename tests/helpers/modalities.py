"""Tiny sets of images, waveforms and tokens, and a run of a second on each; the tests' own."""

import pathlib
from typing import NamedTuple

import ml_collections
import numpy as np
import tiny
from tokenizers import Tokenizer, models, pre_tokenizers

NUM = 160  # inputs of a set, of two classes
WORDS = ('?', 'a', 'b', 'c', 'd', 'e', 'f', 'g')


class Modality(NamedTuple):
    """A kind of inputs.

    Attributes:
        takes: the kind, as augmentations name it.
        source: the beginning of the description of a set, without its last bracket.
        encoder: the spec of a network.
        view: the spec of an augmentation.
    """

    takes: str
    source: str
    encoder: str
    view: str


def write(folder: pathlib.Path) -> dict[str, Modality]:
    """Writes a set of each modality, whose inputs have several lengths where they may."""
    rng, labels = np.random.default_rng(0), np.arange(NUM) % 2
    images = rng.integers(0, 128, (NUM, 8, 8, 3)) + 127 * labels[:, None, None, None]
    np.savez(folder / 'images.npz', inputs=images.astype(np.uint8), labels=labels)
    clips = [_tone(rng, label) for label in labels]
    lengths = [len(clip) for clip in clips]
    np.savez(folder / 'clips.npz', audio=np.concatenate(clips), length=lengths, tone=labels)
    _write_words(folder / 'words.json')
    (folder / 'texts.txt').write_text('\n'.join(_texts(rng)))
    return {
        'images': Modality(
            'images',
            f'npz(path="{folder}/images.npz"',
            'resnet18(stem="patch", width=4, stages=(1,))',
            'flip',
        ),
        'waves': Modality(
            'waves',
            f'speech_npz(path="{folder}/clips.npz", rate=2000, labels="tone"',
            'wave_transformer(strides=(8,), width=4, depth=1, heads=1)',
            'gain',
        ),
        'tokens': Modality(
            'tokens',
            f'text_lines(path="{folder}/texts.txt", tokenizer="{folder}/words.json", length=8',
            f'bag_of_tokens(vocabulary={len(WORDS)}, width=4)',
            'token_swap',
        ),
    }


def config_of(modality: Modality, **fields) -> ml_collections.ConfigDict:
    """The run on a modality, with some fields changed; `__` stands for the dot."""
    c = tiny.get_config()
    c.runs = ()
    c.data.name, c.data.size = f'{modality.source})', 0
    c.victim.split, c.attack.split = 'all[:16]', 'all[16:64]'
    c.evaluation.tasks = (f'{modality.source}, train="all[64:112]", test="all[112:]")',)
    c.victim.encoder, c.victim.augmentation = modality.encoder, modality.view
    c.victim.method = 'simclr(hidden=4, dim=4)'
    c.victim.epochs = c.attack.epochs = c.baselines.scratch_epochs = 1
    c.victim.batch_size = c.attack.batch_size = c.baselines.scratch_batch_size = 8
    c.attack.budget = 32
    c.evaluation.probe = 'sgd(epochs=1)'
    c.evaluation.shots = 0
    c.legitimate.users = ()
    c.baselines.random = False
    for field, value in fields.items():
        c.update_from_flattened_dict({field.replace('__', '.'): value})
    return c


def _tone(rng: np.random.Generator, label: int) -> np.ndarray:
    time = np.arange(rng.integers(40, 65)) / 2_000
    clip = 8_000 * np.sin(2 * np.pi * (rng.uniform(80, 120) + 500 * label) * time)
    return clip.astype(np.int16)


def _write_words(path: pathlib.Path) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(WORDS)}, '?'))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(path))


def _texts(rng: np.random.Generator) -> list[str]:
    """Lines of two classes, which have words of their own, no text twice."""
    texts: dict[str, str] = {}
    while len(texts) < NUM:
        kind = len(texts) % 2
        words = rng.choice(WORDS[1 + 2 * kind : 6 + 2 * kind], rng.integers(4, 9))
        texts.setdefault(' '.join(words), f'{("low", "high")[kind]} {" ".join(words)}')
    return list(texts.values())
