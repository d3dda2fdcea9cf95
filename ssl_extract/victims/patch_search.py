"""PatchSearch: the patches that poison a set, and the images with them.

Tejankar et al. 2023, arXiv 2304.01482. An encoder that was trained on the poisoned set takes any
image with the poisoner's patch for one kind of image. So a patch that moves many other images into
the cluster of its own image is suspected.

1. `search`: images are clustered by their representations. The window of an image that matters most
   for its cluster (Grad-CAM) is put on other images; its score is how many of these move into the
   cluster. Rounds score some images of each cluster, and drop the clusters of the lowest scores.
2. `classify`: the best windows are put on images, and a small network learns to see them, which
   then reads the whole set.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from ssl_extract import training
from ssl_extract.checks import check_number, check_whole
from ssl_extract.encoders import chain, trained
from ssl_extract.encoders.trained import Encoder
from ssl_extract.errors import UserError
from ssl_extract.evaluation import features
from ssl_extract.numerics import normalize
from ssl_extract.runtime import parallel, progress
from ssl_extract.victims.backdoors import paste

_HEADS = (('head', 'linear(dim=1)'),)


class Searched(NamedTuple):
    """The images whose windows were tried, best first.

    Attributes:
        rows: int [K], places in the set.
        scores: int [K], of the other images, how many the window moves into the image's cluster.
        windows: uint8 [K, w, w, 3], the windows.
        clusters: int [N], of every image of the set.
    """

    rows: np.ndarray
    scores: np.ndarray
    windows: np.ndarray
    clusters: np.ndarray


def search(
    encoder: Encoder,
    images: np.ndarray,
    *,
    window: int,
    clusters: int = 100,
    flips: int = 500,
    per_round: int = 2,
    pruned: float = 0.25,
    seed: int = 0,
) -> Searched:
    """Scores windows of images of every cluster, round by round.

    The paper has 1,000 clusters of ImageNet-100, and 1,000 other images.

    Args:
        encoder: trained on the images; a network with `Network.spatial`.
        images: uint8 [N, H, W, 3], the suspected set.
        window: side w of a window in pixels.
        clusters: of k-means on representations of length 1.
        flips: other images, drawn from the set, on which a window is put.
        per_round: images of a cluster that a round tries.
        pruned: the share of the clusters that a round drops, at least one.
        seed: of k-means, draws and places.

    Raises:
        UserError: the network has no spatial output, or a number does not fit the images.
    """
    check_whole('per_round', per_round, 1)
    check_number('pruned', pruned, least=0.0, most=1.0)
    _check(encoder, images, window, clusters, flips)
    rng = np.random.default_rng(seed)
    points = _unit(encoder, images)
    centers, assigned = _cluster(points, clusters, seed)
    others = rng.permutation(len(images))[:flips]
    waiting = {c: rng.permutation(np.flatnonzero(assigned == c)) for c in np.unique(assigned)}
    best = dict.fromkeys(waiting, 0)
    found: list[tuple[int, int, np.ndarray]] = []
    with progress.progress(total=len(best), desc='patch search', unit='cluster') as bar:
        while best:
            for cluster in best:
                tried, waiting[cluster] = np.split(waiting[cluster], [per_round])
                for row in tried:
                    patch = _window(encoder, images[row], centers[cluster], window)
                    pasted = paste(images[others], patch, rng)
                    moved = np.argmax(_unit(encoder, pasted) @ centers.T, axis=1) == cluster
                    score = int(np.sum(moved & (assigned[others] != cluster)))
                    best[cluster] = max(best[cluster], score)
                    found.append((row, score, patch))
            dropped = sorted(best, key=best.get)[: max(1, int(pruned * len(best)))]
            best = {c: s for c, s in best.items() if c not in dropped and len(waiting[c])}
            bar.update(bar.total - len(best) - bar.n)
    found.sort(key=lambda entry: -entry[1])
    rows, scores, windows = zip(*found, strict=True)
    return Searched(np.array(rows), np.array(scores), np.stack(windows), assigned)


def classify(
    images: np.ndarray,
    windows: np.ndarray,
    *,
    encoder: str = 'resnet18(stem="patch", width=16, stages=(1, 1))',
    steps: int = 400,
    batch_size: int = 64,
    learning_rate: float = 1e-2,
    members: int = 5,
    seed: int = 0,
) -> np.ndarray:
    """Computes the probability that an image holds one of the windows, float [N].

    Each member of an ensemble is a network that learns to tell images with one of the windows, at a
    random place, from images without; the probability is their mean. The paper has 20 windows, five
    members and 2,000 steps of a ResNet-18.

    Args:
        images: uint8 [N, H, W, 3], the suspected set. A few poisoned images among those without a
            window do little harm.
        windows: uint8 [K, w, w, 3], the best of a `search`.
        encoder: the spec of the network below the classifier.
        steps: of Adam, for each member.
        batch_size: images in a step; half of them get a window.
        learning_rate: of the first step.
        members: networks of the ensemble.
        seed: of weights, order and places.

    Raises:
        UserError: the windows are larger than the images, or a number is not positive.
    """
    for name, value in (('steps', steps), ('batch_size', batch_size // 2), ('members', members)):
        check_whole(name, value, 1)
    if windows.shape[1] > min(images.shape[1:3]):
        raise UserError(f'windows of {windows.shape[1]} pixels are larger than the images')
    total, how = np.zeros(len(images)), (steps, batch_size, learning_rate)
    apply = trained.through(encoder, _HEADS)
    for member in range(members):
        state = train_member(images, windows, encoder, *how, seed=(seed, member))
        joint = {'params': state.params, 'batch_stats': state.batch_stats}
        logits = features.extract(apply, joint, images, progress=False)[:, 0]
        total += scipy.special.expit(logits)
    return total / members


def train_member(
    images: np.ndarray,
    windows: np.ndarray,
    encoder: str,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: tuple[int, int],
) -> training.TrainState:
    """Trains one network of `classify`, whose arguments are the same; `seed` is of this one."""
    recipe, mesh = _classifier(encoder, windows.tobytes(), windows.shape), parallel.data_mesh(1)
    init = training.make_init(recipe, 'adam', images.shape[1:], mesh)
    step = training.make_step(recipe, 'adam', 'cosine', mesh)
    rng = np.random.default_rng(seed)
    state = init(jax.random.key(rng.integers(2**31)), (), None, None)
    for _ in range(steps):
        batch = {'inputs': images[rng.integers(0, len(images), batch_size)]}
        batch = jax.device_put(batch, parallel.batch_sharding(mesh))
        state, _, _ = step(state, batch, None, learning_rate, steps)
    return state


@functools.lru_cache(maxsize=4)
def _classifier(encoder: str, content: bytes, shape: tuple[int, ...]) -> training.Recipe:
    windows = jnp.asarray(np.frombuffer(content, np.uint8).reshape(shape), jnp.float32) / 255
    networks = trained.networks_of(encoder, _HEADS)

    def pasted(key: jax.Array, image: jax.Array) -> jax.Array:
        which, where = jax.random.split(key)
        limits = jnp.array(image.shape[:2]) - shape[1] + 1
        top, left = jax.random.randint(where, (2,), 0, limits)
        patch = windows[jax.random.randint(which, (), 0, shape[0])]
        return jax.lax.dynamic_update_slice(image, patch, (top, left, 0))

    def prepare(batch: dict[str, Any], key: jax.Array, ask: Any, account: Any) -> tuple:
        images = batch['inputs']
        half = len(images) // 2
        keys = jax.random.split(key, half)
        both = jnp.concatenate([jax.vmap(pasted)(keys, images[:half]), images[half:]])
        return {'images': both, 'labels': jnp.arange(len(images)) < half}, account, None

    def objective(params: Any, batch_stats: Any, batch: dict[str, Any]) -> tuple[jax.Array, Any]:
        outputs, batch_stats = chain.train(networks, params, batch_stats, batch['images'])
        losses = optax.losses.sigmoid_binary_cross_entropy(outputs['head'][:, 0], batch['labels'])
        return losses.mean(), (batch_stats, {})

    return training.Recipe(lambda key, x: chain.init(networks, key, x), prepare, objective)


def saliency(encoder: Encoder, images: jax.Array, centers: jax.Array) -> jax.Array:
    """Computes Grad-CAM maps float32 [B, h, w] of the cosine to a center.

    Selvaraju et al. 2017, arXiv 1610.02391: the sum over channels of the spatial output, weighted
    by the gradient of the score by each channel, without its negative part. The representation is
    the mean of the spatial output, so that the gradient is alike at all places.

    Args:
        encoder: a network with `Network.spatial`.
        images: float32 [B, H, W, 3] in [0, 1].
        centers: float32 [B, D] of length 1.
    """
    maps = encoder.network.spatial(encoder.variables, images)

    def score(representations: jax.Array) -> jax.Array:
        return jnp.sum(normalize(representations) * centers)

    weights = jax.grad(score)(maps.mean(axis=(1, 2)))
    return jax.nn.relu(jnp.einsum('bhwd,bd->bhw', maps, weights))


def _window(encoder: Encoder, image: np.ndarray, center: np.ndarray, side: int) -> np.ndarray:
    """Returns the window [w, w, 3] of an image that has the largest sum of the saliency."""
    decoded = jnp.asarray(image, jnp.float32)[None] / 255
    heat = saliency(encoder, decoded, jnp.asarray(center)[None])[0]
    heat = jax.image.resize(heat, image.shape[:2], 'bilinear')
    sums = jax.lax.reduce_window(heat, 0.0, jax.lax.add, (side, side), (1, 1), 'VALID')
    top, left = np.unravel_index(int(jnp.argmax(sums)), sums.shape)
    return image[top : top + side, left : left + side]


def _unit(encoder: Encoder, images: np.ndarray) -> np.ndarray:
    found = features.extract(encoder.network.apply, encoder.variables, images, progress=False)
    return np.asarray(normalize(found))


def _cluster(points: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns centers of length 1, float32 [count, D], and the cluster of each point."""
    from sklearn.cluster import KMeans  # takes a second to import

    fitted = KMeans(count, n_init=1, random_state=seed).fit(points)
    centers = np.asarray(normalize(fitted.cluster_centers_.astype(np.float32)))
    return centers, np.argmax(points @ centers.T, axis=1)


def _check(encoder: Encoder, images: np.ndarray, window: int, clusters: int, flips: int) -> None:
    if encoder.network.spatial is None:
        raise UserError(
            f'patch search needs the spatial output of a ResNet, and {encoder.spec} has none'
        )
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != encoder.input_shape:
        raise UserError(
            f'patch search is of images uint8 [N, {", ".join(map(str, encoder.input_shape))}], got '
            f'{images.dtype} {list(images.shape)}'
        )
    if not 1 <= window <= min(images.shape[1:3]):
        raise UserError(f'window={window}: write 1 to {min(images.shape[1:3])}')
    if not 2 <= clusters <= len(images) or not 1 <= flips <= len(images):
        raise UserError(
            f'clusters={clusters}, flips={flips}: the set has {len(images)} images; write fewer'
        )
