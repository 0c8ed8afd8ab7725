"""The finite-volume rate: mass, energy, positivity, symmetry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

from wgf.flows._geometry.finite_volume import finite_volume_rate


def random_case(key, dim):
    """Masses over many orders of magnitude, a fifth of them 0, in a rough potential on a grid of unequal lengths."""
    keys = jax.random.split(key, 4)
    cells = (9, 7, 5)[:dim]
    masses = jnp.exp(8 * jax.random.normal(keys[0], cells)) * (jax.random.uniform(keys[1], cells) > 0.2).astype(float)
    spacing = jnp.exp(jax.random.normal(keys[3], (dim,)))
    return masses / masses.sum(), 5 * jax.random.normal(keys[2], cells), spacing


def total(cells):
    return cells.reshape(len(cells), -1).sum(axis=1)


def per_case(values, cells):
    return values.reshape(-1, *(1,) * (cells.ndim - 1))


@pytest.fixture(scope="module", params=[1, 2, 3])
def rates(request):
    """200 random cases on lines, planes and boxes, the first in a flat potential; their rates, and the rate itself."""
    rate = jax.jit(jax.vmap(finite_volume_rate))
    keys = jax.random.split(jax.random.key(request.param), 200)
    masses, potential, spacing = jax.vmap(lambda k: random_case(k, request.param))(keys)
    cases = masses, potential.at[0].set(3.0), spacing
    return cases, rate(*cases), rate


def test_rate_conserves_mass(rates):
    _, rate, _ = rates
    assert jnp.max(jnp.abs(total(rate.masses[1:])) / total(jnp.abs(rate.masses[1:]))) < bound(1e-14, 1e-6)


def test_dissipation_is_the_rate_of_the_energy(rates):
    """−Σ ξ ȧ, cell by cell, is what the fluxes at the faces dissipate; it is never negative."""
    (_, potential, _), rate, _ = rates
    np.testing.assert_allclose(
        rate.dissipation, -total(potential * rate.masses), rtol=bound(1e-9, 1e-4), atol=bound(1e-14, 1e-6)
    )
    assert jnp.all(rate.dissipation[1:] > 0)


def test_euler_steps_of_courant_number_one_keep_masses_positive(rates):
    (masses, _, _), rate, _ = rates
    masses, step = masses[1:], rate.masses[1:] / per_case(rate.courant[1:], masses)
    assert jnp.min((masses + step) / masses.max()) > -bound(1e-16, 1e-6)
    # The condition is not idle: a step four times as long takes more out of some cell than it holds.
    assert jnp.mean((masses + 4 * step).reshape(199, -1).min(axis=1) < 0) > 0.5


def test_nothing_moves_in_a_flat_potential(rates):
    _, rate, _ = rates
    assert jnp.all(rate.masses[0] == 0)
    assert rate.dissipation[0] == rate.courant[0] == 0


def test_reflecting_the_grid_reflects_the_rate(rates):
    (masses, potential, spacing), rate, compute = rates
    axes = tuple(range(1, masses.ndim))
    mirrored = jnp.flip(compute(jnp.flip(masses, axes), jnp.flip(potential, axes), spacing).masses, axes)
    scale = per_case(jnp.max(jnp.abs(rate.masses).reshape(200, -1), axis=1), masses)
    assert jnp.max(jnp.abs(mirrored - rate.masses)[1:] / scale[1:]) < bound(1e-14, 1e-6)
