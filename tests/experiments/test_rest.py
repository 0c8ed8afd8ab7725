import dataclasses

import equinox as eqx
import numpy as np
import pytest
from helpers import check_texts
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

from wgf.experiments import RestConfig, rest
from wgf.experiments._results import save
from wgf.experiments.rest import RestResult, Stage, Trial, _run as rest_run
from wgf.experiments.rest._trial import times

TINY = RestConfig.quick_default()
BOTH = dataclasses.replace(TINY, data=("synthetic", "diabetes"), sizes=((2, 8), (4, 8)))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the tiny job."""
    return tmp_path_factory.mktemp("rest")


@pytest.fixture(scope="module")
def result(place):
    """One run of the tiny job."""
    return run_with_parts(rest, TINY, place)


@pytest.mark.slow
def test_a_run_is_read_again_from_its_parts(result, place):
    check_read_again(rest, result, place)


@pytest.mark.slow
def test_every_flow_comes_to_rest_and_every_round_lowers_the_objective(result):
    assert [trial.name for trial in result.trials] == ["L = 2, M = 8", "PDE"]
    for trial in result.trials:
        np.testing.assert_array_equal(trial.taus, times(TINY))
        assert np.all(np.diff(trial.objectives) < 0)
        assert 0 < trial.motion < 0.05
        assert trial.risks[-1] < 0.05 * trial.risks[0]
        # The conditional gradient begins where the flow ends.
        np.testing.assert_allclose(trial.round_objectives[0], trial.objectives[-1], rtol=1e-9)
        np.testing.assert_allclose(trial.rest.objective, trial.objectives[-1], rtol=1e-9)
        np.testing.assert_allclose(trial.rest.risk, trial.risks[-1], rtol=1e-6)
        np.testing.assert_allclose(trial.end.objective, trial.round_objectives[-1], rtol=1e-6)
        # All that time alone does less.
        assert trial.longer.tau == trial.end.tau == (TINY.horizon + trial.rounds * TINY.round_length) / 1e-2
        assert trial.end.objective < trial.longer.objective <= trial.rest.objective
        assert trial.rest.particles == 8
        assert 1 <= trial.rounds <= TINY.rounds
        assert np.all(np.diff(trial.round_objectives) <= 1e-5 * trial.round_objectives[0])
        assert trial.round_objectives[-1] < 0.97 * trial.round_objectives[0]
        assert trial.gaps[-1] > 0.7 * trial.gaps[0]
        assert np.all(trial.gaps <= trial.lacking + 1e-9)


def stage_of(config, draw, tau, gap):
    """A stage with made-up numbers."""
    outputs = draw.normal(size=config.batch)
    return Stage(tau, draw.uniform(), 0.05, outputs, gap, 7.5, 100)


def trial_of(config, data, size, seed):
    """A trial with made-up numbers that have the shapes of a real one."""
    draw, taus, rounds = np.random.default_rng(seed), times(config), 2 + seed
    falling, later = np.geomspace(1, 1e-3, len(taus)), taus[-1] * (1 + seed)
    return Trial(
        data,
        *size,
        taus=taus,
        risks=falling,
        objectives=0.1 * falling,
        motion=1e-3 * (seed + 1),
        rest=stage_of(config, draw, taus[-1], -0.4),
        longer=stage_of(config, draw, later, -0.3),
        end=stage_of(config, draw, later, -0.005),
        round_objectives=np.linspace(0.1, 0.05, rounds + 1),
        gaps=-np.linspace(0.4, 0.005, rounds + 1),
        lacking=-np.linspace(0.1, 0, rounds + 1),
    )


@pytest.fixture
def made_up():
    sizes = [(False, 2, 8), (False, 4, 8), (True, 8, 8)]
    cases = [(data, size) for size in sizes for data in BOTH.data]
    return RestResult(BOTH, tuple(trial_of(BOTH, data, size, i) for i, (data, size) in enumerate(cases)))


def test_the_table_has_three_rows_per_model_and_fits_a_terminal(made_up):
    lines = made_up.table().splitlines()
    assert max(map(len, lines)) <= 120
    rows = lines[2:20]
    assert [row.split("  ")[0] for row in rows] == ["synthetic"] * 9 + ["diabetes"] * 9
    # The second model of 'synthetic' is trial 2, of four rounds.
    trial, limit = made_up.trials[2], made_up.trials[4]
    for row, word, stage in zip(rows[3:6], ("flow", "flow on", "4 rounds"), ("rest", "longer", "end"), strict=True):
        own, other = getattr(trial, stage), getattr(limit, stage)
        output = np.sqrt(np.mean((own.outputs - other.outputs) ** 2))
        assert row.startswith(f"synthetic  L = 4, M = 8  {word} ")
        cells = [f"{own.tau:.4g}", f"{own.risk:.1e}", "5", f"{own.risk - other.risk:+.1e}", f"{output:.1e}"]
        assert row.split()[-8:] == [*cells, f"{own.gap:.1e}", "7.5", "100"]
    assert rows[6].split()[-5:-3] == ["-", "-"]
    assert "lost at most 6.0e-03 of Q" in made_up.table()


def test_the_folder_holds_the_picture_and_every_trial(made_up, tmp_path):
    folder = save("rest", dataclasses.replace(made_up, config=dataclasses.replace(BOTH, out=tmp_path)))
    image = imread(folder / "rest.png")
    assert image.shape[0] > 500
    assert image[..., :3].std() > 0.05
    with np.load(folder / "result.npz") as arrays:
        assert arrays["risks"].shape == (6, BOTH.saves)
        assert arrays["end_outputs"].shape == (6, BOTH.batch)
        np.testing.assert_allclose(arrays["longer_gap"], -0.3)
        assert list(np.isfinite(arrays["gaps"]).sum(axis=1)) == [3, 4, 5, 6, 7, 8]


def test_a_flow_that_fails_has_a_row_and_the_others_go_on(monkeypatch):
    def follow(config, data, objective, model, is_limit, key):
        if model.measure.width == 6:  # of the first size alone
            raise eqx.EquinoxRuntimeError("The flow ran out of steps: raise them.\nMore lines.")
        return trial_of(config, data, (is_limit, *model.measure.weights.shape), 0)

    monkeypatch.setattr(rest_run, "follow", follow)
    found = rest.run(dataclasses.replace(TINY, sizes=((2, 6), (2, 8))))
    assert found.failures == ("synthetic, L = 2, M = 6: The flow ran out of steps: raise them.",)
    lines = found.table().splitlines()
    assert "synthetic  L = 2, M = 6  failed: The flow ran out of steps" in lines
    assert sum(line.startswith("synthetic") for line in lines) == 7
    assert len(found.figure().axes) == 3
    check_texts(found.figure())
    assert np.isnan(found.arrays()["risks"][0]).all()


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"data": ("teacher",)}, r"`data` must be at least one of \('synthetic', 'diabetes'\); got \('teacher',\)"),
        ({"data": ()}, "`data` must be at least one of"),
        ({"sizes": ()}, r"`sizes` must be at least one pair of depth and width; got \(\)"),
        ({"sizes": ((2, 8), (2, 8))}, "`sizes` must differ from each other; got"),
        ({"width": 7}, "`width` must be even, for pairs of particles; got 7"),
        ({"horizon": 1.0}, "`horizon` must be above 1, in units of 1 / lambda; got 1.0"),
        ({"tolerance": 1.0}, "`tolerance` must be below 1, a share of the whole; got 1.0"),
        ({"mass": 2.0}, "`mass` must be below 1, a share of the whole; got 2.0"),
        ({"saves": 3}, "`saves` must be a whole number of at least 4; got 3"),
        ({"weight_decay": 0.0}, "`weight_decay` must be positive and finite; got 0.0"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(options, text):
    with pytest.raises(ValueError, match=text):
        rest.run(dataclasses.replace(TINY, **options))
