"""Bad clouds, weights and options: a `ValueError` where they are known, and no `converged` where they are not."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import in_float64

from wgf.transport import conditional_divergence, divergence_curve, epsilon_from_scale, sinkhorn_divergence

X, Y = jnp.ones((5, 2)) * jnp.arange(5.0)[:, None], jnp.ones((4, 2))
UNEVEN = jnp.array([0.5, 0.5, 0.5, -0.5, 0.0])
BAD = {
    "integers": ({"x": jnp.ones((5, 2), int)}, r"`x` must hold numbers of float32 or float64; got int"),
    "half precision": ({"y": Y.astype(jnp.bfloat16)}, r"`y` must hold numbers of float32 or float64; got bfloat16"),
    "complex": ({"x": X + 0j}, r"`x` must hold numbers of float32 or float64; got complex"),
    "no points": ({"y": jnp.ones((0, 2))}, r"`y` must have axes \[n, P\], none of them empty; got shape \(0, 2\)"),
    "a vector": ({"x": jnp.ones(5)}, r"`x` must have axes \[n, P\], none of them empty; got shape \(5,\)"),
    "NaN": ({"x": X.at[2, 1].set(jnp.nan)}, "`x` must be finite; got 1 coordinates that are NaN or infinite"),
    "infinity": ({"y": Y.at[0].set(-jnp.inf)}, "`y` must be finite; got 2 coordinates that are NaN or infinite"),
    "another dimension": ({"y": jnp.ones((4, 3))}, "`y` must have points of 2 coordinates, as `x` has; got 3"),
    "negative weights": (
        {"x_weights": UNEVEN},
        "`x_weights` must be non-negative with sum 1; got least weight -0.5",
    ),
    "NaN weights": ({"x_weights": jnp.full(5, jnp.nan)}, "`x_weights` must be non-negative with sum 1; got .* nan"),
    "half the mass": ({"y_weights": jnp.full(4, 1 / 8)}, "`y_weights` must be non-negative .* sums from 0.5 to 0.5"),
    "too few weights": (
        {"y_weights": jnp.full(3, 1 / 3)},
        r"`y_weights` must have a weight for each point, shape \(4,\)",
    ),
    "no ε": ({"epsilon": 0.0}, "`epsilon` must be positive and finite; got 0.0"),
    "negative ε": ({"epsilon": -1}, "`epsilon` must be positive and finite; got -1"),
    "NaN ε": ({"epsilon": jnp.array(jnp.nan)}, "`epsilon` must be positive and finite; got nan"),
    "infinite ε": ({"epsilon": np.inf}, "`epsilon` must be positive and finite; got inf"),
    "many ε": ({"epsilon": jnp.ones(2)}, r"`epsilon` must be one number; got an array of shape \(2,\)"),
    "no threshold": ({"threshold": 0.0}, "`threshold` must be positive and finite; got 0.0"),
    "NaN threshold": ({"threshold": float("nan")}, "`threshold` must be positive and finite; got nan"),
    "no iterations": ({"max_iterations": 0}, "`max_iterations` must be a whole number of at least 1; got 0"),
    "part of an iteration": (
        {"max_iterations": 10.5},
        "`max_iterations` must be a whole number of at least 1; got 10.5",
    ),
}


if in_float64():
    BAD["another type"] = {"y": Y.astype(jnp.float32)}, "`y` must be of float64, as `x` is; got float32"


def call(function, x, y, **options):
    """Any of the three divergences of one cloud from another."""
    if function is divergence_curve:
        names = {"x_weights": "weights", "y_weights": "reference_weights"}
        options = {names.get(name, name): value for name, value in options.items()}
        options |= {"weights": options["weights"][None]} if "weights" in options else {}
        return function(x[None], y, **options)
    if function is conditional_divergence:
        options |= {name: options[name][None] for name in ("x_weights", "y_weights") if name in options}
        return function(x[None], y[None], jnp.ones(1), **options)
    return function(x, y, **options)


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(case, unchecked):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call(sinkhorn_divergence, **{"x": X, "y": Y, "epsilon": 0.5, **changes})


@pytest.mark.parametrize("function", [divergence_curve, conditional_divergence])
@pytest.mark.parametrize("case", ["integers", "NaN", "negative weights", "another dimension", "no ε", "no iterations"])
def test_it_is_refused_along_curves_and_depths_too(function, case, unchecked):
    changes, message = BAD[case]
    message = (
        message.replace("`x`", "`(x|clouds)`").replace("`y`", "`(y|reference)`").replace("`x_weights`", "weights`")
    )
    with pytest.raises(ValueError, match=message):
        call(function, **{"x": X, "y": Y, "epsilon": 0.5, **changes})


@pytest.mark.parametrize("name", ["x_self", "y_self"])
def test_a_start_whose_own_transports_are_of_other_sizes_is_refused(name):
    start = sinkhorn_divergence(X, Y, epsilon=0.5).potentials
    bad = eqx.tree_at(lambda p: getattr(p, name), start, jnp.zeros(7))
    with pytest.raises(ValueError, match=r"`initial` must be of the clouds' sizes.* for the transports to themselves"):
        sinkhorn_divergence(X, Y, epsilon=0.5, initial=bad)


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": 0.0},
        {"epsilon": -0.5},
        {"weights": UNEVEN},
        {"weights": jnp.full(5, 0.1)},
        {"weights": UNEVEN * jnp.nan},
    ],
    ids=["no ε", "negative ε", "negative weights", "half the mass", "NaN weights"],
)
def test_what_is_bad_at_run_time_has_not_converged(changes):
    options = {"epsilon": jnp.array(0.5), "weights": jnp.full(5, 0.2), **changes}

    @jax.jit
    def compare(epsilon, weights):
        return sinkhorn_divergence(X, Y, epsilon=epsilon, x_weights=weights)

    assert not bool(compare(**options).converged)
    assert bool(compare(jnp.array(0.5), jnp.full(5, 0.2)).converged)


def test_weights_of_whole_numbers_and_arrays_of_numpy_are_taken(unchecked):
    found = sinkhorn_divergence(
        np.asarray(X), np.asarray(Y), epsilon=np.float32(0.5), x_weights=jnp.array([1, 0, 0, 0, 0])
    )
    np.testing.assert_allclose(found.value, 2, rtol=1e-6)
    assert bool(found.converged)


@pytest.mark.parametrize(
    ("cloud", "message"),
    [
        (jnp.array([[0.0], [jnp.nan], [1.0]]), "`cloud` must be finite; got 1 coordinates"),
        (jnp.array([[0.0], [jnp.inf], [1.0]]), "`cloud` must be finite; got 1 coordinates"),
        (jnp.arange(4)[:, None], "`cloud` must hold numbers of float32 or float64; got int"),
        (jnp.arange(4.0), r"`cloud` must have axes \[n, P\]"),
    ],
)
def test_a_cloud_without_a_scale_is_refused(cloud, message, unchecked):
    with pytest.raises(ValueError, match=message):
        epsilon_from_scale(cloud)


def test_the_scale_of_what_is_not_finite_at_run_time_is_nan():
    scale = jax.jit(epsilon_from_scale)
    for bad in (jnp.nan, jnp.inf):
        assert jnp.isnan(scale(X.at[1, 1].set(bad)))
    assert jnp.isnan(scale(X, jnp.array(1.5)))
    assert jnp.isnan(scale(X, jnp.array(0.0)))
