"""Detection of attackers' accounts.

    python -m ssl_extract.studies.detection --victim=NAME ...

Writes a page with (a) the false positive and false negative rates of `similarity_guard` over
thresholds, as in tables 13-15 of arXiv 2205.07890, and (b) the separation of attackers' accounts
from users' accounts by the guard, `prada` and `bucket_coverage`. All accounts are real: they get
the victim's answers through the oracle and the defenses.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from etils import epath

from ssl_extract import data, defenses, numerics, oracle
from ssl_extract.encoders import trained
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features, roc
from ssl_extract.runtime import parallel, progress
from ssl_extract.studies.detection_tables import PAPER, Account, Point, accounts_tables, sweep_table
from ssl_extract.studies.detection_views import BATCH, viewed
from ssl_extract.victims import stored

FLAGS = flags.FlagValues()  # of this command alone
flags.DEFINE_string(
    'victim', '', "A trained victim's folder or a stored victim's name.", flag_values=FLAGS
)
flags.DEFINE_string('data', 'cifar10', 'The set of users and attackers.', flag_values=FLAGS)
flags.DEFINE_string('data_dir', '', 'The folder of the sets; see data.load.', flag_values=FLAGS)
flags.DEFINE_string('split', 'test', 'Of the data.', flag_values=FLAGS)
flags.DEFINE_string('other', '', 'The set of a user from elsewhere.', flag_values=FLAGS)
flags.DEFINE_string('out', 'detection.md', 'The page.', flag_values=FLAGS)
flags.DEFINE_string(
    'view', 'simclr(strength=0.5, min_scale=0.2)', "An attacker's views.", flag_values=FLAGS
)
flags.DEFINE_string(
    'user_view',
    'random_crop(padding=4) | flip',
    'Of a user that averages answers over views; leave out what the victim was not trained with.',
    flag_values=FLAGS,
)
flags.DEFINE_integer('seeds', 3, 'Draws of images and views.', 1, flag_values=FLAGS)
flags.DEFINE_integer('accounts', 8, 'Of each kind and seed.', 1, flag_values=FLAGS)
flags.DEFINE_integer('queries', 500, 'Of each account of (b).', 40, flag_values=FLAGS)
flags.DEFINE_integer('window', 128, "prada's.", 20, flag_values=FLAGS)
flags.DEFINE_list('histories', ['1', '50', '500'], 'Answers remembered in (a).', flag_values=FLAGS)
flags.DEFINE_list(
    'rates',
    ['0.01', '0.05', '0.1', '0.2', '0.3'],
    'False positive rates that the thresholds of (a) aim at.',
    flag_values=FLAGS,
)

GUARD_RATE = 0.05  # the threshold of (b)


class Victim(NamedTuple):
    """A victim with the head, as the owner has it.

    Attributes:
        represent: uint8[N, H, W, 3] -> float32[N, D].
        head: representations [B, D] -> projections [B, P].
        input_shape: of one input.
        name: the specs of encoder and head.
    """

    represent: Callable[[np.ndarray], np.ndarray]
    head: Callable[[jax.Array], jax.Array]
    input_shape: tuple[int, ...]
    name: str


def load_victim(folder: str, mesh: jax.sharding.Mesh) -> Victim:
    """Reads a pretrained victim: a folder with its meta.json, or one that is stored.

    Raises:
        UserError: there is no such victim, or it has no head or takes other inputs than color
            images.
    """
    if folder and (epath.Path(folder) / 'meta.json').exists():
        encoder = trained.load(epath.Path(folder), mesh)
    elif folder in stored.names():
        encoder = stored.read(folder, mesh).encoder
    else:
        raise UserError(
            f'--victim={folder}: write the folder of a victim, with its meta.json, or one of '
            f'{", ".join(stored.names())}'
        )
    if not encoder.heads:
        raise UserError(f'--victim={folder}: it has no projection head; pretrain one here')
    if len(encoder.input_shape) != 3 or encoder.input_shape[2] != 3:
        raise UserError(
            f'--victim={folder}: it takes inputs {list(encoder.input_shape)}, and accounts send '
            'images [H, W, 3]; name another victim'
        )
    name, spec = encoder.heads[0]
    head = functools.partial(trained.make_head(spec).apply, encoder.head_variables[name])
    represent = functools.partial(
        features.extract, encoder.network.apply, encoder.variables, mesh=mesh, progress=False
    )
    return Victim(represent, head, encoder.input_shape, f'`{encoder.spec}`, head `{spec}`')


def load_images(victim: Victim, spec: str, split: str, data_dir: str) -> data.Dataset:
    """Loads images in the shape that the victim takes; square images are resized.

    Raises:
        UserError: there is no such set, or its images are not uint8 or of another shape.
    """
    height, width, _ = victim.input_shape
    size = height if height == width else None
    dataset = data.load(spec, split, size=size, data_dir=data_dir)
    stored = f'{dataset.inputs.dtype}{list(dataset.inputs.shape[1:])}'
    if dataset.decode != 'images' or stored != f'uint8{list(victim.input_shape)}':
        raise UserError(
            f'{dataset.name} holds {stored} and the victim takes images of uint8'
            f'{list(victim.input_shape)}: prepare a set of those, a folder or an npz'
        )
    return dataset


def send(spec: str, victim: Victim, answers: np.ndarray) -> tuple[np.ndarray, Any]:
    """Sends the queries of several accounts, side by side, through the oracle and a defense.

    Args:
        spec: the defense.
        victim: for the head.
        answers: float32[A, Q, D], the victim's answers to the queries of each account, computed
            once for all defenses.

    Returns:
        (granted bool[A, Q], the accounts' defense states, stacked).
    """
    number, count = answers.shape[:2]
    init, query = _compile(spec, victim.head, count)
    keys = jax.random.split(jax.random.key(0), number)
    state = init(keys, jnp.asarray(answers[0, :1]))
    batch = min(BATCH, count)
    padded = np.pad(answers, ((0, 0), (0, -count % batch), (0, 0)))
    sent = np.broadcast_to(np.arange(padded.shape[1]) < count, padded.shape[:2])
    granted = []
    for start in range(0, count, batch):
        part = slice(start, start + batch)
        answer, state = query(padded[:, part], state, sent[:, part])
        granted.append(np.asarray(answer.granted))
    return np.concatenate(granted, axis=1)[:, :count], state.defense


@functools.lru_cache(maxsize=4)  # one program for all kinds of accounts
def _compile(spec: str, head: Callable, budget: int) -> tuple[Callable, Callable]:
    defended = oracle.make_oracle(_look_up, defenses.make(spec, head=head), budget=budget)
    init = jax.jit(jax.vmap(defended.init, in_axes=(0, None)))
    return init, jax.jit(jax.vmap(defended.query), donate_argnums=1)


def _look_up(inputs: jax.Array) -> jax.Array:
    return inputs


def sweep(
    victim: Victim,
    images: np.ndarray,
    view: str,
    seeds: int,
    histories: Sequence[int],
    rates: Sequence[float],
) -> tuple[list[Point], float]:
    """Measures the guard's rates (a), and chooses the threshold of (b), a cosine of projections.

    Thresholds come from one account that is not measured. A fresh query is a new image. A repeat is
    an augmented view of an image whose other view is the oldest answer in the history. Of 2 M
    queries, with M the longest history, the later M are measured; of repeats, the second views.

    Args:
        victim: see `Victim`.
        images: uint8[N, H, W, 3], for all accounts.
        view: the augmentation of repeats.
        seeds: number of draws of images and views.
        histories: capacities of the guard, divisors of the largest.
        rates: false positive rates that thresholds aim at.

    Returns:
        The rates at each threshold, and the threshold of (b).

    Raises:
        UserError: there are too few images.
    """
    longest = max(histories)
    order = np.random.default_rng(1).permutation(len(images))
    if len(order) < 2 * longest + 3 * longest * seeds:
        raise UserError(
            f'{len(images)} images do not do for --seeds={seeds} with --histories up to {longest}: '
            f'{longest * (2 + 3 * seeds)} are needed'
        )
    represented = victim.represent(images[order[: longest * (2 + 3 * seeds)]])
    calibration, rest = represented[: 2 * longest], represented[2 * longest :]
    fresh = [rest[3 * longest * s :][: 2 * longest] for s in range(seeds)]
    repeated = []
    for s in range(seeds):
        twice = images[order[(4 + 3 * s) * longest :][:longest]]
        repeated.append([victim.represent(viewed(twice, view, (s, i))) for i in (0, 1)])
    spaces = {'answer': calibration, 'projection': np.asarray(jax.jit(victim.head)(calibration))}
    conditions = [(m, s, h) for m in numerics.METRICS for s in spaces for h in histories]
    points = []
    for metric, space, history in progress.progress(conditions, desc='sweep', unit='guard'):
        image, second = roc.repeated_order(longest, history)
        repeats = [np.where(second[:, None], b[image], a[image]) for a, b in repeated]
        answers = np.stack([*fresh, *repeats])
        nearest = roc.nearest_before(spaces[space], metric, history)[longest:]
        for threshold in roc.thresholds(nearest, rates, metric):
            threshold = max(float(f'{threshold:.5g}'), 1e-6 if metric == 'l2' else -1)
            spec = guard(threshold, metric, space, history, 'refuse')
            flagged = ~send(spec, victim, answers)[0]
            fpr = roc.rate(list(flagged[:seeds, longest:]))
            fnr = roc.rate(list(~flagged[seeds:][:, second]))
            points.append(Point(metric, space, history, threshold, fpr, fnr))
    projected = roc.nearest_before(spaces['projection'], 'cosine', longest)
    (chosen,) = roc.thresholds(projected[longest:], (GUARD_RATE,), 'cosine')
    return points, float(f'{chosen:.5g}')


def guard(threshold: float, metric: str, of: str, capacity: int, then: str) -> str:
    """Writes the spec of a `similarity_guard`."""
    return (
        f'similarity_guard(threshold={threshold}, metric={metric!r}, of={of!r}, '
        f'capacity={capacity}, then={then!r})'
    )


def kinds(
    victim: Victim,
    dataset: data.Dataset,
    other: data.Dataset | None,
    view: str,
    user_view: str,
    queries: int,
) -> list[Account]:
    """Makes the kinds of accounts of (b), users first."""
    labels, answers = data.require_labels(dataset), victim.represent(dataset.inputs)
    present, size = np.unique(labels, return_counts=True)
    if len(present) < 2:
        raise UserError(f'--data: {dataset.name} has images of one class only; take another set')
    if np.sort(size)[:2].sum() < queries:
        raise UserError(
            f'--queries={queries}: two classes of {dataset.name} have only '
            f'{np.sort(size)[:2].sum()} images; write that or less'
        )

    def narrow(rng):
        classes = rng.choice(present, 2, replace=False)
        rows = np.flatnonzero(np.isin(labels, classes))
        return answers[rng.choice(rows, queries, replace=False)]

    def broad(rng):
        return answers[rng.choice(len(answers), queries, replace=False)]

    def two_views(rng, how):
        images = dataset.inputs[rng.choice(len(answers), (queries + 1) // 2, replace=False)]
        seeds = rng.integers(2**31, size=2)
        both = [viewed(images, how, (int(seed),)) for seed in seeds]
        return victim.represent(np.stack(both, axis=1).reshape(-1, *images.shape[1:])[:queries])

    def noise(rng):
        shape = (queries, *victim.input_shape)
        return victim.represent(rng.integers(0, 256, shape, dtype=np.uint8))

    users = [
        Account('narrow: 2 classes', False, narrow),
        Account('broad: all classes', False, broad),
        Account('averaging: 2 views', False, lambda rng: two_views(rng, user_view)),
    ]
    if other is not None:
        others = victim.represent(other.inputs)

        def elsewhere(rng):
            return others[rng.choice(len(others), queries, replace=False)]

        users.append(Account(f'from elsewhere: {other.name}', False, elsewhere))
    return [
        *users,
        Account('direct: each image once', True, broad),
        Account('contrastive: 2 views', True, lambda rng: two_views(rng, view)),
        Account('noise images', True, noise),
    ]


def account_scores(
    victim: Victim, types: list[Account], threshold: float, window: int, seeds: int, accounts: int
) -> dict[str, dict[str, np.ndarray]]:
    """Scores accounts (b), higher for likely attackers: by score and kind, [seeds * accounts]."""
    lists: dict[str, dict[str, list[float]]] = {}
    for number, kind in enumerate(progress.progress(types, desc='accounts', unit='kind')):
        rngs = [
            np.random.default_rng((s, number, a)) for s in range(seeds) for a in range(accounts)
        ]
        answers = np.stack([kind.ask(rng) for rng in rngs])
        queries = answers.shape[1]
        parts = (
            guard(threshold, 'cosine', 'projection', queries, ''),
            f'prada(window={window}, capacity={queries})',
            'bucket_coverage',
        )
        _, state = send(' | '.join(parts), victim, answers)
        for i in range(len(answers)):
            noticed = defenses.noticed(jax.tree.map(lambda x, i=i: x[i], state))
            scores = {
                'guard: share flagged': noticed['similarity_guard.num_flagged'] / queries,
                'prada: 1 - lowest W': 1 - noticed['prada.statistic'],
                'bucket coverage': noticed['bucket_coverage.coverage'],
            }
            for score, value in scores.items():
                lists.setdefault(score, {}).setdefault(kind.name, []).append(value)
    return {s: {k: np.array(v) for k, v in of.items()} for s, of in lists.items()}


def write(flag: flags.FlagValues) -> None:
    """Runs the study of the flags and writes the page."""
    histories = [int(h) if h.isdigit() else 0 for h in flag.histories]
    if not histories or min(histories) < 1 or any(max(histories) % h for h in histories):
        raise UserError(
            f'--histories={",".join(flag.histories)}: write whole numbers that divide the largest'
        )
    try:
        rates = [float(rate) for rate in flag.rates]
    except ValueError:
        rates = [0.0]
    if not rates or not all(0 < rate < 1 for rate in rates):
        raise UserError(f'--rates={",".join(flag.rates)}: write numbers between 0 and 1')
    if flag.window >= flag.queries:
        raise UserError(f'--window={flag.window}: write less than --queries={flag.queries}')
    victim = load_victim(flag.victim, parallel.data_mesh(1))
    dataset = load_images(victim, flag.data, flag.split, flag.data_dir)
    other = load_images(victim, flag.other, flag.split, flag.data_dir) if flag.other else None
    types = kinds(victim, dataset, other, flag.view, flag.user_view, flag.queries)
    points, threshold = sweep(victim, dataset.inputs, flag.view, flag.seeds, histories, rates)
    scores = account_scores(victim, types, threshold, flag.window, flag.seeds, flag.accounts)
    interval = "Student's over seeds, Wilson's where wider" if flag.seeds > 1 else "Wilson's"
    text = f"""# Detection of attackers' queries

Written by `python -m ssl_extract.studies.detection`; [defenses.md](defenses.md) says how it was
called. Victim {epath.Path(flag.victim).name} ({victim.name}), queries from {dataset.name},
{flag.seeds} seeds (images and views; one victim).

## Similar answers: false positives and negatives over thresholds

A false positive is a new image's answer that is flagged, a false negative an augmented repeat
(`{flag.view}`) that is not.
The account remembers `history` answers: a new image is compared with all of them, and a repeat's
first view is the oldest of them. A longer history offers more answers to resemble by chance.
Thresholds are set for false positive rates of {', '.join(f'{rate:.0%}' for rate in rates)}
on an account that is not measured. Means with 95 % intervals ({interval});
n = new images / repeats.

{sweep_table(points)}
The paper (arXiv 2205.07890, tables 13-15; another victim, so other scales; history not stated), as
threshold: FPR / FNR in %:

{PAPER}
## Accounts of {flag.queries} queries

Guard: cosine of projections above {threshold:g}, all {flag.queries} answers remembered. prada:
window of {flag.window}. Users that average views send `{flag.user_view}`. Means with (lowest to
highest) accounts; areas under the ROC with bootstrap 95 % intervals over accounts, which draw
their images each for itself from one set and may share some. A direct attacker asks what a broad
user asks: what an AUC between these two differs from 0.5 by is chance. The paper has no numbers for
accounts.

{accounts_tables(scores, types)}"""
    epath.Path(flag.out).parent.mkdir(parents=True, exist_ok=True)
    epath.Path(flag.out).write_text(text)


def main(argv: list[str]) -> int:
    """Writes the page; a wrong flag is one line on stderr."""
    try:
        if len(argv) > 1:
            raise UserError(f'unexpected {argv[1]!r}')
        write(FLAGS)
    except UserError as error:
        print('error:', error, file=sys.stderr)
        return 2
    print(f'page: {FLAGS.out}', file=sys.stderr)
    return 0


if __name__ == '__main__':
    flags.FLAGS.append_flag_values(FLAGS)
    FLAGS.mark_as_parsed()
    app.run(main)
