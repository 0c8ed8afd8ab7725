"""Contractions of small arrays over many heads: the building block of the fast means on a CPU."""

import functools
import math
import string
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

# Sums of at most this many terms are written out; a matrix product does longer ones.
_MOST_TERMS = 16


def contract(spec: str, left: Array, right: Array) -> Array:
    """What `jnp.einsum(spec, left, right)` computes, for arrays `[..., m]` of many particles.

    The letter m stands for particles and comes last wherever it appears. On a CPU a short sum is written
    out term by term, so that XLA makes plain loops along m, which vectorise; products of 5 by 2 matrices do
    not. A sum over prompts or particles becomes one matrix product. Derivatives are contractions again, in
    both modes and to any order: that is why this is a primitive of JAX.
    """
    return _contract.bind(left, right, spec=spec)


def isolated(function: Callable[..., Array]) -> Callable[..., Array]:
    """Compile `function` on its own, so that XLA does not fuse it into the functions that use its result.

    Fused, a cheap producer is computed again for each element of each consumer, which costs a factor of ten
    here. `jax.lax.optimization_barrier` does not help: XLA's CPU compiler drops it before it fuses.
    """
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*args):
        with set_xla_metadata(inlineable="false"):
            return compiled(*args)

    return call


_contract = Primitive("contract")


def _letters(spec: str) -> tuple[str, str, str]:
    operands, result = spec.split("->")
    left, right = operands.split(",")
    return left, right, result


def _sizes(spec: str, left: tuple[int, ...], right: tuple[int, ...]) -> dict[str, int]:
    a, b, _ = _letters(spec)
    return dict(zip(a + b, (*left, *right), strict=True))


@_contract.def_abstract_eval
def _abstract(left, right, *, spec):
    sizes = _sizes(spec, left.shape, right.shape)
    return ShapedArray(tuple(sizes[letter] for letter in _letters(spec)[2]), left.dtype)


def _left_cotangent(cotangent, left, right, *, spec):
    a, b, result = _letters(spec)
    return contract(f"{b},{result}->{a}", right, cotangent)


def _right_cotangent(cotangent, left, right, *, spec):
    a, b, result = _letters(spec)
    return contract(f"{a},{result}->{b}", left, cotangent)


ad.defbilinear(_contract, _left_cotangent, _right_cotangent)


def _batched(args, axes, *, spec):
    pairs = list(zip(args, axes, strict=True))
    size = next(arg.shape[axis] for arg, axis in pairs if axis is not None)
    left, right = (batching.bdim_at_front(arg, axis, size) for arg, axis in pairs)
    new = next(letter for letter in string.ascii_uppercase if letter not in spec)
    a, b, result = (new + letters for letters in _letters(spec))
    return contract(f"{a},{b}->{result}", left, right), 0


batching.primitive_batchers[_contract] = _batched


def _einsum(left, right, *, spec):
    return jnp.einsum(spec, left, right)


def _loops(left, right, *, spec):
    sizes = _sizes(spec, left.shape, right.shape)
    a, b, result = _letters(spec)
    summed = "".join(letter for letter in dict.fromkeys(a + b) if letter not in result)
    if _is_product(a, b, result, math.prod(sizes[letter] for letter in summed)):
        return _product(a, b, result, summed, left, right)
    terms = summed.replace("m", "")
    kept = result if "m" in result else result + "m"

    @isolated
    def total(left, right):
        places = np.ndindex(*(sizes[letter] for letter in terms))
        products = (_at(left, a, terms, place, kept) * _at(right, b, terms, place, kept) for place in places)
        return functools.reduce(jnp.add, products)

    summands = total(left, right)
    # As a product with ones: XLA's own row sums are several times slower.
    return summands if "m" in result else summands @ jnp.ones(summands.shape[-1], summands.dtype)


def _is_product(a: str, b: str, result: str, terms: int) -> bool:
    """Whether this is one matrix product with a long sum (one for each index of `vmap`, a capital letter)."""
    shared = [letter for letter in result if letter in a and letter in b and letter.islower()]
    return terms > _MOST_TERMS and not shared


def _product(a: str, b: str, result: str, summed: str, left: Array, right: Array) -> Array:
    """One matrix product, the smaller operand first: the fastest order of XLA's."""
    if left.size > right.size:
        a, b, left, right = b, a, right, left
    batch = [letter for letter in result if letter in a and letter in b]
    dims = [[letters.index(letter) for letter in chosen] for chosen in (summed, batch) for letters in (a, b)]
    product = jax.lax.dot_general(left, right, ((dims[0], dims[1]), (dims[2], dims[3])))
    order = batch + [letter for letter in a + b if letter in result and letter not in batch]
    return product.transpose([order.index(letter) for letter in result])


def _at(array: Array, letters: str, terms: str, place: tuple[int, ...], kept: str) -> Array:
    """The slice of `array` at one term of the sum, its axes ordered as `kept` (size 1 where it has none)."""
    index = dict(zip(terms, place, strict=True))
    array = array[tuple(index.get(letter, slice(None)) for letter in letters)]
    left = [letter for letter in letters if letter not in terms]
    array = array.transpose([left.index(letter) for letter in kept if letter in left])
    return jnp.expand_dims(array, [axis for axis, letter in enumerate(kept) if letter not in left])


_contract.def_impl(_einsum)
mlir.register_lowering(_contract, mlir.lower_fun(_einsum, multiple_results=False))
mlir.register_lowering(_contract, mlir.lower_fun(_loops, multiple_results=False), platform="cpu")
