"""The divergence of measures, depth by depth."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, compare, stacks, uniform

from wgf.transport import conditional_divergence

conditional = eqx.filter_jit(conditional_divergence)


def test_the_conditional_divergence_is_the_weighted_sum_over_depths(key):
    x, y, a, b = stacks(key)
    depth_weights = jnp.array([0.2, 0.5, 0.3])
    found = conditional(x, y, depth_weights, epsilon=0.5, x_weights=a, y_weights=b)
    each = [compare(x[i], y[i], 0.5, a[i], b[i]) for i in range(3)]
    np.testing.assert_allclose(
        found.value, sum(w * e.value for w, e in zip(depth_weights, each, strict=True)), rtol=bound(1e-10, 1e-5)
    )
    assert int(found.iterations) == max(int(e.iterations) for e in each)
    assert bool(found.converged)
    assert float(found.epsilon) == 0.5


def test_the_conditional_divergence_takes_uniform_weights_by_default(key):
    x, y, _, _ = stacks(key)
    depth_weights = jnp.full(3, 1 / 3)
    given = conditional(x, y, depth_weights, epsilon=0.5, x_weights=uniform(x), y_weights=uniform(y))
    np.testing.assert_allclose(
        conditional(x, y, depth_weights, epsilon=0.5).value, given.value, rtol=bound(1e-12, 1e-5)
    )


def test_mass_does_not_move_across_depths():
    x = jnp.array([0.0, 5.0]).reshape(2, 1, 1)
    swapped = conditional(x, x[::-1], jnp.array([0.5, 0.5]), epsilon=0.5)
    np.testing.assert_allclose(swapped.value, 25, rtol=bound(1e-12, 1e-5))


@pytest.mark.parametrize("place", [0, 2])
def test_one_bad_depth_keeps_the_whole_from_reading_as_converged(place, key):
    x, y, a, b = stacks(key)
    bad = x.at[place, 0, 0].set(jnp.nan)
    found = conditional(bad, y, jnp.full(3, 1 / 3), epsilon=0.5, x_weights=a, y_weights=b)
    assert not bool(found.converged), found


X, Y = jnp.ones((5, 2)) * jnp.arange(5.0)[:, None], jnp.ones((4, 2))


def test_bad_depths_are_refused(unchecked):
    x, y = jnp.stack([X, X]), jnp.stack([Y, Y])
    for depths, other, message in (
        (jnp.ones(3) / 3, y, r"`depth_weights` must have a weight for each of the 2 depths; got shape \(3,\)"),
        (jnp.array([1.5, -0.5]), y, r"`depth_weights` must be finite and not negative; got \[1.5, -0.5\]"),
        (jnp.array([jnp.nan, 1]), y, "`depth_weights` must be finite and not negative; got"),
        (jnp.ones(2) / 2, y[:1], "`y` must have a cloud for each of the 2 depths of `x`; got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            conditional_divergence(x, other, depths, epsilon=0.5)
