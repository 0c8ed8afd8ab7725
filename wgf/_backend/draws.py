"""Random arrays whose programs compile fast."""

import math
from collections.abc import Callable

from jaxtyping import Array, PRNGKeyArray


def draw_flat(
    law: Callable[[PRNGKeyArray, tuple[int, ...]], Array], key: PRNGKeyArray, shape: tuple[int, ...]
) -> Array:
    """The numbers of `law(key, shape)`, such as `jax.random.normal`, drawn as a vector.

    A random number depends on the key and on its index in the flat array. Computing that index from many indices takes
    XLA longer to compile.
    """
    return law(key, (math.prod(shape),)).reshape(shape)
