"""Exceptions as one line: what is wrong, and what to do."""

import errno
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from data import lost_worker
from utils.dist.process_group import is_main_process

log = logging.getLogger("pruning")

MEMORY = "out of memory: lower --batch_size and --batch_size_prune, or close other programs"
GPU_MEMORY = "the GPU is out of memory: lower --batch_size and --batch_size_prune, or use more GPUs"
SHARED_MEMORY = "shared memory is full: --workers 0 needs none; in Docker, give the container more by --shm-size"
FULL = "free some space"
FILES = "too many open files: raise the limit (ulimit -n) or lower --workers"


class CommandError(Exception):
    """A wrong command, with a one-line message that says what to do."""


@contextmanager
def command_errors() -> Iterator[None]:
    """Turn a ValueError raised within into a CommandError."""
    try:
        yield
    except ValueError as error:
        raise CommandError(str(error)) from error


def report_error(error: Exception, how_to_resume: str | None, debug: bool) -> None:
    """Print `error` as one line; its traceback goes to the log.

    Args:
        how_to_resume: the end of the line; None: no run has begun.
        debug: print the traceback, too.
    """
    log.error("traceback of the error that ends the run:", exc_info=error)
    if debug:
        traceback.print_exception(error)
    print_error(f"error: {explain(error, how_to_resume or '')}", every_process=how_to_resume is not None)


def print_error(text: str, every_process: bool = False) -> None:
    """Print one line on stderr; with several processes only rank 0's, unless `every_process`."""
    if every_process or is_main_process():
        with suppress(OSError, ValueError):  # a closed stream; the exit code is left
            print(f"main.py: {text}", file=sys.stderr, flush=True)


def one_line(text: str, most: int = 600) -> str:
    """`text` with its line breaks and repeated blanks as single blanks, cut at `most` characters."""
    return " ".join(text.split())[:most]


def explain(error: BaseException, how_to_resume: str = "") -> str:
    """One line for the user.

    Errors that the program raises itself say what to do; those of the system and of libraries get the advice that
    helps; any other is named as what it is, an error of the program.

    Args:
        how_to_resume: follows where the machine, not the command, is at fault.
    """
    text = one_line(_innermost(str(error)))
    lost = lost_worker(error)
    if lost:
        return f"{lost}; --workers 0 needs no data workers{how_to_resume}"
    for applies, advice in _KNOWN:
        if applies(error, text):
            return f"{advice} ({text}){how_to_resume}" if text else advice + how_to_resume
    if isinstance(error, OSError):
        return (text or type(error).__name__) + how_to_resume
    if isinstance(error, _OWN):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text or 'no message'}; --debug shows the traceback; please report it"


def _innermost(text: str) -> str:
    """Message of a data worker's error, which contains its traceback."""
    lines = text.strip().splitlines()
    return lines[-1] if "Original Traceback" in text and lines else text


_OWN = (CommandError, ValueError, ArithmeticError)


def _says(*parts: str) -> Callable[[BaseException, str], bool]:
    return lambda error, text: any(part in text for part in parts)


def _number(*numbers: int) -> Callable[[BaseException, str], bool]:
    return lambda error, text: isinstance(error, OSError) and error.errno in numbers


def _is(kind: type[BaseException]) -> Callable[[BaseException, str], bool]:
    return lambda error, text: isinstance(error, kind)


# The first that applies is taken.
_KNOWN: tuple[tuple[Callable[[BaseException, str], bool], str], ...] = (
    (_says("unable to open shared memory", "unable to write to file </torch_", "Bus error", "/dev/shm"), SHARED_MEMORY),
    (_is(torch.OutOfMemoryError), GPU_MEMORY),
    (_says("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"), GPU_MEMORY),
    (_is(MemoryError), MEMORY),
    (_says("DefaultCPUAllocator", "can't allocate memory", "Cannot allocate memory"), MEMORY),
    (_number(errno.EMFILE, errno.ENFILE), FILES),
    (_says("Too many open files", "received 0 items of ancdata"), FILES),
    (_number(errno.ENOSPC, errno.EDQUOT), FULL),
)
