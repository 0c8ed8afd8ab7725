"""Replicates: their solves, and error bars held to the scalar case, whose truth is an integral over a scalar ODE."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, regression
from scipy.integrate import solve_ivp

import wgf
from wgf.analysis import flow_each, flow_replicates, pool

TAUS, DECAY, SCALE = np.array([0.0, 0.5, 1.0]), 0.05, 0.2
REPLICATES, WIDTH, SEEDS = 8, 8, 1000


def scalar_objective():
    """Scalar tokens: the query column alone is read, y = 1.7 H on three prompts."""
    h = jnp.array([0.5, 1.0, -0.8])
    tokens = jnp.stack([jnp.zeros(3), h], axis=1)[:, None]
    return wgf.Objective(wgf.prompts.Prompts(tokens, 1.7 * h, label_row=0), DECAY)


def scalar_models(key, count, width, nodes=2):
    law = wgf.measures.Gaussian(Matrix(1), SCALE)
    return [wgf.AveragedODE(Matrix(1), law.spectral(nodes, width, k), steps=1) for k in jax.random.split(key, count)]


class ScalarTruth:
    """Exact means over W̄(0) ~ N(0, s²/n), n particles in all, by Gauss–Hermite quadrature over SciPy's u(τ)."""

    def __init__(self, particles):
        nodes, weights = np.polynomial.hermite_e.hermegauss(12)
        self.weights = weights / weights.sum() if np.isfinite(particles) else np.ones(1)
        self.start = SCALE / np.sqrt(particles) * nodes if np.isfinite(particles) else np.zeros(1)
        self.h, self.y = np.array([0.5, 1.0, -0.8]), 1.7 * np.array([0.5, 1.0, -0.8])
        self.spread = SCALE**2 * (1 - 1 / particles)
        self.u = solve_ivp(self._field, (0, TAUS[-1]), self.start, "DOP853", TAUS, rtol=1e-11, atol=1e-12).y.T

    def _field(self, tau, u):
        growth = np.exp(u)[:, None] * self.h
        return -np.mean((growth - self.y) * growth, axis=1) - DECAY * u

    def outputs(self):
        return np.einsum("n,tn,b->tb", self.weights, np.exp(self.u), self.h)

    def objective(self):
        """Q = R + λ/2 (W̄² + e^(−2λτ) Var W)."""
        risk = 0.5 * np.mean((np.exp(self.u)[..., None] * self.h - self.y) ** 2, axis=-1)
        decayed = np.exp(-2 * DECAY * TAUS) * self.spread
        return (risk + DECAY / 2 * self.u**2) @ self.weights + DECAY / 2 * decayed

    def shift(self):
        """How far a particle has moved beside its own decay, X_τ(θ) − e^(−λτ) θ: the same for all, `[saves, n]`."""
        return self.u - np.exp(-DECAY * TAUS)[:, None] * self.start


@pytest.fixture(scope="module")
def seeds():
    """Error bars of many seeds: each its own replicates."""

    def one(key):
        replicates = flow_replicates(
            scalar_objective(), scalar_models(key, REPLICATES, WIDTH, nodes=1), TAUS, rtol=1e-5, throw=False
        )
        estimates = replicates.objective, replicates.outputs
        return [(e.value, e.standard_error, e.bias, e.interval()) for e in estimates], replicates.transport_error()

    return eqx.filter_jit(eqx.filter_vmap(one))(jax.random.split(jax.random.key(1), SEEDS))


KINDS = pytest.mark.parametrize(("index", "name"), [(0, "objective"), (1, "outputs")])


@pytest.mark.heavy
@KINDS
def test_the_interval_covers_the_truth_as_often_as_it_says(seeds, index, name):
    truth = getattr(ScalarTruth(np.inf), name)()
    low, high = seeds[0][index][3]
    low, high = np.asarray(low), np.asarray(high)
    coverage = np.mean((low < truth) & (truth < high), axis=0)
    bound = 3 * np.sqrt(0.95 * 0.05 / SEEDS)
    assert np.all(np.abs(coverage - 0.95) < bound), (coverage, bound)


@pytest.mark.heavy
@KINDS
def test_the_standard_error_is_the_spread_over_seeds(seeds, index, name):
    value, standard_error, *_ = seeds[0][index]
    ratio = np.mean(standard_error**2, axis=0) / np.var(value, axis=0, ddof=1)
    # Over n seeds a variance is known to √(2/n), and the second order of the width is beyond the estimate.
    assert np.all(np.abs(ratio - 1) < 3 * np.sqrt(2 / SEEDS) + 1 / WIDTH), ratio


@pytest.mark.heavy
@KINDS
def test_the_bias_is_that_of_the_closed_form(seeds, index, name):
    parts, whole, limit = (getattr(ScalarTruth(n), name)() for n in (WIDTH, WIDTH * REPLICATES, np.inf))
    bias = seeds[0][index][2]
    found, noise = np.mean(bias, axis=0), np.std(bias, axis=0) / np.sqrt(SEEDS)
    expected = (parts - whole) / (REPLICATES - 1)
    assert np.all(np.abs(found - expected) < 4 * noise + 1e-9), (found, expected, noise)
    assert np.all(noise < 0.05 * np.abs(expected)), "the test must be sharp"
    np.testing.assert_allclose(expected, whole - limit, rtol=0.1, err_msg="second order in 1/width")


@pytest.mark.heavy
def test_the_transport_error_is_that_of_the_closed_form(seeds):
    """A particle of the exact limit and of the pooled field decay alike and part by the difference of the shifts."""
    truth, exact = ScalarTruth(WIDTH * REPLICATES), ScalarTruth(np.inf)
    expected = (truth.shift() - exact.shift()) ** 2 @ truth.weights
    found = np.mean(seeds[1] ** 2, axis=0)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=0.15)
    assert found[0] == expected[0] == 0


@pytest.fixture(scope="module")
def three():
    """The flow of three replicates, at two nodes, and what it started from."""
    models = scalar_models(jax.random.key(3), 3, 4)
    return models, flow_replicates(scalar_objective(), models, TAUS, max_steps=64)


def test_members_and_pool_are_the_flows_of_their_models(three):
    (models, replicates), objective = three, scalar_objective()
    assert replicates.count == 3
    for r, model in enumerate(models):
        alone = wgf.flow(objective, model, TAUS, max_steps=64)
        assert int(replicates.members.stats["num_steps"][r]) == int(alone.stats["num_steps"])
        np.testing.assert_allclose(replicates.members.objective[r], alone.objective, rtol=bound(1e-10, 1e-5))
        np.testing.assert_allclose(replicates.outputs.members[r], alone.outputs, rtol=0, atol=bound(1e-10, 1e-5))
    stacked = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, 1), *(m.measure.particles for m in models))
    whole = wgf.AveragedODE(models[0].encoder, wgf.measures.Spectral(stacked), steps=1)
    whole = wgf.flow(objective, whole, TAUS, max_steps=64)
    np.testing.assert_allclose(replicates.objective.value, whole.objective, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(replicates.risk.value, whole.risk, rtol=bound(1e-12, 1e-5))


def test_halves_solved_apart_are_the_whole(three):
    (models, replicates), objective = three, scalar_objective()
    pooled = wgf.flow(objective, pool(models), TAUS, max_steps=64, throw=False)
    members = flow_each(objective, models, TAUS, max_steps=64)
    apart = wgf.analysis.Replicates(pooled, members).raise_if_failed()
    assert eqx.tree_equal(apart, replicates)
    for r, model in enumerate(models):
        alone = wgf.flow(objective, model, TAUS, max_steps=64, throw=False)
        for found, expected in zip(
            *(jax.tree.leaves(eqx.filter(s, eqx.is_array)) for s in (members, alone)), strict=True
        ):
            np.testing.assert_array_equal(found[r], expected)


def test_members_whose_values_are_not_at_hand_are_stacked_where_they_are(three, monkeypatch):
    """As those spread over many processes: by a program, to the same."""
    models, replicates = three
    monkeypatch.setattr("wgf.analysis._replicates.on_host", lambda array: array)
    members = flow_each(scalar_objective(), models, TAUS, max_steps=64)
    assert eqx.tree_equal(members, replicates.members)


def test_the_transport_error_is_the_spread_of_pooled_particles(three):
    """From the saved particles of all solves, one by one."""
    models, replicates = three
    pooled = wgf.measures.coordinates(replicates.pooled.model_at(-1).measure.particles)
    spread = 0.0
    for r in range(3):
        member = jax.tree.map(lambda leaf, r=r: leaf[r, -1], replicates.members.models.measure.particles)
        tracers = pooled[:, 4 * r : 4 * (r + 1)]
        squares = jnp.sum((wgf.measures.coordinates(member) - tracers) ** 2, axis=-1).mean(axis=1)
        spread += models[r].measure.depth_weights @ squares / 6
    np.testing.assert_allclose(replicates.transport_error()[-1], np.sqrt(spread), rtol=bound(1e-10, 1e-5))
    assert spread > 0


def test_pooling_keeps_the_weights_of_each():
    particles = jnp.arange(4.0).reshape(1, 2, 2)
    models = [
        wgf.AveragedODE(Matrix(1), wgf.measures.Spectral(particles[..., None] + shift, jnp.array([0.25, 0.75])))
        for shift in (0, 10)
    ]
    pooled = pool(models)
    np.testing.assert_allclose(pooled.measure.weights, [[0.125, 0.375, 0.125, 0.375]])
    np.testing.assert_array_equal(pooled.measure.particles[0, :, 0, 0], [0, 2, 10, 12])


def spoilt(models, index):
    """The models with one whose particles overflow."""
    large = models[index].with_particles(jnp.full_like(models[index].measure.particles, 1e3))
    return [*models[:index], large, *models[index + 1 :]]


def test_a_replicate_that_fails_is_named():
    models = spoilt(scalar_models(jax.random.key(3), 3, 4), 1)
    with pytest.raises(RuntimeError, match=r"Replicate 1 of 3 failed\. .*(finite|steps)"):
        flow_replicates(scalar_objective(), models, TAUS, max_steps=64)


@pytest.mark.heavy
def test_a_replicate_that_fails_under_jit_is_named():
    models = spoilt(scalar_models(jax.random.key(3), 3, 4), 2)
    with pytest.raises(RuntimeError, match="Replicate 2 of 3 failed; under `throw=False`"):
        eqx.filter_jit(lambda m: flow_replicates(scalar_objective(), m, TAUS, max_steps=64).risk.value)(models)


def test_without_throw_each_replicate_has_its_own_result():
    models = spoilt(scalar_models(jax.random.key(3), 3, 4), 1)
    replicates = flow_replicates(scalar_objective(), models, TAUS, max_steps=64, throw=False)
    failed = np.asarray(replicates.members.result != wgf.flows.RESULTS.successful)
    np.testing.assert_array_equal(failed, [False, True, False])
    np.testing.assert_array_equal(np.isfinite(replicates.members.risk[:, -1]), [True, False, True])


def test_what_are_no_replicates_is_refused():
    objective, models = scalar_objective(), scalar_models(jax.random.key(4), 2, 4)
    with pytest.raises(ValueError, match=r"`models` must hold at least two replicates.*; got 1"):
        flow_replicates(objective, models[:1], TAUS)
    with pytest.raises(ValueError, match="`models` must differ only in the values of their arrays"):
        pool([models[0], scalar_models(jax.random.key(4), 1, 6)[0]])
    finite = wgf.Transformer(Matrix(1), wgf.measures.Gaussian(Matrix(1), 0.3).layered(2, 3, jax.random.key(5)))
    with pytest.raises(ValueError, match="`models` must carry no tracers of their own"):
        flow_replicates(objective, [model.with_tracers(finite) for model in models], TAUS)


@pytest.mark.slow
def test_error_bars_cover_where_no_closed_form_is_known():
    """Attention and perceptron: against all particles of all seeds pooled, whose own error is a tenth."""
    prompts, seeds, count = regression(jax.random.key(6), batch=4, examples=3), 100, 4
    objective, encoder = wgf.Objective(prompts, 1e-2), averaged(prompts.token_dim)
    law = wgf.measures.Gaussian(encoder, 0.7)

    def limits(keys):
        return [wgf.AveragedODE(encoder, law.spectral(2, 8, key), steps=2) for key in keys]

    def one(keys):
        replicates = flow_replicates(objective, limits(keys), TAUS, throw=False)
        return replicates.outputs.value, replicates.outputs.standard_error, replicates.outputs.interval()

    keys = jax.random.split(jax.random.key(8), (seeds, count))
    values, standard_errors, (low, high) = eqx.filter_jit(eqx.filter_vmap(one))(keys)
    truth = np.asarray(wgf.flow(objective, pool(limits(keys.reshape(-1))), TAUS).outputs)
    low, high = np.asarray(low), np.asarray(high)
    coverage = np.mean((low < truth) & (truth < high), axis=0)
    assert np.all(np.abs(coverage.mean(axis=1) - 0.95) < 0.03), coverage
    ratio = np.mean(standard_errors**2) / np.var(values, axis=0).mean()
    assert abs(ratio - 1) < 0.25, ratio


def test_replicates_print_in_one_line_and_as_a_table(three):
    replicates = three[1]
    text, html = str(replicates), replicates._repr_html_()
    assert text.startswith("Replicates: 3 replicates, 3 τ from 0 to 1, risk ")
    assert text.endswith(", successful, members successful")
    estimate = replicates.objective
    assert f"<td>{estimate.value[1]:.4g} ± {estimate.standard_error[1]:.2g}</td>" in html
    assert "one standard error" in html
    for other in (eqx.filter_eval_shape(lambda r: r, replicates), jax.tree.map(lambda _: object(), replicates)):
        assert repr(other).startswith("Replicates: ")
        assert other._repr_html_().startswith("<pre>Replicates: ")
