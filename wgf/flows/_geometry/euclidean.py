"""The Euclidean geometry: every parameter of any module moves by plain gradient flow."""

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import optax
import optimistix as optx
from jaxtyping import Array, Float, PyTree

from .base import AbstractGeometry, Evaluation, error_control, value_and_outputs


class Euclidean(AbstractGeometry):
    r"""All arrays of real or complex numbers in a module, \( \dot\theta = -\nabla_\theta Q \).

    A complex parameter z = x + iy is a pair of real ones: \( \nabla_z Q = \partial_x Q + i\,\partial_y Q \), the
    conjugate of what `jax.grad` returns. Packed it is that pair, so that solvers, norms and noise see real numbers.
    """

    def parameters(self, model: PyTree) -> PyTree[Array]:
        """Every inexact array of the module."""
        return eqx.filter(model, eqx.is_inexact_array)

    def place(self, model: PyTree, parameters: PyTree[Array]) -> PyTree:
        """Put the arrays."""
        return eqx.combine(parameters, model)

    def pack(self, parameters: PyTree[Array]) -> list[Array]:
        """One array each, since shapes differ; complex ones with a last axis for the real and the imaginary part."""
        return [_real_pair(leaf) if jnp.iscomplexobj(leaf) else leaf for leaf in jax.tree.leaves(parameters)]

    def unpack(self, packed: list[Array], like: PyTree[Array]) -> PyTree[Array]:
        """The parameters in the structure of `like`, complex where it is."""
        leaves, structure = jax.tree.flatten(like)
        pairs = zip(packed, leaves, strict=True)
        parts = [jax.lax.complex(a[..., 0], a[..., 1]) if jnp.iscomplexobj(leaf) else a for a, leaf in pairs]
        return jax.tree.unflatten(structure, parts)

    def evaluate(self, objective: Callable[[Any], Float[Array, ""]], model: PyTree) -> Evaluation:
        """Differentiate Q by every parameter."""

        def value(parameters):
            return value_and_outputs(objective, self.place(model, parameters))

        (q, outputs), gradient = jax.value_and_grad(value, has_aux=True)(self.parameters(model))
        velocity = jax.tree.map(lambda leaf: -jnp.conj(leaf), gradient)
        return Evaluation(q, outputs, self.pack(velocity), optax.tree.norm(velocity, squared=True), jnp.zeros_like(q))

    def norm(self, model: PyTree) -> Callable[[list[Array]], Float[Array, ""]]:
        """The worst parameter's error."""
        return optx.max_norm

    def solver(self) -> diffrax.AbstractSolver:
        """A Runge–Kutta pair of orders 5 and 4."""
        return diffrax.Tsit5()

    def controller(self, rtol, atol, norm, taus) -> diffrax.AbstractStepSizeController:
        """Bound each step's error."""
        return error_control(rtol, atol, norm, taus)

    def noise(self, model: PyTree) -> PyTree[jax.ShapeDtypeStruct]:
        """Independent noise for every parameter."""
        return jax.eval_shape(lambda: self.parameters(model))


def _real_pair(leaf: Array) -> Array:
    return jnp.stack([leaf.real, leaf.imag], axis=-1)
