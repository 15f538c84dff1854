"""Several processes on one run, by torch.distributed under torchrun. With one process everything here is a no-op."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data import Shard

log = logging.getLogger("pruning")
SILENCE_SECONDS = 3.0  # of waiting for other processes, before that is said
PATIENCE = timedelta(minutes=30)  # while the first process alone reads, or estimates batch-norm statistics


class Disagreement(ArithmeticError):
    """The processes have come to different λ, picks or phases."""


def shard() -> Shard:
    """Which process this is, among how many."""
    return Shard(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Shard()


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def is_first() -> bool:
    """Whether this process is the one that speaks, known before it has met the others."""
    return not under_torchrun() or os.environ.get("RANK", "0") == "0"


@contextmanager
def _waiting_is_said() -> Iterator[None]:
    """Say, after a while, for whom this process waits."""
    environment = os.environ
    where = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
    n = int(environment.get("WORLD_SIZE", "1")) - 1
    text = f"notice: waiting for {n} other process{'es' * (n > 1)} at {where}"
    level = logging.WARNING  # of the first process alone
    if "TORCHELASTIC_RUN_ID" not in environment:  # perhaps left over, and then any rank is alone
        text += "; for one process alone, unset RANK, WORLD_SIZE and MASTER_ADDR"
        level = logging.ERROR
    timer = threading.Timer(SILENCE_SECONDS, log.log, [level, text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def join(device: torch.device, backend: str | None = None) -> None:
    """Meet the other processes that torchrun has started, if there are any.

    Args:
        backend: None: nccl on GPUs, gloo elsewhere.
    """
    if under_torchrun() and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where nccl sends objects from
        name = backend or ("nccl" if device.type == "cuda" else "gloo")
        with _waiting_is_said():
            dist.init_process_group(name, timeout=PATIENCE, device_id=device if name == "nccl" else None)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap(model: nn.Module) -> nn.Module:
    """`model` with its gradients averaged over all processes; itself where there is one."""
    if shard().of == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def align(model: nn.Module) -> None:
    """Give every process the first one's running statistics: the others' are of their own images."""
    if shard().of > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def total(values: Tensor) -> Tensor:
    """The sum of `values` over all processes."""
    if shard().of > 1:
        dist.all_reduce(values)
    return values


def gather(value: Any) -> list[Any]:
    """Every process's `value`, in order of rank."""
    found = [value] * shard().of
    if shard().of > 1:
        dist.all_gather_object(found, value)
    return found


def from_first(value: Any) -> Any:
    """The first process's `value`."""
    box = [value]
    if shard().of > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


class Agreement:
    """What all processes must know of each other at every step, by one small message that nobody waits for.

    What is said at one step is heard at the next: the message travels while the step is made. It goes over
    gloo, from CPU to CPU, so that no GPU is stalled.
    """

    def __init__(self):
        self._several = shard().of > 1
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self._several else None
        self._pending: tuple[dist.Work, Tensor] | None = None

    def exchange(self, signal: int, due: bool, fingerprint: int) -> tuple[int, bool]:
        """Say whether this process was sent a signal (its number, or 0), whether it finds a checkpoint due, and
        what it has decided so far. Returns the first two, of any process.

        Raises:
            Disagreement: the fingerprints differ.
        """
        if not self._several:
            return signal, due
        heard = self._hear()
        said = torch.tensor([signal, due, fingerprint, -fingerprint], dtype=torch.int64)
        self._pending = dist.all_reduce(said, dist.ReduceOp.MAX, self._group, async_op=True), said
        return heard

    def _hear(self) -> tuple[int, bool]:
        if self._pending is None:
            return 0, False
        work, said = self._pending
        work.wait()
        self._pending = None
        signal, due, most, least = said.tolist()
        if most != -least:
            raise Disagreement("the processes disagree on λ, picks or phase; nothing more is saved")
        return signal, bool(due)

    def close(self, signal: int) -> int:
        """Hear what was said last. Returns the number of a signal, or 0."""
        if not self._several:
            return signal
        signal, _ = self._hear()
        dist.destroy_process_group(self._group)
        return signal


def share_of_loss(n_images: int) -> float:
    """What a process multiplies its summed loss by, so that the average over processes is the batch's mean.

    Args:
        n_images: of the batch, over all processes.
    """
    return shard().of / n_images
