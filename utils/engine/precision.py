"""Precision and memory layout, resolved once and stored with the run.

Nothing is timed at run time, so that a resumed run computes as it began. BENCHMARKS.md has the measurements behind
the defaults.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from model import CIFAR_MODELS
from utils.config.options import Options

# Networks with few convs or none: bf16 made them slower, or no faster.
LITTLE_ARITHMETIC = ("lenet5", "lenet5_mini", "mlp_7_linear")


# Torchvision's and other large networks shrink smaller images to one pixel before their last stride. There oneDNN's
# bf16 gradient of a strided depthwise conv is uninitialized memory (torch 2.14, channels_last).
SMALLEST_FOR_LARGE = 32


def resolved(options: Options, device: torch.device, image_size: int = 224) -> Options:
    """`options` with every ``auto`` of speed decided, by device, network and size of the images.

    Raises:
        ValueError: what is asked for cannot be done here.
    """
    if options.cuda_graph == "on":
        raise ValueError("--cuda_graph on is not available yet: no GPU was at hand to try it on; give auto or off")
    tiny = options.arch not in CIFAR_MODELS and image_size < SMALLEST_FOR_LARGE
    little = options.arch in LITTLE_ARITHMETIC or tiny
    fast = not little and device.type == "cpu" and has_bf16_arithmetic()
    return replace(
        options,
        amp=("bf16" if fast else "none") if options.amp == "auto" else options.amp,
        channels_last=("true" if fast else "false") if options.channels_last == "auto" else options.channels_last,
        cuda_graph="off",
    )


def has_bf16_arithmetic() -> bool:
    """Whether this CPU has bfloat16 arithmetic."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def to_memory_format(model: nn.Module, options: Options) -> nn.Module:
    """Convert `model` to the run's memory layout in place; images follow the first conv's weights."""
    return model.to(memory_format=torch.channels_last) if options.channels_last == "true" else model


def compiled(model: nn.Module, options: Options) -> nn.Module:
    """Compile `model` under ``--compile``; the weights are shared."""
    return cast(nn.Module, torch.compile(model)) if options.compile else model
