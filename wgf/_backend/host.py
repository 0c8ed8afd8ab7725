"""Arrays of one process or many, brought to the host."""

import jax
import numpy as np
from jaxtyping import PyTree

from .compat import multihost_utils


def on_host(tree: PyTree) -> PyTree[np.ndarray]:
    """Arrays as NumPy's, also those that are spread over the devices of many processes."""

    def one(leaf):
        return np.asarray(leaf if leaf.is_fully_addressable else multihost_utils.process_allgather(leaf, tiled=True))

    return jax.tree.map(one, tree)
