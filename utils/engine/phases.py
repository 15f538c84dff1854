"""The prune and fine-tune phases. The training loop is ``train``."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from data import Batch, Data, steps_per_epoch
from pruner import Pruner
from utils.checkpoint.paths import LATEST
from utils.checkpoint.record import FinetuneMetrics
from utils.config.lr_schedule import learning_rates, lr_at, uses_adam
from utils.config.options import Options
from utils.dist.process_group import all_reduce_sum, shard
from utils.engine.monitor import Phase, TrainingMonitor
from utils.reporting.format import format_accuracy
from utils.reporting.snapshots import Observer


class PrunePhase(Phase):
    """Train under the pruner's penalties until it has finished.

    Args:
        total_steps: steps of the whole phase, unless wide gaps end it early.
        observers: called before each step.
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

    def on_step_end(self, step: int, batch: Batch, outputs: Tensor, monitor: TrainingMonitor) -> list[str]:
        if step % self._options.test_interval == 0:
            accuracy, _ = monitor.test()
            monitor.run.scalars("prune", step - 1, {f"test_{key}": value for key, value in accuracy.items()})
            monitor.run.log_test("prune", step, accuracy, lr=self._options.lr_prune)
            monitor.run.log_line(f"prune  step {step}: test {format_accuracy(accuracy)}")
        marks = ["checkpoint_just_finished_update_reg"] if self._pruner.status != self._status else []
        # Save before the cut: a signal during the cut or its tests then loses no step.
        return [*marks, LATEST] if self._pruner.finished else marks


class FinetunePhase(Phase):
    """Train for ``epochs`` with a piecewise learning rate and a fresh optimizer; test after each epoch.

    Args:
        data: determines the steps per epoch.
        metrics: records the accuracy of each epoch.
        title: first word of progress lines.
    """

    name, counted_as = "finetune", "finetune"

    def __init__(self, options: Options, data: Data, metrics: FinetuneMetrics, title: str, device: torch.device):
        self._options, self._metrics, self.title = options, metrics, title
        self._rates = learning_rates(options)
        self._steps_per_epoch = steps_per_epoch(len(data.train), options.batch_size)
        self.batch_size, self.total_steps = options.batch_size, self._steps_per_epoch * options.epochs
        self.print_every_steps = options.print_freq
        # Correct images of this rank in the current epoch; on the device, to avoid a host sync.
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

    def on_step_end(self, step: int, batch: Batch, outputs: Tensor, monitor: TrainingMonitor) -> list[str]:
        self._n_correct += (outputs.argmax(1) == batch.labels).sum()
        self._metrics.n_seen += batch.global_size
        return [] if step % self._steps_per_epoch else self._end_epoch(step, monitor)

    def _end_epoch(self, step: int, monitor: TrainingMonitor) -> list[str]:
        """Test, record and log. Returns the names of the checkpoints to write.

        ``checkpoint`` comes last: a run killed before repeats the end of this epoch, including ``checkpoint_best``.
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
        test = {f"test_{key}": value for key, value in accuracy.items()}
        run.scalars("finetune", step - 1, test | val | {"train_acc1": train_acc1, "lr": lr})
        run.log_test("finetune", step, accuracy, epoch=epoch, lr=lr, train_acc1=train_acc1, **val)
        run.log_line(
            f"epoch {epoch}: lr {lr:g}  train acc1 {train_acc1:.2f}  "
            + "".join(f"held out {value:.2f}  " for value in val.values())
            + f"test {format_accuracy(accuracy)}  best {metrics.best:.2f} (epoch {metrics.best_epoch})  "
            + monitor.rate_and_eta()
        )
        if is_best:
            run.save_pruned(monitor.model)
        return ["checkpoint_best"] * is_best + [LATEST]

    def before_save(self) -> None:
        self._metrics.n_correct = int(all_reduce_sum(self._n_correct.clone()))
