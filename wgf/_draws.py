"""Random keys that each purpose has for itself, and random arrays whose programs compile fast."""

import math
import zlib
from collections.abc import Callable

import jax
from jaxtyping import Array, PRNGKeyArray

from ._checks import random_key


def purpose(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key for one purpose: `key` with a hash of the purpose's `name` folded in.

    Every public function that draws begins with this. So one key that is passed to several of them gives independent
    numbers, and what is split from it within one is none of the keys that the user splits from it.

    **Raises:** `ValueError` unless `key` is one random key.
    """
    return jax.random.fold_in(random_key("key", key), zlib.crc32(name.encode()))


def draw_flat(
    law: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: PRNGKeyArray, shape: tuple[int, ...]
) -> Array:
    """The numbers of `law(key, shape)`, such as `jax.random.normal`, drawn as a vector.

    A random number is a function of the key and its place in the flat array: to find that from many indices within the
    loop over them takes XLA longer to compile.
    """
    return law(key, (math.prod(shape),)).reshape(shape)
