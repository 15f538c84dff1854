"""Choice of the device."""

import os

import torch


def device_of(name: str, gpu: int | None = None) -> torch.device:
    """Resolve ``auto`` to a GPU if there is one; under torchrun, to this process's own.

    Args:
        gpu: its number among the visible ones; None: the first.

    Raises:
        ValueError: a GPU is asked for that is not there.
    """
    count = torch.cuda.device_count()
    if name == "cuda" and not count:
        raise ValueError("--device cuda: there is no GPU here; --device cpu or auto works")
    if name == "cpu" or not count:
        return torch.device("cpu")
    if gpu is not None and gpu >= count:
        raise ValueError(f"--gpu {gpu}: the visible GPUs are 0 to {count - 1}")
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if local_rank >= count:
        raise ValueError(f"more processes than GPUs: {count} visible here; give torchrun --nproc_per_node={count}")
    return torch.device("cuda", gpu if gpu is not None else local_rank)


def device_notices(device: torch.device, gpu: int | None) -> list[str]:
    """Notices on GPU flags that have no effect."""
    asked = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    asked = "" if asked.startswith("-1") or asked == "NoDevFiles" else asked  # how one asks for none
    if device.type == "cpu" and torch.cuda.device_count() == 0 and (asked or gpu is not None):
        wish = f"CUDA_VISIBLE_DEVICES={asked}" if asked else f"--gpu {gpu}"
        return [f"{wish}, but there is no GPU here: computing on the CPU"]
    return []
