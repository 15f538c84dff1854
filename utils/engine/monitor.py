"""The interface of a phase; between training steps: signals, due checkpoints, non-finite losses, progress."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from data import Batch, Data
from pruner import Hooks
from utils.checkpoint.paths import LATEST
from utils.config.types import SaveInterval
from utils.dist.consensus import RankConsensus
from utils.dist.process_group import broadcast_buffers
from utils.dist.signals import StoppedError
from utils.engine.evaluate import Accuracy, evaluate
from utils.engine.progress import Progress
from utils.reporting.run_dir import Run
from utils.reporting.snapshots import Observer

NO_STEP = 2**62


class DivergedError(ArithmeticError):
    """The loss, or a weight, is not finite."""


class Phase(Protocol):
    """Interface of a phase.

    Attributes:
        name: ``prune`` or ``finetune``; stream of random batches, and key in checkpoints and scalars.
        title: first word of progress lines.
        batch_size: images per step, over all processes.
        total_steps: of the whole phase; an upper bound if it may end early.
        print_every_steps: steps between progress lines.
        observers: their state is saved in checkpoints.
    """

    name: str
    title: str
    batch_size: int
    total_steps: int
    print_every_steps: int
    observers: Sequence[Observer] = ()

    @property
    def counted_as(self) -> str:
        """Report key under which the next step and its seconds are counted."""
        ...

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer: ...

    def finished(self, step: int) -> bool:
        """Whether the phase is finished after `step` steps."""
        ...

    def epochs_done(self, step: int) -> int:
        """Return the whole epochs after `step` steps, for checkpoints."""
        return 0

    def on_step_start(self, step: int, optimizer: torch.optim.Optimizer) -> None: ...

    def scalars(self) -> dict[str, float]:
        """Return values besides the loss, for progress and TensorBoard."""
        return {}

    def on_step_end(self, step: int, batch: Batch, outputs: Tensor, monitor: "TrainingMonitor") -> list[str]:
        """Test if a test is due after `step` steps; return the names of the checkpoints to write."""
        ...

    def before_save(self) -> None:
        """Update the run's record before a checkpoint is written."""
        return


class TrainingMonitor:
    """Monitor of one phase; used as ``with TrainingMonitor(…) as monitor``.

    Args:
        step: steps made before this process (on resume).
        tested: `model`, or its compiled form, for tests.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        hooks: Hooks,
        phase: Phase,
        run: Run,
        optimizer: torch.optim.Optimizer,
        step: int,
        tested: nn.Module,
    ):
        self.model, self.run, self._tested = model, run, tested
        self._data, self._hooks, self._phase, self._optimizer = data, hooks, phase, optimizer
        self._counters = run.record.counters
        self._progress = Progress(
            phase.title, phase.total_steps, phase.print_every_steps, run.log_line, self._counters, phase.name, step
        )
        self._timer = SaveTimer(run.options.save_interval)
        self._consensus = RankConsensus()
        self._decisions, self._fingerprint = -1, 0
        self._at, self._last_step = (step, phase.epochs_done(step)), step
        device = next(model.parameters()).device
        self._first_non_finite = torch.full((), NO_STEP, dtype=torch.int64, device=device)

    def __enter__(self) -> "TrainingMonitor":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:  # receive the exchange of the last step
                self._stop_if_signalled(self._consensus.close(self.run.stop.signal))
        finally:
            self._progress.close()

    @contextmanager
    def counted(self, key: str) -> Iterator[None]:
        """Count the step made inside the context, and its seconds, under `key` of the report."""
        start = time.perf_counter()
        yield
        self._counters.iterations[key] += 1
        self._counters.seconds[key] += time.perf_counter() - start

    def record(self, step: int, loss: Tensor, n_images: int) -> None:
        """Count a step of `n_images`; display its loss if a line of progress is due.

        Between lines, the first step with a non-finite loss is recorded on the device, without a host sync.

        Raises:
            DivergedError: a line is due and a loss so far is not finite.
        """
        self._last_step = step
        first = self._first_non_finite
        self._first_non_finite = torch.where(loss.isfinite(), first, first.clamp(max=step))
        values = None
        if self._progress.due():
            self._check_losses()
            scalars = {"loss": loss.item(), **self._phase.scalars()}
            self.run.scalars(self._phase.name, step, scalars)
            values = line_values(scalars)
        self._progress.count(n_images, values)

    def test(self) -> tuple[Accuracy, Accuracy | None]:
        """Compute accuracy on the test images and on the held-out ones, if any; pause the progress clock."""
        with self._progress.paused():
            broadcast_buffers(self.model)
            accuracy = evaluate(self._tested, self._data.test_batches())
            return accuracy, evaluate(self._tested, self._data.val_batches()) if self._data.val else None

    def rate_and_eta(self) -> str:
        """Format rate and remaining time."""
        return self._progress.rate_and_eta()

    def _check_losses(self) -> None:
        step = int(self._first_non_finite.item())
        if step < NO_STEP:
            raise DivergedError(f"loss is not finite at step {step}; try a lower learning rate")

    def check_finite(self) -> None:
        """Check losses and weights.

        Raises:
            DivergedError: a loss or a weight is not finite.
        """
        self._check_losses()
        statistics = (b for name, b in self.model.named_buffers() if name.endswith(("running_mean", "running_var")))
        values = [v for v in (*self.model.parameters(), *statistics) if v.is_floating_point()]
        if not torch.stack([v.isfinite().all() for v in values]).all():
            raise DivergedError(f"weights are not finite after step {self._last_step}; try a lower learning rate")

    def after_step(self, step: int, epoch: int, marks: Sequence[str] = ()) -> None:
        """Write the checkpoints `marks` and those due after `step` steps; stop if a signal was received.

        Args:
            epoch: whole epochs of the phase so far.

        Raises:
            DivergedError: a loss or a weight is not finite.
            ConsensusError: the ranks differ.
            StoppedError: a signal was received; the state is saved.
        """
        if self._decisions != self._hooks.decisions:
            self._decisions, self._fingerprint = self._hooks.decisions, self._hooks.fingerprint()
        self._at = (step, epoch)
        signal, by_clock = self._consensus.exchange(self.run.stop.signal, self._timer.by_clock(), self._fingerprint)
        due = LATEST not in marks and (by_clock or self._timer.by_steps(step))
        self._save(*marks, *([LATEST] if due else []))
        self._stop_if_signalled(signal)

    def _stop_if_signalled(self, signal: int) -> None:
        if signal:
            self._save(LATEST)
            raise StoppedError(signal, f" after step {self._at[0]} of the {self._phase.name} phase; the state is saved")

    def _save(self, *names: str) -> None:
        if not names:
            return
        with self._progress.paused():
            self.check_finite()
            broadcast_buffers(self.model)
            self._phase.before_save()
            step, epoch = self._at
            self.run.save(
                *names,
                phase=self._phase.name,
                step=step,
                epoch=epoch,
                model=self.model,
                optimizer=self._optimizer,
                hooks=self._hooks,
                observers=self._phase.observers,
            )
            self._timer.saved()


class SaveTimer:
    """Timer for ``--save_interval``, in steps or minutes."""

    def __init__(self, interval: SaveInterval):
        self._seconds, self._steps = interval.seconds, interval.steps
        self.saved()

    def saved(self) -> None:
        """Restart the interval."""
        self._last = time.monotonic()

    def by_steps(self, step: int) -> bool:
        return self._steps is not None and step % self._steps == 0

    def by_clock(self) -> bool:
        return self._seconds is not None and time.monotonic() - self._last >= self._seconds


def line_values(scalars: dict[str, Any]) -> dict[str, float]:
    """Select the scalars of a progress line: of the layers' gaps only the smallest."""
    gaps = [value for key, value in scalars.items() if key.startswith("gap/")]
    others = {key: value for key, value in scalars.items() if key != "lr" and not key.startswith("gap/")}
    return others | ({"smallest gap": min(gaps)} if gaps else {})
