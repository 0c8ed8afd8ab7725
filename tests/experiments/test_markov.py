import dataclasses

import numpy as np
import pytest
from helpers import check_texts
from kept import check_read_again, run_with_parts
from matplotlib.figure import Figure

from wgf.experiments import MarkovConfig, MarkovResult, markov, save
from wgf.experiments.markov._escape import Escapes
from wgf.experiments.markov._portrait import NEAR, Portrait, portrait
from wgf.experiments.markov._trained import Trained

TINY = MarkovConfig(
    chains=((0.2, 0.5), (0.9, 0.9)),
    grid=5,
    scales=(0.02, 0.5),
    seeds=2,
    steps=4,
    batch=2,
    length=4,
    rates=(1e-3, 2e-3),
    widths=(2, 4),
    particles=(1, 2),
    reach=0.1,
)


@pytest.fixture(scope="module")
def portraits():
    return tuple(portrait(p, q, TINY.grid, TINY.tau) for p, q in TINY.chains)


def drawn_portrait(p, q):
    """A portrait with random paths, to test how paths are counted and drawn."""
    paths = np.random.default_rng(0).normal(size=(4, 25, 61))
    return Portrait(
        p, q, np.linspace(0, 1, 61), *paths, paths[0, :, 0] > 0, paths[1, :, 0], paths[2, :, :2], 0.3, 0.7, steps=5
    )


@pytest.fixture(scope="module")
def result():
    """Random portraits and training outcomes."""
    portraits = tuple(drawn_portrait(p, q) for p, q in TINY.chains)
    draw = np.random.default_rng(0).uniform(0, 1, size=(20, 2, 3))
    names = tuple(f"row {i}" for i in range(20))
    return MarkovResult(
        TINY,
        portraits,
        Trained(names[:5], TINY.chains, draw[:5]),
        Trained(names[:2], (TINY.hard,), draw[8:10, :1]),
        Trained(names[:4], (TINY.hard,), draw[:4, :1]),
        Trained(names[:4], (TINY.hard,), draw[4:8, :1]),
        watched(draw[:4].reshape(4, 2, 3)),
    )


def watched(excess):
    """Trainings of 10, 5, 5 and 5 steps a save, whose excess is given."""
    rates, every = np.array([1e-3, 2e-3, 2e-3, 2e-3]), np.array([10, 5, 5, 5])
    names = ("AdamW at rate 0.001", "AdamW at rate 0.002", "AdamW, 2 neurons", "AdamW, 4 neurons")
    return Escapes(names, rates, every[:, None] * np.arange(excess.shape[-1]), excess)


@pytest.mark.slow
def test_trajectories_end_in_the_predicted_minima(portraits):
    for shown in portraits:
        assert not np.any(shown.missed), shown.cells()
        assert shown.drift < 1e-6
        assert np.all(shown.to_global | shown.to_local)
        assert shown.resting.sum() == TINY.grid


@pytest.mark.slow
def test_the_distance_is_to_the_nearest_point_of_the_border(portraits):
    for shown in portraits:
        border = shown.separatrix
        assert np.all(np.isfinite(border))
        energy = border[:, 0] ** 2 - border[:, 1] ** 2 + np.log(-border[:, 1])
        np.testing.assert_allclose(energy, -(1 + np.log(2)) / 2, atol=1e-6)
        steps = np.linalg.norm(np.diff(border, axis=0), axis=1)
        assert steps.max() < 0.01
        e, w = shown.e[:, 0], shown.w[:, 0]
        nearest = [min(np.hypot(e[i] - x, w[i] - y) for x, y in border[::9]) for i in range(len(e))]
        np.testing.assert_allclose(shown.distance, nearest, atol=0.05)
        np.testing.assert_array_equal(shown.clear, shown.distance > NEAR)


def test_a_trajectory_that_ends_elsewhere_is_counted_as_missed():
    shown = drawn_portrait(0.1, 0.1)
    loss = np.where(shown.predicted, shown.entropy_rate, shown.entropy)[:, None] * np.ones(61)
    shown = dataclasses.replace(shown, loss=loss)
    assert not np.any(shown.missed)
    np.testing.assert_array_equal(shown.to_global, shown.predicted)
    wrong = dataclasses.replace(shown, predicted=~shown.predicted)
    assert np.all(wrong.missed)
    lost = dataclasses.replace(shown, loss=np.full_like(shown.loss, np.nan))
    assert np.all(lost.missed)


def test_success_is_an_excess_below_a_tenth():
    trained = Trained(("a",), ((0.1, 0.1),), np.array([[[0.01, 0.09, 0.5, 1.0]]]))
    np.testing.assert_array_equal(trained.success, [[0.5]])
    assert trained.heads() == ["", "(0.1, 0.1)"]
    assert trained.cells() == [["a", "2/4  0.295"]]


def test_a_seed_escapes_when_half_of_the_excess_is_gone():
    excess = np.ones((4, 3, 3))
    excess[0, :, 2] = 0.4, 0.49, 0.5
    excess[1, 0, 1:], excess[1, 1, 1:] = (0.2, 0.9), (0.6, np.nan)
    escapes = watched(excess)
    np.testing.assert_array_equal(escapes.first[:2], [[20, 20, np.inf], [5, np.inf, np.inf]])
    np.testing.assert_array_equal(escapes.median, [20, np.inf, np.inf, np.inf])
    assert escapes.cells()[0] == ["AdamW at rate 0.001", "0.001", "2/3", "20", "20", "20", "never", "0.02", ""]
    assert escapes.cells()[1][2:] == ["1/3", "10", "5", "never", "never", "never", "failed: 1 seed"]
    assert escapes.failures() == ["AdamW at rate 0.002: 1 of 3 seeds failed, their numbers are not finite"]


def test_the_table_names_every_row_within_120_columns(result):
    lines = result.table().splitlines()
    assert max(map(len, lines)) <= 120, max(lines, key=len)
    assert lines[0].split() == " ".join(Portrait.HEADS).split()
    for shown, line in zip(result.portraits, lines[2:], strict=False):
        assert line.split() == shown.cells()
    assert sum("row 3" in line for line in lines) == 3


def test_the_figure_has_a_portrait_for_each_chain_and_four_panels(result):
    figure = result.figure()
    assert isinstance(figure, Figure)
    axes = [a for sub in figure.subfigs for a in sub.axes]
    assert len(axes) == len(TINY.chains) + 4
    assert all(a.get_title() and a.get_ylabel() for a in axes)
    check_texts(figure)


def test_the_saved_arrays_are_named_and_finite(result, tmp_path):
    folder = save("markov", dataclasses.replace(result, config=dataclasses.replace(TINY, out=tmp_path)))
    with np.load(folder / "result.npz") as arrays:
        assert arrays["canonical_0.2_0.5_loss"].shape == (25, 61)
        assert arrays["initialisations_excess"].shape == (5, 2, 3)
        assert list(arrays["widths_rows"]) == [f"row {i}" for i in range(4)]
        assert all(np.isfinite(arrays[name]).all() for name in arrays if arrays[name].dtype.kind == "f")


@pytest.mark.slow
def test_a_tiny_run_gives_every_row_and_repeats_itself(tmp_path):
    first, second = run_with_parts(markov, TINY, tmp_path), markov.run(TINY, show_progress=False)
    check_read_again(markov, first, tmp_path)
    assert first.initialisations.excess.shape == (2 + 2 + 1, 2, 2)
    assert first.rates.excess.shape == (2, 1, 2)
    assert first.widths.excess.shape == (2 * 2, 1, 2)
    assert first.mean_field.excess.shape == (2 * 2, 1, 2)
    for name in ("initialisations", "rates", "widths", "mean_field"):
        excess = getattr(first, name).excess
        assert np.all(np.isfinite(excess) & (excess > 0)), (name, excess)
    assert first.escapes.excess.shape == (2 + 2, 2, 41)
    np.testing.assert_array_equal(first.escapes.steps[:, -1], [120, 80, 80, 80])
    for name in ("initialisations", "rates", "widths", "mean_field", "escapes"):
        excess = getattr(first, name).excess
        np.testing.assert_array_equal(excess, getattr(second, name).excess)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chains": ()}, r"`chains` must be pairs \(p, q\), at least one"),
        ({"chains": ((0.5, 0.5),)}, r"`chains` must be pairs .* p \+ q other than 1"),
        ({"hard": (0.4, 0.6)}, r"`chains` must be pairs .* `hard` \(0.4, 0.6\)"),
        ({"chains": ((0.0, 0.5),)}, "`p` must lie strictly between 0 and 1"),
        ({"scales": ()}, "`scales` must hold at least one number"),
        ({"rates": ()}, "`rates` must hold at least one number"),
        ({"widths": ()}, "`widths` must hold at least one number"),
        ({"particles": ()}, "`particles` must hold at least one number"),
        ({"grid": 1}, "`grid` must be a whole number of at least 2"),
        ({"seeds": 0}, "`seeds` must be a whole number of at least 1"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1"),
        ({"batch": 0}, "`batch` must be a whole number of at least 1"),
        ({"reach": 0.0}, "`reach` must be positive"),
        ({"reach": 5.0, "rates": (1e-6,)}, "`reach` over the least of `rates` must be at most 1,000,000"),
        ({"length": 0}, "`length` must be a whole number of at least 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        markov.run(dataclasses.replace(TINY, **change))
