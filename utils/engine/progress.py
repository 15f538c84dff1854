"""Progress of a phase: a bar on a terminal, lines elsewhere, both with rate and remaining time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from utils.checkpoint.record import PhaseCounters

# With steps of up to 15 s, progress lines are at most 30 s apart.
LINE_INTERVAL = 15.0


class Progress:
    """Count and display the steps of one phase.

    Values are displayed at the first step of the process, every `every` steps, and after ``LINE_INTERVAL`` seconds.

    Args:
        total: steps of the whole phase.
        every: steps between displayed values; without a terminal each is a line.
        log_line: prints a line.
        counters: count images and seconds under `phase`.
        done: steps made before this process (on resume).
    """

    def __init__(
        self,
        title: str,
        total: int,
        every: int,
        log_line: Callable[[str], None],
        counters: PhaseCounters,
        phase: str,
        done: int = 0,
    ):
        self._title, self._total, self._every, self._log_line = title, total, every, log_line
        self._counters, self._phase = counters, phase
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=title, unit="step", disable=not self._terminal, leave=False)
        self._done = self._steps = done
        self._images, self._seconds = counters.images[phase], counters.stepping[phase]  # before
        self._clock_start: float | None = time.perf_counter()
        self._last_display = self._clock_start - LINE_INTERVAL  # makes the first step due

    def close(self) -> None:
        self._stop_clock()
        self._bar.close()

    def _stop_clock(self) -> None:
        if self._clock_start is not None:
            self._counters.stepping[self._phase] += time.perf_counter() - self._clock_start
            self._clock_start = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock inside the context, for a test or a checkpoint."""
        self._stop_clock()
        yield
        self._clock_start = time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """Training images per second of this process, without pauses."""
        running = time.perf_counter() - self._clock_start if self._clock_start is not None else 0.0
        seconds = self._counters.stepping[self._phase] - self._seconds + running
        return (self._counters.images[self._phase] - self._images) / max(seconds, 1e-9)

    def due(self) -> bool:
        """Whether the next step's values are displayed; needs no host sync."""
        by_clock = time.perf_counter() - self._last_display >= LINE_INTERVAL
        return by_clock or (self._steps + 1) % self._every == 0

    def count(self, images: int, values: dict[str, float] | None = None) -> None:
        """Count a step of `images`; display `values` if given."""
        self._steps += 1
        self._counters.images[self._phase] += images
        self._bar.update()
        if values is None:
            return
        self._last_display = time.perf_counter()
        text = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self._bar.set_postfix_str(text, refresh=False)
        if not self._terminal:
            self._log_line(f"{self._title}  step {self._steps}/{self._total}  {text}  {self.rate_and_eta()}")

    def rate_and_eta(self) -> str:
        """Format the rate, and the remaining time at that rate without tests."""
        rate = self.images_per_second
        steps = self._steps - self._done
        images_per_step = (self._counters.images[self._phase] - self._images) / max(steps, 1)
        left = max(self._total - self._steps, 0) * images_per_step / max(rate, 1e-9)
        return f"{rate:.0f} img/s  {tqdm.format_interval(left)} left"
