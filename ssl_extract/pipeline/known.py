"""The inputs that a run asks of a victim that knows fixed inputs only."""

from collections.abc import Iterator

from ssl_extract import attacks, data
from ssl_extract.data import Dataset
from ssl_extract.errors import UserError
from ssl_extract.oracle import queries as queries_lib
from ssl_extract.oracle.queries import Queries
from ssl_extract.pipeline import visits
from ssl_extract.pipeline.ask import make_plan
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets
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
    for field, queries in _asked(run, sets):
        try:
            queries_lib.check_known(address, knows, queries)
        except UserError as error:
            raise UserError(f'{field}: {error}') from None


def _asked(run: Run, sets: Sets) -> Iterator[tuple[str, Queries]]:
    """Yields all queries of a run, with the field that names them."""
    c, pool = run.config, sets.pool
    plan = make_plan(c.attack.plan, c.attack.query_augmentation)
    field = 'plan' if plan.view else 'split'
    yield f'attack.{field}={c.attack[field]!r}', _all_of(pool)._replace(view=plan.view)
    if c.evaluation.victim == 'ask':
        for task in sets.tasks:
            for part in (task.train, task.test):
                yield f"evaluation.victim='ask', {part.name}", _all_of(part)
    settings = visits.settings_of(run, sets)
    classes = visits.answers_classes(attacks.endpoint_of(c.attack.name))
    for kind in c.legitimate.users if c.defense else ():
        visit = visits.visit_of(settings, kind, classes)
        yield f'legitimate.users has {kind!r}', visit.queries


def _all_of(dataset: Dataset) -> Queries:
    return queries_lib.plain(dataset.inputs, data.decoder(dataset))
