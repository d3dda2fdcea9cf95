"""Speech encoders, stolen at laptop size: pretraining first, several layers, chosen clips.

    python launch.py --config=experiments/speech_cpu.py

The folder `speech`, below the working directory, holds fsdd.npz, the 3,000 clips of the Free Spoken
Digit Dataset one behind the other (arrays audio int16 of 8 kHz, length, digit, speaker, index);
librispeech/, FLAC files of 16 kHz in a folder for each of 10 speakers; and pretrained.pt, the file
of the package Resemblyzer 0.1.4 (pip install --no-deps), whose reading takes PyTorch. Another
folder is `--config=experiments/speech_cpu.py:FOLDER`. pretrained/openwakeword.py says how to
install the third victim. What Hsu et al. 2022 (arXiv 2211.16044) claim of large encoders of speech
is asked here at the size of a laptop.

Victims: Resemblyzer, the speaker encoder; a transformer that SimCLR pretrains here on the training
clips of the digits, whose layers can be asked; and openWakeWord's embedding of words, a plain
function. The student is a smaller transformer than any of them.

Clips of FSDD with an index below 10 are tested (600), and no encoder of this study trains on them.
Of the others, in a fixed random order, the first 1,600 parts are what the attacker can ask, and the
rest trains the linear probes, of the speaker (6) and of the digit (10). All of these speakers are
in both. LibriSpeech's 10 speakers are unseen: neither the attacker nor the victim pretrained here
hears them, and Resemblyzer was trained on other speakers. On 40 of their 100 recordings, cut into
seconds, every pair is a trial of verification; a probe learns these speakers from the other 60,
whose mean is subtracted before the cosine of a pair.

Attacks: direct extraction with mse, infonce and l1_cosine, at 100, 400 and 1,600 queries, into an
untrained student and into one that was pretrained first, by SimCLR on all 1,600 clips without the
victim; the same student is the baseline from scratch, for every budget. The longest clips, diverse
ones and a k-center are chosen against random ones at 400. From the victim pretrained here the last
layer or all four are learned, at one query a clip either way. Linear probes, five seeds: 195 runs.

Time, for a student that trains on 2,800 clips/s: surrogates 20 minutes (3.4 million clips),
evaluations 10, the victim and the students pretrained without it 4: about 35 minutes of one quiet
core. The same command goes on after a stop; `--run_index` splits it.

The family of comparisons, 41 in all: pretraining first, several layers, the choice of clips, fewer
queries, other losses, and all against the baseline from scratch. Two points count as none, of
accuracy and of the equal error rate.
"""

import measures
from pretrained import openwakeword

from ssl_extract import config

BUDGETS = {100: 90, 400: 40, 1_600: 16}  # queries, and epochs over their answers
FEW, MIDDLE, MOST = BUDGETS
SEEDS = (1, 2, 3, 4, 5)
MARGIN = 0.02
TASK = 'unseen_speakers'  # the one that measures/speakers.py measures
RATE, SECONDS = 16_000, 1.0

STUDENT = 'speech_transformer(width=64, depth=2, heads=2)'
TRANSFORMER = 'speech_transformer(width=96, depth=3, heads=3)'
LAYERS = {'attack.name': 'several_layers(widths=(96, 96, 96, 96))'}
PRETRAINED = {'victim.source': 'pretrain'}
WORDS = {
    'victim.source': f'function("pretrained.openwakeword:encode", dim={openwakeword.DIM}, '
    'address="openWakeWord 0.4.0")'
}

MSE, INFONCE = {'attack.loss': 'mse'}, {'attack.loss': 'infonce(temperature=0.07)'}
L1_COSINE = {'attack.loss': 'l1_cosine'}
LOSSES = {'mse': MSE, 'infonce': INFONCE, 'l1_cosine': L1_COSINE}
FIRST = {'attack.init': 'scratch'}
STRATEGIES = ('longest', 'diverse(rounds=2)', 'kcenter(rounds=2)')
BY_SPEAKER = {}  # the first task, the linear probe
BY_DIGIT = {'task': 'digit'}
UNSEEN = {'task': TASK, 'metric': 'equal_error_rate'}


def get_config(folder: str = 'speech'):
    c = config.base()
    c.modules = (f'{measures.__name__}.speakers',)  # found beside this file, wherever it runs
    c.data.name = digits(folder, 'speaker')
    c.victim.source = (
        f'torch(path="{folder}/pretrained.pt", encoder="ge2e", length={round(RATE * SECONDS)})'
    )
    c.victim.encoder = TRANSFORMER
    c.victim.split = 'train'
    c.victim.method = 'simclr(temperature=0.1, hidden=128, dim=64)'
    c.victim.augmentation = 'crop_time | gain | white_noise'
    c.victim.epochs = 20
    c.victim.batch_size = 128
    c.victim.learning_rate = 1e-3
    c.attack.encoder = STUDENT
    c.attack.split = f'train[:{MOST}]'
    c.attack.batch_size = 50
    c.baselines.scratch_epochs = 12
    c.baselines.scratch_inputs = MOST
    c.evaluation.victim = 'ask'
    c.evaluation.shots = 0  # its many probes take as long as an attack
    # With fewer labels than coordinates, penalties below 0.01 take long, for no gain.
    c.evaluation.probe = 'lbfgs(l2_grid=(1e-2, 1e-1, 1.0))'
    c.evaluation.tasks = (
        task(digits(folder, 'speaker'), 'speaker'),
        task(digits(folder, 'digit'), 'digit'),
        f'speech_folder(path="{folder}/librispeech", rate={RATE}, seconds={SECONDS}, '
        f'name="{TASK}", train="all[:60%]", test="all[60%:]")',
    )
    conditions = [
        condition(budget, loss, start)
        for budget in BUDGETS
        for loss in LOSSES.values()
        for start in ({}, FIRST)
    ]
    conditions += [chosen(strategy) for strategy in STRATEGIES]
    conditions += [
        condition(budget, L1_COSINE, start, more)
        for budget in BUDGETS
        for start in ({}, FIRST)
        for more in (PRETRAINED, PRETRAINED | LAYERS, WORDS)
    ]
    c.runs = tuple({'seed': seed, **overrides} for overrides in conditions for seed in SEEDS)
    c.report.comparisons = family()
    return c


def digits(folder: str, labels: str) -> str:
    """The set of spoken digits with these labels."""
    return (
        f'speech_npz(path="{folder}/fsdd.npz", rate=8000, to_rate={RATE}, seconds={SECONDS}, '
        f'labels="{labels}", test_where="index<10")'
    )


def task(spec: str, name: str) -> str:
    """The task of a set, whose probe learns from the clips that no attacker asks."""
    return f'{spec[:-1]}, name="{name}", train="train[{MOST}:]")'


def condition(budget: int, loss: dict, start: dict, more: dict | None = None) -> dict:
    """The overrides of one attack; the victim is Resemblyzer where `more` names no other."""
    return (
        loss
        | start
        | (more or {})
        | {
            'attack.budget': budget,
            'attack.epochs': BUDGETS[budget],
        }
    )


def chosen(strategy: str) -> dict:
    """The overrides of an attack that chooses its clips, with the middle budget."""
    return condition(MIDDLE, L1_COSINE, FIRST, {'attack.strategy': strategy})


def family() -> tuple[dict, ...]:
    """The comparisons that are tested together."""
    comparisons = []

    def compare(name: str, new: dict | tuple, old: dict | tuple, *measures: dict) -> None:
        for measure in measures:
            by = measure.get('metric', measure.get('task', 'speaker')).replace('_', ' ')
            comparisons.append(
                {'name': f'{name}: {by}', 'new': new, 'old': old, 'margin': MARGIN, **measure}
            )

    for budget in BUDGETS:
        asked = f'{budget:,} queries'
        steal, untrained = (condition(budget, L1_COSINE, start) for start in (FIRST, {}))
        best = tuple(condition(budget, loss, FIRST) for loss in LOSSES.values())
        compare(f'pretraining first, {asked}', steal, untrained, BY_SPEAKER, UNSEEN)
        compare(
            f'best loss against from scratch, {asked}', best, scratch(steal), BY_SPEAKER, UNSEEN
        )
        for name in ('mse', 'infonce'):
            other = condition(budget, LOSSES[name], FIRST)
            compare(f'{name} against l1_cosine, {asked}', other, steal, UNSEEN)
        last, last_untrained = (
            condition(budget, L1_COSINE, start, PRETRAINED) for start in (FIRST, {})
        )
        layers = condition(budget, L1_COSINE, FIRST, PRETRAINED | LAYERS)
        compare(f'pretraining first, own victim, {asked}', last, last_untrained, BY_DIGIT)
        compare(f'four layers against the last, {asked}', layers, last, BY_SPEAKER, BY_DIGIT)
    for strategy in STRATEGIES:
        random = condition(MIDDLE, L1_COSINE, FIRST)
        compare(f'{strategy} against random clips', chosen(strategy), random, BY_SPEAKER, UNSEEN)
    most = condition(MOST, L1_COSINE, FIRST)
    for budget in (FEW, MIDDLE):
        few = condition(budget, L1_COSINE, FIRST)
        compare(f'{budget} queries against {MOST:,}', few, most, BY_SPEAKER, UNSEEN)
    compare(f'{MOST:,} queries against the victim', most, of('victim', most), BY_SPEAKER, UNSEEN)
    own = condition(MOST, L1_COSINE, FIRST, PRETRAINED | LAYERS)
    compare(f'four layers, {MOST:,} queries, against from scratch', own, scratch(own), BY_DIGIT)
    words = condition(MOST, L1_COSINE, FIRST, WORDS)
    compare(f'words, {MOST:,} queries, against from scratch', words, scratch(words), BY_DIGIT)
    return tuple(comparisons)


def of(role: str, overrides: dict) -> dict:
    """The condition of another role in the runs with these overrides."""
    return {'role': role, **overrides}


def scratch(overrides: dict) -> dict:
    """The condition of the baseline from scratch."""
    return of('scratch', overrides)
