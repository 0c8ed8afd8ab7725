"""Solutions, replicates and gaps with named dimensions, for xarray."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray
from helpers import Matrix, scalar_problem

import wgf
from wgf.analysis import Distances, Gap, Noise, Replicates
from wgf.flows import RESULTS, TrainSolution
from wgf.transport import Excess

ROW = jnp.arange(3.0)


def train(models, outputs):
    return TrainSolution(jnp.arange(3), models, ROW, ROW, ROW, outputs, ROW[1:2], RESULTS.successful)


@pytest.fixture(scope="module")
def flow():
    """A flow with tracers, of particles at Gauss nodes."""
    particles = np.linspace(-1, 1, 6).reshape(2, 3, 1, 1)
    model = wgf.AveragedODE(Matrix(1), wgf.measures.Spectral(particles), steps=1)
    return wgf.flow(scalar_problem(1e-3), model.with_tracers(wgf.measures.Layered(particles[:1])), [0.0, 1.0, 3.0])


def test_a_flow_has_named_dimensions(flow):
    tree = flow.to_xarray(weight_decay=1e-3)
    assert isinstance(tree, xarray.DataTree)
    assert set(tree.children) == {"measure", "tracers_0"}
    np.testing.assert_array_equal(tree["risk"].sel(tau=3.0), flow.risk[-1])
    np.testing.assert_array_equal(tree["outputs"].transpose("prompt", "tau"), flow.outputs.T)
    assert tree["prompt_weights"].dims == ("prompt",)
    law = tree["measure"]
    assert law["particles"].dims == ("tau", "depth", "particle", "particles_0", "particles_1")
    np.testing.assert_array_equal(law["particles"], flow.models.measure.particles)
    np.testing.assert_array_equal(law["depth"], flow.model_at(0).measure.depths)
    np.testing.assert_allclose((law["weights"] * law["depth_weights"]).sum(("depth", "particle")), 1, rtol=1e-6)
    assert tree["tracers_0"]["weights"].sizes == {"tau": 3, "depth": 1, "particle": 3}
    attributes = tree.attrs
    assert (attributes["result"], attributes["weight_decay"]) == ("successful", 1e-3)
    assert attributes["num_steps"] == flow.stats["num_steps"]
    assert f"wgf {wgf.__version__}, " in attributes["versions"]


def test_the_cells_of_a_grid_are_its_particles():
    measure = wgf.measures.Gaussian(Matrix(1)).eulerian(2, [4], -1.0, 1.0)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf] * 3), wgf.AveragedODE(Matrix(1), measure))
    law = train(stacked, ROW[:, None]).to_xarray()["measure"]
    np.testing.assert_array_equal(law["particles"][2], measure.particles)
    assert law["weights"].sizes == {"step": 3, "depth": 2, "particle": 4}


def test_a_plain_module_gives_one_data_set():
    module = eqx.nn.Linear(2, 2, use_bias=False, key=jax.random.key(0))
    module = eqx.tree_at(lambda m: m.weight, module, jnp.ones((3, 2, 2)))
    data = train(module, jnp.ones((3, 1, 4, 5))).to_xarray()
    assert isinstance(data, xarray.Dataset)
    assert data["outputs"].dims == ("step", "prompt", "class", "position")
    assert data["models.weight"].dims == ("step", "models.weight_0", "models.weight_1")
    np.testing.assert_array_equal(data["step"], [0, 1, 2])


def test_replicates_have_their_members(flow):
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf + leaf]) if eqx.is_array(leaf) else leaf, flow)
    tree = Replicates(flow, stacked).to_xarray(seed=3)
    assert set(tree.children) == {"measure", "tracers_0", "members"}
    assert tree.attrs["seed"] == 3
    members = tree["members"]
    assert members["outputs"].dims == ("replicate", "tau", "prompt")
    np.testing.assert_array_equal(members["risk"].sel(tau=1.0), [flow.risk[1], 2 * flow.risk[1]])


def test_a_gap_has_its_noise_and_what_exceeds_it():
    distances = Distances(ROW, 2 * ROW, 3 * ROW, ROW, ROW > 0)
    bare = Gap(ROW, ROW, ROW, ROW, None, None, None).to_xarray()
    assert set(bare.data_vars) == {"objective", "risk", "output"}
    excess = Excess(ROW, ROW / 2, ROW, ROW > 0)
    data = Gap(ROW, ROW, ROW, ROW, distances, Noise(4, *[ROW / 100] * 7), excess).to_xarray(weight_decay=0.0)
    assert {"sinkhorn", "converged", "noise.coupling", "resolved.coupling", "unpaired.floor"} < set(data.data_vars)
    np.testing.assert_array_equal(data["coupling"].sel(tau=2.0), 6)
    np.testing.assert_array_equal(data["resolved.risk"], [False, True, True])
    assert (data.attrs["replicates"], data.attrs["weight_decay"]) == (4, 0)


def test_what_has_no_known_numbers_or_several_solutions_is_refused(flow):
    with pytest.raises(ValueError, match="`to_xarray` needs known numbers; got traced ones"):
        eqx.filter_jit(lambda s: s.to_xarray())(flow)
    several = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]) if eqx.is_array(leaf) else leaf, flow)
    with pytest.raises(ValueError, match=r"`to_xarray` takes one solution; got several, `objective` float\d\d\[2,3\]"):
        several.to_xarray()
