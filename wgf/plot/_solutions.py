"""Pictures of one's own solutions: curves, paths of tokens, maps over depth and time, the moving law."""

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike
from matplotlib.animation import FuncAnimation
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection

from .._checks import at_least, choice, instance
from ..analysis import Gap
from ..flows import FlowSolution
from ..flows._solution import with_models
from ..measures import coordinate_names, coordinates
from ..models import AbstractModel
from ._style import CLOUD, GROUPS, LIMIT, LOCAL, TITLE, colours, finish

_CURVES = {"risk": "risk R", "objective": "objective Q", "dissipation": "dissipation −dQ/dτ"}
_GAPS = ("risk", "objective", "output", "gelbrich", "sinkhorn", "coupling")


def flow_curves(axes: Axes, solutions: Mapping[str, FlowSolution], quantity: str = "risk") -> None:
    """A quantity of flows against training time: a coloured curve per solution.

    **Arguments:** the axes; per solution its name; `"risk"`, `"objective"` or `"dissipation"`, which has a log scale.

    **Raises:** `ValueError` if `quantity` is none of these.
    """
    choice("quantity", quantity, _CURVES)
    for colour, (name, solution) in zip(colours(len(solutions)), solutions.items(), strict=True):
        values = np.asarray(getattr(solution, quantity))
        axes.plot(solution.taus, values, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
    if quantity == "dissipation":
        axes.set_yscale("log")
    finish(axes, "training time τ", _CURVES[quantity], "")


def gap_parts(axes: Axes, gap: Gap, names: tuple[str, ...] = ("gelbrich", "sinkhorn", "coupling")) -> None:
    """Parts of a gap against training time, a colour per part. Dotted lines are the limit's own error in that part.

    Absolute values on a log scale. Zeros are left out.

    **Arguments:** the axes; the gap; the names of its parts, of `"risk"`, `"objective"`, `"output"`, `"gelbrich"`,
    `"sinkhorn"` and `"coupling"`.

    **Raises:** `ValueError` if a name is none of these, or if the two flows shared no particles, so that there are no
    distances.
    """
    for colour, name in zip(_cycled(len(names)), names, strict=True):
        values = getattr(gap, choice("names", name, _GAPS))
        if values is None:
            raise ValueError(
                f"`names` must be parts that the gap has; got {name!r}, and the flows shared no particles."
            )
        _positive(axes, gap.taus, values, color=colour, marker="o", markersize=3.5, linewidth=1.4, label=name)
        if gap.noise is not None:
            _positive(axes, gap.taus, getattr(gap.noise, name), color=colour, linestyle=":", linewidth=1.2)
    if gap.noise is not None:
        axes.plot([], [], color=LIMIT, linestyle=":", linewidth=1.2, label="the limit's own error")
    axes.set_yscale("log")
    finish(axes, "training time τ", "gap", "")


def token_paths(
    axes: Axes, model: AbstractModel, tokens: ArrayLike, rows: tuple[int, int] = (0, 1), *, depths: int = 65
) -> None:
    """The paths of one prompt's tokens through depth, in two of their coordinates.

    Hollow marks are the prompt, T(0), and full ones the output, T(1). The query, the last token, is orange.

    **Arguments:** the axes; the model; the tokens `[D, N+1]` of one prompt; the two coordinates of tokens; the number
    of depths at which a path is drawn.

    **Raises:** `ValueError` if `rows` are not two of the coordinates, and as the model does about its tokens.
    """
    tokens = jnp.asarray(tokens)
    if tokens.ndim != 2:
        raise ValueError(f"`tokens` must be those of one prompt, [D, N+1]; got shape {tokens.shape}. Pass `tokens[0]`.")
    first, second = (at_least("rows", row, 0, tokens.shape[0] - 1) for row in rows)
    depths = at_least("depths", depths, 2)
    states = np.asarray(model.trajectory(tokens[None], jnp.linspace(0, 1, depths)))[:, 0]
    for token in range(states.shape[-1]):
        is_query = token == states.shape[-1] - 1
        colour, order = (LOCAL, 3) if is_query else (GROUPS[0], 2)
        x, y = states[:, first, token], states[:, second, token]
        label = "query" if is_query else "examples" if token == 0 else None
        axes.plot(x, y, color=colour, linewidth=1.2, alpha=0.8, zorder=order, label=label)
        axes.plot(x[0], y[0], "o", color=colour, markersize=4, markerfacecolor="white", zorder=order)
        axes.plot(x[-1], y[-1], "o", color=colour, markersize=4, zorder=order)
    finish(axes, f"token coordinate {first}", f"token coordinate {second}", "")


def depth_map(
    axes: Axes,
    solution: FlowSolution,
    statistic: Callable[[np.ndarray, np.ndarray], float] | None = None,
    label: str = "root mean square ‖θ‖",
    *,
    depths: int = 33,
) -> None:
    r"""A statistic of the law of particles as a map over training time and depth, with its colour bar.

    **Arguments:** the axes; the solution; a function of the particles `[width, P]` at one depth and their weights
    `[width]`, default \( (\sum_j a_j \|\theta_j\|^2)^{1/2} \); the label of the statistic; the number of depths.
    """
    with_models("solution", instance("solution", solution, FlowSolution, "a solution of wgf.flow"))
    statistic = _root_mean_square if statistic is None else statistic
    places = np.linspace(0, 1, at_least("depths", depths, 2))
    points, weights = _laws(solution, places)
    values = [
        [float(statistic(*cloud)) for cloud in zip(*save, strict=True)] for save in zip(points, weights, strict=True)
    ]
    mesh = axes.pcolormesh(solution.taus, places, np.transpose(values), cmap="viridis", shading="nearest")
    axes.figure.colorbar(mesh, ax=axes, label=label)
    axes.set_xlabel("training time τ")
    axes.set_ylabel("depth t")


def moving_law(
    axes: Axes,
    finite: FlowSolution,
    limit: FlowSolution,
    *,
    depth: float = 0.5,
    pair: tuple[int, int] = (0, 1),
    milliseconds: int = 300,
) -> FuncAnimation:
    """An animation of the law at one depth over training time: a finite model over the limit, a frame per saved τ.

    In a notebook, `IPython.display.HTML(animation.to_jshtml())` shows it. `animation.save("law.gif", writer="pillow")`
    writes a file. Keep the animation in a variable until then.

    **Arguments:** the axes; the two flows, at the same τ; the depth t; the two coordinates of particles, as numbered by
    [`wgf.measures.coordinate_names`][]; the time of a frame.

    **Returns:** a Matplotlib animation.

    **Raises:** `ValueError` if the flows have other `taus`, or `pair` are not two coordinates.
    """
    if not np.array_equal(finite.taus, limit.taus):
        raise ValueError(f"`limit` must be solved at the taus of `finite`, {finite.taus}; got {limit.taus}.")
    with_models("limit", limit)
    names = coordinate_names(with_models("finite", finite).models.encoder)
    first, second = (at_least("pair", number, 0, len(names) - 1) for number in pair)
    clouds = [_laws(solution, np.array([depth]))[0][:, 0][..., [first, second]] for solution in (limit, finite)]
    scatters = [
        _scatter(axes, clouds[0][0], CLOUD, 6.0, "PDE"),
        _scatter(axes, clouds[1][0], colours(1)[0], 14.0, "finite model"),
    ]
    # All frames have one scale.
    low, high = (np.array([bound(cloud, axis=(0, 1)) for cloud in clouds]) for bound in (np.min, np.max))
    margin = 0.05 * (high.max(axis=0) - low.min(axis=0))
    axes.set_xlim(low.min(axis=0)[0] - margin[0], high.max(axis=0)[0] + margin[0])
    axes.set_ylim(low.min(axis=0)[1] - margin[1], high.max(axis=0)[1] + margin[1])
    finish(axes, names[first], names[second], "", legend="upper right")

    def draw(frame: int) -> list[PathCollection]:
        for scatter, cloud in zip(scatters, clouds, strict=True):
            scatter.set_offsets(cloud[frame])
        axes.set_title(f"t = {depth:g}, τ = {float(finite.taus[frame]):.3g}", fontsize=TITLE)
        return scatters

    draw(0)
    figure = axes.get_figure(root=True)
    assert figure is not None
    return FuncAnimation(figure, draw, frames=len(finite.taus), interval=milliseconds)


def _laws(solution: FlowSolution, depths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The particles `[saves, depths, width, P]` and their weights `[saves, depths, width]`."""
    at = eqx.filter_vmap(lambda measure: jax.vmap(measure.at)(jnp.asarray(depths)))
    particles, weights = eqx.filter_jit(at)(solution.models.measure)
    return np.asarray(jax.vmap(coordinates)(particles)), np.asarray(weights)


def _root_mean_square(points: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.sum(weights * np.sum(points**2, axis=-1))))


def _scatter(axes: Axes, points: np.ndarray, colour: Any, size: float, label: str) -> PathCollection:
    return axes.scatter(*points.T, s=size, color=colour, linewidths=0, alpha=0.7, label=label)


def _positive(axes: Axes, taus: ArrayLike, values: ArrayLike, **style: Any) -> None:
    size = np.abs(np.asarray(values))
    axes.plot(taus, np.where(size > 0, size, np.nan), **style)


def _cycled(count: int) -> list:
    return [GROUPS[index % len(GROUPS)] for index in range(count)]
