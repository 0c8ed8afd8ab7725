"""The tangent kernel: how fast the flow moves each combination of a model's outputs."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._backend.compiled import compiled
from .._checks import instance
from .._display.text import Brief, kind, known
from ..measures import Eulerian, coordinates
from ..models import AbstractModel
from ..objective import Objective


class TangentKernel(Brief):
    r"""The Gram matrix of the derivatives of all outputs, and its eigenvalues.

    - `matrix`: \( K_{rs} = \sqrt{\mu_r \mu_s} \sum_{ij} \frac{1}{w_i a_{ij}} \langle \partial y_r / \partial
      \theta_{ij}, \partial y_s / \partial \theta_{ij} \rangle \), `[outputs, outputs]`. An output is an entry y_r
      of the readout for one prompt, whose weight is μ_r.
    - `eigenvalues`: from the least to the greatest, `[outputs]`.

    Its `repr` is one line.
    """

    matrix: Float[Array, "outputs outputs"]
    eigenvalues: Float[Array, " outputs"]

    @property
    def least(self) -> Float[Array, ""]:
        """The least eigenvalue. If it is 0, a combination of the outputs does not move at first."""
        return self.eigenvalues[0]

    @property
    def greatest(self) -> Float[Array, ""]:
        """The greatest eigenvalue."""
        return self.eigenvalues[-1]

    def _facts(self) -> Iterator[str]:
        values = known(self.eigenvalues, 1)
        if values is None:
            yield f"{kind(self.eigenvalues)} eigenvalues"
        else:
            yield f"{len(values)} outputs"
            yield f"eigenvalues from {values[0]:.3g} to {values[-1]:.3g}"


def tangent_kernel(objective: Objective, model: AbstractModel) -> TangentKernel:
    r"""The tangent kernel of a model's outputs at its present particles.

    Without weight decay the outputs move by \( dy_r/d\tau = -\sum_s (\mu_r \mu_s)^{-1/2} K_{rs}\,\mu_s\,\partial
    \ell_s / \partial y_s \). For half squared errors the risk R therefore falls at a rate between two eigenvalues,

    \[ 2 \lambda_{\min}(K) \le -\frac{d \log R}{d\tau} \le 2 \lambda_{\max}(K). \]

    **Arguments:**

    - `objective`: [`wgf.Objective`][]. Only its prompts and its readout count, not the labels.
    - `model`: a Transformer or its limit. Tracers and particles of mass 0 do not count.

    **Returns:** [`wgf.analysis.TangentKernel`][]. Eigenvalues are squares of singular values, and exact to about ε² of
    the greatest, with ε the spacing of the numbers.

    **Raises:** `ValueError` if an argument has another type, if an array of the model is not finite, or if the measure
    is on a grid.

    Cost: one forward solve and a backward solve for each output. Memory: the derivatives, as many numbers as the
    particles have, for each output.

    **Source:** for attention, arXiv:2605.17660, where the kernel's injectivity is a property of the log-sum-exp
    functions of the prompts. `benchmarks/kernel.py` measures its rank on prompts of both kinds.
    """
    instance("objective", objective, Objective, "a wgf.Objective")
    instance("model", model, AbstractModel, "a wgf.Transformer or wgf.AveragedODE")
    if isinstance(model.measure, Eulerian):
        raise ValueError("`model` must hold particles, not weights on a grid: the kernel is a sum over particles.")
    model.check_finite()
    return _kernel(objective, model)


@compiled
def _kernel(objective: Objective, model: AbstractModel) -> TangentKernel:
    def outputs(particles: PyTree[Array]) -> Float[Array, " outputs"]:
        return objective.outputs(model.with_particles(particles)).ravel()

    found, back = jax.vjp(outputs, model.measure.particles)
    # One after another: side by side they would hold the tokens of all layers once for each output.
    slopes = jax.lax.map(lambda output: coordinates(back(output)[0]), jnp.eye(len(found), dtype=found.dtype))
    weights, masses = objective.prompts.weights, model.measure.masses
    shares = jnp.repeat(weights, len(found) // len(weights))
    each = jnp.where(masses > 0, 1 / jnp.sqrt(jnp.where(masses > 0, masses, 1)), 0)
    features = jnp.sqrt(shares)[:, None, None, None] * slopes * each[None, :, :, None]
    features = features.reshape(len(found), -1)
    # Singular values, since the eigenvalues of the product would lose the least of them to rounding.
    singular = jnp.linalg.svd(features, full_matrices=False, compute_uv=False)
    missing = jnp.zeros(len(found) - len(singular), singular.dtype)
    return TangentKernel(features @ features.T, jnp.sort(jnp.concatenate([missing, singular**2])))
