"""What an experiment is on disk: its results folder, and the config that repeats it."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from matplotlib.figure import Figure

_Config = TypeVar("_Config")


@runtime_checkable
class Result(Protocol):
    """What `run` of an experiment returns."""

    @property
    def config(self) -> Any:
        """The config dataclass of the run; its `out` names the results folder."""

    def table(self) -> str:
        """The table that the command prints."""
        ...

    def arrays(self) -> dict[str, Any]:
        """The named arrays of `result.npz`."""
        ...

    def figure(self) -> Figure:
        """The picture of the answer."""
        ...


def save(experiment: str, result: Result) -> Path:
    """Write the results folder and return it: `EXPERIMENT.png`, `result.npz`, `config.json` and `table.txt`."""
    folder = results_folder(result.config.out, experiment)
    save_config(folder, experiment, result.config)
    save_arrays(folder, result.arrays())
    (folder / "table.txt").write_text(result.table() + "\n")
    result.figure().savefig(folder / f"{experiment}.png", dpi=130)
    return folder


def results_folder(out: Path | None, experiment: str) -> Path:
    """Make the named folder, or a new one under `results/`."""
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        return out
    stem = Path("results") / f"{experiment}-{datetime.now():%Y%m%d-%H%M%S}"
    candidates = (stem if n == 0 else stem.with_name(f"{stem.name}-{n}") for n in range(1000))
    folder = next(folder for folder in candidates if not folder.exists())
    folder.mkdir(parents=True)
    return folder


def save_config(folder: Path, experiment: str, config: Any) -> None:
    """Write `config.json`, from which `wgf rerun` repeats the run."""
    record = {"experiment": experiment, **dataclasses.asdict(config)}
    record["out"] = None
    (folder / "config.json").write_text(json.dumps(record, indent=2, default=str) + "\n")


def load_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Read a `config.json` (or the folder that holds one) into the experiment's name and its fields.

    **Raises:** `ValueError` if there is none or it names no experiment.
    """
    path = path / "config.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"`config` must be a config.json or the folder of a run; got {path}.")
    record = json.loads(path.read_text())
    if not isinstance(record, dict) or "experiment" not in record:
        raise ValueError(f"`config` must name its experiment; got {path} without one.")
    return record.pop("experiment"), record


def config_from(config: type[_Config], fields: dict[str, Any]) -> _Config:
    """Build a config dataclass from the fields of a `config.json`.

    **Raises:** `ValueError` if a field is unknown.
    """
    known = {field.name for field in dataclasses.fields(config)}  # pyright: ignore[reportArgumentType]
    if unknown := set(fields) - known:
        raise ValueError(f"`config` must have fields of {sorted(known)}; got {sorted(unknown)} besides.")
    return config(**{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    """JSON knows lists alone; configs hold tuples."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def save_arrays(folder: Path, arrays: dict[str, Any]) -> None:
    """Write `result.npz` with named arrays."""
    np.savez(folder / "result.npz", allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
