"""Complex parameters of a plain module: a pair of real ones each, which move down."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, bound, regression

import wgf

TAUS = np.array([0.0, 0.3, 1.0])
AIM = jnp.array([1 + 2j, -1j])
TIGHT = {"rtol": bound(1e-9, 1e-6), "atol": bound(1e-11, 1e-8)}


class Well(eqx.Module):
    """|z − c|² + (r − 1)²: the flow is c + (z₀ − c) e^(−2τ)."""

    def __call__(self, model):
        return jnp.sum(jnp.abs(model["z"] - AIM) ** 2) + (model["r"] - 1) ** 2


WELL = Well()


@pytest.fixture(scope="module")
def start():
    return {"z": jnp.array([3 - 1j, 0.5 + 0.5j]), "r": jnp.array(2.0)}


@pytest.fixture(scope="module")
def solved(start):
    return wgf.flow(WELL, start, TAUS, **TIGHT)


def exact(start):
    fall = np.exp(-2 * TAUS)
    return np.asarray(AIM) + np.asarray(start["z"] - AIM) * fall[:, None], 1 + fall


def test_the_velocity_is_the_steepest_descent(start):
    found = wgf.velocity(WELL, start)
    np.testing.assert_allclose(found["z"], -2 * (start["z"] - AIM), rtol=bound(1e-14, 1e-6))
    np.testing.assert_allclose(found["r"], -2, rtol=bound(1e-14, 1e-6))


def test_the_flow_is_the_exact_one(start, solved):
    z, r = exact(start)
    np.testing.assert_allclose(solved.models["z"], z, atol=bound(1e-8, 1e-5))
    np.testing.assert_allclose(solved.models["r"], r, atol=bound(1e-8, 1e-5))
    assert solved.taus.dtype == solved.objective.dtype == solved.dissipation.dtype == start["r"].dtype


def test_the_objective_falls_by_what_is_dissipated(start, solved):
    z, r = exact(start)
    rate = 4 * (np.sum(np.abs(z - np.asarray(AIM)) ** 2, axis=1) + (r - 1) ** 2)
    np.testing.assert_allclose(solved.dissipation, rate, rtol=bound(1e-6, 1e-5))
    np.testing.assert_allclose(solved.dissipated, solved.objective[0] - solved.objective, atol=bound(1e-8, 1e-5))


def test_the_chebyshev_method_takes_them_too(start, solved):
    found = wgf.flow(WELL, start, TAUS, solver=wgf.flows.RKC(), rtol=bound(1e-7, 1e-6), atol=bound(1e-9, 1e-8))
    np.testing.assert_allclose(found.models["z"], solved.models["z"], atol=bound(1e-5, 1e-4))


def test_a_run_stops_and_goes_on(start, solved, tmp_path):
    options = {"directory": tmp_path / "run", "segment_steps": 4, **TIGHT}
    wgf.run(WELL, start, TAUS, max_steps=4, throw=False, **options)
    again = wgf.run(WELL, start, TAUS, **options)
    np.testing.assert_array_equal(again.models["z"], solved.models["z"])


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.sgd(0.1),
        optax.polyak_sgd(),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(20)),
        optax.lbfgs(),
    ],
    ids=["sgd", "polyak", "backtracking", "lbfgs"],
)
def test_optimisers_descend(optimiser, start):
    trained = wgf.train(WELL, start, optimiser, steps=30, save_every=10)
    assert trained.objective[-1] < 1e-4 * trained.objective[0], trained.objective
    np.testing.assert_allclose(trained.models["z"][-1], AIM, atol=2e-2)


def test_descent_by_sgd_is_exact(start):
    """Each step of length 0.1 shrinks z − c by 0.8."""
    trained = wgf.train(WELL, start, optax.sgd(0.1), steps=5)
    np.testing.assert_allclose(trained.models["z"][-1] - AIM, 0.8**5 * (start["z"] - AIM), rtol=bound(1e-12, 1e-6))


@pytest.mark.heavy
def test_noise_moves_both_parts_alike(key):
    """The Gibbs law exp(−|z − c|² / σ) has variance σ/2 in either part, as that of a real parameter."""
    many = 4000
    start = {"z": jnp.full(many, AIM[0]), "r": jnp.ones(many)}

    def wells(model):
        return jnp.sum(jnp.abs(model["z"] - AIM[0]) ** 2) + jnp.sum((model["r"] - 1) ** 2)

    found = wgf.flow(wells, start, [0.0, 4.0], temperature=0.5, key=key, dt0=0.05)
    z = found.models["z"][-1]
    for part in (z.real, z.imag, found.models["r"][-1]):
        assert jnp.var(part) == pytest.approx(0.25, rel=4 * (2 / many) ** 0.5), jnp.var(part)
    assert abs(jnp.corrcoef(z.real, z.imag)[0, 1]) < 4 / many**0.5


@pytest.mark.parametrize("do", ["velocity", "flow", "run", "train"])
def test_complex_particles_of_a_measure_are_refused(do, key):
    objective = wgf.Objective(regression(key), 1e-2)
    encoder = Matrix(objective.prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Layered(encoder.sample(key, (2, 3))))
    model = model.with_particles(model.measure.particles.astype(complex))
    rest = {"velocity": (), "flow": (TAUS,), "run": (TAUS,), "train": (optax.sgd(0.1),)}[do]
    options = {"steps": 1} if do == "train" else {}
    with pytest.raises(ValueError, match="`particles` must be of type float32 or float64; got complex"):
        getattr(wgf, do)(objective, model, *rest, **options)
