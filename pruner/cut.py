"""The cut: remove groups, or mask single weights."""

import copy

import torch
from torch import Tensor, nn

from . import groups
from .plan import Plan

# What removes entries of a layer, by kind of group and type of layer, in torch-pruning's terms; coupled layers follow.
_REMOVERS: dict[tuple[str, type], str] = {
    ("filter", nn.Conv2d): "prune_conv_out_channels",
    ("filter", nn.Linear): "prune_linear_out_channels",
    ("channel", nn.Conv2d): "prune_conv_in_channels",
    ("channel", nn.Linear): "prune_linear_in_channels",
}


def cut(model: nn.Module, kept: dict[str, Tensor], kind: str, example: Tensor) -> dict[str, Tensor]:
    """Remove from `model`, in place, every group that is not in `kept`.

    Filters and channels leave a smaller dense network: a filter takes along its bias, its batch-norm entry
    and the channel of whatever reads it; a channel takes along the filter that it reads. Running statistics
    carry over. Weights stay in place and become zero.

    Args:
        kept: layer name -> bool (groups,).
        example: a batch of one image, on the model's device, to trace the network with.

    Returns:
        Masks, layer name -> bool of the weight's shape; empty for filters and channels.
    """
    if kind == "weight":
        masks = {}
        for name, mask in kept.items():
            weight = model.get_parameter(f"{name}.weight")
            masks[name] = groups.spread(mask.to(weight.device), weight.shape, kind)
            weight.data.mul_(masks[name])
        return masks

    if not kept:
        return {}
    import torch_pruning as tp  # here: it is not needed until something is removed

    training = model.training
    graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)  # leaves the model in eval mode
    for name, mask in kept.items():
        layer = model.get_submodule(name)
        pruned = (~mask).nonzero().flatten().tolist()
        graph.get_pruning_group(layer, getattr(tp, _REMOVERS[kind, type(layer)]), pruned).prune()
    model.train(training)
    return {}


def shrunk_copy(model: nn.Module, plan: Plan, example: Tensor) -> nn.Module:
    """Copy `model` with as many groups removed as `plan` says, for its cost; any groups will do.

    Args:
        model, example: may be on the meta device, where this takes no time and no memory.
    """
    smaller = copy.deepcopy(model)
    kept = {p.layer.name: torch.arange(p.groups) >= p.pruned for p in plan.layers if p.pruned}
    if plan.kind != "weight":
        cut(smaller, kept, plan.kind, example)
    return smaller
