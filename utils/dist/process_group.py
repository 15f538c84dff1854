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
from utils.dist.signals import ended_at_once

log = logging.getLogger("pruning")
NOTICE_AFTER_SECONDS = 3.0  # of waiting for other processes
TIMEOUT = timedelta(minutes=30)  # others wait while rank 0 reads files or re-estimates batch-norm statistics


def shard() -> Shard:
    """Return this process's rank and the world size."""
    return Shard(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Shard()


def under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ or {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys()


def is_main_process() -> bool:
    """Whether this is rank 0, known before the process group exists; a rank that is none prints its errors, too."""
    return not under_torchrun() or os.environ.get("RANK", "0") == "0" or _wrong_variables() is not None


def _wrong_variables() -> str | None:
    """Return what is wrong with the variables of torchrun, which may be set by hand or left over; None: nothing."""
    values = {name: os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"))}
    for name, value in values.items():
        if not value.isdecimal():
            return f"{name}={value} is not a whole number"
    if int(values["RANK"]) >= int(values["WORLD_SIZE"]):
        return f"RANK={values['RANK']} is not below WORLD_SIZE={values['WORLD_SIZE']}"
    if not os.environ.get("MASTER_PORT", "").isdecimal():
        return f"MASTER_PORT={os.environ.get('MASTER_PORT', '')} is not a port"
    return None


@contextmanager
def _log_waiting() -> Iterator[None]:
    """Log a notice if the process group takes long to form."""
    environment = os.environ
    address = f"{environment.get('MASTER_ADDR')}:{environment.get('MASTER_PORT')}"
    n = int(environment.get("WORLD_SIZE", "1")) - 1
    text = f"notice: waiting for {n} other process{'es' * (n > 1)} at {address}"
    level = logging.WARNING  # printed by rank 0 only
    if "TORCHELASTIC_RUN_ID" not in environment:  # perhaps stale variables: then any rank may be the only process
        text += "; to run a single process, unset RANK, WORLD_SIZE and MASTER_ADDR"
        level = logging.ERROR
    timer = threading.Timer(NOTICE_AFTER_SECONDS, log.log, [level, text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def init_process_group(device: torch.device, backend: str | None = None) -> None:
    """Initialize the process group under torchrun.

    Args:
        backend: default: nccl on GPUs, gloo on CPUs.

    Raises:
        ValueError: the variables of torchrun do not fit each other.
    """
    if under_torchrun() and not dist.is_initialized():
        if wrong := _wrong_variables():
            raise ValueError(f"{wrong}; to run a single process, unset RANK, WORLD_SIZE and MASTER_ADDR")
        if device.type == "cuda":
            torch.cuda.set_device(device)  # nccl sends objects from the current device
        name = backend or ("nccl" if device.type == "cuda" else "gloo")
        with _log_waiting(), ended_at_once():
            dist.init_process_group(name, timeout=TIMEOUT, device_id=device if name == "nccl" else None)


def destroy_process_group() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap_ddp(model: nn.Module) -> nn.Module:
    """Wrap `model` in DistributedDataParallel if there are several processes."""
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
    """Sum `values` over all processes, in place."""
    if shard().world_size > 1:
        dist.all_reduce(values)
    return values


def all_gather(value: Any) -> list[Any]:
    """Gather `value` of all ranks, in order of rank."""
    values = [value] * shard().world_size
    if shard().world_size > 1:
        dist.all_gather_object(values, value)
    return values


def broadcast_from_main(value: Any) -> Any:
    """Broadcast rank 0's `value`."""
    values = [value]
    if shard().world_size > 1:
        dist.broadcast_object_list(values, 0)
    return values[0]


def loss_scale(n_images: int) -> float:
    """Return the factor for a rank's summed loss such that gradients averaged over ranks are the global batch's mean.

    Args:
        n_images: images of the global batch.
    """
    return shard().world_size / n_images
