"""Command lines of the scripts: errors in one line, output that any terminal can encode."""

import argparse
import os
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that prints errors as one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def print_out(text: str) -> None:
    """Print and flush `text`; characters that the terminal's encoding lacks are escaped.

    Raises:
        ValueError: stdout is closed or full.
    """
    if sys.stdout is None:
        raise ValueError("stdout is closed")
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)
    except OSError as error:
        # The interpreter flushes the rest of the buffer at exit, which must not fail there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ValueError(f"stdout cannot be written: {error.strerror}") from None
