"""Images as prompts: patches are tokens, and the query is the class token."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray
from sklearn.datasets import load_digits

from .._checks import at_least, numbered
from .._random import purpose
from ._assemble import positional_encoding
from ._prompts import Prompts


class Split(NamedTuple):
    """A data measure to train on, and one that was held out."""

    train: Prompts
    held_out: Prompts


def digits(
    key: PRNGKeyArray, *, held_out: int = 360, patch: int = 4, features: int | None = None, positions: int = 4
) -> Split:
    """The 1,797 handwritten digits that scikit-learn ships, 8 × 8 pixels in 10 classes, as prompts.

    **Arguments:**

    - `key`: draws which images are held out, and the random embedding.
    - `held_out`: how many images are held out.
    - `patch`, `features`, `positions`: as in [`wgf.prompts.patch_prompts`][].

    **Returns:** [`wgf.prompts.Split`][]. Pixels are standardised by mean and deviation of the training images.

    **Raises:** `ValueError` if `held_out` is not between 1 and 1,796, or the tokens cannot be made.

    **Source:** E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository
    (1998), its test set; the copy that scikit-learn ships.
    """
    table: Any = load_digits()
    images, labels = table.images[..., None], table.target
    if at_least("held_out", held_out, 1) >= len(images):
        raise ValueError(f"`held_out` must leave an image to train on, of {len(images)}; got {held_out}.")
    split_key, embedding_key = jax.random.split(purpose(key, "prompts.digits"))
    order = np.asarray(jax.random.permutation(split_key, len(images)))
    later, first = order[:held_out], order[held_out:]
    return split_prompts(
        embedding_key,
        (images[first], labels[first]),
        (images[later], labels[later]),
        classes=10,
        patch=patch,
        features=features,
        positions=positions,
    )


def split_prompts(
    key: PRNGKeyArray,
    train: tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    *,
    classes: int,
    patch: int,
    features: int | None = None,
    positions: int = 4,
) -> Split:
    """Images and labels of two sets as prompts, with pixels standardised channel by channel over the training set.

    **Arguments:** `key` draws the random embedding, the same for both sets; images `[B, height, width, channels]` and
    labels `[B]` of both; the others as in [`wgf.prompts.patch_prompts`][].

    **Returns:** [`wgf.prompts.Split`][]. **Raises:** `ValueError` if the tokens cannot be made.
    """
    key = purpose(key, "prompts.split_prompts")
    shift, scale = train[0].mean((0, 1, 2)), train[0].std((0, 1, 2))
    scale = np.where(scale > 0, scale, 1.0)  # a constant channel becomes 0

    def prompts(images: np.ndarray, labels: np.ndarray) -> Prompts:
        standard = jnp.asarray((images - shift) / scale, jnp.result_type(float))
        return patch_prompts(
            key,
            standard,
            numbered("labels", labels, classes, "classes").astype(jnp.int32),
            classes=classes,
            patch=patch,
            features=features,
            positions=positions,
        )

    return Split(prompts(*train), prompts(*held_out))


def patch_prompts(
    key: PRNGKeyArray,
    images: Float[Array, "batch height width channels"],
    labels: Int[Array, " batch"],
    *,
    classes: int,
    patch: int,
    features: int | None = None,
    positions: int = 4,
) -> Prompts:
    r"""Images cut into square patches, each of them a token, with a class token at the end.

    Column i is \( (E x_i, 0, p_i) \): the embedded pixels of patch i, a row of zeros for each class, the positional
    encoding. In the last column, the class token, the pixels are 0 as well; the logits are read from its class rows
    at depth 1, by [`wgf.objective.QueryRows`][]`(prompts.label_row, classes)`: what a Vision Transformer does, in the
    layout (x, y, p) of in-context prompts. The embedding E is fixed; a trainable one is a layer of an Equinox module
    around the model, as [`wgf.train`][] takes any.

    **Arguments:**

    - `key`: draws E; unused without `features`.
    - `images`: `[B, height, width, channels]`, of mean 0 and variance 1 at best.
    - `labels`: a class 0 to `classes` − 1 each, `[B]`.
    - `patch`: the side p of a patch in pixels; divides height and width.
    - `features`: the rows of E, random and orthonormal, at most p²·channels. Default None: the pixels themselves.
    - `positions`: rows of positional encoding (even; 0 for none).

    **Returns:** [`wgf.prompts.Prompts`][] with D = features + classes + positions, N = height·width/p² patches and
    `label_row = features`.

    **Raises:** `ValueError` if `patch` does not divide the image, `features` exceeds the pixels of a patch, a label is
    no class, or `positions` is odd.

    **Source:** A. Dosovitskiy et al., *An image is worth 16x16 words*, arXiv:2010.11929 (patches and class token).
    """
    pixels = _patches(images, at_least("patch", patch, 1))
    labels = numbered("labels", labels, at_least("classes", classes, 2), "classes")
    if features is not None:
        pixels = jnp.einsum("fp,bpn->bfn", _embedding(key, features, pixels.shape[1]).astype(pixels.dtype), pixels)
    batch, rows, count = pixels.shape
    blank = jnp.zeros((classes, count + 1), pixels.dtype)
    fixed = jnp.concatenate([blank, positional_encoding(positions, count + 1).astype(pixels.dtype)])
    tokens = jnp.concatenate(
        [jnp.pad(pixels, ((0, 0), (0, 0), (0, 1))), jnp.broadcast_to(fixed, (batch, *fixed.shape))], axis=1
    )
    return Prompts(tokens, labels, label_row=rows)


def _patches(images: Float[Array, "batch height width channels"], side: int) -> Float[Array, "batch pixels patches"]:
    """Cut images into patches from left to right and top to bottom, each with its pixels in the same order."""
    batch, height, width, channels = images.shape
    if height % side or width % side:
        raise ValueError(f"`patch` must divide the images' height and width, {height} and {width}; got {side}.")
    grid = images.reshape(batch, height // side, side, width // side, side, channels)
    return jnp.transpose(grid, (0, 2, 4, 5, 1, 3)).reshape(batch, side * side * channels, -1)


def _embedding(key: PRNGKeyArray, features: int, pixels: int) -> Float[Array, "features pixels"]:
    if at_least("features", features, 1) > pixels:
        raise ValueError(f"`features` must be at most the numbers in a patch, {pixels}; got {features}.")
    key = purpose(key, "prompts.patch_prompts")
    return jnp.linalg.qr(jax.random.normal(key, (pixels, features)))[0].T
