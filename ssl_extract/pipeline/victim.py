"""The victim's stage: pretrained, or loaded from its source."""

import functools
import hashlib
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssl_extract import augment, data, training, victims
from ssl_extract.encoders import chain, num_params, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.pipeline import sets as sets_lib
from ssl_extract.pipeline import stage
from ssl_extract.pipeline.context import Run
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.stage import Optimization, StageRecord
from ssl_extract.victims import shelf
from ssl_extract.victims.model import Victim, from_encoder
from ssl_extract.victims.sources import SOURCES

# The fields of `victim` that a pretraining without the victim does not take.
NOT_OF_SCRATCH = ('encoder', 'split', 'seed', 'epochs', 'batch_size')

make_augmentation = functools.cache(augment.make)


class Sketch(NamedTuple):
    """The shapes and networks of a victim before it is trained or loaded; hashable.

    Attributes:
        encoder: the spec of the victim's network; '' where the package has no such network.
        heads: (name, spec) of the networks behind the encoder.
        input_shape: the shape of one input as the victim sees it.
        dim: the width of the victim's answers.
        answers: the kind of the answers, such as 'representation'.
        traced: whether the victim is a JAX function.
        address: the address of a loaded victim; '' of a victim that is pretrained.
        shadow: of a victim that has no such network, the spec of the network of which its owner
            makes a surrogate; '' where the owner has no free answers: a service or a table.
    """

    encoder: str
    heads: tuple[tuple[str, str], ...]
    input_shape: tuple[int, ...]
    dim: int = 0
    answers: str = 'representation'
    traced: bool = True
    address: str = ''
    shadow: str = ''


def victim_of(run: Run, sets: Sets) -> tuple[Victim, StageRecord]:
    """Returns the victim, pretrained or loaded, and the record of its stage.

    Args:
        run: the run.
        sets: the run's data.
    """
    victim = _load(run)
    if victim is not None:
        if victim.folder is None:
            cost = (victim.origin or {}).get('trained', {})
            seconds, flops = cost.get('seconds', 0.0), cost.get('flops')
            return victim, StageRecord('victim', victim.address, seconds=seconds, flops=flops)
        record = stage.read_record(victim.folder, 'victim')
        return victim, record._replace(address=victim.address, bill=None)
    form, train = stage.encoder_form(run.workspace, 'victim'), pretraining_of(run, sets)
    encoder, record = stage.cached(run.workspace, 'victim', spec_of(run, sets), train, form)
    return from_encoder(encoder, record.address), record


def pretraining_of(run: Run, sets: Sets) -> functools.partial[stage.Trained]:
    """Returns `stage.fit_encoder` of a victim that is pretrained, with all but the folder.

    Args:
        run: the run.
        sets: the run's data.
    """
    c, inputs = run.config.victim, sets.victim.inputs
    return functools.partial(
        stage.fit_encoder,
        run.workspace,
        recipe=make_recipe(c.method, c.encoder, c.augmentation),
        arrays={'inputs': inputs},
        role='victim',
        encoder=c.encoder,
        seed=c.seed,
        num_steps=c.epochs * (len(inputs) // c.batch_size),
        how=Optimization(c.optimizer, c.schedule, c.learning_rate, c.batch_size),
        decode=data.decoder(sets.victim),
    )


def address_of(run: Run, sets: Sets) -> str:
    """Returns the address of a victim that is pretrained; computes nothing.

    Args:
        run: the run.
        sets: the run's data.
    """
    return stage.address(run.workspace, spec_of(run, sets))


def _load(run: Run) -> Victim | None:
    """Returns the victim of a source; None of a victim that is pretrained.

    The address holds the source's address and the hash of the user's modules that took part. Other
    weights in the same place are another victim, and so are the same weights in an edited network.
    """
    source, modules = run.config.victim.source, run.workspace.modules
    victim = _read(source, run.workspace.mesh)
    if victim is None:
        return None
    networks = [victim.encoder.spec, victim.encoder.heads] if victim.encoder else []
    used = modules.used_in({'source': source, 'address': victim.address, 'networks': networks})
    if not used:
        return victim
    sources = hashlib.sha256(json.dumps(used, sort_keys=True).encode()).hexdigest()[:8]
    return victim._replace(address=f'{victim.address} {sources}')


def spec_of(run: Run, sets: Sets) -> dict[str, Any]:
    """Returns what a victim that is pretrained depends on; computes nothing.

    Args:
        run: the run.
        sets: the run's data.
    """
    fields = pretraining_spec(run.config.victim.to_dict())
    return {'stage': 'victim', 'inputs': sets.victim_spec, **fields}


def pretraining_spec(fields: dict[str, Any], *without: str) -> dict[str, Any]:
    """Returns the fields of `victim` that a pretraining depends on.

    Args:
        fields: the fields of `victim`.
        *without: names of fields to leave out.
    """
    return {k: v for k, v in fields.items() if k not in ('source', *without)}


def notes_of(run: Run, sets: Sets) -> list[str]:
    """Says what the sets have in common, and what a victim of a file is and was trained on.

    Args:
        run: the run.
        sets: the run's data.
    """
    victim, c = _load(run), run.config.victim
    origin = victim and victim.origin
    if not origin or 'trained' not in origin:
        own = [origin['note']] if origin else []
        return own + sets_lib.notes_of(run, sets)
    trained_on, size = origin['trained'], num_params(victim.encoder.variables)
    epochs = trained_on['epochs']
    notes = [
        f'the victim is {c.source}, {size:,} parameters, trained by {trained_on["method"]} on '
        f'{trained_on["data"]} for {epochs} epoch{"s" * (epochs > 1)}; its linear probe of '
        f'{origin["rows"][0]["task"]} had {shelf.accuracy(origin, "linear_probe")}'
    ]
    seen = trained_on['content'] == sets.victim_spec['content']
    if not seen:
        notes.append(
            f'the victim was trained on {trained_on["data"]}, and data.name with victim.split is '
            f'{sets.victim.name}: test inputs that the victim has seen are not looked for'
        )
    recipe = pretraining_spec(c.to_dict(), *NOT_OF_SCRATCH)
    other = [f'victim.{field}' for field in recipe if recipe[field] != trained_on[field]]
    if other and run.config.baselines.scratch_epochs:
        notes.append(
            f'the baseline from scratch has another {", ".join(other)} than the victim was '
            'trained with'
        )
    return notes + sets_lib.notes_of(run, sets, seen)


def sketch_of(run: Run, sets: Sets) -> Sketch:
    """Checks the fields of `victim` and returns the sketch of the victim.

    Args:
        run: the run.
        sets: the run's data.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    c, shape = run.config.victim, seen_shape(sets)
    victim = _load(run)  # a damaged source shows here
    if victim is not None:
        if victim.input_shape not in (None, shape):
            raise UserError(
                f'victim.source={c.source!r} takes inputs of {size(victim.input_shape)}, the data '
                f'has {size(shape)}: {advice(victim.input_shape)}'
            )
        encoder = victim.encoder
        return Sketch(
            encoder.spec if encoder else '',
            encoder.heads if encoder else (),
            shape,
            victim.dim,
            victim.answers,
            victim.traced,
            victim.address,
            '' if victim.encoder or victim.service or victim.knows else c.encoder,
        )
    check_victims_inputs(sets)
    recipe = make_recipe(c.method, c.encoder, c.augmentation)
    dim = trained.Encoder(c.encoder, abstract_variables(c.encoder, shape), shape).dim
    return Sketch(c.encoder, recipe.heads, shape, dim)


def check_victims_inputs(sets: Sets) -> None:
    """Checks that the inputs of `victim.split` have the shape of the attacker's.

    Args:
        sets: the run's data.

    Raises:
        UserError: they have another.
    """
    victims, shape = _seen_shape(sets.victim), seen_shape(sets)
    if victims != shape:
        raise UserError(
            f'{sets.victim.name} has inputs of {size(victims)} and the attacker of '
            f'{size(shape)}: {advice(shape)}'
        )


def studied(sets: Sets, sketch: Sketch) -> dict[str, Any]:
    """Describes network and sizes of a victim and its attack, for the head of a report.

    Args:
        sets: the run's data.
        sketch: the run's victim.
    """
    network = sketch.encoder or sketch.address
    params = None
    if sketch.encoder:
        params = num_params(abstract_variables(sketch.encoder, sketch.input_shape))
    images = None if sketch.address else len(sets.victim.inputs)
    return {
        'network': network,
        'parameters': params,
        'images': images,
        'pool': len(sets.pool.inputs),
    }


def knowledge_of(run: Run) -> tuple[str, Callable[[np.ndarray], np.ndarray] | None]:
    """Returns the address of a loaded victim, and `Victim.knows`; None where it takes any input."""
    victim = _load(run)
    return (victim.address, victim.knows) if victim else ('', None)


def forget() -> None:
    """Forgets the loaded victim."""
    _read.cache_clear()


def seen_shape(sets: Sets) -> tuple[int, ...]:
    """Returns the shape of one input of the pool, as encoders see it."""
    return _seen_shape(sets.pool)


def size(shape: tuple[int, ...]) -> str:
    """Writes a shape for an error message: '32x32' of images of three channels."""
    return 'x'.join(map(str, shape[:2] if len(shape) == 3 and shape[2] == 3 else shape))


def advice(shape: tuple[int, ...]) -> str:
    """Says in an error message how inputs get a shape; `data.size` makes squares of three channels.

    >>> advice((8, 12, 3))
    'prepare the inputs in the shape 8x12, with data.size=0, which keeps it'
    """
    kept = f'prepare the inputs in the shape {size(shape)}'
    if len(shape) == 3 and shape[0] == shape[1] and shape[2] == 3:
        return f'set data.size={shape[0]}, or {kept}'
    return f'{kept}, with data.size=0, which keeps it'


def example_victim(sketch: Sketch) -> Victim:
    """Makes a victim of a sketch's shapes, without values: for `jax.eval_shape` only."""
    if not sketch.encoder:
        answer = jax.tree_util.Partial(lambda x: jnp.zeros((x.shape[0], sketch.dim)))
        return Victim('', sketch.dim, answer, True, sketch.answers, sketch.input_shape)
    shapes = trained.shapes_of(sketch.encoder, sketch.heads, sketch.input_shape)
    heads = {name: chain.part(shapes, name) for name, _ in sketch.heads}
    encoder = Encoder(
        sketch.encoder, chain.part(shapes, 'encoder'), sketch.input_shape, sketch.heads, heads
    )
    return from_encoder(encoder, 'example')


@functools.cache
def abstract_variables(encoder: str, input_shape: tuple[int, ...]) -> Any:
    """Returns the shapes of a network's variables.

    Args:
        encoder: the spec of the network.
        input_shape: the shape of one input.
    """
    inputs = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    return jax.eval_shape(trained.make(encoder).init, jax.random.key(0), inputs)


@functools.cache
def make_recipe(method: str, encoder: str, augmentation: str) -> training.Recipe:
    """Makes a pretraining; the same specs give the same object, which is compiled once.

    Args:
        method: the spec of the pretraining.
        encoder: the spec of the network.
        augmentation: the spec of a view.
    """
    return victims.VICTIMS.make(
        method, encoder=trained.make(encoder), augmentation=make_augmentation(augmentation)
    )


@functools.lru_cache(maxsize=4)
def _read(source: str, mesh: jax.sharding.Mesh) -> Victim | None:
    """Reads the victim of a source; None of a victim that is pretrained."""
    load = SOURCES.make(source)
    return load and load(mesh)


def _seen_shape(dataset: data.Dataset) -> tuple[int, ...]:
    stored = jax.ShapeDtypeStruct((1, *dataset.inputs.shape[1:]), dataset.inputs.dtype)
    return jax.eval_shape(data.decoder(dataset), stored).shape[1:]
