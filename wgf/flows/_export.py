"""Solutions as data sets of xarray."""

from typing import Any

import equinox as eqx
import jax

from .._display.datasets import Dataset, Variables, dataset, named
from ..measures import AbstractMeasure
from ..models import AbstractModel

# Outputs are `[B]`, `[B, C]` or `[B, C, N+1]`.
_OUTPUTS = ("prompt", "class", "position")


def groups(solution: Any, clock: tuple[str, Any], attributes: dict[str, Any]) -> dict[str, Dataset]:
    """The curves of a solution in the root, and each of its laws in a group, along a clock (`tau` or `step`)."""
    name, times = clock
    at = {name: ((name,), times)}
    curves, models = curves_of(solution, (name,)), solution.models
    if not isinstance(models, AbstractModel):
        return {"/": dataset({**curves, **named("models", models, (name,))}, at, attributes)}
    laws = {"measure": models.measure, **{f"tracers_{i}": law for i, law in enumerate(models.tracers)}}
    return {"/": dataset(curves, at, attributes), **{f"/{group}": _law(law, name) for group, law in laws.items()}}


def curves_of(solution: Any, dims: tuple[str, ...]) -> dict[str, tuple[tuple[str, ...], Any]]:
    """The numbers of a solution at each save."""
    names = ("objective", "risk", "dissipation", "dissipated", "reached")
    curves = {name: (dims, getattr(solution, name)) for name in names if hasattr(solution, name)}
    outputs = (*dims, *_OUTPUTS[: solution.outputs.ndim - len(dims)])
    # Replicates have the weights of their prompts once each.
    weights = (*dims[:-1], "prompt")
    return {**curves, "outputs": (outputs, solution.outputs), "prompt_weights": (weights, solution.prompt_weights)}


def _law(measure: AbstractMeasure, clock: str) -> Dataset:
    """A law along a run."""
    dims = (clock, "depth", "particle")
    particles = eqx.filter_vmap(lambda law: law.particles)(measure)
    first = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, measure)
    variables: Variables = {
        **named("particles", particles, dims),
        "weights": (dims, measure.weights),
        "depth_weights": (("depth",), first.depth_weights),
    }
    return dataset(variables, {"depth": (("depth",), first.depths)})
