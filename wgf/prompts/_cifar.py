"""CIFAR-10 in its binary format, as prompts."""

import os
from pathlib import Path

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from .._checks import at_least, shown
from .._random import purpose
from ._images import Split, split_prompts

_FOLDER = "cifar-10-batches-bin"
_TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
_HELD_OUT = ("test_batch.bin",)
_RECORD = 1 + 3 * 32 * 32


def cifar10(
    key: PRNGKeyArray,
    root: str | Path,
    *,
    images: int | None = None,
    patch: int = 4,
    features: int | None = None,
    positions: int = 8,
) -> Split:
    """CIFAR-10, 32 × 32 colour images in 10 classes, as prompts; read from the files of its binary version.

    **Arguments:**

    - `key`: a random key for the subset of images and the random embedding.
    - `root`: the folder of `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or its parent folder.
    - `images`: the number of training images, drawn without replacement. Default: all.
    - `patch`, `features`, `positions`: as in [`wgf.prompts.patch_prompts`][].

    **Returns:** [`wgf.prompts.Split`][]: the five training batches, and the test batch. All 60,000 images at patches of
    4 × 4 pixels take 1 GB.

    **Raises:** `ValueError` naming a file that is missing, truncated, or not in CIFAR-10's binary format. Also if
    `images` exceeds the number of training images, or the tokens cannot be made.

    Not for `jit`: the images are read and chosen on the host.

    **Source:** A. Krizhevsky, *Learning multiple layers of features from tiny images* (2009);
    https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    if not isinstance(root, str | os.PathLike):
        raise ValueError(f"`root` must be the path of a folder; got {shown(root)}.")
    folder = Path(root) / _FOLDER if (Path(root) / _FOLDER).is_dir() else Path(root)
    pixels, labels = _read(folder, _TRAIN)
    subset_key, embedding_key = jax.random.split(purpose(key, "prompts.cifar10"))
    if images is not None:
        if at_least("images", images, 1) > len(pixels):
            raise ValueError(f"`images` must be at most the training images, {len(pixels)}; got {images}.")
        kept = np.asarray(jax.random.permutation(subset_key, len(pixels)))[:images]
        pixels, labels = pixels[kept], labels[kept]
    return split_prompts(
        embedding_key,
        (pixels, labels),
        _read(folder, _HELD_OUT),
        classes=10,
        patch=patch,
        features=features,
        positions=positions,
    )


def _read(folder: Path, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Images `[B, 32, 32, 3]` in float32 and labels `[B]` of several batches together."""
    records = np.concatenate([_records(folder / name) for name in names])
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return images.astype(np.float32) / 255, records[:, 0]


def _records(path: Path) -> np.ndarray:
    """The records of one batch, a byte for the label and 1,024 for each of red, green and blue, `[B, 3073]`."""
    if not path.is_file():
        raise ValueError(
            f"`root` must be the folder of CIFAR-10's binary version ({_FOLDER}), which holds {path.name}; got "
            f"{path.parent} without it. Unpack cifar-10-binary.tar.gz of https://www.cs.toronto.edu/~kriz/cifar.html."
        )
    numbers = np.fromfile(path, np.uint8)
    if numbers.size == 0 or numbers.size % _RECORD:
        raise ValueError(
            f"`root`: {path.name} must hold whole records of {_RECORD} bytes; got {numbers.size} bytes. The file is "
            "truncated. Unpack cifar-10-binary.tar.gz again."
        )
    records = numbers.reshape(-1, _RECORD)
    if records[:, 0].max() > 9:
        raise ValueError(
            f"`root`: {path.name} must have a label 0 to 9 as the first byte of each record; got "
            f"{records[:, 0].max()}. The file is not in CIFAR-10's binary format. CIFAR-100 and the Python version "
            "have other formats."
        )
    return records
