"""Files: only regular ones are read; they are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """A file beside `path` to write to; at the end it is on the disk and has `path`'s name.

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
        os.fsync(folder)  # the new name, too, is on the disk before the run goes on
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a whole file or leave what is there."""
    with atomic_write(path) as file:
        file.write(text.encode())
