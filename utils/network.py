"""The network that a run starts from, with its weights."""

from dataclasses import dataclass

import torch
from torch import nn

from data import DataSpec
from model import LARGE, SMALL, build_model, is_small, rebuild
from utils import checkpoint
from utils.options import Options


@dataclass(frozen=True)
class Start:
    """Attributes:
    source: where the weights come from, in words; None: freshly initialised.
    pruned: whether the file holds a network that is already cut.
    """

    model: nn.Module
    source: str | None
    pruned: bool = False


def starting_network(options: Options, spec: DataSpec) -> Start:
    """Build the network of `options` for images of `spec` and fill it.

    Raises:
        ValueError: the file cannot be had or does not fit.
    """
    if not options.base_model_path:
        torch.manual_seed(options.seed)
        return Start(build_model(options.arch, spec.classes, spec.channels, spec.size), None)
    path = checkpoint.find_one(options.base_model_path)
    saved = checkpoint.read(path)
    if checkpoint.is_pruned(saved):
        arch = saved["options"]["arch"]
        if arch != options.arch:
            raise ValueError(f"{path} holds a {arch}, not a {options.arch}; give --arch {arch}")
        return Start(rebuild(saved), str(path), pruned=True)
    model = build_model(options.arch, spec.classes, spec.channels, spec.size)
    checkpoint.fill(model, saved["model"], str(path))
    return Start(model, str(path))


def family_notice(options: Options, spec: DataSpec) -> list[str]:
    """Says so where the only network of a name is of the family for images of another size."""
    small = is_small(options.arch, spec.size)
    if small and options.arch not in LARGE and spec.size > 64:
        return [f"{options.arch} is a network for small images; {spec.name} has {spec.size} px"]
    if not small and options.arch not in SMALL and spec.size <= 64:
        return [f"{options.arch} is torchvision's, made for larger images; {spec.name} has {spec.size} px"]
    return []
