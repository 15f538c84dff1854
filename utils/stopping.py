"""SIGTERM and SIGINT: what cluster schedulers and Ctrl-C send before they kill."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(BaseException):
    """A signal has ended the run. No ``Exception``: what goes wrong on the way is not to be taken for another error.

    Attributes:
        signal: its number; the exit code is 128 more.
    """

    def __init__(self, number: int, where: str = ""):
        super().__init__(f"stopped by {signal.Signals(number).name}{where}")
        self.signal = number


class Stop:
    """Ends the run at a signal: at once, but while steps are trained at the end of the step.

    Attributes:
        signal: number of the signal that came while steps were trained, or 0.
    """

    def __init__(self):
        self.signal = 0
        self._deferred = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Signals come here within."""
        before = {number: signal.signal(number, self._came) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _came(self, number: int, _) -> None:
        if not self._deferred:
            raise Stopped(number)
        self.signal = self.signal or number

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Steps are trained within; who trains them looks at ``signal`` after each."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False
        if self.signal:
            raise Stopped(self.signal)
