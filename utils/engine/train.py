"""Training steps, tests and the two long phases. Knows pruners only by their interface."""

import copy
import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from data import Data, images_in_step, steps_per_epoch
from pruner import Pruner
from utils.checkpoint import files
from utils.checkpoint.paths import LATEST
from utils.config.lr_schedule import learning_rates, lr_at, uses_adam
from utils.dist.process_group import align, loss_scale, shard, total, wrap
from utils.engine.monitor import TrainingMonitor
from utils.engine.precision import compiled
from utils.engine.progress import Progress
from utils.reporting.format import format_accuracy
from utils.reporting.run_dir import Run
from utils.reporting.snapshots import History, OrderLog


def train_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    optimizer: torch.optim.Optimizer,
    pruner: Pruner,
    step: int,
    share: float | None = None,
    amp: str = "none",
) -> tuple[Tensor, Tensor]:
    """One step: forward, backward, penalty, update. Returns loss and outputs, on the device.

    Args:
        share: what the summed loss is multiplied by; None: one over the number of images, for the mean.
        amp: ``bf16``: convs and linear layers compute in it; weights, gradients and the loss stay float32.
    """
    pruner.before_step(step)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp == "bf16"):
        outputs = model(images)
    outputs = outputs.float()
    loss = F.cross_entropy(outputs, labels, reduction="sum") * (share or 1 / len(labels))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    pruner.after_backward()
    optimizer.step()
    pruner.after_step()
    return loss.detach(), outputs.detach()


@torch.no_grad()
def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[str, float]:
    """Accuracy in percent, ``acc1`` and, with more than 5 classes, ``acc5``, and mean ``loss``.

    The model is in the mode it was in, train or eval, when this returns. With several processes each brings its
    part of the images, and all get the same figures.
    """
    training = model.training
    model.eval()
    found = 0
    for images, labels in batches:
        outputs = model(images)
        best = outputs.topk(min(5, outputs.shape[1])).indices == labels[:, None]  # (batch, 5)
        loss = F.cross_entropy(outputs, labels, reduction="sum")
        found = found + torch.stack([best[:, 0].sum(), best.sum(), loss, loss.new_tensor(len(labels))]).double()
    model.train(training)
    top1, top5, loss, n_images = total(found).tolist()
    accuracy = {"acc1": 100 * top1 / n_images}
    if outputs.shape[1] > 5:
        accuracy["acc5"] = 100 * top5 / n_images
    return accuracy | {"loss": loss / n_images}


def reestimated_acc1(model: nn.Module, data: Data) -> float:
    """Test accuracy with batch-norm statistics taken afresh over the training images, on a copy.

    Source: ours; under a growing penalty running statistics lag behind the weights, and after a cut they
    still contain the constants that zeroed_outputs channels passed on.
    """
    clone = copy.deepcopy(model)
    device = next(model.parameters()).device
    if shard().rank == 0:  # the first process, for all
        # A generator of its own: a network's dropout would draw from the run's.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            update_bn((images for images, _ in data.statistics_batches()), clone)
    align(clone)
    return evaluate(clone, data.test_batches())["acc1"]


def prune_phase(
    model: nn.Module,
    data: Data,
    pruner: Pruner,
    run: Run,
    expected_steps: int,
    observers: Sequence[History | OrderLog] = (),
) -> None:
    """Train under `pruner`'s penalties until it has finished; a resumed run goes on where it was.

    Args:
        expected_steps: steps of the whole phase if no gap ends a layer early.
        observers: are shown each step before it is made.
    """
    options, tally, resumed = run.options, run.record.tally, run.resumed_in("prune")
    optimizer = torch.optim.SGD(model.parameters(), options.lr_prune, options.momentum, weight_decay=options.wd)
    step = resume(optimizer, resumed)
    batches = data.train_batches(options.batch_size_prune, "prune", step)
    net = wrap(compiled(model, options))
    model.train()
    with (
        run.stop.deferred(),
        Progress("prune", expected_steps, options.print_interval, run.log_line, tally, "prune", step) as progress,
        TrainingMonitor(run, "prune", model, progress, pruner, optimizer=optimizer, observers=observers) as watch,
    ):
        while not pruner.finished:
            began, phase = time.perf_counter(), pruner.phase
            for observer in observers:
                observer.observe(step)
            images, labels = next(batches)
            n_images = images_in_step(len(data.train), options.batch_size_prune, step)
            loss, _ = train_step(net, images, labels, optimizer, pruner, step, loss_scale(n_images), options.amp)
            watch.saw(loss, step)
            values = None
            if progress.due():
                watch.check_losses()
                values = {"loss": loss.item(), **pruner.report()}
                run.scalars("prune", step, values | {"lr": options.lr_prune})
                values = _brief(values)
            progress.count(n_images, values)
            step += 1
            if step % options.test_interval == 0:
                with progress.paused():
                    align(model)
                    accuracy = evaluate(model, data.test_batches())
                run.scalars("prune", step - 1, {f"test_{key}": value for key, value in accuracy.items()})
                run.tested("prune", step, accuracy, lr=options.lr_prune)
                run.log_line(f"prune  step {step}: test {format_accuracy(accuracy)}")
            tally.iterations[phase] += 1
            tally.seconds[phase] += time.perf_counter() - began
            marks = ["checkpoint_just_finished_update_reg"] if pruner.phase != phase else []
            # Before the cut: a signal that comes while it is made and tested then costs no step.
            watch.after(step, marks=[*marks, LATEST] if pruner.finished else marks)
        watch.check()
    align(model)


def resume(optimizer: torch.optim.Optimizer, resumed: dict[str, Any]) -> int:
    """Put the optimiser and the random generators where they were when `resumed` was saved.

    Returns:
        The step to make next; 0 for a new run.
    """
    if not resumed:
        return 0
    if resumed["optimizer"]:
        optimizer.load_state_dict(resumed["optimizer"])
    own = shard()
    if len(resumed["rng"]) == own.of:  # else there is no state for each
        files.restore_random_state(resumed["rng"][own.rank])
    return resumed["step"]


def fine_tune(model: nn.Module, data: Data, keeper: Pruner, run: Run) -> None:
    """Train for ``--epochs`` with a piecewise learning rate and a fresh optimiser; test after each epoch.

    What comes of it is in ``run.record.tuned``. A resumed run goes on where it was.

    Args:
        keeper: holds masked weights at zero.
    """
    options, rates, tally, done = run.options, learning_rates(run.options), run.record.tally, run.record.tuned
    optimizer: torch.optim.Optimizer
    if uses_adam(options):
        optimizer = torch.optim.Adam(model.parameters(), lr_at(rates, 0))
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr_at(rates, 0), options.momentum, weight_decay=options.wd)
    per_epoch = steps_per_epoch(len(data.train), options.batch_size)
    step = resume(optimizer, run.resumed_in("finetune"))
    batches = data.train_batches(options.batch_size, "finetune", step)
    device = next(model.parameters()).device
    right = torch.tensor(done.right if shard().rank == 0 else 0, device=device)  # by this process, in this epoch
    net = wrap(compiled(model, options))
    model.train()

    def note_epoch() -> None:
        done.right = int(total(right.clone()))

    with (
        run.stop.deferred(),
        Progress("fine-tune" if run.kept or run.masks else "train", per_epoch * options.epochs,
                 options.print_freq, run.log_line, tally, "finetune", step) as progress,
        TrainingMonitor(run, "finetune", model, progress, keeper, note_epoch, optimizer=optimizer) as watch,
    ):  # fmt: skip
        for epoch in range(step // per_epoch, options.epochs):
            lr = lr_at(rates, epoch)
            for group in optimizer.param_groups:
                group["lr"] = lr
            while step < (epoch + 1) * per_epoch:
                began = time.perf_counter()
                images, labels = next(batches)
                n_images = images_in_step(len(data.train), options.batch_size, step)
                share = loss_scale(n_images)
                loss, outputs = train_step(net, images, labels, optimizer, keeper, step, share, options.amp)
                watch.saw(loss, step)
                right += (outputs.argmax(1) == labels).sum()
                done.seen += n_images
                values = None
                if progress.due():
                    watch.check_losses()
                    values = {"loss": loss.item()}
                    run.scalars("finetune", step, values)
                progress.count(n_images, values)
                step += 1
                tally.iterations["finetune"] += 1
                tally.seconds["finetune"] += time.perf_counter() - began
                if step < (epoch + 1) * per_epoch:  # the end of an epoch has its own io, with its test
                    watch.after(step, epoch)
            began = time.perf_counter()
            watch.check()
            with progress.paused():
                align(model)
                accuracy = evaluate(model, data.test_batches())
                val = evaluate(model, data.val_batches()) if data.val else None
            note_epoch()
            train_acc1 = 100 * done.right / done.seen
            right.zero_()
            best = done.add(accuracy, val)
            tested = {f"test_{key}": value for key, value in accuracy.items()}
            held_out = {"val_acc1": val["acc1"]} if val else {}
            run.scalars("finetune", step - 1, tested | held_out | {"train_acc1": train_acc1, "lr": lr})
            run.tested("finetune", step, accuracy, epoch=epoch, lr=lr, train_acc1=train_acc1, **held_out)
            run.log_line(
                f"epoch {epoch}: lr {lr:g}  train acc1 {train_acc1:.2f}  "
                + "".join(f"held out {value:.2f}  " for value in held_out.values())
                + f"test {format_accuracy(accuracy)}  best {done.best:.2f} (epoch {done.best_epoch})  {progress.outlook()}"
            )
            tally.seconds["finetune"] += time.perf_counter() - began
            # The newest checkpoint last: a run killed before it makes this epoch, and the best, again.
            if best:
                run.save_pruned(model)
            watch.after(step, epoch + 1, ["checkpoint_best"] * best + [LATEST])
    align(model)


def _brief(values: dict[str, float]) -> dict[str, float]:
    """For a line: the widths of many gaps as their smallest."""
    gaps = [value for key, value in values.items() if key.startswith("gap/")]
    short = {key: value for key, value in values.items() if not key.startswith("gap/")}
    return short | ({"smallest gap": min(gaps)} if gaps else {})
