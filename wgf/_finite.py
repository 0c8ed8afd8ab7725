"""Whether what moves is made of numbers: NaN or infinity in any part of it is a failure."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PyTree

from ._backend.compat import is_traced
from ._checks import on_host


def all_finite(tree: PyTree[Array]) -> Bool[Array, ""]:
    """Whether every entry of every array is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))


def finite_rows(tree: PyTree[Array]) -> Bool[Array, " saves"]:
    """The same for each row of arrays that share a leading axis `[saves]`."""
    return jax.vmap(all_finite)(tree)


def finite_leaves(argument: str, tree: PyTree) -> None:
    """Raise `ValueError` that names the leaf if an array of a tree holds NaN or infinity. Traced arrays pass.

    Cost: one pass over the arrays on the host; on an accelerator, large ones are read where they are.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not eqx.is_inexact_array(leaf) or is_traced(leaf):
            continue
        with jax.ensure_compile_time_eval():
            finite = jnp.isfinite(leaf) if isinstance(known := on_host(leaf), jax.Array) else np.isfinite(known)
            if not finite.all():
                where = jax.tree_util.keystr(path, simple=True, separator=".")
                raise ValueError(
                    f"`{argument}` must be finite; got {int((~finite).sum())} of {leaf.size} entries that are NaN or "
                    f"infinite{f' in `{where}`' if where else ''}. Draw new particles, or take an earlier model."
                )
