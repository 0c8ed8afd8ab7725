"""What one accelerator does: precision, times of velocities, whole runs and divergences, in one command of 8 minutes.

    python benchmarks/gpu.py [--quick] [--minutes 8] [--parts precision velocity limit pde sinkhorn]

In this order: errors of a velocity in float32; times of a velocity at six sizes and of its compilation, beside plain
JAX (naive, einsum, einsum with jax.checkpoint) and, where PyTorch with CUDA is there, torch.compile; `wgf limit` at its
default sizes; the PDE with 65,536 particles per stage; Sinkhorn divergences of 1,024, 4,096 and 16,384 points, beside
OTT. Each line is printed and written to `benchmarks/results/gpu.json` and `.md` as soon as it is known, so that a run
that is cut keeps what it has. What the minutes do not hold, or what fails, is named as left out.

Exits with 1 if a claim fails: errors of at most 1e-5, and variants whose numbers agree.
"""

import argparse
import os
import sys

if "--quick" in sys.argv:
    # It shows that all runs, not how fast: most of its time would go into XLA's optimisation.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")

from _gpu_jobs import TITLES, jobs
from _gpu_session import Session
from _options import output_folder
from _report import RESULTS

PARTS = ("precision", "velocity", "limit", "pde", "sinkhorn")


def main() -> int:
    """Run the parts, and say whether the claims hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, not optimised, to see that all runs")
    parser.add_argument("--minutes", type=float, default=8, help="the budget: what it does not hold is left out")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="parts to run; default: all")
    parser.add_argument("--output", type=output_folder, default=RESULTS, help="the folder to write to")
    options = parser.parse_args()
    session = Session(TITLES, options.output, options.minutes, quick=options.quick)
    found = jobs(options.quick)
    session.run([job for part in options.parts for job in found[part]])
    print(*(table.text() for table in session.tables()), sep="\n\n")
    return int(not all(check.holds for check in session.checks))


if __name__ == "__main__":
    sys.exit(main())
