"""The curves along the saves of a run, one model at a time."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from helpers import Matrix, bound, regression

import wgf
from wgf.flows._curves import curves, repeat_model
from wgf.flows._geometry import Euclidean, Lagrangian


class Point(eqx.Module):
    x: jax.Array
    name: str


def test_curves_of_a_plain_module_are_its_values_at_each_save():
    points = Point(jnp.array([[1.0, 2.0], [0.0, 0.0], [3.0, -1.0]]), "own")
    found = curves(Euclidean(), lambda point: jnp.sum(point.x**2) / 2, points)
    np.testing.assert_allclose(found.objective, [2.5, 0, 5], rtol=bound(1e-14, 1e-6))
    np.testing.assert_array_equal(found.risk, found.objective)
    np.testing.assert_allclose(found.dissipation, [5, 0, 10], rtol=bound(1e-14, 1e-6))
    assert found.outputs.shape == (3, 0)


def test_curves_of_an_objective_have_its_risk_and_outputs(key):
    objective = wgf.Objective(regression(key, batch=3), 0.1)
    encoder = Matrix(objective.prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.5).layered(2, 3, key))
    models = repeat_model(model, 2)
    models = models.with_particles(models.measure.particles.at[1].multiply(0.5))
    found = curves(Lagrangian(), objective, models)
    for save, scale in enumerate((1.0, 0.5)):
        single = model.with_particles(scale * model.measure.particles)
        np.testing.assert_allclose(found.objective[save], objective(single), rtol=bound(1e-12, 1e-5))
        np.testing.assert_allclose(found.risk[save], objective.risk(single), rtol=bound(1e-12, 1e-5))
        np.testing.assert_allclose(
            found.outputs[save], objective.outputs(single), rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6)
        )


def test_a_repeated_model_has_a_leading_axis_in_its_arrays_alone():
    repeated = repeat_model(Point(jnp.array([1.0, 2.0]), "own"), 4)
    np.testing.assert_array_equal(repeated.x, [[1, 2]] * 4)
    assert repeated.name == "own"
