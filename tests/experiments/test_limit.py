import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.image import imread

import wgf
from wgf.cli import main
from wgf.experiments import LimitConfig, limit
from wgf.experiments._results import save

TINY = LimitConfig(batch=4, examples=2, sizes=((1, 2), (2, 4)), width=8, replicates=2, taus=(0.0, 1.0))
SIZES, SAVES, PARTICLE = 2, 2, 5 * 5 + 2 * 2 * 5 + 2 * 5 + 1


@pytest.fixture(scope="module")
def result():
    """One run of the tiny job."""
    return limit.run(TINY)


def test_finite_flows_are_those_of_their_own_sizes(result):
    for depth, width, solution in [(*size, s) for size, s in zip(TINY.sizes, result.finite, strict=True)]:
        start = solution.model_at(0)
        assert start.measure.weights.shape == (depth, width)
        alone = wgf.flow(result.objective, start, jnp.array(TINY.taus), rtol=TINY.rtol)
        np.testing.assert_allclose(solution.outputs, alone.outputs, rtol=1e-8, atol=1e-10)
        assert jax.tree.structure(solution) == jax.tree.structure(alone)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    """The folder of a run for which no folder is named."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("work")
        patch.chdir(place)
        return place / save("limit", result)


def test_the_table_has_every_column_and_a_line_for_each_size_and_time(result):
    head, rule, *lines = result.table().splitlines()
    columns = "L M tau Q finite Q PDE error risk gap error output error Sinkhorn floor excess coupling error"
    assert head.split() == columns.split()
    rows = [line.replace("~", " ").split() for line in lines[: lines.index(rule)]]
    assert [row[:3] for row in rows] == [["1", "2", "0"], ["1", "2", "1"], ["2", "4", "0"], ["2", "4", "1"]]
    assert all(len(row) == 15 for row in rows), rows
    assert all(np.isfinite([float(cell) for cell in row]).all() for row in rows), rows
    assert max(len(line) for line in result.table().splitlines()) <= 120


def test_the_table_shows_the_numbers_of_the_arrays(result):
    arrays, last = result.arrays(), result.table().splitlines()[5].replace("~", " ").split()
    shown = {
        3: "finite_objective",
        5: "noise_objective",
        6: "gap_risk",
        7: "noise_risk",
        8: "gap_output",
        9: "noise_output",
        11: "sinkhorn_floor",
        12: "sinkhorn_excess",
        13: "gap_coupling",
        14: "noise_coupling",
    }
    for place, name in shown.items():
        np.testing.assert_allclose(float(last[place]), arrays[name][1, 1], rtol=6e-2, err_msg=name)
    np.testing.assert_allclose(float(last[4]), arrays["limit_objective"][1], rtol=1e-4)


def test_numbers_that_may_be_noise_are_marked(result):
    arrays, lines = result.arrays(), result.table().splitlines()[2:6]
    kinds = ("risk", "output", "coupling")
    marks = sum(int(np.sum(~arrays[f"resolved_{kind}"])) for kind in kinds)
    assert marks == sum(line.count("~") for line in lines), result.table()
    assert 0 < marks < 12, "the case must have both"
    factor = 12.706205
    for kind, power in zip(kinds, (1, 1, 2), strict=True):
        above = np.abs(arrays[f"gap_{kind}"]) > factor**power * arrays[f"noise_{kind}"]
        np.testing.assert_array_equal(arrays[f"resolved_{kind}"], above, err_msg=kind)


def test_the_table_ends_with_what_was_run(result):
    notes = result.table()
    for fact in (
        "B = 4 prompts of N = 2 examples",
        "lambda = 0.001",
        "N(0, 0.7^2)",
        "8 stage times in depth x 8 particles",
        "2 replicates x 4 particles",
        "within 12.71 errors",
    ):
        assert fact in notes, (fact, notes)


def test_a_sinkhorn_solve_that_did_not_converge_is_marked(result):
    def with_converged(gap, flags):
        return eqx.tree_at(lambda g: g.sinkhorn.converged, gap, jnp.array(flags))

    first, second = result.gaps
    all_converged = (with_converged(first, [True, True]), with_converged(second, [True, True]))
    assert "not converged" not in dataclasses.replace(result, gaps=all_converged).table()
    one_failed = (all_converged[0], with_converged(second, [True, False]))
    rows = dataclasses.replace(result, gaps=one_failed).table().splitlines()[2:6]
    assert [row.endswith("Sinkhorn not converged") for row in rows] == [False, False, False, True]


def test_the_saved_arrays_are_named_and_shaped(folder):
    shapes = {
        "taus": (SAVES,),
        "sizes": (SIZES, 2),
        "tokens": (4, 5, 3),
        "labels": (4,),
        **{f"limit_{name}": (SAVES,) for name in ("objective", "risk", "dissipation")},
        "limit_outputs": (SAVES, 4),
        **{f"limit_{name}_{what}": (SAVES,) for name in ("objective", "risk") for what in ("error", "bias")},
        **{f"limit_outputs_{what}": (SAVES, 4) for what in ("error", "bias")},
        **{f"replicates_{name}": (2, SAVES) for name in ("objective", "risk", "dissipation")},
        "replicates_outputs": (2, SAVES, 4),
        **{f"finite_{name}": (SIZES, SAVES) for name in ("objective", "risk", "dissipation")},
        "finite_outputs": (SIZES, SAVES, 4),
        **{
            f"{what}_{name}": (SIZES, SAVES)
            for what in ("gap", "noise", "resolved")
            for name in ("objective", "risk", "output", "coupling")
        },
        **{f"sinkhorn_{name}": (SIZES, SAVES) for name in ("value", "floor", "excess", "epsilon", "converged")},
        "coordinate_names": (PARTICLE,),
        "limit_depths": (8,),
        "limit_particles": (8, 8, PARTICLE),
        "finite_particles_1x2": (1, 2, PARTICLE),
        "finite_particles_2x4": (2, 4, PARTICLE),
    }
    with np.load(folder / "result.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays} == shapes
        assert all(np.isfinite(arrays[name]).all() for name in arrays if arrays[name].dtype.kind == "f")


def test_gaps_are_the_differences_of_the_saved_runs(folder):
    with np.load(folder / "result.npz") as a:
        np.testing.assert_allclose(a["gap_risk"], a["finite_risk"] - a["limit_risk"], atol=1e-14)
        difference = a["finite_outputs"] - a["limit_outputs"]
        np.testing.assert_allclose(a["gap_output"], np.sqrt(np.mean(difference**2, axis=-1)), rtol=1e-10)
        np.testing.assert_allclose(a["sinkhorn_excess"], a["sinkhorn_value"] - a["sinkhorn_floor"], atol=1e-12)


def test_error_bars_are_those_of_the_saved_replicates(folder):
    with np.load(folder / "result.npz") as a:
        for name in ("objective", "risk", "outputs"):
            parts, whole = a[f"replicates_{name}"], a[f"limit_{name}"]
            np.testing.assert_allclose(a[f"limit_{name}_error"], parts.std(0, ddof=1) / np.sqrt(2), rtol=1e-10)
            np.testing.assert_allclose(a[f"limit_{name}_bias"], parts.mean(0) - whole, atol=1e-14)
        noise = np.sqrt(np.mean(a["limit_outputs_error"] ** 2 + a["limit_outputs_bias"] ** 2, axis=-1))
        np.testing.assert_allclose(a["noise_output"], np.stack([noise, noise]), rtol=1e-10)


def test_tracers_start_on_the_particles_they_follow(folder):
    with np.load(folder / "result.npz") as a:
        np.testing.assert_array_equal(a["gap_coupling"][:, 0], 0)
        assert np.all(a["gap_coupling"][:, 1] > 0), a["gap_coupling"]


def test_the_objective_falls(folder):
    with np.load(folder / "result.npz") as a:
        assert np.all(a["finite_objective"][:, 1] < a["finite_objective"][:, 0]), a["finite_objective"]
        assert a["limit_objective"][1] < a["limit_objective"][0], a["limit_objective"]


def test_the_figure_is_drawn(folder):
    picture = imread(folder / "limit.png")
    height, width = picture.shape[:2]
    assert height > 500, picture.shape
    assert width > 1000, picture.shape
    ink = np.mean(np.any(picture[..., :3] < 0.99, axis=-1))
    assert 0.01 < ink < 0.5, ink


def test_the_figure_has_six_panels_with_titles_and_labels(result):
    axes = result.figure().axes
    assert len(axes) == 6
    assert all(a.get_title() and a.get_xlabel() and a.get_ylabel() for a in axes)
    assert [len(a.collections) for a in axes] == [1, 0, 0, 2, 2, 2]
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == [
        "L = 1, M = 2",
        "L = 2, M = 4",
        "PDE's own error",
        "may be that error",
    ]


def test_points_that_may_be_noise_are_hollow(result):
    for axes, kind in zip(result.figure().axes[1:3], ("output", "coupling"), strict=True):
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        shown = sum(int(np.isfinite(line.get_ydata()).sum()) for line in hollow)
        arrays = result.arrays()
        assert shown == int(np.sum(~arrays[f"resolved_{kind}"] & (arrays[f"gap_{kind}"] > 0)))


def test_the_table_is_saved(folder, result):
    assert (folder / "table.txt").read_text(encoding="utf-8") == result.table() + "\n"


def test_the_default_folder_is_a_new_one_under_results(folder):
    assert folder.parent.name == "results"
    assert folder.name.startswith("limit-")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "limit.png", "result.npz", "table.txt"]


@pytest.mark.slow
def test_a_rerun_from_the_saved_config_gives_identical_arrays(folder, tmp_path, capsys):
    main(["rerun", str(folder), "--out", str(tmp_path / "again")])
    printed = capsys.readouterr()
    assert printed.out.startswith((folder / "table.txt").read_text(encoding="utf-8"))
    assert printed.out.endswith(f"results: {tmp_path / 'again'}\n")
    # Standard error is captured and so not a terminal: there must be no bar.
    assert printed.err == ""
    with np.load(folder / "result.npz") as first, np.load(tmp_path / "again" / "result.npz") as second:
        assert set(first) == set(second)
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_the_saved_config_names_its_experiment_and_every_field(folder):
    record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert record.pop("experiment") == "limit"
    assert set(record) == set(LimitConfig.__dataclass_fields__)


@pytest.mark.parametrize("sizes", [(), ((1, 2), (1, 2))])
def test_sizes_that_are_not_distinct_are_refused(sizes):
    with pytest.raises(ValueError, match="`sizes` must be distinct pairs of depth and width, at least one"):
        limit.run(LimitConfig(batch=4, examples=2, sizes=sizes))


def test_an_unknown_sampling_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"`sampling` must be one of \['pairs', 'sobol', 'independent'\]; got 'Sobol'"):
        limit.run(LimitConfig(sampling="Sobol"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["batch", "examples", "dim", "width", "steps", "key_dim"])
def test_a_count_below_one_is_refused(name):
    small = {"batch": 4, "examples": 2, "sizes": ((1, 2),), "width": 4, "replicates": 2}
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1; got 0"):
        limit.run(LimitConfig(**{**small, name: 0}))


def test_replicates_that_do_not_divide_the_width_are_refused():
    small = {"batch": 4, "examples": 2, "sizes": ((1, 2),)}
    with pytest.raises(ValueError, match="`replicates` must be a whole number of at least 2; got 1"):
        limit.run(LimitConfig(**small, width=4, replicates=1))
    with pytest.raises(ValueError, match="`width` must be a multiple of 4, for pairs in each of the 2 replicates"):
        limit.run(LimitConfig(**small, width=6, replicates=2))
    with pytest.raises(ValueError, match="`width` must be a multiple of 3, for 3 equal replicates; got 10"):
        limit.run(LimitConfig(**small, width=10, replicates=3, sampling="independent"))
