"""Programs: one for a whole run, and kept from one process to the next where JAX allows it."""

import os
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import wgf

PROGRAM = """
import jax, jax.numpy as jnp, wgf
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))
prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=2, examples=2, dim=1)
encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 2, jax.random.key(1)))
CALL
print(hits.count("/jax/compilation_cache/cache_misses"), hits.count("/jax/compilation_cache/cache_hits"))
"""
VELOCITY = "wgf.velocity(wgf.Objective(prompts, 1e-3), model)"
FLOW = "wgf.flow(wgf.Objective(prompts, 1e-3), model, [0.0, 1.0])"


def test_a_flow_is_traced_once_for_all_calls():
    """Other numbers in the same shapes take the program that is there: prompts, particles, times, tolerances."""

    @eqx.filter_jit
    @eqx.debug.assert_max_traces(max_traces=1)
    def solve(objective, model, taus, rtol):
        return wgf.flow(objective, model, taus, rtol=rtol, throw=False).objective

    ends = []
    for seed in range(3):
        keys = jax.random.split(jax.random.key(seed))
        prompts = wgf.prompts.linear_regression(keys[0], batch=2, examples=2, dim=1)
        encoder = wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh)
        model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 2, keys[1]))
        objective = wgf.Objective(prompts, 1e-3 * (1 + seed))
        ends.append(solve(objective, model, jnp.array([0.0, 1.0 + seed]), jnp.asarray(10.0 ** -(3 + seed)))[-1])
    assert len({float(end) for end in ends}) == 3


@pytest.mark.slow
@pytest.mark.parametrize(("call", "checks"), [(VELOCITY, "raise"), (FLOW, "off")])
def test_the_persistent_cache(call, checks, tmp_path):
    """It holds flows where Diffrax's checks of its times, calls to the host, which JAX does not keep, are off."""
    environment = {
        **os.environ,
        "EQX_ON_ERROR": checks,
        "PYTHONPATH": str(Path(wgf.__file__).parents[1]),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    counts = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("CALL", call)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        counts.append([int(number) for number in done.stdout.split()])
    (misses, _), (missed_again, hits) = counts
    assert missed_again == 0, counts
    assert hits >= misses > 0, counts


@pytest.mark.slow
def test_a_failed_flow_raises_even_where_checks_are_off():
    call = FLOW.replace("[0.0, 1.0]", "[0.0, 1.0], max_steps=1")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace("CALL", call)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(wgf.__file__).parents[1]), "EQX_ON_ERROR": "off"},
    )
    assert done.returncode == 1
    assert "EquinoxRuntimeError" in done.stderr, done.stderr[-3000:]
    assert "ran out of steps" in done.stderr, done.stderr[-3000:]
