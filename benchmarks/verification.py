"""Measure every order of convergence that the library claims.

Truths are closed forms, NumPy and SciPy. Where SciPy integrates the gradient of the library's own Q,
docs/benchmarks/verification.md says so.

    python benchmarks/verification.py [--quick] [--only depth outer precision stiff eulerian truths]

Prints the tables and writes them to `benchmarks/results/verification.json` and `.md`, parts in the place of older ones.
Exits with 1 if a claim fails.
"""

import argparse
import os
import sys
import time

if "--quick" in sys.argv:
    # Small problems run for milliseconds: what counts is the time to compile.
    fast = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    os.environ.setdefault("XLA_FLAGS", fast)

import jax
from _depth_tables import depth_tables
from _eulerian_tables import eulerian_tables
from _options import output_folder
from _outer_tables import outer_tables
from _precision_tables import precision_tables
from _report import RESULTS, Table, in_place, stored, summary, write
from _stiff_tables import stiff_tables
from _truths_tables import truths_tables

jax.config.update("jax_enable_x64", True)

PARTS = {
    "depth": depth_tables,
    "outer": outer_tables,
    "precision": precision_tables,
    "stiff": stiff_tables,
    "eulerian": eulerian_tables,
    "truths": truths_tables,
}


def main() -> int:
    """Run the parts, print and write their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small problems and fewer cases, about two minutes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    # Parts alone keep the tables of the others, all but the claims.
    old = [] if options.quick else stored("verification", options.output)[1:]
    tables: list[Table] = []
    seconds = {}
    for name in options.only:
        start = time.perf_counter()
        for table in PARTS[name](options.quick):
            tables.append(table)
            seconds[name] = round(time.perf_counter() - start, 1)
            kept = in_place(old, tables)
            claims = summary(kept)
            write("verification", "Verification", [claims, *kept], options.output, quick=options.quick, seconds=seconds)
            print(table.text(), end="\n\n", flush=True)
            # Each compiled program holds dozens of memory maps, of which Linux allows a process 65,530 in all.
            jax.clear_caches()
    print(claims.text())
    print("seconds:", seconds)
    return int(not all(check.holds for table in tables for check in table.checks))


if __name__ == "__main__":
    sys.exit(main())
