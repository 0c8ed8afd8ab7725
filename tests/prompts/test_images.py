"""Images as prompts: patches, their embedding, digits."""

from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound
from sklearn.datasets import load_digits

from wgf.prompts import digits, patch_prompts, split_prompts


def draw(key, shape=(5, 4, 6, 2)):
    return jax.random.normal(key, shape), jnp.arange(shape[0]) % 3


def test_a_token_holds_its_patch_the_class_rows_and_its_position(key):
    images, labels = draw(key)
    prompts = patch_prompts(key, images, labels, classes=3, patch=2, positions=4)
    assert prompts.tokens.shape == (5, 8 + 3 + 4, 6 + 1)
    assert prompts.label_row == 8
    for index, (row, column) in enumerate((r, c) for r in (0, 2) for c in (0, 2, 4)):
        square = images[:, row : row + 2, column : column + 2]
        np.testing.assert_array_equal(prompts.tokens[:, :8, index], square.reshape(5, 8))
    assert np.all(prompts.tokens[:, :11, -1] == 0)
    assert np.all(prompts.tokens[:, 8:11] == 0)
    codes = np.asarray(prompts.tokens[0, 11:])
    np.testing.assert_array_equal(prompts.tokens[:, 11:], np.broadcast_to(codes, (5, 4, 7)))
    assert len(np.unique(codes.round(9), axis=1).T) == 7
    np.testing.assert_array_equal(prompts.labels, labels)


def test_the_random_embedding_is_an_orthogonal_projection_of_the_pixels(key):
    images, labels = draw(key)
    plain = patch_prompts(key, images, labels, classes=3, patch=2)
    full = patch_prompts(key, images, labels, classes=3, patch=2, features=8)
    part = patch_prompts(key, images, labels, classes=3, patch=2, features=3)
    # As many rows as pixels keep every scalar product; fewer lose a part of every square.
    products, kept, projected = (
        np.einsum("bpn,bpm->bnm", t, t) for t in (plain.tokens[:, :8], full.tokens[:, :8], part.tokens[:, :3])
    )
    np.testing.assert_allclose(kept, products, atol=bound(1e-12, 1e-5))
    assert np.linalg.eigvalsh(products - projected).min() > -bound(1e-12, 1e-5)
    assert 0.2 < np.trace(projected.sum(0)) / np.trace(products.sum(0)) < 0.6
    assert part.token_dim == 3 + 3 + 4
    assert part.label_row == 3


def test_digits_are_the_images_that_scikit_learn_ships(key):
    split = digits(key, held_out=297, patch=8, positions=0)
    assert (split.train.batch, split.held_out.batch) == (1500, 297)
    pixels = np.concatenate([p.tokens[:, :64, 0] for p in split])
    labels = np.concatenate([p.labels for p in split])
    train = np.asarray(split.train.tokens[:, :64, 0])
    assert abs(train.mean()) < bound(1e-12, 2e-6)
    assert abs(train.std() - 1) < bound(1e-12, 2e-6)
    # Standardised by one line for all pixels, they are the table's up to order; each with its own label.
    table = cast(Any, load_digits())
    values = np.unique(pixels.round(9))
    ranks = np.searchsorted(values, pixels.round(9))
    ours, theirs = np.column_stack([ranks, labels]), np.column_stack([table.data, table.target]).astype(int)
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_a_key_draws_the_split(key):
    first, again, other = digits(key), digits(key), digits(jax.random.key(7))
    np.testing.assert_array_equal(first.train.tokens, again.train.tokens)
    assert np.any(first.held_out.labels != other.held_out.labels)


@pytest.mark.parametrize("held_out", [0, 1797])
def test_a_split_without_one_of_its_parts_is_refused(key, held_out):
    with pytest.raises(ValueError, match="`held_out` must"):
        digits(key, held_out=held_out)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patch": 3}, "`patch` must divide the images' height and width, 4 and 6; got 3"),
        ({"features": 9}, "`features` must be at most the numbers in a patch, 8; got 9"),
        ({"positions": 3}, "`positions` must be even"),
        ({"classes": 2}, "`labels` must be classes 0 to 1; got 0 to 2"),
    ],
)
def test_tokens_that_cannot_be_made_are_refused(key, options, text):
    with pytest.raises(ValueError, match=text):
        patch_prompts(key, *draw(key), **({"classes": 3, "patch": 2} | options))


def test_a_constant_channel_becomes_zero(key):
    images = np.stack([np.ones((4, 2, 2)), np.random.default_rng(0).normal(size=(4, 2, 2))], axis=-1)
    split = split_prompts(key, (images, np.arange(4)), (images, np.arange(4)), classes=4, patch=1)
    assert np.all(split.train.tokens[:, 0] == 0)
    assert np.std(split.train.tokens[:, 1, :-1]) == pytest.approx(1)


def test_labels_that_are_no_integers_are_refused(key):
    """Not rounded down to a class."""
    images = np.random.default_rng(0).normal(size=(2, 2, 2, 1))
    with pytest.raises(ValueError, match="`labels` must be classes 0 to 1, as integers; got type float64"):
        split_prompts(key, (images, np.array([0.0, 0.7])), (images, np.arange(2)), classes=2, patch=1)
