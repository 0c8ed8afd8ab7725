"""Whether the solution of a flow fits into memory, known from shapes before anything is compiled."""

import math
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .. import _checks
from .._backend.compat import is_traced


def check_solution(saves: int, model: PyTree) -> None:
    """Raise `ValueError` if a solution, `saves` copies of a model's arrays, cannot be held.

    A solve holds the solution twice when it ends: the saved states, and the models made of them.
    """
    taken, most = 2 * saves * sum(map(_bytes_here, jax.tree.leaves(model))), _memory()
    if taken > most:
        raise ValueError(
            f"`taus` must be few enough for the memory, {most / 2**30:.4g} GiB; got {saves} times. The solution holds "
            f"a model for each, and takes {taken / 2**30:.4g} GiB at the end of the flow. Save at fewer `taus`, or use "
            "fewer particles."
        )


def _memory() -> int:
    """The bytes of memory of this process's devices. If they do not say: four times the bytes of the largest array."""
    reports = [device.memory_stats() or {} for device in jax.local_devices()]
    limits = [report.get("bytes_limit", 0) for report in reports]
    return sum(limits) if all(limits) else 4 * _checks._most_bytes()


def _bytes_here(leaf: Any) -> int:
    """The bytes of an array on the devices of this process."""
    if not eqx.is_array(leaf):
        return 0
    if is_traced(leaf) or isinstance(leaf, np.ndarray):
        return leaf.size * leaf.dtype.itemsize
    shard = math.prod(leaf.sharding.shard_shape(leaf.shape))
    return shard * leaf.dtype.itemsize * len(leaf.sharding.addressable_devices)
