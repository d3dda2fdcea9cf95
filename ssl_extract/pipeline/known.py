"""The inputs that a run asks of a victim that knows fixed inputs only."""

import contextlib
import functools
from collections.abc import Callable, Iterator

from ssl_extract import attacks, data
from ssl_extract.data import Dataset
from ssl_extract.errors import UserError
from ssl_extract.oracle import queries as queries_lib
from ssl_extract.oracle.queries import Queries
from ssl_extract.pipeline import visits
from ssl_extract.pipeline.ask import make_plan
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import ById, Sets
from ssl_extract.pipeline.victim import knowledge_of


def check_known(run: Run, sets: Sets) -> None:
    """Checks that such a victim has an answer to each input that a run may ask.

    A strategy may choose any input of the pool, so that the victim must know them all.

    Args:
        run: the run.
        sets: the run's data.

    Raises:
        UserError: the victim does not know an input, or views of inputs are asked.
    """
    address, knows = knowledge_of(run)
    if knows is None:
        return
    for field, dataset in _asked_sets(run, sets):
        with _naming(field):
            _check_set(address, knows, ById(dataset))
    for field, queries in _other_queries(run, sets):
        with _naming(field):
            queries_lib.check_known(address, knows, queries)


@contextlib.contextmanager
def _naming(field: str) -> Iterator[None]:
    """Names the field in an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{field}: {error}') from None


@functools.lru_cache(maxsize=16)
def _check_set(address: str, knows: Callable, dataset: ById) -> None:
    whole = dataset.dataset
    queries = queries_lib.plain(whole.inputs, data.decoder(whole))
    queries_lib.check_known(address, knows, queries)


def _asked_sets(run: Run, sets: Sets) -> Iterator[tuple[str, Dataset]]:
    """Yields the sets that may be asked as they are, with the field that names each."""
    c = run.config
    yield f'attack.split={c.attack.split!r}', sets.pool
    if c.evaluation.victim == 'ask':
        for part in (part for task in sets.tasks for part in (task.train, task.test)):
            yield f"evaluation.victim='ask', {part.name}", part


def _other_queries(run: Run, sets: Sets) -> Iterator[tuple[str, Queries]]:
    """Yields the views that a run asks, and the queries of users, with the field of each."""
    c = run.config
    plan = make_plan(c.attack.plan, c.attack.query_augmentation)
    if plan.view is not None:
        queries = queries_lib.plain(sets.pool.inputs)._replace(view=plan.view)
        yield f'attack.plan={c.attack.plan!r}', queries
    settings = visits.settings_of(run, sets)
    classes = visits.answers_classes(attacks.endpoint_of(c.attack.name))
    for kind in c.legitimate.users if c.defense else ():
        yield f'legitimate.users has {kind!r}', visits.visit_of(settings, kind, classes).queries
