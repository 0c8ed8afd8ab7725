"""The measure on a grid: its geometry, the masses of the initial law, interpolation, entropy, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import FLOATS, Matrix, bound
from scipy.stats import norm, truncnorm

import wgf
from wgf.measures import Eulerian, Gaussian, coordinates


def law(dim, scale=0.7):
    """A Gaussian law of an encoder with `dim` coordinates, 1 or 3."""
    return Gaussian(Matrix(1) if dim == 1 else wgf.encoders.Perceptron(1), scale)


@pytest.mark.parametrize("dtype", FLOATS)
def test_centres_are_those_of_a_tensor_grid(dtype):
    """Coordinates come in the order of `coordinates`, the last runs fastest; every depth has the same."""
    lower, upper = (
        wgf.encoders._perceptron.Neuron(*(jnp.asarray(v, dtype) for v in ([a], [b], c)))
        for a, b, c in ((-1, 0, 2), (1, 4, 8))
    )
    measure = Eulerian(lower, upper, jnp.full((3, 2, 4, 3), 1 / 24, dtype))
    expected = np.stack(np.meshgrid([-0.5, 0.5], [0.5, 1.5, 2.5, 3.5], [3, 5, 7], indexing="ij"), -1).reshape(-1, 3)
    assert coordinates(measure.particles).dtype == measure.weights.dtype == measure.spacing.dtype == dtype
    np.testing.assert_allclose(coordinates(measure.particles), np.broadcast_to(expected, (3, 24, 3)), rtol=1e-6)
    np.testing.assert_allclose(measure.spacing, [1, 1, 2])
    assert jax.tree.structure(measure.particles) == jax.tree.structure(lower)


def test_masses_are_differences_of_the_distribution_function():
    measure = law(1).eulerian(2, (40,), -3.0, 6.0)
    edges = np.linspace(-3, 6, 41) / 0.7
    # By the survival function to the right of 0, where the distribution function would cancel.
    exact = np.where(edges[:-1] > 0, -np.diff(norm.sf(edges)), np.diff(norm.cdf(edges)))
    np.testing.assert_allclose(measure.weights[1], exact / exact.sum(), rtol=bound(1e-9, 1e-5))
    assert exact[-1] < 1e-15, "the case must reach the far tail"


def test_masses_in_three_dimensions_are_products():
    grid = law(3).eulerian(1, (5, 6, 7), -2.0, jnp.array([1.0, 2.0, 3.0]))
    marginals = [law(1).eulerian(1, (n,), -2.0, top).weights[0] for n, top in ((5, 1.0), (6, 2.0), (7, 3.0))]
    np.testing.assert_allclose(grid.weights.reshape(5, 6, 7), np.einsum("i,j,k->ijk", *marginals), rtol=1e-12)
    assert grid.cells == (5, 6, 7)


def test_moment_and_entropy_converge_at_second_order():
    """Mass in a cell sits at its centre: the second moment errs by Δθ²/12."""
    cells = (16, 32, 64, 128)
    values = jax.jit(lambda m: jnp.stack([m.second_moment(), m.entropy()]))
    exact = np.array([truncnorm(-8, 8, scale=0.5).var(), norm(scale=0.5).entropy()])
    errors = np.abs([values(law(1, 0.5).eulerian(2, (n,), -4.0, 4.0)) - exact for n in cells])
    slopes = np.polyfit(np.log(cells), np.log(errors), 1)[0]
    np.testing.assert_allclose(slopes, -2, atol=0.05, err_msg=str(errors))
    assert errors[0, 0] == pytest.approx(0.5**2 / 12, rel=0.01)


def test_entropy_of_a_uniform_law_is_the_log_of_its_volume():
    corner = jnp.array([[1.0]])
    half = jnp.stack([jnp.full(8, 1 / 8), jnp.where(jnp.arange(8) < 4, 1 / 4, 0.0)])
    measure = Eulerian(-corner, 3 * corner, half)
    np.testing.assert_allclose(measure.entropy(), (np.log(4) + np.log(2)) / 2, rtol=bound(1e-14, 2e-6))


def test_weights_are_interpolated_over_depth():
    """Three nodes hold weights that are quadratic in depth exactly, between nodes and at both ends."""
    corner = jnp.array([[1.0]])
    shape = jnp.array([[0.5, 0.25, 0.25], [0.1, -0.2, 0.1], [-0.1, 0.0, 0.1]])

    def quadratic(t):
        return jnp.array([1, t, t**2]) @ shape

    nodes = (np.polynomial.legendre.leggauss(3)[0] + 1) / 2
    measure = Eulerian(-corner, corner, jnp.stack([quadratic(t) for t in nodes]))
    for t in (0.0, 0.3, 1.0):
        particles, weights = measure.at(t)
        np.testing.assert_allclose(weights, quadratic(t), rtol=bound(1e-12, 2e-6))
        np.testing.assert_allclose(particles[:, 0, 0], [-2 / 3, 0, 2 / 3], atol=bound(1e-15, 2e-6))
    np.testing.assert_allclose(measure.depths, nodes, rtol=bound(1e-14, 2e-6))
    np.testing.assert_allclose(measure.depth_weights, [5 / 18, 8 / 18, 5 / 18], rtol=bound(1e-14, 2e-6))


def test_a_model_on_a_grid_is_that_of_its_atoms(key):
    """The limit's outputs are those of particles with the same places and weights; nothing but the flow differs."""
    encoder = wgf.encoders.Perceptron(1)
    grid = law(3).eulerian(2, (4, 4, 4), -2.0, 2.0)
    atoms = wgf.measures.Spectral(grid.particles, grid.weights)
    tokens = jax.random.normal(key, (3, 1, 2))
    outputs = [wgf.AveragedODE(encoder, measure, steps=2)(tokens) for measure in (grid, atoms)]
    np.testing.assert_allclose(*outputs, rtol=1e-12)


CORNER = jnp.array([[1.0]])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Eulerian(CORNER, -CORNER, np.ones((1, 2)) / 2), "`upper` must lie above `lower`"),
        (lambda: Eulerian(CORNER, {"w": CORNER}, np.ones((1, 2)) / 2), "`upper` must be a particle of the structure"),
        (lambda: Eulerian(-jnp.ones(4), jnp.ones(4), np.ones((1, 2)) / 2), "`lower` must be a particle of 1 to 3"),
        (lambda: Eulerian(-CORNER, CORNER, np.ones((1, 2, 2)) / 4), r"`weights` must have shape \[nodes, \*cells\]"),
        (lambda: Eulerian(-CORNER, CORNER, np.ones((1, 2))), "`weights` must be non-negative with sum 1"),
        (lambda: Eulerian(-CORNER, CORNER, np.ones((1, 1))), "`cells` must be a whole number of at least 2"),
        (lambda: Eulerian(-CORNER, CORNER * np.nan, np.ones((1, 2)) / 2), "`upper` must be finite"),
        (lambda: Eulerian(-CORNER, CORNER, np.ones((1, 2)) / 2, rule="lobatto"), "`nodes` must be a whole number"),
        (lambda: law(3).eulerian(1, (4, 4), -1.0, 1.0), "`cells` must count cells along each of 3"),
        (lambda: law(3).eulerian(1, (4, 4, 1), -1.0, 1.0), "`cells` must be a whole number of at least 2"),
        (lambda: law(3).eulerian(1, (4, 4, 4), [0.0, 0.0], 1.0), r"`lower` must be a number or have shape \[P\]"),
        (lambda: law(3).eulerian(0, (4, 4, 4), -1.0, 1.0), "`nodes` must be a whole number of at least 1"),
        (lambda: law(3, [0.5, 0.7]).eulerian(1, (4, 4, 4), -1.0, 1.0), "`scale` must be one number"),
    ],
)
def test_bad_input(build, message, unchecked):
    with pytest.raises(ValueError, match=message):
        build()
