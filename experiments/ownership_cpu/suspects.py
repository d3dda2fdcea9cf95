"""The suspects of the study, and what is known of them."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

from ssl_extract import ownership
from ssl_extract.encoders.trained import Encoder
from ssl_extract.ownership.known_truth import Truth

from .encoders import ATTACKS, SIMCLR, Study

Make = Callable[[], ownership.Represent | Encoder]
DEFENSES = (
    'gaussian_noise(stddev=1.0)',
    'round(decimals=0)',
    'top_k(k=16)',
    'orthogonal',
    'affine',
)
MARKS = {'region_mark': 'region_mark(key=11)', 'espew': 'espew(key=11)'}
REMOVALS = {
    'mse': ('cluster_select_eliminate',),
    'mse_of_views': ('', 'semantic_perturbation'),
}


class Suspects(NamedTuple):
    """The suspects of one victim, the functions that make them, and what is known of them."""

    make: dict[str, Make]
    truth: dict[str, Truth]

    def add(self, name: str, truth: Truth, make: Make) -> None:
        """Adds a suspect."""
        self.make[name], self.truth[name] = make, truth


def suspects_of(study: Study, victim: str) -> Suspects:
    """Lists the suspects of the victim 'plain', 'rotation' or 'sslguard', or of a mark."""
    suspects, few = Suspects({}, {}), ('mse', 'infonce')
    budgets = [budget for budget, _ in study.sizes.budgets]
    add = functools.partial(_add_thefts, suspects, study)
    if victim == 'plain':
        add('plain', ATTACKS, budgets)
        for defense in DEFENSES:
            short = defense.split('(')[0]
            add('plain', few, budgets[-1:], f'{{}} behind {short}', defense)
        add('another', few, budgets[-1:], 'stolen from another encoder', stolen=False)
        for number in range(study.sizes.num_same):
            make = functools.partial(study.same_data, number)
            suspects.add(f'same-data-{number}', Truth(False, "the victim's images"), make)
    elif victim in MARKS:
        mark = MARKS[victim]
        add('plain', few, budgets, '{} behind the mark', mark)
        for name, removals in REMOVALS.items():
            for recover in removals:
                how = f'{{}} behind the mark, {recover}'.removesuffix(', ')
                add('plain', (name,), budgets[-1:], how, mark, recover)
    else:
        add(victim, few, budgets)
    if victim != 'plain':
        add('plain', few, budgets[-1:], 'stolen without the mark', stolen=False)
    _add_hidden(suspects, study, victim)
    return suspects


def _add_thefts(
    suspects: Suspects,
    study: Study,
    victim: str,
    attacks: Iterable[str],
    budgets: Iterable[int],
    how: str = '{}',
    defense: str = '',
    recover: str = '',
    stolen: bool = True,
) -> None:
    """Adds thefts of all seeds; `stolen` says whether they are from the owner's victim."""
    for name in attacks:
        for budget in budgets:
            for seed in range(study.sizes.seeds):
                make = functools.partial(study.stolen, victim, name, budget, seed, defense, recover)
                kind = how.format(name)
                truth = Truth(stolen, kind, budget if stolen else None)
                suspects.add(f'{kind}, {name}-{budget}-{seed}', truth, make)


def _add_hidden(suspects: Suspects, study: Study, victim: str) -> None:
    """Adds copies of the victim, and of what was stolen from it, that hide."""
    sizes, most = study.sizes, study.sizes.budgets[-1][0]
    tune = f'fine_tune(steps={sizes.steps}, method={SIMCLR!r}, augmentation={sizes.view!r})'
    ways = {
        'fine-tuned': tune,
        'half pruned': 'prune(share=0.5)',
        'half pruned, fine-tuned': f'prune(share=0.5) | {tune}',
        'noise of 10 % on weights': 'noise(scale=0.1)',
        'weights of 4 bits': 'quantize(bits=4)',
        'permuted': 'permute',
        'padded': 'pad(count=64)',
        'rotated': 'rotate',
        'mapped affinely': 'rotate | scale | rotate',
        'distilled': f'distill(encoder={sizes.encoder!r}, steps={4 * sizes.steps})',
        'distilled into a ViT': f'distill(encoder={sizes.other!r}, steps={4 * sizes.steps})',
    }
    defense = MARKS.get(victim, '')
    owned = 'plain' if defense else victim

    def add(source: str, queries: int | None, of: Callable[[int], Encoder], seeds: int) -> None:
        for how, chain in ways.items():
            for seed in range(seeds):
                make = functools.partial(_hide, study, of, chain, seed)
                suspects.add(
                    f'{source}, {how}-{seed}', Truth(True, f'{source}, {how}', queries), make
                )

    seeds = sizes.seeds if victim == 'plain' else min(2, sizes.seeds)
    add('mse', most, lambda seed: study.stolen(owned, 'mse', most, seed, defense), seeds)
    if not defense:  # a copy of the victim itself holds no mark of the answers
        suspects.add('a copy', Truth(True, 'a copy'), lambda: study.victim(victim))
        add('a copy', None, lambda seed: study.victim(victim), 1)


def _hide(
    study: Study, of: Callable[[int], Encoder], chain: str, seed: int
) -> ownership.Represent | Encoder:
    return study.hidden(of(seed), chain, seed)
