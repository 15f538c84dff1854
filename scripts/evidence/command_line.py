"""The scripts' command lines: one line for what is wrong, whatever the terminal can show."""

import argparse
import os
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Prints a wrong command as one line, without the usage."""

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
        # The interpreter flushes again at exit; what is left in the buffer must not fail there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ValueError(f"stdout cannot be written: {error.strerror}") from None
