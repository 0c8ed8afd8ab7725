"""The checks that an encoder, its particles and the prompts fit together, one by one."""

import jax
import jax.numpy as jnp
import pytest

from wgf.encoders import AbstractEncoder, Neuron, Perceptron
from wgf.encoders._checks import check_arguments, check_call, check_fused, check_particles, leading_axes, particle_of

NEURON = Perceptron(3, jnp.tanh)
PARTICLES = Neuron(jnp.ones((4, 3)), jnp.ones((4, 3)), jnp.ones(4))
FITS = {"particles": PARTICLES, "weights": jnp.full(4, 0.25), "tokens": jnp.ones((2, 3, 5))}


class Own(AbstractEncoder):
    """A user's encoder, given by its action and its law."""

    action: object
    law: object = None

    def sample(self, key, shape):
        if self.law is None:
            raise NotImplementedError
        return self.law(shape)

    def __call__(self, particle, tokens):
        return self.action(tokens)


def test_leading_axes_are_a_tuple_of_whole_numbers(unchecked):
    assert leading_axes("shape", [2, 3]) == (2, 3)
    assert leading_axes("shape", ()) == ()
    with pytest.raises(ValueError, match=r"`shape` must be a tuple of sizes, e.g. \(8,\); got 8"):
        leading_axes("shape", 8)
    with pytest.raises(ValueError, match="`shape` must be a whole number of at least 0; got -1"):
        leading_axes("shape", (2, -1))


def test_arguments_that_fit_are_taken():
    assert check_arguments(NEURON, **FITS) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokens": jnp.ones((3, 5))}, r"`tokens` must have shape \[B, D, N\+1\]; got \(3, 5\)"),
        ({"tokens": jnp.ones((2, 4, 5))}, "`tokens` must have the token dimension D of Perceptron, 3; got 4"),
        ({"weights": jnp.full(5, 0.2)}, r"the leading axis \[width\] of `weights`, \(5,\); got \[\(4,\)\]"),
        ({"particles": PARTICLES._replace(w_in=jnp.ones((4, 2)))}, "`particles` must have the structure and shapes"),
        ({"particles": tuple(PARTICLES)}, "`particles` must have the structure and shapes"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(unchecked, changes, message):
    with pytest.raises(ValueError, match=message):
        check_arguments(NEURON, **(FITS | changes))


def test_particles_are_compared_behind_their_leading_axes():
    stacked = jax.tree.map(lambda leaf: leaf[None], PARTICLES)
    assert check_particles(NEURON, stacked, 2) is None
    with pytest.raises(ValueError, match="behind 1 leading axes"):
        check_particles(NEURON, stacked, 1)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda tokens: tokens[:1], r"Own returned the shape \[1, 5\]"),
        (lambda tokens: (tokens, tokens), "Own returned tuple"),
        (lambda tokens: tokens.astype(jnp.bfloat16), "Own returned bfloat16 for float"),
        (lambda tokens: tokens @ tokens, "Own raised TypeError"),
    ],
)
def test_an_encoder_that_maps_no_prompt_to_a_prompt_is_refused(action, message):
    with pytest.raises(ValueError, match=message):
        check_call(Own(action), jnp.ones((4, 2)), FITS["tokens"])


def test_an_encoder_that_maps_prompts_to_prompts_is_taken():
    assert check_call(NEURON, PARTICLES, FITS["tokens"]) is None


def test_a_fused_mean_has_the_shape_and_type_of_the_tokens():
    tokens = FITS["tokens"]
    assert check_fused(NEURON, tokens, tokens) is tokens
    with pytest.raises(ValueError, match=r"`fused_mean` must return the shape and type of `tokens`, \[2, 3, 5\]"):
        check_fused(NEURON, tokens[0], tokens)


def test_the_shapes_of_a_particle_are_those_that_the_encoder_draws():
    found = particle_of(NEURON)
    assert (found.w_in.shape, found.w_out.shape, found.bias.shape) == ((3,), (3,), ())
    assert particle_of(Own(lambda tokens: tokens)) is None
    with pytest.raises(ValueError, match="hold arrays alone; `sample` of Own returned other leaves"):
        particle_of(Own(lambda tokens: tokens, lambda shape: {"f": jnp.tanh}))
