"""Colours that one panel shows together look different, also without receptors of red or of green light."""

import re
from pathlib import Path

import numpy as np
import pytest
from colour_vision import SIGHTS, contrast, lab, nearest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

import wgf
from wgf import plot
from wgf.plot._style import CLOUD, GROUPS, KINDS, LIMIT, colours

LEAST = 15.0
"""The least difference ΔE between two colours of one panel. A just noticeable difference is about 2.3."""
X = np.array([1.0, 2.0, 4.0])
SEEDS = np.array([[1.0, 2.0], [2.0, 3.0], [3.0, 5.0]])
NAMES = "abcd"
SIGHT = pytest.mark.parametrize("sight", SIGHTS)


def portrait(axes):
    side, paths = np.linspace(-2, 2, 5), np.array([[0.0, 1.0], [0.5, 1.5]])
    plot.phase_portrait(
        axes,
        side,
        np.add.outer(side, side),
        paths=(paths, paths, np.array([True, False])),
        separatrix=paths,
        best=np.abs(side),
        bad=side,
        title="",
    )


PANELS = {
    "bundles": lambda axes: plot.bundles(axes, {n: (X[None], X[None]) for n in NAMES}, "x", "y", ""),
    "courses": lambda axes: plot.courses(axes, {n: (X, X) for n in NAMES}, ("x", "y"), ""),
    "many courses": lambda axes: plot.courses(axes, {n: (X, X) for n in "abcdef"}, ("x", "y"), ""),
    "families": lambda axes: plot.families(axes, {n: (X, X) for n in "abcdefgh"}, "x", "y", ""),
    "ranges": lambda axes: plot.ranges(axes, {n: (X, SEEDS) for n in "abcdefgh"}, "x", "y", ""),
    "learning_curves": lambda axes: plot.learning_curves(axes, X, {n: (SEEDS.T, SEEDS.T) for n in NAMES}, "y", ""),
    "strips": lambda axes: plot.strips(axes, "abc", list(SEEDS), [0, 1, 2], "abc", "x", ""),
    "fitted": lambda axes: plot.fitted(axes, {n: (X, SEEDS, X) for n in NAMES}, ("x", "y"), ""),
    "swept": lambda axes: plot.swept(axes, {n: (X, X, X > 1) for n in "abcde"}, ("guide", X, X), ("x", "y"), ""),
    "prediction": lambda axes: (
        plot.power_laws(axes, {n: (X, X, X, X) for n in NAMES}, ("x", "y"), ""),
        plot.prediction(axes, X, X, "theory", ""),
    ),
    "risk_curves": lambda axes: plot.risk_curves(axes, X, dict.fromkeys(NAMES, X), X, (X, X)),
    "risk_curves without an interval": lambda axes: plot.risk_curves(axes, X, dict.fromkeys(NAMES, X), X),
    "gap_curves": lambda axes: plot.gap_curves(axes, X, dict.fromkeys(NAMES, X), "gap", X),
    "signed_gap_curves": lambda axes: plot.signed_gap_curves(
        axes, X, dict.fromkeys(NAMES, X), "gap", dict.fromkeys(NAMES, X), X, ""
    ),
    "distance_laws": lambda axes: plot.distance_laws(axes, X, {n: (SEEDS, X, 0.1) for n in NAMES}, ""),
    "clouds": lambda axes: plot.clouds(axes, SEEDS, SEEDS, ("x", "y"), ""),
    "phase_portrait": portrait,
    "success_curves": lambda axes: plot.success_curves(axes, X, dict.fromkeys(NAMES, X), ("x", "y"), ""),
    "success_bars": lambda axes: plot.success_bars(axes, "abc", dict.fromkeys(NAMES, X / 4), ""),
    "excess_curves": lambda axes: plot.excess_curves(axes, {n: (X, X / 4) for n in NAMES}, ""),
    "escape_steps": lambda axes: plot.escape_steps(axes, X, np.array([[9.0, np.inf]] * 3), 10 * X, ""),
}
"""A panel of each plot, with as many groups as the experiments draw, or more."""


def shown(axes):
    """The colours of a panel. Whether they are opaque does not count, nor does the white of hollow marks."""
    found = [line.get_color() for line in axes.lines] + [bar.get_facecolor() for bar in axes.patches]
    for collection in axes.collections:
        found += [*collection.get_facecolor(), *collection.get_edgecolor()]
    return sorted({to_hex(colour) for colour in found if isinstance(colour, str) or len(colour) == 3 or colour[3] > 0})


@SIGHT
@pytest.mark.parametrize("name", PANELS)
def test_colours_of_one_panel_look_different(name, sight):
    axes = Figure().subplots()
    PANELS[name](axes)
    found = shown(axes)
    assert len(found) > 1
    difference, *pair = nearest(found, sight)
    assert difference > LEAST, (pair, found)


@SIGHT
@pytest.mark.parametrize(
    "palette", [(*GROUPS, LIMIT), KINDS, (CLOUD, colours(1)[0])], ids=["groups", "kinds", "clouds"]
)
def test_colours_of_one_palette_look_different(palette, sight):
    difference, *pair = nearest(palette, sight)
    assert difference > LEAST, pair


@SIGHT
@pytest.mark.parametrize("count", range(1, 7))
def test_colours_from_light_to_dark_look_different(count, sight):
    """Also beside black and the orange of `swept`."""
    difference, *pair = nearest((*colours(count), LIMIT, GROUPS[1]), sight)
    assert difference > LEAST, pair


def test_colours_are_seen_on_white():
    """3 is the contrast that WCAG 2.1 asks of graphics. The light end of a scale has less, and a dark end beside it."""
    assert all(contrast(colour) > 3 for colour in (*GROUPS, LIMIT, CLOUD))
    assert all(contrast(colour) > 1.8 for count in range(1, 7) for colour in colours(count))


def test_the_simulation_finds_red_and_green_alike():
    assert nearest(("#d1495b", "#2a7f62"), "normal")[0] > 80
    assert nearest(("#d1495b", "#2a7f62"), "protanopia")[0] < 10
    assert nearest(("#d1495b", "#2a7f62"), "deuteranopia")[0] < 25


@SIGHT
def test_the_simulation_leaves_greys_as_they_are(sight):
    np.testing.assert_allclose(lab("#8a8a8a", sight), lab("#8a8a8a"), atol=0.01)
    np.testing.assert_allclose(lab("white", sight), [100, 0, 0], atol=0.01)


def test_a_known_colour_has_its_coordinates():
    """Of pure red, from the definition of CIE Lab at D65."""
    np.testing.assert_allclose(lab("#ff0000"), [53.24, 80.09, 67.20], atol=0.02)


def test_no_colour_is_written_outside_the_style():
    root = Path(wgf.__file__).parents[1]
    files = [path for folder in ("wgf", "benchmarks") for path in (root / folder).rglob("*.py")]
    assert len(files) > 100
    style = Path(wgf.__file__).parent / "plot" / "_style.py"
    named = {
        path.relative_to(root).as_posix(): found
        for path in files
        if path != style
        and (found := re.findall(r"""["'](?:#[0-9a-fA-F]{6}|C\d)["']""", path.read_text(encoding="utf-8")))
    }
    assert not named
