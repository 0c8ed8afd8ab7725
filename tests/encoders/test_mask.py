"""Masked attention against a dense oracle in NumPy, in both of its fast forms and in its derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from jaxtyping import Bool

from wgf.encoders import AbstractMask, Banded, Causal, Intersection, SoftmaxAttention, plain_mean


class First(AbstractMask):
    """A user's mask: a query sees itself and the first position."""

    def __call__(self, length) -> Bool[np.ndarray, "keys queries"]:
        return np.eye(length, dtype=bool) | (np.arange(length) == 0)[:, None]


class Next(AbstractMask):
    """A query sees the next position alone; the last sees the first."""

    def __call__(self, length) -> Bool[np.ndarray, "keys queries"]:
        return np.roll(np.eye(length, dtype=bool), 1, axis=0)


SLIDING = Intersection(Causal(), Banded(1))
# Which keys each query of five sees, one line a query.
SEEN = [
    (Causal(), "1.... 11... 111.. 1111. 11111"),
    (Banded(0), "1.... .1... ..1.. ...1. ....1"),
    (Banded(2), "111.. 1111. 11111 .1111 ..111"),
    (Banded(7), "11111 11111 11111 11111 11111"),
    (SLIDING, "1.... 11... .11.. ..11. ...11"),
    (Intersection(First()), "1.... 11... 1.1.. 1..1. 1...1"),
]


def problem(mask, width=5, batch=3, dim=3, length=6, key_dim=2):
    encoder = SoftmaxAttention(dim, key_dim=key_dim, mask=mask)
    keys = jax.random.split(jax.random.key(0), 4)
    particles = encoder.sample(keys[0], (width,))
    weights = jax.random.uniform(keys[1], (width,), minval=0.5) / width
    tokens = jax.random.normal(keys[2], (batch, dim, length))
    return encoder, (particles, weights, tokens), jax.random.normal(keys[3], tokens.shape)


def by_hand(head, tokens, seen):
    """One query at a time: the softmax over the keys that it sees, and nothing else."""
    value, key, query = (np.asarray(matrix) for matrix in head)
    columns = []
    for n in range(tokens.shape[1]):
        visible = np.asarray(tokens)[:, seen[:, n]]
        scores = np.exp((key @ visible).T @ query @ np.asarray(tokens)[:, n] / np.sqrt(key.shape[0]))
        columns.append(value @ visible @ scores / scores.sum())
    return np.stack(columns, axis=1)


@pytest.mark.parametrize(("mask", "lines"), SEEN, ids=[repr(mask) for mask, _ in SEEN])
def test_a_query_sees_its_positions(mask, lines):
    np.testing.assert_array_equal(mask(5).T, [[mark == "1" for mark in line] for line in lines.split()])


@pytest.mark.parametrize("mask", [Causal(), Banded(2), SLIDING, First()], ids=repr)
@pytest.mark.parametrize("size", [{}, {"length": 40, "batch": 2}, {"dim": 17, "key_dim": 16}])
def test_masked_attention_is_the_dense_one(mask, size):
    """The plain head, and the fast mean: loops for small prompts, matrix products for long or wide ones."""
    encoder, (particles, weights, tokens), _ = problem(mask, **size)
    seen = mask(tokens.shape[2])
    heads = [jax.tree.map(lambda leaf, j=j: leaf[j], particles) for j in range(len(weights))]
    expected = np.stack([sum(a * by_hand(h, t, seen) for a, h in zip(weights, heads, strict=True)) for t in tokens])
    means = jax.jit(encoder.mean), jax.jit(functools.partial(plain_mean, encoder))
    for mean in means:
        np.testing.assert_allclose(mean(particles, weights, tokens), expected, atol=bound(1e-12, 1e-5))


@pytest.mark.parametrize("size", [{}, {"length": 40, "batch": 2, "width": 2}])
@pytest.mark.parametrize("order", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_derivatives_of_the_fast_mean_are_those_of_the_plain_one(size, order):
    encoder, args, costates = problem(SLIDING, **size)

    @functools.partial(jax.jit, static_argnums=0)
    def slopes(mean, args):
        first = jax.grad(lambda args: jnp.sum(costates * mean(*args) ** 2))
        if order == 1:
            return first(args)
        return jax.grad(lambda args: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(first(args))))(args)

    fast, plain = (slopes(mean, args) for mean in (encoder.mean, functools.partial(plain_mean, encoder)))
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound(1e-11, 1e-5) * float(jnp.abs(b).max()))


def test_a_causal_head_does_not_see_what_follows():
    encoder, (particles, weights, tokens), _ = problem(Causal())
    changed = tokens.at[:, :, 4:].add(10.0)
    mean = jax.jit(encoder.mean)
    before, after = (mean(particles, weights, t) for t in (tokens, changed))
    np.testing.assert_array_equal(after[:, :, :4], before[:, :, :4])
    assert float(jnp.abs(after[:, :, 4:] - before[:, :, 4:]).min()) > 0


def test_a_banded_head_sees_its_neighbours_alone():
    """What is changed at the position 4 reaches the queries 2 to 6 of a reach of 2, and no others."""
    encoder, (particles, weights, tokens), _ = problem(Banded(2), length=8)
    mean = jax.jit(encoder.mean)
    before, after = (mean(particles, weights, t) for t in (tokens, tokens.at[:, :, 4].add(3.0)))
    np.testing.assert_array_equal(jnp.any(after != before, axis=(0, 1)), [0, 0, 1, 1, 1, 1, 1, 0])


def test_a_band_of_no_reach_is_a_linear_map_and_a_wide_one_no_mask():
    encoder, (particles, weights, tokens), _ = problem(Banded(0))
    expected = jnp.einsum("m,mde,ben->bdn", weights, particles.value, tokens)
    np.testing.assert_allclose(jax.jit(encoder.mean)(particles, weights, tokens), expected, atol=bound(1e-13, 1e-5))
    wide, free = (problem(mask)[0] for mask in (Banded(5), None))
    means = [jax.jit(encoder.mean)(particles, weights, tokens) for encoder in (wide, free)]
    np.testing.assert_allclose(*means, rtol=bound(1e-13, 1e-5))


def test_large_scores_of_hidden_keys_do_no_harm():
    encoder, (particles, weights, tokens), _ = problem(Causal())
    loss = jax.jit(jax.value_and_grad(lambda t: jnp.sum(encoder.mean(particles, weights, t))))
    value, slope = loss(1e3 * tokens)
    assert bool(jnp.isfinite(value) & jnp.all(jnp.isfinite(slope)))


def test_a_mask_that_is_none_is_refused(unchecked):
    with pytest.raises(
        ValueError, match=r"`mask` must be a mask such as wgf.encoders.Causal\(\), or None; got 'causal'"
    ):
        SoftmaxAttention(3, key_dim=2, mask="causal")


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Banded(-1), "`reach` must be a whole number of at least 0; got -1"),
        (lambda: Intersection(), r"`masks` must be at least one mask, e.g. wgf.encoders.Causal\(\); got \(\)"),
        (lambda: Intersection(Causal(), "band"), r"`masks` must be at least one mask.*'band'"),
        (
            lambda: Intersection(Causal(), Next())(4),
            "`masks` must leave every query a key; .* query at column 0. Widen a mask.",
        ),
    ],
)
def test_bad_masks_are_named(make, text):
    with pytest.raises(ValueError, match=text):
        make()
