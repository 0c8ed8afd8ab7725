"""`train`: steps of an optimiser against the flow."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import bound, model_of, relative

import wgf

TAUS = np.linspace(0, 8, 9)


def test_train_by_sgd_is_euler_of_the_flow(problem, key):
    objective, model = problem[0], model_of(problem, "finite", key)
    euler = wgf.flow(
        objective, model, [0.0, 1.0], solver=diffrax.Euler(), controller=diffrax.ConstantStepSize(), dt0=0.125
    )
    stepped = wgf.train(objective, model, optax.sgd(0.125), steps=8, save_every=4)
    assert relative(stepped.model_at(-1).measure.particles, euler.model_at(-1).measure.particles) < bound(1e-12, 1e-5)
    np.testing.assert_array_equal(stepped.steps, [0, 4, 8])
    np.testing.assert_allclose(stepped.objective[jnp.array([0, -1])], euler.objective, rtol=bound(1e-12, 1e-5))


@pytest.mark.heavy
def test_descent_converges_to_the_flow_at_first_order(problem, key):
    objective, model = problem[0], model_of(problem, "finite", key)
    exact = wgf.flow(objective, model, TAUS[:3], rtol=bound(1e-10, 1e-6), atol=bound(1e-12, 1e-8)).objective[-1]
    counts = np.array([8, 16, 32, 64])
    errors = [
        abs(wgf.train(objective, model, optax.sgd(2 / int(n)), steps=int(n)).objective[-1] - exact) for n in counts
    ]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope + 1) < 0.1, f"slope {slope}, errors {errors}"


def test_train_with_minibatches_lowers_the_risk(problem, key):
    model = model_of(problem, "finite", key)

    def run(k):
        return wgf.train(problem[0], model, optax.adam(1e-2), steps=60, batch=3, key=k)

    first, again, other = run(key), run(key), run(jax.random.key(5))
    assert first.objective[-1] < 0.7 * first.objective[0]
    np.testing.assert_array_equal(first.objective, again.objective)
    assert first.objective[-1] != other.objective[-1]


def test_train_errors(problem, key):
    model = model_of(problem, "finite", key)
    for options, message in (
        ({"steps": 0}, "`steps` must be a whole number"),
        ({"steps": 4, "save_every": 3}, "`save_every` must divide"),
        ({"steps": 4, "batch": 2}, "`key` must be given"),
    ):
        with pytest.raises(ValueError, match=message):
            wgf.train(problem[0], model, optax.sgd(0.1), **options)
    with pytest.raises(eqx.EquinoxRuntimeError, match="stopped being finite"):
        wgf.train(problem[0], model, optax.sgd(1e5), steps=20)
