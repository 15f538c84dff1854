"""Precision, memory layout and compilation, resolved once and stored with the run.

What ``auto`` gives; a flag with another value always wins:

    --amp, --channels_last   bf16 and true on CPUs with bf16 arithmetic, except for FLOAT32_MODELS and for large
                             networks on images below MIN_SIZE_FOR_BF16; float32 and false elsewhere, GPUs included
    --compile                on for COMPILED_MODELS on CPUs with AMX, from COMPILE_FROM_IMAGES images on
    --cuda_graph             off

Choices depend on device, network and plan, never on a timing, and a run stores them: a changed list changes new runs,
and a resumed run computes as before. They are measured in BENCHMARKS.md.
"""

import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from model import CIFAR_MODELS
from utils.config.options import Options

# Networks with few or no convs: bf16 is no faster.
FLOAT32_MODELS = ("lenet5", "lenet5_mini", "mlp_7_linear")

# Not to be lowered: large networks reduce smaller images to one pixel before their last stride, where oneDNN's bf16
# gradient of a strided depthwise conv is uninitialized memory (torch 2.14, channels_last).
MIN_SIZE_FOR_BF16 = 32

# CIFAR ResNets: with AMX their convs are so fast that batch-norm, ReLU and addition, which compilation fuses, take most
# of a step.
COMPILED_MODELS = ("resnet20", "resnet32", "resnet44", "resnet56", "resnet110")
# Over all steps of a run: compilation takes up to 90 s and saves 0.1 to 0.3 ms per image.
COMPILE_FROM_IMAGES = 1_000_000


def resolve_auto(options: Options, device: torch.device, image_size: int = 224) -> Options:
    """Resolve ``auto`` in ``--amp``, ``--channels_last`` and ``--cuda_graph`` by device, network and image size.

    Raises:
        ValueError: ``--cuda_graph on``, which is not implemented.
    """
    if options.cuda_graph == "on":
        raise ValueError("--cuda_graph on: not implemented; use auto or off")
    tiny = options.arch not in CIFAR_MODELS and image_size < MIN_SIZE_FOR_BF16
    float32 = options.arch in FLOAT32_MODELS or tiny
    fast = not float32 and device.type == "cpu" and has_bf16_arithmetic()
    return replace(
        options,
        amp=("bf16" if fast else "none") if options.amp == "auto" else options.amp,
        channels_last=("true" if fast else "false") if options.channels_last == "auto" else options.channels_last,
        cuda_graph="off",
    )


def resolve_compile(options: Options, device: torch.device, n_images: int) -> tuple[Options, list[str]]:
    """Resolve ``--compile auto`` by device and network.

    Args:
        n_images: that the run trains on, over all steps of both phases.

    Returns:
        The options, and a notice if compilation would pay but there is no compiler.

    Raises:
        ValueError: ``--compile on`` for a CPU, without a C++ compiler.
    """
    missing = device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None
    if options.compile == "on" and missing:
        raise ValueError("--compile on needs a C++ compiler: install g++, or set CXX to one")
    if options.compile != "auto":
        return options, []
    pays = compilation_pays(device) and options.arch in COMPILED_MODELS and n_images >= COMPILE_FROM_IMAGES
    notices = ["--compile auto: off, no C++ compiler (g++, or CXX) found"] if pays and missing else []
    return replace(options, compile="on" if pays and not missing else "off"), notices


def compilation_pays(device: torch.device) -> bool:
    """Whether compiled steps of some networks are faster on this device (BENCHMARKS.md)."""
    return device.type == "cpu" and bool(_cpu_capabilities().get("amx_bf16"))


def _cpu_capabilities() -> Mapping[str, Any]:
    return torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}


def has_bf16_arithmetic() -> bool:
    """Whether this CPU has bfloat16 arithmetic."""
    capabilities = _cpu_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def to_memory_format(model: nn.Module, options: Options) -> nn.Module:
    """Convert `model` to the run's memory layout in place; images take that of the first conv's weights."""
    return model.to(memory_format=torch.channels_last) if options.channels_last == "true" else model


class CompiledModel(nn.Module):
    """`model` through ``torch.compile``; the weights are shared.

    Batches of other sizes than given, such as the last of an epoch, take the eager model: each compiled size takes as
    long as the first. The choice depends on the size alone, so that a resumed run computes as before.
    """

    def __init__(self, model: nn.Module, *batch_sizes: int):
        super().__init__()
        self.model, self._batch_sizes = model, batch_sizes
        # As torch compiles for a CPU, this logger warns that there is no GPU.
        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
        self._compiled = torch.compile(model.__call__, dynamic=False)

    def forward(self, images: Tensor) -> Any:
        return (self._compiled if len(images) in self._batch_sizes else self.model)(images)
