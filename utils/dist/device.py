"""Resolution of ``--device`` and ``--gpu``; settings of the CPU."""

import ctypes
import os

import torch

# Of glibc's malloc.h, and the largest threshold that it accepts.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -1, -3, 2**25


def resolve_device(name: str, gpu: int | None = None) -> torch.device:
    """Resolve ``auto`` to a GPU if one is visible; under torchrun, to that of the local rank.

    Args:
        gpu: index among the visible GPUs; None: the first.

    Raises:
        ValueError: the requested GPU is not available.
    """
    count = torch.cuda.device_count()
    if name == "cuda" and not count:
        raise ValueError("--device cuda: no GPU is available; use --device cpu or auto")
    if name == "cpu" or not count:
        return torch.device("cpu")
    if gpu is not None and gpu >= count:
        raise ValueError(f"--gpu {gpu}: no such GPU; visible GPUs are 0 to {count - 1}")
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if local_rank >= count:
        raise ValueError(f"more processes than visible GPUs ({count}): use torchrun --nproc_per_node={count}")
    return torch.device("cuda", gpu if gpu is not None else local_rank)


def device_notices(device: torch.device, gpu: int | None) -> list[str]:
    """Return notices on GPU settings that have no effect."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    visible = "" if visible.startswith("-1") or visible == "NoDevFiles" else visible  # values that hide all GPUs
    if device.type == "cpu" and torch.cuda.device_count() == 0 and (visible or gpu is not None):
        setting = f"CUDA_VISIBLE_DEVICES={visible}" if visible else f"--gpu {gpu}"
        return [f"{setting} has no effect: no GPU is available; computing on the CPU"]
    return []


def set_up_cpu() -> None:
    """Set memory and arithmetic of a process that computes on the CPU; call it before the first computation.

    Numbers below 1e-38 are rounded to zero. A growing penalty leaves such weights, and a CPU may compute with them 30
    times slower. Each thread has this setting, from the thread that creates it: torch creates its own at the first
    computation.
    """
    torch.set_flush_denormal(True)
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step instead of returning it to the system (Linux, glibc).

    Otherwise every step pays for fetching its activations' pages again (BENCHMARKS.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # not this C library
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
