"""Between the velocity of a model and the first contraction stands the mathematics, and little else."""

import traceback
from pathlib import Path

import jax
import pytest
from helpers import Matrix, regression

import wgf
from wgf._backend import contract
from wgf.encoders import Average, Perceptron, SoftmaxAttention

OURS = Path(wgf.__file__).parent
OBJECTIVE = wgf.Objective(regression(jax.random.key(0)), 1e-3)
DIM = OBJECTIVE.prompts.token_dim


def frames():
    """The library's own functions that are being called, outermost first."""
    stack = (frame for frame in traceback.extract_stack() if OURS in Path(frame.filename).parents)
    return [f"{Path(frame.filename).relative_to(OURS)}, {frame.name}" for frame in stack]


def trace_velocity(encoder):
    """Trace the velocity of a Transformer whose means take several tiles."""
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, 300, jax.random.key(1)))
    jax.eval_shape(lambda particles: wgf.velocity(OBJECTIVE, model.with_particles(particles)), model.measure.particles)


class Traced(Matrix):
    """A user's encoder, which notes who calls it."""

    def __call__(self, particle, tokens):
        CALLS.append(frames())
        return super().__call__(particle, tokens)


CALLS: list[list[str]] = []


@pytest.mark.parametrize(
    "encoder",
    [Average(SoftmaxAttention(DIM, key_dim=2), Perceptron(DIM)), Perceptron(DIM)],
    ids=["attention", "perceptron"],
)
def test_few_frames_lead_to_the_first_contraction(encoder, monkeypatch):
    found, bind = [], contract._contract.bind

    def recorded(*args, **facts):
        found.append(frames())
        return bind(*args, **facts)

    monkeypatch.setattr(contract._contract, "bind", recorded)
    trace_velocity(encoder)
    assert "flows/_velocity.py, velocity" in found[0]
    assert len(found[0]) <= 16, "\n".join(found[0])


def test_few_frames_lead_to_a_users_encoder():
    CALLS.clear()
    trace_velocity(Traced(DIM))
    # Encoders are called once to be checked.
    computed = [stack for stack in CALLS if not any(frame.startswith("encoders/_checks.py") for frame in stack)]
    assert "flows/_velocity.py, velocity" in computed[0]
    assert len(computed[0]) <= 16, "\n".join(computed[0])
