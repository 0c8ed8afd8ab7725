import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kept import check_read_again, run_with_parts
from matplotlib.image import imread

import wgf
from wgf.experiments import Parts, RatesConfig, rates
from wgf.experiments._grouping import group_by_compile_cost
from wgf.experiments._results import save
from wgf.experiments.rates import RatesResult
from wgf.experiments.rates._gaps import ReferenceNoise, SeedGaps, coupling_gap, squared_bias, subtract_noise
from wgf.experiments.rates._limit import concatenate_widths, split_widths
from wgf.experiments.rates._padding import draw_padded
from wgf.experiments.rates._training import FlowSchedule, TrainingSchedule, flow_all, train_all

SIZES = ((4, 6), (2, 5), (4, 3))
SEEDS = 2


@pytest.fixture(scope="module")
def problem():
    """An objective, an encoder, models of three sizes padded to the first size, and their particles."""
    prompts = wgf.prompts.linear_regression(jax.random.key(1), batch=3, examples=2, dim=1)
    encoder = wgf.encoders.Average(
        wgf.encoders.SoftmaxAttention(prompts.token_dim, key_dim=1),
        wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh),
    )
    padded = draw_padded(encoder, 0.7, SIZES, SEEDS, jax.random.key(2))
    return wgf.Objective(prompts, 1e-2), encoder, padded, padded.unpad(padded.models.measure.particles)


@pytest.fixture(scope="module")
def alone(problem):
    """The last seed of the second size as an unpadded model."""
    _, encoder, _, own = problem
    return wgf.Transformer(encoder, wgf.measures.Layered(jax.tree.map(lambda leaf: leaf[-1], own[SIZES[1]])))


@pytest.mark.heavy
def test_a_model_in_a_larger_shape_flows_as_it_does_alone(problem, alone):
    objective, _, padded, _ = problem
    schedule = FlowSchedule(1.0, 2)
    ends = flow_all(objective, padded.models, schedule)
    solution = wgf.flow(objective, alone, schedule.taus(), **schedule.options())
    found = padded.split(ends)[SIZES[1]]
    np.testing.assert_allclose(found.outputs[-1], solution.outputs[-1], rtol=1e-10)
    np.testing.assert_allclose(found.risk[-1], solution.risk[-1], rtol=1e-10)
    np.testing.assert_allclose(found.objective[-1], solution.objective[-1], rtol=1e-10)
    moved = jax.tree.leaves(padded.unpad(ends.particles)[SIZES[1]])
    expected = jax.tree.leaves(solution.model_at(-1).measure.particles)
    assert [leaf.shape for leaf in moved] == [(SEEDS, *leaf.shape) for leaf in expected]
    for leaf, other in zip(moved, expected, strict=True):
        np.testing.assert_allclose(leaf[-1], other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("decoupled", [0.0, 0.1])
def test_a_model_in_a_larger_shape_trains_as_it_does_alone(problem, alone, decoupled):
    objective, _, padded, _ = problem
    ends = train_all(objective, padded.models, TrainingSchedule(0.01, 1e-3, jnp.asarray(decoupled), 5))
    optimiser = optax.adamw(0.01, eps=1e-3, weight_decay=decoupled) if decoupled else optax.adam(0.01, eps=1e-3)
    solution = wgf.train(objective, alone, optimiser, steps=5)
    np.testing.assert_allclose(padded.split(ends)[SIZES[1]].outputs[-1], solution.outputs[-1], rtol=1e-10)


def test_concatenated_tracers_are_split_again(problem):
    _, encoder, _, own = problem
    chosen = {size: own[size] for size in SIZES if size[0] == 4}
    back = split_widths(list(chosen), concatenate_widths(encoder, list(chosen.values())).measure.particles, SEEDS)
    for size, particles in chosen.items():
        for leaf, other in zip(jax.tree.leaves(particles), jax.tree.leaves(back[size]), strict=True):
            np.testing.assert_array_equal(leaf, other)


def test_coupling_is_the_root_of_the_mean_squared_distance(problem):
    own = problem[3][SIZES[0]]
    tracers = jax.tree.map(lambda leaf: leaf + 0.1, own)
    dim = sum(leaf[0, 0, 0].size for leaf in jax.tree.leaves(own))
    np.testing.assert_allclose(coupling_gap(own, tracers, 0.0), np.full(SEEDS, 0.1 * np.sqrt(dim)))
    np.testing.assert_allclose(coupling_gap(own, tracers, 0.1), np.full(SEEDS, 0.1 * np.sqrt(dim - 1)))


def test_noise_is_subtracted_in_square_down_to_a_tenth_of_it():
    np.testing.assert_allclose(subtract_noise(np.array([5.0, -5.0, 1.0]), 3.0), [4.0, 4.0, 0.3])


def test_the_squared_bias_is_that_of_the_mean_over_all_seeds():
    """Differences of a known mean and scatter: the estimate is free of the variance, and its error is no smaller."""
    random, weights, mean, count = np.random.default_rng(0), np.array([0.25, 0.75]), np.array([0.3, -0.1]), 500
    for scatter, most in ((0.03, 1.2), (1.0, 1.7)):
        off = mean + scatter * random.normal(size=(count, 6, 2))
        found = np.array([squared_bias(each, weights) for each in off])
        estimates, errors = found.mean(1), found.std(1, ddof=1) / np.sqrt(6)
        assert abs(estimates.mean() - mean**2 @ weights) < 4 * estimates.std() / np.sqrt(count)
        # The jackknife is exact where the bias rules, and too wide where the scatter does.
        assert 0.85 < np.sqrt(np.mean(errors**2)) / estimates.std() < most
    np.testing.assert_allclose(squared_bias(np.tile(mean, (6, 1)), weights), mean**2 @ weights, rtol=1e-12)


@pytest.fixture(scope="module")
def drawn():
    """A result that nothing has computed: gaps that fall as 1/sqrt(L M), but for the scatter of the seeds."""
    config = dataclasses.replace(RatesConfig.quick_default(), resamples=2)
    scatter = np.exp(0.1 * np.random.default_rng(5).standard_normal((5, config.seeds)))
    gaps = {size: SeedGaps(*(scatter / np.prod(size) ** 0.5)) for size in config.sizes()}
    noise = ReferenceNoise(1e-4, 1e-4, 1e-4, 1e-4)
    return RatesResult(config, 0.6, {"flow": gaps, "adam": gaps}, {"flow": noise, "adam": noise})


def test_gaps_are_named_as_gaps_and_every_word_of_the_table_has_a_note(drawn):
    (table,) = drawn.tables()
    heads = [
        "method",
        "L",
        "M",
        "output gap",
        "+-",
        "coupling",
        "risk gap",
        "Q gap",
        "root(LM) gap",
        "bias",
        "+-",
        "",
    ]
    assert list(table.heads) == heads
    assert all(len(row) == len(heads) for row in table.rows)
    notes = "\n".join(table.notes)
    for word in ("off by", "p", "trend", "coupling", "root(LM) gap", "bias", "+-"):
        assert re.search(rf"(^|; ){re.escape(word)}: ", notes, re.MULTILINE), (word, notes)
    assert max(map(len, str(table).splitlines())) <= 120


def test_sizes_share_programs_where_that_is_cheap():
    config = RatesConfig()
    groups = group_by_compile_cost(config.sizes(), 8192)
    assert sorted(size for group in groups for size in group) == sorted(config.sizes())
    assert len(groups) <= 8
    for (depth, width), *others in groups:
        for size in others:
            assert size[0] <= depth
            assert size[1] <= width
            assert depth * width - size[0] * size[1] <= 8192
    assert len(group_by_compile_cost(config.sizes(), 0)) == len(config.sizes())


def test_the_ratio_of_width_to_log_depth_is_fixed_grows_and_shrinks_along_the_paths():
    for config in (RatesConfig(), RatesConfig.quick_default()):
        ratios = [[width / np.log(depth) for depth, width in config.paths()[name]] for name in rates.PATHS]
        fixed, growing, shrinking = map(np.array, ratios)
        np.testing.assert_allclose(fixed, fixed[0], rtol=0.02)
        assert (np.diff(growing) > 0).all()
        assert (np.diff(shrinking) < 0).all()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The results folder of the run."""
    return tmp_path_factory.mktemp("rates")


@pytest.fixture(scope="module")
def result(place):
    return run_with_parts(rates, dataclasses.replace(RatesConfig.quick_default(), optimisers=("adam", "adamw")), place)


@pytest.mark.slow
def test_a_run_is_read_again_from_its_parts(result: RatesResult, place):
    """The limit's tracers are large. They are not needed where all gaps are there."""
    (tracers,) = place.glob("parts/the-limit-with-tracers-*.npz")
    parts = Parts(place, result.config)
    rates.run(result.config, parts=parts)
    parts.clean()
    assert not tracers.exists()
    check_read_again(rates, result, place)


@pytest.mark.slow
def test_gaps_fall_with_depth_and_width(result: RatesResult):
    config = result.config
    small, *_, large = config.paths()["M / log L growing"]
    for kind in ("output", "coupling", "objective"):
        root = {size: np.sqrt(np.mean(getattr(gaps, kind) ** 2)) for size, gaps in result.found["flow"].items()}
        assert root[large] < 0.25 * root[small], kind
    for kind in ("output", "coupling"):
        fit = result.fits["flow", kind]
        assert fit.deviation < 0.3, fit
        # The bound of the theorem is not sharp: layers are independent samples, whose errors average.
        assert fit.verdicts[0].trend < 0, fit.verdicts[0]
    for name in config.optimisers:
        assert set(result.found[name]) == set(config.trained())


@pytest.mark.slow
def test_the_reference_is_finer_than_what_it_measures(result: RatesResult):
    large = (result.config.depths[-1], result.config.widths[-1])
    gaps = result.found["flow"][large]
    assert result.noise["flow"].output < 0.5 * np.sqrt(np.mean(gaps.output**2))
    assert result.noise["flow"].coupling < 0.5 * np.sqrt(np.mean(gaps.coupling**2))


@pytest.mark.slow
def test_the_table_arrays_and_figure_are_written(result: RatesResult, tmp_path):
    saved = dataclasses.replace(result, config=dataclasses.replace(result.config, out=tmp_path))
    folder = save("rates", saved)
    table = (folder / "table.txt").read_text(encoding="utf-8")
    assert max(map(len, table.splitlines())) <= 120
    for text in ("flow, output: a ", "adamw, output: a ", *wgf.analysis.FORMS, *rates.PATHS):
        assert text in table
    with np.load(folder / "result.npz") as arrays:
        assert arrays["flow_output"].shape == (len(result.found["flow"]), result.config.seeds)
        assert arrays["flow_output_fit"].shape == (3, 5)
    image = imread(folder / "rates.png")
    assert image.shape[0] > 500
    assert image[..., :3].std() > 0.05


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"seeds": 2}, "`seeds` must be a whole number of at least 3; got 2"),
        ({"replicates": 1}, "`replicates` must be a whole number of at least 2; got 1"),
        ({"steps": 0}, "`steps` must be a whole number of at least 1; got 0"),
        ({"tau": 0.0}, "`tau` must be positive and finite; got 0"),
        ({"depths": (1, 2, 4)}, "`depths` must be at least two increasing numbers from 2 on; got"),
        ({"widths": (8, 4)}, "`widths` must be at least two increasing numbers from 2 on; got"),
        ({"depths": (2, 4), "widths": (4, 9)}, "`depths` and `widths` must give at least 6 sizes"),
        ({"widths": (4, 5, 6, 7)}, "`widths` must grow faster than the logarithms of `depths`; got"),
        ({"optimisers": ("sgd",)}, r"`optimisers` must be among \('adam', 'adamw'\); got"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(fields, text):
    with pytest.raises(ValueError, match=text):
        rates.run(dataclasses.replace(RatesConfig(), **fields))
