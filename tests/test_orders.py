"""Measured orders of convergence of every solver on offer, against closed forms; the whole set by benchmarks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import diffrax
import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import float64_only

import wgf

ROOT = Path(__file__).parents[1]


def order(sizes, errors):
    """The slope of the errors' fall, and a table for whoever sees it fail."""
    slope = -np.polyfit(np.log(sizes), np.log(errors), 1)[0]
    between = -np.diff(np.log(errors)) / np.diff(np.log(sizes))
    return slope, f"fitted {slope:.3f}, sizes {list(sizes)}, errors {errors}, between {between.round(2)}"


class Number(eqx.Module):
    x: jnp.ndarray


def washboard(number):
    """Q = −cos x, whose flow x' = −sin x is `fallen`."""
    return -jnp.cos(number.x)


def fallen(start, time):
    """The solution of x' = −sin x."""
    return 2 * np.arctan(np.tan(start / 2) * np.exp(-time))


CONSTANT = {
    "Euler": (diffrax.Euler(), 1, 0.1, (64, 128, 256, 512)),
    "Midpoint": (diffrax.Midpoint(), 2, 0.1, (32, 64, 128, 256)),
    "Heun": (diffrax.Heun(), 2, 0.1, (32, 64, 128, 256)),
    "Bosh3": (diffrax.Bosh3(), 3, 0.15, (16, 32, 64, 128)),
    "Dopri5": (diffrax.Dopri5(), 5, 0.2, (16, 32, 64, 128)),
    "Tsit5": (diffrax.Tsit5(), 5, 0.2, (8, 16, 32, 64)),
    "Dopri8": (diffrax.Dopri8(), 8, 0.25, (6, 8, 12, 16)),
}


def higher(*names):
    """Solvers whose errors fall below what float32 resolves."""
    return [pytest.param(name, marks=float64_only) for name in names]


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["Euler", *higher("Heun", "Bosh3", "Tsit5", "Dopri8")])
def test_outer_solvers_keep_their_order(name):
    solver, expected, band, counts = CONSTANT[name]
    start, constant = Number(jnp.asarray(2.0)), diffrax.ConstantStepSize()
    solutions = [
        wgf.flow(washboard, start, [0.0, 3.0], solver=solver, controller=constant, dt0=jnp.asarray(3 / n))
        for n in counts
    ]
    errors = [abs(float(solution.model_at(-1).x) - fallen(2.0, 3.0)) for solution in solutions]
    slope, table = order(counts, errors)
    assert abs(slope - expected) < band, table


class Sine(wgf.encoders.AbstractEncoder):
    """h(T, θ) = −θ sin T, entry by entry."""

    token_dim: int

    def sample(self, key, shape):
        return jnp.ones(shape)

    def __call__(self, particle, tokens):
        return -particle * jnp.sin(tokens)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["Euler", *higher("Midpoint", "Heun", "Bosh3", "Dopri5", "Dopri8")])
def test_inner_solvers_keep_their_order(name):
    solver, expected, band, counts = CONSTANT[name]
    tokens, measure = jnp.full((1, 1, 2), 2.0), wgf.measures.Spectral(jnp.full((1, 1), 3.0))
    models = [wgf.AveragedODE(Sine(1), measure, solver=solver, steps=n) for n in counts]
    errors = [float(jnp.abs(model(tokens) - fallen(2.0, 3.0)).max()) for model in models]
    slope, table = order(counts, errors)
    assert abs(slope - expected) < band, table


@pytest.mark.slow
def test_verification_holds_all_its_claims(tmp_path):
    """The command that shows them, in its quick form: it exits with 1 if a claim fails."""
    command = [sys.executable, str(ROOT / "benchmarks/verification.py"), "--quick", "--output", str(tmp_path)]
    # The truths have tests of their own, at small sizes.
    command += ["--only", "depth", "outer", "precision", "stiff", "eulerian"]
    environment = {**os.environ, "PYTHONPATH": str(Path(wgf.__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    report = json.loads((tmp_path / "verification.json").read_text(encoding="utf-8"))
    assert len(report["tables"]) >= 9
    assert all(check["low"] <= check["value"] <= check["high"] for t in report["tables"] for check in t["checks"])
    assert (tmp_path / "verification.md").read_text(encoding="utf-8").count("\n## ") >= 9
