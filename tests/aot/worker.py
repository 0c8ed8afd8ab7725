"""A process of its own: compile the programs whose names are read, one per line, for the chip that is its argument.

Each is answered by a line of JSON; an empty one by the names of all programs.
"""

import json
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "benchmarks")]

import compile_for  # noqa: E402 (before JAX)
import programs  # noqa: E402


def compiled(chip: str, name: str) -> dict:
    """The seconds that a program takes to compile, and the precisions of its products; or why it does not compile."""
    start = time.perf_counter()
    try:
        text = compile_for.lower(chip, *programs.PROGRAMS[name]()).compile().as_text()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": time.perf_counter() - start, "products": compile_for.products(text)}


if __name__ == "__main__":
    for line in sys.stdin:
        name = line.strip()
        print(json.dumps(compiled(sys.argv[1], name) if name else list(programs.PROGRAMS)), flush=True)
