"""Every registered attack, defense and kind of user in small runs, whose rows are kept.

`golden_runs.py:NAME` is one of EXPERIMENTS alone. `python tests/helpers/golden_runs.py` runs all of
them and writes their rows anew, `python tests/helpers/golden_runs.py NAME` those of some.
"""

if __name__ == '__main__':
    import pathlib
    import sys

    sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
    import conftest  # noqa: F401  (devices and compiler as in the tests, before JAX starts)

import collections
import json
import pathlib
import sys
import tempfile

import all_attacks
import tiny

from ssl_extract.pipeline import run as pipeline

ROWS = pathlib.Path(__file__).parent.parent / 'golden' / 'rows.jsonl'
EXPERIMENTS = ('tiny', 'attacks', 'more_attacks', 'defenses', 'simple_defenses')

WHO = (  # what a row is about: together they name it
    *('role', 'attack', 'loss', 'plan', 'views', 'strategy', 'data', 'endpoint', 'defense'),
    *('adaptive', 'user', 'encoder', 'budget', 'seed', 'task', 'metric'),
)
EXACT = (
    *('n', 'queries_billed', 'queries_unique', 'queries_repeated', 'queries_refused', 'dollars'),
)
CLOSE = ('value', 'ci_low', 'ci_high')
# How far CLOSE columns may lie apart. Measured against four emulated devices: with one device, and
# with the vector instructions of an older CPU (XLA's AVX, OpenBLAS's Haswell), shares of images
# moved by one image of 100 at most, few-shot accuracies by 0.002, the overlap of neighbors by
# 0.001 (its interval by 0.002), all else by 2e-4 of itself (ends of intervals: 5e-4); but behind
# prediction poisoning one device moved a value by 3e-3 and an end by 6e-3. Bills never moved.
IMAGES = 2.2  # of the test images that a share was measured on, and what the interval adds
SHARES = {  # metrics: how many test images they are of; None: n
    **dict.fromkeys(('linear_probe', 'knn', 'fewshot', 'agreement', 'classifier'), 100),
    **dict.fromkeys(('user_accuracy', 'user_accuracy_clean', 'user_chance', 'user_untrained')),
}
OVERLAP = 0.005  # of neighbors, in steps of 0.001
RELATIVE, ABSOLUTE = 2e-3, 5e-5  # of all else; twice as far for the ends of an interval
POISONED = 'prediction_poisoning'  # three times as far

BROAD, NARROW = 'broad', 'narrow(classes=3)'
AUGMENTING = 'augmenting(views=2, augmentation="random_crop(padding=1)")'
SYBILS = {'attack.overlap': 60}  # with less, rounding decides which penalty their map gets
EACH = all_attacks.RUNS | {'sybils': all_attacks.RUNS['sybils'] | SYBILS}
LIKE_OTHERS = (  # variants of attacks that are among the others, and strategies
    *('direct_views', 'recreate_simsiam_head', 'posteriors', 'kcenter', 'knockoff', 'stay_close'),
    *('repeat', 'near_duplicates', 'noise', 'another_student'),
)
ATTACKS = tuple(run for name, run in EACH.items() if name not in LIKE_OTHERS)
MORE_ATTACKS = tuple(EACH[name] for name in LIKE_OTHERS)
DEFENSES = (
    {'defense': 'bucket_coverage(bits=3, tables=4)'},
    {'defense': 'dynamarks(key=5)', 'attack.name': 'posteriors'},
    {'defense': 'dynamarks(rate=1.0)', 'attack.name': 'labels'},
    {'defense': 'espew(key=5)'},
    {'defense': 'gaussian_noise(stddev=0.1)', 'legitimate.users': (BROAD, NARROW, AUGMENTING)},
    {'defense': 'prada(delta=0.9, window=20, capacity=32, then="replace")'},
    {'defense': 'prediction_poisoning(radius=0.5)'},
    {'defense': 'rate_limit(queries=10, total=30)'},
    {'defense': 'region_mark(key=5, strength=0.5)'},
    {
        'defense': 'similarity_guard(of="projection", threshold=0.99, capacity=64, then="refuse")',
        'legitimate.users': (NARROW,),
    },
)
SIMPLE_DEFENSES = (  # each a formula, which tests/defenses compute another way
    {'defense': 'affine(condition=5.0)'},
    {'defense': 'binarize(bits=12)'},
    {'defense': 'diagonal'},
    {'defense': 'normalize'},
    {'defense': 'orthogonal'},
    {'defense': 'pad_shuffle(pad=3)'},
    {'defense': 'proof_of_work(bits=3, tables=4)'},
    {'defense': 'replace(mean=1.0, stddev=0.5)'},
    {'defense': 'round(decimals=1)'},
    {'defense': 'top_k(k=2)'},
)


def get_config(name: str = ''):
    """The runs of one of EXPERIMENTS; those of attacks and defenses without a name."""
    if name == 'tiny':
        return tiny.get_config()
    c = all_attacks.get_config()
    c.victim.encoder = 'resnet18(stem="patch", width=16, stages=(1,))'  # tells classes apart
    c.attack.learning_rate = 1e-2  # leads away from the initialization
    c.evaluation.probe = 'lbfgs(l2_grid=(0.001,))'
    c.legitimate.users = (BROAD,)
    c.legitimate.images = 40
    parts = {'attacks': ATTACKS, 'more_attacks': MORE_ATTACKS}
    parts |= {'defenses': DEFENSES, 'simple_defenses': SIMPLE_DEFENSES}
    c.runs = parts[name] if name else sum(parts.values(), ())
    return c


def run(name: str, workdir) -> list[dict]:
    """The rows of results.jsonl of an experiment, made now."""
    return pipeline.run(get_config(name), workdir=workdir)


def read() -> list[dict]:
    """All golden rows; `experiment` says of which of EXPERIMENTS a row is."""
    return [json.loads(line) for line in ROWS.read_text().splitlines()] if ROWS.exists() else []


def of(name: str) -> list[dict]:
    """The golden rows of an experiment."""
    return [row for row in read() if row['experiment'] == name]


def kept(name: str, rows: list[dict]) -> list[dict]:
    """What is kept of an experiment's rows: no empty columns, six digits, sorted."""

    def keep(row: dict) -> dict:
        found = {c: row[c] for c in (*WHO, *CLOSE, *EXACT) if row.get(c) is not None}
        rounded = {c: float(f'{found[c]:.6g}') for c in CLOSE if c in found}
        return {'experiment': name} | found | rounded

    return sorted(map(keep, rows), key=json.dumps)


def name_of(row: dict) -> tuple:
    """The identifying columns of a row."""
    return tuple(row.get(c) for c in WHO)


def differences(golden: list[dict], rows: list[dict]) -> list[str]:
    """How rows differ from the golden ones, a line each, with the row's name and the column.

    A row is found by its identifying columns, whatever its place. Columns that golden rows do not
    know are left out; one that a row lacks counts as None.
    """
    wanted = {name_of(row): row for row in golden}
    found = collections.defaultdict(list)
    for row in rows:
        found[name_of(row)].append(row)
    lines = [f'{describe(name)}: no such row any more' for name in wanted if name not in found]
    for name, same in found.items():
        if name not in wanted:
            lines.append(f'{describe(name)}: no golden row is called so')
        elif len(same) > 1:
            lines.append(f'{describe(name)}: {len(same)} rows are called so, not 1')
        else:
            lines += [
                f'{describe(name)}: {column} was {then!r} and is {now!r}'
                for column in (*CLOSE, *EXACT)
                for then, now in [(wanted[name].get(column), same[0].get(column))]
                if not alike(column, then, now, wanted[name])
            ]
    return lines


def describe(name: tuple) -> str:
    """The identifying columns that a row has, in words."""
    return ', '.join(f'{c}={v!r}' for c, v in zip(WHO, name, strict=True) if v is not None)


def alike(column: str, then, now, golden: dict) -> bool:
    """Whether a value is the golden one, up to what another CPU's rounding changes."""
    if column in EXACT or then is None or now is None:
        return then == now
    metric = golden['metric']
    if metric in SHARES:
        return abs(then - now) <= IMAGES / (SHARES[metric] or golden['n'])
    if metric == 'neighbor_overlap':
        return abs(then - now) <= OVERLAP
    far = (1 if column == 'value' else 2) * (3 if POISONED in golden.get('defense', '') else 1)
    return abs(then - now) <= far * max(RELATIVE * abs(then), ABSOLUTE)


def check(name: str, workdir) -> None:
    """Fails if the rows of an experiment are not the golden ones any more."""
    found = differences(of(name), run(name, workdir))
    assert not found, f'{len(found)} differences from tests/golden/rows.jsonl:\n' + '\n'.join(found)


def main(names: list[str]) -> None:
    """Writes the rows of some experiments anew, and keeps those of the others."""
    made = {name: of(name) for name in EXPERIMENTS}
    for name in names or EXPERIMENTS:
        with tempfile.TemporaryDirectory() as workdir:
            made[name] = kept(name, run(name, workdir))
    lines = [json.dumps(row, separators=(',', ':')) for name in EXPERIMENTS for row in made[name]]
    ROWS.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main(sys.argv[1:])
