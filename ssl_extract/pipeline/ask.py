"""The attacker's accounts and the training arrays of their answers."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from ssl_extract import data, recovery
from ssl_extract.attacks.plans import PLANS, Plan, sent_views, stored_arrays, view_seeds
from ssl_extract.data import Dataset, take
from ssl_extract.oracle import store
from ssl_extract.oracle.queries import Queries
from ssl_extract.oracle.store import Answers, Bill
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Workspace
from ssl_extract.pipeline.services import Service
from ssl_extract.pipeline.victim import make_augmentation
from ssl_extract.recovery import sybils

Arrays = dict[str, np.ndarray]


class Attacker(NamedTuple):
    """An attacker: its service, its inputs, its query plan and its accounts.

    Attributes:
        service: the service that the attacker queries.
        pool: the attacker's inputs.
        plan: the views under which an input is sent.
        budget: queries over all accounts.
        seed: the seed of the pool's order, the views and the accounts' keys.
        batch_size: queries sent at a time.
        accounts: the number of accounts that share the inputs.
        overlap: the number of inputs that every account sends, where there are several accounts;
            0 leaves the answers of each account in a space of its own.
        spec: everything that the answers depend on; the account's address is its hash.
    """

    service: Service
    pool: Dataset
    plan: Plan
    budget: int
    seed: int
    batch_size: int
    accounts: int
    overlap: int
    spec: dict[str, Any]

    def account_spec(self, number: int = 0) -> dict[str, Any]:
        """Returns what the answers of account `number` depend on."""
        return self.spec | ({'account': number} if self.accounts > 1 else {})

    def key(self, number: int = 0) -> jax.Array:
        """Returns the random key of account `number`."""
        return jax.random.fold_in(jax.random.key(self.seed), 2 + 1000 * number)

    @property
    def num_inputs(self) -> int:
        """Returns how many inputs the budget pays for; under plan 'online' the whole pool."""
        if self.accounts > 1:
            return sybils.num_images(self.budget, self.accounts, self.overlap)
        stored = self.plan.stored
        return -(-self.budget // stored) if stored else len(self.pool.inputs)


@functools.cache
def make_plan(plan: str, query_augmentation: str) -> Plan:
    """Makes a query plan; the same specs give the same object.

    Args:
        plan: the spec of the plan.
        query_augmentation: the spec of the augmentation that makes a view.

    Raises:
        UserError: a spec does not parse, or a name is unknown.
    """
    return PLANS.make(plan, query_augmentation=make_augmentation(query_augmentation))


def collect(
    workspace: Workspace,
    service: Service,
    spec: dict[str, Any],
    key: jax.Array,
    queries: Queries,
    *,
    budget: int,
    batch_size: int,
    description: str = 'ask',
) -> Answers:
    """Returns the answers of one account, from a store at the address of `spec`.

    Two processes with the same account take turns.

    Args:
        workspace: where results are kept.
        service: the service that is queried.
        spec: everything that the answers depend on.
        key: the account's random key.
        queries: the queries, in the order in which they are sent.
        budget: queries that the account may send.
        batch_size: queries sent at a time.
        description: for the progress bar.
    """
    where = stage.address(workspace, spec)
    folder = workspace.folder / 'answers' / where
    with stage.lock(workspace, 'answers', where):
        stage.describe(folder, spec)
        return store.collect(
            folder,
            service.oracle(budget),
            key,
            queries,
            batch_size=batch_size,
            mesh=workspace.mesh,
            description=description,
        )


def ask(
    workspace: Workspace, attacker: Attacker, chosen: np.ndarray
) -> tuple[Arrays, Bill, dict[str, float]]:
    """Returns training arrays of the chosen inputs, the bill and the defense's findings.

    Of several accounts, a value that the defense noticed is the largest over the accounts.

    Args:
        workspace: where results are kept.
        attacker: sends the queries.
        chosen: int32[N], rows of the attacker's pool.

    Returns:
        The arrays [N, ...] with the answers, the bill of all accounts, and the defense's findings.
        Without an overlap the arrays hold `account` int32[N], the number of each input's account.
    """
    if attacker.accounts == 1:
        return _ask_account(workspace, attacker, chosen)
    shares = sybils.deal(len(chosen), attacker.accounts, attacker.overlap)
    answered = [
        _ask_account(workspace, attacker, chosen[share], number)
        for number, share in enumerate(shares)
    ]
    received = [  # of each input the row, in place of the input itself, which may lie in a file
        recovery.Received(chosen[share], arrays['answers'], arrays['answered'])
        for share, (arrays, _, _) in zip(shares, answered, strict=True)
    ]
    merged = sybils.merge(received, attacker.overlap)
    arrays = rows_of(attacker.pool, chosen) | {
        'answers': merged.answers,
        'answered': merged.answered,
        'view_seeds': np.zeros(merged.answered.shape, np.uint32),
    }
    if not attacker.overlap:
        arrays['account'] = np.arange(len(chosen), dtype=np.int32) % attacker.accounts
    billed, refused = (
        sum(getattr(bill, name) for _, bill, _ in answered) for name in ('billed', 'refused')
    )
    paid = [
        share[account.answered.any(axis=1)] for share, account in zip(shares, received, strict=True)
    ]
    unique = len(np.unique(np.concatenate(paid)))
    names = [n for n in answered[0][2] if all(n in noticed for _, _, noticed in answered)]
    noticed = {name: max(noticed[name] for _, _, noticed in answered) for name in names}
    return arrays, Bill(billed, unique, billed - unique, refused), noticed


def rows_of(pool: Dataset, chosen: np.ndarray) -> Arrays:
    """Returns training arrays of some inputs of the pool, without answers.

    Args:
        pool: the inputs.
        chosen: int32[N], rows of the pool.

    Returns:
        `inputs` [N, ...], and `labels` [N] where the pool has labels.
    """
    labels = {} if pool.labels is None else {'labels': pool.labels[chosen]}
    return {'inputs': take(pool.inputs, chosen), **labels}


def _ask_account(
    workspace: Workspace, attacker: Attacker, chosen: np.ndarray, number: int = 0
) -> tuple[Arrays, Bill, dict[str, float]]:
    plan, pool = attacker.plan, attacker.pool
    seeds = view_seeds(plan, len(pool.inputs), attacker.seed)[chosen]
    index, sent = sent_views(seeds, attacker.budget)
    answers = collect(
        workspace,
        attacker.service,
        attacker.account_spec(number),
        attacker.key(number),
        Queries(take(pool.inputs, chosen), index, sent, plan.view, data.decoder(pool)),
        budget=attacker.budget,
        batch_size=attacker.batch_size,
    )
    arrays = stored_arrays(seeds, answers.representations, answers.granted)
    return rows_of(pool, chosen) | arrays, answers.bill, answers.noticed
