"""What a solution answers about its saves, and how it prints."""

import dataclasses
import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, programs, scalar_problem

import wgf
from wgf._display.text import memory
from wgf.flows import RESULTS, FlowSolution, TrainSolution
from wgf.flows._solution import name_of

SAVES = 3
SOLUTION = TrainSolution(
    steps=jnp.arange(SAVES),
    models={"x": jnp.arange(SAVES, dtype=float)},
    objective=jnp.zeros(SAVES),
    risk=jnp.zeros(SAVES),
    dissipation=jnp.zeros(SAVES),
    outputs=jnp.zeros((SAVES, 0)),
    prompt_weights=jnp.zeros(0),
    result=RESULTS.successful,
)


@pytest.mark.parametrize("index", [0, 2, -1, -3])
def test_a_model_is_that_of_its_save(index):
    assert SOLUTION.model_at(index)["x"] == index % SAVES


@pytest.mark.parametrize("index", [3, -4, 99])
def test_a_save_that_does_not_exist_is_refused(index):
    """JAX would answer with the last one."""
    with pytest.raises(ValueError, match=f"`index` must be one of 3 saves, -3 to 2; got {index}"):
        SOLUTION.model_at(index)


@pytest.fixture(scope="module")
def flow():
    """A flow of few numbers."""
    model = wgf.Transformer(Matrix(1), wgf.measures.Layered(np.linspace(-1, 1, 4).reshape(2, 2, 1, 1)))
    return wgf.flow(scalar_problem(1e-3), model, np.linspace(0, 3, 31))


def test_a_flow_prints_in_one_line(flow):
    with programs() as compiled:
        text = str(flow)
    first, last = flow.risk[0].item(), flow.risk[-1].item()
    steps = flow.stats["num_steps"]
    assert text == f"FlowSolution: 31 τ from 0 to 3, risk {first:.3g} → {last:.3g}, {steps} steps, successful"
    assert str(SOLUTION) == "TrainSolution: 2 steps, 3 saves, risk 0 → 0, successful"
    assert not compiled


def failed(flow: FlowSolution, rows: int, result: RESULTS) -> FlowSolution:
    """The flow as if it had failed after some rows."""
    reached = np.arange(31) < rows
    risk = np.where(reached, np.asarray(flow.risk), np.nan)
    return eqx.tree_at(lambda s: (s.risk, s.reached, s.result), flow, (risk, reached, result))


def test_a_failed_flow_says_how_far_it_came_and_why(flow):
    text = str(failed(flow, 2, RESULTS.stalled))
    assert f"31 τ from 0 to 3, 2 of them reached, risk {flow.risk[0]:.3g} → {flow.risk[1]:.3g}, " in text
    assert text.endswith(", stalled")
    assert "0 of them reached, risk not finite" in str(failed(flow, 0, RESULTS.not_finite))


@pytest.mark.parametrize("solution", ["flow", "train"])
def test_a_solution_prints_whatever_its_leaves_are(flow, solution):
    solution = flow if solution == "flow" else SOLUTION
    name, lines = type(solution).__name__, []

    def note(solution):
        lines.append((repr(solution), solution._repr_html_()))
        return 0

    stacked = jax.tree.map(lambda leaf: np.stack([leaf, leaf]) if eqx.is_array(leaf) else leaf, solution)
    eqx.filter_eval_shape(note, solution)
    eqx.filter_eval_shape(eqx.filter_vmap(note), stacked)
    for other in (stacked, *(jax.tree.map(lambda leaf, x=x: x, solution) for x in (None, object(), 0))):
        note(other)
    for text, html in lines:
        assert text.startswith(f"{name}: ")
        assert "\n" not in text
        assert html.startswith(f"<pre>{name}: ")
    assert f"risk {solution.risk.dtype}[{len(solution.risk)}]" in lines[0][0]
    assert f"risk {solution.risk.dtype}[2,{len(solution.risk)}]" in lines[2][0]


def test_results_print_by_their_names():
    codes = [RESULTS.successful, RESULTS.stalled, RESULTS.successful]
    assert [name_of(code) for code in codes] == ["successful", "stalled", "successful"]
    many = jax.tree.map(lambda *leaves: np.stack(leaves), *codes)
    assert name_of(many) == "2 successful and 1 stalled"
    assert name_of(jax.tree.map(lambda leaf: leaf[::2], many)) == "successful"
    assert name_of(None) == "result None"


def rows_of(html: str) -> list[list[str]]:
    """The cells of a table."""
    return [re.findall("<t[hd]>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", html)]


def test_a_notebook_shows_twelve_rows_with_the_last(flow):
    html = flow._repr_html_()
    head, *rows = rows_of(html)
    assert head == ["τ", "objective", "risk", "dissipation"]
    assert len(rows) == 12
    for row, index in ((rows[0], 0), (rows[-1], -1)):
        values = (flow.taus, flow.objective, flow.risk, flow.dissipation)
        assert row == [f"{value[index]:.4g}" for value in values]
    assert rows_of(SOLUTION._repr_html_())[0] == ["steps", "objective", "risk", "dissipation"]
    assert html.count("<p>") == 1
    assert "→" in html


def test_a_summary_says_what_a_solution_holds_and_shows_twelve_rows(flow):
    facts, table = flow.summary().split("\n\n")
    title, *lines = facts.splitlines()
    assert title == "FlowSolution"
    for line in (
        "31 τ from 0 to 3",
        f"risk {flow.risk[0]:.3g} → {flow.risk[-1]:.3g}",
        f"objective {flow.objective[0]:.3g} → {flow.objective[-1]:.3g}",
        f"{flow.stats['num_steps']} steps",
        "successful",
        f"models: {', '.join(flow.models._facts())}",
        f"all arrays: {memory(flow)}",
    ):
        assert f"  {line}" in lines
    head, *rows = table.splitlines()
    assert head.split() == ["τ", "objective", "risk", "dissipation"]
    assert len(rows) == 12
    assert len({len(row) for row in (head, *rows)}) == 1
    assert rows[-1].split() == [f"{x[-1]:.4g}" for x in (flow.taus, flow.objective, flow.risk, flow.dissipation)]


def test_a_summary_without_known_numbers_has_no_table(flow):
    shapes = eqx.filter_eval_shape(lambda s: s, flow)
    assert "\n\n" not in shapes.summary()
    assert f"  risk {flow.risk.dtype}[31]\n" in shapes.summary()


def test_what_a_notebook_shows_is_escaped(flow):
    class Sly(FlowSolution):
        def _facts(self):
            yield "<script>"

    sly = Sly(**{field.name: getattr(flow, field.name) for field in dataclasses.fields(flow)})
    shown = sly._repr_html_(), eqx.filter_eval_shape(lambda s: s, sly)._repr_html_()
    for html in shown:
        assert "&lt;script&gt;" in html
        assert "<script>" not in html
