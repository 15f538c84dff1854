"""Process group of a run under torchrun. With one process every function is a no-op."""

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
SILENCE_SECONDS = 3.0  # of waiting for other processes, before a notice
PATIENCE = timedelta(minutes=30)  # while the first process alone reads, or estimates batch-norm statistics


def shard() -> Shard:
    """Rank and number of processes."""
    return Shard(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Shard()


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def is_main_process() -> bool:
    """Whether this is rank 0, known before the process group exists."""
    return not under_torchrun() or os.environ.get("RANK", "0") == "0"


@contextmanager
def _log_waiting() -> Iterator[None]:
    """Log after a while for which processes this one waits."""
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
    """Initialize the process group if torchrun has started several processes.

    Args:
        backend: None: nccl on GPUs, gloo elsewhere.
    """
    if under_torchrun() and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)  # where nccl sends objects from
        name = backend or ("nccl" if device.type == "cuda" else "gloo")
        with _log_waiting():
            dist.init_process_group(name, timeout=PATIENCE, device_id=device if name == "nccl" else None)


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Wrap `model` in DistributedDataParallel; with one process, return it."""
    if shard().world_size == 1:
        return model
    device = next(model.parameters()).device
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def broadcast_buffers(model: nn.Module) -> None:
    """Broadcast rank 0's buffers: running statistics differ between ranks."""
    if shard().world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, 0)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of `values` over all processes."""
    if shard().world_size > 1:
        dist.all_reduce(values)
    return values


def all_gather(value: Any) -> list[Any]:
    """Gather `value` of every rank, in order."""
    found = [value] * shard().world_size
    if shard().world_size > 1:
        dist.all_gather_object(found, value)
    return found


def broadcast_from_main(value: Any) -> Any:
    """Broadcast rank 0's `value`."""
    box = [value]
    if shard().world_size > 1:
        dist.broadcast_object_list(box, 0)
    return box[0]


def loss_scale(n_images: int) -> float:
    """Factor of a rank's summed loss that makes the average over ranks the mean of the global batch.

    Args:
        n_images: of the batch, over all processes.
    """
    return shard().world_size / n_images
