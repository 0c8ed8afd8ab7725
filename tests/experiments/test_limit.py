import dataclasses
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import check_texts, in_float64
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

import wgf
from wgf.cli import main
from wgf.experiments import LimitConfig, limit
from wgf.experiments._results import save

TINY = LimitConfig(
    batch=4, examples=2, sizes=((1, 2), (2, 4)), seeds=2, tracers=6, width=8, replicates=2, taus=(0.0, 1.0)
)
SIZES, SEEDS, SAVES, PARTICLE = 2, 2, 2, 5 * 5 + 2 * 2 * 5 + 2 * 5 + 1
DISTANCES = ("gelbrich", "sinkhorn", "coupling")
GAPS = ("objective", "risk", "output", *DISTANCES)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the tiny job."""
    return tmp_path_factory.mktemp("limit")


@pytest.fixture(scope="module")
def result(place):
    """One run of the tiny job."""
    return run_with_parts(limit, TINY, place)


@pytest.mark.heavy
def test_a_run_is_read_again_from_its_parts(result, place):
    check_read_again(limit, result, place)


@pytest.mark.heavy
def test_a_run_in_float64_leaves_the_callers_precision_and_is_the_same(result):
    """Its table and arrays are computed in float64, too."""
    with jax.enable_x64(False):
        found = limit.run(dataclasses.replace(TINY, x64=True, device="cpu"))
        assert jnp.result_type(float) == jnp.float32
        table, arrays = found.table(), found.arrays()
    assert all(array.dtype != np.float32 for array in map(np.asarray, arrays.values()))
    if in_float64():
        assert table == result.table()
        for name, array in result.arrays().items():
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


@pytest.mark.heavy
def test_finite_flows_are_those_of_their_own_sizes(result):
    runs = [(size, solution) for size, seeds in zip(TINY.sizes, result.finite, strict=True) for solution in seeds]
    assert len(runs) == SIZES * SEEDS
    for size, solution in runs:
        start = solution.model_at(0)
        assert start.measure.weights.shape == size
        alone = wgf.flow(result.objective, start, jnp.array(TINY.taus), rtol=TINY.rtol)
        np.testing.assert_allclose(solution.outputs, alone.outputs, rtol=1e-8, atol=1e-10)
        assert jax.tree.structure(solution) == jax.tree.structure(alone)


@pytest.mark.heavy
def test_all_flows_carry_the_same_fresh_particles(result):
    def starts(solution):
        return wgf.measures.coordinates(solution.model_at(0).tracers[0].particles)

    expected = starts(result.limit.pooled)
    assert expected.shape[:2] == (4, 6)
    for solution in [solution for seeds in result.finite for solution in seeds]:
        np.testing.assert_array_equal(starts(solution), expected)
        own = wgf.measures.coordinates(solution.model_at(0).measure.particles)
        assert not np.isin(np.asarray(own), np.asarray(expected)).any(), "fresh ones are independent of the model's own"


@pytest.mark.heavy
def test_seeds_of_one_size_differ(result):
    for seeds in result.finite:
        first, second = (solution.model_at(0).measure.particles for solution in seeds)
        assert not np.isin(first.f.value, second.f.value).any()


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    """The folder of a run for which no folder is named."""
    with pytest.MonkeyPatch.context() as patch:
        place = tmp_path_factory.mktemp("work")
        patch.chdir(place)
        return place / save("limit", result)


def parts(result):
    """The heads and the rows of both tables, without marks."""
    tables = []
    for text in result.table().split("\n\n"):
        _, head, rule, *lines = text.splitlines()
        rows = lines[: lines.index(rule)] if rule in lines else lines
        tables.append((head.split(), [row.replace("~", " ").split() for row in rows]))
    return tables


@pytest.mark.heavy
def test_the_tables_have_every_column_and_a_line_for_each_size_and_time(result):
    (outputs, output_rows), (particles, particle_rows) = parts(result)
    columns = "L M tau R finite R PDE risk gap seeds error output gap seeds error"
    assert outputs == columns.split()
    columns = "L M tau Gelbrich seeds error Sinkhorn seeds error coupling seeds error"
    assert particles == columns.split()
    for rows, count in ((output_rows, 11), (particle_rows, 12)):
        assert [row[:3] for row in rows] == [["1", "2", "0"], ["1", "2", "1"], ["2", "4", "0"], ["2", "4", "1"]]
        assert all(len(row) == count for row in rows), rows
        assert all(np.isfinite([float(cell) for cell in row]).all() for row in rows), rows
    assert max(len(line) for line in result.table().splitlines()) <= 120


@pytest.mark.heavy
def test_the_tables_show_the_numbers_of_the_arrays(result):
    arrays, ((_, outputs), (_, particles)) = result.arrays(), parts(result)
    for start, names, row in ((5, ("risk", "output"), outputs[3]), (3, DISTANCES, particles[3])):
        for number, name in enumerate(names):
            found = arrays[f"gap_{name}_mean"], arrays[f"gap_{name}_seeds"]
            expected = [*(array[1, 1] for array in found), arrays[f"noise_{name}"][1]]
            cells = [float(cell) for cell in row[start + 3 * number :][:3]]
            np.testing.assert_allclose(cells, expected, rtol=6e-2, err_msg=name)
    finite, limit = float(outputs[3][3]), float(outputs[3][4])
    np.testing.assert_allclose(finite, arrays["finite_risk"].mean(axis=1)[1, 1], rtol=1e-4)
    np.testing.assert_allclose(limit, arrays["limit_risk"][1], rtol=1e-4)
    assert finite - limit == pytest.approx(float(outputs[3][5]), rel=1e-2, abs=2e-6), (
        "the gap of the two columns to its left"
    )


@pytest.mark.heavy
def test_means_and_their_errors_are_those_of_the_seeds(result):
    arrays = result.arrays()
    for name in ("objective", "risk"):
        runs = arrays[f"gap_{name}"]
        np.testing.assert_allclose(arrays[f"gap_{name}_mean"], runs.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(arrays[f"gap_{name}_seeds"], runs.std(axis=1, ddof=1) / np.sqrt(SEEDS), rtol=1e-12)
    for name in ("output", *DISTANCES):
        squares = arrays[f"gap_{name}"] ** 2
        root, error = arrays[f"gap_{name}_mean"], arrays[f"gap_{name}_seeds"]
        np.testing.assert_allclose(root**2, squares.mean(axis=1), rtol=1e-12)
        np.testing.assert_allclose(2 * root * error, squares.std(axis=1, ddof=1) / np.sqrt(SEEDS), atol=1e-14)


@pytest.mark.heavy
def test_numbers_that_may_be_noise_are_marked(result):
    arrays, shown = result.arrays(), result.table()
    marks = sum(int(np.sum(~arrays[f"resolved_{name}"])) for name in ("risk", "output", *DISTANCES))
    assert marks == sum(line.count("~") for line in shown.splitlines() if not line.startswith("seeds:")), shown
    assert 0 < marks < 20, "the case must have both"
    for name in GAPS:
        above = np.abs(arrays[f"gap_{name}_mean"]) > 12.706205 * arrays[f"noise_{name}"]
        np.testing.assert_array_equal(arrays[f"resolved_{name}"], above, err_msg=name)


@pytest.mark.heavy
def test_the_table_ends_with_what_was_run(result):
    notes = result.table()
    law = result.laws()["coupling"]
    for fact in (
        "B = 4 prompts of N = 2 examples",
        "lambda = 0.001",
        "N(0, 0.7^2)",
        "8 stage times in depth x 8 particles",
        "2 replicates x 4 particles",
        "within 12.71 of its errors",
        "mean over 2 seeds",
        "6 fresh particles at 4 depths",
        f"coupling {law.slope:+.2f} +- {law.interval:.2f}",
    ):
        assert fact in notes, (fact, notes)


@pytest.mark.heavy
def test_slopes_are_those_of_a_straight_line(result):
    distances = result.arrays()["gap_coupling"][:, :, -1]
    slope = np.polyfit(np.log(np.repeat([2.0, 8.0], SEEDS)), np.log(distances.ravel()), 1)[0]
    assert result.laws()["coupling"].slope == pytest.approx(slope)
    one_size = dataclasses.replace(result, config=dataclasses.replace(TINY, sizes=((1, 2),)))
    assert one_size.laws() == {}


@pytest.mark.heavy
def test_a_sinkhorn_solve_that_did_not_converge_is_marked(result):
    def with_converged(gap, flags):
        return eqx.tree_at(lambda g: g.distances.converged, gap, jnp.array(flags))

    def rows(last):
        """The rows of a result in which all has converged, but for the last seed of the last size."""
        good = [[with_converged(gap, [True, True]) for gap in gaps] for gaps in result.gaps]
        good[-1][-1] = with_converged(good[-1][-1], last)
        return dataclasses.replace(result, gaps=tuple(map(tuple, good))).table().split("\n\n")[1].splitlines()[3:7]

    assert not any(row.endswith("not converged") for row in rows([True, True]))
    assert [row.endswith("Sinkhorn not converged") for row in rows([True, False])] == [False, False, False, True]


@pytest.mark.heavy
def test_a_finite_model_that_fails_is_marked_and_the_others_stay(result):
    """Seed 1 of the first size becomes NaN after the first time."""

    def fails(tree):
        def at_end(leaf):
            is_along = eqx.is_inexact_array(leaf) and leaf.ndim and leaf.shape[0] == SAVES
            return leaf.at[1].set(jnp.nan) if is_along else leaf

        return jax.tree.map(at_end, tree)

    solution = eqx.tree_at(lambda s: s.result, fails(result.finite[0][1]), wgf.flows.RESULTS.not_finite)
    finite = ((result.finite[0][0], solution), result.finite[1])
    found = dataclasses.replace(
        result, finite=finite, gaps=((result.gaps[0][0], fails(result.gaps[0][1])), result.gaps[1])
    )
    assert result.failures == ()
    (failure,) = found.failures
    assert failure.startswith("L = 1, M = 2, seed 1: The flow stopped being finite: ")
    for table in found.table().split("\n\n"):
        rows = table.splitlines()[3:7]
        assert [row.endswith("failed: 1 seed") for row in rows] == [False, True, False, False], table
    assert found.laws() == {}
    check_texts(found.figure())
    assert found.arrays()["gap_risk"].shape == (SIZES, SEEDS, SAVES)


@pytest.mark.heavy
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
        **{f"finite_{name}": (SIZES, SEEDS, SAVES) for name in ("objective", "risk", "dissipation")},
        "finite_outputs": (SIZES, SEEDS, SAVES, 4),
        **{f"gap_{name}": (SIZES, SEEDS, SAVES) for name in GAPS},
        **{f"gap_{name}_{what}": (SIZES, SAVES) for name in GAPS for what in ("mean", "seeds")},
        **{f"resolved_{name}": (SIZES, SAVES) for name in GAPS},
        **{f"noise_{name}": (SAVES,) for name in GAPS},
        **{f"sinkhorn_{name}": (SIZES, SEEDS, SAVES) for name in ("epsilon", "converged")},
        "coordinate_names": (PARTICLE,),
        "limit_depths": (8,),
        "limit_particles": (8, 8, PARTICLE),
        "finite_particles_1x2": (SEEDS, 1, 2, PARTICLE),
        "finite_particles_2x4": (SEEDS, 2, 4, PARTICLE),
        "about": (),
    }
    with np.load(folder / "result.npz") as arrays:
        assert {name: arrays[name].shape for name in arrays if not name.startswith("result/")} == shapes
        assert all(np.isfinite(arrays[name]).all() for name in arrays if arrays[name].dtype.kind == "f")


@pytest.mark.heavy
def test_gaps_are_the_differences_of_the_saved_runs(folder):
    with np.load(folder / "result.npz") as a:
        np.testing.assert_allclose(a["gap_risk"], a["finite_risk"] - a["limit_risk"], atol=1e-14)
        difference = a["finite_outputs"] - a["limit_outputs"]
        np.testing.assert_allclose(a["gap_output"], np.sqrt(np.mean(difference**2, axis=-1)), rtol=1e-10)


@pytest.mark.heavy
def test_error_bars_are_those_of_the_saved_replicates(folder):
    with np.load(folder / "result.npz") as a:
        for name in ("objective", "risk", "outputs"):
            parts, whole = a[f"replicates_{name}"], a[f"limit_{name}"]
            np.testing.assert_allclose(a[f"limit_{name}_error"], parts.std(0, ddof=1) / np.sqrt(2), rtol=1e-10)
            np.testing.assert_allclose(a[f"limit_{name}_bias"], parts.mean(0) - whole, atol=1e-14)
        noise = np.sqrt(np.mean(a["limit_outputs_error"] ** 2 + a["limit_outputs_bias"] ** 2, axis=-1))
        np.testing.assert_allclose(a["noise_output"], noise, rtol=1e-10)


@pytest.mark.heavy
def test_distances_start_at_zero_and_bound_each_other(folder):
    with np.load(folder / "result.npz") as a:
        for name in DISTANCES:
            np.testing.assert_array_equal(a[f"gap_{name}"][..., 0], 0)
            assert np.all(a[f"gap_{name}"][..., 1] > 0), name
        assert np.all(a["gap_gelbrich"] <= a["gap_coupling"])
        assert a["sinkhorn_converged"].all()


@pytest.mark.heavy
def test_the_objective_falls(folder):
    with np.load(folder / "result.npz") as a:
        assert np.all(a["finite_objective"][..., 1] < a["finite_objective"][..., 0]), a["finite_objective"]
        assert a["limit_objective"][1] < a["limit_objective"][0], a["limit_objective"]


@pytest.mark.heavy
def test_the_figure_is_drawn(folder):
    picture = imread(folder / "limit.png")
    height, width = picture.shape[:2]
    assert height > 500, picture.shape
    assert width > 1000, picture.shape
    ink = np.mean(np.any(picture[..., :3] < 0.99, axis=-1))
    assert 0.01 < ink < 0.5, ink


@pytest.mark.heavy
def test_the_figure_has_six_panels_with_titles_and_labels(result):
    axes = result.figure().axes
    assert len(axes) == 6
    assert all(a.get_title() and a.get_xlabel() and a.get_ylabel() for a in axes)
    assert [len(a.collections) for a in axes[4:]] == [4, 4], "the clouds of the model and of the PDE, and their names"
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == [
        "PDE's own error",
        "may be that error",
        "L = 1, M = 2",
        "L = 2, M = 4",
    ]
    assert axes[0].get_legend().get_texts()[0].get_text() == "may be the PDE's own error"
    legend = [text.get_text() for text in axes[3].get_legend().get_texts()]
    slopes = {name: law.slope for name, law in result.laws().items()}
    assert any(text == f"Sinkhorn, slope {slopes['sinkhorn']:.2f}" for text in legend), legend


@pytest.mark.heavy
def test_points_that_may_be_noise_are_hollow(result):
    arrays = result.arrays()
    for axes, kind in zip(result.figure().axes[1:3], ("output", "sinkhorn"), strict=True):
        hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
        shown = sum(int(np.isfinite(line.get_ydata()).sum()) for line in hollow)
        assert shown == int(np.sum(~arrays[f"resolved_{kind}"] & (np.abs(arrays[f"gap_{kind}_mean"]) > 0)))


@pytest.mark.heavy
def test_the_table_is_saved(folder, result):
    assert (folder / "table.txt").read_text(encoding="utf-8") == result.table() + "\n"


@pytest.mark.heavy
def test_the_default_folder_is_a_new_one_under_results(folder):
    assert folder.parent.name == "results"
    assert folder.name.startswith("limit-")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "limit.png", "result.npz", "table.txt"]


@pytest.mark.heavy
def test_a_rerun_from_the_saved_config_gives_identical_arrays(folder, tmp_path, capsys):
    main(["rerun", str(folder), "--out", str(tmp_path / "again")])
    printed = capsys.readouterr()
    assert printed.out.startswith((folder / "table.txt").read_text(encoding="utf-8"))
    assert printed.out.endswith(f"results: {tmp_path / 'again'}\n")
    # Standard error is captured and so not a terminal: there must be lines, and no bar.
    assert all(line.startswith("wgf: ") for line in printed.err.splitlines())
    with np.load(folder / "result.npz") as first, np.load(tmp_path / "again" / "result.npz") as second:
        assert set(first) == set(second)
        # When a run began differs.
        for name in set(first) - {"about"}:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)


@pytest.mark.heavy
def test_the_saved_config_names_its_experiment_and_every_field(folder):
    record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert record.pop("experiment") == "limit"
    assert record.pop("about")["precision"] == str(jnp.result_type(float))
    assert set(record) == set(LimitConfig.__dataclass_fields__)


@pytest.mark.parametrize("sizes", [(), ((1, 2), (1, 2))])
def test_sizes_that_are_not_distinct_are_refused(sizes):
    with pytest.raises(ValueError, match="`sizes` must be distinct pairs of depth and width, at least one"):
        limit.run(LimitConfig(batch=4, examples=2, sizes=sizes))


def test_an_unknown_sampling_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"`sampling` must be one of \['pairs', 'sobol', 'independent'\]; got 'Sobol'"):
        limit.run(LimitConfig(sampling="Sobol"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["batch", "examples", "dim", "width", "steps", "key_dim", "tracers"])
def test_a_count_below_one_is_refused(name):
    small = {"batch": 4, "examples": 2, "sizes": ((1, 2),), "width": 4, "replicates": 2}
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1; got 0"):
        limit.run(LimitConfig(**{**small, name: 0}))


def test_a_single_seed_is_refused():
    with pytest.raises(ValueError, match="`seeds` must be a whole number of at least 2; got 1"):
        limit.run(LimitConfig(seeds=1))


def test_replicates_that_do_not_divide_the_width_are_refused():
    small = {"batch": 4, "examples": 2, "sizes": ((1, 2),)}
    with pytest.raises(ValueError, match="`replicates` must be a whole number of at least 2; got 1"):
        limit.run(LimitConfig(**small, width=4, replicates=1))
    with pytest.raises(ValueError, match="`width` must be a multiple of 4, for pairs in each of the 2 replicates"):
        limit.run(LimitConfig(**small, width=6, replicates=2))
    with pytest.raises(ValueError, match="`width` must be a multiple of 3, for 3 equal replicates; got 10"):
        limit.run(LimitConfig(**small, width=10, replicates=3, sampling="independent"))
