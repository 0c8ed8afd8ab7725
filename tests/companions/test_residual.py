"""The Transformer of residual connections against NumPy."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, residual_problem
from hypothesis import given, settings, strategies as st

from wgf.companions import ResidualTransformer, SmoothLeakyReLU, SquareLoss

ROUNDING = {"rtol": bound(1e-10, 1e-5), "atol": bound(0, 2e-6)}


def plain(model, tokens, temperature):
    """One prompt through all layers by NumPy, token by token; every attention output besides the last output."""
    blocks, x, outputs = model.blocks, np.asarray(tokens), []
    for layer in range(blocks.query.shape[0]):
        wq, wk, wv, w1, w2 = (
            np.asarray(getattr(blocks, name)[layer]) for name in ("query", "key", "value", "w_in", "w_out")
        )
        shortcut = 1.0 if blocks.residual else 0.0
        b = shortcut * x
        for i in range(len(x)):
            scores = [(x[i] @ wq) @ (x[j] @ wk) / (temperature * np.sqrt(x.shape[1])) for j in range(len(x))]
            weights = np.exp(scores) / np.exp(scores).sum()
            b[i] += sum(w * (x[j] @ wv) for j, w in enumerate(weights))
        inner, slope = b @ w1, blocks.activation.slope
        outputs.append(b)
        x = shortcut * b + (slope * inner + (1 - slope) * np.log((1 + np.exp(inner)) / 2)) @ w2
    return x, np.stack(outputs)


@pytest.mark.parametrize("residual", [True, False])
def test_the_model_is_its_formula(residual):
    loss, model = residual_problem(0, depth=3, residual=residual, prompts=2)
    expected = [plain(model, tokens, 2.0) for tokens in loss.tokens]
    np.testing.assert_allclose(model(loss.tokens, 2.0), np.stack([f for f, _ in expected]), **ROUNDING)
    attended = np.stack([b for _, b in expected], axis=1)
    np.testing.assert_allclose(model.attended(loss.tokens, 2.0), attended, **ROUNDING)
    errors = np.stack([f for f, _ in expected]) - np.asarray(loss.targets)
    np.testing.assert_allclose(loss(model), np.sum(errors**2) / 2, rtol=bound(1e-10, 2e-6))


def test_a_temperature_is_a_scale_of_the_queries():
    loss, model = residual_problem(1, depth=2)
    cooled = eqx.tree_at(lambda m: m.blocks.query, model, model.blocks.query / 5)
    np.testing.assert_allclose(model(loss.tokens, 5.0), cooled(loss.tokens), **ROUNDING)


def test_permuting_tokens_permutes_the_output():
    loss, model = residual_problem(2, depth=2)
    order = jnp.array([2, 0, 3, 1])
    np.testing.assert_allclose(model(loss.tokens[:, order]), model(loss.tokens)[:, order], **ROUNDING)


@pytest.mark.parametrize(("residual", "scale"), [(True, 8**-0.5), (False, 1.0)])
def test_the_default_scale_of_the_branches_shrinks_with_depth_beside_residual_connections(residual, scale):
    _, model = residual_problem(3, depth=8, residual=residual, dim=32, hidden=128)
    expected = {"query": 1.0, "key": 1.0, "w_in": 1.0, "value": scale, "w_out": scale}
    for name, size in expected.items():
        weights = np.asarray(getattr(model.blocks, name))
        assert weights.std() * weights.shape[1] ** 0.5 == pytest.approx(size, rel=0.05), name


@given(st.floats(-50, 50), st.floats(0.01, 1.0))
@settings(max_examples=30, deadline=None)
def test_the_activation_is_one_of_the_theory(x, slope):
    activation = SmoothLeakyReLU(slope)
    assert abs(activation(jnp.asarray(x))) <= abs(x) + bound(1e-12, 1e-6)
    assert slope - bound(1e-12, 1e-6) <= jax.grad(activation)(x) <= 1 + bound(1e-12, 1e-6)
    assert 0 <= jax.grad(jax.grad(activation))(x) <= (1 - slope) / 4 + bound(1e-12, 1e-6)


@pytest.mark.parametrize("slope", [0.0, -1.0, 1.5])
def test_a_slope_outside_its_range_is_refused(slope):
    with pytest.raises(ValueError, match=r"`slope` must lie in \(0, 1\]; got"):
        SmoothLeakyReLU(slope)


@pytest.mark.parametrize("name", ["dim", "hidden", "depth"])
def test_a_size_below_one_is_refused(name, key):
    sizes = {"dim": 2, "hidden": 2, "depth": 1, name: 0}
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1; got 0"):
        ResidualTransformer(sizes["dim"], sizes["hidden"], depth=sizes["depth"], key=key)


def test_targets_of_another_shape_are_refused(unchecked):
    with pytest.raises(ValueError, match=r"`targets` must have the shape of `tokens`, \(1, 2, 3\); got \(1, 2, 4\)"):
        SquareLoss(jnp.zeros((1, 2, 3)), jnp.zeros((1, 2, 4)))
