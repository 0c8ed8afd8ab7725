"""Compile JAX functions for accelerators on a machine that has none, and read the products in the compiled programs.

XLA's whole compiler for the chip runs: what it refuses there it refuses here. Import this module before JAX, in a
process of its own, with the folder `benchmarks` on the path; `_chips` there says what it needs.
"""

import collections
import re

from _chips import chips, lower as lower_placed  # isort: skip (it must come before JAX)

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec


def lower(chip: str, function, *trees) -> jax.stages.Lowered:
    """The program of `function(*trees)` for one chip. Arrays in the trees are its arguments, all else is constant."""
    here = NamedSharding(Mesh(np.array(chips(chip)[:1]), ("chip",)), PartitionSpec())

    def place(leaf):
        if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
        return leaf

    return lower_placed(function, *jax.tree.map(place, trees))


# Instructions that multiply matrices: XLA's own, and calls to NVIDIA's libraries.
_PRODUCT = re.compile(r"^\s*(?:ROOT )?%?[\w.\-]+ = (\(?\w+)\[.* (dot|convolution|custom-call)\((.*)$")
_LIBRARY = re.compile(r'custom_call_target="(__cublas\$(?!triangular)[^"]*|__cudnn[^"]*)"')
_ATTRIBUTE = re.compile(r"operand_precision=\{(\w+),(\w+)\}")
_CONFIG = re.compile(r'"operand_precision":\["(\w+)","(\w+)"\]')
_ALGORITHM = re.compile(r'algorithm=(dot_\w+)|"algorithm":"(ALG_DOT_\w+)"')


def products(text: str) -> collections.Counter:
    """How often each precision occurs among the products of float32 in an optimised program.

    A product without a precision has the chip's default: TF32 on a GPU, bfloat16 on a TPU.
    """
    found = collections.Counter()
    for line in text.splitlines():
        if not (product := _PRODUCT.match(line)) or product.group(1).lstrip("(") != "f32":
            continue
        if product.group(2) == "custom-call" and not _LIBRARY.search(line):
            continue
        if algorithm := _ALGORITHM.search(line):
            found[next(filter(None, algorithm.groups())).lower()] += 1
        else:
            asked = _ATTRIBUTE.search(line) or _CONFIG.search(line)
            found["/".join(sorted({each.lower() for each in asked.groups()})) if asked else "default"] += 1
    return found
