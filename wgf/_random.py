"""Separate random keys for separate purposes."""

import zlib

import jax
from jaxtyping import PRNGKeyArray

from ._checks import random_key


def purpose(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key for one purpose: `key` with a hash of the purpose's `name` folded in.

    Every public function that draws starts with this. One key that is passed to several functions then gives
    independent numbers. The keys that a function splits from it differ from those that the user splits from it.

    **Raises:** `ValueError` unless `key` is one random key.
    """
    return jax.random.fold_in(random_key("key", key), zlib.crc32(name.encode()))
