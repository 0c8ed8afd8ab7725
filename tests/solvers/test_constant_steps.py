"""Constant steps by a tableau against Diffrax."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import wgf
from wgf.solvers._constant_steps import march, march_densely

METHODS = {
    "Euler's rule of two": diffrax.Heun(),
    "first the same as last": diffrax.Tsit5(),
    "third order": diffrax.Bosh3(),
    "equal eighths": wgf.measures.EqualEighths(),
    "linear between steps": diffrax.Ralston(),
}


@pytest.mark.parametrize("ends", [(0, 1), (1, 0)], ids=["forward", "backward"])
@pytest.mark.parametrize("name", METHODS)
def test_constant_steps_and_what_lies_between_are_those_of_diffrax(name, ends, key):
    """Of an equation that depends on depth, both ways; the interpolation is the solver's own."""
    matrix, start = jax.random.normal(key, (3, 3)), jax.random.normal(key, (2, 3, 4))

    def field(depth, tokens):
        return jnp.cos(3 * depth) * jnp.tanh(matrix @ tokens)

    expected = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda depth, tokens, _: field(depth, tokens)),
        METHODS[name],
        *map(float, ends),
        (ends[1] - ends[0]) / 3,
        start,
        saveat=diffrax.SaveAt(dense=True),
    )
    found = jax.jit(lambda start: march_densely(field, METHODS[name], 3, start, *ends))(start)
    for depth in np.linspace(0, 1, 14):
        np.testing.assert_allclose(
            found.evaluate(depth), expected.evaluate(depth), rtol=bound(1e-12, 1e-5), atol=bound(1e-13, 1e-6)
        )
    if ends == (0, 1):
        np.testing.assert_allclose(
            march(field, METHODS[name], 3, start), expected.evaluate(1.0), rtol=bound(1e-12, 1e-5)
        )
