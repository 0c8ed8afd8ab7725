"""What a flow will take of the memory, known before it runs."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import averaged, programs, regression

import wgf
from wgf.flows import _fits, _memory

TAUS = np.linspace(0.0, 1.0, 5)


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(eqx.filter(tree, eqx.is_array)))


@pytest.fixture(scope="module")
def problem():
    key = jax.random.key(7)
    prompts = regression(key)
    encoder = averaged(prompts.token_dim)
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.7).layered(2, 8, key))
    return wgf.Objective(prompts, 1e-3), model


@pytest.fixture(scope="module")
def estimated(problem):
    """The estimate, the solution, and the programs that each of them compiled."""
    with programs() as first:
        estimate = wgf.memory_estimate(*problem, TAUS)
    with programs() as second:
        solution = wgf.flow(*problem, TAUS)
    return estimate, solution, first, second


def test_to_estimate_and_to_solve_compile_one_program(estimated):
    _, _, first, second = estimated
    assert first.count("jit(_flow)") == 1
    assert "jit(_flow)" not in second


def test_after_a_flow_nothing_is_compiled(problem, estimated):
    with programs() as compiled:
        again = wgf.memory_estimate(*problem, TAUS)
    assert compiled == []
    assert again == estimated[0]


def test_the_parts_are_those_of_the_arrays(problem, estimated):
    estimate, solution, _, _ = estimated
    # Beside arrays there are a pointer for each, and scalars such as tolerances.
    assert bytes_of(problem) <= estimate.arguments < bytes_of((problem, TAUS)) + 2000
    assert bytes_of(solution) <= estimate.solution < bytes_of(solution) + 2000
    # The saved states and the solver's stages at least.
    assert estimate.scratch > bytes_of(solution.models) + 6 * bytes_of(problem[1].measure.particles)
    assert estimate.peak == estimate.arguments + estimate.solution + estimate.scratch


def test_the_line_of_an_estimate():
    estimate = wgf.flows.MemoryEstimate(arguments=1_500, solution=2_000_000, scratch=3_000_000_000, device="cpu")
    assert repr(estimate) == "MemoryEstimate: peak 3 GB on cpu, arguments 1.5 kB, solution 2 MB, scratch 3 GB"


def test_options_are_those_of_the_flow(problem):
    options = {"solver": diffrax.Euler(), "controller": diffrax.ConstantStepSize(), "dt0": 0.25, "max_steps": 16}
    estimate = wgf.memory_estimate(*problem, TAUS, **options)
    with programs() as compiled:
        wgf.flow(*problem, TAUS, **options)
    assert "jit(_flow)" not in compiled
    # Euler's method has one stage, the default seven.
    assert estimate.scratch < wgf.memory_estimate(*problem, TAUS).scratch


def test_a_compiler_that_reports_nothing(problem, monkeypatch):
    monkeypatch.setattr(_memory, "memory_of", lambda *arguments: None)
    with pytest.raises(
        ValueError, match="`memory_estimate` needs a compiler that reports memory; that of cpu does not"
    ):
        wgf.memory_estimate(*problem, TAUS)


class Device:
    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_a_solution_that_does_not_fit_is_refused_before_anything_is_compiled(problem, monkeypatch):
    """On devices that report their memory the limit is theirs."""
    objective, model = problem
    monkeypatch.setattr(jax, "local_devices", lambda: [Device({"bytes_limit": 2**19})] * 2)
    most = 2**20 // (2 * bytes_of(model))
    with (
        programs() as compiled,
        pytest.raises(ValueError, match=rf"few enough for the memory, .*; got {most + 1} times"),
    ):
        wgf.flow(objective, model, np.arange(most + 1.0))
    assert "jit(_flow)" not in compiled
    _fits.check_solution(most, model)
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(None)])
    _fits.check_solution(most + 1, model)


def test_traced_and_spread_arrays_count_as_they_lie(problem):
    model = problem[1]
    here = sum(map(_fits._bytes_here, jax.tree.leaves(model)))
    assert here == bytes_of(model)
    assert sum(map(_fits._bytes_here, jax.tree.leaves(jax.tree.map(np.asarray, model)))) == here
    found = []
    jax.eval_shape(lambda x: found.append(_fits._bytes_here(x)), jnp.ones((3, 2), jnp.float32))
    assert found == [24]


def bowl(x):
    return jnp.sum(x**2)


def test_programs_are_dropped_on_request():
    for drop in (lambda: None, wgf.clear_caches):
        wgf.flow(bowl, jnp.ones(2), TAUS)
        drop()
        with programs() as compiled:
            wgf.flow(bowl, jnp.ones(2), TAUS)
        assert ("jit(_flow)" in compiled) == (drop is wgf.clear_caches)
