"""Transformers in the shape of larger ones, so that models of many sizes share one compiled program."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._checks import at_least, instance, on_host
from ._transformer import Transformer


def pad(model: Transformer, depth: int, width: int) -> Transformer:
    r"""The same Transformer as the corner `[:L, :M]` of one of more layers and particles.

    It maps tokens to the same outputs, and its flow moves the corner as that of the model: the masses are the same. A
    larger model's layers are 1/depth thin in place of 1/L; weights of sum depth/L in the L layers make up for it, and
    all else has weight zero. Layers from the L-th on are skipped, on the way forward and on the way back, and take up
    no depth: the field at depth t is that of the model. Particles from the M-th on move as tracers.

    ```python
    for model in models:  # one program for all of them
        solution = wgf.flow(objective, pad(model, 32, 128), taus)
        models = unpad(solution.models, *model.measure.weights.shape)
    ```

    **Arguments:**

    - `model`: [`wgf.Transformer`][] of L layers and M particles in each.
    - `depth`, `width`: at least L and M.

    **Returns:** the larger model.

    **Raises:** `ValueError` if `depth` or `width` is smaller than the model's.

    Cost of a velocity: that of L layers of `width` particles. Worth it where a flow takes longer to compile than to
    run.
    """
    layers, count = instance("model", model, Transformer, "a wgf.Transformer").measure.weights.shape
    depth, width = at_least("depth", depth, layers), at_least("width", width, count)
    missing = ((0, depth - layers), (0, width - count))

    def fill(leaf: Array, **options: Any) -> Any:
        known = on_host(leaf)
        pad = np.pad if isinstance(known, np.ndarray) else jnp.pad
        return pad(known, (*missing, *((0, 0),) * (leaf.ndim - 2)), **options)

    # Filled up by particles that there are: any encoder is finite at these.
    particles = jax.tree.map(lambda leaf: _on_device(fill(leaf, mode="edge")), model.measure.particles)
    weights = _on_device(fill(model.measure.weights) * (depth / layers))
    # An array, not a number: models of all depths are then of one and the same type.
    return _replace(model, particles, weights, _on_device(np.array(layers)))


def unpad(model: Transformer, depth: int, width: int) -> Transformer:
    """The inverse of `pad`, also of models along a flow, with a leading axis `[saves]`.

    **Arguments:** what `pad` returned, or the `models` of a flow of it; L and M of the model that was padded.

    **Returns:** the models of that size.
    """
    instance("model", model, Transformer, "a wgf.Transformer that was padded")
    depth, width = at_least("depth", depth, 1), at_least("width", width, 1)
    axis = model.measure.weights.ndim - 2
    corner = (*(slice(None),) * axis, slice(depth), slice(width))
    particles = jax.tree.map(lambda leaf: _on_device(on_host(leaf)[corner]), model.measure.particles)
    share = depth / model.measure.weights.shape[axis]
    return _replace(model, particles, _on_device(on_host(model.measure.weights)[corner] * share), None)


def _on_device(array: Any) -> Array:
    """What was done on the host, if it was: nothing is compiled there for each shape."""
    return jax.device_put(array) if isinstance(array, np.ndarray) else array


def _replace(model: Transformer, particles: PyTree[Array], weights: Array, layers: Array | None) -> Transformer:
    def parts(model: Transformer):
        return model.measure.particles, model.measure.weights, model.layers

    return eqx.tree_at(parts, model, (particles, weights, layers), is_leaf=lambda leaf: leaf is None)
