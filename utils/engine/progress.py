"""Progress of a phase: a bar on a terminal, plain lines elsewhere, both with rate and remaining time."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from utils.checkpoint.record import PhaseCounters

# At most half of 30 s pass before a line is due: so no two are more than 30 s apart where a step takes less than 15 s.
LINE_DUE_AFTER = 15.0


class Progress:
    """Counts the steps of one phase.

    The first step of a process shows its values, then every so many steps, and those that come after so long a time.

    Args:
        total: steps of the whole phase.
        every: steps between two that show their values, as a line where there is no terminal.
        log_line: prints a line.
        tally: where images and seconds are counted, under `stage`.
        done: steps that an earlier process has made.
    """

    def __init__(
        self,
        what: str,
        total: int,
        every: int,
        log_line: Callable[[str], None],
        tally: PhaseCounters,
        stage: str,
        done: int = 0,
    ):
        self._what, self._total, self._every, self._log_line = what, total, every, log_line
        self._tally, self._stage = tally, stage
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=done, desc=what, unit="step", disable=not self._terminal, leave=False)
        self._done = self._steps = done
        self._images, self._seconds = tally.images[stage], tally.stepping[stage]  # of earlier processes
        self._since: float | None = time.perf_counter()
        self._shown = self._since - LINE_DUE_AFTER  # so that the first step is due

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._stop_clock()
        self._bar.close()

    def _stop_clock(self) -> None:
        if self._since is not None:
            self._tally.stepping[self._stage] += time.perf_counter() - self._since
            self._since = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock within, for a test or a checkpoint."""
        self._stop_clock()
        yield
        self._since = time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """Of this process, while the clock ran."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        seconds = self._tally.stepping[self._stage] - self._seconds + running
        return (self._tally.images[self._stage] - self._images) / max(seconds, 1e-9)

    def due(self) -> bool:
        """Whether the next step's values are displayed; reads only the host's clock."""
        by_clock = time.perf_counter() - self._shown >= LINE_DUE_AFTER
        return by_clock or (self._steps + 1) % self._every == 0

    def count(self, images: int, values: dict[str, float] | None = None) -> None:
        """Count a step of `images`; display `values` if given."""
        self._steps += 1
        self._tally.images[self._stage] += images
        self._bar.update()
        if values is None:
            return
        self._shown = time.perf_counter()
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self._bar.set_postfix_str(shown, refresh=False)
        if not self._terminal:
            self._log_line(f"{self._what}  step {self._steps}/{self._total}  {shown}  {self.outlook()}")

    def outlook(self) -> str:
        """Rate, and time left for the steps to come at that rate (tests not counted)."""
        rate = self.images_per_second
        steps = self._steps - self._done
        images_per_step = (self._tally.images[self._stage] - self._images) / max(steps, 1)
        left = max(self._total - self._steps, 0) * images_per_step / max(rate, 1e-9)
        return f"{rate:.0f} img/s  {tqdm.format_interval(left)} left"
