"""Paths from the command line: one regular file, or one directory."""

import glob
import os
import stat
from pathlib import Path


def regular_file(path: str | Path) -> Path:
    """Return `path` if it is a regular file, which can be opened without blocking.

    Raises:
        ValueError: it is a directory, a named pipe, a socket or a device.
        OSError: there is no such file.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file")
    return Path(path)


def matching(pattern: str) -> list[Path]:
    """Return the path of exactly this name, or those that `pattern` matches, sorted."""
    if os.path.lexists(pattern):
        return [Path(pattern)]
    return sorted(map(Path, glob.glob(os.path.expanduser(pattern))))


def find_one(pattern: str, directories: bool = False) -> Path:
    """Return the one file that `pattern` matches.

    Args:
        directories: accept a directory, too.

    Raises:
        ValueError: it matches none or several, or not a regular file.
    """
    paths = matching(pattern)
    matches = [path for path in paths if path.is_file() or (directories and path.is_dir())]
    if len(matches) > 1:
        what = "files or directories" if directories else "files"
        raise ValueError(f"{pattern} matches {len(matches)} {what}, not one: {', '.join(map(str, matches))}")
    if paths and not matches:
        try:
            regular_file(paths[0])  # raises with the kind of file
        except OSError as error:
            raise ValueError(f"{paths[0]}: {error.strerror}") from None
    if not matches:
        raise ValueError(f"no file {'or directory ' * directories}{pattern}")
    return matches[0]
