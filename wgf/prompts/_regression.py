"""Synthetic in-context linear regression."""

from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._backend.draws import draw_flat
from .._checks import at_least, check_memory, choice, not_negative, random_key
from .._random import purpose
from ._assemble import assemble, check_positions
from ._prompts import Prompts

Inputs = Literal["uniform", "gaussian"]


def linear_regression(
    key: PRNGKeyArray,
    *,
    batch: int,
    examples: int,
    dim: int,
    inputs: Inputs = "uniform",
    noise: float | Array = 0.0,
    positions: int = 2,
) -> Prompts:
    r"""Prompts of in-context linear regression: \( y_i = \langle w, x_i \rangle + \sigma \xi_i \), a new w per prompt.

    Each prompt has its own task vector w, uniform on the unit sphere of \( R^d \); its inputs \( x_i \) are uniform on
    \( [-1, 1]^d \) or standard normal; ξ is standard normal. A token is \( (x_i, y_i, p_i) \); the query's y is 0.

    **Arguments:**

    - `key`: a JAX random key.
    - `batch`: the number of prompts B.
    - `examples`: the number N of labelled examples per prompt. Prompts have N + 1 columns.
    - `dim`: the dimension d of an input.
    - `inputs`: `"uniform"` (label RMS 1/√3 ≈ 0.577 without noise) or `"gaussian"` (label RMS 1).
    - `noise`: the standard deviation σ of the label noise.
    - `positions`: rows of positional encoding (even; 0 for none). Tokens have D = d + 1 + `positions` rows.

    **Returns:** [`wgf.prompts.Prompts`][] with `label_row = dim`.

    **Raises:** `ValueError` if a count is below 1, `inputs` is unknown, `noise` is negative or `positions` is odd.

    **Source:** arXiv:2410.23610, section 2.1.
    """
    batch, examples, dim = (
        at_least(name, value, 1) for name, value in (("batch", batch), ("examples", examples), ("dim", dim))
    )
    positions = check_positions(positions)
    check_memory(batch=batch, examples=examples + 1, dim=dim)
    noise = not_negative("noise", noise)
    x, tasks, errors = _draw(random_key("key", key), _draw_inputs(inputs), (batch, dim, examples + 1))
    tasks = tasks / jnp.linalg.norm(tasks, axis=1, keepdims=True)
    y = jnp.einsum("bd,bdn->bn", tasks, x)
    return assemble(x, y + noise.astype(y.dtype) * errors, positions)


@partial(jax.jit, static_argnums=(1, 2))
def _draw(
    key: PRNGKeyArray, draw: Callable[..., Array], shape: tuple[int, int, int]
) -> tuple[Float[Array, "batch dim length"], Float[Array, "batch dim"], Float[Array, "batch length"]]:
    """Inputs, task directions and label errors, before they are scaled."""
    batch, dim, length = shape
    input_key, task_key, noise_key = jax.random.split(purpose(key, "prompts.linear_regression"), 3)
    return (
        draw_flat(draw, input_key, shape),
        draw_flat(jax.random.normal, task_key, (batch, dim)),
        draw_flat(jax.random.normal, noise_key, (batch, length)),
    )


_UNIFORM = partial(jax.random.uniform, minval=-1.0, maxval=1.0)


def _draw_inputs(inputs: str) -> Callable[..., Array]:
    return _UNIFORM if choice("inputs", inputs, get_args(Inputs)) == "uniform" else jax.random.normal
