"""Stages: kept results, and the training of encoders in them.

A stage's folder is named by the hash of everything that its result depends on, the addresses of the
stages before it and the source of the user's own modules included. Runs that share a victim train
it once; a finished stage is never recomputed, an unfinished one goes on from its last checkpoint,
and of two processes that want the same stage one waits for the other. Where several processes
compute one run, the first of them decides whether a stage is finished, and writes it.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import defenses, training
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.oracle.store import Bill, make_bill
from ssl_extract.pipeline.context import Workspace
from ssl_extract.runtime import checkpoint, files, hosts, locks, progress

VERSION = 6  # raised when a stage's meaning changes, so that old results are not taken for new ones

# The field of a role's learning rate; of the owner's shadow, of the answers that it is trained on.
RATES = dict.fromkeys(('victim', 'scratch', 'shadow'), 'victim.learning_rate')


class StageRecord(NamedTuple):
    """The origin and the cost of an encoder.

    Attributes:
        role: 'victim', 'surrogate', 'scratch', 'random', ...
        address: the hash of the stage: two encoders with one address are the same.
        folder: the stage's folder; None where nothing was kept.
        seconds: the time of the training.
        flops: floating-point operations of the training; None where it ran elsewhere.
        bill: the cost of the queries; None where none were sent.
        noticed: the defense's knowledge of the account; see `defenses.noticed`.
    """

    role: str
    address: str
    folder: epath.Path | None = None
    seconds: float = 0.0
    flops: float | None = None
    bill: Bill | None = None
    noticed: dict[str, float] = {}  # noqa: RUF012  (never changed)


class Trained(NamedTuple):
    """An encoder and the record of its stage."""

    encoder: Encoder
    record: StageRecord


class Form(NamedTuple):
    """The files of a kind of result.

    Attributes:
        last: the file that is written last: a result with this file is whole.
        write: `(folder, result)`.
        read: `(folder) -> result`.
    """

    last: str
    write: Callable[[epath.Path, Any], None]
    read: Callable[[epath.Path], Any]


class Optimization(NamedTuple):
    """The names of optimizer and schedule, the learning rate and the batch size."""

    optimizer: str
    schedule: str
    learning_rate: float
    batch_size: int


JSON = Form(
    'result.json',
    lambda folder, result: write_json(folder, 'result.json', {'result': result}),
    lambda folder: read_json(folder, 'result.json')['result'],
)
ARRAYS = Form(
    'result.npz',
    lambda folder, arrays: files.write_npz(folder / 'result.npz', **arrays),
    lambda folder: files.read_npz(folder / 'result.npz'),
)


def cached(
    workspace: Workspace,
    kind: str,
    spec: dict[str, Any],
    make: Callable[[epath.Path], Any],
    form: Form = JSON,
) -> Any:
    """Returns a stage's result, which `make(folder)` computes where the folder has none.

    Args:
        workspace: where results are kept.
        kind: the kind of result, and the name of the folder's parent.
        spec: everything that the result depends on, as JSON.
        make: computes the result; after a kill it is called again on the same folder.
        form: the files of the result.
    """
    where = address(workspace, spec)
    folder = workspace.folder / kind / where
    is_done = (folder / form.last).exists
    done = hosts.agreed(is_done)
    if not done:
        with lock(workspace, kind, where):
            done = hosts.agreed(is_done)
            if not done:
                describe(folder, spec)
                with remaking(folder):
                    form.write(folder, make(folder))
    progress.note(folder, f'{kind}/{where}: finished before' if done else '')
    with remaking(folder):
        return form.read(folder)


def write_json(folder: epath.Path, name: str, value: dict[str, Any]) -> None:
    """Writes a JSON object of a stage, with the stage's address.

    Args:
        folder: the stage's folder.
        name: the file's name.
        value: the object.
    """
    files.write_json(folder / name, {'stage': folder.name, **value})


def read_json(folder: epath.Path, name: str) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Args:
        folder: the stage's folder.
        name: the file's name.

    Raises:
        DamagedError: the file is missing, damaged or of another stage.
    """
    value = files.read_json(folder / name)
    if value.get('stage') != folder.name:
        raise files.DamagedError(f'{folder / name} is of the stage {value.get("stage")}')
    return value


def remaking(folder: epath.Path) -> Any:
    """Returns a context in which a damaged file of a stage is an error that says how to go on.

    Args:
        folder: the stage's folder; everything in it can be computed again.
    """
    return files.advised(
        f'move {folder} out of the workdir and give the same command again, which makes it anew'
    )


def address(workspace: Workspace, spec: dict[str, Any]) -> str:
    """Returns the hash of a stage's description, with the user's modules that it names.

    Args:
        workspace: where results are kept.
        spec: the description, as JSON.
    """
    sources = workspace.modules.used_in(spec)
    whole = {'version': VERSION, **spec} | ({'modules': sources} if sources else {})
    text = json.dumps(whole, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@contextlib.contextmanager
def lock(workspace: Workspace, kind: str, where: str) -> Iterator[None]:
    """Holds the lock of one stage, or of one account, and removes what a kill left half written.

    Args:
        workspace: where results are kept.
        kind: the kind of result.
        where: the address.
    """
    path = workspace.folder / 'locks' / f'{kind}-{where}.lock'
    with locks.lock(path, f'{kind}/{where}'):
        files.remove_temporary(workspace.folder / kind / where)
        yield


def describe(folder: epath.Path, spec: dict[str, Any]) -> None:
    """Writes a stage's description beside its files.

    Args:
        folder: the stage's folder.
        spec: the description, as JSON.
    """
    if hosts.is_first() and not (folder / 'spec.json').exists():
        files.write_json(folder / 'spec.json', spec)


def seed_of(role: str, seed: int) -> int:
    """Returns the seed of a role's initialization and order; no two roles start alike.

    A surrogate that starts from the victim's initialization ends closer to the victim than an
    attacker could come.

    Args:
        role: the role of the encoder, such as 'victim'.
        seed: the seed of the role.
    """
    text = json.dumps({'role': role, 'seed': seed, 'version': 2}, sort_keys=True)
    return int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) % 2**31


def encoder_form(workspace: Workspace, role: str) -> Form:
    """Returns the files of a trained encoder, as `encoders.load` reads them.

    Args:
        workspace: where results are kept.
        role: the role of the encoder, such as 'victim'.
    """

    def write(folder: epath.Path, result: Trained) -> None:
        record = result.record
        trained.save(
            folder,
            result.encoder,
            seconds=round(record.seconds, 2),
            flops=record.flops,
            bill=None if record.bill is None else record.bill._asdict(),
            noticed=record.noticed,
        )

    def read(folder: epath.Path) -> Trained:
        if hosts.is_first():  # of no use beside a whole encoder
            (folder / 'checkpoints').rmtree(missing_ok=True)
        return read_encoder(folder, workspace.mesh, role)

    return Form('meta.json', write, read)


def read_encoder(folder: epath.Path, mesh: jax.sharding.Mesh, role: str) -> Trained:
    """Reads a trained encoder, of a stage or from elsewhere, with the record in meta.json.

    Args:
        folder: the encoder's folder.
        mesh: the devices.
        role: the role of the encoder, such as 'victim'.
    """
    return Trained(trained.load(folder, mesh), read_record(folder, role))


def read_record(folder: epath.Path, role: str) -> StageRecord:
    """Reads the record of a training from the meta.json of an encoder.

    Args:
        folder: the encoder's folder.
        role: the role of the encoder, such as 'victim'.
    """
    meta = checkpoint.read_meta(folder)
    bill = meta.get('bill')
    return StageRecord(
        role,
        epath.Path(folder).name,
        epath.Path(folder),
        meta.get('seconds', 0.0),
        meta.get('flops'),
        bill and Bill(**bill),
        meta.get('noticed') or {},
    )


def fit_encoder(
    workspace: Workspace,
    folder: epath.Path,
    recipe: training.Recipe,
    arrays: dict[str, np.ndarray],
    *,
    role: str,
    encoder: str,
    seed: int,
    num_steps: int,
    how: Optimization,
    decode: Callable,
    bill: Bill | None = None,
    noticed: dict[str, float] | None = None,
    oracle: Any = None,
    account: Any = (),
    frozen: dict[str, Any] | None = None,
    initial: dict[str, Any] | None = None,
    before: tuple[float, float] = (0.0, 0.0),
    label: str = '',
) -> Trained:
    """Trains a stage's encoder in `folder`, or resumes its training.

    Args:
        workspace: the devices and the steps between checkpoints.
        folder: the stage's folder.
        recipe: the recipe of the training.
        arrays: [N, ...] each, among them `inputs` as they are stored.
        role: of the stage; with `seed` it gives the seed.
        encoder: the spec of the encoder's network.
        seed: the seed of the role.
        num_steps: the steps of the training.
        how: optimizer, schedule, learning rate and batch size.
        decode: stored inputs to what encoders see.
        bill, noticed: of the stored answers.
        oracle, account: for the queries of the training, under plan 'online'.
        frozen, initial: variables of networks trained before; see `training.init_state`.
        before: seconds and operations that preparing the training took.
        label: for the progress bar.
    """
    fit = training.fit(
        recipe,
        arrays,
        num_steps=num_steps,
        **how._asdict(),
        seed=seed_of(role, seed),
        folder=folder,
        mesh=workspace.mesh,
        decode=decode,
        oracle=oracle,
        account=account,
        frozen=frozen,
        initial=initial,
        **workspace.rhythm(),
        description=f'{role} {label}'.strip(),
        field=RATES.get(role, 'attack.learning_rate'),
    )
    if oracle is not None:
        bill = make_bill(fit.queries, fit.state.oracle.num_refused)
        noticed = defenses.noticed(fit.state.oracle.defense)
    heads = tuple((name, spec) for name, spec in recipe.heads if name in fit.state.params)
    trained_encoder = Encoder(
        encoder,
        chain.part(fit.state, 'encoder'),
        _seen_shape(arrays['inputs'], decode),
        heads,
        {name: chain.part(fit.state, name) for name, _ in heads},
    )
    seconds, flops = before[0] + fit.seconds, before[1] + fit.flops
    record = StageRecord(role, folder.name, folder, seconds, flops, bill, noticed or {})
    return Trained(trained_encoder, record)


def _seen_shape(inputs: np.ndarray, decode: Callable) -> tuple[int, ...]:
    example = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), jnp.dtype(inputs.dtype))
    return jax.eval_shape(decode, example).shape[1:]
