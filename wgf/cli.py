"""The command line: one subcommand for each experiment, and `rerun`."""

import dataclasses
import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from .experiments import EXPERIMENTS, config_from, load_config, save


@dataclasses.dataclass(frozen=True)
class RerunConfig:
    """Repeat a run from its config.json."""

    config: tyro.conf.Positional[Path]
    """The config.json, or the results folder that holds it."""
    out: Path | None = None
    """The results folder; by default a new one under results/."""


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run the experiment, print its table and the folder of its results."""
    args = list(sys.argv[1:] if args is None else args)
    config = tyro.cli(_commands(quick="--quick" in args), prog="wgf", description=_DESCRIPTION, args=args)
    try:
        with _seldom_collected():
            run(config)
    except ValueError as error:
        # What a user typed is at fault: say so in one line, without a traceback.
        raise SystemExit(f"wgf: {error}") from error


@contextmanager
def _seldom_collected() -> Iterator[None]:
    """Look for garbage seldom: tracing makes millions of small objects that live on, to be looked through each time."""
    thresholds = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def run(config: Any) -> None:
    """Run one command."""
    if isinstance(config, RerunConfig):
        name, fields = load_config(config.config)
        if name not in EXPERIMENTS:
            raise ValueError(f"`config` must name an experiment of {sorted(EXPERIMENTS)}; got {name!r}.")
        config = dataclasses.replace(config_from(EXPERIMENTS[name].config, fields), out=config.out)
    name = next(name for name, experiment in EXPERIMENTS.items() if isinstance(config, experiment.config))
    result = EXPERIMENTS[name].run(config)
    if jax.process_index() != 0:
        # Of many processes that computed one result, the first one tells it.
        return
    print(result.table())
    print(f"results: {save(name, result)}")


_DESCRIPTION = (
    "Train finite Transformers by gradient flow, solve the Wasserstein-flow PDE they converge to, measure the distance."
)


def _commands(quick: bool) -> Any:
    """The union of subcommands; `--quick` changes the defaults that all other options start from."""
    commands: Any = Annotated[RerunConfig, tyro.conf.subcommand("rerun")]
    for name, experiment in reversed(EXPERIMENTS.items()):
        default = experiment.config.quick_default() if quick else experiment.config()
        commands = Annotated[experiment.config, tyro.conf.subcommand(name, default=default)] | commands
    return commands
