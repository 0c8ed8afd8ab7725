"""Contractions of small arrays over many heads: the building block of the fast means on a CPU."""

import functools
import math
import string
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .outlining import outline
from .plain import PLAIN
from .precision import default_precision

if TYPE_CHECKING or not PLAIN:
    from .compat import Primitive, ShapedArray, ad, batching, mlir

# Sums of at most this many terms are written out; longer ones are matrix products.
_MOST_TERMS = 16
# Matrix products with more terms are summed in parts, for accuracy.
_MOST_IN_PRODUCT = 192


def contract(spec: str, *operands: Array) -> Array:
    """What `jnp.einsum(spec, *operands)` computes, for arrays `[..., m]` of many particles.

    The letter m stands for particles, and is the last one wherever it appears. On a CPU a short sum is written out term
    by term: XLA then makes plain loops along m, which vectorise, unlike products of 5 by 2 matrices. A sum of two
    operands over prompts or particles becomes one matrix product. Derivatives are contractions again, in both modes and
    to any order, which is why this is a primitive of JAX. The default precision is that of the call, as for JAX's own
    products.
    """
    return jnp.einsum(spec, *operands) if PLAIN else _contract.bind(*operands, spec=spec, precision=default_precision())


def _bind(spec: str, at: str | None, *operands: Array) -> Array:
    return _contract.bind(*operands, spec=spec, precision=at)


def _letters(spec: str) -> tuple[list[str], str]:
    operands, result = spec.split("->")
    return operands.split(","), result


def _spec(operands: Sequence[str], result: str) -> str:
    return f"{','.join(operands)}->{result}"


def _sizes(letters: Sequence[str], operands: "Sequence[Array | ShapedArray]") -> dict[str, int]:
    return dict(
        pair for each, operand in zip(letters, operands, strict=True) for pair in zip(each, operand.shape, strict=True)
    )


def _abstract(*operands, spec, precision):
    del precision
    letters, result = _letters(spec)
    sizes = _sizes(letters, operands)
    return ShapedArray(tuple(sizes[letter] for letter in result), operands[0].dtype)


def _jvp(primals, tangents, *, spec, precision):
    parts = [
        _bind(spec, precision, *primals[:place], tangent, *primals[place + 1 :])
        for place, tangent in enumerate(tangents)
        if not isinstance(tangent, ad.Zero)
    ]
    return _bind(spec, precision, *primals), functools.reduce(jnp.add, parts)


def _transposed(cotangent, *operands, spec, precision):
    """The cotangent of the one unknown operand, in which the contraction is linear."""
    letters, result = _letters(spec)
    place = next(i for i, operand in enumerate(operands) if ad.is_undefined_primal(operand))
    others = [*letters[:place], *letters[place + 1 :]]
    known = [*operands[:place], *operands[place + 1 :]]
    if isinstance(cotangent, ad.Zero):
        found = ad.Zero(operands[place].aval.to_ct_aval())
    else:
        found = _bind(_spec([*others, result], letters[place]), precision, *known, cotangent)
    return [found if i == place else None for i in range(len(operands))]


def _batched(args, axes, *, spec, precision):
    letters, result = _letters(spec)
    new = next(letter for letter in string.ascii_uppercase if letter not in spec)
    letters = [each if axis is None else new + each for each, axis in zip(letters, axes, strict=True)]
    moved = [arg if axis is None else jnp.moveaxis(arg, axis, 0) for arg, axis in zip(args, axes, strict=True)]
    return _bind(_spec(letters, new + result), precision, *moved), 0


def _einsum(*operands, spec, precision):
    return jnp.einsum(spec, *operands, precision=precision)


def _loops(*operands, spec, precision):
    # Traced when the program is lowered, outside the call.
    with jax.default_matmul_precision(precision):
        return _by_particles(spec, *operands)


def _by_particles(spec: str, *operands: Array) -> Array:
    letters, result = _letters(spec)
    sizes = _sizes(letters, operands)
    summed = "".join(letter for letter in sizes if letter not in result)
    if _is_product(letters, result, math.prod(sizes[letter] for letter in summed)):
        return _sum_of_products(letters, result, summed, operands)
    summands = _written_out(letters, result, summed.replace("m", ""), operands)
    # A product with ones: XLA's row sums are several times slower.
    return summands if "m" in result else summands @ jnp.ones(summands.shape[-1], summands.dtype)


def _written_out(letters: Sequence[str], result: str, terms: str, operands: Sequence[Array]) -> Array:
    """The sum over the letters of `terms` for each particle, one term after the other."""
    kept = result if "m" in result else result + "m"
    sizes = _sizes(letters, operands)
    places = list(np.ndindex(*(sizes[letter] for letter in terms)))
    summed = [i for i, each in enumerate(letters) if set(each) & set(terms)] or [0]
    others = [i for i in range(len(letters)) if i not in summed]

    @outline
    def total(*operands):
        def product(chosen: list[int], place: tuple[int, ...]) -> Array:
            return functools.reduce(jnp.multiply, (_at(operands[i], letters[i], terms, place, kept) for i in chosen))

        sums = functools.reduce(jnp.add, (product(summed, place) for place in places))
        # Factors that all terms share are multiplied once, with the sum.
        return product(others, places[0]) * sums if others else sums

    return total(*operands)


def _is_product(letters: Sequence[str], result: str, terms: int) -> bool:
    """Whether this is one matrix product with a long sum (one for each index of `vmap`, a capital letter)."""
    shared = [letter for letter in result if letter.islower() and all(letter in each for each in letters)]
    return len(letters) == 2 and terms > _MOST_TERMS and not shared


def _sum_of_products(letters: Sequence[str], result: str, summed: str, operands: Sequence[Array]) -> Array:
    """A matrix product. Long sums are split along their first letter, since rounding errors grow with the length."""
    sizes = _sizes(letters, operands)
    size, terms = sizes[summed[0]], math.prod(sizes[letter] for letter in summed)
    parts = next(n for n in range(1, size + 1) if size % n == 0 and (terms <= n * _MOST_IN_PRODUCT or n == size))
    product = functools.partial(_product, *letters, result, summed)
    if parts == 1:
        return product(*operands)

    def cut(letters, array):
        axis = letters.index(summed[0])
        return jnp.moveaxis(array.reshape(*array.shape[:axis], parts, -1, *array.shape[axis + 1 :]), axis, 0)

    return jnp.sum(jax.vmap(product)(*map(cut, letters, operands)), axis=0)


def _product(a: str, b: str, result: str, summed: str, left: Array, right: Array) -> Array:
    """One matrix product, in the order that reads the larger operand contiguously."""
    large_last = (a if left.size > right.size else b)[-1]
    if (large_last in summed) != (left.size > right.size):
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


def _primitive() -> "Primitive":
    """The contraction as a primitive: `jnp.einsum`, but loops on a CPU."""
    primitive = Primitive("contract")
    primitive.def_abstract_eval(_abstract)
    primitive.def_impl(_einsum)
    ad.primitive_jvps[primitive] = _jvp
    ad.primitive_transposes[primitive] = _transposed
    batching.primitive_batchers[primitive] = _batched
    mlir.register_lowering(primitive, mlir.lower_fun(_einsum, multiple_results=False))
    mlir.register_lowering(primitive, mlir.lower_fun(_loops, multiple_results=False), platform="cpu")
    return primitive


if TYPE_CHECKING or not PLAIN:
    _contract = _primitive()
