"""Numbers of many parts of the library, for `test_plain.py`: the same with and without the machine room.

As a script: as a release of JAX would run it that has dropped what only the machine room imports.
"""

import json
import sys

import diffrax

if __name__ == "__main__":
    # All that imports these modules for itself.
    import orbax.checkpoint  # noqa: F401
    import ott  # noqa: F401

    for name in ("jax.extend.core", "jax.interpreters", "jax.experimental.xla_metadata"):
        sys.modules[name] = None

import jax

import wgf
from wgf._backend.plain import PLAIN
from wgf.encoders import Average, Causal, Chunked, LayerNorm, Perceptron, SoftmaxAttention


def numbers():
    """The velocities of three encoders, and a flow of the limit with tracers."""
    keys = jax.random.split(jax.random.key(0), 3)
    prompts = wgf.prompts.linear_regression(keys[0], batch=6, examples=4, dim=2)
    objective, dim = wgf.Objective(prompts, weight_decay=1e-3), prompts.token_dim
    halves = {
        "softmax": (SoftmaxAttention(dim, key_dim=2), Perceptron(dim)),
        "causal": (SoftmaxAttention(dim, key_dim=2, mask=Causal()), Perceptron(dim, jax.nn.gelu, use_bias=False)),
        "within": (LayerNorm(SoftmaxAttention(dim, key_dim=17)), Chunked(Perceptron(dim), particles=3, prompts=2)),
    }
    found = {}
    for name, (f, h) in halves.items():
        encoder = Average(f, h)
        law = wgf.measures.Gaussian(encoder)
        finite = wgf.Transformer(encoder, law.layered(2, 70, keys[1]))
        found[f"velocity, {name}"] = wgf.velocity(objective, finite)
        if name == "softmax":
            limit = wgf.AveragedODE(encoder, law.spectral(2, 9, keys[2])).with_tracers(finite)
            solution = wgf.flow(objective, limit, [0.0, 0.5], controller=diffrax.ConstantStepSize(), dt0=0.25)
            found["flow"] = solution.objective, solution.outputs, solution.models.tracers[0].particles
    return {name: [leaf.tolist() for leaf in jax.tree.leaves(tree)] for name, tree in found.items()}


if __name__ == "__main__":
    print(json.dumps({"is_plain": PLAIN, "numbers": numbers()}))
