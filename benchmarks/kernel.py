"""The tangent kernel: where it is singular by a theorem, and how it bounds the risk's fall along a flow.

    python benchmarks/kernel.py [--quick] [--only prompts encoders] [--output benchmarks/results]

Prints the tables and writes them to `kernel.json` and `.md`, parts in the place of older ones. Exits with 1 if a claim
fails. In float64. docs/benchmarks/kernel.md states the theorem. About two minutes on two cores.
"""

import argparse
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from _options import output_folder
from _report import RESULTS, Check, Table, in_place, stored, summary, write

import wgf
from wgf.encoders import (
    AbstractEncoder,
    Average,
    Causal,
    Convolution,
    KernelAttention,
    LayerNorm,
    Perceptron,
    SoftmaxAttention,
    Zero,
    relu_kernel,
)
from wgf.measures import Gaussian

jax.config.update("jax_enable_x64", True)

# The eigenvalues are squares: this is the rounding of float64 to the power of 1.25.
ROUNDING = 1e-20
CLOUDS, SHIFTS, HEADS, DATA = jax.random.split(jax.random.key(17), 4)


class FixedQuery(AbstractEncoder):
    """Softmax attention of one query, the same for all prompts: all columns of a prompt move alike."""

    attention: SoftmaxAttention
    query: jax.Array

    def sample(self, key, shape):
        """Heads of the attention."""
        return self.attention.sample(key, shape)

    def __call__(self, particle, tokens):
        """The mean of the values under the softmax of the fixed query's scores."""
        scores = (particle.key @ tokens).T @ (particle.query @ self.query) / math.sqrt(self.attention.key_dim)
        return jnp.broadcast_to((particle.value @ tokens @ jax.nn.softmax(scores))[:, None], tokens.shape)


def main() -> int:
    """Run the parts, print and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few heads and encoders, to see that all runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    old = [] if options.quick else stored("kernel", options.output)[1:]
    tables: list[Table] = []
    for name in options.only:
        tables.append(PARTS[name](options.quick))
        kept = in_place(old, tables)
        claims = summary(kept)
        write("kernel", "Tangent kernels", [claims, *kept], options.output, quick=options.quick)
        print(tables[-1].text(), end="\n\n", flush=True)
    print(claims.text())
    return int(not all(check.holds for table in tables for check in table.checks))


def eigenvalues(clouds: jax.Array, heads: int) -> np.ndarray:
    """Those of the kernel of one layer of attention to these clouds, `[prompts, token_dim, length]`, from the least."""
    encoder = FixedQuery(SoftmaxAttention(clouds.shape[1], key_dim=clouds.shape[1]), jnp.ones(clouds.shape[1]))
    prompts = wgf.prompts.Prompts(clouds, jnp.zeros(len(clouds)), label_row=0)
    model = wgf.Transformer(encoder, Gaussian(encoder).layered(1, heads, HEADS))
    return np.asarray(wgf.analysis.tangent_kernel(wgf.Objective(prompts), model).eigenvalues)


def sets_of_prompts(groups: int, dim: int = 3) -> dict[str, tuple[jax.Array, int]]:
    """Three prompts of six tokens for each group, and the rank of their kernel by the theorem."""
    count = 3 * groups
    generic = jax.random.normal(CLOUDS, (count, dim, 6))
    orders = jax.random.split(SHIFTS, count)
    # The sums of a token of one cloud and a token of another: the log-sum-exp of all sums is the sum of both.
    pairs, triples = generic[:groups, :, :2], generic[:groups, :, 3:]
    sums = (pairs[:, :, :, None] + triples[:, :, None, :]).reshape(groups, dim, 6)
    summed = jnp.concatenate([jnp.tile(pairs, 3), jnp.tile(triples, 2), sums])
    return {
        "independent": (generic, count),
        "sums of two others": (summed, 2 * groups),
        "one cloud, translated": (generic[:1] + jax.random.normal(SHIFTS, (count, dim, 1)), dim + 1),
        "one cloud, permuted": (jnp.stack([jax.random.permutation(k, generic[0], axis=1) for k in orders]), 1),
    }


def kinds_of_prompts(quick: bool) -> Table:
    """The rank of the kernel of attention on prompts that a theorem tells apart."""
    groups, heads = (2, 64) if quick else (4, 4096)
    rows, checks = [], []
    for name, (clouds, rank) in sets_of_prompts(groups).items():
        found = eigenvalues(clouds, heads)[::-1]
        seen = int(np.sum(found > ROUNDING * found[0]))
        rows.append((name, len(clouds), rank, seen, found[rank - 1] / found[0], found[-1] / found[0]))
        checks.append(Check(f"{name}: rank of the kernel", seen, rank, rank))
    note = (
        f"Prompts of 6 tokens in 3 dimensions, one query for all, {heads:,} heads. Rank: eigenvalues above "
        f"{ROUNDING:g} of the greatest. Last columns: over the greatest."
    )
    columns = ("prompts", "outputs", "rank by theory", "rank found", "the last of the rank", "least")
    return Table("Kinds of prompts", columns, rows, note, checks)


def zoo(dim: int) -> dict[str, AbstractEncoder]:
    """The encoders of the library."""
    attention, neurons = SoftmaxAttention(dim, key_dim=2), Perceptron(dim, jnp.tanh)
    return {
        "softmax attention": Average(attention, Zero()),
        "tanh neurons": Average(Zero(), neurons),
        "attention and neurons": Average(attention, neurons),
        "causal attention and neurons": Average(SoftmaxAttention(dim, key_dim=2, mask=Causal()), neurons),
        "ReLU attention and neurons": Average(KernelAttention(dim, key_dim=2, kernel=relu_kernel), neurons),
        "convolution and neurons": Average(Convolution(dim, reach=1), neurons),
        "both, normalised": LayerNorm(Average(attention, neurons), epsilon=0.1),
    }


def along_the_flow(quick: bool) -> Table:
    """The kernel's eigenvalues at each saved time of the finite flow, beside the rate at which the risk falls."""
    prompts = wgf.prompts.linear_regression(DATA, batch=8, examples=4, dim=2)
    objective, size = wgf.Objective(prompts), (2, 8) if quick else (4, 64)
    taus = np.array([0.0, 1.0]) if quick else np.array([0.0, 2.0, 5.0, 10.0, 20.0])
    rows, checks = [], []
    for name, encoder in list(zoo(prompts.token_dim).items())[: 2 if quick else None]:
        model = wgf.Transformer(encoder, Gaussian(encoder, 0.7).layered(*size, HEADS))
        solution = wgf.flow(objective, model, taus, rtol=1e-3, max_steps=16384)
        kernels = [wgf.analysis.tangent_kernel(objective, solution.model_at(i)) for i in range(len(taus))]
        risk = np.asarray(solution.objective)
        rate = np.asarray(solution.dissipation) / risk
        least, most = (np.array([2 * float(getattr(k, end)) for k in kernels]) for end in ("least", "greatest"))
        rows.append((name, least[0], least.min(), least[-1], rate[0], rate[-1], most[-1], risk[0], risk[-1]))
        checks.append(
            Check(f"{name}: rate over its lower bound, least along the flow", (rate / least).min(), 1, np.inf)
        )
        checks.append(Check(f"{name}: rate over its upper bound, greatest along the flow", (rate / most).max(), 0, 1))
    note = (
        f"In-context regression, λ = 0, 8 prompts, L = {size[0]}, M = {size[1]}, τ from 0 to "
        f"{taus[-1]:g}. Rate: -d log R/dτ. Twice the least and the greatest eigenvalue bound it."
    )
    columns = (
        *("encoder", "2 least, τ = 0", "lowest", "at the end", "rate, τ = 0", "at the end"),
        *("2 greatest", "risk, τ = 0", "at the end"),
    )
    return Table("Along the flow", columns, rows, note, checks)


PARTS = {"prompts": kinds_of_prompts, "encoders": along_the_flow}

if __name__ == "__main__":
    sys.exit(main())
