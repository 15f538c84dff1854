"""Screen output that survives closed streams and any encoding."""

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

SHOW = 25  # log level of progress and tables, always on the screen
logging.addLevelName(SHOW, "SHOW")
log = logging.getLogger("pruning")


def prepare_streams() -> None:
    """Make stdout and stderr safe for any character and for closed streams.

    Characters that the terminal cannot encode (λ, undecodable bytes of a file name) are written as escapes. A stream
    closed by the shell (``>&-``) is redirected to the null device, lest the next opened file take its number.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number: this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open until the process ends
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _log_thread_failure


def _log_thread_failure(failed: threading.ExceptHookArgs) -> None:
    """Log that a background thread failed; the run continues without it."""
    log.warning("notice: a background thread failed: %s", failed.exc_value or failed.exc_type.__name__)


class Screen(logging.Handler):
    """Print log lines above a progress bar; warnings go to stderr.

    A closed pipe (``| head -1``) ends the output, not the run. Tracebacks go only to ``log.txt``.
    """

    def __init__(self, level: int):
        super().__init__(level)
        self._closed: set[str] = set()
        self.addFilter(lambda record: not record.exc_info)

    def emit(self, record: logging.LogRecord) -> None:
        name = "stderr" if record.levelno >= logging.WARNING else "stdout"
        if name in self._closed:
            return
        try:
            tqdm.write(self.format(record), file=getattr(sys, name))
            getattr(sys, name).flush()
        except (OSError, ValueError) as error:  # a closed pipe or terminal
            self._closed.add(name)
            discard(name)
            log.warning("notice: %s is closed (%s); the program continues without it", name, error)


def discard(name: str) -> None:
    """Redirect the stream `name`, with its buffer, to the null device."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, getattr(sys, name).fileno())
        os.close(null)
    except (OSError, ValueError):  # a stream without a file descriptor, as in tests
        pass


def flush_streams() -> None:
    """Flush the streams: a closed pipe at interpreter exit would give exit code 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError):
            discard(name)


def open_log(every_line: bool, quiet: bool = False) -> None:
    """Print the log on the screen.

    Args:
        every_line: not only progress, tables and warnings.
        quiet: errors only, for all ranks except 0.
    """
    close_log()
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(Screen(logging.ERROR if quiet else logging.INFO if every_line else SHOW))


def close_log() -> None:
    """Remove the log handlers."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, Screen | LogFile):
            root.removeHandler(handler)
            handler.close()


@contextmanager
def optional(name: str) -> Iterator[None]:
    """Turn any exception inside the context into a notice that `name` is missing."""
    try:
        yield
    except Exception as error:
        log.warning("notice: no %s (%s: %s); the run continues", name, type(error).__name__, error)
        log.info("traceback:", exc_info=True)


def show(text: str) -> None:
    """Print on the screen and in the log; visible on rank 0 only."""
    log.log(SHOW, text)


class LogFile(logging.FileHandler):
    """Handler of ``log.txt``. A failed write gives one notice."""

    def __init__(self, path: str | os.PathLike):
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        if not self._failed:
            self._failed = True
            log.warning("notice: %s cannot be written (%s); the run continues", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        try:
            super().close()
        except OSError:  # the buffer is lost
            self.stream = None
            super().close()
