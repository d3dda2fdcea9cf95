"""Which ownership test finds which theft: encoders of known truth, at laptop size.

    python -m experiments.ownership_cpu --data_dir=DIR --workdir=DIR

A program, not a config: what an owner would do with the functions of the package, for many cases.
DIR holds a TFDS copy of cifar10. All networks are small, see 16 x 16 pixels and answer with
64 numbers.

Victims: SimCLR on 5,000 private images; the same with the rotation watermark; and the first with
SSLGuard's mark. Independent encoders: 32 of other seeds and other images, by SimCLR and BYOL,
three of them with more layers; 24 are the null of tests that compare with the others. Shadows: 20
of the victim's recipe on other images. Suspects: stolen by each attack with 500, 2,000 and 8,000
queries, with two losses behind five defenses, and copies of the victim and of a stolen encoder that
hide in eleven ways; encoders that were trained on the victim's images without the victim, or stolen
from another encoder, which are independent too; of a mark, also those stolen without it. False
claims: a claimant who chooses among tests and images.

Written are `scores.csv`, `truth.csv`, `report/report.html`, the same statistics judged by
independents of the victim's method alone in `report_one_method/`, `accuracy.csv` (linear probes and
effective dimensions, of victims, independents and what was stolen) and `claims.csv`. The same
command goes on after a stop, and `--stages=independents,shadows` runs a part: two processes may
share the work.
"""

from collections.abc import Iterator

import numpy as np
from absl import app, flags, logging

import ssl_extract
from ssl_extract import evaluation, ownership
from ssl_extract.ownership import (
    false_claims,
    known_truth,
    page,
    rotation_watermark,
    scoring,
    verdict,
)
from ssl_extract.ownership.known_truth import Truth
from ssl_extract.runtime import files, programs, progress

from . import one_method
from .encoders import ATTACKS, VIEW, Sizes, Study
from .suspects import DEFENSES, MARKS, suspects_of

_DATA = flags.DEFINE_string('data_dir', '', 'Folder of prepared TFDS sets.')
_WORKDIR = flags.DEFINE_string('workdir', 'runs/ownership', 'Of encoders and results.')
STAGES = ('victims', 'independents', 'shadows', 'stolen', 'accuracy', 'score', 'claims')
_STAGES = flags.DEFINE_list('stages', list(STAGES), f'Some of {", ".join(STAGES)}.')

VICTIMS = ('plain', 'rotation', 'sslguard')
TESTS = (
    *("dataset_inference(covariance='diag')", f'augmentation_inference(augmentation={VIEW!r})'),
    *('distance_inference', 'dataset_relations'),
    *('cosine', 'cka', 'mutual_information', 'neighbor_overlap', 'affine_residual'),
    *('shadow_score', "shadow_score(agreement='residuals')", "shadow_score(probes='noise')"),
)
CLAIMED = (*TESTS[:2], 'cosine', 'cka', 'neighbor_overlap')


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
        suspects = suspects_of(study, name)
        made = {f'{name}/{key}': make() for key, make in _bar(suspects.make, f'suspects of {name}')}
        victim = study.victim('plain' if name in MARKS else name)
        folder = study.where / 'kept' / name
        rows = ssl_extract.score(victim, made, **given, **more, tests=tests, folder=folder)
        yield rows, {f'{name}/{key}': truth for key, truth in suspects.truth.items()}


def accuracies(study: Study) -> list[list[str | float]]:
    """Measures the victims, the independents and one seed of what was stolen, by linear probes.

    The effective dimensions tell whether an encoder has collapsed.
    """
    encoders = {name: study.victim(name) for name in VICTIMS}
    for attack in ATTACKS:
        for budget, _ in study.sizes.budgets:
            encoders[f'{attack}, {budget} queries'] = study.stolen('plain', attack, budget, 0)
    for defense in DEFENSES:
        most = study.sizes.budgets[-1][0]
        encoders[f'mse behind {defense}'] = study.stolen('plain', 'mse', most, 0, defense)
    encoders |= study.independents()
    public = study.set('public')._replace(labels=None)
    rows: list[list[str | float]] = [
        ['encoder', 'accuracy', 'low', 'high', 'n', 'effective_dimensions']
    ]
    for name, encoder in _bar(encoders, 'probes'):
        (found,) = ssl_extract.evaluate(
            encoder,
            train=study.set('labeled'),
            test=study.set('tested'),
            metrics=('linear_probe',),
        )
        spread = effective_dimensions(evaluation.represent(encoder.apply, public))
        rows.append([name, *(found[key] for key in ('value', 'ci_low', 'ci_high', 'n')), spread])
    return rows


def effective_dimensions(rows: np.ndarray) -> float:
    """Computes the exponential of the entropy of the variances [D] along principal axes.

    Roy and Vetterli 2007, of the covariance: D where all directions vary alike, 1 where one does.

    >>> round(effective_dimensions(np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])), 6)
    2.0
    """
    variances = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    shares = variances[variances > 0] / variances.sum()
    return float(np.exp(-np.sum(shares * np.log(shares))))


def claims(study: Study) -> list[list[str | float]]:
    """Lets a claimant choose a test and images against each independent encoder."""
    others = [ownership.represent_of(encoder) for encoder in study.independents().values()]
    case = ownership.Case(
        ownership.represent_of(study.victim()),
        private=study.decoded('private'),
        public=study.decoded('public'),
        independents=tuple(others[0 :: scoring.COMPARED]),
    )
    null = [other for place, other in enumerate(others) if place % scoring.COMPARED]
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


def run(study: Study, stages: tuple[str, ...]) -> None:
    """Runs stages of the study."""
    if 'victims' in stages:
        for name in VICTIMS:
            study.victim(name)
    if 'independents' in stages:
        study.independents()
        for number in range(study.sizes.num_same):
            study.same_data(number)
    if 'shadows' in stages:
        study.shadows()
    if 'stolen' in stages:
        for name in (*VICTIMS, *MARKS):
            for key, make in _bar(suspects_of(study, name).make, f'stolen from {name}'):
                if not key.startswith('same-data'):
                    make()
    if 'accuracy' in stages:
        files.write_text(study.where / 'accuracy.csv', files.as_csv(accuracies(study)))
    if 'score' in stages:
        rows, truths = [], {}
        for found, known in scored(study):
            rows += found
            truths |= known
            files.write_text(study.where / 'scores.csv', scoring.as_csv(rows))
            files.write_text(study.where / 'truth.csv', known_truth.as_csv(truths))
        words = 'Which test finds which theft'
        page.write(study.where / 'report', rows, truths, title=words)
        own = one_method.rejudge(rows, truths, 'simclr')
        title = f'{words}, by independents of the victim’s method'
        if own[0]:
            page.write(study.where / 'report_one_method', *own, title=title)
        print(f'report: {study.where / "report" / "report.html"}')
    if 'claims' in stages:
        files.write_text(study.where / 'claims.csv', files.as_csv(claims(study)))


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
