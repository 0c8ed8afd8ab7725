"""Images as prompts: patches are tokens, and the query is the class token."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from .._checks import at_least, check_memory, floats, numbered, shown
from .._extras import needed
from .._random import purpose
from ._assemble import positional_encoding
from ._prompts import Prompts


class Split(NamedTuple):
    """A data measure for training, and a held-out one."""

    train: Prompts
    held_out: Prompts


def digits(
    key: PRNGKeyArray, *, held_out: int = 360, patch: int = 4, features: int | None = None, positions: int = 4
) -> Split:
    """The 1,797 handwritten digits that scikit-learn ships, 8 × 8 pixels in 10 classes, as prompts.

    **Arguments:**

    - `key`: a random key for the held-out images and the random embedding.
    - `held_out`: the number of held-out images.
    - `patch`, `features`, `positions`: as in [`wgf.prompts.patch_prompts`][].

    **Returns:** [`wgf.prompts.Split`][]. Pixels are standardised by the mean and standard deviation of the training
    images.

    **Raises:** `ValueError` if `held_out` is not between 1 and 1,796, or the tokens cannot be made.

    Not for `jit`: the images are chosen on the host.

    **Source:** E. Alpaydin, C. Kaynak, *Optical Recognition of Handwritten Digits*, UCI Machine Learning Repository
    (1998), its test set; the copy that scikit-learn ships.
    """
    table: Any = needed("sklearn.datasets", "data", "`digits`").load_digits()
    images, labels = table.images[..., None], table.target
    if at_least("held_out", held_out, 1) >= len(images):
        raise ValueError(f"`held_out` must be below the number of images, {len(images)}; got {held_out}.")
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
    """Images and labels of two sets as prompts, with pixels standardised per channel over the training set.

    **Arguments:**

    - `key`: a random key for the embedding, which both sets share.
    - `train`, `held_out`: images `[B, height, width, channels]` and labels `[B]` of each set.
    - the others as in [`wgf.prompts.patch_prompts`][].

    **Returns:** [`wgf.prompts.Split`][].

    **Raises:** `ValueError` if the tokens cannot be made.

    Computed on the host: not for `jit`.
    """
    key = purpose(key, "prompts.split_prompts")
    for name, part in (("train", train), ("held_out", held_out)):
        if not isinstance(part, tuple | list) or len(part) != 2 or np.ndim(part[0]) != 4:
            raise ValueError(f"`{name}` must be images [B, height, width, channels] and labels [B]; got {shown(part)}.")
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
    r"""Images cut into square patches: each patch is a token, and a class token comes last.

    Column i is \( (E x_i, 0, p_i) \): the embedded pixels of patch i, a row of zeros per class, and the positional
    encoding. The last column is the class token, whose pixels are 0 too. The logits are read from its class rows at
    depth 1, by [`wgf.objective.QueryRows`][]`(prompts.label_row, classes)`. This is a Vision Transformer in the layout
    (x, y, p) of in-context prompts. The embedding E is fixed. To train the embedding, make it a layer of an Equinox
    module around the model; [`wgf.train`][] takes any module.

    **Arguments:**

    - `key`: a random key for E; unused without `features`.
    - `images`: `[B, height, width, channels]`, best standardised to mean 0 and variance 1.
    - `labels`: classes 0 to `classes` − 1, `[B]`.
    - `patch`: the side p of a patch in pixels. It must divide height and width.
    - `features`: the number of rows of E, at most p²·channels. The rows are random and orthonormal. Default None: the
      pixels themselves.
    - `positions`: rows of positional encoding (even; 0 for none).

    **Returns:** [`wgf.prompts.Prompts`][] with D = features + classes + positions, N = height·width/p² patches and
    `label_row = features`.

    **Raises:** `ValueError` if `patch` does not divide the image, `features` exceeds the pixels of a patch, a label is
    not a class, or `positions` is odd.

    **Source:** A. Dosovitskiy et al., *An image is worth 16x16 words*, arXiv:2010.11929 (patches and class token).
    """
    images = floats("images", images)
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(f"`images` must have shape [B, height, width, channels], none of them 0; got {images.shape}.")
    pixels = _patches(images, at_least("patch", patch, 1))
    labels = numbered("labels", labels, at_least("classes", classes, 2), "classes")
    if labels.shape != images.shape[:1]:
        raise ValueError(f"`labels` must have shape [B] = {images.shape[:1]}; got {labels.shape}.")
    check_memory(each=len(images) * (pixels.shape[2] + 1), classes=classes)
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
