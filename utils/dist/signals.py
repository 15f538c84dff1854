"""Signals of schedulers and terminals, which end a run with its state saved."""

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

SEVERAL_SECONDS = 5.0  # schedulers send a signal several times; within these seconds they are one
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


class StoppedError(BaseException):
    """A signal has ended the run. A BaseException, so that no handler of errors catches it.

    Attributes:
        signal: its number; the exit code is 128 more.
    """

    def __init__(self, number: int, where: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{where}")
        self.signal = number


class StopSignal:
    """End the run at a signal: at once, or during training at the end of the step.

    Attributes:
        signal: number of the signal that came while steps were trained, or 0.
    """

    def __init__(self):
        self.signal = 0
        self._deferred = False
        self._ending_since = -math.inf

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals within. SIGHUP stays ignored under ``nohup``."""
        handled = [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._received) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _received(self, number: int, _) -> None:
        if self._deferred:
            self.signal = self.signal or number
        elif time.monotonic() - self._ending_since > SEVERAL_SECONDS:
            self._ending_since = time.monotonic()
            raise StoppedError(number)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Defer signals within: the training loop checks ``signal`` after each step."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.signal:
            self._ending_since = time.monotonic()
            raise StoppedError(self.signal)
