"""A network from a file of weights: fitted to the shapes that it holds."""

from pathlib import Path

import torch
from torch import Tensor, nn

from .build import build_model


def fit_to(model: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """Give each conv, linear and batch-norm layer of `model` the widths of its weight in `state`, in place.

    A pruned network is its dense one with smaller layers, so the shapes of its weights say all there is to
    say, and rebuilding needs neither the masks of the cut nor the library that made it. Only layers that can
    have come of pruning are touched: no wider than they are, and as deep.
    """
    for name, module in model.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not hasattr(module, "weight") or weight.shape == module.weight.shape:
            continue
        if weight.ndim != module.weight.ndim or any(
            a > b for a, b in zip(weight.shape, module.weight.shape, strict=True)
        ):
            continue
        if isinstance(module, nn.Conv2d):
            module.out_channels, module.in_channels = weight.shape[0], weight.shape[1] * module.groups
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = weight.shape
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = weight.shape[0]
        for key, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if tensor.ndim and f"{name}.{key}" in state:  # all but batch-norm's count of batches
                empty = torch.empty(state[f"{name}.{key}"].shape, dtype=tensor.dtype, device=tensor.device)
                setattr(module, key, nn.Parameter(empty) if isinstance(tensor, nn.Parameter) else empty)
    return model


def rebuild(saved: dict) -> nn.Module:
    """The network of one of our checkpoints, dense or pruned, with its weights, on the CPU."""
    data, options = saved["data"], saved["options"]
    with torch.device("meta"):  # no time for an initialisation that would be overwritten
        model = build_model(options["arch"], data["classes"], data["channels"], data["size"], not options["not_use_bn"])
        fit_to(model, saved["model"])
    model.load_state_dict(saved["model"], assign=True)
    return model


def load_pruned(path: str | Path) -> nn.Module:
    """The network of `path` (``pruned_model.pth`` or a checkpoint) in eval mode, from any working directory.

    Masked weights (``--wg weight``) are zeros in the network; the masks are in the file under ``masks``.
    """
    return rebuild(torch.load(path, map_location="cpu", weights_only=True)).eval()
