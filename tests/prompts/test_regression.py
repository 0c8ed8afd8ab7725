import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from hypothesis import given, settings, strategies as st

from wgf.prompts import linear_regression
from wgf.prompts._prompts import Prompts


def draw(key, batch=4, examples=5, dim=3, **kwargs):
    return linear_regression(key, batch=batch, examples=examples, dim=dim, **kwargs)


def inputs_and_labels(prompts: Prompts):
    """The inputs `[B, d, N+1]` and all labels `[B, N+1]`, the hidden one put back."""
    tokens, row = np.asarray(prompts.tokens), prompts.label_row
    labels = tokens[:, row].copy()
    labels[:, -1] = prompts.labels
    return tokens[:, :row], labels


@pytest.mark.parametrize(("batch", "examples", "dim", "positions"), [(4, 5, 3, 4), (4, 5, 3, 0), (1, 1, 1, 2)])
def test_shapes_follow_the_arguments(key, batch, examples, dim, positions):
    prompts = draw(key, batch, examples, dim, positions=positions)
    assert prompts.tokens.shape == (batch, dim + 1 + positions, examples + 1)
    assert prompts.labels.shape == (batch,)
    assert prompts.label_row == dim


def test_the_label_of_the_query_is_hidden(key):
    prompts = draw(key)
    np.testing.assert_array_equal(prompts.tokens[:, prompts.label_row, -1], 0)
    assert np.all(np.abs(prompts.tokens[:, prompts.label_row, :-1]) > 0)


def test_all_prompts_share_the_positional_encoding(key):
    encoding = draw(key, positions=4).tokens[:, 4:]
    np.testing.assert_array_equal(encoding, np.broadcast_to(encoding[0], encoding.shape))


def test_the_columns_of_a_prompt_have_distinct_positions(key):
    encoding = np.asarray(draw(key).tokens[0, 4:])
    assert len(np.unique(encoding.round(9), axis=1).T) == 6


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6), st.sampled_from(["uniform", "gaussian"]))
def test_labels_are_a_scalar_product_with_a_task_on_the_unit_sphere(seed, inputs):
    prompts = draw(jax.random.key(seed), inputs=inputs)
    for x, y in zip(*inputs_and_labels(prompts), strict=True):
        task = np.linalg.lstsq(x[:, :-1].T, y[:-1])[0]
        np.testing.assert_allclose(np.linalg.norm(task), 1, atol=bound(1e-9, 2e-6))
        np.testing.assert_allclose(task @ x[:, -1], y[-1], atol=bound(1e-9, 2e-6))


def test_every_prompt_has_a_task_of_its_own(key):
    x, y = inputs_and_labels(draw(key))
    tasks = np.stack([np.linalg.lstsq(a.T, b)[0] for a, b in zip(x, y, strict=True)])
    assert len(np.unique(tasks.round(6), axis=0)) == 4


def test_tasks_are_uniform_on_the_sphere(key):
    x, y = inputs_and_labels(draw(key, batch=4000))
    tasks = np.linalg.solve(np.swapaxes(x, 1, 2)[:, :3], y[:, :3, None])[..., 0]
    # Each coordinate has mean 0, variance 1/3 and fourth moment 1/5.
    assert np.all(np.abs(tasks.mean(axis=0)) < 4 * np.sqrt(1 / 3 / 4000)), tasks.mean(axis=0)
    squares = (tasks**2).mean(axis=0)
    assert np.all(np.abs(squares - 1 / 3) < 4 * np.sqrt((1 / 5 - 1 / 9) / 4000)), squares


@pytest.mark.parametrize(("inputs", "square", "fourth"), [("uniform", 1 / 3, None), ("gaussian", 1.0, 3.0)])
def test_label_rms_is_that_of_the_inputs(key, inputs, square, fourth):
    batch = 4000
    # For uniform inputs the fourth moment of a label lies below that of one coordinate's normal law.
    spread = np.sqrt(((fourth or 3 * square**2) - square**2) / batch)
    measured = float(draw(key, batch, inputs=inputs).label_rms()) ** 2
    assert abs(measured - square) < 4 * spread, (measured, square, spread)


def test_uniform_inputs_fill_the_cube(key):
    x, _ = inputs_and_labels(draw(key, batch=4000, inputs="uniform"))
    assert -1 <= x.min() < -0.99, x.min()
    assert 0.99 < x.max() <= 1, x.max()


def test_gaussian_inputs_leave_the_cube(key):
    x, _ = inputs_and_labels(draw(key, batch=4000, inputs="gaussian"))
    share = np.mean(np.abs(x) > 1)
    assert abs(share - 0.3173) < 4 * np.sqrt(0.3173 * 0.6827 / x.size), share


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_noise_adds_to_the_labels_with_its_standard_deviation(key, noise):
    quiet, loud = draw(key, batch=4000, noise=0.0), draw(key, batch=4000, noise=noise)
    np.testing.assert_array_equal(quiet.tokens[:, :3], loud.tokens[:, :3])
    difference = inputs_and_labels(loud)[1] - inputs_and_labels(quiet)[1]
    spread = noise**2 * np.sqrt(2 / difference.size)
    assert abs(np.mean(difference**2) - noise**2) < 4 * spread, (np.mean(difference**2), noise**2, spread)
    assert abs(difference.mean()) < 4 * noise / np.sqrt(difference.size), difference.mean()


def test_noise_may_be_traced(key):
    labels = jax.jit(lambda noise: draw(key, noise=noise).labels)
    np.testing.assert_allclose(labels(jnp.array(0.3)), draw(key, noise=0.3).labels, rtol=bound(1e-12, 2e-6))


def test_the_same_key_gives_the_same_prompts(key):
    first, second = draw(key, noise=0.1), draw(key, noise=0.1)
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_array_equal(first.labels, second.labels)


def test_another_key_gives_other_prompts(key):
    first, second = draw(key), draw(jax.random.key(1))
    assert np.abs(first.tokens[:, :4] - second.tokens[:, :4]).max() > 0.1


@pytest.mark.parametrize("argument", ["batch", "examples", "dim"])
def test_a_count_below_one_is_refused(key, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be a whole number of at least 1; got 0"):
        draw(key, **{argument: 0})


def test_negative_noise_is_refused(key):
    with pytest.raises(ValueError, match=r"`noise` must be finite and not negative; got -0.1"):
        draw(key, noise=-0.1)


@pytest.mark.parametrize("noise", [float("nan"), float("inf")])
def test_noise_that_is_not_finite_is_refused(key, noise):
    with pytest.raises(ValueError, match=f"`noise` must be finite and not negative; got {noise}"):
        draw(key, noise=noise)


def test_noise_of_several_numbers_is_refused(key):
    with pytest.raises(ValueError, match=r"`noise` must be one number; got an array of shape \(2,\)"):
        draw(key, noise=jnp.ones(2))


def test_negative_noise_under_jit_raises_in_the_run(key):
    with pytest.raises(RuntimeError, match="`noise` must be finite and not negative"):
        jax.jit(lambda noise: draw(key, noise=noise).labels)(jnp.array(-0.1))


def test_odd_positions_are_refused(key):
    with pytest.raises(ValueError, match=r"`positions` must be even .*; got 1"):
        draw(key, positions=1)


def test_an_unknown_law_of_inputs_is_refused(key, unchecked):
    with pytest.raises(ValueError, match=r"`inputs` must be one of \('uniform', 'gaussian'\); got 'cauchy'"):
        draw(key, inputs="cauchy")
