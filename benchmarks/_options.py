"""Options that the benchmarks share."""

import argparse
import tempfile
from pathlib import Path


def output_folder(text: str) -> Path:
    """The folder that an option names, made and written to before anything is measured."""
    try:
        folder = Path(text).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.NamedTemporaryFile(dir=folder).close()
    except (OSError, RuntimeError) as error:
        raise argparse.ArgumentTypeError(
            f"must be a folder that can be made and written; got {text} ({error})"
        ) from error
    return folder
