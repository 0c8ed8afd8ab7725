"""The command line: one subcommand per experiment, and `rerun`."""

import dataclasses
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import equinox as eqx
import jax
import tyro

from ._checks import shown
from ._standard_output import standard_output
from ._stop_signals import ended_by_signals
from ._versions import versions
from .experiments import EXPERIMENTS, Result, config_from, load_config, reserved, save
from .sharding import start_processes


@dataclasses.dataclass(frozen=True)
class RerunConfig:
    """Repeat a run from its config.json."""

    config: tyro.conf.Positional[Path]
    """The config.json, or the results folder that holds it."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""
    distributed: str | None = None
    """Join several processes, as for `wgf limit`. What the config.json says of other machines is not used."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run the experiment, save its results, and print its table and its results folder."""
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        with standard_output():
            print("\n".join(f"{package} {release}" for package, release in versions().items()))
        return
    with standard_output():
        config = tyro.cli(_commands(quick="--quick" in args), prog="wgf", description=_DESCRIPTION, args=args)
    try:
        with _seldom_collected():
            run(config)
    except ValueError as error:
        # The user's input is at fault: one line without a traceback, and the exit code of wrong usage.
        print(f"wgf: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except (eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError, MemoryError) as error:
        if (reason := _reason(error)) is None:
            raise
        print(f"wgf: {reason}", file=sys.stderr)
        raise SystemExit(1) from error


def _reason(error: Exception) -> str | None:
    """What made a run fail, on one line; None if that is a fault of the program."""
    first = str(error).strip().partition("\n")[0]
    if isinstance(error, eqx.EquinoxRuntimeError):
        return f"the run failed. {first}"
    exhausted = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error) or "Out of memory" in str(error)
    return f"the memory does not suffice: {first[:300]} Lower the sizes of the run." if exhausted else None


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Collect garbage less often: tracing creates millions of long-lived objects."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def run(config: Any) -> None:
    """Run one command: a config dataclass of an experiment, or a `RerunConfig`.

    The results folder is made before anything is computed, and the results are saved before anything is printed.

    **Raises:** `ValueError` if an option, the results folder or the `config.json` of a rerun cannot be used;
    `SystemExit` if the results cannot be saved or printed.
    """
    file = config.config if isinstance(config, RerunConfig) else None
    if isinstance(config, RerunConfig):
        config = _stored(config)
    name = next(name for name, experiment in EXPERIMENTS.items() if isinstance(config, experiment.config))
    if getattr(config, "distributed", None) is not None:
        start_processes(config.distributed)
    if jax.process_index() != 0:
        # All processes compute the same result, and only the first one saves and prints it.
        EXPERIMENTS[name].run(config)
        return
    began = time.perf_counter()
    with reserved(config, name) as (folder, is_new):
        kept = f"`wgf rerun {folder}` repeats the run." if is_new else f"{folder} still holds an earlier run."
        with ended_by_signals(kept):
            with _about(file):
                result = EXPERIMENTS[name].run(dataclasses.replace(config, out=folder))
            _tell(name, result, folder, time.perf_counter() - began)


def _stored(rerun: RerunConfig) -> Any:
    """The config that a `config.json` holds."""
    name, fields = load_config(rerun.config)
    with _about(rerun.config):
        if name not in EXPERIMENTS:
            raise ValueError(f"`experiment` must be one of {sorted(EXPERIMENTS)}; got {shown(name)}.")
        config = config_from(EXPERIMENTS[name].config, fields)
    if rerun.distributed is not None and not hasattr(config, "distributed"):
        raise ValueError(f"`distributed` goes with a run of `wgf limit`; got {shown(rerun.distributed)} with {name}.")
    changes = {"distributed": rerun.distributed} if hasattr(config, "distributed") else {}
    return dataclasses.replace(config, out=config.out if rerun.out is None else rerun.out, **changes)


@contextmanager
def _about(file: Path | None) -> Iterator[None]:
    """Prefix errors with the file of the options, if there is a file."""
    try:
        yield
    except ValueError as error:
        if file is None:
            raise
        raise ValueError(f"{file}: {error}") from error


def _tell(name: str, result: Result, folder: Path, seconds: float) -> None:
    """Save, then print. If saving fails, the table is still printed."""
    try:
        save(name, result, seconds=round(seconds, 1))
    except (OSError, ValueError) as error:
        with standard_output():
            print(result.table())
        raise SystemExit(f"wgf: the results could not be saved in {folder}: {error}") from error
    with standard_output(f"The results are in {folder}."):
        print(f"{result.table()}\nresults: {folder}")


_DESCRIPTION = (
    "Train finite Transformers by gradient flow, solve the Wasserstein-flow PDE they converge to, measure the "
    "distance. `wgf --version` prints the releases."
)


def _commands(quick: bool) -> Any:
    """The union of subcommands. `--quick` changes the defaults of all other options."""
    commands: Any = Annotated[RerunConfig, tyro.conf.subcommand("rerun")]
    for name, experiment in reversed(EXPERIMENTS.items()):
        default = experiment.config.quick_default() if quick else experiment.config()
        commands = Annotated[experiment.config, tyro.conf.subcommand(name, default=default)] | commands
    return commands
