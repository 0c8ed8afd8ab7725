"""One line for each object, whatever its leaves are."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Matrix, averaged, programs

import wgf
from wgf._display.text import Brief, counted, in_bytes, known, last, memory, number
from wgf.measures import Gaussian, Layered

KEY = jax.random.key(0)
PROMPTS = wgf.prompts.Prompts(np.ones((6, 3, 5), np.float32), np.ones(6), label_row=2)
ENCODER = averaged(3)
PARTICLES = jax.tree.map(lambda leaf: np.ones((3, 8, *leaf.shape[1:]), np.float32), ENCODER.sample(KEY, (1,)))
FINITE = wgf.Transformer(ENCODER, Layered(PARTICLES))
GRID = Gaussian(Matrix(1)).eulerian(2, [4], -1.0, 1.0)
OBJECTS = {
    "Prompts": (PROMPTS, "6 prompts of 4 examples, token_dim 3, labels float32[6], float32, 408 B"),
    "Objective": (wgf.Objective(PROMPTS, 1e-3), "HalfSquaredError, QueryEntry, λ = 0.001, 6 prompts of 4 examples"),
    "Layered": (FINITE.measure, "3 × 8 particles of dimension 28, float32, 2.78 kB"),
    "Spectral": (wgf.measures.Spectral(PARTICLES), "3 × 8 particles of dimension 28, float32"),
    "Eulerian": (GRID, "2 × 4 cells of a grid 4, float"),
    "Transformer": (
        FINITE.with_tracers(FINITE),
        "Average(SoftmaxAttention, Perceptron), Layered 3 × 8 particles of dimension 28, tracers 3 × 8, float32",
    ),
    "AveragedODE": (
        wgf.AveragedODE(ENCODER, wgf.measures.Spectral(PARTICLES), steps=1),
        "Average(SoftmaxAttention, Perceptron), Spectral 3 × 8 particles of dimension 28, Tsit5 with 1 step, float32",
    ),
}
each = pytest.mark.parametrize("name", OBJECTS)


@each
def test_a_line_says_the_sizes(name):
    value, text = OBJECTS[name]
    with programs() as compiled:
        assert str(value).startswith(f"{name}: {text}")
    assert not compiled


@each
def test_a_summary_has_one_fact_per_line(name):
    value, _ = OBJECTS[name]
    title, *facts = value.summary().splitlines()
    assert title == name
    assert all(fact.startswith("  ") for fact in facts)
    assert f"{name}: {', '.join(fact.strip() for fact in facts)}" == repr(value)


def as_leaves(kind, value):
    """The object with other leaves."""
    if kind == "shapes":
        return eqx.filter_eval_shape(lambda x: x, value)
    if kind == "stacked":
        return jax.tree.map(lambda leaf: np.stack([leaf, leaf]) if eqx.is_array(leaf) else leaf, value)
    other = {"none": None, "objects": object(), "axes": 0, "scalars": np.ones(())}[kind]
    return jax.tree.map(lambda leaf: other, value)


@pytest.mark.parametrize("kind", ["shapes", "stacked", "none", "objects", "axes", "scalars"])
@each
def test_a_line_and_a_summary_are_there_for_any_leaves(name, kind):
    value = as_leaves(kind, OBJECTS[name][0])
    text = repr(value)
    assert text.startswith(f"{name}: ")
    assert "\n" not in text
    assert value.summary().startswith(f"{name}\n  ")


@each
def test_a_line_is_there_under_transformations(name):
    value, _ = OBJECTS[name]
    lines = []

    def note(value):
        lines.append(repr(value))
        return 0

    eqx.filter_eval_shape(note, value)
    eqx.filter_eval_shape(eqx.filter_vmap(note), as_leaves("stacked", value))
    assert [line.split(",")[0] for line in lines] == [str(value).split(",")[0]] * 2


def test_a_traced_number_is_its_type():
    line = repr(as_leaves("shapes", OBJECTS["Objective"][0]))
    assert "λ = float32[]," in line


def test_parts_may_be_missing():
    without = eqx.tree_at(lambda m: m.measure, FINITE, None)
    assert repr(without) == "Transformer: Average(SoftmaxAttention, Perceptron), None, 0 B"
    without = eqx.tree_at(lambda o: o.prompts, OBJECTS["Objective"][0], None)
    assert repr(without) == "Objective: HalfSquaredError, QueryEntry, λ = 0.001, None"


def test_an_object_that_cannot_be_summarised_is_printed_in_full():
    class Broken(Brief):
        x: int

        def _facts(self):
            raise RuntimeError

    assert repr(Broken(3)).endswith("Broken(x=3)")


def test_the_whole_structure_is_there():
    text = eqx.tree_pformat(FINITE)
    assert "weights=f32[3,8]" in text
    assert text.startswith("Transformer(\n  encoder=Average(")


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999600, "1 MB"), (1234567, "1.23 MB"), (5 * 10**12, "5e+03 GB")],
)
def test_bytes_have_a_unit(size, text):
    assert in_bytes(size) == text


def test_pieces_of_a_line():
    assert known(jnp.ones(2), 1).tolist() == [1, 1]
    assert known(jnp.ones(2), 0) is known(np.ones((0,)), 1) is known("a", 1) is None
    assert (number(np.array(1 / 3)), number(None), number(2.0)) == ("0.3333", "None", "2.0")
    assert (last(np.array([1.0, 0.12345])), last(np.ones((1, 2)))) == ("0.123", "float64[1,2]")
    assert (counted(1, "step"), counted(0, "step")) == ("1 step", "0 steps")
    assert (
        memory({"a": np.ones(2, np.float32), "b": np.ones(1), "c": np.ones(1, bool), "d": 1})
        == "float32, float64, 17 B"
    )
