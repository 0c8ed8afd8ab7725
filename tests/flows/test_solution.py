"""What a solution answers about its saves."""

import jax.numpy as jnp
import pytest

from wgf.flows import RESULTS, TrainSolution

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
