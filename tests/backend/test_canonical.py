"""Functions that compute the same count as one; functions that do not never do."""

import gc
import resource

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import averaged, programs, regression

import wgf
from wgf._backend import canonical as _canonical
from wgf._backend.canonical import canonical
from wgf._backend.fingerprint import fingerprint


def square(numbers):
    """A loss that closes over numbers."""
    return lambda x: jnp.sum((x - jnp.asarray(numbers)) ** 2)


def test_equal_functions_are_one():
    first, second = canonical(square([1.0, 2.0])), canonical(square([1.0, 2.0]))
    assert first is second
    assert canonical(optax.adam(1e-2)) == canonical(optax.adam(1e-2))


def test_other_numbers_are_another_function():
    assert canonical(square([1.0, 2.0])) is not canonical(square([1.0, 3.0]))
    assert canonical(optax.adam(1e-2)) != canonical(optax.adam(2e-2))
    assert canonical(lambda x: x + 1) is not canonical(lambda x: x - 1)


def test_a_function_whose_numbers_changed_stands_for_no_other():
    numbers = [3.0, 7.0]
    changing = canonical(square(numbers))
    numbers[0] = 5.0
    fresh = square([3.0, 7.0])
    assert canonical(fresh) is fresh
    assert canonical(changing) is changing


def test_a_function_of_a_tracer_stays():
    def final(rate):
        optimiser = optax.sgd(rate)
        assert canonical(optimiser).update is optimiser.update
        return wgf.train(lambda m: jnp.sum(m**2), jnp.ones(2), optimiser, steps=1).objective[-1]

    np.testing.assert_allclose(jax.jit(final)(0.25), 2 * 0.5**2, rtol=1e-6)
    np.testing.assert_allclose(jax.jit(jax.grad(final))(0.25), -8 * 0.5, rtol=1e-6)


def test_only_the_last_are_remembered(monkeypatch):
    monkeypatch.setattr(_canonical, "_MOST", 2)
    one, two, three = (canonical(square([float(i)])) for i in (11, 12, 13))
    assert canonical(square([13.0])) is three
    assert canonical(square([12.0])) is two
    assert canonical(square([11.0])) is not one


def resident():
    """The memory that the process holds, in MiB."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.slow
def test_a_cell_that_runs_again_compiles_nothing_and_memory_stays(key):
    model_key, prompt_key = jax.random.split(key)
    prompts = regression(prompt_key)
    encoder = averaged(prompts.token_dim)
    module = eqx.nn.MLP(2, "scalar", 3, 1, key=model_key)
    x = np.ones((5, 2))

    def cell():
        model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 1.0).layered(2, 4, model_key))
        objective = wgf.Objective(prompts, 1e-3)
        trained = wgf.train(objective, model, optax.adam(1e-2), steps=2)
        plain = wgf.flow(lambda m: jnp.mean((jax.vmap(m)(x) - 1) ** 2), module, [0.0, 1.0])
        going = wgf.run(lambda m: jnp.mean((jax.vmap(m)(x) - 1) ** 2), module, [0.0, 1.0], progress=False)
        seen = objective(model), model(prompts.tokens), model.trajectory(prompts.tokens, jnp.linspace(0, 1, 3))
        return jax.block_until_ready((trained.objective, plain.objective, going.objective, seen))

    for _ in range(2):
        cell()
    gc.collect()
    before = resident()
    with programs() as names:
        for _ in range(20):
            cell()
    gc.collect()
    assert names == []
    assert resident() - before < 5  # 2 to 5 MiB for each call, where each compiles.


def test_a_tracer_cannot_be_described():
    with pytest.raises(ValueError, match="`x` is known only where the program runs"):
        jax.eval_shape(lambda x: fingerprint({"x": x}), 1.0)
