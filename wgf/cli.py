"""The command line: one subcommand per experiment, `rerun` and `show`."""

import dataclasses
import gc
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import equinox as eqx
import jax
import tyro

from ._checks import shown
from ._standard_output import standard_output, wrapped_output
from ._stop_signals import ended_by_signals
from ._usage import parsed
from ._versions import versions
from .experiments import EXPERIMENTS, AbstractResult, Parts, config_from, load_config, reserved, save
from .experiments._failures import in_one_line
from .experiments._lines import told_in_lines
from .experiments._result import printed
from .experiments._settings import Device, settings
from .experiments._show import ShowConfig, show
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
    x64: bool = False
    """Compute in float64, also if the config.json does not say so."""
    device: Device | None = None
    """The kind of device to compute on; by default that of the config.json."""
    resume: bool = True
    """Read the finished parts of the same run from the results folder."""
    force: bool = False
    """Replace a finished run with other options in the results folder."""
    log: Path | None = None
    """A file to which the lines of progress are appended, with their time."""


class Start(NamedTuple):
    """The options of a start. They change no number, and are not in `config.json`."""

    resume: bool = True
    force: bool = False
    log: Path | None = None


def main(args: Sequence[str] | None = None) -> None:
    """Parse the command line, run the experiment, save its results, and print its table and its results folder."""
    args = list(sys.argv[1:] if args is None else args)
    if args == ["--version"]:
        with standard_output():
            print("\n".join(f"{package} {release}" for package, release in versions().items()))
        return
    with standard_output(), wrapped_output() if {"-h", "--help"} & set(args) else nullcontext():
        config = _parsed(args)
    try:
        with _seldom_collected():
            if isinstance(config, ShowConfig):
                show(config)
            else:
                plain, start = _plain(config)
                run(plain, **start._asdict())
    except ValueError as error:
        # The user's input is at fault: one line without a traceback, and the exit code of wrong usage.
        print(f"wgf: {error}", file=sys.stderr)
        raise SystemExit(2) from error
    except (eqx.EquinoxRuntimeError, jax.errors.JaxRuntimeError, MemoryError) as error:
        if (reason := _reason(error)) is None:
            raise
        print(f"wgf: {reason}", file=sys.stderr)
        raise SystemExit(1) from error


def _parsed(args: list[str]) -> Any:
    """The config of a command line; `SystemExit` after the help, or after one line on what is wrong."""
    experiments = _experiments(quick="--quick" in args)
    kinds = {**{name: type(config) for name, config in experiments.items()}, "rerun": RerunConfig, "show": ShowConfig}

    def parse() -> tuple[Any, list[str]]:
        commands: Any = _commands(experiments)
        return tyro.cli(commands, prog="wgf", description=_DESCRIPTION, args=args, return_unknown_args=True)

    return parsed(parse, "wgf", kinds, args)


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


def run(config: Any, *, resume: bool = True, force: bool = False, log: Path | None = None) -> None:
    """Run one command: a config dataclass of an experiment, or a `RerunConfig`.

    The results folder is made before anything is computed, and the results are saved before anything is printed.

    **Arguments:**

    - `config`: the options.
    - `resume`: whether to read the finished parts that the results folder holds of the same run.
    - `force`: whether to replace a finished run with other options.
    - `log`: a file to which the lines of progress are appended.

    **Raises:** `ValueError` if an option, the results folder, the log file or the `config.json` of a rerun cannot be
    used; `SystemExit` if the results cannot be saved or printed, or a part of the run failed.
    """
    file = config.config if isinstance(config, RerunConfig) else None
    if isinstance(config, RerunConfig):
        config = _stored(config)
    name = next(name for name, experiment in EXPERIMENTS.items() if isinstance(config, experiment.config))
    if getattr(config, "distributed", None) is not None:
        start_processes(config.distributed)
    with settings(config):
        if jax.process_index() != 0:
            # All processes compute the same result, and only the first one saves and prints it.
            EXPERIMENTS[name].run(config)
        else:
            _run_first(name, config, file, Start(resume, force, log))


def _run_first(name: str, config: Any, file: Path | None, start: Start) -> None:
    """Run an experiment in the process that saves and prints."""
    began = time.perf_counter()
    # Several processes would have to agree on what is there.
    keeps_parts = EXPERIMENTS[name].keeps_parts and jax.process_count() == 1
    with reserved(config, name, force=start.force) as (folder, is_new), told_in_lines(start.log) as lines:
        lines.note(f"`wgf {name}` begins, {', '.join(map(' '.join, versions().items()))}; results: {folder}")
        kept = f"`wgf rerun {folder} --out {folder}` resumes" if keeps_parts else f"`wgf rerun {folder}` repeats"
        last_words = f"{kept} the run." if is_new else f"{folder} still holds an earlier run."
        with ended_by_signals(last_words, lines.note):
            config = dataclasses.replace(config, out=folder)
            parts = Parts(folder, config, resume=start.resume) if keeps_parts else None
            with _about(file):
                result = EXPERIMENTS[name].run(config, **({} if parts is None else {"parts": parts}))
            _tell(name, result, folder, time.perf_counter() - began)
            if parts is not None:
                parts.clean()
        lines.note(f"the results are in {folder}")
        _fail_in_part(result)


def _fail_in_part(result: AbstractResult) -> None:
    """Raise `SystemExit` if parts of a run failed whose results are saved."""
    if failures := getattr(result, "failures", ()):
        raise SystemExit(f"wgf: {in_one_line(failures)}")


def _stored(rerun: RerunConfig) -> Any:
    """The config that a `config.json` holds."""
    name, fields = load_config(rerun.config)
    with _about(rerun.config):
        if name not in EXPERIMENTS:
            raise ValueError(f"`experiment` must be one of {sorted(EXPERIMENTS)}; got {shown(name)}.")
        config = config_from(EXPERIMENTS[name].config, fields)
    if rerun.distributed is not None and not hasattr(config, "distributed"):
        raise ValueError(f"`distributed` goes with a run of `wgf limit`; got {shown(rerun.distributed)} with {name}.")
    changes: dict[str, Any] = {"distributed": rerun.distributed} if hasattr(config, "distributed") else {}
    if rerun.x64:
        changes["x64"] = True
    if rerun.device is not None:
        changes["device"] = rerun.device
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


def _tell(name: str, result: AbstractResult, folder: Path, seconds: float) -> None:
    """Save, then print. If saving fails, the table is still printed."""
    try:
        save(name, result, seconds=round(seconds, 1))
    except (OSError, ValueError) as error:
        with standard_output():
            print(printed(result))
        raise SystemExit(f"wgf: the results could not be saved in {folder}: {error}") from error
    with standard_output(f"The results are in {folder}."):
        print(f"{printed(result)}\nresults: {folder}")


_DESCRIPTION = (
    "Train finite Transformers by gradient flow, solve the Wasserstein-flow PDE they converge to, measure the "
    "distance. `wgf --version` prints the releases."
)


def _experiments(quick: bool) -> dict[str, Any]:
    """The defaults of each experiment with the options of a start. `--quick` changes those of all other options."""
    defaults = {name: each.config.quick_default() if quick else each.config() for name, each in EXPERIMENTS.items()}
    return {name: _with_start_options(type(default), default)(**vars(default)) for name, default in defaults.items()}


def _commands(experiments: dict[str, Any]) -> Any:
    """The union of subcommands."""
    commands: Any = Annotated[RerunConfig, tyro.conf.subcommand("rerun")]
    commands = commands | Annotated[ShowConfig, tyro.conf.subcommand("show")]
    for name, default in reversed(experiments.items()):
        commands = Annotated[type(default), tyro.conf.subcommand(name, default=default)] | commands
    return commands


_HELP = {
    "resume": "Read the finished parts of the same run from the results folder.",
    "force": "Replace a finished run with other options in the results folder.",
    "log": "A file to which the lines of progress are appended, with their time.",
}


def _with_start_options(config: Any, default: Any) -> Any:
    """A config dataclass with the options of a start."""
    types, own = get_type_hints(Start), get_type_hints(config)
    # An empty list stands for all, as the option's text says: tyro would add "(default: )".
    empty = tyro.conf.arg(help_behavior_hint="")
    fields: Any = [(name, Annotated[own[name], empty], ()) for name, value in vars(default).items() if value == ()]
    fields += [
        (name, Annotated[types[name], tyro.conf.arg(help=text)], Start._field_defaults[name])
        for name, text in _HELP.items()
    ]
    return dataclasses.make_dataclass(
        config.__name__, fields, bases=(config,), frozen=True, namespace={"__doc__": config.__doc__}
    )


def _plain(command: Any) -> tuple[Any, Start]:
    """The config of a parsed command, and the options of its start."""
    start = Start(**{name: getattr(command, name) for name in Start._fields})
    if isinstance(command, RerunConfig):
        return command, start
    config = next(experiment.config for experiment in EXPERIMENTS.values() if isinstance(command, experiment.config))
    fields = {field.name: getattr(command, field.name) for field in dataclasses.fields(config)}
    return config(**fields), start
