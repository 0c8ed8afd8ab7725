"""Random arrays whose programs compile fast."""

import math
from collections.abc import Callable

from jaxtyping import Array, PRNGKeyArray


def draw_flat(
    law: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: PRNGKeyArray, shape: tuple[int, ...]
) -> Array:
    """The numbers of `law(key, shape)`, such as `jax.random.normal`, drawn as a vector.

    A random number is a function of the key and its place in the flat array: to find that from many indices within the
    loop over them takes XLA longer to compile.
    """
    return law(key, (math.prod(shape),)).reshape(shape)
