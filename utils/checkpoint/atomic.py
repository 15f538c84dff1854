"""Atomic writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Yield a temporary file beside `path`; at the end it is flushed to disk and renamed to `path`.

    A process that is killed, or a machine that loses power, leaves the old file or the new one.

    Args:
        previous: where the file that was there goes, once the new one is on the disk; between the two renamings
            that is all there is.
    """
    beside = path.with_name(path.name + ".part")
    try:
        with open(beside, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if previous and path.exists():
        os.replace(path, previous)
    os.replace(beside, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # flush the new name, too, before the run continues
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())
