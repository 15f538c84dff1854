"""Progress of a phase: a bar on a terminal, plain lines elsewhere, both with rate and remaining time."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm


class Progress:
    """Counts the steps of one phase.

    Args:
        total: steps to come.
        every: steps between two looks at the values, and between two lines where there is no terminal.
        say: prints a line.
    """

    def __init__(self, what: str, total: int, every: int, say: Callable[[str], None]):
        self._what, self._total, self._every, self._say = what, total, every, say
        self._terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, desc=what, unit="step", disable=not self._terminal, leave=False)
        self._steps, self._images, self._seconds = 0, 0, 0.0
        self._since = time.perf_counter()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self.pause()
        self._bar.close()

    def pause(self) -> None:
        """Stop the clock, for a test, say."""
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def resume(self) -> None:
        self._since = time.perf_counter()

    @property
    def images_per_second(self) -> float:
        """While the clock ran."""
        running = time.perf_counter() - self._since if self._since is not None else 0.0
        return self._images / max(self._seconds + running, 1e-9)

    def due(self) -> bool:
        """Whether the step that is about to be counted shows its values."""
        return (self._steps + 1) % self._every == 0

    def count(self, images: int, values: dict[str, float] | None = None) -> None:
        """One more step, of `images`; `values` are shown where given."""
        self._steps += 1
        self._images += images
        self._bar.update()
        if values is None:
            return
        shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
        self._bar.set_postfix_str(shown, refresh=False)
        if not self._terminal:
            self._say(f"{self._what}  step {self._steps}/{self._total}  {shown}  {self.outlook()}")

    def outlook(self) -> str:
        """Rate, and time left for the steps to come at that rate (tests not counted)."""
        rate = self.images_per_second
        left = max(self._total - self._steps, 0) * (self._images / self._steps) / rate
        return f"{rate:.0f} img/s  {tqdm.format_interval(left)} left"
