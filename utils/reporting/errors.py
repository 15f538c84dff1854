"""Format exceptions as one line: what is wrong, and what to do."""

import errno
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from data import lost_worker
from utils.dist.heartbeat import wait_for_loss
from utils.dist.process_group import is_main_process

log = logging.getLogger("pruning")

# Errors of gloo, NCCL and the store where another process is gone.
_OTHER_PROCESS = re.compile(
    r"Connection (closed|reset|refused)|closed by peer|Broken pipe|timed out|Timed out|NCCL|ncclRemoteError|gloo", re.I
)

MEMORY_FULL = "out of memory: lower --batch_size and --batch_size_prune, or close other programs"
GPU_MEMORY_FULL = "the GPU is out of memory: lower --batch_size and --batch_size_prune, or use more GPUs"
SHM_FULL = "shared memory is full: use --workers 0, which needs none; in Docker, raise --shm-size"
DISK_FULL = "free some space"
LOST_PROCESS_CODE = 75  # exit code; sysexits.h: a temporary failure. Job scripts repeat such a run
LOST_PROCESS = "the connection to another process is lost"
TOO_MANY_FILES = "too many open files: raise the limit (ulimit -n) or lower --workers"


class CommandError(Exception):
    """A wrong command; the one-line message says what to do."""


@contextmanager
def command_errors() -> Iterator[None]:
    """Turn a ValueError raised inside the context into a CommandError."""
    try:
        yield
    except ValueError as error:
        raise CommandError(str(error)) from error


def report_error(error: Exception, how_to_resume: str | None, debug: bool) -> None:
    """Print `error` as one line; log its traceback.

    Args:
        how_to_resume: appended to the line; None: the run has not started.
        debug: also print the traceback.
    """
    log.error("traceback of the error that ended the run:", exc_info=error)
    if _is_of_other_process(error, str(error)):
        wait_for_loss()
    if debug:
        traceback.print_exception(error)
    print_error(f"error: {explain(error, how_to_resume or '')}", every_process=how_to_resume is not None)


def end_process(text: str) -> None:
    """Print `text` as an error and end this process from a thread, whatever the main thread waits for."""
    log.error(text)
    print_error(f"error: {text}", every_process=True)
    os._exit(LOST_PROCESS_CODE)


def print_error(text: str, every_process: bool = False) -> None:
    """Print one line on stderr, on rank 0 only unless `every_process`."""
    if every_process or is_main_process():
        with suppress(OSError, ValueError):  # a closed stream; the exit code remains
            print(f"main.py: {text}", file=sys.stderr, flush=True)


def one_line(text: str, max_length: int = 600) -> str:
    """Replace each run of white space by a blank and truncate to `max_length` characters."""
    return " ".join(text.split())[:max_length]


def explain(error: BaseException, how_to_resume: str = "") -> str:
    """Format `error` as one line.

    Errors raised by the program itself already say what to do. Known errors of the system and of libraries get advice.
    Any other is reported as unexpected.

    Args:
        how_to_resume: appended if the machine, not the command, is at fault.
    """
    text = one_line(str(error))
    lost = lost_worker(error)
    if lost:
        return f"{lost}; --workers 0 needs no data workers{how_to_resume}"
    for matches, advice in _ADVICE:
        if matches(error, text):
            return f"{advice} ({text}){how_to_resume}" if text else advice + how_to_resume
    if isinstance(error, OSError):
        return (text or type(error).__name__) + how_to_resume
    if isinstance(error, _OWN_ERRORS):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text or 'no message'}; --debug shows the traceback; please report it"


_OWN_ERRORS = (CommandError, ValueError, ArithmeticError)


def _contains(*parts: str) -> Callable[[BaseException, str], bool]:
    return lambda error, text: any(part in text for part in parts)


def _is_of_other_process(error: BaseException, text: str) -> bool:
    return isinstance(error, RuntimeError) and bool(_OTHER_PROCESS.search(text))


def _has_errno(*numbers: int) -> Callable[[BaseException, str], bool]:
    return lambda error, text: isinstance(error, OSError) and error.errno in numbers


def _is_instance(kind: type[BaseException]) -> Callable[[BaseException, str], bool]:
    return lambda error, text: isinstance(error, kind)


# The first match is used.
_ADVICE: tuple[tuple[Callable[[BaseException, str], bool], str], ...] = (
    (_contains("Bus error", "/dev/shm"), SHM_FULL),
    (_is_instance(torch.OutOfMemoryError), GPU_MEMORY_FULL),
    (_contains("CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"), GPU_MEMORY_FULL),
    (_is_instance(MemoryError), MEMORY_FULL),
    (_contains("DefaultCPUAllocator", "can't allocate memory", "Cannot allocate memory"), MEMORY_FULL),
    (_has_errno(errno.EMFILE, errno.ENFILE), TOO_MANY_FILES),
    (_contains("Too many open files", "received 0 items of ancdata"), TOO_MANY_FILES),
    (_is_of_other_process, LOST_PROCESS),
    (_has_errno(errno.ENOSPC, errno.EDQUOT), DISK_FULL),
)
