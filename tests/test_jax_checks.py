"""JAX's own checks stop no correct program: `jax_debug_nans` here, `jax_numpy_rank_promotion="raise"` in every test.

Under `jax_debug_nans` a NaN in what a compiled function returns raises; the function is then run again, step by step,
and so is every NaN within.
"""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, averaged, regression, scalar_problem

import wgf

# The gate runs them; the short command has more to prove.
pytestmark = pytest.mark.slow
TAUS = np.array([0.0, 0.2])
KEYS = jax.random.split(jax.random.key(9), 5)


@pytest.fixture(autouse=True)
def _debug_nans():
    with jax.debug_nans(True):
        yield


@pytest.fixture(scope="module")
def problem():
    prompts = regression(KEYS[0], batch=2, examples=2)
    encoder = averaged(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.7)
    finite = wgf.Transformer(encoder, law.layered(2, 3, KEYS[1]))
    limits = [wgf.AveragedODE(encoder, law.spectral(2, 4, key)) for key in KEYS[2:4]]
    return wgf.Objective(prompts, 1e-2), finite, limits


def test_the_check_is_on():
    with pytest.raises(FloatingPointError, match="nan"):
        jax.jit(jnp.log)(-1.0)


def test_flows_and_their_gap(problem):
    objective, finite, limits = problem
    trained = wgf.flow(objective, finite, TAUS)
    pooled = wgf.flow_replicates(objective, limits, TAUS, tracers=[finite])
    for limit in (pooled, pooled.pooled, wgf.flow(objective, limits[0], TAUS)):
        gap = wgf.gap(trained, limit, unpaired=True)
        assert jnp.isfinite(gap.unpaired.excess).all()
        assert gap.distances is None or jnp.isfinite(gap.sinkhorn).all()
        assert gap.resolved is None or gap.resolved.output is not None
    assert jnp.isfinite(pooled.risk.error).all()


def test_runs(problem):
    objective, finite, _ = problem
    assert wgf.run(objective, finite, TAUS, progress=False).result == wgf.flows.RESULTS.successful


OPTIONS = {
    "steady": {"steady": 0.99},
    "stabilised": {"solver": wgf.flows.RKC()},
    "implicit": {"solver": wgf.flows.RosenbrockW()},
    "noise": {"temperature": 1e-3, "key": KEYS[4], "dt0": 0.1},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_flows_of_other_kinds(problem, name):
    objective, finite, _ = problem
    assert jnp.isfinite(wgf.flow(objective, finite, TAUS, **OPTIONS[name]).objective).all()


@pytest.mark.parametrize("temperature", [0.0, 0.1])
def test_flows_on_a_grid(temperature):
    law = wgf.measures.Gaussian(Matrix(1), 0.5)
    model = wgf.AveragedODE(Matrix(1), law.eulerian(2, (8,), -2.0, 2.0))
    solution = wgf.flow(scalar_problem(0.1), model, TAUS, temperature=temperature)
    assert jnp.isfinite(solution.model_at(-1).measure.entropy())


def test_training_and_gradients(problem):
    objective, finite, _ = problem
    assert jnp.isfinite(wgf.train(objective, finite, optax.adam(1e-3), steps=2, batch=1, key=KEYS[4]).objective).all()

    def last(scale):
        law = wgf.measures.Gaussian(finite.encoder, scale)
        model = wgf.Transformer(finite.encoder, law.layered(2, 3, KEYS[1]))
        return wgf.flow(objective, model, TAUS, max_steps=8).objective[-1]

    assert jnp.isfinite(jax.grad(last)(0.7))


def test_depth(problem):
    objective, _, (limit, _) = problem
    adaptive = wgf.AveragedODE(limit.encoder, limit.measure, controller=diffrax.PIDController(1e-3, 1e-5))
    for model in (limit, adaptive):
        assert jnp.isfinite(model.trajectory(objective.prompts.tokens, np.array([0.0, 0.3, 1.0]))).all()
        variation = objective.first_variation(model)
        assert jnp.isfinite(variation(jax.tree.map(lambda leaf: leaf[0, 0], model.measure.particles), 1.0))


def test_divergences():
    x, y = jax.random.normal(KEYS[0], (7, 3)), jax.random.normal(KEYS[1], (9, 3))
    massless = jnp.zeros(7).at[:2].set(0.5)
    for options in ({}, {"block": 4}, {"x_weights": massless}):
        found = wgf.transport.sinkhorn_divergence(x, y, epsilon=0.5, **options)
        assert found.converged
        assert wgf.transport.sinkhorn_divergence(x, y, epsilon=0.5, initial=found.potentials, **options).converged
    assert wgf.transport.sinkhorn_divergence(x, y + 30, epsilon=wgf.transport.epsilon_from_scale(x)).converged
    slope = jax.grad(lambda x: wgf.transport.sinkhorn_divergence(x, y, epsilon=0.5).value)(x)
    assert jnp.isfinite(slope).all()
    assert wgf.transport.divergence_curve(jnp.stack([x, x]), y, epsilon=0.5).converged.all()
    assert wgf.transport.conditional_divergence(x[None], y[None], jnp.ones(1), epsilon=0.5).converged


def test_analysis(problem):
    objective, finite, _ = problem
    found = wgf.analysis.certificate(objective, finite, key=KEYS[4], starts=2, max_steps=3)
    assert jnp.isfinite(found.value)


def companions():
    chain = wgf.prompts.MarkovChain.binary(0.3, 0.4)
    tokens, targets = jax.random.normal(KEYS[0], (2, 2, 3, 8))
    return {
        "canonical": (wgf.companions.CanonicalRisk(0.3, 0.4), wgf.companions.CanonicalMarkov(0.5, -0.3)),
        "transformer": (
            wgf.companions.NextTokenLoss.drawn(chain, KEYS[1], batch=2, length=4),
            wgf.companions.OneLayerTransformer.standard(KEYS[2], length=4),
        ),
        "residual": (
            wgf.companions.SquareLoss(tokens, targets),
            wgf.companions.ResidualTransformer(8, 16, depth=2, key=KEYS[3]),
        ),
    }


def test_the_border_of_the_basins():
    risk, _ = companions()["canonical"]
    np.testing.assert_array_equal(
        jnp.isinf(risk.separatrix(jnp.array([-1.5, -0.3, 0.0, 0.5]))), [False, True, True, True]
    )


@pytest.mark.parametrize("name", ["canonical", "transformer", "residual"])
def test_companions(name):
    objective, model = companions()[name]
    assert jnp.isfinite(wgf.flow(objective, model, TAUS).objective).all()
    assert jnp.isfinite(wgf.train(objective, model, optax.sgd(1e-3), steps=2).objective).all()
    if name == "residual":
        spectrum = eqx.filter_jit(wgf.companions.attention_spectrum)(objective, model)
        assert jnp.isfinite(spectrum.condition).all()
