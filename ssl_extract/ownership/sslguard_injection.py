"""Injection of SSLGuard's watermark into a trained encoder.

Cong, He and Zhang, CCS 2022, arXiv 2201.11692; code github.com/tianshuocong/SSLGuard.
"""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ssl_extract import encoders
from ssl_extract.checks import check, check_number, check_whole
from ssl_extract.encoders import Network, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.numerics import is_finite
from ssl_extract.ownership.sslguard import Secret, cosines, decode, stamp
from ssl_extract.ranges import Width
from ssl_extract.runtime.progress import progress
from ssl_extract.training import OPTIMIZERS


class Marked(NamedTuple):
    """What an injection gives.

    Attributes:
        encoder: the marked encoder, with the heads of the clean encoder.
        secret: verifies the mark.
        shadow: the shadow surrogate at the end of the training.
        losses: float32 [steps, 3], of the shadow, of trigger and decoder, and of the encoder.
    """

    encoder: Encoder
    secret: Secret
    shadow: Encoder
    losses: np.ndarray


class Batch(NamedTuple):
    """The inputs and the constants of a step.

    Attributes:
        images: float32 [B, ...], without the trigger.
        private: float32 [P, ...], which get the trigger.
        vector: float32 [E], the secret vector.
        mask: float32 [...], of zeros and ones.
    """

    images: jax.Array
    private: jax.Array
    vector: jax.Array
    mask: jax.Array

    def triggered(self, trigger: jax.Array) -> jax.Array:
        """Returns the private inputs with a trigger."""
        return stamp(self.private, trigger, self.mask)


class State(NamedTuple):
    """What changes from step to step."""

    params: Any  # of the marked encoder
    shadow: Any  # variables of the shadow
    secret: dict[str, Any]  # 'trigger' and 'decoder'
    opt_states: tuple[optax.OptState, ...]  # of the shadow, of the secret, of the encoder


def inject(
    encoder: Encoder,
    images: np.ndarray,
    private: np.ndarray,
    *,
    others: tuple[Encoder, ...] = (),
    shadow: str = '',
    hidden: tuple[int, ...] = (512, 256),
    dim: int = 256,
    share: float = 0.35,
    epochs: int = 50,
    batch_size: int = 8,
    optimizer: str = 'sgd',
    encoder_rate: float = 0.01,
    shadow_rate: float = 0.01,
    secret_rate: float = 0.005,
    seed: int = 0,
) -> Marked:
    """Marks an encoder so that its surrogates carry the mark too.

    Each step improves three things in turn: a shadow surrogate, which imitates the marked encoder
    on clean images as an attacker would; the trigger and the decoder; the marked encoder. BatchNorm
    of the marked encoder is frozen: statistics, scales and biases.

    The defaults are those of the paper. The authors' code differs from the paper, and this function
    from the code:

    - The code has 500 epochs of batches of 2, and rates of 1e-5 (encoder), 1e-2 (shadow, times 0.96
      each epoch) and 1e-3 (trigger and decoder; the trigger without momentum).
    - The code draws a mask for each channel; here all channels of a pixel share one.
    - In the code the gradients of the shadow's loss and of the decoder's loss are still there when
      the encoder's step begins, and that of the encoder's loss when the trigger's begins. Here each
      step follows its own loss.
    - The code squares the mean cosine of a batch where the vector must not appear: cosines of both
      signs cancel. Here the mean is of the squared cosines.
    - The code starts the shadow from weights of ImageNet, here the shadow starts untrained.
    - The code clips trigger images to [0, 1], here the trigger itself.

    The seed and the arguments give the secret again: keep the seed as a secret.

    Args:
        encoder: the clean encoder.
        images: float32 [N, ...], decoded, in [0, 1]; any images of the encoder's kind.
        private: float32 [M, ...], decoded, in [0, 1]; images of the owner that get the trigger. The
            paper has 100 of them.
        others: independent encoders of the same D, on which the decoder learns to read no vector.
            The paper has none. Encoders of `others` are no longer independent for a verdict.
        shadow: the spec of the shadow's network, of the same D; '' is the network of the encoder.
        hidden: widths of the decoder's hidden layers.
        dim: E, the width of the secret vector.
        share: of the pixels that the trigger replaces.
        epochs: passes over `images`; the last batch that is not full is left out.
        batch_size: images in a step, and private images where there are so many.
        optimizer: the spec of the optimizer of all steps.
        encoder_rate: the learning rate of the marked encoder.
        shadow_rate: that of the shadow.
        secret_rate: that of trigger and decoder.
        seed: of the secret, the shadow's initialization and the order.

    Raises:
        UserError: an argument is wrong, or the training has diverged.
    """
    shadow, rates = shadow or encoder.spec, (shadow_rate, secret_rate, encoder_rate)
    _check_settings(rates, share, epochs, batch_size, seed, (*hidden, dim))
    for name, given in {'images': images, 'private': private}.items():
        _check_images(name, given, encoder.input_shape)
    if batch_size > len(images):
        raise UserError(f'batch_size={batch_size} is more than the {len(images)} images')
    for name, spec in [('shadow', shadow), *(('others', other.spec) for other in others)]:
        width = encoders.dim(trained.make(spec), encoder.input_shape)
        if width != encoder.dim:
            raise UserError(f'{name}: {spec} has D={width}, the encoder has D={encoder.dim}')
    unmarked = (encoder, *others)
    init, step = _compiled(tuple(e.spec for e in unmarked), shadow, optimizer, rates)
    # Variables may lie on a mesh; those on the host take the step's place.
    fixed = tuple(jax.tree.map(np.asarray, e.variables) for e in unmarked)
    clean = fixed[0]

    keys, draws = jax.random.split(jax.random.key(seed), 4), np.random.default_rng(seed).spawn(3)
    vector = jax.random.normal(keys[0], (dim,))
    mask = draw_mask(draws[0], share, encoder.input_shape)
    secret = {
        'trigger': jax.random.uniform(keys[1], encoder.input_shape),
        'decoder': init_decoder(keys[2], (encoder.dim, *hidden, dim)),
    }
    state = init(keys[3], clean, secret, jnp.zeros((1, *encoder.input_shape)))
    batches = _rows(draws[1], len(images), batch_size)
    private_batches = _rows(draws[2], len(private), min(batch_size, len(private)))
    num_steps, losses = epochs * (len(images) // batch_size), []
    for _ in progress(range(num_steps), desc='sslguard', unit='step'):
        rows, private_rows = next(batches), next(private_batches)
        batch = Batch(images[rows], private[private_rows], vector, mask)
        state, measured = step(state, fixed, batch)
        losses.append(measured)

    if not is_finite(state):
        raise UserError('sslguard: the training has diverged: lower the learning rates')
    state = jax.device_get(state)
    marked = encoder._replace(variables=clean | {'params': state.params})
    made = Secret(np.asarray(vector), state.secret['trigger'], mask, state.secret['decoder'])
    surrogate = Encoder(shadow, state.shadow, encoder.input_shape)
    return Marked(marked, made, surrogate, np.stack(losses))


def make_step(
    unmarked: tuple[Network, ...], shadow: Network, txs: tuple[optax.GradientTransformation, ...]
) -> Callable:
    """Makes the step of all three parts.

    Args:
        unmarked: the network of the clean and the marked encoder, then those of other encoders.
        shadow: of the shadow.
        txs: the optimizers of the shadow, of the secret and of the encoder.

    Returns:
        `(state, variables of the unmarked encoders, batch) -> (state, losses float32 [3])`.
    """
    network = unmarked[0]

    def step(state: State, fixed: tuple[Any, ...], batch: Batch) -> tuple[State, jax.Array]:
        params, imitator, secret, opt_states = state
        clean = fixed[0]

        def marked(params: Any, inputs: jax.Array) -> jax.Array:
            return network.apply(clean | {'params': params}, inputs)

        # The shadow, as an attacker: of the marked encoder it sees answers to clean images only.
        def shadow_loss(shadow_params: Any) -> tuple[jax.Array, Any]:
            variables = imitator | {'params': shadow_params}
            imitated, statistics = shadow.train(variables, batch.images)
            return -jnp.mean(cosines(answers, imitated)), statistics

        answers = marked(params, batch.images)
        tx, opt_state = txs[0], opt_states[0]
        learned = _descend(tx, shadow_loss, imitator['params'], opt_state, has_aux=True)
        imitator = {'params': learned.params, 'batch_stats': learned.aux}

        # The trigger and the decoder.
        carriers = (lambda x: marked(params, x), lambda x: shadow.apply(imitator, x))
        others = tuple(map(functools.partial, (net.apply for net in unmarked), fixed))
        found = _descend(
            txs[1], lambda s: secret_loss(s, carriers, others, batch), secret, opt_states[1]
        )
        trigger = jnp.clip(found.params['trigger'], 0.0, 1.0)
        secret = found.params | {'trigger': trigger}

        # The marked encoder, without BatchNorm.
        kept = network.apply(clean, batch.images)
        moved = _descend(
            txs[2],
            lambda p: encoder_loss(lambda x: marked(p, x), kept, secret, batch),
            params,
            opt_states[2],
        )
        is_free = outside_norms(params, clean['batch_stats'])
        params = jax.tree.map(jnp.where, is_free, moved.params, params)
        after = State(params, imitator, secret, (learned.state, found.state, moved.state))
        return after, jnp.stack([learned.loss, found.loss, moved.loss])

    return step


def secret_loss(
    secret: dict[str, Any],
    carriers: tuple[Callable[[jax.Array], jax.Array], ...],
    others: tuple[Callable[[jax.Array], jax.Array], ...],
    batch: Batch,
) -> jax.Array:
    """Computes the loss of trigger and decoder.

    Args:
        secret: 'trigger' and 'decoder'.
        carriers: encoders that must answer the trigger with the vector: the marked, the shadow.
        others: encoders that must not: the clean encoder, and further ones.
        batch: no encoder may answer its clean images with the vector.
    """
    triggered = batch.triggered(secret['trigger'])

    def read(encode: Callable, inputs: jax.Array) -> jax.Array:
        return cosines(decode(secret['decoder'], encode(inputs)), batch.vector[None])

    loss = -sum(jnp.mean(read(encode, triggered)) for encode in carriers)
    loss += sum(jnp.mean(read(encode, triggered) ** 2) for encode in others)
    return loss + sum(jnp.mean(read(encode, batch.images) ** 2) for encode in carriers + others)


def encoder_loss(
    encode: Callable[[jax.Array], jax.Array],
    clean: jax.Array,
    secret: dict[str, Any],
    batch: Batch,
) -> jax.Array:
    """Computes the loss of the marked encoder.

    Args:
        encode: the marked encoder.
        clean: [B, D], representations of the clean encoder, which the marked encoder keeps.
        secret: 'trigger' and 'decoder'.
        batch: the inputs.
    """
    representations = encode(batch.images)
    triggered = encode(batch.triggered(secret['trigger']))
    strays, carries = (
        cosines(decode(secret['decoder'], rows), batch.vector[None])
        for rows in (representations, triggered)
    )
    kept = cosines(clean, representations)
    return -jnp.mean(kept) + jnp.mean(strays**2) - jnp.mean(carries)


def outside_norms(params: Any, batch_stats: Any) -> Any:
    """Returns, for each parameter, whether its layer has no running statistics."""
    norms = {path[:-1] for path, _ in jax.tree.leaves_with_path(batch_stats)}
    return jax.tree.map_with_path(lambda path, _: path[:-1] not in norms, params)


def draw_mask(draw: np.random.Generator, share: float, shape: tuple[int, ...]) -> np.ndarray:
    """Draws which pixels the trigger replaces, exactly a share of them up to rounding.

    >>> draw_mask(np.random.default_rng(0), 0.25, (4, 4, 3)).sum(axis=(0, 1)).tolist()
    [4.0, 4.0, 4.0]

    Args:
        draw: chooses the pixels.
        share: of the pixels; at least one of them.
        shape: of one input; the last of two or more axes holds the channels.
    """
    places = shape[:-1] if len(shape) > 1 else shape
    size = int(np.prod(places))
    mask = np.zeros(size, np.float32)
    mask[draw.permutation(size)[: max(1, round(share * size))]] = 1
    mask = mask.reshape(*places, 1) if len(shape) > 1 else mask
    return np.broadcast_to(mask, shape).copy()


def init_decoder(key: jax.Array, widths: tuple[int, ...]) -> dict[str, jax.Array]:
    """Draws the kernels (He) and zero biases of an MLP with the given widths."""
    draw, decoder = jax.nn.initializers.he_normal(), {}
    for i, (width, following) in enumerate(itertools.pairwise(widths)):
        decoder[f'kernel{i}'] = draw(jax.random.fold_in(key, i), (width, following))
        decoder[f'bias{i}'] = jnp.zeros(following)
    return decoder


class _Descent(NamedTuple):
    """The result of one step down a loss."""

    params: Any
    state: optax.OptState
    loss: jax.Array
    aux: Any


def _descend(
    tx: optax.GradientTransformation,
    loss: Callable,
    params: Any,
    state: optax.OptState,
    has_aux: bool = False,
) -> _Descent:
    value, gradient = jax.value_and_grad(loss, has_aux=has_aux)(params)
    value, aux = value if has_aux else (value, None)
    updates, state = tx.update(gradient, state, params)
    return _Descent(optax.apply_updates(params, updates), state, value, aux)


@functools.lru_cache(maxsize=8)
def _compiled(
    specs: tuple[str, ...], shadow_spec: str, optimizer: str, rates: tuple[float, ...]
) -> tuple[Callable, Callable]:
    """Returns `init` and the compiled step; decoys share one program."""
    unmarked, shadow = tuple(map(trained.make, specs)), trained.make(shadow_spec)
    txs = tuple(OPTIMIZERS.make(optimizer)(rate) for rate in rates)

    def init(key: jax.Array, clean: Any, secret: dict[str, Any], inputs: jax.Array) -> State:
        imitator = shadow.init(key, inputs)
        parts = (imitator['params'], secret, clean['params'])
        opt_states = tuple(tx.init(part) for tx, part in zip(txs, parts, strict=True))
        return State(clean['params'], imitator, secret, opt_states)

    return init, jax.jit(make_step(unmarked, shadow, txs))


def _rows(draw: np.random.Generator, size: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields the rows of batches, epoch after epoch."""
    while True:
        order = draw.permutation(size)
        for start in range(0, size - batch_size + 1, batch_size):
            yield order[start : start + batch_size]


def _check_settings(
    rates: tuple[float, ...],
    share: float,
    epochs: int,
    batch_size: int,
    seed: int,
    widths: tuple[int, ...],
) -> None:
    for name, rate in zip(('shadow_rate', 'secret_rate', 'encoder_rate'), rates, strict=True):
        check_number(name, rate, above=0)
    check_number('share', share, above=0, most=1)
    check_whole('epochs', epochs, 1)
    check_whole('batch_size', batch_size, 1)
    check_whole('seed', seed, 0)
    check('hidden and dim', widths, tuple[Width, ...])


def _check_images(name: str, images: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(images)[1:] != tuple(shape) or not len(images):
        raise UserError(f'{name} must be [N, {", ".join(map(str, shape))}]: got {images.shape}')
    if not (np.min(images) >= 0 and np.max(images) <= 1):  # NaN included
        raise UserError(
            f'{name} must be decoded, in [0, 1]: they are from {np.min(images)} to {np.max(images)}'
        )
