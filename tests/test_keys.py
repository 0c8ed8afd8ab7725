"""One key for several samplers: each draws numbers of its own, and none of them from a key that is split from it."""

import inspect
import re
import zlib
from pathlib import Path
from typing import get_args

import diffrax
import jax
import jax.extend.random
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, regression, scalar_problem
from jaxtyping import PRNGKeyArray
from scipy.stats import spearmanr

import wgf
from wgf import analysis, companions, encoders, measures, prompts
from wgf._random import purpose

ROOMS = ("analysis", "companions", "encoders", "flows", "measures", "models", "objective", "prompts", "transport")
CHAIN = prompts.MarkovChain.binary(0.3, 0.4)
SEQUENCES = companions.NextTokenLoss(CHAIN, jnp.zeros((1, 3), int))
HEAD = {"token_dim": 3, "key_dim": 2}
NEURON = encoders.Perceptron(3, jnp.tanh)
LAW = measures.Gaussian(NEURON)
ORBITS = measures.SignOrbits((("w_out",),))
SCALAR = scalar_problem(0.1)
SCALARS = wgf.Transformer(Matrix(1), measures.Layered(jnp.ones((1, 2, 1, 1))))
NOISY = {"taus": jnp.array([0.0, 0.5]), "temperature": 0.1, "dt0": 0.5}
PIXELS = (np.arange(32.0).reshape(2, 4, 4, 1), np.array([0, 1]))
CUT = {"classes": 2, "patch": 2, "features": 2, "positions": 0}
TABLE = {"batch": 2, "examples": 2, "dim": 1}


def cifar10(key, folder):
    for name in (*(f"data_batch_{n}.bin" for n in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(bytes(3073))
    return prompts.cifar10(key, folder, images=4, patch=8, features=2, positions=0)


SAMPLERS = {
    "analysis.certificate": lambda key: analysis.certificate(SCALAR, SCALARS, key=key, starts=2, max_steps=1),
    "analysis.check_assumptions": lambda key: analysis.check_assumptions(
        Matrix(1), SCALAR.prompts, key=key, samples=16
    ),
    "analysis.conditional_gradient": lambda key: analysis.conditional_gradient(
        SCALAR, SCALARS, key=key, mass=1e-9, starts=2, spare=0
    ),
    "companions.NextTokenLoss.drawn": lambda key: companions.NextTokenLoss.drawn(CHAIN, key, batch=2, length=2),
    "companions.NextTokenLoss.minibatch": lambda key: SEQUENCES.minibatch(key, 2),
    "companions.OneLayerTransformer.rank_one": lambda key: companions.OneLayerTransformer.rank_one(
        key, 0.5, 1.0, length=2
    ),
    "companions.OneLayerTransformer.standard": lambda key: companions.OneLayerTransformer.standard(key, length=2),
    "companions.ResidualTransformer.__init__": lambda key: companions.ResidualTransformer(2, 2, key=key),
    "encoders.Average.sample": lambda key: encoders.Average(Matrix(3), Matrix(3)).sample(key, (2,)),
    "encoders.Convolution.sample": lambda key: encoders.Convolution(3, reach=1).sample(key, (2,)),
    "encoders.KernelAttention.sample": lambda key: encoders.KernelAttention(**HEAD, kernel=encoders.relu_kernel).sample(
        key, (2,)
    ),
    "encoders.Perceptron.sample": lambda key: NEURON.sample(key, (2,)),
    "encoders.SoftmaxAttention.sample": lambda key: encoders.SoftmaxAttention(**HEAD).sample(key, (2,)),
    "flows.flow": lambda key: wgf.flow(SCALAR, SCALARS, key=key, **NOISY),
    "flows.train": lambda key: wgf.train(SCALAR, SCALARS, optax.sgd(0.1), steps=1, batch=2, key=key),
    "measures.AbstractInitialLaw.layered": lambda key: LAW.layered(2, 2, key),
    "measures.AbstractInitialLaw.spectral": lambda key: LAW.spectral(2, 2, key),
    "measures.AbstractInitialLaw.staged": lambda key: (LAW.staged(2, key), LAW.staged(2, key, joint=True)),
    "measures.Independent.__call__": lambda key: measures.Independent()(key, NEURON, 32),
    "measures.Sobol.__call__": lambda key: measures.Sobol()(key, NEURON, 32),
    "objective.Objective.minibatch": lambda key: SCALAR.minibatch(key, 2),
    "prompts.MarkovChain.sample": lambda key: CHAIN.sample(key, 2, 3),
    "prompts.Prompts.draw": lambda key: SCALAR.prompts.draw(key, 2),
    "prompts.cifar10": cifar10,
    "prompts.digits": lambda key: prompts.digits(key, held_out=1700, features=2),
    "prompts.from_table": lambda key: prompts.from_table(key, np.eye(442), np.arange(442.0), **TABLE),
    "prompts.linear_regression": lambda key: regression(key, batch=2, examples=2),
    "prompts.next_tokens": lambda key: prompts.next_tokens(key, CHAIN, batch=2, length=2),
    "prompts.patch_prompts": lambda key: prompts.patch_prompts(key, *(jnp.asarray(a) for a in PIXELS), **CUT),
    "prompts.split_prompts": lambda key: prompts.split_prompts(key, PIXELS, PIXELS, **CUT),
}
# What is another sampler in another form draws the same numbers: the name of that one, and how to call this one.
FORMS = {
    "encoders.Chunked.sample": ("encoders.Perceptron.sample", lambda key: encoders.Chunked(NEURON).sample(key, (2,))),
    "encoders.FixedRow.sample": (
        "encoders.Perceptron.sample",
        lambda key: encoders.FixedRow(NEURON, row=0).sample(key, (2,)),
    ),
    "encoders.PaddedAttention.sample": (
        "encoders.SoftmaxAttention.sample",
        lambda key: encoders.PaddedAttention(**HEAD, row=0).sample(key, (2,)),
    ),
    "encoders.LayerNorm.sample": (
        "encoders.Perceptron.sample",
        lambda key: encoders.LayerNorm(NEURON).sample(key, (2,)),
    ),
    "flows.run": ("flows.flow", lambda key: wgf.run(SCALAR, SCALARS, key=key, **NOISY)),
    "measures.EncoderLaw.sample": (
        "encoders.Perceptron.sample",
        lambda key: measures.EncoderLaw(NEURON).sample(key, 2),
    ),
    "measures.Gaussian.sample": ("measures.Independent.__call__", lambda key: LAW.sample(key, 32)),
    "measures.SignOrbits.__call__": ("measures.Independent.__call__", lambda key: ORBITS(key, NEURON, 64)),
    "measures.SignPairs.__call__": (
        "measures.Independent.__call__",
        lambda key: measures.SignPairs()(key, NEURON, 64),
    ),
    "measures.Whitened.__call__": (
        "measures.Independent.__call__",
        lambda key: measures.Whitened()(key, NEURON, 32),
    ),
    "prompts.diabetes": ("prompts.from_table", lambda key: prompts.diabetes(key, **TABLE)),
}
# `diagnose` makes a certificate and checks assumptions; the zero encoder has no parameters; an estimate runs nothing.
DRAW_NOTHING_OF_THEIR_OWN = {"analysis.diagnose", "encoders.Zero.sample", "flows.memory_estimate"}


def takes_a_key(function):
    kinds = [get_args(parameter.annotation) for parameter in inspect.signature(function).parameters.values()]
    return any(all(kind in kinds_ for kind in get_args(PRNGKeyArray)) for kinds_ in kinds)


def public_samplers():
    """The name of every public function and method that takes a random key."""
    for room, (name, thing) in ((r, item) for r in ROOMS for item in vars(getattr(wgf, r)).items()):
        if name.startswith("_") or not getattr(thing, "__module__", "").startswith(f"wgf.{room}"):
            continue
        if not inspect.isclass(thing):
            if callable(thing) and takes_a_key(thing):
                yield f"{room}.{name}"
            continue
        for method in vars(thing):
            function = getattr(thing, method)
            shown = method in ("__init__", "__call__") or not method.startswith("_")
            abstract = getattr(function, "__isabstractmethod__", False)
            if shown and not abstract and inspect.isroutine(function) and takes_a_key(function):
                yield f"{room}.{name}.{method}"


def test_every_public_sampler_is_tried_here():
    assert set(public_samplers()) == {*SAMPLERS, *FORMS, *DRAW_NOTHING_OF_THEIR_OWN}


@pytest.fixture(scope="module")
def recorder():
    """A random generator that notes the key of all numbers that are drawn, and the notes."""
    plain, notes = jax.extend.random.threefry_prng_impl, set()

    def note(words):
        notes.update(map(tuple, np.asarray(words).reshape(-1, 2).tolist()))

    def random_bits(words, bit_width, shape):
        jax.debug.callback(note, words)
        return plain.random_bits(words, bit_width, shape)

    def key_data(key):
        words = shown(key)
        jax.debug.callback(note, words)
        return words

    implementation = jax.extend.random.define_prng_impl(
        key_shape=plain.key_shape,
        seed=plain.seed,
        split=plain.split,
        random_bits=random_bits,
        fold_in=plain.fold_in,
        name="recorded threefry",
        tag="recorded",
    )
    shown = jax.random.key_data
    with pytest.MonkeyPatch.context() as patch:
        # Sobol points are drawn by the host, from the key's words.
        patch.setattr(jax.random, "key_data", key_data)
        yield implementation, notes


@pytest.fixture(scope="module")
def drawn_from(recorder, tmp_path_factory):
    """Which keys a sampler draws from, as a function of its name and the user's key."""
    implementation, notes = recorder
    folder = tmp_path_factory.mktemp("cifar-10")

    def draw(sampler, child):
        key = jax.random.key(2024, impl=implementation)
        key = key if child is None else jax.random.split(key, 4)[child]
        notes.clear()
        jax.block_until_ready(jax.tree.leaves(sampler(key, folder) if sampler is cifar10 else sampler(key)))
        jax.effects_barrier()
        return frozenset(notes)

    return draw


@pytest.fixture(scope="module")
def owners():
    """Who draws from each key: the name of a sampler, and which child of the user's key it was called with."""
    return {}


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_no_key_is_refused(name, unchecked, tmp_path):
    for wrong, got in (
        (0, "a JAX random key; got (0|int)"),
        (jax.random.split(jax.random.key(0), 3), "one random key; got"),
    ):
        with pytest.raises(ValueError, match=f"`key` must be {got}"):
            SAMPLERS[name](wrong, *([tmp_path] if name == "prompts.cifar10" else []))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_draws_from_no_key_of_those_before_it(name, drawn_from, owners):
    """Called with the key that they had, or with one that is split from it."""
    for child in (None, 0, 1, 2):
        keys = drawn_from(SAMPLERS[name], child)
        assert keys
        shared = {owners[words] for words in keys & owners.keys()}
        assert not shared, (child, shared)
        owners |= dict.fromkeys(keys, (name, child))


@pytest.mark.parametrize("name", FORMS)
def test_another_form_of_a_sampler_draws_from_the_same_keys(name, drawn_from):
    other, sampler = FORMS[name]
    assert drawn_from(sampler, None) == drawn_from(SAMPLERS[other], None)


def test_purposes_have_names_of_their_own():
    """And hashes above the numbers that users fold in or split by: `split(key, n)[i]` is `fold_in(key, i)`."""
    root = Path(wgf.__file__).parent
    names = [
        name
        for path in root.rglob("*.py")
        for name in re.findall(r'purpose\(key, "(.*?)"', path.read_text(encoding="utf-8"))
    ]
    hashes = {zlib.crc32(name.encode()) for name in names}
    assert len(hashes) == len(set(names)) == len(names) > 20, sorted(names)
    assert min(hashes) > 2**20


@pytest.mark.parametrize("key", [jax.random.key(3), jax.random.PRNGKey(3)], ids=["typed", "raw"])
def test_a_purpose_is_the_same_under_transformations(key):
    expected = jax.random.normal(purpose(key, "a"), (3,))
    compiled = jax.jit(lambda k: jax.random.normal(purpose(k, "a"), (3,)))
    np.testing.assert_array_equal(compiled(key), expected)
    np.testing.assert_array_equal(jax.vmap(compiled)(key[None])[0], expected)
    assert not np.isin(expected, jax.random.normal(purpose(key, "b"), (3,))).any()


@pytest.mark.parametrize("inputs", ["uniform", "gaussian"])
@pytest.mark.parametrize("measure", ["layered", "spectral", "staged"])
def test_prompts_and_particles_of_one_key_are_uncorrelated(inputs, measure, key):
    """Prompts in the order in which they are drawn beside the particles of the first layer."""
    data = prompts.linear_regression(key, batch=64, examples=15, dim=4, inputs=inputs, positions=0)
    law = measures.Gaussian(Matrix(4))
    particles = {
        "layered": lambda: law.layered(2, 256, key),
        "spectral": lambda: law.spectral(2, 256, key),
        "staged": lambda: law.staged(256, key),
    }[measure]().particles[0]
    correlation = spearmanr(data.tokens[:, :4].ravel(), particles.ravel())[0]
    assert abs(correlation) < 5 / np.sqrt(particles.size), correlation


@pytest.mark.heavy
def test_the_first_gap_of_replicates_is_what_independent_keys_give():
    """A finite model and eight replicates of one key, as many write them: the squared gap of outputs at τ = 0."""
    encoder = encoders.Perceptron(5, jnp.tanh)
    law = measures.Gaussian(encoder, 0.7)

    def gaps(key):
        data = regression(key, batch=16, examples=4, dim=2)
        finite = wgf.Transformer(encoder, law.layered(4, 16, key))

        def gap(key):
            parts = jax.vmap(lambda k: law.spectral(3, 64, k).particles)(jax.random.split(key, 8))
            pooled = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(3, 512, *leaf.shape[3:]), parts)
            limit = wgf.AveragedODE(encoder, measures.Spectral(pooled), solver=diffrax.Heun(), steps=1)
            difference = (finite(data.tokens) - limit(data.tokens))[:, data.label_row, -1]
            return data.expect(difference**2)

        return gap(key), gap(jax.random.fold_in(key, 2**31))

    one, several = jax.jit(lambda keys: jax.lax.map(gaps, keys))(jax.random.split(jax.random.key(7), 600))
    # The same finite models in both: much of the scatter is common to them.
    excess = (one - several) / several.mean()
    error = excess.std() / np.sqrt(len(excess))
    assert error < 0.04
    assert abs(excess.mean()) < 3 * error, (excess.mean(), error)
