"""The spectral measure: quadrature in depth, and the polynomials through its nodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import wgf
from wgf.measures import Spectral
from wgf.measures._spectral import quadrature

RULES = [("gauss", n) for n in range(1, 9)] + [("lobatto", n) for n in range(2, 9)]
DEGREE = {"gauss": lambda n: 2 * n - 1, "lobatto": lambda n: 2 * n - 3}
each_rule = pytest.mark.parametrize(("rule", "nodes"), RULES)


def shifted_legendre(degree, t):
    """The Legendre polynomial of that degree on [0, 1], between −1 and 1 there."""
    return np.polynomial.Legendre.basis(degree, domain=[0, 1])(t)


def quadrature_error(rule, nodes, degree):
    """The rule's error on a monomial about ½: its integral is 2^(−d)/(d+1) for even d, 0 for odd."""
    points, weights = quadrature(nodes, rule)
    exact = (2.0**-degree) / (degree + 1) if degree % 2 == 0 else 0.0
    return abs(weights @ (points - 0.5) ** degree - exact) * 2**degree


def nodal(function, rule, nodes, width=3):
    """A spectral measure whose particle j is (j + 1) function(t) in each of two coordinates."""
    points, _ = quadrature(nodes, rule)
    values = function(points)[:, None, None] * np.arange(1, width + 1)[:, None] * np.ones(2)
    return Spectral(jnp.asarray(values), rule=rule)


@each_rule
def test_quadrature_is_exact_up_to_its_degree(rule, nodes):
    errors = {d: quadrature_error(rule, nodes, d) for d in range(DEGREE[rule](nodes) + 1)}
    assert max(errors.values()) < 1e-13, errors


@each_rule
def test_quadrature_fails_just_above_its_degree(rule, nodes):
    above = DEGREE[rule](nodes) + 1
    assert quadrature_error(rule, nodes, above) > 1e-6, (above, quadrature_error(rule, nodes, above))


@each_rule
def test_depth_weights_are_positive_with_sum_one(rule, nodes):
    measure = nodal(np.ones_like, rule, nodes)
    np.testing.assert_allclose(jnp.sum(measure.depth_weights), 1, atol=1e-14)
    assert jnp.all(measure.depth_weights > 0), measure.depth_weights


@each_rule
def test_nodes_increase_within_depth_and_lie_symmetrically(rule, nodes):
    depths = np.asarray(nodal(np.ones_like, rule, nodes).depths)
    assert np.all(np.diff(depths) > 0), depths
    np.testing.assert_allclose(depths + depths[::-1], 1, atol=1e-14)
    np.testing.assert_allclose(depths[0] * (rule == "lobatto"), 0, atol=1e-15)


@pytest.mark.parametrize(
    ("nodes", "points", "weights"),
    [
        (1, [0.5], [1.0]),
        (2, [0.5 - np.sqrt(1 / 12), 0.5 + np.sqrt(1 / 12)], [0.5, 0.5]),
        (3, [0.5 - np.sqrt(3 / 20), 0.5, 0.5 + np.sqrt(3 / 20)], [5 / 18, 8 / 18, 5 / 18]),
    ],
)
def test_gauss_nodes_by_hand(nodes, points, weights):
    for found, expected in zip(quadrature(nodes, "gauss"), (points, weights), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-15)


@pytest.mark.parametrize(
    ("nodes", "points", "weights"),
    [(2, [0, 1], [1 / 2, 1 / 2]), (3, [0, 0.5, 1], [1 / 6, 4 / 6, 1 / 6])],
)
def test_lobatto_nodes_are_those_of_trapezium_and_simpson(nodes, points, weights):
    for found, expected in zip(quadrature(nodes, "lobatto"), (points, weights), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-15)


@each_rule
def test_at_is_exact_for_polynomials_of_degree_below_the_nodes(rule, nodes):
    measure = nodal(lambda t: shifted_legendre(nodes - 1, t), rule, nodes)
    for t in (0.0, 0.13, 0.5, 0.77, 1.0):
        particles, _ = measure.at(t)
        expected = shifted_legendre(nodes - 1, t) * np.arange(1, 4)[:, None] * np.ones(2)
        np.testing.assert_allclose(particles, expected, atol=bound(1e-11, 2e-6), err_msg=f"t = {t}")


@each_rule
def test_at_misses_polynomials_of_degree_equal_to_the_nodes(rule, nodes):
    measure = nodal(lambda t: t**nodes, rule, nodes)
    # The error at t is the product of the distances from the nodes.
    distance = np.prod(0.91 - np.asarray(measure.depths))
    np.testing.assert_allclose(0.91**nodes - measure.at(0.91)[0][0, 0], distance, rtol=1e-6, atol=bound(0, 1e-6))


@each_rule
def test_at_a_node_are_the_particles_of_that_node(rule, nodes):
    draw = np.random.default_rng(nodes).normal
    particles = {"a": draw(size=(nodes, 3, 2)), "b": draw(size=(nodes, 3))}
    measure = Spectral(particles, rule=rule)
    found, weights = jax.vmap(measure.at)(measure.depths)
    np.testing.assert_allclose(found["a"], particles["a"], atol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(found["b"], particles["b"], atol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(weights, 1 / 3, atol=bound(1e-13, 2e-6))


def test_at_interpolates_weights_that_differ_between_nodes(key):
    measure = Spectral(jnp.ones((2, 2, 1)), jnp.array([[0.0, 1.0], [1.0, 0.0]]), rule="lobatto")
    np.testing.assert_allclose(measure.at(0.25)[1], [0.25, 0.75], atol=1e-15)


def test_at_has_the_slope_of_the_interpolant_in_depth():
    measure = nodal(lambda t: t**3, "gauss", 4)
    slope = jax.grad(lambda t: measure.at(t)[0][0, 0])(0.3)
    np.testing.assert_allclose(slope, 3 * 0.3**2, rtol=bound(1e-12, 2e-6))


def test_at_works_under_jit_and_vmap():
    measure, depths = nodal(lambda t: t**2, "gauss", 3), jnp.array([0.1, 0.6])
    found = jax.jit(jax.vmap(lambda t: measure.at(t)[0][0, 0]))(depths)
    np.testing.assert_allclose(found, depths**2, rtol=1e-12)


def test_float32_particles_give_a_float32_measure():
    measure = Spectral(jnp.ones((3, 2, 2), jnp.float32))
    kinds = {x.dtype for x in (measure.weights, measure.depths, measure.depth_weights, *measure.at(0.3))}
    assert kinds == {jnp.dtype(jnp.float32)}


def test_an_unknown_rule_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"`rule` must be one of \('gauss', 'lobatto'\); got 'simpson'"):
        Spectral(jnp.zeros((3, 2)), rule="simpson")


def test_no_nodes_are_refused():
    with pytest.raises(ValueError, match="`nodes` must be a whole number of at least 1; got 0"):
        quadrature(0, "gauss")


def test_a_single_lobatto_node_is_refused():
    with pytest.raises(ValueError, match="`nodes` must be a whole number of at least 2; got 1"):
        Spectral(jnp.zeros((1, 2)), rule="lobatto")


@pytest.mark.parametrize("rule", ["gauss", "lobatto"])
def test_a_fit_finds_polynomials_in_depth(rule):
    """Layers whose particles lie on a parabola in depth are met exactly by three nodes, and by more."""
    depths = jnp.arange(8) / 8
    path = lambda t: jnp.stack([1 + t, t**2, 3 - 2 * t - t**2], axis=-1)  # noqa: E731
    layered = wgf.measures.Layered(jnp.stack([path(depths), -path(depths)], axis=1))
    for nodes in (3, 5):
        fitted = wgf.measures.Spectral.fit(layered, nodes, rule=rule)
        assert fitted.rule == rule
        np.testing.assert_allclose(fitted.weights, 0.5, rtol=bound(1e-12, 1e-5))
        for t in (0.0, 0.3, 1.0):
            np.testing.assert_allclose(fitted.at(t)[0][0], path(jnp.asarray(t)), rtol=bound(1e-10, 1e-4), atol=1e-4)


def test_a_fit_is_the_nearest_polynomial_not_an_interpolation(key):
    layered = wgf.measures.Layered(jax.random.normal(key, (9, 3, 2)))
    fitted = wgf.measures.Spectral.fit(layered, 2)
    expected = np.polyfit(np.arange(9) / 9, np.asarray(layered.particles).reshape(9, -1), 1)
    for t in (0.0, 0.5, 1.0):
        np.testing.assert_allclose(np.ravel(fitted.at(t)[0]), expected[0] * t + expected[1], atol=bound(1e-12, 1e-5))


def test_a_fit_needs_as_many_depths_as_nodes():
    layered = wgf.measures.Layered(jnp.ones((2, 3, 1)))
    with pytest.raises(ValueError, match="`nodes` must be at most the 2 depths of the measure; got 3"):
        wgf.measures.Spectral.fit(layered, 3)
