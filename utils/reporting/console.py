"""Output on the screen, robust against closed streams and encodings."""

import io
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

SHOW = 25  # a log level: progress and tables, on the screen always
logging.addLevelName(SHOW, "SHOW")
log = logging.getLogger("pruning")


def prepare_streams() -> None:
    """Prepare stdout and stderr so that no character and no closed pipe can stop the program.

    A character that the terminal's encoding lacks (λ, the bytes of an odd file name) is written as an escape. A stream
    that the shell has closed (``>&-``) goes to the null device: else the next file opened would take its place.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - open as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    threading.excepthook = _thread_failed


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    """Log that a background thread has died: the run does not need it."""
    log.warning("notice: a background thread failed: %s", failed.exc_value or failed.exc_type.__name__)


class Screen(logging.Handler):
    """Lines on the screen that leave a progress bar whole; warnings go to stderr.

    A reader that goes away (``| head -1``) ends the output, not the run. Tracebacks are for ``log.txt``.
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
        except (OSError, ValueError) as error:  # a pipe without a reader, a terminal that is gone
            self._closed.add(name)
            discard(name)
            log.warning("notice: %s is closed (%s); the program continues without it", name, error)


def discard(name: str) -> None:
    """Redirect the stream `name`, with its buffer, to the null device."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, getattr(sys, name).fileno())
        os.close(null)
    except (OSError, ValueError):  # a stream without a file, as tests have them
        pass


def flush_streams() -> None:
    """Flush the streams: at interpreter exit a closed pipe would give exit code 120."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except (OSError, ValueError):
            discard(name)


def open_log(every_line: bool, quiet: bool = False) -> None:
    """Send the program's log to the screen.

    Args:
        every_line: not only progress, tables and warnings.
        quiet: errors alone, for all processes but the first.
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
def optional(what: str) -> Iterator[None]:
    """Write or draw `what` within; failures become notices."""
    try:
        yield
    except Exception as error:
        log.warning("notice: no %s (%s: %s); the run continues", what, type(error).__name__, error)
        log.info("traceback:", exc_info=True)


def show(text: str) -> None:
    """Print lines on the screen and in the log; only rank 0's are visible."""
    log.log(SHOW, text)


class LogFile(logging.FileHandler):
    """Handler of ``log.txt``. Failures to write cause one notice."""

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
        except OSError:  # what was in its buffer is lost, too
            self.stream = None
            super().close()
