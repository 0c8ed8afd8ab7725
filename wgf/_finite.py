"""Whether what moves is made of numbers: NaN or infinity in any part of it is a failure."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree


def all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether every entry of every array is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def finite_rows(tree: PyTree[Array]) -> Bool[Array, " saves"]:
    """The same for each row of arrays that share a leading axis `[saves]`."""
    return jax.vmap(all_finite)(tree)
