"""Training steps, tests and the two long phases. Knows pruners only by their interface."""

import copy
import logging
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from data import Data, steps_per_epoch
from pruner import Pruner
from utils.learning_rate import learning_rates, lr_at, uses_adam
from utils.progress import Progress
from utils.run import RunDir, Unrecorded

log = logging.getLogger(__name__)


class Diverged(ArithmeticError):
    """The loss is no longer a number."""


@dataclass
class Tally:
    """What a phase took.

    Attributes:
        iterations, seconds: by phase.
        images_per_second: of training steps alone, by stage of the run.
    """

    iterations: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)
    images_per_second: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - began


def train_step(model: nn.Module, images: Tensor, labels: Tensor, optimizer, pruner: Pruner, step: int):
    """One step: forward, backward, penalty, update. Returns loss and outputs, on the device."""
    pruner.before_step(step)
    outputs = model(images)
    loss = F.cross_entropy(outputs, labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    pruner.after_backward()
    optimizer.step()
    pruner.after_step()
    return loss.detach(), outputs.detach()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy in percent, ``acc1`` and, with more than 5 classes, ``acc5``, and mean ``loss``.

    The model is in the mode it was in, train or eval, when this returns.
    """
    training = model.training
    model.eval()
    total = top1 = top5 = loss = 0
    for images, labels in batches:
        outputs = model(images)
        best = outputs.topk(min(5, outputs.shape[1])).indices == labels[:, None]  # (batch, 5)
        total += len(labels)
        top1 += best[:, 0].sum()
        top5 += best.sum()
        loss += F.cross_entropy(outputs, labels, reduction="sum")
    model.train(training)
    accuracy = {"acc1": 100 * top1.item() / total}
    if outputs.shape[1] > 5:
        accuracy["acc5"] = 100 * top5.item() / total
    return accuracy | {"loss": loss.item() / total}


def shown(accuracy: dict[str, float]) -> str:
    """Accuracies for a line: ``acc1 93.20  acc5 99.10``."""
    return "  ".join(f"{key} {accuracy[key]:.2f}" for key in ("acc1", "acc5") if key in accuracy)


def reestimated_acc1(model: nn.Module, data: Data) -> float:
    """Test accuracy with batch-norm statistics taken afresh over the training images, on a copy.

    Source: ours; under a growing penalty running statistics lag behind the weights, and after a cut they
    still contain the constants that silenced channels passed on.
    """
    clone = copy.deepcopy(model)
    device = next(model.parameters()).device
    # A generator of its own: a network's dropout would draw from the run's.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        update_bn((images for images, _ in data.statistics_batches()), clone)
    return evaluate(clone, data.test_batches())["acc1"]


def prune_phase(
    model: nn.Module,
    data: Data,
    pruner: Pruner,
    run: RunDir,
    expected_steps: int,
    tally: Tally,
    observers: Sequence[Callable[[int], None]] = (),
) -> None:
    """Train under `pruner`'s penalties until it has finished.

    Args:
        expected_steps: steps to come if no gap ends a layer early.
        observers: called with each step before it is made.
    """
    if pruner.finished:
        return
    options = run.options
    optimizer = torch.optim.SGD(model.parameters(), options.lr_prune, options.momentum, weight_decay=options.wd)
    batches = data.train_batches(options.batch_size_prune, "prune")
    due = SaveTimer(options.save_interval)
    model.train()
    step = 0
    with Progress("prune", expected_steps, options.print_interval, run.say) as progress:
        while not pruner.finished:
            began, phase = time.perf_counter(), pruner.phase
            for observe in observers:
                observe(step)
            images, labels = next(batches)
            loss, _ = train_step(model, images, labels, optimizer, pruner, step)
            values = None
            if progress.due():
                values = {"loss": _finite(loss, step), **pruner.report()}
                run.scalars("prune", step, values | {"lr": options.lr_prune})
                values = _brief(values)
            progress.count(len(labels), values)
            tally.iterations[phase] += 1
            names = ["checkpoint_just_finished_update_reg"] if pruner.phase != phase else []
            names += ["checkpoint"] if due(step + 1) else []
            run.save(*names, phase="prune", step=step + 1, model=model, optimizer=optimizer, pruner=pruner)
            if (step + 1) % options.test_interval == 0:
                progress.pause()
                accuracy = evaluate(model, data.test_batches())
                run.scalars("prune", step, {f"test_{key}": value for key, value in accuracy.items()})
                run.say(f"prune  step {step + 1}: test {shown(accuracy)}")
                progress.resume()
            tally.seconds[phase] += time.perf_counter() - began
            step += 1
    _finite(loss, step - 1)
    tally.images_per_second["prune"] = progress.images_per_second


@dataclass
class FineTuned:
    """Accuracy on the test set by epoch, percent.

    Attributes:
        best_epoch: counted from 0; None where there was no epoch.
    """

    acc1: list[float] = field(default_factory=list)
    acc5: list[float] = field(default_factory=list)
    best_epoch: int | None = None

    @property
    def best(self) -> float | None:
        return None if self.best_epoch is None else self.acc1[self.best_epoch]

    def as_plain(self) -> dict:
        """What a checkpoint holds of it."""
        return asdict(self)

    @property
    def last(self) -> float | None:
        return self.acc1[-1] if self.acc1 else None

    def last_epochs(self, n: int) -> tuple[float, float] | None:
        """Mean and standard deviation of the last `n` epochs' accuracy."""
        tail = self.acc1[-n:]
        return (statistics.fmean(tail), statistics.pstdev(tail)) if tail else None


def fine_tune(model: nn.Module, data: Data, keeper: Pruner, run: RunDir | Unrecorded, tally: Tally) -> FineTuned:
    """Train for ``--epochs`` with a piecewise learning rate and a fresh optimiser; test after each epoch.

    Args:
        keeper: holds masked weights at zero.
        run: takes scalars, checkpoints and lines.
    """
    options, rates = run.options, learning_rates(run.options)
    optimizer: torch.optim.Optimizer
    if uses_adam(options):
        optimizer = torch.optim.Adam(model.parameters(), lr_at(rates, 0), weight_decay=options.wd)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr_at(rates, 0), options.momentum, weight_decay=options.wd)
    per_epoch = steps_per_epoch(len(data.train), options.batch_size)
    batches = data.train_batches(options.batch_size, "finetune")
    due = SaveTimer(options.save_interval)
    done = FineTuned()
    state = {"phase": "finetune", "model": model, "optimizer": optimizer, "pruner": keeper}
    model.train()
    with Progress("train" if options.method == "none" else "fine-tune", per_epoch * options.epochs,
                  options.print_freq, run.say) as progress:  # fmt: skip
        for epoch in range(options.epochs):
            began = time.perf_counter()
            lr = lr_at(rates, epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr
            right = seen = 0
            progress.resume()
            for step in range(epoch * per_epoch, (epoch + 1) * per_epoch):
                images, labels = next(batches)
                loss, outputs = train_step(model, images, labels, optimizer, keeper, step)
                right += (outputs.argmax(1) == labels).sum()
                seen += len(labels)
                values = None
                if progress.due():
                    values = {"loss": _finite(loss, step)}
                    run.scalars("finetune", step, values)
                progress.count(len(labels), values)
                if due(step + 1):
                    run.save("checkpoint", step=step + 1, epoch=epoch, best=done.as_plain(), **state)
            progress.pause()
            _finite(loss, step)
            tally.iterations["finetune"] += per_epoch
            accuracy = evaluate(model, data.test_batches())
            train_acc1 = 100 * right.item() / seen
            tested = {f"test_{key}": value for key, value in accuracy.items()}
            run.scalars("finetune", step, tested | {"train_acc1": train_acc1, "lr": lr})
            done.acc1.append(accuracy["acc1"])
            done.acc5 += [accuracy["acc5"]] if "acc5" in accuracy else []
            names = ["checkpoint"]
            if done.best is None or accuracy["acc1"] > done.best:
                done.best_epoch = epoch
                names.append("checkpoint_best")
                run.save_pruned(model)
            run.save(*names, step=step + 1, epoch=epoch + 1, best=done.as_plain(), **state)
            run.say(
                f"epoch {epoch}: lr {lr:g}  train acc1 {train_acc1:.2f}  test {shown(accuracy)}  "
                f"best {done.best:.2f} (epoch {done.best_epoch})  {progress.outlook()}"
            )
            tally.seconds["finetune"] += time.perf_counter() - began
    tally.images_per_second["finetune"] = progress.images_per_second
    return done


class SaveTimer:
    """Whether a checkpoint is due: every so many steps, or minutes."""

    def __init__(self, interval: str):
        minutes = interval.endswith("m")
        self._seconds = 60 * float(interval[:-1]) if minutes else None
        self._steps = None if minutes else int(interval)
        self._last = time.monotonic()

    def __call__(self, step: int) -> bool:
        if self._steps:
            return step % self._steps == 0
        if time.monotonic() - self._last < self._seconds:
            return False
        self._last = time.monotonic()
        return True


def _finite(loss: Tensor, step: int) -> float:
    value = loss.item()
    if not math.isfinite(value):
        raise Diverged(f"the loss is {value} at step {step}; a lower learning rate may help")
    return value


def _brief(values: dict[str, float]) -> dict[str, float]:
    """For a line: the widths of many gaps as their smallest."""
    gaps = [value for key, value in values.items() if key.startswith("gap/")]
    short = {key: value for key, value in values.items() if not key.startswith("gap/")}
    return short | ({"smallest gap": min(gaps)} if gaps else {})
