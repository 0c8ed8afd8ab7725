"""Readouts, losses, weight decay, and what the objective refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import wgf
from wgf.objective import CrossEntropy, EveryRows, QueryEntry, QueryRows


def test_objective_is_risk_and_weight_decay(case):
    prompts, model = case
    outputs = np.asarray(model(prompts.tokens))[:, 2, -1]
    squares = sum(np.sum(np.asarray(leaf) ** 2) for leaf in jax.tree.leaves(model.measure.particles))
    risk = np.mean((outputs - np.asarray(prompts.labels)) ** 2) / 2
    objective = wgf.Objective(prompts, 0.3)
    np.testing.assert_allclose(objective.risk(model), risk, rtol=bound(1e-12, 1e-5))
    np.testing.assert_allclose(objective(model), risk + 0.15 * squares / 6, rtol=bound(1e-12, 1e-5))


def test_prompt_weights_weigh_the_risk(case):
    prompts, model = case
    weights = jnp.array([0.5, 0.5, 0, 0, 0, 0])
    weighted = wgf.prompts.Prompts(prompts.tokens, prompts.labels, label_row=2, weights=weights)
    two = wgf.prompts.Prompts(prompts.tokens[:2], prompts.labels[:2], label_row=2)
    np.testing.assert_allclose(
        wgf.Objective(weighted).risk(model), wgf.Objective(two).risk(model), rtol=bound(1e-12, 1e-5)
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": -1.0}, "`weight_decay` must be finite and not negative"),
        ({"weight_decay": np.nan}, "`weight_decay` must be finite and not negative"),
        ({"weight_decay": np.ones(2)}, "`weight_decay` must be one number"),
        ({"readout": QueryEntry(5)}, "below the token dimension"),
        ({"readout": QueryRows(4, 2)}, "below the token dimension"),
        ({"readout": QueryRows(0, 2)}, "`labels` must have the shape"),
        ({"readout": EveryRows(4, 2)}, "below the token dimension"),
        ({"loss": CrossEntropy()}, "`loss` CrossEntropy takes"),
        ({"loss": CrossEntropy(), "readout": EveryRows(0, 2)}, "`loss` CrossEntropy takes .*EveryRows"),
    ],
)
def test_what_does_not_fit_is_refused(case, options, message):
    with pytest.raises(ValueError, match=message):
        wgf.Objective(case[0], **options)
