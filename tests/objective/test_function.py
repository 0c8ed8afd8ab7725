"""Plain functions as loss and readout: the same numbers as the classes, few programs, and clear refusals."""

import pickle

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import Matrix, bound, programs, regression

import wgf
from wgf.objective import FunctionLoss, FunctionReadout, HalfSquaredError, QueryEntry, QueryRows

KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def prompts():
    return regression(KEY)


@pytest.fixture(scope="module")
def model(prompts):
    encoder = Matrix(prompts.token_dim)
    return wgf.Transformer(encoder, wgf.measures.Gaussian(encoder, 0.3).layered(2, 3, KEY))


def half_square(prediction, label):
    return (prediction - label) ** 2 / 2


def last_row(tokens):
    return tokens[2, -1]


def test_functions_give_the_numbers_of_the_classes(prompts, model):
    plain = wgf.Objective(prompts, 1e-2, loss=half_square, readout=last_row)
    classes = wgf.Objective(prompts, 1e-2, loss=HalfSquaredError(), readout=QueryEntry(2))
    np.testing.assert_allclose(plain(model), classes(model), rtol=bound(1e-12, 1e-6))
    speeds = [wgf.measures.coordinates(wgf.velocity(objective, model)) for objective in (plain, classes)]
    np.testing.assert_allclose(*speeds, rtol=bound(1e-10, 1e-5), atol=bound(1e-14, 1e-7))


def test_huber_from_optax_is_a_loss(prompts, model):
    objective = wgf.Objective(prompts, loss=optax.huber_loss)
    gaps = np.abs(np.asarray(objective.outputs(model)) - np.asarray(prompts.labels))
    expected = np.where(gaps <= 1, gaps**2 / 2, gaps - 0.5)
    np.testing.assert_allclose(objective.risk(model), expected.mean(), rtol=bound(1e-12, 1e-5))


def test_predictions_and_labels_may_be_vectors(prompts, model):
    labels = jnp.stack([prompts.labels, 2 * prompts.labels], axis=1)
    two = wgf.prompts.Prompts(prompts.tokens, labels, label_row=2)

    def loss(prediction, label):
        return jnp.sum((prediction - label) ** 2) / 2

    plain = wgf.Objective(two, loss=loss, readout=lambda tokens: tokens[1:3, -1])
    classes = wgf.Objective(two, readout=QueryRows(1, 2))
    np.testing.assert_allclose(plain.risk(model), classes.risk(model), rtol=bound(1e-12, 1e-6))


def test_labels_may_be_classes(prompts, model):
    classes = wgf.prompts.Prompts(prompts.tokens, (prompts.labels > 0).astype(int), label_row=2)
    options = {"readout": QueryRows(0, 2)}
    plain = wgf.Objective(classes, loss=lambda logits, label: -jax.nn.log_softmax(logits)[label], **options)
    named = wgf.Objective(classes, loss=wgf.objective.CrossEntropy(), **options)
    np.testing.assert_allclose(plain.risk(model), named.risk(model), rtol=bound(1e-12, 1e-5))


def test_a_class_of_ones_own_needs_only_a_call(prompts, model):
    class Absolute(wgf.objective.AbstractLoss):
        def __call__(self, outputs, labels):
            return jnp.abs(outputs - labels)

    class Whole(wgf.objective.AbstractReadout):
        def __call__(self, tokens):
            return jnp.mean(tokens, axis=(1, 2))

    objective = wgf.Objective(prompts, loss=Absolute(), readout=Whole())
    outputs = np.asarray(model(prompts.tokens)).mean(axis=(1, 2))
    expected = np.abs(outputs - np.asarray(prompts.labels)).mean()
    np.testing.assert_allclose(objective.risk(model), expected, rtol=bound(1e-12, 1e-5))


def test_a_module_may_be_a_loss_and_keeps_its_arrays(prompts, model):
    class Scaled(eqx.Module):
        scale: jax.Array

        def __call__(self, prediction, label):
            return self.scale * (prediction - label) ** 2

    def risk(scale):
        return wgf.Objective(prompts, loss=Scaled(scale)).risk(model)

    half = jnp.asarray(0.5)
    np.testing.assert_allclose(risk(half), wgf.Objective(prompts).risk(model), rtol=bound(1e-12, 1e-6))
    np.testing.assert_allclose(jax.grad(risk)(half), 2 * risk(half), rtol=bound(1e-12, 1e-5))


def fresh():
    """A new function object each time, as a cell of a notebook that runs again makes one."""
    return lambda prediction, label: jnp.abs(prediction - label) ** 1.5


def test_functions_of_the_same_code_share_a_program(prompts, model):
    wgf.Objective(prompts, loss=fresh())(model)
    with programs() as compiled:
        wgf.Objective(prompts, loss=fresh())(model)
    assert not [name for name in compiled if "value_and_outputs" in name or "call" in name]


def test_an_objective_of_functions_is_a_tree_of_arrays(prompts, model):
    objective = wgf.Objective(prompts, 1e-2, loss=half_square, readout=last_row)
    assert all(eqx.is_array(leaf) for leaf in jax.tree.leaves(objective))
    np.testing.assert_allclose(
        jax.jit(lambda objective: objective.risk(model))(objective), objective.risk(model), rtol=bound(1e-12, 1e-6)
    )
    assert objective.loss == wgf.Objective(prompts, loss=half_square).loss
    assert hash(objective.loss) == hash(FunctionLoss(half_square))
    again = pickle.loads(pickle.dumps(FunctionLoss(half_square)))
    assert again == FunctionLoss(half_square)


def test_the_line_of_an_objective_names_the_functions(prompts):
    objective = wgf.Objective(prompts, loss=half_square, readout=last_row)
    assert repr(objective).startswith("Objective: loss half_square, readout last_row, λ = 0")


def test_a_float32_flow_stays_in_float32(model, prompts):
    """Labels in float64 do not widen the loss of predictions in float32."""
    narrow = wgf.prompts.Prompts(
        prompts.tokens.astype(jnp.float32), np.asarray(prompts.labels, np.float64), label_row=2
    )
    small = jax.tree.map(lambda leaf: leaf.astype(jnp.float32) if eqx.is_inexact_array(leaf) else leaf, model)
    assert wgf.Objective(narrow, loss=half_square).risk(small).dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"loss": lambda prediction, label: jnp.stack([prediction, label])},
            r"`loss` must map the prediction, a number, and the label, a number, of one prompt to one real number; "
            r"<lambda> returned an array \[2\]\. Take the sum or the mean",
        ),
        (
            {"loss": lambda prediction, label: prediction > label},
            "`loss` must map .*; <lambda> returned bool, which has no derivative",
        ),
        ({"loss": lambda prediction: prediction}, "`loss` must map .*; <lambda> raised TypeError: .*positional"),
        ({"loss": lambda prediction, label: (prediction, label)}, "`loss` must map .*; <lambda> returned tuple"),
        (
            {"loss": lambda prediction, label: prediction if prediction > label else label},
            "`loss` must map .*; <lambda> raised TracerBoolConversionError",
        ),
        (
            {"readout": lambda tokens: tokens[9, 9, 9]},
            r"`readout` must map the final tokens of one prompt, \[D, N\+1\] = \[5, 5\], to a number or an array of "
            r"numbers; <lambda> raised IndexError",
        ),
        ({"readout": lambda tokens: jnp.argmax(tokens)}, "`readout` must map .* returned int.*, which has no derivat"),
        ({"loss": HalfSquaredError}, "`loss` must be a loss, .* or a function .*Call the class: HalfSquaredError"),
        ({"readout": 3}, "`readout` must be a readout, e.g. .* or a function of the final tokens of one prompt; got 3"),
        ({"loss": half_square, "readout": QueryRows(0, 2)}, r"`loss` must map the prediction, an array \[2\], and"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_functions_that_do_not_fit_are_refused(prompts, options, message):
    with programs() as compiled, pytest.raises(ValueError, match=message):
        wgf.Objective(prompts, **options)
    assert not compiled


@pytest.mark.usefixtures("unchecked")
def test_a_class_that_does_not_return_one_number_per_prompt_is_refused(prompts):
    class Sum(wgf.objective.AbstractLoss):
        def __call__(self, outputs, labels):
            return jnp.sum((outputs - labels) ** 2)

    class Flat(wgf.objective.AbstractReadout):
        def __call__(self, tokens):
            return tokens.reshape(-1)

    message = (
        r"`loss` must return one real number per prompt, \[B\] = \[6\]; Sum returned a number\. Sum over the other"
    )
    with pytest.raises(ValueError, match=message):
        wgf.Objective(prompts, loss=Sum())
    with pytest.raises(ValueError, match=r"`readout` must map .*; Flat returned \[150\] for 6 prompts"):
        wgf.Objective(prompts, readout=Flat())


def test_readouts_are_read_prompt_by_prompt(prompts):
    np.testing.assert_array_equal(FunctionReadout(last_row)(prompts.tokens), QueryEntry(2)(prompts.tokens))


@pytest.mark.parametrize("kind", [FunctionLoss, FunctionReadout])
@pytest.mark.parametrize("value", [3, HalfSquaredError])
@pytest.mark.usefixtures("unchecked")
def test_what_is_no_function_is_refused(kind, value):
    with pytest.raises(ValueError, match=r"`function` must be a function of one prompt, .*; got (3|the class Half)"):
        kind(value)
