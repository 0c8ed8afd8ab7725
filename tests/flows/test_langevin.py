"""Flows at positive temperature: the Gibbs law, closed forms in time, which particles share noise, bad options."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, scalar_mean, scalar_problem, scalar_variance
from scipy.stats import kstest, norm

import wgf

DECAY, SPREAD, SIGMA = 0.3, 0.5, 0.2
TAUS = np.array([0.0, 0.7, 2.0])
NOISE = {"temperature": SIGMA, "dt0": 0.05}
LAW = wgf.measures.Gaussian(Matrix(1), SPREAD)


def quiet(objective):
    """The same shapes with tokens that are zero: no particle has any effect, and δQ/δρ = λ/2 ‖θ‖² alone."""
    tokens, labels = jnp.zeros_like(objective.prompts.tokens), jnp.zeros_like(objective.prompts.labels)
    return wgf.Objective(wgf.prompts.Prompts(tokens, labels, label_row=0), 1.0)


@pytest.fixture(scope="module")
def objective():
    return scalar_problem(DECAY)


@pytest.fixture(scope="module")
def finite():
    return wgf.Transformer(Matrix(1), LAW.layered(4, 2000, jax.random.key(1)))


@pytest.fixture(scope="module")
def trained(objective, finite):
    return wgf.flow(objective, finite, TAUS, key=jax.random.key(5), **NOISE)


@pytest.fixture(scope="module")
def limit(objective, finite):
    model = wgf.AveragedODE(Matrix(1), LAW.spectral(2, 4000, jax.random.key(3)), steps=2).with_tracers(finite)
    return wgf.flow(objective, model, TAUS, key=jax.random.key(5), **NOISE)


@pytest.mark.heavy
def test_stationary_law_is_gibbs(objective, finite):
    """exp(−λθ²/2σ): variance σ/λ, within three standard errors, and normal by the Kolmogorov–Smirnov test."""
    solution = wgf.flow(quiet(objective), finite, [0.0, 5.0, 8.0], temperature=0.6, dt0=0.1, key=jax.random.key(9))
    theta = np.asarray(solution.models.measure.particles).reshape(3, 4, 2000)
    error = np.sqrt(2 / theta[0].size)
    for row in theta[1:]:
        assert row.var() / 0.6 == pytest.approx(1, abs=3 * error)
    assert kstest(theta[2].ravel(), norm(scale=np.sqrt(0.6)).cdf).pvalue > 0.01
    assert theta[0].var() < 0.5 * 0.6, "the case must move"
    correlations = np.corrcoef(theta[2])[np.triu_indices(4, 1)]
    assert np.max(np.abs(correlations)) < 4 / np.sqrt(2000), "layers must feel noise of their own"


@pytest.mark.heavy
def test_law_follows_the_closed_form(objective, limit):
    """The mean obeys its ODE and the variance is Ornstein–Uhlenbeck's, to sampling error."""
    theta = limit.models.measure.particles[:, 0, :, 0, 0]
    variance = scalar_variance(float(theta[0].var()), DECAY, SIGMA, TAUS)
    # The sample begins at a mean that is not quite 0, and the ODE is stable.
    error = 4 * np.sqrt(variance / theta.shape[1]) + abs(float(theta[0].mean()))
    assert np.all(np.abs(theta.mean(axis=1) - scalar_mean(objective, TAUS)) < error)
    np.testing.assert_allclose(theta.var(axis=1), variance, rtol=4 * np.sqrt(2 / theta.shape[1]))
    assert variance[-1] > 1.2 * variance[0], "the case must move"


@pytest.mark.heavy
def test_noise_is_shared_over_depth_in_the_limit(limit):
    """So the law between nodes is right: its variance is the nodes', not that of an average of two."""
    measure = limit.model_at(-1).measure
    between = measure.at(0.5)[0][:, 0, 0]
    np.testing.assert_allclose(measure.particles[0], measure.particles[1], atol=1e-5)
    assert between.var() == pytest.approx(float(measure.particles[0].var()), rel=1e-4)


@pytest.mark.heavy
def test_tracers_feel_the_noise_of_their_own_particles(objective, finite, trained, limit):
    """With one key they stay together but for the difference of the fields; with another they part."""

    def coupling(flow):
        difference = flow.models.measure.particles[-1] - limit.models.tracers[0].particles[-1]
        return float(jnp.sqrt(jnp.mean(difference**2)))

    other = wgf.flow(objective, finite, TAUS, key=jax.random.key(6), **NOISE)
    assert coupling(trained) < 0.1
    noise = np.sqrt(2 * scalar_variance(0.0, DECAY, SIGMA, TAUS)[-1])
    assert coupling(other) == pytest.approx(noise, rel=0.1)


@pytest.mark.heavy
def test_tracers_and_particles_of_the_limit_feel_different_noise(limit):
    """Else a comparison of their clouds would not be one of independent samples."""
    kick = [p[-1] - np.exp(-DECAY * TAUS[-1]) * p[0] for p in (_own(limit), _tracers(limit))]
    assert abs(np.corrcoef(kick[0], kick[1][: kick[0].size])[0, 1]) < 4 / np.sqrt(kick[0].size)


def _own(solution):
    return np.asarray(solution.models.measure.particles)[:, 0].reshape(3, -1)


def _tracers(solution):
    return np.asarray(solution.models.tracers[0].particles).reshape(3, -1)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [diffrax.Euler(), diffrax.ShARK(), diffrax.SEA()])
def test_solvers_of_stochastic_equations(objective, finite, solver):
    """Each converges to the same law; those with Lévy areas draw theirs from the same tree."""
    options = {"temperature": 0.6, "dt0": 0.02, "key": jax.random.key(9), "solver": solver}
    theta = wgf.flow(quiet(objective), finite, [0.0, 5.0], **options).models.measure.particles[-1]
    assert float(theta.var()) / 0.6 == pytest.approx(1, abs=0.06)


class Spring(eqx.Module):
    """½ ‖x‖², of any module with one array."""

    def __call__(self, model):
        return jnp.sum(model.x**2) / 2


class Point(eqx.Module):
    x: jax.Array


@pytest.mark.slow
def test_a_plain_module_is_langevin_dynamics():
    solution = wgf.flow(Spring(), Point(jnp.zeros(20000)), [0.0, 6.0], temperature=0.3, dt0=0.1, key=jax.random.key(2))
    assert float(solution.models.x[-1].var()) / 0.3 == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"key": None}, "`key` must be given with `temperature` > 0"),
        ({"dt0": None}, "`dt0`, the constant step, must be given with `temperature` > 0"),
        ({"solver": diffrax.Tsit5()}, "`solver` must solve stochastic differential equations"),
        ({"steady": 0.1}, "`steady` must be None at `temperature` > 0"),
        ({"temperature": -0.1}, "`temperature` must be finite and not negative"),
    ],
)
def test_bad_options(objective, finite, options, message):
    with pytest.raises(ValueError, match=message):
        wgf.flow(objective, finite, TAUS, **({"key": jax.random.key(0)} | NOISE | options))
