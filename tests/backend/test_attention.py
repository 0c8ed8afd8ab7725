"""The fast means of attention and perceptron against the plain mean, in value and in every derivative."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import wgf
from wgf._backend import outlining
from wgf._backend.contract import contract
from wgf.encoders import AbstractEncoder, Average, Perceptron, SoftmaxAttention, plain_mean

ATTENTION = [
    # M, B, D, N+1, k: a single head; remainders of strips; whole tiles; of blocks; one token; matrix products.
    (1, 1, 1, 2, 1),
    (3, 5, 2, 3, 2),
    (65, 3, 5, 9, 2),
    (64, 32, 5, 9, 2),
    (130, 40, 4, 8, 3),
    (64, 59, 2, 12, 1),
    (7, 2, 3, 1, 2),
    (4, 2, 17, 65, 8),
    (33, 2, 16, 33, 3),
]
PERCEPTRON = [
    # M, B, D, N+1, whether there is a bias.
    (1, 1, 1, 1, True),
    (3, 5, 2, 3, False),
    (130, 40, 5, 9, True),
    (257, 347, 2, 12, False),
    (9, 2, 17, 65, True),
]

# Most of the time goes into compilation: machine code need not be optimised to be right.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

sizes = st.tuples(st.integers(1, 130), st.integers(1, 40), st.integers(1, 7), st.integers(2, 12), st.integers(1, 4))


@pytest.fixture(autouse=True)
def _double():
    with jax.enable_x64(True):
        yield


def attention_problem(size, dtype=jnp.float64, scale=1.0, seed=0):
    width, batch, dim, length, key_dim = size
    return problem(SoftmaxAttention(dim, key_dim=key_dim), width, batch, dim, length, dtype, scale, seed)


def perceptron_problem(size, activation=jnp.tanh, dtype=jnp.float64):
    width, batch, dim, length, use_bias = size
    return problem(Perceptron(dim, activation, use_bias=use_bias), width, batch, dim, length, dtype, 1.0, 0)


def problem(encoder, width, batch, dim, length, dtype, scale, seed):
    keys = jax.random.split(jax.random.key(seed), 4)
    particles = jax.tree.map(lambda leaf: (scale * leaf).astype(dtype), encoder.sample(keys[0], (width,)))
    weights = jax.random.uniform(keys[1], (width,), dtype, 0.5, 1.5) / width
    tokens = jax.random.normal(keys[2], (batch, dim, length), dtype)
    costates = jax.random.normal(keys[3], tokens.shape, dtype)
    return encoder, (particles, weights, tokens), costates


def value_and_gradients(mean, args, costates):
    """The mean, and the pullback of `costates` to particles, weights and tokens."""
    value, pull = jax.vjp(mean, *args)
    return value, pull(costates)


def assert_close(got, expected, tolerance):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * (float(jnp.abs(b).max()) + 1e-2))


def against_plain(encoder, args, costates, tolerance):
    compute = quick_jit(value_and_gradients, static_argnums=0)
    got = compute(encoder.mean, args, costates)
    assert_close(got, compute(functools.partial(plain_mean, encoder), args, costates), tolerance)


@pytest.mark.parametrize("size", ATTENTION)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.float64, 1e-13)])
def test_attention_gradients(size, dtype, tolerance):
    against_plain(*attention_problem(size, dtype), tolerance)


@pytest.mark.heavy
@settings(max_examples=5, deadline=None, derandomize=True)
@given(size=sizes, seed=st.integers(0, 9))
def test_attention_any_size(size, seed):
    against_plain(*attention_problem(size, seed=seed), 1e-12)


@pytest.mark.parametrize("size", PERCEPTRON)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 2e-5), (jnp.float64, 1e-13)])
def test_perceptron_gradients(size, dtype, tolerance):
    against_plain(*perceptron_problem(size, dtype=dtype), tolerance)


@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.gelu, jnp.sin])
def test_perceptron_activations(activation):
    against_plain(*perceptron_problem((5, 3, 2, 4, True), activation), 1e-13)


PROBLEMS = {
    "attention": lambda dtype=jnp.float64: attention_problem((70, 3, 3, 4, 2), dtype),
    "perceptron": lambda dtype=jnp.float64: perceptron_problem((70, 3, 3, 4, True), dtype=dtype),
}


@pytest.fixture(params=list(PROBLEMS))
def make(request):
    return PROBLEMS[request.param]


@pytest.mark.parametrize(("dtype", "weight"), [(jnp.float32, 2.0**-66), (jnp.float64, 2.0**-332)])
def test_vestigial_weights(make, dtype, weight):
    """The gradient of a particle is its weight times that at weight 1, however small the weight."""
    encoder, (particles, _, tokens), costates = make(dtype)
    ones = jnp.ones(70, dtype)

    @quick_jit
    def compute(weights):
        return value_and_gradients(encoder.mean, (particles, weights, tokens), costates)[1]

    tiny, unit = compute(weight * ones), compute(ones)
    tolerance = 20 * float(jnp.finfo(dtype).eps)
    assert_close(jax.tree.map(lambda leaf: leaf / weight, tiny[0]), unit[0], tolerance)
    assert_close(tiny[1], unit[1], tolerance)


def test_weight_zero_is_absence(make):
    encoder, (particles, weights, tokens), costates = make()
    weights = weights.at[10:].set(0)
    few = jax.tree.map(lambda leaf: leaf[:10], particles)
    compute = quick_jit(value_and_gradients, static_argnums=0)
    value, (slopes, gains, _) = compute(encoder.mean, (particles, weights, tokens), costates)
    fewer, (few_slopes, few_gains, _) = compute(encoder.mean, (few, weights[:10], tokens), costates)
    assert_close(value, fewer, 1e-13)
    assert_close(jax.tree.map(lambda leaf: leaf[:10], slopes), few_slopes, 1e-13)
    assert_close(gains[:10], few_gains, 1e-13)
    assert all(not leaf[10:].any() for leaf in jax.tree.leaves(slopes))
    assert bool(jnp.all(gains[10:] != 0))


@pytest.mark.parametrize("scale", [1, 2, 3, 8])
def test_attention_stays_accurate_for_large_scores(scale):
    """Against float64, the error in float32 is at most twice that of the plain mean in float32, over six draws."""
    compute = jax.jit(value_and_gradients, static_argnums=0)

    def ratio(seed):
        encoder, args, costates = attention_problem((64, 32, 5, 9, 2), scale=0.7 * scale, seed=seed)
        args, costates = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), (args, costates))
        plain = functools.partial(plain_mean, encoder)
        exact = compute(plain, *jax.tree.map(lambda leaf: leaf.astype(jnp.float64), (args, costates)))

        def error(result):
            pairs = zip(jax.tree.leaves(result), jax.tree.leaves(exact), strict=True)
            return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)

        return error(compute(encoder.mean, args, costates)) / error(compute(plain, args, costates))

    ratios = [ratio(seed) for seed in range(6)]
    assert np.exp(np.mean(np.log(ratios))) < 2, ratios


def functions(make):
    """The two means as scalar functions of the same arguments, and a direction to differentiate along."""
    encoder, args, costates = make()
    fast, plain = (
        lambda args, mean=mean: jnp.sum(costates * mean(*args) ** 2)
        for mean in (encoder.mean, functools.partial(plain_mean, encoder))
    )
    direction = jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(7), leaf.shape), args)
    return fast, plain, args, direction


def dot(a, b):
    return sum(jnp.vdot(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def reverse_over_reverse(f, args, direction):
    return jax.grad(lambda args: dot(jax.grad(f)(args), direction))(args)


def forward_over_reverse(f, args, direction):
    return jax.jvp(jax.grad(f), (args,), (direction,))[1]


def forward(f, args, direction):
    return jax.jvp(f, (args,), (direction,))


@pytest.mark.parametrize("derivative", [forward, reverse_over_reverse, forward_over_reverse])
def test_other_derivatives(make, derivative):
    fast, plain, args, direction = functions(make)
    got, expected = (quick_jit(derivative, static_argnums=0)(f, args, direction) for f in (fast, plain))
    assert_close(got, expected, 1e-12)


@pytest.mark.parametrize("axes", [(0, 0, 0), (0, None, None), (None, None, 0), (None, 0, None)])
def test_vmap(make, axes):
    encoder, args, _ = make()
    args = tuple(
        arg if axis is None else jax.tree.map(lambda leaf: jnp.stack([leaf, 2 * leaf, -leaf]), arg)
        for arg, axis in zip(args, axes, strict=True)
    )

    def slopes(mean):
        gradient = jax.grad(lambda *args: jnp.sum(mean(*args) ** 2), argnums=(0, 1, 2))
        return quick_jit(jax.vmap(gradient, axes))(*args)

    assert_close(slopes(encoder.mean), slopes(functools.partial(plain_mean, encoder)), 1e-12)


def test_inside_loops(make):
    """Through `scan`, `map` and `checkpoint`, as the models and the outer solver call it."""
    encoder, args, _ = make()

    def roll(mean, args):
        particles, weights, tokens = args

        @jax.checkpoint
        def step(tokens, _):
            return tokens + 0.1 * mean(particles, weights, tokens), None

        def push(prompt):
            return jax.lax.scan(step, prompt[None], None, length=3)[0][0]

        return jnp.sum(jax.lax.map(push, tokens) ** 2)

    def twice(mean):
        return quick_jit(jax.grad(lambda args: dot(jax.grad(roll, argnums=1)(mean, args), args)))(args)

    assert_close(twice(encoder.mean), twice(functools.partial(plain_mean, encoder)), 1e-12)


@pytest.mark.parametrize("kind", [wgf.Transformer, wgf.AveragedODE])
@pytest.mark.parametrize("order", [1, 2])
def test_models(kind, order):
    """Velocities of both models, and gradients through them, by the fast means and by the plain ones."""
    attention, perceptron = SoftmaxAttention(4, key_dim=1), Perceptron(4)
    prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=3, examples=2, dim=1)
    objective = wgf.Objective(prompts, weight_decay=1e-3)
    measure = wgf.measures.Layered(Average(attention, perceptron).sample(jax.random.key(1), (2, 5)))

    def result(encoder):
        model = kind(encoder, measure)

        def energy(particles):
            return dot(v := wgf.velocity(objective, model.with_particles(particles)), v)

        def velocity(particles):
            return wgf.velocity(objective, model.with_particles(particles))

        return quick_jit(jax.grad(energy) if order == 2 else velocity)(measure.particles)

    plain = Average(Plain(attention), Plain(perceptron))
    assert_close(result(Average(attention, perceptron)), result(plain), 1e-11)


class Plain(AbstractEncoder):
    """An encoder without its fast mean."""

    encoder: AbstractEncoder

    def sample(self, key, shape):
        return self.encoder.sample(key, shape)

    def __call__(self, particle, tokens):
        return self.encoder(particle, tokens)


def test_without_jit(make):
    encoder, args, _ = make()
    with jax.disable_jit():
        assert_close(encoder.mean(*args), plain_mean(encoder, *args), 1e-13)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="outlining has an effect on CPUs alone")
def test_outlined_parts_are_computed_once(monkeypatch):
    """Without outlining XLA computes cheap producers again in each of their consumers: right, but slower."""

    def operations(batch):
        """For each prompt."""
        encoder, args, costates = attention_problem((64, batch, 5, 9, 2), jnp.float32)
        compute = jax.jit(lambda *args: value_and_gradients(encoder.mean, *args))
        return compute.lower(args, costates).compile().cost_analysis()["flops"] / batch

    outlined = operations(8)
    monkeypatch.setattr(outlining, "set_xla_metadata", lambda **_: contextlib.nullcontext())
    # Another shape: JAX keeps what it has traced.
    assert outlined < 0.75 * operations(9)


@pytest.mark.parametrize(
    "spec",
    [
        *("bjkm,bqkm->bqjm", "dbj,dkm->bjkm", "edm,bqdm->ebq", "ebq,bqdm->edm", "bqdm,bqjm->dbj", "m,m->"),
        # Three operands, two of them in each term of the sum; and a product whose sum goes in parts.
        *("dbj,bqjm,bqjm->bqdm", "dbj,bqjm,bqdm->bqjm", "bqm,bqm,bqm->bqm", "dbp,bpkm->dkm"),
    ],
)
def test_contract_is_einsum(spec):
    sizes = {"b": 6, "j": 4, "q": 5, "k": 2, "d": 3, "e": 7, "m": 11, "p": 40}
    operands = spec.split("->")[0].split(",")
    keys = jax.random.split(jax.random.key(0), len(operands))
    args = [
        jax.random.normal(key, [sizes[letter] for letter in letters])
        for key, letters in zip(keys, operands, strict=True)
    ]

    def with_gradients(function, *args):
        value, pull = jax.vjp(functools.partial(function, spec), *args)
        return value, *pull(value)

    expected = with_gradients(jnp.einsum, *args)
    for compute in (with_gradients, quick_jit(with_gradients, static_argnums=0)):
        for ours, theirs in zip(compute(contract, *args), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-11)
