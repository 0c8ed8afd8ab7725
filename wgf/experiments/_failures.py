"""Flows and trainings that failed, in the table and at the end of a command."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return str(error).strip().partition("\n")[0]


def brief(reason: str) -> str:
    """The first statement of a reason, without what follows a colon or a full stop."""
    return re.split(r"[:.] |\.$", reason)[0]


def of_seeds(name: str, values: Any) -> list[str]:
    """A line if seeds failed: `name: 2 of 4 seeds failed, their numbers are not finite`.

    **Arguments:** `values`: what is finite for a seed that did not fail, `[seeds, ...]`.
    """
    bad = failed(values)
    return [f"{name}: {bad.sum()} of {len(bad)} seeds failed, their numbers are not finite"] if bad.any() else []


def failed(values: Any) -> np.ndarray:
    """Whether each seed failed, `[seeds]`: whether any of its values `[seeds, ...]` is not finite."""
    values = np.asarray(values)
    return ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)


def mark(values: Any) -> str:
    """A cell of a table: `failed: 2 seeds`, or nothing."""
    count = int(failed(values).sum())
    return f"failed: {count} seed{'s' * (count > 1)}" if count else ""


def in_one_line(failures: Sequence[str]) -> str:
    """The failures of a run in one line: their number, and the first one with its reason."""
    if len(failures) == 1:
        return f"1 part of the run failed. {failures[0]}"
    return f"{len(failures)} parts of the run failed, the table marks them. The first one: {failures[0]}"
