"""Prompts of different lengths."""

import jax.numpy as jnp
import numpy as np
import pytest

from wgf.prompts import pad_prompts


def test_padding_comes_first_and_the_last_row_tells_it():
    prompts = pad_prompts(
        [jnp.full((2, 3), 5.0), jnp.full((2, 2), 7.0)],
        jnp.array([1.0, 2.0]),
        label_row=1,
        weights=jnp.array([0.25, 0.75]),
    )
    np.testing.assert_array_equal(prompts.tokens[0], [[5, 5, 5], [5, 5, 5], [1, 1, 1]])
    np.testing.assert_array_equal(prompts.tokens[1], [[0, 7, 7], [0, 7, 7], [0, 1, 1]])
    np.testing.assert_array_equal(prompts.weights, [0.25, 0.75])
    assert (prompts.token_dim, prompts.examples, prompts.label_row) == (3, 2, 1)


@pytest.mark.parametrize("tokens", [[], "tokens", jnp.ones((2, 2, 3))])
@pytest.mark.usefixtures("unchecked")
def test_something_else_than_a_list_of_arrays_is_refused(tokens):
    with pytest.raises(
        ValueError, match=r"`tokens` must be a list of arrays \[D, N_b \+ 1\], one for each prompt; got"
    ):
        pad_prompts(tokens, jnp.ones(2), label_row=0)


@pytest.mark.usefixtures("unchecked")
def test_prompts_of_other_dimensions_are_refused():
    with pytest.raises(ValueError, match=r"`tokens` must hold arrays \[D, N_b \+ 1\] of one D; got the shapes"):
        pad_prompts([jnp.ones((2, 3)), jnp.ones((3, 3))], jnp.ones(2), label_row=0)
