"""Wrong arguments of the public functions and of the command line: one clear message, before anything is compiled.

Each row of the tables is a call and the regular expression of its message.
"""

import functools
import json
from types import SimpleNamespace

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, averaged, in_float64, programs
from matplotlib.figure import Figure
from stubbed import Stub

import wgf
from wgf import _checks, analysis, cli, companions, encoders, flows, measures, objective, prompts, sharding, transport
from wgf.flows import RESULTS, FlowSolution

pytestmark = pytest.mark.usefixtures("unchecked")
KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 3)
HUGE, LARGE = 10**12, 2**31 - 1
TAUS = [0.0, 1.0]
REAL = np.dtype(jnp.result_type(float))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(5, 2)).astype(REAL), RNG.normal(size=(4, 2)).astype(REAL)
TABLE, TARGET = RNG.normal(size=(8, 3)), np.arange(8.0)
TOKENS = RNG.normal(size=(6, 5, 5)).astype(REAL)
IMAGES = np.zeros((2, 4, 4, 1), REAL)
GAPS, DEPTHS, WIDTHS = RNG.uniform(1, 2, (6, 3)), np.array([2, 2, 4, 4, 8, 8.0]), np.array([2, 4, 2, 4, 2, 4.0])
SYMBOLS = np.zeros((2, 3), int)
INPUTS = np.ones((2, 3, 2), REAL)

NO_KEY = "`key` must be a JAX random key; got .* Pass jax.random.key"
MANY_KEYS = r"`key` must be one random key; got an array of keys of shape \(3,\)"
COUNT = "must be a whole number of at least"
TOO_MANY = "must be a whole number of at most"
MEMORY = "must give arrays of at most .* GiB, a quarter of the memory; got .* Lower"
NUMBER = "must be a number or an array of numbers; got"


@pytest.fixture(autouse=True)
def _same_memory_everywhere(monkeypatch):
    """What one array may take, on any machine: 16 GiB."""
    monkeypatch.setattr(_checks, "_most_bytes", lambda: 2**34)


def drawn(encoder, *axes):
    """Particles without compiling a sampler."""
    particle = jax.eval_shape(lambda: encoder.sample(jax.random.key(0), ()))
    return jax.tree.map(lambda leaf: RNG.normal(size=(*axes, *leaf.shape)).astype(REAL), particle)


def solved(model, saves=2):
    """A solution of a flow that was not computed."""

    def repeated(leaf):
        return np.stack([np.asarray(leaf)] * saves) if eqx.is_array(leaf) else leaf

    zero = np.zeros(saves, REAL)
    return FlowSolution(
        taus=np.arange(saves, dtype=REAL),
        models=jax.tree.map(repeated, model),
        objective=zero,
        risk=zero,
        dissipation=zero,
        dissipated=zero,
        outputs=np.zeros((saves, 6), REAL),
        prompt_weights=np.full(6, 1 / 6, REAL),
        reached=np.ones(saves, bool),
        stats={},
        result=RESULTS.successful,
    )


@functools.cache
def its():
    """What the rows share."""
    encoder = averaged(5)
    data = prompts.Prompts(TOKENS, np.ones(6, REAL), label_row=2)
    finite = wgf.Transformer(encoder, measures.Layered(drawn(encoder, 2, 4)))
    limit = wgf.AveragedODE(encoder, measures.Spectral(drawn(encoder, 2, 4)))
    flow, limit_flow = solved(finite), solved(limit)
    return SimpleNamespace(
        encoder=encoder,
        law=measures.Gaussian(encoder),
        grid=measures.Gaussian(Matrix(1)),
        prompts=data,
        risk=wgf.Objective(data, 1e-3),
        finite=finite,
        limit=limit,
        flow=flow,
        limit_flow=limit_flow,
        replicates=analysis.Replicates(
            limit_flow, jax.tree.map(lambda x: np.stack([x] * 2) if eqx.is_array(x) else x, limit_flow)
        ),
        chain=prompts.MarkovChain(np.array([[0.8, 0.2], [0.3, 0.7]])),
        broken=limit.with_particles(jax.tree.map(lambda x: x * np.nan, limit.measure.particles)),
    )


def mean(**options):
    encoder = its().encoder
    arguments = {"particles": drawn(encoder, 3), "weights": np.full(3, 1 / 3, REAL), "tokens": TOKENS, **options}
    return encoder.mean(*arguments.values())


def called(**options):
    encoder = encoders.SoftmaxAttention(5, key_dim=2)
    return encoder(*{"particle": drawn(encoder), "tokens": TOKENS[0], **options}.values())


def made(**options):
    return prompts.Prompts(**{"tokens": TOKENS, "labels": np.ones(6), "label_row": 0, **options})


def regression(key=KEY, **options):
    return prompts.linear_regression(key, **{"batch": 2, "examples": 2, "dim": 2, **options})


def table(features=TABLE, target=TARGET, key=KEY, **options):
    return prompts.from_table(key, features, target, **{"batch": 2, "examples": 2, **options})


def patches(images=IMAGES, labels=(0, 1), key=KEY, **options):
    return prompts.patch_prompts(key, images, np.array(labels), **{"classes": 2, "patch": 2, **options})


def flow(**options):
    return wgf.flow(its().risk, its().finite, **{"taus": TAUS, **options})


def noisy(**options):
    return flow(**{"temperature": 1.0, "key": KEY, "dt0": 0.1, **options})


def run(**options):
    return wgf.run(its().risk, its().finite, TAUS, progress=False, **options)


def train(**options):
    return wgf.train(its().risk, its().finite, **{"optimiser": optax.sgd(0.1), "steps": 1, "key": KEY, **options})


def gap(**options):
    return wgf.gap(its().flow, its().limit_flow, **options)


def certificate(**options):
    return analysis.certificate(its().risk, its().limit, **{"key": KEY, **options})


def cubature(**options):
    return analysis.cubature(its().risk, its().limit_flow, its().limit.measure, **{"width": 2, **options})


def fit(**options):
    return analysis.fit_rates(**{"depths": DEPTHS, "widths": WIDTHS, "gaps": GAPS, **options})


def rate(times=(0.0, 1.0, 2.0), losses=(3.0, 2.0, 1.0), **options):
    return analysis.linear_rate(times, losses, **options)


def divergence(**options):
    return transport.sinkhorn_divergence(**{"x": X, "y": Y, "epsilon": 0.5, **options})


def conditional(depth_weights=(0.5, 0.5), **options):
    weights = depth_weights if isinstance(depth_weights, str | None) else np.array(depth_weights)
    return transport.conditional_divergence(np.stack([X, X]), np.stack([Y, Y]), weights, epsilon=0.5, **options)


def one_layer(**options):
    return companions.OneLayerTransformer.standard(**{"key": KEY, "length": 3, **options})


def residual(**options):
    return companions.ResidualTransformer(**{"dim": 2, "hidden": 4, "key": KEY, **options})


def rows(function, argument, *pairs):
    """One row for each wrong value of an argument."""
    return {
        f"{function.__name__} {argument} {number}": (functools.partial(function, **{argument: value}), message)
        for number, (value, message) in enumerate(pairs)
    }


def counts(function, *arguments, least=1):
    """Rows of what is no count: too small, too large, no whole number."""
    found = {}
    for argument in arguments:
        rule = f"`{argument}` {COUNT} {least}; got"
        wrong = [(least - 1, rule), (2.5, rule), ("2", rule)]
        found |= rows(function, argument, *wrong, (HUGE, f"`{argument}` {TOO_MANY} {LARGE}; got {HUGE}"))
    return found


def scalars(function, argument, positive="positive"):
    """Rows of what is no positive finite number."""
    wrong = [
        (np.nan, "finite"),
        (np.inf, "finite"),
        (-1.0, positive),
        ("a", "number"),
        (1j, "real"),
        ([1.0, 2.0], "one number|positive"),
    ]
    return rows(function, argument, *((value, f"`{argument}` must be .*({rule})") for value, rule in wrong))


def keys(function):
    """Rows of what is no random key."""
    return rows(function, "key", (0, NO_KEY), ("key", NO_KEY), (KEYS, MANY_KEYS))


def layered(key=KEY, depth=2, width=2):
    return its().law.layered(depth, width, key)


def spectral(key=KEY, nodes=2, width=2, **options):
    return its().law.spectral(nodes, width, key, **options)


def staged(key=KEY, width=2, **options):
    return its().law.staged(width, key, **options)


def sample(key=KEY, width=2):
    return its().law.sample(key, width)


def own_law(key=KEY, width=2):
    return measures.EncoderLaw(its().encoder).sample(key, width)


def chain(key=KEY, batch=2, length=3):
    return its().chain.sample(key, batch, length)


ENCODERS = {
    "a token of 10^9 numbers": (lambda: encoders.SoftmaxAttention(10**9, key_dim=2), f"`token_dim` {MEMORY}"),
    "keys of 10^12 numbers": (lambda: encoders.SoftmaxAttention(3, key_dim=HUGE), f"`key_dim` {TOO_MANY}"),
    "the class of a mask": (
        lambda: encoders.SoftmaxAttention(3, key_dim=2, mask=encoders.Causal),
        r"`mask` must be a mask .*; got the class Causal. Call the class: Causal\(",
    ),
    "a kernel's tokens": (lambda: encoders.KernelAttention(10**9, key_dim=2), f"`token_dim` {MEMORY}"),
    "a kernel's name": (lambda: encoders.KernelAttention(3, key_dim=2, kernel="relu"), "`kernel` must be a function"),
    "an activation's name": (lambda: encoders.Perceptron(3, "tanh"), "`activation` must be a function of an array"),
    "a bias 'no'": (lambda: encoders.Perceptron(3, use_bias="no"), "`use_bias` must be True or False; got 'no'"),
    "a reach of 10^12": (lambda: encoders.Convolution(3, reach=HUGE), f"`reach` {TOO_MANY}"),
    "a reach of 10^9": (lambda: encoders.Convolution(100, reach=10**9), f"`token_dim` and `reach` {MEMORY}"),
    "nothing to normalise": (lambda: encoders.LayerNorm(None), "`encoder` must be an encoder, .*; got None"),
    "ε = ∞": (lambda: encoders.LayerNorm(Matrix(3), epsilon=np.inf), "`epsilon` must be finite"),
    "ε = 0": (lambda: encoders.LayerNorm(Matrix(3), epsilon=0), "`epsilon` must be positive; got 0"),
    "nothing in chunks": (lambda: encoders.Chunked(None), "`encoder` must be an encoder"),
    "halves of two dimensions": (
        lambda: encoders.Average(encoders.SoftmaxAttention(4, key_dim=2), encoders.Perceptron(5)),
        "`h` must have the token dimension of `f`, 4; got 5",
    ),
    "a mask of a text": (lambda: encoders.Causal()("a"), f"`length` {COUNT} 1; got 'a'"),
    "a mask of 10^9 tokens": (lambda: encoders.Causal()(10**9), f"`length` {MEMORY}"),
    "a negative mask": (lambda: encoders.Banded(1)(-1), f"`length` {COUNT} 1; got -1"),
    "no mask": (lambda: encoders.Intersection(), "`masks` must be at least one mask"),
    **rows(mean, "tokens", ("abc", f"`tokens` {NUMBER} 'abc'"), (None, f"`tokens` {NUMBER} None")),
    **rows(mean, "tokens", (TOKENS * 1j, "`tokens` must be real"), (TOKENS[0], r"`tokens` must have shape \[B, D, N")),
    **rows(mean, "weights", ("w", f"`weights` {NUMBER} 'w'"), (None, f"`weights` {NUMBER} None")),
    **rows(mean, "particles", (None, "`particles` must have the structure and shapes of the encoder's own")),
    "an MLP as particles": (
        lambda: mean(particles=eqx.nn.MLP(1, 1, 1, 0, use_bias=False, key=KEY)),
        f"`particles` {NUMBER}",
    ),
    **rows(called, "tokens", ("abc", f"`tokens` {NUMBER} 'abc'"), (None, f"`tokens` {NUMBER} None")),
    **rows(called, "tokens", (TOKENS, r"`tokens` must be one prompt, of shape \[D, N\+1\]; got \(6, 5, 5\). For many")),
    **rows(called, "tokens", (TOKENS[0, 0], "`tokens` must be one prompt"), (TOKENS[0] * 1j, "`tokens` must be real")),
    **rows(called, "tokens", (TOKENS[0].astype(int), r"`tokens` must be of a floating type; got int\d\d. Pass `.asty")),
    **rows(called, "tokens", (TOKENS[0, :3], "`tokens` must have the token dimension D of SoftmaxAttention, 5; got 3")),
    **rows(called, "particle", ("abc", f"`particle` {NUMBER} 'abc'"), (None, "`particle` must have the structure")),
    **rows(
        called,
        "particle",
        (
            drawn(encoders.SoftmaxAttention(5, key_dim=2), 3),
            r"`particle` must .*\(5, 5\).* got .*\(3, 5, 5\).* Draw one",
        ),
        (tuple(drawn(encoders.SoftmaxAttention(5, key_dim=2))), "`particle` must have the structure"),
    ),
    "prompts under vmap": (
        lambda: jax.vmap(encoders.Perceptron(5), (None, 0))(drawn(encoders.Perceptron(5)), TOKENS[None]),
        "`tokens` must be one prompt",
    ),
    "no encoder": (
        lambda: encoders.plain_mean(None, drawn(its().encoder, 3), np.full(3, 1 / 3), TOKENS),
        "`encoder` must be an encoder",
    ),
    "a shape that is a number": (lambda: its().encoder.sample(KEY, 3), "`shape` must be a tuple of sizes.*; got 3"),
    "a negative shape": (lambda: its().encoder.sample(KEY, (-1,)), f"`shape` {COUNT} 0; got -1"),
    "a shape of 10^12": (lambda: its().encoder.sample(KEY, (HUGE,)), f"`shape` {TOO_MANY}"),
    "a shape of 10^12 in all": (lambda: its().encoder.sample(KEY, (10**6, 10**6)), f"`shape` {MEMORY}"),
    "the key of no encoder": (lambda: encoders.Zero().sample(0, (3,)), NO_KEY),
}

MEASURES = {
    **keys(layered) | keys(spectral) | keys(staged) | keys(sample) | keys(own_law),
    **counts(layered, "depth", "width") | counts(spectral, "width") | counts(staged, "width"),
    **counts(sample, "width") | counts(own_law, "width"),
    **rows(layered, "width", (LARGE, f"`depth` and `width` {MEMORY} `width`")),
    **rows(layered, "depth", (LARGE, f"`depth` and `width` {MEMORY} `depth`")),
    **rows(sample, "width", (LARGE, f"`width` {MEMORY} `width`")),
    **rows(spectral, "nodes", (10**6, f"`nodes` {TOO_MANY} 1000"), (0, f"`nodes` {COUNT} 1")),
    **rows(spectral, "rule", ("simpson", r"`rule` must be one of \('gauss'"), ([1], r"`rule` must be .* got \[1\]")),
    **rows(staged, "steps", (10**8, f"`steps` {TOO_MANY} 1000000"), (0, f"`steps` {COUNT} 1")),
    **rows(staged, "joint", ("yes", "`joint` must be True or False; got 'yes'")),
    **rows(staged, "solver", ("tsit5", "`solver` must be an explicit Runge–Kutta"), (diffrax.Tsit5(), "`solver` must")),
    "10^6 layers of 10^6": (lambda: layered(depth=10**6, width=10**6), f"`depth` and `width` {MEMORY}"),
    "a sampling's name": (lambda: measures.Gaussian(Matrix(2), sampling="sobol"), "`sampling` must be a samp.*'sobol'"),
    "a sampling's class": (
        lambda: measures.Gaussian(Matrix(2), sampling=measures.Sobol),
        r"`sampling` must be a sampling.*; got the class Sobol. Call the class: Sobol\(",
    ),
    "no encoder": (lambda: measures.Gaussian(None), "`encoder` must be an encoder, .*; got None"),
    **{
        f"the scale {scale} of {kind.__name__}": (functools.partial(kind, Matrix(2), scale), f"`scale` must be {rule}")
        for kind in (measures.Gaussian, measures.EncoderLaw)
        for scale, rule in [(0, "positive"), (-1, "positive"), (np.nan, "positive"), ("a", "a number"), (None, "a num")]
    },
    "two scales": (lambda: measures.Gaussian(Matrix(2), np.ones(2)), r"`scale` must be one number; got .*\(2,\)"),
    "particles without numbers": (
        lambda: measures.Gaussian(encoders.Zero()).sample(KEY, 2),
        "`encoder` must have particles with at least one parameter",
    ),
    "flips that are a text": (lambda: measures.SignOrbits("f"), "`flips` must be sets of names"),
    "flips that are no sets": (lambda: measures.SignOrbits(("f.value",)), "`flips` must be sets of names"),
    "no flips": (lambda: measures.SignOrbits(None), "`flips` must be sets of names of coordinates.*; got None"),
    "particles beyond Sobol": (
        lambda: measures.Sobol()(KEY, encoders.Perceptron(20000), 2),
        "`sampling` by Sobol takes particles of at most 21201 numbers; got 40001",
    ),
    "a sampling of no encoder": (lambda: measures.Independent()(KEY, None, 4), "`encoder` must be an encoder"),
    "a sampling of nothing": (lambda: measures.Independent()(KEY, Matrix(2), 0), f"`width` {COUNT} 1; got 0"),
    "half a pair": (lambda: measures.SignPairs()(KEY, averaged(2), 2.0), f"`width` {COUNT} 1; got 2.0"),
    "particles that are None": (lambda: measures.Layered(None), "`particles` must be arrays that share leading axes"),
    "particles that are a number": (lambda: measures.Layered(3.0), "`particles` must be arrays that share"),
    "particles that are an MLP": (lambda: measures.Layered(eqx.nn.MLP(1, 1, 1, 0, key=KEY)), "`particles` must be"),
    "NaN particles": (lambda: measures.Layered(np.full((2, 3), np.nan)), "`particles` must be finite; got 6 entries"),
    "no particles": (lambda: measures.Layered(np.ones((2, 0, 3))), "`particles` must be arrays .* not empty"),
    "negative weights": (lambda: measures.Layered(np.ones((2, 3)), [2.0, -1, 0]), "`weights` must be non-negative"),
    "weights of sum 3": (lambda: measures.Layered(np.ones((2, 3)), np.ones(3)), "`weights` must be .* with sum 1"),
    "stages that do not fit": (lambda: measures.Staged(np.ones((3, 2))), "`particles` must have 8 nodes"),
    "depth 2": (lambda: its().finite.measure.at(2.0), r"`depth` must lie in \[0, 1\].*; got 2.0"),
    "depth NaN": (lambda: its().limit.measure.at(np.nan), r"`depth` must lie in \[0, 1\].*; got nan"),
    "a depth that is a text": (lambda: its().finite.measure.at("a"), f"`depth` {NUMBER} 'a'"),
    "many depths": (lambda: its().limit.measure.at([0.1, 0.2]), r"`depth` must be one number; got an array of shape"),
    "coordinates of a text": (lambda: measures.coordinates("a"), f"`particles` {NUMBER} 'a'"),
    "coordinates of nothing": (lambda: measures.coordinates(None), "`particles` must hold arrays with axes"),
    "too few coordinates": (
        lambda: measures.at_coordinates(np.ones((2, 3, 4)), its().finite.measure.particles),
        "`vectors` must have 56 coordinates along the last axis, as `like`; got shape",
    ),
    "names of nothing": (lambda: measures.coordinate_names(None), "`encoder` must be an encoder"),
    "names of a class": (lambda: measures.coordinate_names(Matrix), "`encoder` must be an encoder.*the class Matrix"),
    "10^9 cells": (lambda: its().grid.eulerian(100, [LARGE], -1.0, 1.0), f"`nodes` and `cells` {MEMORY} `cells`"),
    "10^12 cells": (lambda: its().grid.eulerian(2, [HUGE], -1.0, 1.0), f"`cells` {TOO_MANY}"),
    "one cell": (lambda: its().grid.eulerian(2, [1], -1.0, 1.0), f"`cells` {COUNT} 2; got 1"),
    "a box from NaN": (lambda: its().grid.eulerian(2, [4], np.nan, 1.0), "`lower` must be finite"),
    "a rule in a box": (lambda: its().grid.eulerian(2, [4], -1.0, 1.0, rule="a"), "`rule` must be one of"),
    "weights that are a text": (
        lambda: measures.Eulerian(np.array([[0.0]]), np.array([[1.0]]), "w"),
        f"`weights` {NUMBER} 'w'",
    ),
}

MODELS = {
    "a Transformer of no encoder": (lambda: wgf.Transformer(None, its().finite.measure), "`encoder` must be an enc"),
    "a Transformer of no measure": (
        lambda: wgf.Transformer(its().encoder, None),
        "`measure` must be a wgf.measures.La",
    ),
    "a Transformer of the limit's": (
        lambda: wgf.Transformer(its().encoder, its().limit.measure),
        "`measure` must be a",
    ),
    "a controller's name": (
        lambda: wgf.AveragedODE(its().encoder, its().limit.measure, controller="pid"),
        "`controller` must be a step size controller of Diffrax, .*; got 'pid'",
    ),
    "no controller": (
        lambda: wgf.AveragedODE(its().encoder, its().limit.measure, controller=None),
        "`controller` must be a step size controller of Diffrax, .*; got None",
    ),
    "10^12 steps in depth": (
        lambda: wgf.AveragedODE(its().encoder, its().limit.measure, steps=HUGE),
        f"`steps` {TOO_MANY}",
    ),
    "measure and encoder swapped": (
        lambda: wgf.AveragedODE(its().limit.measure, its().encoder),
        "`measure` must be a measure over depth",
    ),
    "another encoder's measure": (
        lambda: wgf.Transformer(averaged(4), its().finite.measure)(TOKENS),
        "`particles` must have the structure and shapes of the encoder's own",
    ),
    "the tokens of another encoder": (
        lambda: wgf.Transformer(averaged(4), measures.Layered(drawn(averaged(4), 2, 3)))(TOKENS),
        "`tokens` must have the token dimension D of .*, 4; got 5",
    ),
    "particles of nothing": (lambda: its().finite.with_particles(None)(TOKENS), "`particles` must have the leading"),
    "complex tokens": (lambda: its().finite(TOKENS * 1j), "`tokens` must be real"),
    "prompts as tokens": (lambda: its().finite(its().prompts), f"`tokens` {NUMBER}"),
    "depths beyond 1": (lambda: its().finite.trajectory(TOKENS, [2.0]), r"`depths` must lie in \[0, 1\]"),
    "one depth": (lambda: its().finite.trajectory(TOKENS, 0.5), "`depths` must be a vector of depths"),
    "an adjoint to a text": (lambda: its().limit.adjoint(TOKENS, "a"), "`terminal` must be a function of the final t"),
    "an adjoint to nothing": (lambda: its().finite.adjoint(TOKENS, None), "`terminal` must be a function.*; got None"),
    "tracers that are None": (lambda: its().limit.with_tracers(None), "`with_tracers` takes models .*; got NoneType"),
}

PROMPTS = {
    **rows(made, "tokens", (None, f"`tokens` {NUMBER} None"), (TOKENS * 1j, "`tokens` must be real")),
    **rows(made, "tokens", (TOKENS * np.nan, "`tokens` must be finite; got 150"), (TOKENS[0], "`tokens` must have sh")),
    **rows(made, "labels", (None, f"`labels` {NUMBER} None"), (["a"] * 6, f"`labels` {NUMBER}")),
    **rows(made, "labels", (np.ones(6) * 1j, "`labels` must be real"), (np.ones(6) * np.nan, "`labels` must be fin")),
    **rows(made, "labels", (np.ones((6, 0)), "`labels` must have shape"), ([10**30] * 6, f"`labels` {NUMBER}")),
    **rows(made, "labels", ([[1], [1, 2]], f"`labels` {NUMBER}"), (np.ones((6, 2, 2)), "`labels` must have shape")),
    **rows(made, "weights", (np.ones(6), "`weights` must be .* with sum 1"), ("a", f"`weights` {NUMBER} 'a'")),
    **rows(made, "label_row", (5, "`label_row` must be a row of the tokens"), (-1, f"`label_row` {COUNT} 0")),
    "a draw of none": (lambda: its().prompts.draw(KEY, 0), f"`size` {COUNT} 1; got 0"),
    "a draw of 10^12": (lambda: its().prompts.draw(KEY, HUGE), f"`size` {TOO_MANY}"),
    "a draw of 10^9": (lambda: its().prompts.draw(KEY, LARGE), f"`size` {MEMORY} `size`"),
    "a draw without a key": (lambda: its().prompts.draw(0, 2), NO_KEY),
    "the mean of a text": (lambda: its().prompts.expect("a"), f"`values` {NUMBER} 'a'"),
    "the mean of three": (lambda: its().prompts.expect(np.ones(3)), r"`values` must have shape \[B\] = \(6,\); got"),
    **counts(regression, "batch", "examples", "dim") | counts(regression, "positions", least=0) | keys(regression),
    **rows(regression, "dim", (10**9, f"`batch`, `examples` and `dim` {MEMORY} `dim`")),
    **rows(regression, "batch", (LARGE, f"`batch`, `examples` and `dim` {MEMORY} `batch`")),
    **rows(regression, "inputs", ("normal", "`inputs` must be one of"), (None, "`inputs` must be one of .*; got None")),
    **rows(
        regression, "noise", (np.nan, "`noise` must be finite"), (-1, "`noise` must be .*; got -1"), ("a", "`noise`")
    ),
    **rows(table, "features", (None, "`features` must be an array of real numbers; got None"), ("abc", "`features`")),
    **rows(table, "features", (TABLE * 1j, "`features` must be .* real numbers; got complex"), (TABLE * np.nan, "fin")),
    **rows(table, "features", ([["a"]] * 8, "`features` must be an array of real"), (TARGET, "`features` must have")),
    **rows(table, "target", (None, "`target` must be an array of real"), (TARGET * 1j, "`target` must be .*complex")),
    **rows(
        table, "target", (np.ones(8), "`target` must vary, to be learnt; got 1.0 in all 8"), (TARGET[:3], "`target`")
    ),
    **rows(table, "examples", (8, "`examples` must be below the table's number of rows, 8")) | keys(table),
    **rows(table, "dim", (4, "`dim` must be at most the table's number of feature columns, 3")),
    **rows(table, "batch", (LARGE, f"`batch`, `examples` and `dim` {MEMORY}"), (0, f"`batch` {COUNT} 1")),
    "a folder as CSV": (lambda: prompts.read_csv("/", "y"), "`path` must be a file that can be read; got /: Is a dir"),
    "no path": (lambda: prompts.read_csv(None, "y"), "`path` must be the path of a file; got None"),
    "a number as path": (lambda: prompts.read_csv(3, "y"), "`path` must be the path of a file; got 3"),
    "a path with zeros": (lambda: prompts.read_csv("a\0b", "y"), "`path` must be a file that can be read"),
    "a column by number": (lambda: prompts.read_csv("a.csv", 1), "`target` must be the name of a column; got 1"),
    "a folder of images that is None": (lambda: prompts.cifar10(KEY, None), "`root` must be the path of a folder"),
    "no chain": (lambda: prompts.MarkovChain(None), f"`transition` {NUMBER} None"),
    "a chain of ones": (lambda: prompts.MarkovChain(np.ones((2, 2))), "`transition` must be non-negative with sum 1"),
    "a complex chain": (lambda: prompts.MarkovChain(np.eye(2) * 1j), "`transition` must be real"),
    "a chain of many wrong rows": (lambda: prompts.MarkovChain(np.ones((300, 300))), r"sums \[300.0, .*\.\.\.\]"),
    "a switch of 2": (lambda: prompts.MarkovChain.binary(2, 0.1), "`p` must be a probability, 0 to 1; got 2"),
    "a switch of NaN": (lambda: prompts.MarkovChain.binary(0.1, np.nan), "`q` must be finite"),
    **counts(chain, "batch", "length") | keys(chain),
    **rows(chain, "batch", (LARGE, f"`batch` and `length` {MEMORY}")),
    "laws after a text": (lambda: its().chain.next_laws("ab"), f"`tokens` {NUMBER} 'ab'"),
    "laws after one number": (lambda: its().chain.next_laws(1), "`tokens` must have an axis of positions"),
    "sequences of no chain": (
        lambda: prompts.next_tokens(KEY, None, batch=2, length=3),
        "`chain` must be a wgf.prompts.MarkovChain; got None",
    ),
    "symbols that are a text": (lambda: prompts.symbol_tokens("ab", 2), f"`symbols` {NUMBER} 'ab'"),
    "one sequence": (lambda: prompts.symbol_tokens(SYMBOLS[0], 2), r"`symbols` must have shape \[B, N\+1\]"),
    "a workspace of 10^9": (lambda: prompts.symbol_tokens(np.zeros((1, 9), int), 2, workspace=LARGE), MEMORY),
    **rows(patches, "images", (None, f"`images` {NUMBER} None"), (IMAGES[..., 0], "`images` must have shape")),
    **rows(patches, "images", (IMAGES * 1j, "`images` must be real"), (IMAGES * np.nan, "`images` must be finite")),
    **rows(patches, "labels", ([0.0, 1.0], "`labels` must be classes"), ([0, 2], "`labels` must be classes 0 to 1")),
    **rows(patches, "labels", ([0, 1, 1], r"`labels` must have shape \[B\]"), ([], "`labels` must be classes")),
    **rows(patches, "classes", (1, f"`classes` {COUNT} 2"), (HUGE, f"`classes` {TOO_MANY}")),
    **rows(patches, "patch", (3, "`patch` must divide the images' height and width"), (0, f"`patch` {COUNT} 1")),
    "images that are None": (
        lambda: prompts.split_prompts(KEY, None, None, classes=2, patch=2),
        "`train` must be images .* and labels .*; got None",
    ),
}

OBJECTIVES = {
    **{
        f"a weight decay of {value}": (
            lambda value=value: wgf.Objective(its().prompts, value),
            "`weight_decay` must be",
        )
        for value in (np.nan, np.inf, -1, "a", None, 1j)
    },
    "no prompts": (lambda: wgf.Objective(None), "`prompts` must be a wgf.prompts.Prompts; got None"),
    "prompts that come second": (lambda: wgf.Objective(1e-3, its().prompts), "`prompts` must be a wgf.prompts.Prompts"),
    "a loss's name": (lambda: wgf.Objective(its().prompts, loss="mse"), "`loss` must be a loss, .*; got 'mse'"),
    "a row as readout": (lambda: wgf.Objective(its().prompts, readout=3), "`readout` must be a readout, .*; got 3"),
    "a row beyond the tokens": (
        lambda: wgf.Objective(its().prompts, readout=objective.QueryEntry(9)),
        "`readout` must read a row below the token dimension 5; got 9",
    ),
    "numbers as classes": (
        lambda: wgf.Objective(its().prompts, loss=objective.CrossEntropy()),
        "`loss` CrossEntropy takes outputs",
    ),
    **{
        f"{name} of {value!r:.20}": (
            lambda name=name, value=value: getattr(its().risk, name)(value),
            "`model` must be a wgf.Transformer or a wgf.AveragedODE; got",
        )
        for name in ("__call__", "risk", "outputs", "penalty", "adjoint", "first_variation")
        for value in (None, "a", wgf.Transformer)
    },
    "the score of a text": (lambda: its().risk.score("a"), f"`outputs` {NUMBER} 'a'"),
    "the score of three outputs": (lambda: its().risk.score(np.ones(3)), "`outputs` must have the shape of the read"),
    "a minibatch of none": (lambda: its().risk.minibatch(KEY, 0), f"`size` {COUNT} 1; got 0"),
}

FLOWS = {
    "flow with model and objective swapped": (
        lambda: wgf.flow(its().finite, its().risk, TAUS),
        "`objective` must come before `model`; got them in the other order. Swap the two",
    ),
    "train with model and objective swapped": (
        lambda: wgf.train(its().limit, its().risk, optax.sgd(0.1), steps=1),
        "`objective` must come before `model`",
    ),
    "a flow of nothing": (lambda: wgf.flow(its().risk, None, TAUS), "`model` must hold at least one array"),
    **{
        f"{name} of NaN": (
            lambda call=call: call(its().broken),
            r"`model` must be finite; got (\d+) of \1 entries .* in `measure.particles.f.value`. Draw new",
        )
        for name, call in {
            "a flow": lambda model: wgf.flow(its().risk, model, TAUS),
            "a run": lambda model: wgf.run(its().risk, model, TAUS),
            "training": lambda model: wgf.train(its().risk, model, optax.sgd(0.1), steps=1),
            "the velocity": lambda model: wgf.velocity(its().risk, model),
            "the first variation": lambda model: its().risk.first_variation(model),
            "the memory": lambda model: wgf.memory_estimate(its().risk, model, TAUS),
        }.items()
    },
    "memory in a jit": (
        lambda: jax.jit(lambda taus: wgf.memory_estimate(its().risk, its().finite, taus).peak)(np.array(TAUS)),
        "`objective`, `model` and the options must hold known numbers; got traced ones. Call `memory_estimate` outside",
    ),
    **rows(
        flow, "taus", (None, f"`taus` {NUMBER} None"), (1.0, "`taus` must be a vector"), ([0.0], "`taus` must be a")
    ),
    **rows(flow, "taus", ([1.0, 0.0], r"`taus` must increase; got \[1.0, 0.0\]"), ([0, np.nan], "`taus` must be fin")),
    **rows(
        flow, "taus", (np.zeros(10**5), r"`taus` must increase; got \[0.0, .*\.\.\.\]"), ([0, 1j], "`taus` must be r")
    ),
    **scalars(flow, "rtol") | scalars(flow, "atol") | scalars(flow, "dt0") | scalars(flow, "steady"),
    **rows(flow, "rtol", (1e30, r"`rtol` must be at most 1, a share of the whole; got 1e\+30"), (None, "`rtol` must")),
    **rows(flow, "steady", (2.0, "`steady` must be at most 1"), (0.0, "`steady` must be positive")),
    **scalars(noisy, "temperature", "not negative"),
    **rows(noisy, "key", (None, "`key` must be given with `temperature` > 0"), (0, NO_KEY), (KEYS, MANY_KEYS)),
    **rows(noisy, "dt0", (None, "`dt0`, the constant step, must be given")),
    **rows(noisy, "solver", (diffrax.Tsit5(), "`solver` must solve stochastic differential equations")),
    **counts(flow, "max_steps"),
    **rows(flow, "key", ("a", NO_KEY)) | rows(flow, "solver", ("tsit5", "`solver` must be a Diffrax solver")),
    **rows(flow, "throw", ("no", "`throw` must be True or False; got 'no'"), (None, "`throw` must be True or False")),
    **counts(run, "segment_steps", "max_steps"),
    **rows(run, "time_limit", (0, "`time_limit` must be a positive"), (np.nan, "`time_limit`"), ("a", "`time_limit`")),
    **rows(run, "checkpoint_every", (-1, "`checkpoint_every` must be a positive"), (np.nan, "`checkpoint_every` must")),
    **rows(run, "directory", (3, "`directory` must be the path of a folder; got 3"), (b"a", "`directory` must be the")),
    **rows(run, "directory", ("a\0b", "`directory` must be the path of a folder"), ("/dev/null", "`directory` m")),
    **rows(run, "throw", ("no", "`throw` must be True or False")),
    **counts(train, "steps", "save_every", "batch") | rows(train, "throw", ("no", "`throw` must be True or False")),
    **rows(train, "optimiser", ("adam", "`optimiser` must be an Optax gradient transformation"), (None, "`optimiser`")),
    "10^9 saves of training": (lambda: train(steps=10**9, save_every=1), f"`steps` {MEMORY}"),
    "updates that are not saved": (lambda: train(steps=3, save_every=2), "`save_every` must divide `steps` = 3; got 2"),
    "many flows of one model": (lambda: wgf.flow_many(its().risk, its().finite, TAUS), "`models` must be a list of"),
    "replicates of one": (
        lambda: wgf.flow_replicates(its().risk, [its().limit], TAUS),
        "`models` must hold at least t",
    ),
    "tracers that are no list": (
        lambda: wgf.flow_replicates(its().risk, [its().limit] * 2, TAUS, tracers=its().finite),
        "`tracers` must be a list of measures or models",
    ),
    "replicates of two widths": (
        lambda: analysis.pool(
            [its().limit, wgf.AveragedODE(its().encoder, measures.Spectral(drawn(its().encoder, 2, 3)))]
        ),
        r"`models` must differ only .*; got float\d\d\[2, 3.* in replicate 1, and float\d\d\[2, 4.* in the first",
    ),
    **{
        f"the model at {index}": (lambda index=index: its().flow.model_at(index), "`index` must be one of 2 saves")
        for index in (5, 0.5, "a", None, True, np.nan)
    },
    **{
        f"{name} of a solution without models": (
            lambda call=call: call(eqx.tree_at(lambda s: s.models, its().flow, None)),
            f"`{argument}` must hold its models; a solution that was read with a result holds none",
        )
        for name, call, argument in (
            ("a model", lambda solution: solution.model_at(0), "solution"),
            ("a gap", lambda solution: wgf.gap(solution, its().flow), "finite"),
            ("a map", lambda solution: wgf.plot.depth_map(Figure().subplots(), solution), "solution"),
            ("a law", lambda solution: wgf.plot.moving_law(Figure().subplots(), solution, its().flow), "finite"),
        )
    },
    **{
        f"{name} of replicates without models": (
            lambda call=call: call(
                eqx.tree_at(lambda r: (r.pooled.models, r.members.models), its().replicates, (None,) * 2)
            ),
            "`replicates` must hold its models",
        )
        for name, call in (
            ("the noise", analysis.noise),
            ("the error", lambda replicates: replicates.transport_error()),
            ("the members", lambda replicates: replicates.members_in_pooled_field()),
        )
    },
    "a result that is none": (lambda: wgf.experiments.save("limit", 3), "`result` must be the result of a study"),
    "a result under no name": (
        lambda: wgf.experiments.save("../evil", Stub(wgf.experiments.LimitConfig())),
        r"`experiment` must be the name of a study, e\.g\. 'limit'; got '\.\./evil'",
    ),
    **{
        f"{name} of {place}": (
            lambda call=call, place=place: call(place),
            f"`{argument}` must be a path; got ",
        )
        for place in (None, 3, b"here")
        for name, call, argument in (
            ("a result", wgf.experiments.load, "folder"),
            ("a file to read", lambda place: wgf.load(place, its().flow), "path"),
            ("a file to write", lambda place: wgf.save(place, its().flow), "path"),
        )
    },
    "the last model of all replicates": (
        lambda: its().replicates.members.model_at(-1),
        r"`model_at` takes one solution; got solutions with axes \(2, 2\)",
    ),
    "one stage": (lambda: flows.RKC(1), f"`max_stages` {COUNT} 2; got 1"),
    "10^5 stages": (lambda: flows.RKC(10**5), f"`max_stages` {TOO_MANY} 1000"),
    "a Courant number of NaN": (
        lambda: flows.CourantController(diffrax.PIDController(1e-3, 1e-3), np.nan),
        "`aim` must be above 0 and at most 1; got nan",
    ),
}

ANALYSIS = {
    "finite and limit swapped": (
        lambda: wgf.gap(its().limit_flow, its().flow),
        "`finite` must be the flow of a wgf.Transformer, and `limit` .* in the other order",
    ),
    "no flow": (lambda: wgf.gap(None, its().limit_flow), "`finite` must be a solution of wgf.flow; got None"),
    "other times": (lambda: wgf.gap(solved(its().finite, 3), its().limit_flow), "`limit` must be solved at the taus"),
    **scalars(gap, "epsilon") | rows(gap, "epsilon", (0.0, "`epsilon` must be positive; got 0.0")),
    **counts(gap, "most_depths") | rows(gap, "unpaired", ("no", "`unpaired` must be True or False; got 'no'")),
    **rows(gap, "mesh", ("a", "`mesh` must be a mesh of devices"))
    | rows(gap, "noise", (0, "`noise` must be the noise")),
    "the noise of one": (lambda: analysis.noise(its().limit_flow), "`replicates` must be a solution of wgf.flow_repl"),
    "noise on no mesh": (lambda: analysis.noise(its().replicates, mesh="a"), "`mesh` must be a mesh of devices"),
    "noise of no name": (
        lambda: analysis.Noise(2, *[np.ones(2)] * 7).resolves("foo", np.ones(2)),
        r"`name` must be one of \('objective', .*; got 'foo'",
    ),
    **{
        f"a confidence of {value}": (lambda value=value: analysis.student_quantile(3, value), "`confidence` must")
        for value in (0.0, 2.0, np.nan, "a", None)
    },
    "the quantile of one": (lambda: analysis.student_quantile(1), f"`replicates` {COUNT} 2; got 1"),
    **counts(certificate, "starts", least=2) | counts(certificate, "max_steps") | keys(certificate),
    **scalars(certificate, "radius") | rows(certificate, "starts", (LARGE, f"`starts` {MEMORY}")),
    **rows(certificate, "depths", ([2.0], r"`depths` must lie in \[0, 1\]"), ([], "`depths` must be a vector")),
    "a certificate of NaN": (
        lambda: analysis.certificate(its().risk, its().broken, key=KEY),
        "`model` must be finite; got .* entries that are NaN",
    ),
    "a certificate, swapped": (lambda: analysis.certificate(its().limit, its().risk, key=KEY), "`objective` must be a"),
    "3 samples": (lambda: analysis.check_assumptions(its().encoder, its().prompts, key=KEY, samples=3), COUNT),
    "10^9 samples": (
        lambda: analysis.check_assumptions(its().encoder, its().prompts, key=KEY, samples=LARGE),
        f"`samples` {MEMORY}",
    ),
    "assumptions, swapped": (
        lambda: analysis.check_assumptions(its().prompts, its().encoder, key=KEY),
        "`encoder` must",
    ),
    "a gap that is a text": (
        lambda: analysis.diagnose(its().risk, its().flow, gap="a", key=KEY),
        "`gap` must be the gap",
    ),
    **rows(
        cubature, "share", (-1.0, "`share` must be above 0 and at most 1; got -1"), (5.0, "`share` must be above 0")
    ),
    **rows(
        cubature, "share", (np.nan, "`share` must be above 0 and at"), ("a", f"`share` {NUMBER}"), (None, "`share`")
    ),
    **rows(cubature, "width", (9, "`width` must be at most the width of the base"), (0, f"`width` {COUNT} 1")),
    "the cubature of a finite model": (
        lambda: analysis.cubature(its().risk, its().flow, its().finite.measure, 2),
        "`pilot` must be the flow of a wgf.AveragedODE",
    ),
    **rows(rate, "losses", ("a", "`losses` must be an array of real"), ([1, 1j, 2], "`losses` must be .*complex")),
    **rows(rate, "losses", ([1, -1, 1], "`losses` must be at least three positive"), ([1, np.nan, 1], "`losses` must")),
    **rows(
        rate,
        "times",
        ([1, 1, 1], "`times` and `losses` must be vectors"),
        ([1, np.nan, 3], "`times` and"),
        ("a", "`times` must be an array"),
    ),
    **rows(rate, "decades", (np.nan, "`decades` must be finite and not negative"), ("a", f"`decades` {NUMBER}")),
    **rows(
        fit, "depths", ("a", "`depths` must be an array of real"), (-DEPTHS, "`depths` must be positive and finite")
    ),
    **rows(fit, "widths", (WIDTHS * np.nan, "`widths` must be positive"), (WIDTHS * 0, "`widths` must be positive")),
    **rows(
        fit, "gaps", (-GAPS, "`gaps` must be positive"), (GAPS * 1j, "`gaps` must be .*complex"), (GAPS[:5], "must be")
    ),
    **counts(fit, "resamples", least=2) | rows(fit, "seed", (-1, f"`seed` {COUNT} 0"), ("a", f"`seed` {COUNT} 0")),
}

TRANSPORT = {
    **rows(divergence, "x", (None, "`x` must be an array of numbers; got None"), ("a", "`x` must be an array of num")),
    **rows(divergence, "y", ([[1.0], [1.0, 2.0]], "`y` must be an array of numbers"), (KEY, "`y` must hold numbers")),
    **rows(
        divergence, "x", (X * np.nan, "`x` must be finite; got 10"), (X + 0j, "`x` must hold numbers of float32 or")
    ),
    **scalars(divergence, "epsilon") | rows(divergence, "epsilon", (0.0, "`epsilon` must be pos"), (int, "`epsilon`")),
    **scalars(divergence, "threshold") | rows(divergence, "threshold", (None, "`threshold` must")),
    **rows(
        divergence, "x_weights", ("a", "`x_weights` must be an array"), (np.ones(5) * 1j, "`x_weights` must be rea")
    ),
    **rows(divergence, "max_iterations", (0, f"`max_iterations` {COUNT} 1"), (10**9, f"`max_iterations` {TOO_MANY}")),
    **counts(divergence, "block") | rows(divergence, "initial", ("a", "`initial` must be the `potentials` of")),
    **rows(divergence, "tau_a", (0, "`tau_a` must be a number above 0"), ("a", f"`tau_a` {NUMBER}"), (None, "`tau_a`")),
    **rows(
        divergence, "tau_b", (np.nan, "`tau_b` must be a number above 0"), (2.0, "`tau_b` must be"), (1j, "`tau_b`")
    ),
    **rows(divergence, "cost_fn", ("l2", "`cost_fn` must be a cost function of OTT; got 'l2'")),
    **rows(conditional, "depth_weights", ([1.0, 2.0], "`depth_weights` must have sum 1; got 3"), ([2, -1], "not neg")),
    **rows(conditional, "depth_weights", (None, "`depth_weights` must be an array"), ([0.5, 0.5j], "must be real")),
    **rows(conditional, "mesh", ("a", "`mesh` must be a mesh of devices")),
    **{
        f"a fraction of {value}": (lambda value=value: transport.epsilon_from_scale(X, value), "`fraction` must")
        for value in (0.0, 1.0, np.nan, "a", None, 1j, np.ones(2))
    },
    "the scale of nothing": (lambda: transport.epsilon_from_scale(None), "`cloud` must be an array of numbers"),
    "weights of sum 5": (
        lambda: transport.gelbrich_distance(X, Y, x_weights=np.ones(5)),
        "`x_weights` must be non-neg",
    ),
    "no cloud": (lambda: transport.gelbrich_distance(None, Y), "`x` must be an array of numbers; got None"),
    "models as measures": (
        lambda: transport.coupling_distance(its().finite, its().finite),
        "`measure` must be a measure over depth",
    ),
}


def mesh(**options):
    return sharding.mesh(devices=jax.devices()[:1], **options)


SHARDING = {
    **counts(mesh, "prompts", "particles"),
    "a device twice": (
        lambda: sharding.mesh(prompts=2, devices=[jax.devices()[0]] * 2),
        "`devices` must be different devices",
    ),
    "no devices": (lambda: sharding.mesh(devices=[]), "`prompts` x `particles` must be the number of devices, 0"),
    "no mesh": (lambda: sharding.shard(its().risk, None), "`mesh` must be a mesh of devices, .*; got None"),
    **{
        f"the mesh {text!r:.25}": (lambda text=text: sharding.parse_mesh(text), f"`mesh` {rule}")
        for text, rule in [
            (None, "must be of the form"),
            ("", "must be of the form"),
            ("x=1", "must be of the form"),
            ("prompts=²", "must be of the form"),
            ("prompts=" + "9" * 5000, "must be of the form"),
            ("prompts=1,prompts=1", "must name each axis once"),
        ]
    },
    **{
        f"the processes {text!r:.25}": (lambda text=text: sharding.start_processes(text), f"`distributed` must {rule}")
        for text, rule in [
            (None, "be auto or"),
            ("a", "be auto or"),
            (":1,2,0", "be auto or"),
            ("h:x,2,0", "be auto or"),
            ("h:1,²,0", "be auto or"),
            ("h:1,2,2", "have a port"),
            ("h:99999,2,0", "have a port"),
        ]
    },
}

COMPANIONS = {
    **{
        f"p = {value}": (lambda value=value: companions.CanonicalRisk(value, 0.2), "`p` must")
        for value in (0, 1, np.nan, "a", None, 0.1j, np.ones(2))
    },
    "two points": (
        lambda: companions.CanonicalMarkov(np.ones(2), 0.1),
        "`e` must be one number; got an array of shape",
    ),
    "a point of NaN": (lambda: companions.CanonicalMarkov(0.1, np.nan), "`w` must be finite"),
    "the risk of nothing": (lambda: companions.CanonicalRisk(0.1, 0.2)(None), "`model` must be a wgf.companions.Canon"),
    **counts(one_layer, "length", "dim", "hidden") | keys(one_layer) | scalars(one_layer, "scale"),
    **rows(one_layer, "length", (LARGE, f"`length` and `dim` {MEMORY}")),
    **rows(one_layer, "tied", ("no", "`tied` must be True or False; got 'no'")),
    "no chain": (lambda: companions.NextTokenLoss(None, SYMBOLS), "`chain` must be a wgf.prompts.MarkovChain"),
    "no symbols": (lambda: companions.NextTokenLoss(its().chain, None), f"`symbols` {NUMBER} None"),
    **counts(residual, "dim", "hidden", "depth") | keys(residual) | scalars(residual, "branch_scale"),
    **rows(residual, "dim", (10**9, f"`depth` and `dim` {MEMORY} `dim`")),
    **rows(residual, "residual", ("no", "`residual` must be True or False; got 'no'")),
    **{
        f"a slope of {value}": (lambda value=value: companions.SmoothLeakyReLU(value), "`slope` must")
        for value in (0, 2, np.nan, "a", None, 1j)
    },
    **{
        f"a temperature of {value}": (
            lambda value=value: companions.SquareLoss(INPUTS, INPUTS, value),
            "`temperature` must be",
        )
        for value in (0.0, -1.0, np.nan, np.inf, "a", None, 1j)
    },
    "no tokens": (lambda: companions.SquareLoss(None, INPUTS), f"`tokens` {NUMBER} None"),
    "other targets": (lambda: companions.SquareLoss(INPUTS, INPUTS[:1]), "`targets` must have the shape of `tokens`"),
    "the loss of nothing": (
        lambda: companions.SquareLoss(INPUTS, INPUTS)(None),
        "`model` must be a wgf.companions.Res",
    ),
    "the spectrum of a text": (lambda: companions.spectrum("a"), f"`matrix` {NUMBER} 'a'"),
    "the spectrum of a vector": (lambda: companions.spectrum(np.ones(3)), "`matrix` must have shape"),
    "the rate of nothing": (
        lambda: companions.linear_rate_bound(None, None),
        "`loss` must be a wgf.companions.SquareLoss",
    ),
}

CALLS = {
    f"{room}: {name}": row
    for room, cases in {
        "encoders": ENCODERS,
        "measures": MEASURES,
        "models": MODELS,
        "prompts": PROMPTS,
        "objective": OBJECTIVES,
        "flows": FLOWS,
        "analysis": ANALYSIS,
        "transport": TRANSPORT,
        "sharding": SHARDING,
        "companions": COMPANIONS,
    }.items()
    for name, row in cases.items()
}
if in_float64():
    CALLS["models: prompts of another type"] = (
        lambda: its().finite(TOKENS.astype(np.float32)),
        "`particles` must have the type of `tokens`, float32; got float64",
    )


# Names of programs that compute something, not only prepare arguments.
_WORK = ("_flow", "_train", "advance", "begin", "_certificate", "scan", "while", "encoder", "_samples", "_draw")


@pytest.mark.parametrize("name", CALLS)
def test_a_wrong_argument_is_refused_before_anything_is_compiled(name):
    call, message = CALLS[name]
    its()
    with programs() as compiled, pytest.raises(ValueError, match=message) as caught:
        call()
    assert str(caught.value).startswith("`")
    assert len(str(caught.value)) < 1000
    assert [program for program in compiled if any(work in program for work in _WORK)] == []


COMMANDS = {
    "limit": """
        --batch 100000000000 | `batch` must be a whole number of at most
        --dim 1000000000 | `batch`, `examples` and `dim` must give arrays of at most .* Lower `dim`
        --width 8000000000 | `width` must be a whole number of at most
        --steps 2000000000 | `steps` must be a whole number of at most
        --taus 0 1e9 | `taus` must be at most 1e.06; got 1e.09
        --taus 0 nan | `taus` must be finite and not negative; got nan
        --taus 1 0 | `taus` must increase; got .1.0, 0.0.
        --taus 1 2 | `taus` must begin at 0, where training starts; got 1. Write .0.0, 1.0, 2.0.
        --scale 1e30 | `scale` must be at most 1e.06; got 1e.30
        --scale nan | `scale` must be positive and finite; got nan
        --rtol 1e-30 | `rtol` must be at least .*, the spacing of float.. numbers; got 1e-30
        --rtol nan | `rtol` must be positive; got nan
        --rtol 5 | `rtol` must be at most 1, a share of the whole; got 5.0
        --weight-decay inf | `weight_decay` must be finite and not negative; got inf
        --examples 2000000000 | `batch`, `examples` and `dim` must give arrays .* Lower `examples`
        --seed -1 | `seed` must be a whole number of at least 0; got -1
        --sizes 0 2 | `sizes` must be a whole number of at least 1; got 0
        --sizes 2 8 2 8 | `sizes` must be distinct pairs
        --data / | `data` must be 'synthetic', 'diabetes' or a CSV file that exists; got '/'
    """,
    "rates": """
        --decoupled nan | `decoupled` must be finite and not negative; got nan
        --tau 1e30 | `tau` must be at most
        --epsilon nan | `epsilon` must be positive and finite; got nan
        --learning-rate inf | `learning_rate` must be positive and finite; got inf
        --depths 2 2 | `depths` must be at least two increasing numbers
        --optimisers adam adam | `optimisers` must differ from each other
        --reference 2000000000 | `reference` must give arrays of at most .* Lower `reference`
        --resamples 1 | `resamples` must be a whole number of at least 2; got 1
        --weight-decay -1 | `weight_decay` must be finite and not negative; got -1.0
    """,
    "markov": """
        --rates -1 | `rates` must be positive and finite; got -1.0
        --rates nan | `rates` must be positive and finite; got nan
        --rates 1e-3 1e-3 | `rates` must differ from each other; got .0.001, 0.001.
        --scales 0 | `scales` must be positive and finite; got 0.0
        --widths 0 | `widths` must be a whole number of at least 1; got 0
        --widths 2147483647 | `widths` must give arrays of at most .* Lower `widths`
        --particles 0 | `particles` must be a whole number of at least 1; got 0
        --chains 0 0.5 | `chains`: `p` must lie strictly between 0 and 1; got 0
        --hard 2 0.1 | `hard`: `p` must lie strictly between 0 and 1; got 2
        --tau -1 | `tau` must be positive and finite; got -1.0
        --grid 1000000 | `grid` must give arrays of at most
        --batch 2000000000 | `batch`, `length` and `seeds` must give arrays of at most .* Lower `batch`
    """,
    "homogeneity": """
        --rtol nan | `rtol` must be positive; got nan
        --rtol 1e-30 | `rtol` must be at least 2.2e-16, the spacing of float64 numbers
        --horizon -1 | `horizon` must be positive and finite; got -1.0
        --least-step 1e-300 | `least_step` must be at least 4e-06, for at most 10000000 steps
        --scale nan | `scale` must be positive and finite; got nan
        --samples 3 | `samples` must be a whole number of at least 16; got 3
        --windows 2000000000 | `windows` must give arrays of at most
        --width 2000000000 | `depth`, `width` and `seeds` must give arrays of at most .* Lower `width`
    """,
    "optimisers": """
        --betas 2 2 | `betas` must be at least 0 and below 1; got .2.0, 2.0.
        --betas nan 0.9 | `betas` must be finite and not negative; got nan
        --epsilon nan | `epsilon` must be positive and finite; got nan
        --steps 0.4 0.4 0.2 | `steps` must differ from each other
        --batches 1 1 2 | `batches` must differ from each other
        --adam-tau -1 | `adam_tau` must be positive and finite; got -1.0
        --rate 0 | `rate` must be positive and finite; got 0.0
        --seeds 2000000000 | `depth`, `width`, `seeds` and `replicates` must give arrays .* Lower `seeds`
    """,
    "decay": """
        --weight-decays 1e-1 1e-1 | `weight_decays` must differ from each other; got .0.1, 0.1.
        --weight-decays nan | `weight_decays` must be at least one positive number
        --horizon nan | `horizon` must be
        --rtol 1e-30 | `rtol` must be at least 2.2e-16
        --rest nan | `rest` must be positive and finite; got nan
        --data teacher teacher | `data` must differ from each other
        --saves 2000000000 | `saves` must give arrays of at most
    """,
    "rest": """
        --weight-decay 0 | `weight_decay` must be positive and finite; got 0.0
        --horizon nan | `horizon` must be positive and finite; got nan
        --mass 1 | `mass` must be below 1
        --rtol 1e-30 | `rtol` must be at least 2.2e-16
        --data teacher | `data` must be at least one of
        --width 2000000000 | `width` and `saves` must give arrays of at most .* Lower `width`
    """,
    "residual": """
        --horizon -1 | `horizon` must be positive and finite; got -1.0
        --deep-horizon nan | `deep_horizon` must be positive and finite; got nan
        --rtol 1e-30 | `rtol` must be at least
        --slope nan | `slope` must lie in .0, 1.; got nan
        --step -1 | `step` must be positive and finite; got -1.0
        --temperatures 2 2 | `temperatures` must differ from each other
        --hidden 2000000000 | `dim`, `hidden`, `seeds` and `saves` must give arrays .* Lower `hidden`
    """,
    "images": """
        --rate nan | `rate` must be positive; got nan
        --scale nan | `scale` must be positive and finite; got nan
        --heads 4 4 | `heads` must differ from each other; got .4, 4.
        --layers 2000000000 | `layers`, `heads` and `seeds` must give arrays of at most .* Lower `layers`
        --weight-decay nan | `weight_decay` must be finite and not negative; got nan
        --root / | `root` and `images` go with `data` 'cifar10'
    """,
}
LINES = [
    (command, *(part.strip() for part in line.split(" | ")))
    for command, lines in COMMANDS.items()
    for line in lines.strip().splitlines()
]


def refused(capsys, *command):
    """The line that a command ends with."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(command))
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("wgf: ")
    assert len(line) < 1000
    return line


@pytest.mark.parametrize(("command", "options", "message"), LINES)
def test_a_wrong_option_ends_a_command_with_one_line(command, options, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        raise ValueError(refused(capsys, command, "--quick", *options.split()))
    assert list(tmp_path.iterdir()) == []


FILES = [
    ({"seed": 10**20}, "`seed` must be a whole number of at most 4294967295"),
    ({"seed": float("inf")}, "`seed` must be a whole number; got Infinity"),
    ({"taus": [0, float("nan")]}, "`taus` must be finite and not negative; got nan"),
    ({"rtol": float("inf")}, "`rtol` must be at most 1"),
    ({"scale": -1}, "`scale` must be positive and finite; got -1.0"),
    ({"sizes": [[1, 1]] * 10**5}, "`sizes` must be distinct pairs of depth and width"),
    ({"distributed": 3}, "`distributed` must be a string or null; got 3"),
    ({"data": "x" * 10**6}, "`data` must be 'synthetic', 'diabetes' or a CSV file that exists; got 'xxx"),
    ({"out": "a\0b"}, "`out` must be a path without zero bytes"),
    ({"experiment": "x" * 10**6}, "`experiment` must be one of"),
    ({f"k{number}": 1 for number in range(10**4)}, "`config` must have fields of .*; got the unknown"),
]


@pytest.mark.parametrize(("fields", "message"), FILES)
def test_a_wrong_config_file_ends_a_rerun_with_one_line(fields, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps({"experiment": "limit", "quick": True, **fields}), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        raise ValueError(refused(capsys, "rerun", "c.json"))
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


def test_a_rerun_joins_no_cluster_that_its_file_names(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(cli, "start_processes", started.append)
    record = {"experiment": "limit", "distributed": "elsewhere:1,2,0", "rtol": 0}
    (tmp_path / "c.json").write_text(json.dumps(record), encoding="utf-8")
    assert "`rtol` must be positive" in refused(capsys, "rerun", "c.json")
    assert started == []


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("Unable to allocate 15 GiB"), "the memory does not suffice: Unable to allocate 15 GiB"),
        (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory"), "the memory does not suffice: RESOURCE"),
        (eqx.EquinoxRuntimeError("The flow stopped.\n---\nmore"), "the run failed. The flow stopped."),
    ],
)
def test_a_run_that_fails_ends_a_command_with_one_line(error, message, monkeypatch, capsys):
    def fail(config, **_):
        raise error

    monkeypatch.setattr(cli, "run", fail)
    with pytest.raises(SystemExit) as stop:
        cli.main(["limit", "--quick"])
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"wgf: {message}")
