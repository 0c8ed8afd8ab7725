"""Readouts: the rows that they read."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound

import wgf
from wgf.objective import EveryRows, QueryEntry, QueryRows


def test_vector_labels_sum_their_squares(case):
    prompts, model = case
    labels = jnp.stack([prompts.labels, 2 * prompts.labels], axis=1)
    objective = wgf.Objective(
        wgf.prompts.Prompts(prompts.tokens, labels, label_row=2), readout=QueryRows(start=1, count=2)
    )
    outputs = np.asarray(model(prompts.tokens))[:, 1:3, -1]
    np.testing.assert_allclose(
        objective.risk(model), np.mean(np.sum((outputs - labels) ** 2, 1)) / 2, rtol=bound(1e-12, 1e-5)
    )


@pytest.mark.parametrize(
    ("readout", "numbers", "message"),
    [
        (QueryEntry, (-1,), "`row` must be a whole number of at least 0; got -1"),
        (QueryRows, (0, 0), "`count` must be a whole number of at least 1; got 0"),
        (EveryRows, (0.5, 1), "`start` must be a whole number of at least 0; got 0.5"),
    ],
)
def test_rows_that_are_no_whole_numbers_are_refused(unchecked, readout, numbers, message):
    with pytest.raises(ValueError, match=message):
        readout(*numbers)
