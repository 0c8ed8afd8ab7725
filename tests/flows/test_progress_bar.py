"""A bar shows the progress of a solve, and changes nothing else."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, bound, programs, scalar_problem

import wgf

MODEL = wgf.Transformer(Matrix(1), wgf.measures.Layered(np.linspace(-1, 1, 4).reshape(2, 2, 1, 1)))
PROBLEM = scalar_problem(1e-3), MODEL, np.linspace(0, 3, 4)


@pytest.fixture(scope="module")
def plain():
    return wgf.flow(*PROBLEM)


def bars(capsys):
    """What was drawn: the percentages."""
    return [line.partition("%")[0].strip() for line in capsys.readouterr().err.split("\r") if "%" in line]


def test_a_flow_with_a_bar_has_the_same_numbers(plain, capsys):
    solution = wgf.flow(*PROBLEM, progress_meter=wgf.flows.ProgressBar(1))
    np.testing.assert_allclose(solution.outputs, plain.outputs, rtol=bound(1e-12, 1e-5))
    assert solution.stats["num_steps"] == plain.stats["num_steps"]
    drawn = bars(capsys)
    assert drawn[-1] == "100"
    assert len(set(drawn)) > 3
    with programs() as compiled:
        wgf.flow(*PROBLEM, progress_meter=wgf.flows.ProgressBar(1))
    assert compiled == []


def test_a_flow_without_a_bar_draws_none_and_is_not_compiled_anew(plain, capsys):
    with programs() as compiled:
        wgf.flow(*PROBLEM)
    assert compiled == []
    assert bars(capsys) == []


def test_a_bar_works_under_transformations(plain, capsys):
    def final(scale):
        model = MODEL.with_particles(scale * MODEL.measure.particles)
        return wgf.flow(PROBLEM[0], model, PROBLEM[2], progress_meter=wgf.flows.ProgressBar(), throw=False).risk[-1]

    found = eqx.filter_jit(eqx.filter_vmap(final))(jnp.array([1.0, 0.5]))
    np.testing.assert_allclose(found[0], plain.risk[-1], rtol=1e-3)
    assert bars(capsys)[-1] == "100"
