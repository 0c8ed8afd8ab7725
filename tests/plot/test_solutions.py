"""Pictures of one's own solutions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import regression
from matplotlib.figure import Figure
from PIL import Image

import wgf
from wgf import plot
from wgf.measures import coordinates

TAUS = jnp.array([0.0, 0.5, 1.5])


@pytest.fixture(scope="module")
def solved():
    """The prompts, the flows of a finite model and its limit with the same tracers, and their gap."""
    keys = jax.random.split(jax.random.key(4), 4)
    prompts = regression(keys[0], batch=3, examples=2)
    encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
    objective, law = wgf.Objective(prompts, 1e-2), wgf.measures.Gaussian(encoder, 0.7)
    fresh = law.layered(2, 3, keys[1])
    models = (
        wgf.Transformer(encoder, law.layered(2, 4, keys[2])).with_tracers(fresh),
        wgf.AveragedODE(encoder, law.spectral(2, 6, keys[3])).with_tracers(fresh),
    )
    finite, limit = (wgf.flow(objective, model, TAUS) for model in models)
    return prompts, finite, limit, wgf.gap(finite, limit)


def axes():
    return Figure().subplots()


def points_at(model, depth):
    """The particles `[width, P]` at one depth, and their weights."""
    particles, weights = model.measure.at(depth)
    return np.asarray(coordinates(jax.tree.map(lambda leaf: leaf[None], particles)))[0], np.asarray(weights)


@pytest.mark.heavy
@pytest.mark.parametrize("quantity", ["risk", "objective", "dissipation"])
def test_curves_are_those_of_the_solutions(solved, quantity):
    _, finite, limit, _ = solved
    panel = axes()
    plot.flow_curves(panel, {"finite": finite, "PDE": limit}, quantity)
    for line, solution in zip(panel.lines, (finite, limit), strict=True):
        np.testing.assert_array_equal(line.get_ydata(), getattr(solution, quantity))
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["finite", "PDE"]


@pytest.mark.heavy
def test_parts_of_a_gap_are_drawn_without_their_sign_and_their_zeros(solved):
    panel = axes()
    plot.gap_parts(panel, solved[3], ("risk", "coupling"))
    risk, coupling = (np.asarray(line.get_ydata()) for line in panel.lines)
    np.testing.assert_array_equal(risk, np.abs(solved[3].risk))
    assert np.isnan(coupling[0])
    np.testing.assert_array_equal(coupling[1:], solved[3].coupling[1:])


@pytest.mark.heavy
def test_paths_begin_at_the_prompt_and_end_at_the_output(solved):
    prompts, finite, *_ = solved
    model, tokens = finite.model_at(-1), prompts.tokens[1]
    panel = axes()
    plot.token_paths(panel, model, tokens, (0, 2), depths=9)
    output = np.asarray(model(tokens[None]))[0]
    # A path, its start and its end for each token.
    for token, (path, start, end) in enumerate(np.array(panel.lines).reshape(-1, 3)):
        assert len(path.get_xdata()) == 9
        np.testing.assert_allclose([start.get_xdata()[0], start.get_ydata()[0]], tokens[jnp.array([0, 2]), token])
        np.testing.assert_allclose([end.get_xdata()[0], end.get_ydata()[0]], output[[0, 2], token], rtol=1e-6)


@pytest.mark.heavy
@pytest.mark.parametrize("which", [1, 2])
def test_a_map_holds_the_statistic_at_each_depth_and_time(solved, which):
    solution = solved[which]
    panel = axes()
    plot.depth_map(panel, solution, depths=5)
    values = np.asarray(panel.collections[0].get_array()).reshape(5, 3)
    points, weights = points_at(solution.model_at(2), 0.75)
    expected = np.sqrt(np.sum(weights * np.sum(points**2, axis=-1)))
    np.testing.assert_allclose(values[3, 2], expected, rtol=1e-6)
    plot.depth_map(panel, solution, lambda points, weights: float(len(points)), "width", depths=3)
    np.testing.assert_array_equal(panel.collections[-1].get_array(), {1: 4.0, 2: 6.0}[which])


@pytest.mark.heavy
def test_an_animation_moves_both_clouds(solved, tmp_path):
    _, finite, limit, _ = solved
    panel = axes()
    animation = plot.moving_law(panel, finite, limit, depth=0.25, pair=(0, 3))
    animation.save(tmp_path / "law.gif", writer="pillow", dpi=20)
    with Image.open(tmp_path / "law.gif") as pictures:
        assert getattr(pictures, "n_frames", 1) == len(TAUS)
    # What is left is the last frame.
    assert panel.get_title() == "t = 0.25, τ = 1.5"
    for scatter, solution in zip(panel.collections, (limit, finite), strict=True):
        points, _ = points_at(solution.model_at(-1), 0.25)
        np.testing.assert_allclose(scatter.get_offsets(), points[:, [0, 3]], rtol=1e-6)


@pytest.mark.heavy
def test_what_cannot_be_drawn_is_refused(solved, unchecked):
    prompts, finite, limit, gap = solved
    with pytest.raises(
        ValueError, match=r"`quantity` must be one of \('risk', 'objective', 'dissipation'\); got 'loss'"
    ):
        plot.flow_curves(axes(), {"finite": finite}, "loss")
    with pytest.raises(ValueError, match="`names` must be one of"):
        plot.gap_parts(axes(), gap, ("loss",))
    bare = wgf.analysis.Gap(gap.taus, gap.objective, gap.risk, gap.output, None, None, None)
    with pytest.raises(ValueError, match="`names` must be parts that the gap has; got 'coupling'"):
        plot.gap_parts(axes(), bare, ("coupling",))
    with pytest.raises(ValueError, match="`rows` must be a whole number of at most"):
        plot.token_paths(axes(), finite.model_at(0), prompts.tokens[0], (0, 99))
    with pytest.raises(ValueError, match=r"`solution` must be a solution of wgf\.flow"):
        plot.depth_map(axes(), gap)
    with pytest.raises(ValueError, match="`pair` must be a whole number of at most"):
        plot.moving_law(axes(), finite, limit, pair=(0, 99))
