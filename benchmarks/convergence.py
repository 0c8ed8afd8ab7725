"""Hold the gap of finite Transformers to what theorems say of its rate and of its constants.

    python benchmarks/convergence.py [--quick] [--only depth scale dimension tokens] [--output benchmarks/results]

Prints the tables and writes them to `convergence.json` and `.md`, parts in the place of older ones. Exits with 1 if a
claim fails. In float64.

The gap is the root mean square difference of the outputs of a finite model and of the limit, over prompts and seeds of
the finite model's particles. docs/benchmarks/convergence.md states the theorems.
"""

import argparse
import dataclasses
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
from _options import output_folder
from _report import RESULTS, Check, Table, in_place, slope, stored, summary, write

import wgf
from wgf.encoders import Average, Neuron, Perceptron, SoftmaxAttention
from wgf.measures import Gaussian, SignPairs, Sobol

jax.config.update("jax_enable_x64", True)

DATA, LIMIT, FINITE = jax.random.split(jax.random.key(7), 3)


@dataclasses.dataclass(frozen=True)
class Measured:
    """Gaps at the start and at the last τ, with standard errors over seeds, and what the limit's own sampling adds."""

    gaps: np.ndarray
    errors: np.ndarray
    own: np.ndarray


@dataclasses.dataclass(frozen=True)
class Effort:
    """The number of seeds, and of particles at each of the limit's stage times."""

    seeds: int
    width: int


def main() -> int:
    """Run the parts, print and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few sizes and seeds, to see that all runs")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    old = [] if options.quick else stored("convergence", options.output)[1:]
    tables: list[Table] = []
    for name in options.only:
        tables.append(PARTS[name](options.quick))
        kept = in_place(old, tables)
        claims = summary(kept)
        write("convergence", "Convergence", [claims, *kept], options.output, quick=options.quick)
        print(tables[-1].text(), end="\n\n", flush=True)
    print(claims.text())
    return int(not all(check.holds for table in tables for check in table.checks))


def measure(
    encoder: wgf.encoders.AbstractEncoder,
    prompts: wgf.prompts.Prompts,
    size: tuple[int, int],
    effort: Effort,
    *,
    scale,
    tau: float,
) -> Measured:
    """The gaps of Transformers of L layers of M particles, at the start and at τ."""
    objective, taus = wgf.Objective(prompts, 1e-3), [0.0, tau]
    placed = Gaussian(encoder, scale, SignPairs(Sobol()))

    def outputs(model):
        return np.asarray(wgf.flow(objective, model, taus, rtol=1e-4, atol=1e-7).outputs)

    first, second = (
        outputs(wgf.AveragedODE(encoder, placed.staged(effort.width, key, joint=True)))
        for key in jax.random.split(LIMIT)
    )
    law = Gaussian(encoder, scale)
    each = np.stack(
        [outputs(wgf.Transformer(encoder, law.layered(*size, k))) for k in jax.random.split(FINITE, effort.seeds)]
    )
    limit = (first + second) / 2
    squares = np.mean((each - limit) ** 2, axis=2)
    gaps = np.sqrt(squares.mean(0))
    errors = squares.std(0, ddof=1) / math.sqrt(effort.seeds) / (2 * gaps)
    return Measured(gaps, errors, np.sqrt(np.mean((first - second) ** 2, axis=1)) / 2)


def effort_of(quick: bool) -> Effort:
    """That of the tables, or a small one."""
    return Effort(2, 16) if quick else Effort(48, 512)


def regression(dim: int, examples: int = 4) -> wgf.prompts.Prompts:
    """Prompts of in-context linear regression."""
    return wgf.prompts.linear_regression(DATA, batch=16, examples=examples, dim=dim)


def scaled_neurons(token_dim: int, factor: float) -> Perceptron:
    """Neurons whose output is `factor` times that of tanh neurons."""
    return Perceptron(token_dim, lambda x: factor * jnp.tanh(x))


def depth_alone(quick: bool) -> Table:
    """One neuron a layer, and ever more layers."""
    prompts, depths = regression(2), (8, 16) if quick else (8, 32, 128, 512)
    encoder = Perceptron(prompts.token_dim, jnp.tanh)
    found = [measure(encoder, prompts, (depth, 1), effort_of(quick), scale=0.7, tau=2.0) for depth in depths]
    power = [slope(depths, [each.gaps[time] for each in found]) for time in (0, 1)]
    rows = [
        (depth, *each.gaps, each.errors[1], each.own[1], math.sqrt(depth) * each.gaps[1])
        for depth, each in zip(depths, found, strict=True)
    ]
    note = f"A ResNet, M = 1, D = 5, 16 prompts. Powers of L: {power[0]:.3f} at τ = 0, {power[1]:.3f} at τ = 2."
    checks = (
        []
        if quick
        else [Check(f"M = 1: power of L, τ = {tau}", p, -0.6, -0.4) for tau, p in zip((0, 2), power, strict=True)]
    )
    return Table("Depth alone", ("L", "gap, τ = 0", "τ = 2", "its error", "the limit's", "√L gap"), rows, note, checks)


def scale_of_residuals(quick: bool) -> Table:
    """Residual blocks times α."""
    prompts, size = regression(2), (8, 4)
    scales = (0.25, 0.5) if quick else (0.125, 0.25, 0.5, 1.0, 2.0)
    rows, constants = [], []
    for alpha in scales:
        encoder = scaled_neurons(prompts.token_dim, alpha)
        each = measure(encoder, prompts, size, effort_of(quick), scale=0.7, tau=0.5 / alpha**2)
        constant = each.gaps * math.sqrt(math.prod(size)) / alpha
        constants.append(constant)
        rows.append((alpha, *each.gaps, each.errors[1], each.own[1], *constant))
    note = f"A ResNet, L = {size[0]}, M = {size[1]}, D = 5; τ = 1/(2 α²), since velocities grow with α twice."
    low = np.array(constants)[:3] if len(constants) > 3 else np.array(constants)
    checks = (
        []
        if quick
        else [
            Check(f"gap √(LM) / α at α ≤ 1/2, greatest over least, {time}", float(c.max() / c.min()), 1, 1.25)
            for time, c in zip(("start", "trained"), low.T, strict=True)
        ]
    )
    columns = ("α", "gap, start", "trained", "its error", "the limit's", "√(LM) gap / α, start", "trained")
    return Table("Scale of the residuals", columns, rows, note, checks)


def dimension_of_tokens(quick: bool) -> Table:
    """Neurons on tokens of ever more dimensions, with residuals of scale √D."""
    size, features = (16, 4), (2, 5) if quick else (5, 13, 61, 253)
    rows, constants = [], []
    for count in features:
        prompts = regression(count)
        dim = prompts.token_dim
        encoder = scaled_neurons(dim, math.sqrt(dim))
        scale = Neuron(w_in=1 / math.sqrt(dim), w_out=0.7, bias=0.7)
        each = measure(encoder, prompts, size, effort_of(quick), scale=scale, tau=0.5 / dim)
        constant = each.gaps * math.sqrt(math.prod(size) / dim)
        constants.append(constant)
        rows.append((dim, *each.gaps, each.errors[1], each.own[1], *constant))
    start, trained = np.array(constants).T
    note = f"A ResNet, L = {size[0]}, M = {size[1]}; input weights have variance 1/D; τ = 1/(2 D)."
    checks = [
        Check("gap √(LM / D), greatest over least, start", float(start.max() / start.min()), 1, 1.5),
        # The theorem is a bound: training may bring the models nearer to each other.
        Check("gap √(LM / D), at the largest D over the smallest, trained", float(trained[-1] / trained[0]), 0, 1.1),
    ]
    checks = [] if quick else checks
    columns = ("D", "gap, start", "trained", "its error", "the limit's", "√(LM / D) gap, start", "trained")
    return Table("Dimension of tokens", columns, rows, note, checks)


def number_of_tokens(quick: bool) -> Table:
    """Attention and neurons on ever more tokens."""
    size, counts = (8, 16), (4, 8) if quick else (4, 8, 16, 32, 64)
    rows, last = [], []
    for examples in counts:
        prompts = regression(2, examples)
        dim = prompts.token_dim
        encoder = Average(SoftmaxAttention(dim, key_dim=2), Perceptron(dim, jnp.tanh))
        each = measure(encoder, prompts, size, effort_of(quick), scale=0.7, tau=4.0)
        last.append(each.gaps)
        rows.append((examples, *each.gaps, each.errors[1], each.own[1]))
    growth = [slope(counts, gaps) for gaps in np.array(last).T]
    note = (
        f"Attention and tanh neurons, L = {size[0]}, M = {size[1]}, D = 5. "
        f"Powers of N: {growth[0]:.3f} at τ = 0, {growth[1]:.3f} at τ = 4."
    )
    checks = (
        []
        if quick
        else [
            Check(f"power of N, τ = {tau}: no growth", power, -0.5, 0.1)
            for tau, power in zip((0, 4), growth, strict=True)
        ]
    )
    return Table("Number of tokens", ("N", "gap, τ = 0", "τ = 4", "its error", "the limit's"), rows, note, checks)


PARTS = {
    "depth": depth_alone,
    "scale": scale_of_residuals,
    "dimension": dimension_of_tokens,
    "tokens": number_of_tokens,
}

if __name__ == "__main__":
    sys.exit(main())
