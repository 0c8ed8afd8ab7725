"""What all measures share: masses, moments, coordinates, and the checks of particles and weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, bound

import wgf
from wgf.encoders import Perceptron
from wgf.measures import Layered, Spectral, coordinates


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_masses_sum_to_one(kind, key):
    weights = jax.random.dirichlet(key, jnp.ones(5), (4,))
    np.testing.assert_allclose(jnp.sum(kind(jnp.zeros((4, 5)), weights).masses), 1, atol=1e-14)


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_weights_are_uniform_by_default_and_shared_weights_hold_at_every_depth(kind):
    np.testing.assert_allclose(kind(jnp.zeros((3, 4))).weights, 0.25, rtol=1e-15)
    shared = kind(jnp.zeros((3, 2)), jnp.array([0.25, 0.75])).weights
    np.testing.assert_array_equal(shared, [[0.25, 0.75]] * 3)


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_the_second_moment_is_that_of_numpy(kind, key):
    particles = {"a": jax.random.normal(key, (3, 4, 2, 2)), "b": jax.random.normal(key, (3, 4))}
    measure = kind(particles, jax.random.dirichlet(key, jnp.ones(4), (3,)))
    norms = np.sum(np.asarray(particles["a"]) ** 2, axis=(2, 3)) + np.asarray(particles["b"]) ** 2
    expected = np.sum(np.asarray(measure.depth_weights)[:, None] * np.asarray(measure.weights) * norms)
    np.testing.assert_allclose(measure.second_moment(), expected, rtol=bound(1e-13, 2e-6))


def test_a_tracer_has_no_second_moment():
    measure = Layered(jnp.array([[1.0, 1e6]]), jnp.array([1.0, 0.0]))
    assert float(measure.second_moment()) == 1.0


def test_width_counts_the_particles_of_a_depth():
    assert (Layered(jnp.zeros((3, 7))).width, Spectral(jnp.zeros((2, 5))).width) == (7, 5)


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_with_particles_replaces_them_and_keeps_the_rest(kind):
    weights = jnp.array([[0.5, 0.5], [0.2, 0.8]])
    moved = kind(jnp.zeros((2, 2)), weights).with_particles(jnp.ones((2, 2)))
    np.testing.assert_array_equal(moved.particles, np.ones((2, 2)))
    np.testing.assert_array_equal(moved.weights, weights)


def test_coordinates_are_the_leaves_one_after_the_other():
    particles = {"a": jnp.arange(12.0).reshape(1, 3, 2, 2), "b": jnp.arange(100.0, 103.0).reshape(1, 3)}
    expected = [[0, 1, 2, 3, 100], [4, 5, 6, 7, 101], [8, 9, 10, 11, 102]]
    np.testing.assert_array_equal(coordinates(particles)[0], expected)


def test_coordinates_of_one_depth_are_refused(key):
    encoder = wgf.encoders.SoftmaxAttention(5, key_dim=2)
    with pytest.raises(
        ValueError, match=r"`particles` must hold arrays of one depth and width.*Give particles of one dep"
    ):
        coordinates(encoder.sample(key, (4,)))


def test_coordinates_leave_an_empty_half_out(key):
    encoder = wgf.encoders.Average(wgf.encoders.Zero(), Perceptron(3, jnp.tanh))
    assert coordinates(encoder.sample(key, (2, 4))).shape == (2, 4, 7)


@pytest.mark.parametrize("kind", [Layered, Spectral])
@pytest.mark.parametrize("shapes", [[(3,)], [(3, 0)], [(0, 3)], [(2, 3), (2, 4)], [(2, 3, 1), (1, 3)]])
def test_particles_without_common_leading_axes_are_refused(kind, shapes):
    name = {Layered: "depth", Spectral: "nodes"}[kind]
    with pytest.raises(ValueError, match=rf"`particles` must be arrays that share leading axes \[{name}, width\]"):
        kind([jnp.zeros(shape) for shape in shapes])


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_no_particles_at_all_are_refused(kind):
    with pytest.raises(ValueError, match="`particles` must be arrays that share leading axes"):
        kind(())


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_particles_that_are_not_finite_are_refused(kind):
    with pytest.raises(ValueError, match="`particles` must be finite; got 1 entries"):
        kind(jnp.zeros((2, 2)).at[0, 1].set(jnp.nan))


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_particles_that_stop_being_finite_under_jit_raise_in_the_run(kind):
    with pytest.raises(RuntimeError, match="`particles` must be finite"):
        jax.jit(lambda factor: kind(factor * jnp.ones((2, 2))).particles)(jnp.inf)


@pytest.mark.parametrize("kind", [Layered, Spectral])
@pytest.mark.parametrize("shape", [(3,), (1, 2), (2, 2, 1), ()])
def test_weights_of_another_shape_are_refused(kind, shape):
    with pytest.raises(
        ValueError, match=r"`weights` must have shape \[width\] = \(2,\) or \[depth, width\] = \(4, 2\)"
    ):
        kind(jnp.zeros((4, 2)), jnp.full(shape, 0.5))


@pytest.mark.parametrize("kind", [Layered, Spectral])
@pytest.mark.parametrize("weights", [[1.5, -0.5], [0.5, 0.6], [0.0, 0.0]])
def test_weights_that_are_no_probabilities_are_refused(kind, weights):
    with pytest.raises(ValueError, match="`weights` must be non-negative with sum 1 at each depth"):
        kind(jnp.zeros((4, 2)), jnp.array(weights))


@pytest.mark.parametrize("kind", [Layered, Spectral])
def test_weights_of_a_single_bad_depth_are_refused(kind):
    with pytest.raises(
        ValueError, match=r"`weights` must be non-negative with sum 1 at each depth .*; got least weight 0.25"
    ):
        kind(jnp.zeros((2, 2)), jnp.array([[0.5, 0.5], [0.25, 0.5]]))


def test_weights_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="`weights` must be finite"):
        Layered(jnp.zeros((4, 2)), jnp.array([jnp.nan, 1.0]))


def test_weights_that_stop_being_probabilities_under_jit_raise_in_the_run():
    weigh = jax.jit(lambda first: Layered(jnp.zeros((4, 2)), jnp.stack([first, 0.5])).weights)
    with pytest.raises(RuntimeError, match="`weights` must be non-negative with sum 1 at each depth"):
        weigh(jnp.array(0.75))


def test_particles_are_found_again_at_their_coordinates(key):
    encoder = averaged(3)
    particles = wgf.measures.Gaussian(encoder, 1.0).layered(2, 5, key).particles
    again = wgf.measures.at_coordinates(coordinates(particles), particles)
    assert jax.tree.structure(again) == jax.tree.structure(particles)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, particles))
