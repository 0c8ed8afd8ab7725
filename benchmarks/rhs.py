"""Time the right-hand side of the flow, one `wgf.velocity`, against plain JAX and PyTorch.

    python benchmarks/rhs.py [--quick] [--sizes 1 2 3 4] [--repeats 7] [--output benchmarks/results/rhs.json]

Variants of the same gradient, called in turn so that other work on the machine hits them alike:

- wgf: `wgf.velocity`, a plain call: one device, no flags;
- spread: the same in a process of its own, where each core is a device with its own prompts and the loops of its own
  program, compiled for vectors of 512 bits (`_spread.py`);
- naive: JAX, `vmap` over prompts of `vmap` over particles;
- einsum: JAX, one einsum for each step of the attention;
- torch: the same einsums in eager PyTorch (left out where PyTorch is not installed);
- compiled: the same after `torch.compile` (left out where that fails).

Before they are timed, gradients are compared, and before each timed call a variant is called once: the threads of
the one before may still wait for work. Ratios are to the plain call.
Errors in float32 against float64 are shown as well, for particles scaled up: geometric means over six draws.
`floor/wgf`: the seconds that the arithmetic alone takes at the machine's measured rates, as a share of what the faster
of the first two takes. All goes to a JSON file, with versions, machine, commit and date; with `--sizes` into the one
that is there, in the place of older runs.
"""

import argparse
import contextlib
import functools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from _report import RESULTS, header

import wgf
from wgf.encoders import Average, Perceptron, SoftmaxAttention, plain_mean

try:
    import torch
except ImportError:
    torch = None

# L, M, B, D, N+1, k
SIZES = [
    (8, 64, 64, 5, 9, 2),
    (16, 256, 64, 5, 9, 2),
    (16, 1024, 128, 5, 9, 2),
    (8, 32, 16, 17, 65, 8),
    (4, 32, 16, 64, 64, 16),
]
QUICK = [(2, 8, 4, 5, 9, 2), (2, 4, 2, 17, 65, 8)]
DECAY = 1e-3


def main():
    """Run everything and write the file."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that all runs")
    parser.add_argument(
        "--sizes", type=int, nargs="+", help="the numbers of the sizes to measure, from 1; default: all"
    )
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each variant")
    parser.add_argument("--output", type=Path, default=RESULTS / "rhs.json")
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    sizes = QUICK if options.quick else SIZES
    report = {**header(), "rates": machine_rates(), "runs": [], "errors": errors(sizes[0], 1 if options.quick else 6)}
    report["versions"] |= {"torch": torch.__version__} if torch is not None else {}
    if options.sizes:
        report["runs"] = json.loads(options.output.read_text(encoding="utf-8"))["runs"]
    for number, size in enumerate(sizes, start=1):
        for dtype in ("float32", "float64"):
            if options.sizes is None or number in options.sizes:
                found = run(size, dtype, options.repeats, report["rates"])
                runs = {(*r["size"].values(), r["dtype"]): r for r in [*report["runs"], found]}
                report["runs"] = list(runs.values())
                options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def floor(size: tuple[int, ...], dtype: str, rates: dict[str, float]) -> float:
    """The least seconds that the arithmetic of one velocity takes at the machine's own rates."""
    products, exponentials = arithmetic(size)
    return products / rates[f"{dtype} products"] + exponentials / rates[f"{dtype} exponentials"]


def arithmetic(size: tuple[int, ...]) -> tuple[int, int]:
    """The operations of the products of one velocity, and its exponentials.

    Forward once, once more in the backward pass, which costs two: four times the products, twice the exponentials.
    """
    depth, width, batch, dim, length, key_dim = size
    heads = 4 * key_dim * dim * length + 2 * (key_dim + dim) * length**2 + 2 * dim**2 * length
    neurons = 4 * dim * length
    each = depth * width * batch
    return each * 4 * (heads + neurons), each * 2 * (length**2 + length)


def machine_rates() -> dict[str, float]:
    """Floating-point operations a second of one large matrix product, and exponentials a second, the best of seven."""
    rates = {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            matrix, vector = jnp.ones((2048, 2048), dtype), jnp.linspace(-3, 0, 2**24, dtype=dtype)
            product, exponential = jax.jit(jnp.matmul), jax.jit(lambda x: jnp.sum(jnp.exp(x)))
            calls = {"product": lambda p=product, m=matrix: p(m, m), "exp": lambda e=exponential, v=vector: e(v)}
            jax.block_until_ready([call() for call in calls.values()])
            best = {name: min(times) for name, times in timings(calls, 7).items()}
        rates[f"{dtype} products"] = 2 * 2048**3 / best["product"]
        rates[f"{dtype} exponentials"] = 2**24 / best["exp"]
    print({name: f"{rate:.2e}/s" for name, rate in rates.items()}, flush=True)
    return rates


def run(size: tuple[int, ...], dtype: str, repeats: int, rates: dict[str, float]) -> dict:
    """Compare and time all variants at one size."""
    jax.clear_caches()
    with jax.enable_x64(dtype == "float64"):
        objective, model = problem(size)
        variants, compile_seconds = {}, {}
        for name, velocity in VELOCITIES.items():
            start = time.perf_counter()
            compiled = jax.jit(velocity).lower(objective, model).compile()
            compile_seconds[name] = round(time.perf_counter() - start, 2)
            variants[name] = functools.partial(compiled, objective, model)
        variants |= torch_velocities(objective, model)
        results = {name: jax.tree.leaves(jax.block_until_ready(variant())) for name, variant in variants.items()}
        timers = {name: functools.partial(seconds_of, variant) for name, variant in variants.items()}
        with spread_velocity(size, dtype) as (result, timer):
            if timer is not None:
                results["spread"], timers["spread"] = result, timer
            differences = {name: difference(result, results["naive"]) for name, result in results.items()}
            seconds = in_turn(timers, repeats)
    medians = {name: float(np.median(times)) for name, times in seconds.items()}
    ratios = {name: round(median / medians["wgf"], 2) for name, median in medians.items()}
    shown = "  ".join(f"{name} x{ratio:.2f}" for name, ratio in ratios.items())
    share = floor(size, dtype, rates) / min(medians["wgf"], medians.get("spread", np.inf))
    print(f"{size} {dtype}: {1e3 * medians['wgf']:.1f} ms  {shown}  floor/wgf {share:.2f}", flush=True)
    limit = 1e-4 if dtype == "float32" else 1e-12
    if max(differences.values()) > limit:
        raise RuntimeError(f"the variants' gradients must agree to {limit}; got differences {differences}.")
    return {
        "size": dict(zip(("L", "M", "B", "D", "N+1", "k"), size, strict=True)),
        "dtype": dtype,
        "seconds": seconds,
        "median_seconds": medians,
        "ratio_to_wgf": ratios,
        "share_of_floor": share,
        "compile_seconds": compile_seconds,
        "difference_from_naive": differences,
    }


def timings(variants: dict, repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, the variants in turn."""
    return in_turn({name: functools.partial(seconds_of, variant) for name, variant in variants.items()}, repeats)


def in_turn(timers: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """The seconds that each timer says, the timers in turn."""
    seconds = {name: [] for name in timers}
    for _ in range(repeats):
        for name, timer in timers.items():
            seconds[name].append(timer())
    return seconds


def seconds_of(variant: Callable) -> float:
    """The seconds of a call that follows another."""
    jax.block_until_ready(variant())
    start = time.perf_counter()
    jax.block_until_ready(variant())
    return time.perf_counter() - start


def errors(size: tuple[int, ...], draws: int) -> list[dict]:
    """Errors of the velocity in float32 against naive JAX in float64, for particles scaled up."""
    velocities = {name: jax.jit(velocity) for name, velocity in VELOCITIES.items()}
    found = []
    for scale in (1, 2, 3, 8):
        logs = [np.log([*one_error(velocities, size, scale, seed).values()]) for seed in range(draws)]
        row = dict(zip(velocities, np.exp(np.mean(logs, axis=0)).tolist(), strict=True))
        found.append({"scale": scale, **row})
        shown = "  ".join(f"{name} {error:.1e}" for name, error in row.items())
        print(f"float32 error, particles x{scale}: {shown}", flush=True)
    return found


def one_error(velocities: dict, size: tuple[int, ...], scale: float, seed: int) -> dict[str, float]:
    """The errors for one draw of particles."""
    with jax.enable_x64(False):
        start = problem(size, scale, seed)
        single = {name: velocity(*start) for name, velocity in velocities.items()}
    with jax.enable_x64(True):
        exact = jax.tree.leaves(velocities["naive"](*jax.tree.map(to_double, start)))
        return {name: difference(jax.tree.leaves(velocity), exact) for name, velocity in single.items()}


def to_double(leaf):
    """A float32 array as float64."""
    return jnp.asarray(np.asarray(leaf, np.float64))


def difference(result: list, expected: list) -> float:
    """The largest difference of an entry, relative to the largest entry of all."""
    result, expected = (
        np.concatenate([np.ravel(np.asarray(leaf, np.float64)) for leaf in leaves]) for leaves in (result, expected)
    )
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def problem(size: tuple[int, ...], scale: float = 1.0, seed: int = 1):
    """The objective and the model, in JAX's default precision."""
    depth, width, batch, dim, length, key_dim = size
    encoder = Average(SoftmaxAttention(dim, key_dim=key_dim), Perceptron(dim, jnp.tanh, use_bias=False))
    prompts = wgf.prompts.linear_regression(jax.random.key(0), batch=batch, examples=length - 1, dim=dim - 3)
    particles = encoder.sample(jax.random.key(seed), (depth, width))
    particles = jax.tree.map(lambda leaf: 0.7 * scale * leaf, particles)
    model = wgf.Transformer(encoder, wgf.measures.Layered(particles))
    return wgf.Objective(prompts, weight_decay=DECAY), model


def jax_velocity(attention, perceptron, objective, model):
    """−LM ∇Q by plain autodiff, with the two means given."""
    particles, weights = model.measure.particles, model.measure.weights
    depth, width = weights.shape

    def value(particles):
        def layer(tokens, law):
            particles, weights = law
            tokens = tokens + attention(model.encoder.f, particles.f, weights, tokens) / (2 * depth)
            return tokens + perceptron(model.encoder.h, particles.h, weights, tokens) / (2 * depth), None

        tokens = jax.lax.scan(layer, objective.prompts.tokens, (particles, weights))[0]
        squares = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(particles))
        residual = tokens[:, objective.prompts.label_row, -1] - objective.prompts.labels
        return jnp.mean(residual**2) / 2 + objective.weight_decay / 2 * squares / (depth * width)

    return jax.tree.map(lambda leaf: -depth * width * leaf, jax.grad(value)(particles))


def einsum_attention(encoder, heads, weights, tokens):
    """The mean over heads, an einsum a step."""
    keys = jnp.einsum("mki,bin->bmkn", heads.key, tokens)
    queries = jnp.einsum("mki,bin->bmkn", heads.query, tokens)
    scores = jnp.einsum("bmkn,bmkq->bmnq", keys, queries) / math.sqrt(encoder.key_dim)
    attended = jnp.einsum("bin,bmnq->bmiq", tokens, jax.nn.softmax(scores, axis=2))
    return jnp.einsum("mji,bmiq->bjq", weights[:, None, None] * heads.value, attended)


def einsum_perceptron(encoder, neurons, weights, tokens):
    """The mean over neurons as a hidden layer."""
    hidden = jnp.tanh(jnp.einsum("mi,bin->bmn", neurons.w_in, tokens))
    return jnp.einsum("mj,bmn->bjn", weights[:, None] * neurons.w_out, hidden)


naive_velocity = functools.partial(jax_velocity, plain_mean, plain_mean)
VELOCITIES = {
    "wgf": wgf.velocity,
    "naive": naive_velocity,
    "einsum": functools.partial(jax_velocity, einsum_attention, einsum_perceptron),
}


@contextlib.contextmanager
def spread_velocity(size: tuple[int, ...], dtype: str) -> Iterator[tuple[list, Callable[[], float] | None]]:
    """The velocity and a timer of a process in which each core is a device; no timer if cores do not divide prompts."""
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "velocity.npz")
        asked = json.dumps({"size": size, "dtype": dtype, "result": str(result)})
        command = [sys.executable, Path(__file__).with_name("_spread.py"), asked]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            is_spread = json.loads(process.stdout.readline())

            def timer() -> float:
                process.stdin.write("\n")
                process.stdin.flush()
                return float(process.stdout.readline())

            if is_spread:
                with np.load(result) as arrays:
                    yield list(arrays.values()), timer
            else:
                yield [], None


def torch_velocities(objective, model, device: str = "cpu") -> dict:
    """The same in PyTorch, eager and compiled, as functions without arguments; what does not run is left out.

    On a GPU (`device="cuda"`) they wait until the GPU is done, and the arrays that they return stay there.
    """
    if torch is None:
        return {}
    found = {"torch": torch_velocity(objective, model, lambda function: function, device)}
    torch.compiler.reset()  # else it gives up compiling after eight sizes and dtypes
    try:
        compiled = torch_velocity(objective, model, torch.compile, device)
        compiled()
    except Exception as error:  # whatever a compiler may raise
        print(f"torch.compile is left out: {type(error).__name__}", flush=True)
        return found
    return {**found, "compiled": compiled}


def torch_velocity(objective, model, transform, device: str):
    """−LM ∇Q in PyTorch, Q once transformed."""

    def tensor(leaf):
        return torch.tensor(np.asarray(leaf), device=device)

    prompts, key_dim = objective.prompts, model.encoder.f.key_dim
    start, labels = tensor(prompts.tokens), tensor(prompts.labels)
    leaves = [tensor(leaf).requires_grad_() for leaf in jax.tree.leaves(model.measure.particles)]
    depth, width = model.measure.weights.shape

    @transform
    def layer(tokens, value, key, query, w_in, w_out):
        keys = torch.einsum("mki,bin->bmkn", key, tokens)
        queries = torch.einsum("mki,bin->bmkn", query, tokens)
        scores = torch.einsum("bmkn,bmkq->bmnq", keys, queries) / math.sqrt(key_dim)
        attended = torch.einsum("bin,bmnq->bmiq", tokens, torch.softmax(scores, dim=2))
        tokens = tokens + torch.einsum("mji,bmiq->bjq", value, attended) / (2 * depth * width)
        hidden = torch.tanh(torch.einsum("mi,bin->bmn", w_in, tokens))
        return tokens + torch.einsum("mj,bmn->bjn", w_out, hidden) / (2 * depth * width)

    def velocity():
        tokens = start
        for particles in zip(*leaves, strict=True):
            tokens = layer(tokens, *particles)
        residual = tokens[:, prompts.label_row, -1] - labels
        squares = sum((leaf**2).sum() for leaf in leaves)
        q = (residual**2).mean() / 2 + DECAY / 2 * squares / (depth * width)
        found = [-depth * width * gradient for gradient in torch.autograd.grad(q, leaves)]
        if device == "cpu":
            return [leaf.numpy() for leaf in found]
        torch.cuda.synchronize()
        return found

    return velocity


if __name__ == "__main__":
    main()
