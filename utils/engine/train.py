"""The training loop: one engine for every phase."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data import TEST_BATCH, Data
from pruner import Hooks
from utils.checkpoint.state import restore_random_state
from utils.dist.process_group import broadcast_buffers, loss_scale, shard, wrap_ddp
from utils.engine.monitor import Phase, TrainingMonitor
from utils.engine.precision import CompiledModel
from utils.engine.update import Update
from utils.reporting.run_dir import Run

AUXILIARY_WEIGHT = 0.3  # of an auxiliary head's loss. Source: Szegedy et al. 2015, section 5


def train(model: nn.Module, data: Data, hooks: Hooks, phase: Phase, run: Run) -> None:
    """Train `model` through `phase`; a resumed run continues at its checkpoint.

    The hook points of step t:

        phase.on_step_start(t)      learning rate, snapshots
        hooks.before_step(t)        λ grows, groups are selected
            forward, loss, backward
        hooks.after_backward()      weight.grad += (γ + λ) · weight
            optimizer
        hooks.after_step()          masked weights set to zero
        monitor.record(t)           non-finite losses, progress, scalars
        phase.on_step_end(t + 1)    tests; returns the names of due checkpoints
        monitor.after_step(t + 1)   exchange between ranks, checkpoints, signals

    A further phase is a class with the members of ``Phase``.

    Raises:
        DivergedError: a loss or a weight is not finite.
        ConsensusError: the ranks differ in λ, selections or status.
        StoppedError: a signal was received; the state is saved.
    """
    optimizer = phase.optimizer(model)
    step = restore(optimizer, run, phase.name)
    batches = data.train_batches(phase.batch_size, phase.name, step)
    compiled = run.options.compile == "on"
    update = Update(optimizer, hooks, compiled)
    local = CompiledModel(model, phase.batch_size // shard().world_size, TEST_BATCH) if compiled else model
    net = wrap_ddp(local)
    model.train()
    with run.stop.deferred(), TrainingMonitor(model, data, hooks, phase, run, optimizer, step, local) as monitor:
        while not phase.finished(step):
            with monitor.counted(phase.counted_as):
                phase.on_step_start(step, optimizer)
                batch = next(batches)
                scale = loss_scale(batch.global_size)
                loss, outputs = train_step(net, batch.images, batch.labels, update, step, scale, run.options.amp)
                monitor.record(step, loss, batch.global_size)
                step += 1
                marks = phase.on_step_end(step, batch, outputs, monitor)
            monitor.after_step(step, phase.epochs_done(step), marks)
        monitor.check_finite()
    broadcast_buffers(model)


def train_step(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    update: Update,
    step: int,
    scale: float | None = None,
    amp: str = "none",
) -> tuple[Tensor, Tensor]:
    """Make one step: forward, backward, hooks, update. Returns loss and outputs, on the device.

    Args:
        scale: factor of the summed loss; None: 1 / number of images.
        amp: ``bf16``: autocast of convs and linear layers; weights, gradients and loss stay float32.
    """
    update.hooks.before_step(step)
    with torch.autocast(images.device.type, torch.bfloat16, enabled=amp == "bf16"):
        outputs, *heads = split_heads(model(images))
    outputs = outputs.float()
    loss = F.cross_entropy(outputs, labels, reduction="sum")
    for head in heads:
        loss = loss + AUXILIARY_WEIGHT * F.cross_entropy(head.float(), labels, reduction="sum")
    loss = loss * (scale or 1 / len(labels))
    update.optimizer.zero_grad(set_to_none=True)
    loss.backward()
    update()
    return loss.detach(), outputs.detach()


def split_heads(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the outputs, followed by those of auxiliary heads (GoogLeNet and Inception in training mode)."""
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


def restore(optimizer: torch.optim.Optimizer, run: Run, phase: str) -> int:
    """Restore optimizer and random state from the run's checkpoint, and drop it.

    Returns:
        The next step; 0 if the run has no checkpoint of `phase`.
    """
    checkpoint = run.take_checkpoint(phase)
    if checkpoint is None:
        return 0
    if checkpoint.optimizer:  # its momentum; learning rate and weight decay are the phase's
        optimizer.load_state_dict(checkpoint.optimizer | {"param_groups": optimizer.state_dict()["param_groups"]})
    ranks = shard()
    if len(checkpoint.rng) == ranks.world_size:  # else some rank has no state
        restore_random_state(checkpoint.rng[ranks.rank])
    return checkpoint.step
