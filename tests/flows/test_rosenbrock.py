"""The Rosenbrock–W method with the Gauss–Newton Jacobian: tableau, factors, order, stiff flows, what it refuses."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound, float64_only, regression, relative
from jax.flatten_util import ravel_pytree

import wgf
from wgf.flows import RKC, RosenbrockW, _rosenbrock as ros
from wgf.flows._geometry.lagrangian import Lagrangian
from wgf.flows._state import start


@pytest.fixture
def small(key):
    """Six prompts, a Transformer of two layers of four particles, a little weight decay."""
    prompts = regression(key, batch=6)
    encoder = averaged(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 4, key))
    return wgf.Objective(prompts, 1e-2), model


@pytest.mark.parametrize(("weights", "order"), [(ros.SOLUTION, 3), (ros.EMBEDDED, 2)])
def test_the_tableau_meets_the_conditions_of_w_methods(weights, order):
    """E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, section IV.7: orders 1, 2, then 3."""
    a, g = ros.STAGES, ros.CORRECTIONS + ros.GAMMA * np.eye(4)
    one = np.ones(4)
    conditions = [(one, 1)], [(a @ one, 1 / 2), (g @ one, 0)]
    third = [((a @ one) ** 2, 1 / 3), (a @ a @ one, 1 / 6), (a @ g @ one, 0), (g @ a @ one, 0), (g @ g @ one, 0)]
    for vector, value in [c for group in (*conditions, third)[:order] for c in group]:
        assert weights @ vector == pytest.approx(value, abs=bound(1e-14, 1e-6))
    # Stiffly accurate: at −∞ the step ends on the slow manifold.
    np.testing.assert_allclose(a[3] + g[3], ros.SOLUTION, atol=bound(1e-15, 1e-6))


@pytest.mark.heavy
def test_the_factors_invert_the_dense_matrix(small):
    """Against NumPy's solve with the Jacobian of all outputs by forward mode, for masses and weights that differ."""
    objective, model = small
    prompts = wgf.prompts.Prompts(
        objective.prompts.tokens,
        objective.prompts.labels,
        weights=jnp.arange(1.0, 7.0) / 21,
        label_row=objective.prompts.label_row,
    )
    objective = wgf.Objective(prompts, 0.3)
    weights = jnp.array([0.1, 0.2, 0.3, 0.4])
    model = wgf.Transformer(model.encoder, wgf.measures.Layered(model.measure.particles, weights=weights))
    state = start(Lagrangian(), model)
    packed = wgf.measures.coordinates(model.measure.particles)
    flat = packed.ravel()

    def unravel(vector):
        return wgf.measures.at_coordinates(vector.reshape(packed.shape), model.measure.particles)

    jacobian = jax.jacfwd(lambda x: objective.outputs(model.with_particles(unravel(x))))(flat)
    spread = [np.broadcast_to((weights / 2).reshape(1, 4, *(1,) * (x.ndim - 2)), x.shape) for x in state.parameters]
    masses = np.concatenate([leaf.ravel() for leaf in spread])
    matrix = 0.3 * np.eye(flat.size) + (jacobian.T * prompts.weights[None] @ jacobian) / masses[:, None]
    right = np.cos(np.arange(flat.size))
    args = (Lagrangian(), objective, model)
    put = start(Lagrangian(), model.with_particles(unravel(jnp.asarray(right))))
    solve = jax.jit(lambda step, right: ros._factorise(step, state, args)(right))
    solved = ravel_pytree(solve(jnp.asarray(5.0), put).parameters)[0]
    np.testing.assert_allclose(
        solved, np.linalg.solve(np.eye(flat.size) + 5 * matrix, right), rtol=bound(1e-9, 1e-4), atol=bound(1e-12, 1e-5)
    )


@pytest.fixture
def refined(small):
    """Numbers of constant steps, and the errors of the particles at each save; the last save ends a step."""
    objective, model = small
    taus = jnp.asarray([0.0, 4 / 3, 8 / 3, 4.0])  # thirds of a step, for steps of 1/2, 1/4, 1/8, 1/16
    truth = wgf.flow(objective, model, taus, rtol=bound(1e-11, 1e-6), atol=bound(1e-12, 1e-8))
    options = {"solver": RosenbrockW(), "controller": diffrax.ConstantStepSize()}
    counts = np.array([8, 16, 32, 64])
    solutions = [wgf.flow(objective, model, taus, dt0=jnp.asarray(4 / n), **options) for n in counts]
    errors = [
        [relative(s.model_at(i).measure.particles, truth.model_at(i).measure.particles) for i in range(1, 4)]
        for s in solutions
    ]
    return counts, np.array(errors)


@pytest.mark.heavy
def test_short_steps_are_accurate(refined):
    _, errors = refined
    assert errors[-1].max() < bound(1e-6, 5e-6), errors[-1]


@pytest.mark.heavy
@float64_only
def test_order_three_though_its_jacobian_is_not_the_fields(refined):
    """Of order 3 at the ends of steps; between them, where it interpolates by parabolas, of order 3 as well."""
    counts, errors = refined
    slopes = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert 2.8 < slopes[-1] < 3.3, f"slope {slopes[-1]}, errors {dict(zip(counts, errors[:, -1], strict=True))}"
    between = -np.polyfit(np.log(counts), np.log(errors[:, :2].max(axis=1)), 1)[0]
    assert 2.7 < between < 3.4, f"slope {between}, errors {dict(zip(counts, errors[:, :2].max(axis=1), strict=True))}"


@pytest.mark.slow
@pytest.mark.parametrize("decay", [1e-2, 1e-3, 1e-4])
def test_stiff_flows_agree_with_rkc_and_take_as_many_steps_at_any_decay(small, decay):
    """What the method is for: to rest, τ = 10/λ, in steps whose number does not grow with 1/λ."""
    objective = wgf.Objective(small[0].prompts, decay)
    rtol, atol, taus = jnp.asarray(1e-4), jnp.asarray(1e-6), jnp.asarray([0.0, 1 / decay, 10 / decay])
    w, rkc = (
        wgf.flow(objective, small[1], taus, solver=solver, rtol=rtol, atol=atol, max_steps=16384)
        for solver in (RosenbrockW(), RKC())
    )
    np.testing.assert_allclose(w.objective, rkc.objective, rtol=2e-3)
    assert int(w.stats["num_steps"]) < 600, w.stats


@pytest.mark.slow
def test_a_flow_of_the_limit_agrees_with_tsit5(small, key):
    objective, model = small
    model = wgf.AveragedODE(model.encoder, wgf.measures.Gaussian(model.encoder, 0.7).spectral(2, 4, key), steps=2)
    solvers = RosenbrockW(), diffrax.Tsit5()
    a, b = (wgf.flow(objective, model, [0.0, 5.0, 20.0], solver=s, rtol=1e-6, atol=1e-8) for s in solvers)
    assert relative(a.models.measure.particles, b.models.measure.particles) < 1e-4
    np.testing.assert_allclose(a.objective[0] - a.objective[-1], a.dissipated[-1], rtol=1e-4)


@pytest.mark.slow
def test_a_run_is_the_flow_bit_for_bit(small):
    objective, model = small
    solver, taus = RosenbrockW(), [0.0, 30.0, 100.0]
    a = wgf.flow(objective, model, taus, solver=solver, rtol=1e-3, atol=1e-5)
    b = wgf.run(objective, model, taus, solver=solver, rtol=1e-3, atol=1e-5, segment_steps=5, progress=False)
    np.testing.assert_array_equal(a.objective, b.objective)
    assert int(a.stats["num_steps"]) == int(b.stats["num_steps"])


def test_what_it_refuses(small, key):
    objective, model = small

    def flow(objective, model):
        return wgf.flow(objective, model, [0.0, 1.0], solver=RosenbrockW())

    with pytest.raises(ValueError, match=r"RosenbrockW needs a wgf.Objective and a model of particles"):
        flow(lambda m: jnp.sum(m.measure.particles.f.value**2), model)
    with pytest.raises(ValueError, match=r"RosenbrockW does not move tracers"):
        flow(objective, model.with_tracers(model))
    prompts = objective.prompts
    labels = jnp.stack([prompts.labels, prompts.labels], axis=1)
    several = wgf.Objective(
        wgf.prompts.Prompts(prompts.tokens, labels, label_row=prompts.label_row),
        readout=wgf.objective.QueryRows(0, 2),
    )
    with pytest.raises(ValueError, match=r"RosenbrockW needs one output per prompt; got outputs of shape \(6, 2\)"):
        flow(several, model)
