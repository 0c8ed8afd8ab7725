"""The data of an experiment, as named on the command line."""

import os
from pathlib import Path

from jaxtyping import PRNGKeyArray

from .. import prompts as data
from .._checks import expanded, shown
from ..prompts import Prompts
from ._config_file import DATA_SETS


def load_prompts(key: PRNGKeyArray, name: str, target: str | None, *, batch: int, examples: int, dim: int) -> Prompts:
    """Draw prompts from `"synthetic"` regression, the `"diabetes"` table or a CSV file with a target column.

    **Raises:** `ValueError` if `name` is none of these, if a CSV file has no `target`, or if `target` is given without
    a CSV file.
    """
    if name in DATA_SETS:
        if target is not None:
            raise ValueError(
                f"`target` goes with a CSV file as `data`; got target {shown(target)} with data {shown(name)}."
            )
        draw = data.linear_regression if name == "synthetic" else data.diabetes
        return draw(key, batch=batch, examples=examples, dim=dim)
    path = expanded("data", Path(name))
    if not os.path.isfile(path):
        raise ValueError(f"`data` must be 'synthetic', 'diabetes' or a CSV file that exists; got {shown(name)}.")
    if target is None:
        raise ValueError("`target` must name the column to predict where `data` is a CSV file; got None.")
    return data.from_table(key, *data.read_csv(path, target), batch=batch, examples=examples, dim=dim)
