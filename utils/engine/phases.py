"""The prune and fine-tune phases. The training loop is ``train``."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from data import Batch, Data, steps_per_epoch
from pruner import Pruner
from utils.checkpoint.paths import LATEST
from utils.checkpoint.record import FinetuneMetrics
from utils.config.lr_schedule import learning_rates, lr_at, uses_adam
from utils.config.options import Options
from utils.dist.process_group import all_reduce_sum, shard
from utils.reporting.format import format_accuracy
from utils.reporting.snapshots import Observer

if TYPE_CHECKING:
    from utils.engine.monitor import TrainingMonitor


class Phase(Protocol):
    """Interface between the engine and a phase.

    Attributes:
        name: under which batches are drawn, and checkpoints and scalars written: ``prune`` or ``finetune``.
        title: the first word of its lines of progress.
        batch_size: images of a step, over all processes.
        total_steps: of the whole phase, as far as is known before it.
        print_every_steps: steps between two lines of progress.
        observers: take snapshots; their state is saved in checkpoints.
    """

    name: str
    title: str
    batch_size: int
    total_steps: int
    print_every_steps: int
    observers: Sequence[Observer] = ()

    @property
    def counted_as(self) -> str:
        """Key of the report that counts the next step and its seconds."""
        ...

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer: ...

    def finished(self, step: int) -> bool:
        """Whether no step follows after `step` steps."""
        ...

    def epochs_done(self, step: int) -> int:
        """Whole epochs after `step` steps, for checkpoints."""
        return 0

    def on_step_start(self, step: int, optimizer: torch.optim.Optimizer) -> None: ...

    def scalars(self) -> dict[str, float]:
        """Values beside the loss, for progress and TensorBoard."""
        return {}

    def on_step_end(self, step: int, batch: Batch, outputs: Tensor, monitor: "TrainingMonitor") -> list[str]:
        """Test where a test is due after `step` steps; return the names of the checkpoints to write."""
        ...

    def before_save(self) -> None:
        """Update the run's record before a checkpoint is written."""
        return


class PrunePhase(Phase):
    """Train under the pruner's penalties until it has finished.

    Args:
        total_steps: steps of the whole phase if no gap ends a layer early.
        observers: take a snapshot before each step.
    """

    name, title = "prune", "prune"

    def __init__(self, options: Options, pruner: Pruner, total_steps: int, observers: Sequence[Observer] = ()):
        self._options, self._pruner, self._status = options, pruner, pruner.status
        self.batch_size, self.total_steps = options.batch_size_prune, total_steps
        self.print_every_steps, self.observers = options.print_interval, observers

    @property
    def counted_as(self) -> str:
        return self._pruner.counted_as

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        options = self._options
        return torch.optim.SGD(model.parameters(), options.lr_prune, options.momentum, weight_decay=options.wd)

    def finished(self, step: int) -> bool:
        return self._pruner.finished

    def on_step_start(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        self._status = self._pruner.status
        for observer in self.observers:
            observer.observe(step)

    def scalars(self) -> dict[str, float]:
        return self._pruner.report() | {"lr": self._options.lr_prune}

    def on_step_end(self, step: int, batch: Batch, outputs: Tensor, monitor: "TrainingMonitor") -> list[str]:
        if step % self._options.test_interval == 0:
            accuracy, _ = monitor.test()
            monitor.run.scalars("prune", step - 1, {f"test_{key}": value for key, value in accuracy.items()})
            monitor.run.log_test("prune", step, accuracy, lr=self._options.lr_prune)
            monitor.run.log_line(f"prune  step {step}: test {format_accuracy(accuracy)}")
        marks = ["checkpoint_just_finished_update_reg"] if self._pruner.status != self._status else []
        # Before the cut: a signal that comes while it is made and tested then costs no step.
        return [*marks, LATEST] if self._pruner.finished else marks


class FinetunePhase(Phase):
    """Train for ``epochs`` with a piecewise learning rate and a fresh optimizer; test after each epoch.

    Args:
        data: whose epochs are counted.
        metrics: where the accuracies of the epochs are noted.
        title: the first word of lines of progress.
    """

    name, counted_as = "finetune", "finetune"

    def __init__(self, options: Options, data: Data, metrics: FinetuneMetrics, title: str, device: torch.device):
        self._options, self._metrics, self.title = options, metrics, title
        self._rates = learning_rates(options)
        self._steps_per_epoch = steps_per_epoch(len(data.train), options.batch_size)
        self.batch_size, self.total_steps = options.batch_size, self._steps_per_epoch * options.epochs
        self.print_every_steps = options.print_freq
        # Right answers of this process in the epoch under way, on the device: counting needs no host sync.
        self._n_correct = torch.tensor(metrics.n_correct if shard().rank == 0 else 0, device=device)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        options, lr = self._options, lr_at(self._rates, 0)
        if uses_adam(options):
            return torch.optim.Adam(model.parameters(), lr)
        return torch.optim.SGD(model.parameters(), lr, options.momentum, weight_decay=options.wd)

    def finished(self, step: int) -> bool:
        return step >= self.total_steps

    def epochs_done(self, step: int) -> int:
        return step // self._steps_per_epoch

    def on_step_start(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        for group in optimizer.param_groups:
            group["lr"] = lr_at(self._rates, self.epochs_done(step))

    def on_step_end(self, step: int, batch: Batch, outputs: Tensor, monitor: "TrainingMonitor") -> list[str]:
        self._n_correct += (outputs.argmax(1) == batch.labels).sum()
        self._metrics.n_seen += batch.global_size
        return [] if step % self._steps_per_epoch else self._end_epoch(step, monitor)

    def _end_epoch(self, step: int, monitor: "TrainingMonitor") -> list[str]:
        """Test, note and log. Returns the names of the checkpoints to write.

        The newest comes last: a run that is killed before it repeats this epoch, and the best, too.
        """
        run, metrics, epoch = monitor.run, self._metrics, self.epochs_done(step) - 1
        lr = lr_at(self._rates, epoch)
        monitor.check_finite()
        accuracy, held_out = monitor.test()
        self.before_save()
        train_acc1 = 100 * metrics.n_correct / metrics.n_seen
        self._n_correct.zero_()
        is_best = metrics.add(accuracy, held_out)
        val = {"val_acc1": held_out["acc1"]} if held_out else {}
        tested = {f"test_{key}": value for key, value in accuracy.items()}
        run.scalars("finetune", step - 1, tested | val | {"train_acc1": train_acc1, "lr": lr})
        run.log_test("finetune", step, accuracy, epoch=epoch, lr=lr, train_acc1=train_acc1, **val)
        run.log_line(
            f"epoch {epoch}: lr {lr:g}  train acc1 {train_acc1:.2f}  "
            + "".join(f"held out {value:.2f}  " for value in val.values())
            + f"test {format_accuracy(accuracy)}  best {metrics.best:.2f} (epoch {metrics.best_epoch})  "
            + monitor.outlook()
        )
        if is_best:
            run.save_pruned(monitor.model)
        return ["checkpoint_best"] * is_best + [LATEST]

    def before_save(self) -> None:
        self._metrics.n_correct = int(all_reduce_sum(self._n_correct.clone()))


def line_values(scalars: dict[str, Any]) -> dict[str, float]:
    """The scalars that a line of progress shows: of many layers' gaps the smallest."""
    gaps = [value for key, value in scalars.items() if key.startswith("gap/")]
    brief = {key: value for key, value in scalars.items() if key != "lr" and not key.startswith("gap/")}
    return brief | ({"smallest gap": min(gaps)} if gaps else {})
