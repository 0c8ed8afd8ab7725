"""What the numbers of a run depend on besides its options."""

import os
import platform
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .._backend.fingerprint import digest_of_files, digest_of_project
from .._checks import expanded
from .._versions import versions


def about(config: Any, seconds: float = 0.0) -> dict[str, Any]:
    """The releases, the device, the precision, the time and the data file of a run that began some seconds ago.

    - `versions`, `system`: the releases of this library, of Python, of the packages that compute, and of the system.
    - `sources`, `commit`: a digest of this library's code, and the commit of a checkout, if it is one.
    - `device`, `devices`, `processes`, `precision`: where and in which numbers the run computes.
    - `data`: a digest of the CSV file, if the run reads one.
    - `began`: the local time, ISO 8601.
    """
    chosen: Any = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]
    device = chosen if isinstance(chosen, jax.Device) else jax.devices()[0]
    return {
        "versions": versions(),
        "sources": digest_of_project(),
        "commit": _commit(),
        "system": platform.platform(),
        "device": f"{device.platform}: {device.device_kind}",
        "devices": jax.device_count(device.platform),
        "processes": jax.process_count(),
        "precision": getattr(config, "computes_in", jnp.result_type(float).name),
        "data": _digest_of_data(getattr(config, "data", None)),
        "began": (datetime.now().astimezone() - timedelta(seconds=seconds)).isoformat(timespec="seconds"),
    }


def _digest_of_data(data: Any) -> str | None:
    if not isinstance(data, str):
        return None
    path = expanded("data", Path(data))
    return digest_of_files(path) if os.path.isfile(path) else None


def _commit() -> str | None:
    """The commit of the checkout that holds this package, with `-dirty` after uncommitted changes; None elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
