import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, bound
from hypothesis import given, settings, strategies as st

from wgf.prompts import Prompts


def build(tokens=None, labels=(1.0, -2.0), label_row=1, weights=None):
    """Two valid prompts of three tokens in R², but for what is given."""
    tokens = np.arange(12.0).reshape(2, 2, 3) if tokens is None else tokens
    weights = np.asarray(weights) if isinstance(weights, list) else weights
    return Prompts(tokens, np.asarray(labels), label_row=label_row, weights=weights)


def test_sizes_are_read_from_the_tokens():
    prompts = build(np.zeros((5, 4, 9)), np.zeros(5))
    assert (prompts.batch, prompts.token_dim, prompts.examples) == (5, 4, 8)


def test_weights_are_uniform_by_default():
    np.testing.assert_allclose(build().weights, [0.5, 0.5], rtol=1e-15)


def test_given_weights_are_kept():
    np.testing.assert_array_equal(build(weights=[0.25, 0.75]).weights, [0.25, 0.75])


def test_a_prompt_may_have_weight_zero():
    assert float(build(weights=[0.0, 1.0]).expect(jnp.array([7.0, 3.0]))) == 3.0


def test_integer_tokens_become_floats():
    assert build(np.ones((2, 2, 3), int)).tokens.dtype == jnp.asarray(0.0).dtype


@pytest.mark.parametrize("dtype", FLOATS)
def test_labels_and_weights_take_the_dtype_of_the_tokens(dtype):
    prompts = build(jnp.ones((2, 2, 3), dtype), np.array([1.0, 2.0]), weights=np.array([0.5, 0.5]))
    assert (prompts.tokens.dtype, prompts.labels.dtype, prompts.weights.dtype) == (dtype, dtype, dtype)


def test_class_labels_stay_integers():
    assert jnp.issubdtype(build(labels=np.array([2, 0])).labels.dtype, jnp.integer)


def test_vector_labels_are_kept():
    assert build(labels=np.ones((2, 5))).labels.shape == (2, 5)


@settings(deadline=None, max_examples=10)
@given(st.integers(1, 7), st.integers(0, 10**6))
def test_expect_is_the_weighted_mean(batch, seed):
    rng = np.random.default_rng(seed)
    weights, values = rng.dirichlet(np.ones(batch)), rng.normal(size=batch)
    prompts = build(np.zeros((batch, 2, 3)), np.zeros(batch), weights=weights)
    np.testing.assert_allclose(
        prompts.expect(jnp.asarray(values)), np.average(values, weights=weights), atol=bound(1e-14, 2e-6)
    )


def test_label_rms_of_numbers_by_hand():
    np.testing.assert_allclose(
        build(labels=[3.0, 1.0], weights=[0.25, 0.75]).label_rms(), np.sqrt(3), rtol=bound(1e-15, 2e-6)
    )


def test_label_rms_of_vectors_by_hand():
    np.testing.assert_allclose(build(labels=[[3.0, 4.0], [0.0, 1.0]]).label_rms(), np.sqrt(13), rtol=bound(1e-15, 2e-6))


def test_label_rms_of_classes_counts_them_as_numbers():
    np.testing.assert_allclose(build(labels=np.array([1, 7])).label_rms(), 5.0, rtol=1e-15)


@pytest.mark.parametrize("shape", [(2, 3), (2, 2, 3, 1), (0, 2, 3), (2, 0, 3), (2, 2, 0)])
def test_tokens_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"`tokens` must have shape \[B, D, N\+1\]"):
        build(np.zeros(shape))


def test_prompts_without_an_example_are_refused():
    with pytest.raises(ValueError, match=r"at least one example before the query .*N = 0"):
        build(np.zeros((2, 2, 1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_tokens_that_are_not_finite_are_refused_and_counted(bad):
    tokens = np.zeros((2, 2, 3))
    tokens[0, 1, 2] = tokens[1, 0, 0] = bad
    with pytest.raises(ValueError, match="`tokens` must be finite; got 2 entries"):
        build(tokens)


@pytest.mark.parametrize("labels", [np.zeros(3), np.zeros((3, 2)), np.zeros((2, 2, 2)), np.array(1.0)])
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(ValueError, match=r"`labels` must have shape \[B\] or \[B, C\] with B = 2"):
        build(labels=labels)


def test_labels_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`labels` must be finite; got 1 entries"):
        build(labels=[1.0, np.nan])


def test_weights_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"`weights` must have shape \[B\] = \[2\]; got shape \(3,\)"):
        build(weights=np.full(3, 1 / 3))


@pytest.mark.parametrize("weights", [[1.5, -0.5], [0.5, 0.6], [0.5, 0.4], [0.0, 0.0]])
def test_weights_that_are_no_probabilities_are_refused(weights):
    with pytest.raises(ValueError, match="`weights` must be non-negative with sum 1"):
        build(weights=weights)


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`weights` must be finite"):
        build(weights=[np.nan, 1.0])


@pytest.mark.parametrize("row", [2, 5])
def test_a_label_row_beyond_the_tokens_is_refused(row):
    with pytest.raises(ValueError, match="`label_row` must be a row of the tokens, 0 to 1"):
        build(label_row=row)


def test_a_negative_label_row_is_refused():
    with pytest.raises(ValueError, match="`label_row` must be a whole number of at least 0; got -1"):
        build(label_row=-1)


def test_tokens_that_stop_being_finite_under_jit_raise_in_the_run():
    scale = eqx.filter_jit(lambda factor: build(factor * jnp.ones((2, 2, 3))).tokens)
    np.testing.assert_array_equal(scale(2.0), np.full((2, 2, 3), 2.0))
    with pytest.raises(RuntimeError, match="`tokens` must be finite"):
        scale(np.inf)


def test_weights_that_stop_being_probabilities_under_jit_raise_in_the_run():
    weigh = eqx.filter_jit(lambda first: build(weights=jnp.stack([first, 0.5])).weights)
    np.testing.assert_array_equal(weigh(jnp.array(0.5)), [0.5, 0.5])
    with pytest.raises(RuntimeError, match="`weights` must be non-negative with sum 1"):
        weigh(jnp.array(0.7))


def test_prompts_pass_through_jit():
    assert float(eqx.filter_jit(lambda p: p.expect(p.labels))(build())) == -0.5


def test_labels_that_lose_bits_are_refused(key):
    tokens = jax.random.normal(key, (2, 2, 3))
    with jax.enable_x64(False), pytest.raises(ValueError, match="`labels` must fit in int32; got 1 to 4294967297"):
        Prompts(tokens, np.array([1, 2**32 + 1]), label_row=0)


def test_prompts_may_be_built_under_a_gradient(key):
    tokens = jax.random.normal(key, (2, 2, 3))
    gradient = jax.grad(lambda t: jnp.sum(build(t).tokens ** 2))(tokens)
    np.testing.assert_allclose(gradient, 2 * tokens, rtol=1e-14)
