"""SSLGuard's watermark: the secret, its verification and its file.

Cong, He and Zhang, CCS 2022, arXiv 2201.11692. `sslguard_injection` makes a secret and the marked
encoder.
"""

from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from ssl_extract.errors import UserError
from ssl_extract.evaluation.features import check_features
from ssl_extract.numerics import normalize
from ssl_extract.ownership.base import Case, Evidence, Represent, Test, register
from ssl_extract.ranges import Range, Whole
from ssl_extract.runtime import files, tensors

KIND = 'sslguard secret'  # in the description of a file
_DECODER = 'decoder/'  # before the names of the decoder's arrays in a file


class Secret(NamedTuple):
    """The owner's secret.

    Attributes:
        vector: float32 [E], to which the decoder maps representations of trigger inputs.
        trigger: float32 [...], of the shape of one input.
        mask: float32 [...], 1 where the trigger replaces an input and 0 elsewhere; of the shape of
            one input.
        decoder: `kernel0`, `bias0`, `kernel1`, ... of an MLP from D to E, float32.
    """

    vector: np.ndarray
    trigger: np.ndarray
    mask: np.ndarray
    decoder: dict[str, np.ndarray]

    @property
    def dim(self) -> int:
        """Returns D, the width of the representations that the decoder takes."""
        return len(self.decoder['kernel0'])


@jax.jit
def stamp(inputs: jax.Array, trigger: jax.Array, mask: jax.Array) -> jax.Array:
    """Puts a trigger on inputs.

    >>> stamp(jnp.zeros((1, 2)), jnp.array([0.3, 0.7]), jnp.array([0.0, 1.0])).round(1).tolist()
    [[0.0, 0.699999988079071]]

    Args:
        inputs: float [N, ...].
        trigger: [...].
        mask: [...], of zeros and ones.
    """
    return inputs * (1 - mask)[None] + (trigger * mask)[None]


def decode(decoder: dict[str, jax.Array], representations: jax.Array) -> jax.Array:
    """Computes the decoder's outputs float32 [N, E] of representations [N, D].

    Each row is first scaled to length sqrt(D), since the losses of marking do not see the length of
    a row and an attacker may change it. The authors' decoder takes rows as they are.
    """
    outputs = normalize(representations) * jnp.sqrt(float(representations.shape[-1]))
    last = len(decoder) // 2 - 1
    for i in range(last + 1):
        outputs = outputs @ decoder[f'kernel{i}'] + decoder[f'bias{i}'][None]
        outputs = outputs if i == last else jax.nn.relu(outputs)
    return outputs


def cosines(rows: jax.Array, others: jax.Array) -> jax.Array:
    """Computes the cosine [N] of each row of [N, E] with the row of [N, E] or [1, E]."""
    return jnp.sum(normalize(rows) * normalize(others), axis=-1)


@register(
    'sslguard',
    needs=('private', 'mark'),
    null=lambda decoys, **_: 'secrets' if decoys else '',
)
def sslguard(
    threshold: Annotated[float, Range(above=0, below=1)] | None = 0.5, decoys: Whole = 0
) -> Test:
    """Makes the test whether a suspect answers the trigger with the secret vector.

    The statistic is the watermark rate: the share of the private inputs with the trigger whose
    decoded representation has a cosine above `threshold` with the secret vector. The paper takes
    an encoder for stolen where the rate is above 0.5, and tells no false-positive rate.

    `case.mark` is a tuple of secrets: the secret of the victim, then the decoys. Each decoy is a
    whole secret that `inject` made with another seed and otherwise the same arguments; its marked
    encoder is thrown away. The p-value is the share of secrets whose statistic is at least that of
    the victim's secret, which counts itself: `(1 + #decoys) / (1 + decoys)`, and never below
    `1 / (1 + decoys)`. All secrets are drawn alike, so that a suspect that saw no mark cannot tell
    which of them is the victim's. The p-value is therefore valid for every suspect that saw no
    mark, whatever its statistics: also for the clean encoder and for what was stolen from it. Equal
    statistics make it larger than necessary.

    Other vectors for the same trigger and decoder would be no such decoys. The decoder is fitted to
    its vector, and its outputs lie along this vector on many encoders that saw no mark: on small
    networks, the rate of some independent encoders is above 0.5.

    Without decoys there is no p-value, and independent encoders are the null. Rank their rates
    (`verdict.rank_among`): all of them may be 0, which tells no spread. `threshold=None` makes the
    mean cosine the statistic.

    Assumptions: the owner drew all seeds before the suspect was seen and marked with the first. The
    p-value does not cover an owner who chooses the secret, or trains it on the suspect: deposit the
    SHA-256 of `save` of all secrets beforehand. The suspect answers whole trigger inputs with
    representations in the victim's coordinates. A suspect of another D is refused, and a suspect
    with turned or permuted coordinates has lost the mark, until an affine map that was fitted on
    public inputs brings its representations back. n is the number of private inputs, or with
    decoys that of the secrets; duplicates among the inputs do not change the p-value.

    >>> ones, eye = np.ones(2, np.float32), np.eye(2, dtype=np.float32)
    >>> secret = Secret(ones, ones, np.float32([0, 1]), {'kernel0': eye, 'bias0': 0 * ones})
    >>> inputs = np.linspace(0, 1, 32, dtype=np.float32).reshape(16, 2)
    >>> sslguard()(Case(None, private=inputs, mark=(secret,)), lambda inputs: inputs)
    Evidence(statistic=1.0, n=16, p_value=None)

    Args:
        threshold: of the cosine; None for the mean cosine as the statistic.
        decoys: the number of decoys, 20 or more for a p-value below 0.05.

    Raises:
        UserError: from the test, where the mark is no tuple of enough secrets for such inputs, or
            the suspect has another D or one representation for all inputs.
    """

    def test(case: Case, suspect: Represent) -> Evidence:
        secrets = _secrets_of(case, decoys)
        _check_suspect(suspect(case.private), secrets[0].dim)
        statistics = [_statistic(secret, case.private, suspect, threshold) for secret in secrets]
        if not decoys:
            return Evidence(statistics[0], len(case.private))
        reached = sum(other >= statistics[0] for other in statistics[1:])
        return Evidence(statistics[0], len(secrets), (1 + reached) / len(secrets))

    return test


def decoded_cosines(secret: Secret, inputs: np.ndarray, suspect: Represent) -> np.ndarray:
    """Computes the cosines float64 [N] of decoded trigger inputs with the secret vector.

    Args:
        secret: of the owner.
        inputs: float32 [N, ...], without the trigger.
        suspect: gives representations of the secret's D.
    """
    stamped = np.asarray(stamp(inputs, secret.trigger, secret.mask))
    representations = check_features(suspect(stamped), 'representations', secret.dim)
    return np.asarray(_read(secret.decoder, representations, secret.vector), np.float64)


@jax.jit
def _read(decoder: dict[str, jax.Array], rows: jax.Array, vector: jax.Array) -> jax.Array:
    return cosines(decode(decoder, rows), vector[None])


def _statistic(
    secret: Secret, inputs: np.ndarray, suspect: Represent, threshold: float | None
) -> float:
    values = decoded_cosines(secret, inputs, suspect)
    return float(np.mean(values if threshold is None else values > threshold))


def _secrets_of(case: Case, decoys: int) -> tuple[Secret, ...]:
    mark = case.mark
    if not isinstance(mark, tuple) or not all(isinstance(part, Secret) for part in mark):
        raise UserError(
            f'mark={type(mark).__name__}: the test sslguard takes a tuple of secrets, (secret,) or '
            '(secret, decoy, ...)'
        )
    if len(mark) < decoys + 1:
        raise UserError(
            f'decoys={decoys} needs {decoys + 1} secrets and the mark holds {len(mark)}: inject '
            'more with other seeds, or write less'
        )
    secrets, shape = mark[: decoys + 1], case.private.shape[1:]
    for secret in secrets:
        if secret.trigger.shape != shape:
            raise UserError(
                f'a trigger of shape {secret.trigger.shape} does not fit private inputs of shape '
                f'{shape}: give inputs as they were given to inject'
            )
    for name in ('vector', 'trigger'):
        if len({getattr(secret, name).tobytes() for secret in secrets}) < len(secrets):
            raise UserError(
                f'two secrets of the mark have one {name}: inject each decoy with another seed'
            )
    return secrets


def _check_suspect(representations: np.ndarray, dim: int) -> None:
    """Checks the width of a suspect, and that it tells inputs apart at all."""
    features = check_features(representations, 'representations of the suspect')
    if features.shape[1] != dim:
        raise UserError(
            f'the suspect has D={features.shape[1]} and the decoder of the secret takes D={dim}: '
            'map the suspect to the victim on public inputs first'
        )
    if not np.ptp(features, axis=0).any():
        raise UserError(
            f'the suspect has one representation for all {len(features)} private inputs: a dead '
            'encoder answers no trigger'
        )


def save(path: epath.PathLike, secret: Secret) -> str:
    """Writes a secret to one .safetensors file, whole or not at all.

    >>> import tempfile
    >>> ones = np.ones(2, np.float32)
    >>> path = tempfile.mkdtemp() + '/secret.safetensors'
    >>> len(save(path, Secret(ones, ones, ones, {'kernel0': np.eye(2), 'bias0': ones})))
    64

    Args:
        path: the file; its folder is made.
        secret: of `inject`.

    Returns:
        The SHA-256 of the secret. It tells nothing of the secret, and may be deposited.
    """
    arrays = {name: getattr(secret, name) for name in ('vector', 'trigger', 'mask')}
    arrays |= {_DECODER + name: array for name, array in secret.decoder.items()}
    tensors.write(path, arrays, {'kind': KIND})
    return tensors.read(path)[1][files.CHECKSUM]


def load(path: epath.PathLike) -> Secret:
    """Reads a secret that `save` wrote.

    Raises:
        DamagedError: the file is missing or damaged.
        UserError: the file holds something else.
    """
    arrays, about = tensors.read(path)
    if about.get('kind') != KIND:
        raise UserError(f'{path} holds no secret of sslguard: name a file that `save` wrote')
    decoder = {
        name.removeprefix(_DECODER): array
        for name, array in arrays.items()
        if name.startswith(_DECODER)
    }
    return Secret(arrays['vector'], arrays['trigger'], arrays['mask'], decoder)
