"""Random keys that each purpose has for itself."""

import zlib

import jax
from jaxtyping import PRNGKeyArray

from ._checks import random_key


def purpose(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key for one purpose: `key` with a hash of the purpose's `name` folded in.

    Every public function that draws begins with this. So one key that is passed to several of them gives independent
    numbers, and what is split from it within one is none of the keys that the user splits from it.

    **Raises:** `ValueError` unless `key` is one random key.
    """
    return jax.random.fold_in(random_key("key", key), zlib.crc32(name.encode()))
