import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from matplotlib.image import imread

import wgf
from wgf.experiments import RatesConfig, rates
from wgf.experiments._rates_gaps import Excess, _less, coupling_gap
from wgf.experiments._rates_result import RatesResult
from wgf.experiments._rates_runs import (
    Clock,
    Course,
    Limit,
    Reference,
    _apart,
    _side_by_side,
    flow_all,
    own_particles,
    starts,
    train_all,
)
from wgf.experiments._results import save
from wgf.experiments._sizes import together

SIZES = ((4, 6), (2, 5), (4, 3))
SEEDS = 2


@pytest.fixture(scope="module")
def problem():
    """An objective, an encoder, and models of three sizes in the shape of the first."""
    prompts = wgf.prompts.linear_regression(jax.random.key(1), batch=3, examples=2, dim=1)
    encoder = wgf.encoders.Average(
        wgf.encoders.SoftmaxAttention(prompts.token_dim, key_dim=1),
        wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh),
    )
    pack = starts(encoder, 0.7, SIZES, SEEDS, jax.random.key(2))
    return wgf.Objective(prompts, 1e-2), encoder, pack, own_particles(pack, pack.models.measure.particles)


@pytest.fixture(scope="module")
def alone(problem):
    """The second size's last seed as a model of its own."""
    _, encoder, _, own = problem
    return wgf.Transformer(encoder, wgf.measures.Layered(jax.tree.map(lambda leaf: leaf[-1], own[SIZES[1]])))


def test_a_model_in_a_larger_shape_flows_as_it_does_alone(problem, alone):
    objective, _, pack, _ = problem
    clock = Clock(1.0, 2)
    ends = flow_all(objective, pack.models, clock)
    solution = wgf.flow(objective, alone, clock.taus(), **clock.options())
    found = pack.split(ends)[SIZES[1]]
    np.testing.assert_allclose(found.outputs[-1], solution.outputs[-1], rtol=1e-10)
    np.testing.assert_allclose(found.risk[-1], solution.risk[-1], rtol=1e-10)
    np.testing.assert_allclose(found.objective[-1], solution.objective[-1], rtol=1e-10)
    moved = jax.tree.leaves(own_particles(pack, ends.particles)[SIZES[1]])
    expected = jax.tree.leaves(solution.model_at(-1).measure.particles)
    assert [leaf.shape for leaf in moved] == [(SEEDS, *leaf.shape) for leaf in expected]
    for leaf, other in zip(moved, expected, strict=True):
        np.testing.assert_allclose(leaf[-1], other, rtol=1e-9, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("decoupled", [0.0, 0.1])
def test_it_trains_as_it_does_alone(problem, alone, decoupled):
    objective, _, pack, _ = problem
    ends = train_all(objective, pack.models, Course(0.01, 1e-3, jnp.asarray(decoupled), 5))
    optimiser = optax.adamw(0.01, eps=1e-3, weight_decay=decoupled) if decoupled else optax.adam(0.01, eps=1e-3)
    solution = wgf.train(objective, alone, optimiser, steps=5)
    np.testing.assert_allclose(pack.split(ends)[SIZES[1]].outputs[-1], solution.outputs[-1], rtol=1e-10)


def test_tracers_side_by_side_are_told_apart_again(problem):
    _, encoder, _, own = problem
    chosen = {size: own[size] for size in SIZES if size[0] == 4}
    back = _apart(list(chosen), _side_by_side(encoder, list(chosen.values())).measure.particles, SEEDS)
    for size, particles in chosen.items():
        for leaf, other in zip(jax.tree.leaves(particles), jax.tree.leaves(back[size]), strict=True):
            np.testing.assert_array_equal(leaf, other)


def test_coupling_is_the_root_of_the_mean_squared_distance(problem):
    own = problem[3][SIZES[0]]
    twins = jax.tree.map(lambda leaf: leaf + 0.1, own)
    dim = sum(leaf[0, 0, 0].size for leaf in jax.tree.leaves(own))
    np.testing.assert_allclose(coupling_gap(own, twins, 0.0), np.full(SEEDS, 0.1 * np.sqrt(dim)))
    np.testing.assert_allclose(coupling_gap(own, twins, 0.1), np.full(SEEDS, 0.1 * np.sqrt(dim - 1)))


def test_noise_is_taken_off_in_square_down_to_a_tenth_of_it():
    np.testing.assert_allclose(_less(np.array([5.0, -5.0, 1.0]), 3.0), [4.0, 4.0, 0.3])


@pytest.mark.slow
def test_padded_clouds_have_the_excess_of_their_own_particles(problem):
    """Against Sinkhorn divergences of the particles alone; without a difference there is no excess."""
    objective, encoder, _, own = problem
    law = wgf.measures.Gaussian(encoder, 0.7).staged(8, jax.random.key(3), solver=wgf.measures.ThreeEighths())
    limit = wgf.flow(objective, wgf.AveragedODE(encoder, law), jnp.array([0.0, 0.1]), **Clock(0.1, 1).options())
    unknown = Reference(*(None,) * 3)  # pyright: ignore[reportArgumentType]
    excess = Excess(Limit(unknown, limit, {}, 0.0), width=7, cloud=99, seed=0)
    particles = own[SIZES[2]]
    twins = jax.tree.map(lambda leaf: leaf[::-1], particles)
    np.testing.assert_allclose(excess(SIZES[2], particles, particles), 0, atol=1e-12)
    found = excess(SIZES[2], particles, twins)
    np.testing.assert_allclose(found[0], -found[1], rtol=1e-10)
    end, epsilon = limit.model_at(-1).measure, excess._epsilon
    divergences = [0.0, 0.0]
    # Layers 1 and 3 of 4 begin at 1/4 and 3/4; their middles are nearest to the nodes at 1/3 and 1.
    for layer, node in ((1, 1), (3, 3)):
        points = wgf.measures.coordinates(end.particles)[node]
        for seed in range(SEEDS):
            cloud = wgf.measures.coordinates(jax.tree.map(lambda leaf, s=seed: jnp.asarray(leaf[s]), particles))[layer]
            divergences[seed] += float(wgf.transport.sinkhorn_divergence(cloud, points, epsilon=epsilon).value) / 2
    np.testing.assert_allclose(found[0], divergences[0] - divergences[1], rtol=1e-6)


def test_sizes_share_programs_where_that_is_cheap():
    config = RatesConfig()
    groups = together(config.sizes(), 8192)
    assert sorted(size for group in groups for size in group) == sorted(config.sizes())
    assert len(groups) <= 8
    for (depth, width), *others in groups:
        for size in others:
            assert size[0] <= depth
            assert size[1] <= width
            assert depth * width - size[0] * size[1] <= 8192
    assert len(together(config.sizes(), 0)) == len(config.sizes())


def test_paths_hold_and_bend_the_ratio_of_width_to_log_depth():
    for config in (RatesConfig(), RatesConfig.quick_default()):
        ratios = [[width / np.log(depth) for depth, width in config.paths()[name]] for name in rates.PATHS]
        fixed, growing, shrinking = map(np.array, ratios)
        np.testing.assert_allclose(fixed, fixed[0], rtol=0.02)
        assert (np.diff(growing) > 0).all()
        assert (np.diff(shrinking) < 0).all()


@pytest.fixture(scope="module")
def result():
    return rates.run(dataclasses.replace(RatesConfig.quick_default(), optimisers=("adam", "adamw")))


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
        # The theorem's own bound is not sharp: layers that are independent samples average.
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
def test_result_is_written_as_shown(result: RatesResult, tmp_path):
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
        ({"depths": (1, 2, 4)}, "`depths` must increase from 2 or more, two at least; got"),
        ({"widths": (8, 4)}, "`widths` must increase from 2 or more, two at least; got"),
        ({"depths": (2, 4), "widths": (4, 9)}, "`depths` and `widths` must make 6 sizes at least, without the widest"),
        ({"widths": (4, 5, 6, 7)}, "`widths` must grow faster than the logarithms of `depths`; got"),
        ({"optimisers": ("sgd",)}, r"`optimisers` must be of \('adam', 'adamw'\); got"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_before_anything_runs(fields, text):
    with pytest.raises(ValueError, match=text):
        rates.run(dataclasses.replace(RatesConfig(), **fields))
