"""Precision and memory layout, resolved once and stored with the run.

Defaults depend on device and network, not on timings, so that a resumed run computes as before. They are measured in
BENCHMARKS.md.
"""

from dataclasses import replace
from typing import cast

import torch
from torch import nn

from model import CIFAR_MODELS
from utils.config.options import Options

# Networks with few or no convs: bf16 is no faster.
FLOAT32_MODELS = ("lenet5", "lenet5_mini", "mlp_7_linear")

# Large networks reduce smaller images to one pixel before their last stride, where oneDNN's bf16 gradient of a strided
# depthwise conv is uninitialized memory (torch 2.14, channels_last).
MIN_SIZE_FOR_BF16 = 32


def resolve_auto(options: Options, device: torch.device, image_size: int = 224) -> Options:
    """Resolve ``auto`` in ``--amp``, ``--channels_last`` and ``--cuda_graph`` by device, network and image size.

    Raises:
        ValueError: ``--cuda_graph on``, which is not available.
    """
    if options.cuda_graph == "on":
        raise ValueError("--cuda_graph on is not available: untested on GPUs; use auto or off")
    tiny = options.arch not in CIFAR_MODELS and image_size < MIN_SIZE_FOR_BF16
    float32 = options.arch in FLOAT32_MODELS or tiny
    fast = not float32 and device.type == "cpu" and has_bf16_arithmetic()
    return replace(
        options,
        amp=("bf16" if fast else "none") if options.amp == "auto" else options.amp,
        channels_last=("true" if fast else "false") if options.channels_last == "auto" else options.channels_last,
        cuda_graph="off",
    )


def has_bf16_arithmetic() -> bool:
    """Whether this CPU has bfloat16 arithmetic."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def to_memory_format(model: nn.Module, options: Options) -> nn.Module:
    """Convert `model` to the run's memory layout in place; images take that of the first conv's weights."""
    return model.to(memory_format=torch.channels_last) if options.channels_last == "true" else model


def compile_model(model: nn.Module, options: Options) -> nn.Module:
    """Compile `model` if ``--compile`` is given; the weights are shared."""
    return cast(nn.Module, torch.compile(model)) if options.compile else model
