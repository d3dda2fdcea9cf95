"""The attacker's own encoder, in recoveries and as the surrogate's start.

It is the encoder of the baseline 'from scratch': pretrained on the attacker's inputs, without the
victim.
"""

from typing import Any, NamedTuple

import numpy as np

from ssl_extract import attacks, data, recovery
from ssl_extract.data import Dataset
from ssl_extract.encoders.trained import Encoder, content_hash
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features
from ssl_extract.pipeline import baselines, stage
from ssl_extract.pipeline.ask import Arrays
from ssl_extract.pipeline.baselines import Scratch
from ssl_extract.pipeline.context import Run, Workspace
from ssl_extract.pipeline.sets import Sets
from ssl_extract.pipeline.victim import Sketch


class Began(NamedTuple):
    """The state of an attack before its first step.

    Attributes:
        initial: variables by network, as `training.init_state` takes them; None of an untrained
            surrogate.
        seconds, flops: what they cost.
    """

    initial: dict[str, Any] | None = None
    seconds: float = 0.0
    flops: float = 0.0


def scratch_of(run: Run, sets: Sets, sketch: Sketch) -> Scratch | None:
    """Returns the pretraining of the attacker's own encoder; None where nothing needs it."""
    a = run.config.attack
    needs = set(recovery.needs(a.recover)) | (attacks.STARTS.needs(a.init) if a.init else set())
    return baselines.scratch_of(run, sets, sketch.encoder) if 'shadow' in needs else None


def spec_of(run: Run, scratch: Scratch | None) -> dict[str, Any]:
    """Returns what a surrogate depends on beside its attack: its start, and the own encoder.

    Args:
        run: the run.
        scratch: of `scratch_of`.
    """
    spec, init = {}, run.config.attack.init
    if scratch is not None:
        spec['attackers_shadow'] = stage.address(run.workspace, scratch.spec)
    if init:
        spec['init'] = init
        if 'shadow' not in attacks.STARTS.needs(init):
            spec['started_from'] = content_hash(attacks.STARTS.make(init)(None))
    return spec


def begin(workspace: Workspace, init: str, scratch: Scratch | None) -> Began:
    """Returns what the surrogate starts from; the own encoder is trained where it is not there yet.

    Args:
        workspace: where results are kept.
        init: the spec of the start; '' is an untrained surrogate.
        scratch: the pretraining of the attacker's own encoder.
    """
    if not init:
        return Began()
    start, own = attacks.STARTS.make(init), None
    if 'shadow' in attacks.STARTS.needs(init):
        own = baselines.pretrain_scratch(workspace, scratch)
    encoder = start(own and own.encoder)
    cost = (own.record.seconds, own.record.flops) if own else (0.0, 0.0)
    return Began({'encoder': encoder.variables}, *cost)


def check_start(run: Run, sketch: Sketch) -> None:
    """Checks that the surrogate can start as the config says.

    Args:
        run: the run.
        sketch: the run's victim.

    Raises:
        UserError: one line that names the field, its value and what to write instead.
    """
    c, init = run.config, run.config.attack.init
    if not init:
        return
    if 'shadow' in attacks.STARTS.needs(init):
        if not c.baselines.scratch_epochs:
            raise UserError(
                f"attack.init={init!r} is the attacker's own encoder: set baselines.scratch_epochs"
            )
        return
    found = attacks.STARTS.make(init)(None)
    if not isinstance(found, Encoder):
        raise UserError(f'attack.init={init!r} gives a {type(found).__name__}, not an Encoder')
    own = c.attack.encoder or sketch.encoder
    if (found.spec, found.input_shape) != (own, sketch.input_shape):
        raise UserError(
            f'attack.init={init!r} is {found.spec} on inputs {list(found.input_shape)}, and the '
            f'surrogate {own} on inputs {list(sketch.input_shape)}; write '
            f'attack.encoder={found.spec!r}, or name another start'
        )


def recover(
    workspace: Workspace,
    spec: str,
    scratch: Scratch | None,
    pool: Dataset,
    seed: int,
    arrays: Arrays,
) -> Arrays:
    """Returns the training arrays after the recoveries on their answers.

    The attacker's own encoder is trained when a recovery first uses it.

    Args:
        workspace: where results are kept.
        spec: of the recoveries.
        scratch: the pretraining of the attacker's own encoder.
        pool: the attacker's inputs.
        seed: the attacker's seed.
        arrays: inputs, answers and answered, as asked.
    """
    decode = data.decoder(pool)

    def represent(inputs: np.ndarray) -> np.ndarray:
        own = baselines.pretrain_scratch(workspace, scratch).encoder
        apply, mesh = own.network.apply, workspace.mesh
        return features.extract(apply, own.variables, inputs, decode=decode, mesh=mesh)

    received = recovery.Received(arrays['inputs'], arrays['answers'], arrays['answered'])
    recovered = recovery.make(spec)(received, recovery.Shadow(represent, seed, decode))
    return arrays | {
        'answers': recovered.answers.astype(np.float32),
        'answered': recovered.answered,
    }
