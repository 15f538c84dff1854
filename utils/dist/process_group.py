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


def shard() -> Shard:
    """Which process this is, among how many."""
    return Shard(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Shard()


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def is_main_process() -> bool:
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


def wrap_ddp(model: nn.Module) -> nn.Module:
    """`model` with its gradients averaged over all processes; itself where there is one."""
    if shard().world_size == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def broadcast_buffers(model: nn.Module) -> None:
    """Give every process the first one's running statistics: the others' are of their own images."""
    if shard().world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of `values` over all processes."""
    if shard().world_size > 1:
        dist.all_reduce(values)
    return values


def all_gather(value: Any) -> list[Any]:
    """Every process's `value`, in order of rank."""
    found = [value] * shard().world_size
    if shard().world_size > 1:
        dist.all_gather_object(found, value)
    return found


def broadcast_from_main(value: Any) -> Any:
    """The first process's `value`."""
    box = [value]
    if shard().world_size > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


def loss_scale(n_images: int) -> float:
    """What a process multiplies its summed loss by, so that the average over processes is the batch's mean.

    Args:
        n_images: of the batch, over all processes.
    """
    return shard().world_size / n_images
