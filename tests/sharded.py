"""A program of its own, for JAX reads the number of devices once: flows on a mesh, in one or two processes.

Arguments: the mesh, a results file, a directory of a run or "-", and for two processes ADDRESS:PORT,PROCESSES,ID.
"""

import re
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import wgf

MOVES = r" (all-gather|all-to-all|collective-permute)(?:-start)?\("


def problem():
    """A Transformer, and its limit with the Transformer's particles as tracers."""
    key = jax.random.key(0)
    prompts = wgf.prompts.linear_regression(key, batch=8, examples=4, dim=2)
    encoder = wgf.encoders.Average(
        wgf.encoders.SoftmaxAttention(prompts.token_dim, key_dim=2),
        wgf.encoders.Perceptron(prompts.token_dim, jnp.tanh),
    )
    initial = wgf.measures.Gaussian(encoder, 0.7)
    # Wider than a tile of the kernels: their loops over particles must not move any.
    finite = wgf.Transformer(encoder, initial.layered(2, 80, key))
    limit = wgf.AveragedODE(encoder, initial.spectral(nodes=2, width=80, key=key)).with_tracers(finite)
    return wgf.Objective(prompts, 1e-3), finite, limit


def program(objective, model):
    """The text of a compiled velocity."""
    arrays, rest = eqx.partition((objective, model), eqx.is_array)
    return compiled(lambda arrays: wgf.velocity(*eqx.combine(arrays, rest)), arrays)


def compiled(function, arrays):
    """The text of a compiled function."""
    return jax.jit(function).lower(arrays).compile().as_text()


def loops_around_sums(text):
    """In how many loops a sum over devices lies at the most."""
    names = re.findall(r' all-reduce(?:-start)?\(.*op_name="([^"]*)"', text)
    return max(map(loops, names), default=0)


def loops(name):
    """In how many loops an operation lies. The name of several that XLA made one is outer/(inner:inner)."""
    outer, _, inner = name.partition("/(")
    return outer.count("while/body") + max(part.count("while/body") for part in inner.split(":"))


def main(mesh, results, directory, processes=None):
    if processes is not None:
        wgf.sharding.start_processes(processes)
    devices = wgf.sharding.parse_mesh(mesh)
    objective, finite, limit = (wgf.sharding.shard(part, devices) for part in problem())
    found = {}
    if directory == "-":
        plain = program(objective, finite)
        with jax.set_mesh(devices):
            programs = [program(objective, model) for model in (finite, limit)]
        found["moves"] = re.findall(MOVES, "".join([plain, *programs]))
        assert isinstance(limit, wgf.AveragedODE)
        # A sort along the spread axis must move particles: it shows that what moves is seen.
        sort = compiled(lambda leaf: jnp.sort(leaf, axis=1), limit.measure.particles.f.value)
        found["control"] = re.findall(MOVES, sort)
        found["loops"] = [loops_around_sums(text) for text in (*programs, plain)]
        found |= {"finite": wgf.velocity(objective, finite), "limit": wgf.velocity(objective, limit)}
    else:
        stop = 1e-9 if "," in mesh else None  # only the single device goes on to the end
        options = {"rtol": 1e-5, "segment_steps": 2, "progress": False, "time_limit": stop}
        solved = wgf.run(objective, limit, [0.0, 0.5, 1.0, 20.0], directory=directory, **options)
        found = {"steps": solved.stats["num_steps"], "limit": solved.models.measure.particles, "q": solved.objective}
    arrays = {name: jax.tree.leaves(wgf.sharding.gather(value)) for name, value in found.items()}
    if jax.process_index() == 0:
        flat = {f"{name}{i}": leaf for name, leaves in arrays.items() for i, leaf in enumerate(leaves)}
        np.savez(Path(results), **flat)


if __name__ == "__main__":
    main(*sys.argv[1:])
