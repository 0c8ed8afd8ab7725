"""Work per device against the number of devices: a velocity spread over simulated devices of one CPU.

    python benchmarks/devices.py [--quick]

Each number of devices runs in a process of its own, each device with one thread, each mesh with the same problem. What
a device does is its share of the processor time; what it holds, the scratch memory of its program; what it says, the
bytes of the messages in it. The seconds on the clock fall only as far as the machine has cores.

Prints the table and writes it to `benchmarks/results/devices.json` and `.md`. Exits with 1 if a claim fails. About
three minutes on two cores.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from _options import output_folder

MESHES = ((1, 1), (2, 1), (1, 2), (4, 1), (1, 4), (2, 2), (2, 4))
SIZE, QUICK = (8, 1024, 128), (2, 32, 8)
# Name, element type and shape of each array that a message brings.
MESSAGE = re.compile(r"= (\(?[a-z0-9\[\]{},\s/*=_]*?\)?) (?:all-reduce|all-gather|all-to-all|collective-permute)\(")
ARRAY = re.compile(r"f32\[([\d,]*)\]")


def main() -> int:
    """Measure every mesh; print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny problem on few meshes, to see that all runs")
    parser.add_argument(
        "--output", type=output_folder, default=Path(__file__).parent / "results", help="the folder to write to"
    )
    parser.add_argument("--mesh", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else SIZE
    if options.mesh:
        print(json.dumps(measure(*map(int, options.mesh.split(",")), size)))
        return 0
    from _report import summary, write

    found = {mesh: apart(mesh, options.quick) for mesh in (MESHES[:3] if options.quick else MESHES)}
    table = tabulate(found, size, options.quick)
    claims = summary([table])
    write("devices", "Work per device", [claims, table], options.output, quick=options.quick)
    print(table.text(), claims.text(), sep="\n\n")
    return int(not all(check.holds for check in table.checks))


def apart(mesh: tuple[int, int], quick: bool) -> dict:
    """What one mesh measures, in a process that simulates its devices."""
    flags = f"--xla_force_host_platform_device_count={mesh[0] * mesh[1]} --xla_cpu_multi_thread_eigen=false"
    command = [sys.executable, __file__, "--mesh", ",".join(map(str, mesh)), *["--quick"][: int(quick)]]
    environment = {**os.environ, "XLA_FLAGS": flags}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def measure(prompts: int, particles: int, size: tuple[int, int, int]) -> dict:
    """Time a velocity on one mesh, and read its program."""
    import jax
    from _problems import Regression

    import wgf

    depth, width, batch = size
    made = Regression(batch=batch, examples=8, width=width)
    mesh = wgf.sharding.mesh(prompts=prompts, particles=particles)
    arguments = wgf.sharding.shard((made.objective, made.finite(depth)), mesh)
    with jax.set_mesh(mesh):
        compiled = jax.jit(wgf.velocity).lower(*arguments).compile()
    jax.block_until_ready(compiled(*arguments))
    seconds, processor = [], []
    for _ in range(7):
        start = time.perf_counter(), time.process_time()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    return {
        "seconds": float(np.median(seconds)),
        "processor": float(np.median(processor)) / (prompts * particles),
        "scratch": compiled.memory_analysis().temp_size_in_bytes / 2**20,
        "messages": message_kilobytes(compiled.as_text()),
    }


def message_kilobytes(program: str) -> float:
    """The kB that one device sends, each message once for each of its appearances in the program's text."""
    arrays = [shape for message in MESSAGE.findall(program) for shape in ARRAY.findall(message)]
    return sum(4 * np.prod([int(n) for n in shape.split(",") if n]) for shape in arrays) / 1e3


def tabulate(found: dict, size: tuple[int, int, int], quick: bool):
    """The table with the claims on it."""
    from _report import Check, Table

    one = found[1, 1]
    rows, checks = [], []
    for (prompts, particles), row in found.items():
        devices = prompts * particles
        share = devices * row["processor"] / one["processor"]
        rows.append((prompts, particles, devices, 1e3 * row["seconds"], 1e3 * row["processor"], share,
                     row["scratch"], row["messages"]))  # fmt: skip
        if devices > 1 and not quick:
            claim = f"work of {devices} devices ({prompts} x {particles}) over that of one"
            checks.append(Check(claim, share, 0.7, 1.35))
    note = (
        f"L = {size[0]}, M = {size[1]}, B = {size[2]}, D = 5, N+1 = 9, k = 2, float32. Work: processor time of all "
        "devices over one's, waiting included.\nMessages: arrays of all-reduces, once for each mention in the program."
    )
    columns = ("prompts", "particles", "devices", "ms", "processor ms a device", "work", "scratch MiB", "messages kB")
    return Table("Work per device", columns, rows, note, checks)


if __name__ == "__main__":
    sys.exit(main())
