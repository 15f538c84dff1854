"""Signals from schedulers and terminals: a run saves its state and stops."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

REPEAT_SECONDS = 5.0  # schedulers repeat a signal; repeats within this time are ignored
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


@contextmanager
def ended_at_once() -> Iterator[None]:
    """Let signals end the process within: while a library waits in C++, no handler in Python runs."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        for number, handler in before.items():
            if handler not in (signal.SIG_IGN, None):  # nohup; not set from Python
                signal.signal(number, signal.SIG_DFL)
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


class StoppedError(BaseException):
    """The run was stopped by a signal. A BaseException, so that no ``except Exception`` catches it.

    Attributes:
        signal: its number; the exit code is 128 + signal.
    """

    def __init__(self, number: int, where: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{where}")
        self.signal = number


class StopSignal:
    """Stop the run on a signal: immediately, or during training at the end of the step.

    Attributes:
        signal: number of the signal received while deferred, or 0.
    """

    def __init__(self):
        self.signal = 0
        self._deferred = False
        self._stopping_since = -math.inf

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside the context. SIGHUP stays ignored under ``nohup``."""
        handled = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._handle) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, _) -> None:
        if self._deferred:
            self.signal = self.signal or number
        elif time.monotonic() - self._stopping_since > REPEAT_SECONDS:
            self._stopping_since = time.monotonic()
            raise StoppedError(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals inside the context: the training loop checks ``signal`` after each step."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.signal:
            self._stopping_since = time.monotonic()
            raise StoppedError(self.signal)
