"""In-context regression prompts drawn from the rows of a real table."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, PRNGKeyArray

from .._checks import at_least, check_memory, on_host_in_float64
from .._extras import needed
from .._random import purpose
from ._assemble import assemble, check_positions
from ._prompts import Prompts


def from_table(
    key: PRNGKeyArray,
    features: ArrayLike,
    target: ArrayLike,
    *,
    batch: int,
    examples: int,
    dim: int = 2,
    positions: int = 2,
) -> Prompts:
    r"""In-context regression prompts from a table, with N + 1 random rows and `dim` random feature columns per prompt.

    Features and target are standardised over the whole table (mean 0, variance 1; a constant column becomes 0). Rows
    and columns of a prompt are drawn without replacement; the last row's label is hidden.

    **Arguments:**

    - `key`: a JAX random key.
    - `features`: `[rows, columns]`, finite numbers.
    - `target`: `[rows]`, finite numbers.
    - `batch`, `examples`: the number of prompts B, and the number of labelled examples N per prompt.
    - `dim`: the number of feature columns per prompt.
    - `positions`: rows of positional encoding (even; 0 for none).

    **Returns:** [`wgf.prompts.Prompts`][] with `label_row = dim` and D = dim + 1 + positions.

    **Raises:** `ValueError` if shapes do not fit, entries are not finite, the target is constant, or rows or columns
    are too few.

    The table is read on the host: under `jit` or `vmap` only the key may be traced.
    """
    features, target = _check_table(features, target)
    batch, examples, dim = (
        at_least(name, value, 1) for name, value in (("batch", batch), ("examples", examples), ("dim", dim))
    )
    rows, columns = features.shape
    if rows < examples + 1:
        raise ValueError(f"`examples` must be below the table's number of rows, {rows}; got {examples}.")
    if columns < dim:
        raise ValueError(f"`dim` must be at most the table's number of feature columns, {columns}; got {dim}.")
    positions = check_positions(positions)
    check_memory(batch=batch, examples=examples + 1, dim=dim)
    key = purpose(key, "prompts.from_table")
    table = np.column_stack([features, target])
    # Columns are first scaled to size 1 by an exact factor: squares of extreme numbers leave the range of floats.
    _, exponents = np.frexp(np.abs(table).max(axis=0))
    scaler = needed("sklearn.preprocessing", "data", "`table`").StandardScaler()
    standard = scaler.fit_transform(np.ldexp(table, -exponents))
    x, y = jnp.asarray(standard[:, :-1]), jnp.asarray(standard[:, -1])

    def draw(key):
        row_key, column_key = jax.random.split(key)
        row = jax.random.choice(row_key, rows, (examples + 1,), replace=False)
        column = jax.random.choice(column_key, columns, (dim,), replace=False)
        return x[row][:, column].T, y[row]

    inputs, labels = jax.vmap(draw)(jax.random.split(key, batch))
    return assemble(inputs, labels, positions)


def diabetes(key: PRNGKeyArray, *, batch: int, examples: int, dim: int = 2, positions: int = 2) -> Prompts:
    """In-context regression prompts from scikit-learn's bundled diabetes table (442 patients, 10 features).

    **Arguments**, **Returns**, **Raises:** as [`wgf.prompts.from_table`][].

    **Source:** B. Efron, T. Hastie, I. Johnstone, R. Tibshirani, *Least Angle Regression*, Annals of Statistics 32
    (2004); the copy that scikit-learn ships.
    """
    table: Any = needed("sklearn.datasets", "data", "`diabetes`").load_diabetes()
    return from_table(key, table.data, table.target, batch=batch, examples=examples, dim=dim, positions=positions)


def _check_table(features: ArrayLike, target: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    features, target = on_host_in_float64("features", features), on_host_in_float64("target", target)
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"`features` must have shape [rows, columns]; got shape {features.shape}.")
    if target.shape != features.shape[:1]:
        raise ValueError(f"`target` must have shape [rows] = [{features.shape[0]}]; got shape {target.shape}.")
    for name, array in (("features", features), ("target", target)):
        if not np.isfinite(array).all():
            raise ValueError(f"`{name}` must be finite; got {int((~np.isfinite(array)).sum())} entries that are not.")
    if np.all(target == target[0]):
        raise ValueError(f"`target` must vary, to be learnt; got {target[0]} in all {len(target)} rows.")
    return features, target
