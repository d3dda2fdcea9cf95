"""Conferrable inputs: where copies follow a victim and other encoders do not."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssl_extract import ownership
from ssl_extract.errors import UserError
from ssl_extract.ownership import Case, search_conferrable
from ssl_extract.ownership.alignment import fit_affine

PUBLIC = np.random.default_rng(0).uniform(size=(200, 8)).astype(np.float32)
SHARED = np.random.default_rng(1).normal(size=(8, 16))


def apply(variables, inputs):
    first, second = variables
    return jnp.tanh(jnp.sin(inputs @ first) @ second)


def drawn(seed, noise=0.0, of=None):
    """The variables of an encoder of the recipe; with `noise`, those of a copy of `of`."""
    rng = np.random.default_rng(seed)
    first, second = SHARED * 2 + rng.normal(size=(8, 16)), rng.normal(size=(16, 6)) / 2
    if of is None:
        return first.astype(np.float32), second.astype(np.float32)
    drawn_anew = zip(of, (first - SHARED * 2, second), strict=True)
    return tuple((part + noise * other).astype(np.float32) for part, other in drawn_anew)


VICTIM = drawn(0)
COPIES = [drawn(seed, 0.3, VICTIM) for seed in range(20, 24)]
SHADOWS = [drawn(seed) for seed in range(1, 7)]
OTHERS = [drawn(seed) for seed in range(50, 60)]


def distances(variables, probes):
    """The mean distance to the victim on probes, mapped as on public inputs."""
    mapped = fit_affine(apply(variables, PUBLIC), apply(VICTIM, PUBLIC))
    gaps = mapped(np.asarray(apply(variables, probes))) - apply(VICTIM, probes)
    return np.linalg.norm(gaps, axis=1).mean()


def test_others_leave_the_victim_further_than_new_copies_do():
    shadows, copies = ([(apply, v) for v in group] for group in (SHADOWS, COPIES[:2]))
    how = dict(num_probes=60, radius=0.2, steps=60)
    probes = search_conferrable((apply, VICTIM), shadows, copies, PUBLIC, **how)

    def ratio(inputs):
        of_others, of_copies = (
            np.mean([distances(v, inputs) for v in group]) for group in (OTHERS, COPIES[2:])
        )
        return of_others / of_copies

    moves = np.random.default_rng(2).uniform(-0.2, 0.2, PUBLIC.shape).astype(np.float32)
    assert ratio(probes) > 1.15 * max(ratio(PUBLIC), ratio(np.clip(PUBLIC + moves, 0, 1)))
    nearest = np.abs(probes[:, None] - PUBLIC).max(axis=2).min(axis=1)
    assert probes.shape == (60, 8) and probes.dtype == np.float32
    assert nearest.max() <= 0.2 + 1e-6 and nearest.mean() > 0.1
    assert probes.min() >= PUBLIC.min() and probes.max() <= PUBLIC.max()

    case = Case(
        lambda x: np.asarray(apply(VICTIM, x)),
        public=PUBLIC,
        shadows=tuple(lambda x, v=v: np.asarray(apply(v, x)) for v in OTHERS[:8]),
        conferrable=probes,
    )
    spec = 'shadow_score(agreement="residuals", probes="conferrable")'
    copy, other = (
        ownership.test(spec, case, lambda x, v=v: np.asarray(apply(v, x)))
        for v in (COPIES[3], OTHERS[9])
    )
    assert copy.statistic > 2 and copy.p_value == pytest.approx(1 / 9) and other.p_value > 0.12


@pytest.mark.parametrize(
    ('shadows', 'copies', 'how', 'said'),
    [
        ([], COPIES, {}, 'needs a shadow'),
        (SHADOWS, [], {}, 'needs a copy'),
        (SHADOWS, COPIES, {'steps': 5}, 'steps=5 leave out some of 6 shadows'),
        (SHADOWS, COPIES, {'num_probes': 201}, 'more than the 200 public inputs'),
        (SHADOWS, COPIES, {'radius': 0.0}, 'radius must be a finite number above 0'),
    ],
)
def test_a_search_without_its_parts_is_refused(shadows, copies, how, said):
    groups = [[(apply, v) for v in group] for group in (shadows, copies)]
    with pytest.raises(UserError, match=said):
        search_conferrable((apply, VICTIM), *groups, PUBLIC, **how)


def test_an_encoder_that_diverged_is_refused():
    diverged = (apply, tuple(part * np.nan for part in VICTIM))
    with pytest.raises(UserError, match='not finite'):
        search_conferrable((apply, VICTIM), [diverged], [diverged], PUBLIC)
