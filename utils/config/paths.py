"""Paths from the command line: one regular file, or one directory."""

import glob
import os
import stat
from pathlib import Path


def regular_file(path: str | Path) -> Path:
    """`path`, once it is known that opening it neither waits for a writer nor reads a device.

    Raises:
        ValueError: it is a directory, a named pipe, a socket or a device.
        OSError: there is no such file.
    """
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket"}
        raise ValueError(f"{path} is {kinds.get(stat.S_IFMT(mode), 'a device')}, not a file")
    return Path(path)


def find_one(pattern: str, directories: bool = False) -> Path:
    """The one file that `pattern` names.

    Args:
        directories: whether a directory counts, too.

    Raises:
        ValueError: it names none or several, or something that is no file.
    """
    paths = [Path(pattern)] if os.path.lexists(pattern) else sorted(map(Path, glob.glob(os.path.expanduser(pattern))))
    found = [path for path in paths if path.is_file() or (directories and path.is_dir())]
    if len(found) > 1:
        what = "files or directories" if directories else "files"
        raise ValueError(f"{pattern} matches {len(found)} {what}, not one: {', '.join(map(str, found))}")
    if paths and not found:
        try:
            regular_file(paths[0])  # says what it is instead
        except OSError as error:
            raise ValueError(f"{paths[0]}: {error.strerror}") from None
    if not found:
        raise ValueError(f"no file {'or directory ' * directories}{pattern}")
    return found[0]
