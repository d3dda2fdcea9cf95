"""The service: a victim behind a defense, and the accounts of its users."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from typing import Any

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract import defenses
from ssl_extract.errors import UserError
from ssl_extract.identity import spec_content
from ssl_extract.oracle import MAX_BUDGET, make_oracle
from ssl_extract.runtime import files
from ssl_extract.serve.accounts import Account
from ssl_extract.serve.tokens import OWNER, Entry
from ssl_extract.serve.worker import Worker
from ssl_extract.victims import endpoints, wire
from ssl_extract.victims.model import Victim


class Service:
    """A victim behind a defense, with one account for each entry of the tokens file.

    Attributes:
        entries: of the tokens file, the owner's included.
        accounts: by name, without the owner.
        shape: of one input.
        dim: D, the width of an answer behind the defense.
        answers: the kind of an answer; see `Victim`.
        address: of the victim.
        name: drawn at random for a new folder of ledgers: a client stores answers under address and
            name, so that another defense or another key never counts as the same service.
        defense: the spec of the defense.
    """

    def __init__(
        self,
        victim: Victim,
        defense: str,
        entries: list[Entry],
        state: epath.PathLike,
    ) -> None:
        """Opens the accounts; see `open_service`.

        Args:
            victim: answers NumPy arrays, from any thread.
            defense: the spec or chain of the defense.
            entries: of the tokens file.
            state: the folder, of which the caller holds the lock.
        """
        self.entries, self.defense = entries, defense
        self.shape, self.answers, self.address = victim.input_shape, victim.answers, victim.address
        self._knows = victim.knows
        made = _defense_of(victim, defense)
        self.dim = _width(victim, made)
        folder = epath.Path(state)
        victims_own = {'dim': self.dim, 'input_shape': list(self.shape), 'answers': self.answers}
        about = {'address': victim.address, 'defense': spec_content(defenses.DEFENSES, defense)}
        self.name = _identify(folder, victims_own | about)
        self.accounts = {
            entry.name: Account(
                folder / 'accounts' / entry.name,
                make_oracle(victim, made, budget=entry.budget or MAX_BUDGET),
                self.shape,
                entry.budget,
            )
            for entry in entries
            if entry.name != OWNER
        }

    def count_unknown(self, inputs: np.ndarray) -> int:
        """Counts the inputs that the victim has no answer to, as one that is a table."""
        return 0 if self._knows is None else int(np.sum(~self._knows(inputs)))

    def about(self) -> dict[str, Any]:
        """Returns the description of the service that every account may read."""
        return {
            'dim': self.dim,
            'input_shape': list(self.shape),
            'answers': self.answers,
            'address': _public(self.address, self.name),
        }

    def ledger(self) -> dict[str, Any]:
        """Returns the bills of all accounts, and what the defense noticed of each."""
        accounts = {name: account.ledger() for name, account in self.accounts.items()}
        return {'victim': self.address, 'defense': self.defense, 'accounts': accounts}


@contextlib.contextmanager
def open_service(
    victim: Victim,
    defense: str,
    entries: list[Entry],
    state: epath.PathLike,
    input_shape: tuple[int, ...] | None = None,
) -> Iterator[Service]:
    """Opens a service and holds its folder, which no other process can open meanwhile.

    Args:
        victim: of any source.
        defense: the spec or chain of the defense; '' is none.
        entries: of the tokens file.
        state: the local folder of ledgers and answers; a new one is made.
        input_shape: of one input, for a victim that does not say.

    Yields:
        The service.

    Raises:
        UserError: the shape of inputs is unknown, or another than the victim's; the defense does
            not fit; the folder is in use, damaged, or holds the ledger of another service.
    """
    if input_shape and victim.input_shape not in (None, input_shape):
        raise UserError(
            f'--input_shape={_written(input_shape)}: this victim takes inputs of '
            f'{_written(victim.input_shape)}; leave the flag out'
        )
    if victim.service is not None:
        raise UserError('--victim=http(...) is served elsewhere: ask that service itself')
    if not wire.is_name(_public(victim.address, 16 * '0')):
        raise UserError(
            f'--victim: {wire.shown(victim.address)!r} is no name that clients take, of one '
            'printable line of at most 480 characters: write another address=...'
        )
    shape = victim.input_shape or input_shape
    if not shape:
        raise UserError(
            'this victim does not say the shape of its inputs: write it, as in '
            '--input_shape=32,32,3'
        )
    folder = files.absolute(state)
    if not files.is_local(folder):
        raise UserError(f'--state={state}: a bucket has no locks; write a local folder')
    if not folder.exists():
        folder.mkdir(parents=True)
        os.chmod(folder, 0o700)  # of a folder that was there, the owner's rights stay
    lock = filelock.FileLock(folder / 'lock')
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f'--state={state}: another server uses this folder: stop it, or write another folder'
        ) from None
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        worker = Worker(victim)
        stack.callback(worker.close)
        called = victim._replace(traced=False, answer=worker.answer, input_shape=shape)
        yield Service(called, defense, entries, folder)


def _defense_of(victim: Victim, spec: str) -> defenses.Defense:
    """Makes the defense, with the victim's own head where the defense needs one."""
    defenses.check_endpoint(spec, victim.answers)
    needs, encoder, parts = defenses.needs(spec), victim.encoder, {}
    if 'shadow' in needs:
        raise UserError(
            f'--defense={spec!r} needs a surrogate of the victim, which is trained in an '
            'experiment only; write another defense'
        )
    if 'head' in needs and encoder and encoder.heads:
        parts['head'] = endpoints.head_of(victim)
    return defenses.make(spec, **parts)


def _width(victim: Victim, defense: defenses.Defense) -> int:
    """Returns the width of an answer behind the defense; computes nothing."""
    answer = jax.tree_util.Partial(lambda inputs: jnp.zeros((len(inputs), victim.dim)))
    oracle = make_oracle(answer, defense, budget=1)
    inputs = jax.ShapeDtypeStruct((8, *victim.input_shape), jnp.float32)
    account = jax.eval_shape(oracle.init, jax.random.key(0), inputs)
    return jax.eval_shape(oracle.query, inputs, account)[0].representations.shape[1]


def _identify(folder: epath.Path, identity: dict[str, Any]) -> str:
    """Writes into a new folder which service it is of, and returns the service's name.

    Raises:
        UserError: the folder is of another service.
    """
    path = folder / 'service.json'
    if not path.exists():
        if (folder / 'accounts').exists():
            raise UserError(f'{path} is missing, and there are accounts: put it back from a copy')
        files.write_json(path, identity | {'name': secrets.token_hex(8)})
    with files.advised('put it back from a copy'):
        stored = files.read_json(path)
    name = stored.pop('name', None)
    if stored != identity or not isinstance(name, str):
        differing = ', '.join(key for key in identity if stored.get(key) != identity[key])
        raise UserError(
            f'--state={folder}: it holds the ledger of another service '
            f'({differing or "name"} differs): give each service a folder of its own'
        )
    return name


def _public(address: str, name: str) -> str:
    """Returns what a service calls itself: its victim's address, and its own name."""
    return f'{address}-{name}'


def _written(shape: tuple[int, ...]) -> str:
    return ','.join(map(str, shape))
