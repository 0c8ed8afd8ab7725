"""The command line: one subcommand for each experiment, and `rerun`."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from .experiments import LimitConfig, limit
from .experiments._results import load_config


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
        run(config)
    except ValueError as error:
        # What a user typed is at fault: say so in one line, without a traceback.
        raise SystemExit(f"wgf: {error}") from error


def run(config: LimitConfig | RerunConfig) -> None:
    """Run one command."""
    if isinstance(config, RerunConfig):
        name, fields = load_config(config.config)
        if name not in _RERUN:
            raise ValueError(f"`config` must name an experiment of {sorted(_RERUN)}; got {name!r}.")
        config = dataclasses.replace(_RERUN[name](fields), out=config.out)
    result = limit.run(config)
    print(result.table())
    print(f"results: {limit.save(result)}")


_DESCRIPTION = (
    "Train finite Transformers by gradient flow, solve the Wasserstein-flow PDE they converge to, measure the distance."
)
_RERUN: dict[str, Callable[[dict[str, Any]], LimitConfig]] = {"limit": limit.config_from}


def _commands(quick: bool) -> Any:
    """The union of subcommands; `--quick` changes the defaults that all other options start from."""
    default = LimitConfig.quick_default() if quick else LimitConfig()
    named = Annotated[LimitConfig, tyro.conf.subcommand("limit", default=default)]
    return named | Annotated[RerunConfig, tyro.conf.subcommand("rerun")]
