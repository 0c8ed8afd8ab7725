"""Losses, and the labels that they refuse."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from helpers import bound

import wgf
from wgf.objective import CrossEntropy, EveryRows, QueryRows


def test_cross_entropy_trains_class_labels(case):
    prompts, model = case
    classes = (prompts.labels > 0).astype(int)
    labelled = wgf.prompts.Prompts(prompts.tokens, classes, label_row=2)
    objective = wgf.Objective(labelled, 1e-3, loss=CrossEntropy(), readout=QueryRows(0, 2))
    logits = np.asarray(model(prompts.tokens))[:, :2, -1]
    expected = -np.mean(scipy.special.log_softmax(logits, axis=1)[np.arange(6), np.asarray(classes)])
    np.testing.assert_allclose(objective.risk(model), expected, rtol=bound(1e-12, 1e-5))
    solution = wgf.flow(objective, model, [0.0, 2.0, 4.0])
    assert solution.outputs.shape == (3, 6, 2)
    assert np.all(np.diff(solution.objective) < 0), solution.objective


@pytest.mark.parametrize("bad", [[-1, 0, 1, 0, 1, 0], [1, 2, 1, 2, 1, 2], [0, 1, -100, 1, 0, 1]])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray, lambda labels: jnp.asarray(labels, jnp.int8)])
def test_labels_that_are_no_class_are_refused(case, bad, kind):
    prompts, model = case
    labelled = wgf.prompts.Prompts(prompts.tokens, kind(bad), label_row=2)
    options = {"loss": CrossEntropy(), "readout": QueryRows(0, 2)}
    with pytest.raises(ValueError, match=f"`labels` must be classes 0 to 1; got {min(bad)} to {max(bad)}"):
        wgf.Objective(labelled, **options)

    def traced(prompts):
        return wgf.Objective(prompts, **options).risk(model)

    with pytest.raises(eqx.EquinoxRuntimeError, match="`labels` must be classes 0 to 1"):
        eqx.filter_jit(traced)(labelled)


def test_labels_at_positions_that_are_no_class_are_refused(case):
    prompts, _ = case
    labels = np.zeros(prompts.tokens.shape[::2], int)
    options = {"loss": CrossEntropy(), "readout": EveryRows(1, 3)}
    wgf.Objective(wgf.prompts.Prompts(prompts.tokens, labels + 2, label_row=2), **options)
    labels[3, 1] = 3
    with pytest.raises(ValueError, match="`labels` must be classes 0 to 2; got 0 to 3"):
        wgf.Objective(wgf.prompts.Prompts(prompts.tokens, labels, label_row=2), **options)


@pytest.mark.parametrize("label", [0.5, 1.0])
def test_classes_that_are_no_integers_are_refused(case, label):
    labelled = wgf.prompts.Prompts(case[0].tokens, np.full(6, label), label_row=2)
    with pytest.raises(ValueError, match=r"integer labels .* of type float(32|64)"):
        wgf.Objective(labelled, loss=CrossEntropy(), readout=QueryRows(0, 2))


@pytest.mark.parametrize("label", [-1, 3, -100])
def test_cross_entropy_and_its_gradient_at_no_class_are_not_numbers(label):
    """Where no objective has checked the labels, no finite number comes out. The other prompts are not concerned."""
    labels = jnp.array([2, label])
    losses, pull = jax.vjp(lambda outputs: CrossEntropy()(outputs, labels), jnp.ones((2, 3)))
    np.testing.assert_array_equal(np.isnan(losses), [False, True])
    (gradient,) = pull(jnp.ones(2))
    np.testing.assert_array_equal(np.isnan(gradient), [[False] * 3, [True] * 3])


def test_a_loss_of_ones_own_need_not_return_labels(case):
    class Absolute(wgf.objective.AbstractLoss):
        def __call__(self, outputs, labels):
            return jnp.abs(outputs - labels)

        def check(self, outputs, labels):
            pass

    prompts, model = case
    outputs = np.asarray(model(prompts.tokens))[:, 2, -1]
    objective = wgf.Objective(prompts, loss=Absolute())
    np.testing.assert_allclose(
        objective.risk(model), np.abs(outputs - np.asarray(prompts.labels)).mean(), rtol=bound(1e-12, 1e-6)
    )


def test_ignored_positions_do_not_count(key):
    outputs, labels = jax.random.normal(key, (3, 4, 5)), jax.random.randint(key, (3, 5), 0, 4)
    labels = labels.at[0, 1:].set(-100).at[1, 2].set(-100).at[2].set(-100)
    loss, plain = CrossEntropy(ignored=-100), CrossEntropy()
    found, gradient = loss(outputs, labels), jax.grad(lambda x: jnp.sum(loss(x, labels)))(outputs)
    kept = jnp.array([0, 1, 3, 4])
    expected = [plain(outputs[:1, :, :1], labels[:1, :1])[0], plain(outputs[1:2, :, kept], labels[1:2, kept])[0], 0]
    np.testing.assert_allclose(found, expected, rtol=bound(1e-12, 1e-5))
    assert np.all(np.asarray(gradient)[0, :, 1:] == 0)
    assert np.all(np.asarray(gradient)[2] == 0)
    assert np.isfinite(gradient).all()


def test_ignored_labels_pass_and_others_that_are_no_class_do_not(case):
    prompts, model = case
    length = prompts.tokens.shape[2]
    labels = np.zeros((6, length), int)
    labels[:, :-1] = -100
    readout = EveryRows(0, 2)
    some = wgf.Objective(
        wgf.prompts.Prompts(prompts.tokens, labels, label_row=2), loss=CrossEntropy(ignored=-100), readout=readout
    )
    last = wgf.Objective(
        wgf.prompts.Prompts(prompts.tokens, labels[:, -1], label_row=2), loss=CrossEntropy(), readout=QueryRows(0, 2)
    )
    np.testing.assert_allclose(some.risk(model), last.risk(model), rtol=bound(1e-12, 1e-5))
    labels[0, 0] = 2
    with pytest.raises(ValueError, match="`labels` must be classes 0 to 1"):
        wgf.Objective(
            wgf.prompts.Prompts(prompts.tokens, labels, label_row=2), loss=CrossEntropy(ignored=-100), readout=readout
        )


@pytest.mark.parametrize("ignored", [0, 3, -1.0, True])
@pytest.mark.usefixtures("unchecked")
def test_an_ignored_label_is_no_class(ignored):
    with pytest.raises(ValueError, match="`ignored` must be a whole number below 0, which is no class; got"):
        CrossEntropy(ignored=ignored)
