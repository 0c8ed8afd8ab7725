"""The Euclidean geometry: any module of arrays, complex numbers as pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.flows._geometry.euclidean import Euclidean

GEOMETRY = Euclidean()


@pytest.fixture
def model():
    """A real and a complex array, and leaves that do not move."""
    return {"x": jnp.array([1.0, -2.0]), "z": jnp.array([[3 - 1j], [0.5j]]), "count": jnp.arange(3), "name": "own"}


def well(model):
    """½|x|² + |z − i|²."""
    return jnp.sum(model["x"] ** 2) / 2 + jnp.sum(jnp.abs(model["z"] - 1j) ** 2)


def test_inexact_arrays_move_and_all_else_stays(model):
    parameters = GEOMETRY.parameters(model)
    assert jax.tree.structure(parameters) == jax.tree.structure({"x": 0, "z": 0, "count": None, "name": None})
    placed = GEOMETRY.place(model, jax.tree.map(lambda leaf: 2 * leaf, parameters))
    np.testing.assert_array_equal(placed["z"], 2 * model["z"])
    assert placed["name"] == "own"
    np.testing.assert_array_equal(placed["count"], model["count"])


def test_complex_numbers_are_packed_as_pairs_and_found_again(model):
    parameters = GEOMETRY.parameters(model)
    packed = GEOMETRY.pack(parameters)
    assert [leaf.shape for leaf in packed] == [(2,), (2, 1, 2)]
    assert not any(jnp.iscomplexobj(leaf) for leaf in packed)
    np.testing.assert_array_equal(packed[1][0, 0], [3, -1])
    again = GEOMETRY.unpack(packed, parameters)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, parameters))


def test_the_velocity_is_the_steepest_descent_and_its_square_the_dissipation(model):
    found = GEOMETRY.evaluate(well, model)
    velocity = GEOMETRY.unpack(found.velocity, GEOMETRY.parameters(model))
    np.testing.assert_allclose(velocity["x"], -model["x"], rtol=bound(1e-14, 1e-6))
    np.testing.assert_allclose(velocity["z"], -2 * (model["z"] - 1j), rtol=bound(1e-14, 1e-6))
    squares = sum(np.sum(np.abs(np.asarray(leaf)) ** 2) for leaf in jax.tree.leaves(velocity))
    np.testing.assert_allclose(found.dissipation, squares, rtol=bound(1e-14, 1e-6))
    assert found.courant == 0


def test_the_norm_is_that_of_the_worst_parameter(model):
    assert GEOMETRY.norm(model)(GEOMETRY.pack(GEOMETRY.parameters(model))) == 3


def test_every_parameter_has_noise_of_its_own(model):
    noise = GEOMETRY.noise(model)
    assert [leaf.shape for leaf in jax.tree.leaves(noise)] == [(2,), (2, 1)]
