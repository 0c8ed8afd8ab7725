"""Files that are whole at any time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Yield a new binary file that takes the place of `path` once all is written.

    A reader, or the next start after a crash, sees the old file or the new one, never a part. Where `path` is a link,
    the link is replaced, and what it points to stays as it is.

    **Raises:** `OSError` if the file cannot be written or `path` cannot be replaced; `path` then stays as it is.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            # Else a machine that stops may leave an empty file under the new name.
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
