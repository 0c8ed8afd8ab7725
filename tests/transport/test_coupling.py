"""The coupling distance of particles and their tracers."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.measures import Layered, Spectral
from wgf.transport import coupling_distance


def test_the_coupling_distance_by_hand():
    particles = {"a": jnp.array([[0.0, 1.0], [2.0, 3.0]]), "b": jnp.zeros((2, 2, 2))}
    moved = {
        "a": jnp.array([[1.0, 1.0], [2.0, 5.0]]),
        "b": jnp.zeros((2, 2, 2)).at[0, 1].set(jnp.array([3.0, 4.0])),
    }
    weights = jnp.array([[0.25, 0.75], [0.5, 0.5]])
    # Squared distances 1, 25; 0, 4 with masses 1/8, 3/8; 1/4, 1/4.
    expected = 1 / 8 + 25 * 3 / 8 + 4 / 4
    np.testing.assert_allclose(
        coupling_distance(Layered(particles, weights), Layered(moved)), np.sqrt(expected), rtol=bound(1e-14, 1e-6)
    )


def test_the_coupling_distance_uses_the_depth_weights_of_the_measure():
    start, end = jnp.zeros((3, 1)), jnp.array([[0.0], [6.0], [0.0]])
    np.testing.assert_allclose(coupling_distance(Spectral(start), Layered(end)), 4, rtol=bound(1e-13, 1e-6))


def test_coupling_distance_of_measures_of_other_sizes_is_refused():
    with pytest.raises(ValueError, match=r"`tracers` must have the measure's depth and width, \(2, 3\); got \(3, 2\)"):
        coupling_distance(Layered(jnp.zeros((2, 3))), Layered(jnp.zeros((3, 2))))


def test_tracers_of_other_particles_are_refused():
    with pytest.raises(ValueError, match=r"`tracers` must have particles of the measure's shapes, .*3\).*; got .*1\)"):
        coupling_distance(Layered(jnp.zeros((2, 4, 3))), Layered(jnp.zeros((2, 4, 1))))
