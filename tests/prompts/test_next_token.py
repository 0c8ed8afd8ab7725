"""Next-token prompts on a Markov chain."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import bound, random_chain

import wgf
from wgf.prompts import MarkovChain, next_tokens, symbol_tokens


def test_next_tokens_are_labelled_with_their_successors(key):
    chain = random_chain(1, 3, 1)
    prompts = next_tokens(key, chain, batch=4, length=6, workspace=2, positions=2)
    assert prompts.tokens.shape == (4, 3 + 2 + 2, 6)
    symbols = jnp.argmax(prompts.tokens[:, :3], axis=1)
    np.testing.assert_array_equal(prompts.labels[:, :-1], symbols[:, 1:])
    np.testing.assert_array_equal(prompts.tokens, symbol_tokens(symbols, 3, workspace=2, positions=2))
    np.testing.assert_array_equal(prompts.tokens[:, 3:5], 0)


def test_next_tokens_train_by_batches(key):
    prompts = next_tokens(key, MarkovChain.binary(0.2, 0.3), batch=6, length=4)
    drawn = prompts.draw(key, 3)
    assert drawn.labels.shape == (3, 4)


def test_a_negative_workspace_is_refused(key):
    with pytest.raises(ValueError, match="`workspace` must be a whole number of at least 0; got -1"):
        next_tokens(key, MarkovChain.binary(0.1, 0.1), batch=1, length=2, workspace=-1)


def test_a_position_is_predicted_by_a_causal_model_alone(key):
    """Readout, loss and mask together: the loss at n does not see later tokens, and is the hand-made one."""
    prompts = next_tokens(key, random_chain(5, 3, 1), batch=3, length=5, positions=0)
    encoder = wgf.encoders.SoftmaxAttention(3, key_dim=2, mask=wgf.encoders.Causal())
    model = wgf.Transformer(encoder, wgf.measures.Gaussian(encoder).layered(2, 3, key))
    readout, loss = wgf.objective.EveryRows(0, 3), wgf.objective.CrossEntropy()
    objective = wgf.Objective(prompts, loss=loss, readout=readout)
    logits = np.asarray(objective.outputs(model))
    chosen = np.take_along_axis(logits, np.asarray(prompts.labels)[:, None], axis=1)[:, 0]
    expected = np.log(np.exp(logits).sum(axis=1)) - chosen
    np.testing.assert_allclose(objective.risk(model), expected.mean(), rtol=bound(1e-12, 2e-6))
    np.testing.assert_allclose(model(prompts.tokens[..., :3]), logits[..., :3], atol=bound(1e-14, 2e-6))


def test_symbols_that_are_no_integers_are_refused(unchecked):
    with pytest.raises(ValueError, match="`symbols` must be symbols 0 to 1, as integers; got type float64"):
        symbol_tokens(np.array([[0.0, 0.5]]), 2)
