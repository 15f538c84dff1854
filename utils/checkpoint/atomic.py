"""Atomic writes, and locks of folders."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


@contextmanager
def atomic_write(path: Path, previous: Path | None = None) -> Iterator[IO[bytes]]:
    """Yield a temporary file beside `path`; on exit flush it to disk and rename it to `path`.

    After a kill or a power failure `path` holds the old content or the new one.

    Args:
        previous: new path of the old file, renamed once the new one is on disk; between the two renames only
            `previous` exists.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if previous and path.exists():
        os.replace(path, previous)
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that cannot flush folders
            os.fsync(folder)  # flush the rename, too
    finally:
        os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Exclude other processes that lock `folder`, where its file system has locks."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
