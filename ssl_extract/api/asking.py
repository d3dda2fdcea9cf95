"""Oracles and collected answers, for the facade."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import attacks, augment, data, defenses, oracle
from ssl_extract import victims as victims_room
from ssl_extract.api import inputs as inputs_lib
from ssl_extract.api.inputs import Inputs
from ssl_extract.attacks.plans import Plan, sent_views, view_seeds
from ssl_extract.checks import check_whole
from ssl_extract.data import Dataset
from ssl_extract.encoders import check_vocabulary
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.identity import content_of, spec_content
from ssl_extract.oracle import Oracle, store
from ssl_extract.oracle.queries import Queries
from ssl_extract.oracle.store import Bill
from ssl_extract.runtime import parallel
from ssl_extract.victims.model import Victim


class Answers(NamedTuple):
    """The inputs that an account has sent, and their answers.

    Attributes:
        inputs: [N, ...], as they were passed to `collect`.
        representations: float32[N, D], the answer to each input, zeros where there is no answer;
            [N, m, D] under a plan that sends an input m times.
        granted: bool[N] or [N, m], whether there is an answer.
        bill: the cost of the answers: billed, unique, repeated and refused queries.
        plan: the specs of the plan and of the query augmentation.
        view_seeds: uint32[N, m], the seeds of the views.
        decode: the name of the inputs' decoder.
        endpoint: the kind of an answer, such as 'representation'; see `Victim`.
    """

    inputs: np.ndarray
    representations: np.ndarray
    granted: np.ndarray
    bill: Bill
    plan: tuple[str, str]
    view_seeds: np.ndarray
    decode: str
    endpoint: str


def make_oracle(
    victim: Victim | Encoder | Callable[[jax.Array], jax.Array],
    defense: str | defenses.Defense | Callable[[jax.Array, jax.Array], jax.Array] | None = None,
    *,
    budget: int,
) -> Oracle:
    """Makes black-box access to a victim behind a defense; see `ssl_extract.oracle.make_oracle`.

    >>> oracle = make_oracle(lambda inputs: inputs[:, :2], 'round(decimals=1)', budget=100)
    >>> collect(oracle, np.full((3, 4), 0.26)).representations[0].tolist()
    [0.30000001192092896, 0.30000001192092896]

    Args:
        victim: a `Victim`, an `Encoder`, or a pure JAX function `[B, ...] -> [B, D]`; wrap any
            other function in `victims.from_function`.
        defense: a spec, a `Defense`, a function as `defenses.stateless` takes it, or None.
        budget: queries that one account may send.

    Returns:
        The oracle, with a description of victim and defense by content.

    Raises:
        UserError: the victim cannot be called, the defense is no defense or does not fit the
            victim's answers, or the budget is not a whole number.
    """
    victim = victims_room.from_encoder(victim) if isinstance(victim, Encoder) else victim
    if not isinstance(victim, Victim) and not callable(victim):
        raise UserError(f'victim: {victim!r} is no Victim, Encoder or JAX function')
    defense = _defense_of(defense)
    plain = None if isinstance(victim, Victim) else jax.tree_util.Partial(victim)
    answering = jax.tree_util.Partial(_rows_of, plain) if plain else victim
    victims_oracle = oracle.make_oracle(answering, defense, budget=budget)
    about = victims_oracle.about
    if isinstance(defense, str):
        defenses.check_endpoint(defense, about.answers)
        about = dataclasses.replace(about, defense=spec_content(defenses.DEFENSES, defense))
    elif defense is not None:
        about = dataclasses.replace(about, defense=content_of(defense))
    if plain:
        about = dataclasses.replace(about, victim=content_of(victim))
    return dataclasses.replace(victims_oracle, about=about)


def collect(
    oracle: Oracle,
    inputs: Inputs,
    *,
    folder: epath.PathLike | None = None,
    batch_size: int = 64,
    seed: int = 1,
    plan: str = 'once',
    query_augmentation: str = '',
) -> Answers:
    """Sends inputs to an oracle and keeps the answers; stored answers are not sent again.

    The folder is one account: the budget goes on from call to call, also after an error or a kill.
    Inputs of the same content are sent once and billed once, and share their answer. The plan
    'repeat(m=2)' sends an input again and pays again.

    Args:
        oracle: from `make_oracle`.
        inputs: [N, ...].
        folder: the account's folder; None opens a new account that is forgotten afterwards.
        batch_size: queries sent at a time.
        seed: the seed of the account's secrets and of the views.
        plan: a stored query plan, 'once', 'views(m=2)' or 'repeat(m=4)'.
        query_augmentation: the spec of a view, under 'views'; '' is 'simclr' there.

    Returns:
        The answers to all inputs, stored and new, and the bill of the inputs.

    Raises:
        UserError: more queries are to be sent than the budget leaves (nothing is sent then), the
            folder holds another account, or the inputs do not fit the victim.
    """
    _check_oracle(oracle, stored=folder is not None)
    dataset = inputs_lib.dataset_of(inputs, 'inputs')
    inputs_lib.check_shape(dataset, oracle.about.input_shape, f'victim {oracle.about.victim}')
    if oracle.about.encoder:  # answers to unknown tokens would be NaN, and billed
        check_vocabulary('victim', oracle.about.encoder, dataset)
    check_whole('batch_size', batch_size, 1)
    check_whole('seed', seed, 0)
    mesh = parallel.data_mesh()
    if oracle.traced:
        parallel.check_batch_size(batch_size, mesh, 'batch_size')
    asks, query_augmentation = _plan_of(plan, query_augmentation, dataset)
    seeds = view_seeds(asks, len(dataset.inputs), seed)
    if asks.view is not None:  # views of another kind are other queries
        kind = content_of(spec_content(augment.AUGMENTATIONS, query_augmentation))
        seeds ^= np.uint32(int(kind[:8], 16))
    dim = _check_victim(oracle, inputs_lib.decoded_shape(dataset), batch_size)
    with inputs_lib.opened(folder) as where:
        answers = store.collect(
            where,
            oracle,
            jax.random.key(seed),
            Queries(
                dataset.inputs, *sent_views(seeds, seeds.size), asks.view, data.decoder(dataset)
            ),
            batch_size=batch_size,
            mesh=mesh,
            identity={
                'victim': oracle.about.victim,
                'dim': dim,
                'defense': oracle.about.defense,
                'seed': seed,
            },
        )
    shape = seeds.shape if asks.stored > 1 else seeds.shape[:1]
    return Answers(
        dataset.inputs,
        answers.representations.reshape(*shape, -1),
        answers.granted.reshape(shape),
        answers.bill,
        (plan, query_augmentation),
        seeds,
        dataset.decode,
        oracle.about.answers,
    )


def _defense_of(defense: Any) -> str | defenses.Defense | None:
    """Returns the defense of an argument; a plain function becomes a stateless defense.

    Raises:
        UserError: the argument is neither a spec, nor a `Defense`, nor a function of outputs and
            keys.
    """
    if isinstance(defense, str | defenses.Defense | None):
        return defense
    try:
        inspect.signature(defense).bind(None, None)
    except (TypeError, ValueError):
        raise UserError(
            f'defense: {defense!r} is neither a spec, nor a Defense, nor a function (outputs '
            '[B, D], keys key[B]) -> outputs'
        ) from None
    return defenses.stateless(defense)


def make_plan(plan: str, query_augmentation: str) -> Plan:
    """Makes a query plan.

    Args:
        plan: the spec of the plan.
        query_augmentation: the spec of the augmentation that makes a view.

    Raises:
        UserError: a spec does not parse, or a name is unknown.
    """
    return attacks.PLANS.make(plan, query_augmentation=augment.make(query_augmentation))


def _plan_of(plan: str, query_augmentation: str, dataset: Dataset) -> tuple[Plan, str]:
    """Returns the plan and the spec of its views.

    Raises:
        UserError: the plan asks while it trains, or plan, views and inputs do not go together.
    """
    asks = make_plan(plan, query_augmentation)
    if not asks.stored:
        raise UserError(f"plan={plan!r} asks while it trains: write 'once', 'views(m=2)', ...")
    if attacks.PLANS.traits(plan).changes:
        data.check_unpadded(dataset, f'plan={plan!r}')
    if not attacks.PLANS.traits(plan).augments:
        if query_augmentation not in ('', 'none'):
            raise UserError(
                f'query_augmentation={query_augmentation!r}: plan {plan!r} asks each input as it '
                "is; write plan='views(m=1)', or leave it out"
            )
        return asks, 'none'
    view = query_augmentation or 'simclr'
    if view == 'none' and asks.stored > 1:
        raise UserError(
            f'plan={plan!r} would ask the same input {asks.stored} times; write '
            f"query_augmentation='simclr', or plan='repeat(m={asks.stored})'"
        )
    inputs_lib.view_of(view, dataset, 'query_augmentation')
    return make_plan(plan, view), view


def _check_oracle(oracle: Oracle, stored: bool) -> None:
    """Raises UserError unless it is an oracle, and one with a description if answers are stored."""
    if not isinstance(oracle, Oracle):
        raise UserError(
            f'oracle: {type(oracle).__name__} is none: write ssl_extract.make_oracle(victim, '
            'budget=...)'
        )
    if stored and (not oracle.about.victim or oracle.about.defense == '(a function)'):
        raise UserError(
            'folder: this oracle does not say which victim or defense its answers are of: make it '
            'with ssl_extract.make_oracle'
        )


def _check_victim(oracle: Oracle, shape: tuple[int, ...], batch_size: int) -> int:
    """Returns D, the width of an answer, which is found without a query.

    Raises:
        UserError: a JAX victim does not take such inputs, or does not give [B, D].
    """
    inputs = jax.ShapeDtypeStruct((batch_size, *shape), jnp.float32)
    if not oracle.traced:
        return oracle.about.dim
    try:
        account = jax.eval_shape(oracle.init, jax.random.key(0), inputs)
        answer, _ = jax.eval_shape(oracle.query, inputs, account)
    except UserError:
        raise
    except jax.errors.JAXTypeError as error:
        raise UserError(
            'victim: it is no JAX function; give victims.from_function(fn, dim=...)'
        ) from error
    except (TypeError, ValueError, IndexError) as error:
        line = (str(error).splitlines() or [''])[0]
        raise UserError(f'victim: it does not take inputs {list(inputs.shape)}: {line}') from error
    return answer.representations.shape[1]


def _rows_of(fn: Callable[[jax.Array], jax.Array], inputs: jax.Array) -> jax.Array:
    outputs = fn(inputs)
    if outputs.ndim != 2 or len(outputs) != len(inputs):
        raise UserError(
            f'victim: it answers {len(inputs)} inputs with {list(outputs.shape)}; it must give '
            f'[{len(inputs)}, D]'
        )
    return outputs
