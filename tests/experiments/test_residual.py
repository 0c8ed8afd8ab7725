import dataclasses
import re

import numpy as np
import pytest
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

from wgf.experiments import ResidualConfig, residual
from wgf.experiments._results import save
from wgf.experiments.residual import PowerLaw

TINY = ResidualConfig(
    dim=8, hidden=16, lengths=(3,), temperatures=(16.0,), depths=(), seeds=4, saves=16, horizon=2.5, step=0.01
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the tiny job."""
    return tmp_path_factory.mktemp("residual")


@pytest.fixture(scope="module")
def result(place):
    """One run of the tiny job."""
    return run_with_parts(residual, TINY, place)


@pytest.mark.heavy
def test_a_run_is_read_again_from_its_parts(result, place):
    check_read_again(residual, result, place)


@pytest.mark.heavy
def test_the_table_has_a_line_for_each_condition_and_fits_a_terminal(result):
    head, rule, *lines = result.table().splitlines()
    rows = [line.split() for line in lines[: lines.index(rule)]]
    assert max(map(len, [head, *lines])) <= 120
    assert [row[:2] for row in rows] == [
        ["flow", "with"],
        ["flow", "without"],
        ["flow", "with"],
        ["descent", "with"],
        ["descent", "without"],
    ]
    assert all(len(row) == len(rows[0]) for row in rows)


@pytest.mark.heavy
def test_every_column_of_the_table_has_a_note(result):
    (table,) = result.tables()
    notes = "\n".join(table.notes)
    named = [head for head in table.heads if head not in ("", "residual")]
    assert len(named) == 14
    assert [head for head in named if not re.search(rf"(^|; ){re.escape(head)}: ", notes, re.MULTILINE)] == []


@pytest.mark.heavy
def test_the_arrays_hold_every_condition(result):
    arrays = result.arrays()
    assert len(arrays) == 6 * len(result.runs)
    for runs in result.runs:
        assert arrays[f"{runs.condition.name}_loss"].shape == (4, 16)
        assert arrays[f"{runs.condition.name}_least"].shape == (4, 16, 1)
        assert np.all(np.isfinite(runs.loss))


@pytest.mark.heavy
def test_runs_with_and_without_the_connection_share_their_data_and_their_horizon(result):
    with_, without = (result.find(residual=r, slope=TINY.slope, descent=False)[0] for r in (True, False))
    np.testing.assert_array_equal(with_.times, without.times)


@pytest.mark.heavy
def test_the_loss_obeys_the_theorem_at_every_moment(result):
    for runs in result.runs:
        assert np.all(runs.slack >= 1), runs.condition
        # The loss never rises by more than the flow's own error.
        assert np.all(np.diff(runs.loss) < 1e-6 * runs.loss[:, :1])


@pytest.mark.heavy
def test_the_residual_connection_conditions_and_speeds(result):
    with_, without = (result.find(residual=r, slope=TINY.slope, descent=False)[0] for r in (True, False))
    assert np.all(without.conditions[:, 0] > 3 * with_.conditions[:, 0])
    for fast, slow in zip(with_.fits, without.fits, strict=True):
        assert fast.fallen > 2 * slow.fallen, (fast, slow)


@pytest.mark.heavy
def test_gradient_descent_stays_near_the_flow(result):
    flow, descent = (result.find(residual=True, slope=TINY.slope, descent=d)[0] for d in (False, True))
    for seed in range(4):
        theirs = np.interp(descent.times[seed], flow.times[seed], np.log(flow.loss[seed]))
        inside = (descent.times[seed] <= flow.times[seed, -1]) & (theirs > np.log(1e-6 * flow.loss[seed, 0]))
        assert inside.sum() >= 4
        np.testing.assert_allclose(np.log(descent.loss[seed])[inside], theirs[inside], atol=0.5)


@pytest.mark.heavy
def test_the_folder_holds_the_picture(result, tmp_path):
    folder = save("residual", dataclasses.replace(result, config=dataclasses.replace(TINY, out=tmp_path)))
    image = imread(folder / "residual.png")
    assert image.shape[0] > 800
    assert image[..., :3].std() > 0.05


def test_a_power_law_gives_back_its_own_exponent():
    x = np.geomspace(1, 100, 12)
    law = PowerLaw.fit(x, 3 * x**0.7 * np.exp(0.01 * np.sin(np.arange(12.0))))
    assert law.slope == pytest.approx(0.7, abs=0.01)
    assert abs(law.slope - 0.7) < law.interval < 0.01
    np.testing.assert_allclose(law(x), 3 * x**0.7, rtol=0.03)
    assert "12 runs" in str(law)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"dim": 0}, "`dim` must be a whole number of at least 1; got 0"),
        ({"seeds": 0}, "`seeds` must be a whole number of at least 1; got 0"),
        ({"saves": 2}, "`saves` must be a whole number of at least 3; got 2"),
        ({"lengths": ()}, "`lengths` must hold at least one number; got none"),
        ({"temperatures": ()}, "`temperatures` must hold at least one number; got none"),
        ({"lengths": (0,)}, "`lengths` must be a whole number of at least 1; got 0"),
        ({"lengths": (40,)}, "`lengths` must be at most `dim`, 32, the limit of the theory"),
        ({"temperatures": (0.0,)}, "`temperatures` must be positive"),
        ({"slope": 0.0}, r"`slope` must lie in \(0, 1\]"),
        ({"depths": (0,)}, "`depths` must be a whole number of at least 1; got 0"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options, text):
    with pytest.raises(ValueError, match=text):
        residual.run(ResidualConfig(**options))


@pytest.mark.slow
def test_the_claims_about_ten_seeds_hold():
    """With the connection, the condition number is at least 10 times smaller, and the log-loss falls linearly."""
    result = residual.run(ResidualConfig.quick_default())
    slope = result.config.slope
    (with_,), (without,) = (result.find(residual=r, depth=1, slope=slope, descent=False) for r in (True, False))
    assert len(with_.fits) == 10
    assert np.all(without.conditions[:, 0] > 10 * with_.conditions[:, 0])
    assert np.all(with_.is_linear), with_.fits
    assert not np.any(without.is_linear)
    assert max(f.fallen for f in without.fits) < 1
    for runs in result.find(residual=True):
        assert np.all(runs.slack >= 1), runs.condition
