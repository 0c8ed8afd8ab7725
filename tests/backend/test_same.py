"""Copies of an object are the same; what computes something else is not."""

import copy
import functools
import pickle
import types

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import wgf
from wgf._backend.same import same
from wgf.encoders import Average, Causal, KernelAttention, LayerNorm, Perceptron, SoftmaxAttention

FACTOR = 2.0


def squares(x):
    return FACTOR * x**2


def power(exponent):
    return lambda x: x**exponent


def rebuilt(function):
    """A function by value, as cloudpickle makes it in another process."""
    names = {name: value for name, value in function.__globals__.items() if not name.startswith("__")}
    return types.FunctionType(function.__code__, names, function.__name__, function.__defaults__, function.__closure__)


@pytest.mark.parametrize(
    "activation",
    [jnp.tanh, jax.nn.relu, jax.nn.gelu, squares, power(3), functools.partial(jnp.power, x2=2), jax.jit(squares)],
)
def test_a_copied_encoder_is_the_same(activation):
    encoder = Average(LayerNorm(SoftmaxAttention(3, key_dim=2, mask=Causal())), Perceptron(3, activation))
    assert same(encoder, copy.deepcopy(encoder))
    assert same(encoder, copy.copy(encoder))


def test_an_unpickled_encoder_is_the_same():
    encoder = KernelAttention(3, key_dim=2, kernel=wgf.encoders.relu_kernel)
    assert same(encoder, pickle.loads(pickle.dumps(encoder)))


@pytest.mark.parametrize("function", [squares, power(2), lambda x, y=3: [x for _ in range(y)]])
def test_a_function_made_again_by_value_is_the_same(function):
    assert rebuilt(function) is not function
    assert same(function, rebuilt(function))


def test_functions_of_the_same_text_are_the_same():
    def again():
        return lambda x: jnp.tanh(x) + 1

    assert same(again(), again())
    assert same(lambda x: jnp.tanh(x) + 1, again())
    assert same(power(2.0), power(2.0))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (jnp.tanh, jnp.sin),
        (power(2.0), power(3.0)),
        (power(2), power(2.0)),
        (lambda x: x + 1, lambda x: x + 2),
        (lambda x, y=1: x + y, lambda x, y=2: x + y),
        (functools.partial(jnp.power, x2=2), functools.partial(jnp.power, x2=3)),
        (jax.nn.relu, jax.nn.silu),
        (lambda x: (lambda: x + 1)(), lambda x: (lambda: x + 2)()),
        (squares, jnp.tanh),
    ],
)
def test_functions_that_compute_something_else_differ(first, second):
    assert not same(first, second)
    assert not same(Perceptron(3, first), Perceptron(3, second))


def test_globals_are_looked_up():
    other = types.FunctionType(squares.__code__, {"FACTOR": 3.0})
    assert not same(squares, other)
    assert same(squares, types.FunctionType(squares.__code__, {"FACTOR": 2.0}))


class Scaled(wgf.encoders.AbstractEncoder):
    factor: jax.Array

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, 3))

    def __call__(self, particle, tokens):
        return self.factor * particle[:, None] * tokens


def test_arrays_are_compared_by_their_numbers():
    assert same(Scaled(jnp.ones(())), Scaled(jnp.ones(())))
    assert same(Scaled(jnp.ones(())), Scaled(np.ones((), jnp.result_type(float))))
    assert not same(Scaled(jnp.ones(())), Scaled(2 * jnp.ones(())))
    assert not same(Scaled(jnp.ones(())), Scaled(jnp.ones((), jnp.float16)))
    assert not same(Scaled(jnp.ones(())), Scaled(jnp.ones(1)))


def test_traced_arrays_are_compared_by_type_and_shape():
    compared = eqx.filter_jit(lambda first, second: same(first, second))
    assert compared(Scaled(jnp.ones(())), Scaled(2 * jnp.ones(())))
    assert not compared(Scaled(jnp.ones(())), Scaled(jnp.ones(2)))


def test_a_function_that_refers_to_itself_is_compared():
    def factorial():
        def f(n):
            return n * f(n - 1) if n else 1

        return f

    assert same(factorial(), factorial())
