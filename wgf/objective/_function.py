"""Plain functions of one prompt in the place of a loss or a readout."""

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from .._backend.canonical import canonical
from .._backend.precision import Module
from .._checks import instance, shown
from .._display.text import Brief
from ._loss import AbstractLoss
from ._readout import AbstractReadout
from ._shapes import result_of, shape_text


class Plain(Module):
    """A function as a PyTree without arrays, so that `jax.jit` takes it."""

    function: Callable[..., Any] = eqx.field(static=True)

    def __call__(self, *values: Array) -> Any:
        """Call the function."""
        return self.function(*values)


class FunctionLoss(AbstractLoss, Brief):
    r"""A loss \( \ell(\hat y, y) \) that is a function of the output and the label of one prompt.

    [`wgf.Objective`][] makes it from any function that is passed as `loss`:

    ```python
    def absolute(prediction, label):
        return jnp.abs(prediction - label)

    objective = wgf.Objective(prompts, weight_decay=1e-3, loss=absolute)
    ```

    **Arguments:**

    - `function`: maps an output, a number or `[*classes]`, and a label to one real number. It must work under `jit`,
      `vmap` and `grad`. Labels that are real numbers have the type of the outputs.

    A function that has the same code, constants and globals as an earlier one stands for the same program: nothing is
    compiled again.

    **Raises:** `ValueError` unless `function` is a function.
    """

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        self.function = _plain(function)

    def _facts(self) -> Iterator[str]:
        yield f"loss {name_of(self.function)}"

    def __call__(
        self, outputs: Float[Array, "batch *classes"], labels: Shaped[Array, "batch ..."]
    ) -> Float[Array, " batch"]:
        """Score outputs against labels, prompt by prompt."""
        if jnp.issubdtype(labels.dtype, jnp.floating):
            labels = labels.astype(outputs.dtype)
        return jax.vmap(self.function)(outputs, labels).astype(outputs.dtype)

    def check(self, outputs: tuple[int, ...], labels: Array) -> None:
        """Raise `ValueError` unless the function maps the output and the label of one prompt to one real number."""
        kind = jnp.result_type(float)
        prediction = jax.ShapeDtypeStruct(outputs[1:], kind)
        label = jax.ShapeDtypeStruct(
            labels.shape[1:], kind if jnp.issubdtype(labels.dtype, jnp.floating) else labels.dtype
        )
        name = name_of(self.function)
        rule = (
            f"`loss` must map the prediction, {shape_text(prediction)}, and the label, {shape_text(label)}, of one "
            "prompt to one real number"
        )
        found = result_of(rule, name, self.function, prediction, label)
        if found.shape != ():
            raise ValueError(f"{rule}; {name} returned {shape_text(found)}. Take the sum or the mean over its entries.")


class FunctionReadout(AbstractReadout, Brief):
    r"""A readout that is a function of the final tokens of one prompt.

    [`wgf.Objective`][] makes it from any function that is passed as `readout`:

    ```python
    objective = wgf.Objective(prompts, readout=lambda tokens: tokens[-1].mean())
    ```

    **Arguments:**

    - `function`: maps tokens `[D, N+1]` to a number, or to an array of real numbers. It must work under `jit`, `vmap`
      and `grad`.

    **Raises:** `ValueError` unless `function` is a function.
    """

    function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]):
        self.function = _plain(function)

    def _facts(self) -> Iterator[str]:
        yield f"readout {name_of(self.function)}"

    def __call__(self, tokens: Float[Array, "batch token_dim length"]) -> Float[Array, "batch *outputs"]:
        """Read the outputs, prompt by prompt."""
        return jax.vmap(self.function)(tokens)


def as_loss(loss: Any) -> AbstractLoss:
    """Return a loss; make one of a function; raise `ValueError` for anything else."""
    example = "a loss, e.g. wgf.objective.CrossEntropy(), or a function of the prediction and the label of one prompt"
    return FunctionLoss(loss) if _is_function(loss, AbstractLoss) else instance("loss", loss, AbstractLoss, example)


def as_readout(readout: Any) -> AbstractReadout:
    """Return a readout; make one of a function; raise `ValueError` for anything else."""
    example = "a readout, e.g. wgf.objective.QueryEntry(0), or a function of the final tokens of one prompt"
    if _is_function(readout, AbstractReadout):
        return FunctionReadout(readout)
    return instance("readout", readout, AbstractReadout, example)


def name_of(function: Any) -> str:
    """The name of a function, also of one in a loss or a readout, or the type of another object."""
    while isinstance(function, FunctionLoss | FunctionReadout | Plain):
        function = function.function
    return getattr(function, "__name__", type(function).__name__)


def _is_function(value: Any, kind: type) -> bool:
    """Whether a value can be called, and is neither a class nor of that kind already."""
    return callable(value) and not isinstance(value, type | kind)


def _plain(function: Any) -> Any:
    """The function as a PyTree without arrays. A module stays, for it may have arrays.

    Functions that compute the same have one representative, so that a cell that runs again compiles nothing.

    **Raises:** `ValueError` unless it is a function, and not a class.
    """
    if not callable(function) or isinstance(function, type):
        raise ValueError(f"`function` must be a function of one prompt, e.g. optax.huber_loss; got {shown(function)}.")
    return function if isinstance(function, eqx.Module) else Plain(canonical(function))
