"""The results folder of a run."""

import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np


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


def save_arrays(folder: Path, arrays: dict[str, Any]) -> None:
    """Write `result.npz` with named arrays."""
    np.savez(folder / "result.npz", allow_pickle=False, **{name: np.asarray(array) for name, array in arrays.items()})
