"""What is looked after between the steps of a phase: signals, checkpoints that are due, losses that are no numbers."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pruner import Pruner
from utils.checkpoint.paths import LATEST
from utils.dist.consensus import RankConsensus
from utils.dist.process_group import align
from utils.dist.signals import StoppedError
from utils.engine.progress import Progress
from utils.reporting.run_dir import Run

NEVER = 2**62


class DivergedError(ArithmeticError):
    """The loss, or a weight, is no longer a number."""


class TrainingMonitor:
    """Looks after one phase of training; used as ``with TrainingMonitor(…) as watch``.

    Args:
        phase: ``prune`` or ``finetune``.
        before_save: called before a checkpoint is written, to note what it should hold.
        state: what checkpoints hold beside the model and the pruner.
    """

    def __init__(
        self,
        run: Run,
        phase: str,
        model: nn.Module,
        progress: Progress,
        pruner: Pruner,
        before_save: Callable[[], None] = lambda: None,
        **state: Any,
    ):
        self._run, self._phase, self._model, self._progress, self._pruner = run, phase, model, progress, pruner
        self._before_save, self._state = before_save, state
        self._timer = SaveTimer(run.options.save_interval)
        self._agreement = RankConsensus()
        self._decisions, self._fingerprint = -1, 0
        self._at, self._seen = (0, 0), 0
        device = next(model.parameters()).device
        self._first_bad = torch.full((), NEVER, dtype=torch.int64, device=device)

    def __enter__(self) -> "TrainingMonitor":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is None:  # what was said of the last step has still to be heard
            self._stop_if_told(self._agreement.close(self._run.stop.signal))

    def saw(self, loss: Tensor, step: int) -> None:
        """Remember, on the device, the first step whose loss was no number; nobody waits for it."""
        self._seen = step
        self._first_bad = torch.where(loss.isfinite(), self._first_bad, self._first_bad.clamp(max=step))

    def check_losses(self) -> None:
        """Raises:
        DivergedError: a loss was not finite; names the first step.
        """
        step = self._first_bad.item()
        if step < NEVER:
            raise DivergedError(f"loss is not finite at step {step}; try a lower learning rate")

    def check(self) -> None:
        """Check losses and weights, as before a checkpoint.

        Raises:
            DivergedError: a loss was, or a weight is, not finite.
        """
        self.check_losses()
        values = [v for v in self._model.state_dict().values() if v.is_floating_point()]
        if not torch.stack([v.isfinite().all() for v in values]).all():
            raise DivergedError(f"weights are not finite after step {self._seen}; try a lower learning rate")

    def after(self, step: int, epoch: int = 0, marks: Sequence[str] = ()) -> None:
        """After `step` steps and `epoch` epochs: write the checkpoints `marks` and those that are due; stop if told to.

        Raises:
            DivergedError: the state is not fit to be saved.
            ConsensusError: the processes have decided differently.
            StoppedError: a signal came; the state is saved.
        """
        if self._decisions != self._pruner.decisions:
            self._decisions, self._fingerprint = self._pruner.decisions, self._pruner.fingerprint()
        self._at = (step, epoch)
        signal, by_clock = self._agreement.exchange(self._run.stop.signal, self._timer.by_clock(), self._fingerprint)
        due = LATEST not in marks and (by_clock or self._timer.by_steps(step))
        self._save(*marks, *([LATEST] if due else []))
        self._stop_if_told(signal)

    def _stop_if_told(self, signal: int) -> None:
        if signal:
            self._save(LATEST)
            raise StoppedError(signal, f" after step {self._at[0]} of the {self._phase} phase; the state is saved")

    def _save(self, *names: str) -> None:
        if not names:
            return
        with self._progress.paused():
            self.check()
            align(self._model)
            self._before_save()
            step, epoch = self._at
            self._run.save(
                *names, phase=self._phase, step=step, epoch=epoch, model=self._model, pruner=self._pruner, **self._state
            )
            self._timer.saved()


class SaveTimer:
    """Whether a checkpoint is due: every so many steps, or minutes."""

    def __init__(self, interval: str):
        minutes = interval.endswith("m")
        self._seconds = 60 * float(interval[:-1]) if minutes else None
        self._steps = None if minutes else int(interval)
        self.saved()

    def saved(self) -> None:
        """The minutes count from now."""
        self._last = time.monotonic()

    def by_steps(self, step: int) -> bool:
        return self._steps is not None and step % self._steps == 0

    def by_clock(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds
