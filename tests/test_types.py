"""What is passed by mistake: one error that names the argument, before anything is compiled."""

import copy
import functools
import importlib.util
import shutil
import site
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, averaged, programs, regression
from test_readme import README, blocks

import wgf
from wgf import analysis, encoders, flows, measures, objective, prompts, sharding
from wgf.encoders import AbstractEncoder

pytestmark = pytest.mark.usefixtures("unchecked")
DIM = 5
KEY = jax.random.key(0)
TAUS = jnp.array([0.0, 0.1])


@functools.cache
def law():
    return measures.Gaussian(averaged(DIM))


@functools.cache
def finite():
    return wgf.Transformer(averaged(DIM), law().layered(2, 3, KEY))


@functools.cache
def limit():
    return wgf.AveragedODE(averaged(DIM), law().spectral(2, 3, KEY))


@functools.cache
def risk():
    return wgf.Objective(regression(KEY), 1e-3)


@functools.cache
def solution():
    return wgf.flow(risk(), finite(), TAUS)


def tokens(**options):
    return jnp.asarray(risk().prompts.tokens, **options)


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if eqx.is_inexact_array(leaf) else leaf, tree)


# Names of programs that compute something, not only prepare arguments.
_WORK = ("_flow", "_train", "advance", "begin", "evaluate", "certificate", "scan", "while", "encoder")


def refused(message, function, *args, **kwargs):
    with programs() as compiled, pytest.raises(ValueError, match=message):
        function(*args, **kwargs)
    assert [name for name in compiled if any(work in name for work in _WORK)] == []


SIZES = {
    "token_dim": lambda n: encoders.SoftmaxAttention(n, key_dim=2).token_dim,
    "key_dim": lambda n: encoders.SoftmaxAttention(3, key_dim=n).key_dim,
    "token_dim of a perceptron": lambda n: encoders.Perceptron(n).token_dim,
    "kernel's key_dim": lambda n: encoders.KernelAttention(3, key_dim=n).key_dim,
    "reach": lambda n: encoders.Convolution(3, reach=n).reach,
    "reach of a band": lambda n: encoders.Banded(n).reach,
    "particles of a chunk": lambda n: encoders.Chunked(averaged(DIM), particles=n).particles,
    "prompts of a chunk": lambda n: encoders.Chunked(averaged(DIM), prompts=n).prompts,
    "row": lambda n: objective.QueryEntry(n).row,
    "start": lambda n: objective.QueryRows(n, 2).start,
    "count": lambda n: objective.EveryRows(0, n).count,
    "label_row": lambda n: prompts.Prompts(tokens(), risk().prompts.labels, label_row=n).label_row,
    "steps in depth": lambda n: wgf.AveragedODE(averaged(DIM), limit().measure, steps=n).steps,
    "steps of a staged measure": lambda n: law().staged(3, KEY, steps=n).steps,
    "cells": lambda n: measures.Gaussian(Matrix(1)).eulerian(1, [n], -1.0, 1.0).cells[0],
    "max_stages": lambda n: flows.RKC(n).max_stages,
}


@pytest.mark.parametrize("number", [np.int64(2), np.int32(2), np.uint8(2), np.array(2)])
@pytest.mark.parametrize("name", SIZES)
def test_a_static_size_is_a_python_int(name, number):
    size = SIZES[name](number)
    assert type(size) is int
    assert size == 2


SIZED = {
    "layered": lambda n: law().layered(n, n, KEY),
    "spectral": lambda n: law().spectral(n, n, KEY),
    "staged": lambda n: law().staged(n, KEY, steps=n),
    "staged, joint": lambda n: law().staged(n, KEY, joint=True),
    "sample": lambda n: law().sample(KEY, n),
    "Sobol": lambda n: measures.Gaussian(averaged(DIM), sampling=measures.Sobol()).layered(n, n, KEY),
    "SignPairs": lambda n: measures.Gaussian(averaged(DIM), sampling=measures.SignPairs()).layered(n, n, KEY),
    "EncoderLaw": lambda n: measures.EncoderLaw(averaged(DIM)).sample(KEY, n),
    "eulerian": lambda n: measures.Gaussian(Matrix(1)).eulerian(n, [n], -1.0, 1.0),
    "train": lambda n: wgf.train(risk(), finite(), optax.sgd(0.1), steps=n, save_every=n, batch=n, key=KEY).objective,
    "run": lambda n: wgf.run(risk(), finite(), TAUS, segment_steps=n, max_steps=8 * n).objective,
    "certificate": lambda n: analysis.certificate(risk(), limit(), key=KEY, depths=[0.5], starts=n, max_steps=n).least,
    "gap": lambda n: wgf.gap(solution(), solution(), epsilon=0.1, most_depths=n, unpaired=True).unpaired.value,
    "draw": lambda n: risk().prompts.draw(KEY, n),
    "mesh": lambda n: sharding.mesh(prompts=n - 1, particles=n - 1, devices=jax.devices()[:1]).shape,
}


@pytest.mark.parametrize("name", SIZED)
def test_a_numpy_integer_counts_as_a_python_int(name):
    assert eqx.tree_equal(SIZED[name](np.int64(2)), SIZED[name](2))


@pytest.mark.parametrize("number", [2.0, "2", None, True, np.True_, np.ones(2, int), 0, -1, int])
@pytest.mark.parametrize("name", ["token_dim", "key_dim", "steps in depth", "count"])
def test_what_is_no_size_is_refused(name, number):
    if name == "steps in depth" and number is None:
        pytest.skip("None is the default")
    refused(r"`\w+` must be a whole number of at least 1; got ", SIZES[name], number)


def test_what_is_no_size_is_refused_under_jit():
    with pytest.raises(ValueError, match="`width` must be a whole number of at least 1; got JitTracer"):
        jax.jit(lambda width: law().layered(2, width, KEY))(2)


CLASSES = {
    "solver of a model": (
        "`solver` must be a Diffrax solver, .*; got the class Tsit5. Call the class: Tsit5",
        lambda: wgf.AveragedODE(averaged(DIM), limit().measure, solver=diffrax.Tsit5),
    ),
    "controller of a model": (
        "`controller` must be a step size controller of Diffrax.*; got the class PIDController",
        lambda: wgf.AveragedODE(averaged(DIM), limit().measure, controller=diffrax.PIDController),
    ),
    "solver of a staged measure": (
        "`solver` must be an explicit Runge–Kutta method.*; got the class EqualEighths",
        lambda: law().staged(3, KEY, solver=measures.EqualEighths),
    ),
    "solver of particles": (
        "`solver` must be an explicit Runge–Kutta method.*; got the class Bosh3",
        lambda: measures.Staged(jnp.ones((3, 2)), solver=diffrax.Bosh3),
    ),
    "sampling": (
        "`sampling` must be a sampling, .*; got the class Sobol",
        lambda: measures.Gaussian(averaged(DIM), sampling=measures.Sobol),
    ),
    "base": ("`base` must be a sampling, .*; got the class Sobol", lambda: measures.SignPairs(measures.Sobol)),
    "base of orbits": (
        "`base` must be a sampling, .*; got the class Sobol",
        lambda: measures.SignOrbits((("f",),), measures.Sobol),
    ),
    "base to whiten": ("`base` must be a sampling, .*; got the class Sobol", lambda: measures.Whitened(measures.Sobol)),
    "encoder of a law": (
        "`encoder` must be an encoder, .*; got the class Zero. Call the class",
        lambda: measures.Gaussian(encoders.Zero),
    ),
    "encoder of its own law": ("`encoder` must be an encoder", lambda: measures.EncoderLaw(encoders.Zero)),
    "encoder of a model": (
        "`encoder` must be an encoder, .*; got the class Matrix",
        lambda: wgf.AveragedODE(Matrix, limit().measure),
    ),
    "encoder of a Transformer": ("`encoder` must be an encoder", lambda: wgf.Transformer("x", finite().measure)),
    "f": ("`f` must be an encoder, .*; got the class Zero", lambda: encoders.Average(encoders.Zero, Matrix(3))),
    "h": ("`h` must be an encoder, .*; got None", lambda: encoders.Average(Matrix(3), None)),
    "encoder in chunks": ("`encoder` must be an encoder", lambda: encoders.Chunked(encoders.Zero)),
    "encoder behind": ("`encoder` must be an encoder", lambda: encoders.LayerNorm(encoders.Zero)),
    "measure": (
        "`measure` must be a measure over depth, .*; got Gaussian: encoder",
        lambda: wgf.AveragedODE(averaged(DIM), law()),
    ),
    "layered measure": (
        "`measure` must be a wgf.measures.Layered; got the class Layered",
        lambda: wgf.Transformer(averaged(DIM), measures.Layered),
    ),
    "prompts": ("`prompts` must be a wgf.prompts.Prompts; got an array of shape", lambda: wgf.Objective(tokens())),
    "loss": (
        "`loss` must be a loss, .*; got the class CrossEntropy",
        lambda: wgf.Objective(risk().prompts, loss=objective.CrossEntropy),
    ),
    "readout": (
        "`readout` must be a readout, .*; got the class QueryEntry",
        lambda: wgf.Objective(risk().prompts, readout=objective.QueryEntry),
    ),
    "tracers": (
        "`with_tracers` takes models .* each as its own argument; got list",
        lambda: limit().with_tracers([finite()]),
    ),
    "one of many models": (
        "`models` must be a list of wgf.Transformer; got an object of type AveragedODE",
        lambda: wgf.flow_many(risk(), [limit()], TAUS),
    ),
    "many models": ("`models` must be a list of wgf.Transformer", lambda: wgf.flow_many(risk(), finite(), TAUS)),
    "objective": (
        "`objective` must be a function of the model, .*; got the class Objective",
        lambda: wgf.velocity(wgf.Objective, finite()),
    ),
    "objective of a flow": (
        "`objective` must be a function of the model, .*; got None",
        lambda: wgf.flow(None, finite(), TAUS),
    ),
    "objective of training": (
        "`objective` must be a function of the model",
        lambda: wgf.train("x", finite(), optax.sgd(0.1), steps=1),
    ),
    "model": (
        "`model` must hold at least one array of real or complex numbers to move; got the class Transformer",
        lambda: wgf.flow(risk(), wgf.Transformer, TAUS),
    ),
    "outer solver": (
        "`solver` must be a Diffrax solver, .*; got the class Tsit5",
        lambda: wgf.flow(risk(), finite(), TAUS, solver=diffrax.Tsit5),
    ),
    "outer controller": (
        "`controller` must be a step size controller .*; got the class ConstantStepSize",
        lambda: wgf.run(risk(), finite(), TAUS, controller=diffrax.ConstantStepSize),
    ),
    "adjoint": (
        "`adjoint` must be a Diffrax adjoint, .*; got the class DirectAdjoint",
        lambda: wgf.flow(risk(), finite(), TAUS, adjoint=diffrax.DirectAdjoint),
    ),
    "progress_meter": (
        "`progress_meter` must be a Diffrax progress meter, .*; got the class TqdmProgressMeter",
        lambda: wgf.flow(risk(), finite(), TAUS, progress_meter=diffrax.TqdmProgressMeter),
    ),
    "optimiser": (
        "`optimiser` must be an Optax gradient transformation, .*; got <function adam",
        lambda: wgf.train(risk(), finite(), optax.adam, steps=1),
    ),
    "class of optimiser": (
        "`optimiser` must be an Optax gradient transformation",
        lambda: wgf.train(risk(), finite(), optax.GradientTransformation, steps=1),
    ),
    "models": (
        "`models` must be a list of models; got an object of type AveragedODE",
        lambda: wgf.flow_replicates(risk(), limit(), TAUS),
    ),
    "entry of models": (
        "`models` must be a list of .*; got the class AveragedODE",
        lambda: analysis.pool([wgf.AveragedODE, limit()]),
    ),
    "finite": (
        "`finite` must be a solution of wgf.flow; got an object of type Transformer",
        lambda: wgf.gap(finite(), solution()),
    ),
    "limit": (
        "`limit` must be a solution of wgf.flow; got an object of type AveragedODE",
        lambda: wgf.gap(solution(), limit()),
    ),
    "flow of a plain module": (
        "`finite` must be the flow of a wgf.Transformer or",
        lambda: wgf.gap(eqx.tree_at(lambda s: s.models, solution(), eqx.nn.Identity()), solution()),
    ),
    "mesh of a gap": (
        "`mesh` must be a mesh of devices, .*; got 'particles=2'",
        lambda: wgf.gap(solution(), solution(), mesh="particles=2"),
    ),
    "mesh": (
        "`mesh` must be a mesh of devices, .*; got 'prompts=2'",
        lambda: sharding.shard(risk(), "prompts=2"),
    ),
    "axes of a mesh": (
        r"`mesh` must have axes named 'prompts' and 'particles'; got \('x',\)",
        lambda: sharding.shard(risk(), jax.make_mesh((1,), ("x",))),
    ),
    "count of devices": ("`devices` must be a list of devices, .*; got 1", lambda: sharding.mesh(devices=1)),
    "devices": ("`devices` must be a list of devices, .*; got 'cpu'", lambda: sharding.mesh(devices=["cpu"])),
    "objective of a certificate": (
        "`objective` must be a wgf.Objective; got <function",
        lambda: analysis.certificate(lambda model: 0.0, limit(), key=KEY),
    ),
    "model of a certificate": (
        "`model` must be a wgf.Transformer or a wgf.AveragedODE; got FlowSolution: 2 τ",
        lambda: analysis.certificate(risk(), solution(), key=KEY),
    ),
    "encoder of assumptions": (
        "`encoder` must be an encoder",
        lambda: analysis.check_assumptions(Matrix, risk().prompts, key=KEY),
    ),
    "prompts of assumptions": (
        "`prompts` must be a wgf.prompts.Prompts",
        lambda: analysis.check_assumptions(averaged(DIM), tokens(), key=KEY),
    ),
    "solution to diagnose": (
        "`solution` must be a solution of wgf.flow",
        lambda: analysis.diagnose(risk(), finite(), key=KEY),
    ),
    "objective to diagnose": (
        "`objective` must be a wgf.Objective",
        lambda: analysis.diagnose(None, solution(), key=KEY),
    ),
    "pilot": (
        "`pilot` must be a solution of wgf.flow",
        lambda: analysis.cubature(risk(), limit(), limit().measure, 2),
    ),
    "base of a cubature": (
        "`base` must be a measure over depth",
        lambda: analysis.cubature(risk(), solution(), law(), 2),
    ),
    "objective of a cubature": (
        "`objective` must be a wgf.Objective",
        lambda: analysis.cubature(None, solution(), limit().measure, 2),
    ),
    "objective of tracers": (
        "`objective` must be a wgf.Objective",
        lambda: flows.tracer_velocity(lambda model: 0.0, limit()),
    ),
    "model of tracers": (
        "`model` must be a wgf.Transformer or a wgf.AveragedODE",
        lambda: flows.tracer_velocity(risk(), None),
    ),
    "inner": (
        "`inner` must be an adaptive step size controller .*; got the class PIDController",
        lambda: flows.CourantController(diffrax.PIDController),
    ),
    "aim": (
        "`aim` must be above 0 and at most 1; got 2",
        lambda: flows.CourantController(diffrax.PIDController(1e-3, 1e-3), 2.0),
    ),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_or_another_object_is_refused(name):
    message, function = CLASSES[name]
    solution()
    refused(message, function)


KEYED = {
    "layered": lambda key: law().layered(2, 3, key),
    "spectral": lambda key: law().spectral(2, 3, key),
    "staged": lambda key: law().staged(3, key),
    "sample": lambda key: law().sample(key, 3),
    "EncoderLaw": lambda key: measures.EncoderLaw(averaged(DIM)).sample(key, 3),
    "flow": lambda key: wgf.flow(risk(), finite(), TAUS, temperature=0.1, key=key, dt0=0.05),
    "train": lambda key: wgf.train(risk(), finite(), optax.sgd(0.1), steps=1, batch=1, key=key),
    "certificate": lambda key: analysis.certificate(risk(), limit(), key=key),
    "check_assumptions": lambda key: analysis.check_assumptions(averaged(DIM), risk().prompts, key=key),
    "diagnose": lambda key: analysis.diagnose(risk(), solution(), key=key),
}


@pytest.mark.parametrize("name", KEYED)
@pytest.mark.parametrize(
    ("key", "got"),
    [
        (0, "must be a JAX random key; got 0"),
        ("key", "must be a JAX random key; got 'key'"),
        (jnp.ones(2), r"must be a JAX random key; got float64 of shape \(2,\)"),
        (jax.random.split(KEY, 3), r"must be one random key; got an array of keys of shape \(3,\)"),
        (jax.random.split(jax.random.PRNGKey(0), 3), r"must be one random key; got an array of keys of shape \(3,\)"),
    ],
)
def test_what_is_no_key_is_refused(name, key, got):
    solution()
    refused(f"`key` {got}.* Pass jax.random.key", KEYED[name], key)


@pytest.mark.parametrize("name", ["layered", "staged", "sample", "EncoderLaw"])
def test_a_raw_key_draws_as_its_typed_one(name):
    raw = jax.random.PRNGKey(0)
    assert eqx.tree_equal(KEYED[name](raw), KEYED[name](KEY))
    assert eqx.tree_equal(KEYED[name](np.asarray(raw)), KEYED[name](KEY))


class Odd(AbstractEncoder):
    """An encoder that returns something else than it ought to."""

    output: Callable[..., Any] = eqx.field(static=True)

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, DIM))

    def __call__(self, particle, tokens):
        return self.output(particle[:, None] * tokens)


WRONG = {
    "[N+1]": (lambda x: x[0], r"to an array of the same shape and type; Odd returned the shape \[5\]"),
    "[D, 1]": (lambda x: x[:, :1], r"to an array of the same shape and type; Odd returned the shape \[5, 1\]"),
    "a number": (lambda x: x[0, 0], r"to an array of the same shape and type; Odd returned the shape \[\]"),
    "[1, D, N+1]": (lambda x: x[None], r"Odd returned the shape \[1, 5, 5\]"),
    "a tuple": (lambda x: (x, x), "Odd returned tuple"),
    "nothing": (lambda x: None, "Odd returned NoneType"),
    "float32": (lambda x: x.astype(jnp.float32), "Odd returned float32 for float64"),
    "bfloat16": (lambda x: x.astype(jnp.bfloat16), "Odd returned bfloat16 for float64"),
    "whole numbers": (lambda x: x.astype(int), "Odd returned int64 for float64"),
    "an error": (lambda x: x @ x[:2], "to an array of the same shape and type; Odd raised TypeError: dot_general"),
}


def uses(encoder):
    """Every way in which a model of the encoder meets prompts."""
    initial = measures.EncoderLaw(encoder)
    finite, limit = (
        wgf.Transformer(encoder, initial.layered(2, 3, KEY)),
        wgf.AveragedODE(encoder, initial.spectral(2, 3, KEY)),
    )
    adaptive = wgf.AveragedODE(encoder, limit.measure, controller=diffrax.PIDController(1e-3, 1e-3))
    return {
        "Transformer": lambda: finite(tokens()),
        "AveragedODE": lambda: limit(tokens()),
        "adaptive": lambda: adaptive(tokens()),
        "trajectory": lambda: finite.trajectory(tokens(), jnp.array([0.5])),
        "trajectory of the limit": lambda: limit.trajectory(tokens(), jnp.array([0.5])),
        "adjoint": lambda: finite.adjoint(tokens(), jnp.ones_like),
        "adjoint of the limit": lambda: limit.adjoint(tokens(), jnp.ones_like),
        "objective": lambda: risk()(finite),
        "first variation": lambda: risk().first_variation(limit),
        "velocity": lambda: wgf.velocity(risk(), limit),
        "flow": lambda: wgf.flow(risk(), finite, TAUS),
        "flow with tracers": lambda: wgf.flow(risk(), limit.with_tracers(finite), TAUS),
        "run": lambda: wgf.run(risk(), finite, TAUS),
        "train": lambda: wgf.train(risk(), finite, optax.sgd(0.1), steps=1),
        "flow_replicates": lambda: wgf.flow_replicates(risk(), [limit, limit], TAUS),
        "certificate": lambda: analysis.certificate(risk(), limit, key=KEY),
        "check_assumptions": lambda: analysis.check_assumptions(encoder, risk().prompts, key=KEY),
    }


@pytest.mark.parametrize("use", uses(Odd(lambda x: x)))
def test_an_encoder_that_broadcasts_is_refused_wherever_it_meets_prompts(use):
    refused(
        r"`encoder` must map a prompt \[D, N\+1\] = \[5, 5\] to .* the shape \[5\]", uses(Odd(WRONG["[N+1]"][0]))[use]
    )


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    "within",
    [
        lambda e: e,
        lambda e: encoders.Average(e, encoders.Zero()),
        lambda e: encoders.Average(encoders.Perceptron(DIM), e),
        encoders.LayerNorm,
        lambda e: encoders.Chunked(e, particles=1),
    ],
)
def test_an_encoder_that_returns_something_else_is_refused(within, wrong):
    output, message = WRONG[wrong]
    refused(message, uses(within(Odd(output)))["AveragedODE"])


class Fused(encoders.AbstractFusedEncoder):
    """A fused mean that forgets an axis."""

    def sample(self, key, shape):
        return jax.random.normal(key, (*shape, DIM))

    def __call__(self, particle, tokens):
        return particle[:, None] * tokens

    def fused_mean(self, particles, weights, tokens):
        return (weights @ particles)[None, :, None] * tokens[:, :, :1]


def test_a_fused_mean_of_another_shape_is_refused():
    refused(r"`fused_mean` must return the shape .* \[6, 5, 5\]", uses(Fused())["AveragedODE"])


@pytest.mark.parametrize("name", ["attention", "perceptron", "average", "normalised", "own"])
@pytest.mark.parametrize("use", ["Transformer", "AveragedODE", "flow"])
def test_prompts_of_another_token_dimension_are_refused(use, name):
    encoder = {
        "attention": encoders.SoftmaxAttention(4, key_dim=2),
        "perceptron": encoders.Perceptron(4),
        "average": averaged(4),
        "normalised": encoders.LayerNorm(encoders.Perceptron(4)),
        "own": Matrix(4),
    }[name]
    refused("`tokens` must have the token dimension D of .*, 4; got 5", uses(encoder)[use])


def types(kind, dtype):
    """Objective and model, one of them of another type."""
    other = regression(KEY)
    if kind == "prompts":
        return wgf.Objective(cast(other, dtype), 1e-3), finite(), limit()
    return risk(), cast(finite(), dtype), cast(limit(), dtype)


TYPED = {
    "call": lambda objective, finite, limit: finite(objective.prompts.tokens),
    "call of the limit": lambda objective, finite, limit: limit(objective.prompts.tokens),
    "trajectory": lambda objective, finite, limit: finite.trajectory(objective.prompts.tokens, jnp.array([0.5])),
    "adjoint": lambda objective, finite, limit: limit.adjoint(objective.prompts.tokens, jnp.ones_like),
    "objective": lambda objective, finite, limit: objective(finite),
    "first variation": lambda objective, finite, limit: objective.first_variation(limit),
    "velocity": lambda objective, finite, limit: wgf.velocity(objective, limit),
    "flow": lambda objective, finite, limit: wgf.flow(objective, finite, TAUS),
    "flow of the limit": lambda objective, finite, limit: wgf.flow(objective, limit, TAUS),
    "flow with tracers": lambda objective, finite, limit: wgf.flow(objective, limit.with_tracers(finite), TAUS),
    "run": lambda objective, finite, limit: wgf.run(objective, finite, TAUS),
    "train": lambda objective, finite, limit: wgf.train(objective, finite, optax.sgd(0.1), steps=1),
    "replicates": lambda objective, finite, limit: wgf.flow_replicates(objective, [limit, limit], TAUS),
    "certificate": lambda objective, finite, limit: analysis.certificate(objective, limit, key=KEY),
}


@pytest.mark.parametrize("use", TYPED)
@pytest.mark.parametrize("kind", ["prompts", "model"])
def test_prompts_and_particles_of_different_types_are_refused(use, kind):
    tokens, particles = ("float32", "float64") if kind == "prompts" else ("float64", "float32")
    message = f"`particles` must have the type of `tokens`, {tokens}; got {particles}. Cast the prompts, `tokens.astype"
    refused(message, TYPED[use], *types(kind, jnp.float32))


@pytest.mark.parametrize("use", ["call", "objective", "velocity", "flow", "run", "train", "replicates", "certificate"])
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_models_of_half_floats_are_refused(use, dtype):
    refused(
        "`.*` must be of type float32 or float64; got b?float16.*In shorter types, rounding",
        TYPED[use],
        *types("model", dtype),
    )


HALF = jnp.ones((2, 3, DIM), jnp.bfloat16)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda: measures.Layered(HALF), "`particles` must be of type float32 or float64; got bfloat16"),
        (lambda: measures.Spectral(HALF.astype(jnp.float16)), "`particles` must be of type .* got float16"),
        (lambda: measures.Layered(HALF.astype(complex)), "`particles` must be real; got complex128. Pass its real"),
        (lambda: measures.Layered("abc"), "`particles` must be a number or an array of numbers; got 'abc'"),
        (lambda: measures.Layered(jax.random.split(KEY, (2, 3))), "`particles` must be a number or an array of num"),
        (
            lambda: measures.Layered((jnp.ones((2, 3)), jnp.ones((2, 3), jnp.float32))),
            "`particles` must be arrays of one",
        ),
        (lambda: measures.Layered(jnp.ones((2, 3)), [[1.0], [0.5, 0.5]]), "`weights` must be a number or an array"),
        (lambda: measures.Layered(jnp.ones((2, 3)), 1j * jnp.ones(3)), "`weights` must be real"),
        (lambda: measures.Layered(jnp.ones((2, 3)), "uniform"), "`weights` must be a number or an array of numbers"),
        (lambda: measures.Layered(jnp.ones((2, 3)), jnp.ones(2) / 2), r"`weights` must have shape \[width\]"),
        (lambda: measures.Gaussian(averaged(DIM), "large"), "`scale` must be a number or an array of numbers; got 'la"),
        (lambda: measures.Gaussian(averaged(DIM), 1j), "`scale` must be real"),
        (lambda: measures.Gaussian(Matrix(1)).eulerian(2, 4, -1.0, 1.0), "`cells` must count cells along each of 1"),
        (lambda: measures.Gaussian(Matrix(1)).eulerian(2, [4], "a", 1.0), "`lower` must be a number or an array"),
        (
            lambda: prompts.Prompts(HALF, jnp.ones(2), label_row=0),
            "`tokens` must be of type float32 or float64; got bf",
        ),
        (lambda: prompts.Prompts(HALF.astype(complex), jnp.ones(2), label_row=0), "`tokens` must be real"),
        (lambda: prompts.Prompts("abc", jnp.ones(2), label_row=0), "`tokens` must be a number or an array of numbers"),
        (
            lambda: wgf.Objective(risk().prompts, None),
            "`weight_decay` must be a number or an array of numbers; got None",
        ),
        (lambda: wgf.Objective(risk().prompts, 1j), "`weight_decay` must be real"),
        (lambda: encoders.LayerNorm(Matrix(3), epsilon="small"), "`epsilon` must be a number or an array of numbers"),
        (lambda: encoders.LayerNorm(Matrix(3), epsilon=jnp.ones(2)), "`epsilon` must be one number"),
        (lambda: wgf.flow(risk(), finite(), "long"), "`taus` must be a number or an array of numbers; got 'long'"),
        (lambda: wgf.flow(risk(), finite(), None), "`taus` must be a number or an array of numbers; got None"),
        (lambda: wgf.flow(risk(), finite(), [[0.0], [0.1, 0.2]]), "`taus` must be a number or an array of numbers"),
        (
            lambda: wgf.flow(risk(), finite(), TAUS, temperature="hot"),
            "`temperature` must be a number or an array of n",
        ),
        (lambda: wgf.flow(risk(), finite(), TAUS, temperature=jnp.ones(2)), "`temperature` must be one number"),
        (lambda: wgf.flow(risk(), finite(), TAUS, dt0="a"), "`dt0` must be a number or an array of numbers; got 'a'"),
        (lambda: wgf.flow(risk(), finite(), TAUS, dt0=-0.1), "`dt0` must be positive; got -0.1"),
        (lambda: wgf.flow(risk(), finite(), TAUS, dt0=np.nan), "`dt0` must be finite"),
        (lambda: wgf.flow(risk(), finite(), TAUS, rtol=jnp.ones(2)), "`rtol` must be one number; got an array"),
        (lambda: wgf.flow(risk(), finite(), TAUS, steady=jnp.ones(2)), "`steady` must be one number; got an array"),
        (lambda: wgf.run(risk(), finite(), TAUS, time_limit="1 h"), "`time_limit` must be a number or an array"),
        (lambda: wgf.run(risk(), finite(), TAUS, checkpoint_every=None), "`checkpoint_every` must be a number or an a"),
        (lambda: wgf.run(risk(), finite(), TAUS, time_limit=0), "`time_limit` must be a positive number of seconds"),
        (lambda: wgf.run(risk(), finite(), TAUS, max_steps=2.5), "`max_steps` must be a whole number of at least 1"),
        (lambda: wgf.flow(lambda model: 0, finite(), TAUS), "`objective` must return one real number; got int"),
        (lambda: wgf.flow(lambda model: jnp.ones(2), finite(), TAUS), r"`objective` must return one .* shape \(2,\)"),
        (lambda: wgf.velocity(lambda model: "a", finite()), "`objective` must be a number or an array of numbers"),
        (
            lambda: finite()(tokens()[0]),
            r"`tokens` must have shape \[B, D, N\+1\], .*; got \(5, 5\). Pass a single prompt as",
        ),
        (lambda: limit()(tokens()[None]), r"`tokens` must have shape \[B, D, N\+1\]"),
        (lambda: limit()(tokens()[:0]), r"`tokens` must have shape \[B, D, N\+1\], all at least 1; got \(0, 5, 5\)"),
        (lambda: limit()("abc"), "`tokens` must be a number or an array of numbers; got 'abc'"),
        (lambda: finite()(None), "`tokens` must be a number or an array of numbers; got None"),
        (lambda: finite()(tokens(dtype=int)), "`tokens` must be of type float32 or float64; got int64. Pass `.astype"),
        (lambda: finite()(tokens() > 0), "`tokens` must be of type float32 or float64; got bool"),
        (lambda: finite()(1j * tokens()), "`tokens` must be real; got complex128"),
        (lambda: limit().trajectory(tokens(), "end"), "`depths` must be a number or an array of numbers; got 'end'"),
        (lambda: analysis.certificate(risk(), limit(), key=KEY, depths=[[0.5]]), "`depths` must be a vector"),
        (lambda: analysis.certificate(risk(), limit(), key=KEY, radius="a"), "`radius` must be a number or an array"),
        (lambda: wgf.gap(solution(), solution(), epsilon=-1.0), "`epsilon` must be positive; got -1"),
        (
            lambda: wgf.flow(
                lambda module: module.weight.sum(), cast(eqx.nn.Linear(2, 2, key=KEY), jnp.bfloat16), TAUS
            ),
            "`model` must be of type float32 or float64; got bfloat16",
        ),
        (
            lambda: wgf.flow(
                lambda module: module.weight.sum(),
                eqx.tree_at(lambda m: m.bias, eqx.nn.Linear(2, 2, key=KEY), jnp.ones(2, jnp.float32)),
                TAUS,
            ),
            "`model` must hold arrays of one precision to move; got",
        ),
    ],
)
def test_what_are_no_numbers_of_the_right_kind_is_refused(function, message):
    solution()
    refused(message, function)


def other(particles):
    """The model with other particles, of all layers at once."""
    return finite().with_particles(particles)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: tuple(p), r"`particles` must have the structure and shapes of the encoder's own, Pair"),
        (lambda p: p._replace(h=p.h._replace(bias=None)), "`particles` must have the structure and shapes of"),
        (lambda p: p._replace(h=p.h._replace(bias=p.h.bias[..., None])), r"bias=\(1,\)"),
        (lambda p: p._replace(f=p.f._replace(key=p.f.key[..., :4])), r"key=\(2, 4\)"),
        (lambda p: jax.tree.map(lambda leaf: leaf[0], p), r"`particles` must have the leading axes .*, \(2, 3\); got"),
        (lambda p: jax.tree.map(lambda leaf: leaf[None], p), r"leading axes .*; got .*Select one model of a solution"),
        (
            lambda p: p._replace(h=jax.tree.map(lambda leaf: leaf[:, :2], p.h)),
            r"leading axes .*; got \[\(2, 2\), \(2, 3",
        ),
        (
            lambda p: p._replace(h=cast(p.h, jnp.float32)),
            "`particles` must be arrays of one type; got",
        ),
    ],
)
@pytest.mark.parametrize("use", ["call", "objective", "velocity"])
def test_particles_of_another_structure_are_refused(use, change, message):
    model = other(change(finite().measure.particles))
    refused(message, TYPED[use], risk(), model, model)


def test_particles_whose_leading_axes_differ_are_refused():
    refused(
        "`particles` must be arrays that share leading axes", measures.Layered, (jnp.ones((2, 3)), jnp.ones((2, 4)))
    )


def test_particles_of_a_first_variation_are_checked():
    variation = risk().first_variation(limit())
    particle = jax.tree.map(lambda leaf: leaf[0, 0], limit().measure.particles)
    refused("`particle` must be a number or an array of numbers; got 'a'", variation, "a", 0.5)
    refused("`depth` must be a number or an array of numbers; got 'half'", variation, particle, "half")
    refused(r"`depth` must be one number; got an array of shape \(2,\)", variation, particle, jnp.ones(2))
    one = jax.tree.map(lambda leaf: leaf[None], tuple(particle))
    for function, wrong in ((variation, tuple(particle)), (variation.gradient, one)):
        refused("`particles` must have the structure and shapes of", function, wrong, 0.5)
    refused("`particles` must have the type of `tokens`", variation, cast(particle, jnp.float32), 0.5)


def test_weights_of_another_type_are_refused():
    model = eqx.tree_at(lambda m: m.measure.weights, finite(), finite().measure.weights.astype(jnp.float32))
    refused("`weights` must have the type of `tokens`, float64; got float32", model, tokens())


def test_an_encoder_without_a_law_of_its_own_takes_any_particles():
    class Given(Matrix):
        def sample(self, key, shape):
            raise NotImplementedError

    model = wgf.Transformer(Given(DIM), measures.Layered(jnp.ones((2, 3, DIM, DIM))))
    like = wgf.Transformer(Matrix(DIM), model.measure)
    np.testing.assert_array_equal(model(tokens()), like(tokens()))


def test_whole_numbers_are_particles_and_tokens():
    measure = measures.Layered(np.ones((2, 3, DIM), int))
    assert measure.particles.dtype == float
    given = prompts.Prompts(np.ones((2, DIM, 3), int), np.ones(2, int), label_row=0)
    assert given.tokens.dtype == float


@pytest.mark.parametrize("model", [finite, limit])
def test_numpy_arrays_are_taken_as_those_of_jax(model):
    model, host = model(), np.asarray(tokens())
    depths = np.array([0.0, 0.5])
    of_host = jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, model)
    for ours in (model, of_host):
        np.testing.assert_array_equal(ours(host), model(tokens()))
        np.testing.assert_array_equal(ours.trajectory(host, depths), model.trajectory(tokens(), jnp.asarray(depths)))
        np.testing.assert_array_equal(risk()(ours), risk()(model))
    rebuilt = type(model.measure)(jax.tree.map(np.asarray, model.measure.particles), np.asarray(model.measure.weights))
    assert eqx.tree_equal(rebuilt, model.measure)


def test_a_flow_of_numpy_arrays_is_that_of_jax_arrays():
    given = risk().prompts
    ours = prompts.Prompts(
        *map(np.asarray, (given.tokens, given.labels)), label_row=given.label_row, weights=np.asarray(given.weights)
    )
    model = jax.tree.map(lambda leaf: np.asarray(leaf) if eqx.is_array(leaf) else leaf, finite())
    found = wgf.flow(wgf.Objective(ours, np.float64(1e-3)), model, np.asarray(TAUS), rtol=np.float64(1e-4))
    assert eqx.tree_equal(found, solution())
    variation, particle = (
        risk().first_variation(limit()),
        jax.tree.map(lambda leaf: leaf[0, 0], limit().measure.particles),
    )
    np.testing.assert_array_equal(
        variation(jax.tree.map(np.asarray, particle), np.float64(0.5)), variation(particle, jnp.array(0.5))
    )


def test_float32_is_taken_throughout():
    found = wgf.flow(cast(risk(), jnp.float32), cast(limit().with_tracers(finite()), jnp.float32), TAUS)
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(found, eqx.is_inexact_array))} == {np.dtype(np.float32)}


def test_tracers_of_a_copied_model_ride_along():
    limit_with = limit().with_tracers(copy.deepcopy(finite()))
    assert eqx.tree_equal(limit_with, limit().with_tracers(finite()))
    other = wgf.Transformer(averaged(DIM, jnp.sin), finite().measure)
    refused("`with_tracers` takes models of the same encoder", limit().with_tracers, other)
    refused("`with_tracers` takes models whose particles have the", limit().with_tracers, cast(finite(), jnp.float32))
    narrow = averaged(4)
    model = wgf.Transformer(averaged(DIM), measures.Gaussian(narrow).layered(2, 3, KEY))
    refused("`with_tracers` takes models whose particles have the", limit().with_tracers, model)


def test_copies_of_a_model_are_replicates():
    first, second = limit(), copy.deepcopy(limit())
    pooled = analysis.pool([first, second])
    assert eqx.tree_equal(pooled, analysis.pool([first, first]))


@pytest.mark.slow
def test_the_example_of_the_readme_has_the_types_of_the_installed_package(tmp_path):
    """By pyright, as an editor shows it to users: with the annotations of a package, not of a source tree."""
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed")
    venv.create(tmp_path / "venv")
    (packages,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    shutil.copytree(Path(wgf.__file__).parent, packages / "wgf", ignore=shutil.ignore_patterns("__pycache__"))
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()), encoding="utf-8")
    example = tmp_path / "example.py"
    example.write_text("\n".join(blocks(README)), encoding="utf-8")
    python = tmp_path / "venv" / "bin" / "python"
    command = [sys.executable, "-m", "pyright", "--pythonpath", str(python), example.name]

    def checked():
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    found = checked()
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 errors" in found.stdout
    # What does not exist is seen: the types of the package are known.
    example.write_text("import wgf\n\nwgf.Objective.nothing\nwgf.flow(1)\n", encoding="utf-8")
    assert "2 errors" in checked().stdout
