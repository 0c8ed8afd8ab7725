import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, bound, programs

import wgf
from wgf.encoders import Perceptron
from wgf.measures import Layered, Spectral, coordinates
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


@pytest.mark.parametrize(
    "draw",
    [
        lambda law, key: law.layered(3, 5, key),
        lambda law, key: law.spectral(3, 5, key),
        lambda law, key: law.staged(5, key),
        lambda law, key: law.staged(5, key, joint=True),
    ],
)
def test_a_measure_is_drawn_by_one_program(draw, key):
    law = wgf.measures.Gaussian(averaged(3), 0.7)
    with programs() as compiled:
        draw(law, key)
    assert len(compiled) == 1, compiled


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


@pytest.mark.parametrize("layers", [1, 3, 10, 49])
def test_a_layer_holds_from_its_depth_until_just_below_the_next(layers):
    measure = Layered(np.arange(layers, dtype=float)[:, None])
    starts = np.arange(layers) / layers
    np.testing.assert_array_equal(measure.layer(starts), np.arange(layers))
    np.testing.assert_array_equal(measure.layer(starts + (1 - bound(1e-9, 1e-4)) / layers), np.arange(layers))


@pytest.mark.parametrize("layers", [3, 10, 49])
def test_layers_of_a_float32_measure_begin_at_their_depths(layers):
    measure = Layered(np.arange(layers, dtype=np.float32)[:, None])
    np.testing.assert_array_equal(measure.layer(measure.depths), np.arange(layers))


def test_at_gives_the_particles_and_weights_of_the_layer(key):
    particles, weights = (
        jax.random.normal(key, (4, 2, 3)),
        jnp.array([[0.1, 0.9], [0.5, 0.5], [0.0, 1.0], [0.3, 0.7]]),
    )
    measure = Layered(particles, weights)
    for t, layer in ((0.0, 0), (0.2499, 0), (0.25, 1), (0.6, 2), (0.75, 3), (1.0, 3)):
        found, law = measure.at(t)
        np.testing.assert_array_equal(found, particles[layer], err_msg=f"t = {t}")
        np.testing.assert_array_equal(law, weights[layer], err_msg=f"t = {t}")


def test_layers_have_equal_depth_weights():
    measure = Layered(jnp.zeros((5, 2)))
    np.testing.assert_allclose(measure.depth_weights, 0.2, rtol=bound(1e-15, 2e-6))
    np.testing.assert_allclose(measure.depths, np.arange(5) / 5, rtol=bound(1e-15, 2e-6))


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


def test_an_unknown_rule_is_refused(unchecked):
    with pytest.raises(ValueError, match=r"`rule` must be one of \('gauss', 'lobatto'\); got 'simpson'"):
        Spectral(jnp.zeros((3, 2)), rule="simpson")


def test_no_nodes_are_refused():
    with pytest.raises(ValueError, match="`nodes` must be a whole number of at least 1; got 0"):
        quadrature(0, "gauss")


def test_a_single_lobatto_node_is_refused():
    with pytest.raises(ValueError, match="`nodes` must be a whole number of at least 2; got 1"):
        Spectral(jnp.zeros((1, 2)), rule="lobatto")


def models(key):
    """A limit and two finite models of one encoder."""
    encoder = averaged(5)
    initial = wgf.measures.Gaussian(encoder, 0.5)
    limit = wgf.AveragedODE(encoder, initial.spectral(2, 4, key))
    return (
        limit,
        wgf.Transformer(encoder, initial.layered(2, 3, key)),
        wgf.Transformer(encoder, initial.layered(4, 2, key)),
    )


def test_with_tracers_carries_the_measures_of_the_models(key):
    limit, first, second = models(key)
    tracers = limit.with_tracers(first, second).tracers
    assert [t.weights.shape for t in tracers] == [(2, 3), (4, 2)]
    np.testing.assert_array_equal(coordinates(tracers[1].particles), coordinates(second.measure.particles))


def test_with_tracers_replaces_earlier_ones(key):
    limit, first, second = models(key)
    replaced = limit.with_tracers(first).with_tracers(second)
    assert [t.weights.shape for t in replaced.tracers] == [(4, 2)]
    assert limit.with_tracers(first).with_tracers().tracers == ()


def test_tracers_do_not_change_the_model(key):
    limit, first, _ = models(key)
    tokens = wgf.prompts.linear_regression(key, batch=2, examples=2, dim=2).tokens
    np.testing.assert_array_equal(limit(tokens), limit.with_tracers(first)(tokens))


def test_tracers_of_a_spectral_measure_are_refused(key):
    limit, first, _ = models(key)
    with pytest.raises(
        ValueError, match=r"`with_tracers` takes models whose measure is .*Layered, or .*; got Spectral"
    ):
        limit.with_tracers(first, limit)


def test_tracers_of_another_encoder_are_refused(key):
    limit, _, _ = models(key)
    other = wgf.Transformer(Matrix(5), wgf.measures.EncoderLaw(Matrix(5)).layered(2, 3, key))
    with pytest.raises(ValueError, match=r"(?s)`with_tracers` takes models of the same encoder, Average.*; got Matrix"):
        limit.with_tracers(other)


def test_particles_are_found_again_at_their_coordinates(key):
    encoder = averaged(3)
    particles = wgf.measures.Gaussian(encoder, 1.0).layered(2, 5, key).particles
    again = wgf.measures.at_coordinates(coordinates(particles), particles)
    assert jax.tree.structure(again) == jax.tree.structure(particles)
    assert jax.tree.all(jax.tree.map(np.array_equal, again, particles))
