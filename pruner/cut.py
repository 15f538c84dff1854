"""The cut: remove groups, or mask single weights."""

import copy
import logging
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from . import groups
from .plan import Plan
from .structure import Structure

log = logging.getLogger(__name__)
Kept = Mapping[str, Tensor]  # layer -> bool (groups,)
Entries = dict[tuple[str, int], np.ndarray]  # (tensor, dimension) -> bool, the entries that are kept


def cut(
    model: nn.Module,
    kept: Kept,
    kind: str,
    structure: Structure | None,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Tensor]:
    """Remove from `model`, in place, every group that is not in `kept`.

    Filters and channels leave a smaller dense network: a filter takes along its bias, its batch-norm entry and the
    columns that read it; a channel takes along the filter that it reads. Running statistics carry over. Parameter
    objects stay, with smaller data and their hooks. Single weights stay in place and become zero.

    Args:
        structure: of `model` before the cut; None will do for single weights, or where nothing is removed.
        optimizer: one of `model`; its state (momentum) is cut with the parameters, or begins anew where it has another
            form than they have.

    Returns:
        Masks, layer name -> bool of the weight's shape; empty for filters and channels.

    Raises:
        ValueError: a group cannot be removed; names the layer.
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
    assert structure is not None, "filters and channels are removed by the structure of the network"
    torch.clear_autocast_cache()  # it holds references to weights, which the swap refuses
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for (name, dim), entries in kept_entries(structure, kept, kind).items():
        index = torch.from_numpy(entries.nonzero()[0])
        _cut_tensor(tensors[name], dim, index, optimizer)
    _set_sizes(model, structure)
    return {}


def kept_entries(structure: Structure, kept: Kept, kind: str) -> Entries:
    """Return which entries of which tensors are kept; tensors that keep all are left out.

    Raises:
        ValueError: a group cannot be removed; names the layer.
    """
    by_layer = {name: mask.cpu().numpy() for name, mask in kept.items()}
    if kind == "filter":
        fixed = [name for name in by_layer if not structure.layers[name].units]
        if fixed:
            layer = structure.layers[fixed[0]]
            raise ValueError(f"filters of {layer.name} cannot be removed: {layer.status}, {layer.reason}")
        return structure.kept_entries(by_layer)
    units: dict[str, np.ndarray] = {}
    for reader, columns in by_layer.items():
        for name, mask in structure.units_read(reader, columns).items():
            units[name] = units.get(name, True) & mask
    return structure.kept_entries(units)


@torch.no_grad()
def _cut_tensor(tensor: Tensor, dim: int, index: Tensor, optimizer: torch.optim.Optimizer | None) -> None:
    """Keep the entries `index` of a parameter or buffer along `dim`, and of what an optimizer holds for it."""
    index = index.to(tensor.device)
    layout = torch.channels_last if tensor.ndim == 4 and not tensor.is_contiguous() else torch.contiguous_format

    def entries(of: Tensor) -> Tensor:
        return of.index_select(dim, index).contiguous(memory_format=layout)

    if not isinstance(tensor, nn.Parameter):
        tensor.data = entries(tensor)
        return
    before = tensor.shape
    smaller = nn.Parameter(entries(tensor), tensor.requires_grad)
    if tensor.grad is not None:
        smaller.grad = entries(tensor.grad)
    for hooks in ("_backward_hooks", "_post_accumulate_grad_hooks"):  # which a parameter gets from the swap
        setattr(smaller, hooks, getattr(tensor, hooks))
    # Not tensor.data = …: a graph that is still alive, such as the last loss's, would expect gradients of its shape.
    # torch.utils.swap_tensors refuses while it is; the graph keeps the old tensor, which is what it needs.
    torch._C._swap_tensor_impl(tensor, smaller)
    state = optimizer.state.get(tensor, {}) if optimizer else {}
    values = {key: value for key, value in state.items() if isinstance(value, Tensor) and value.numel() > 1}
    if any(value.ndim != len(before) or value.shape[dim] not in (1, before[dim]) for value in values.values()):
        state.clear()
        log.warning("the optimizer's state of a parameter of shape %s begins anew after the cut", tuple(tensor.shape))
        return
    for key, value in values.items():
        if value.shape[dim] == before[dim]:  # not 1, as sums over this dimension have (Adafactor)
            state[key] = entries(value)


def _set_sizes(model: nn.Module, structure: Structure) -> None:
    """Set the sizes that modules state to those of their weights; model/rebuild.py has the same rules."""
    for name, layer in structure.layers.items():
        module = model.get_submodule(name)
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = module.weight.shape
        elif isinstance(module, nn.modules.conv._ConvNd):
            if module.groups > 1:  # filters per group stay
                module.groups = module.groups * module.weight.shape[0] // layer.shape[0]
            module.out_channels, module.in_channels = module.weight.shape[0], module.weight.shape[1] * module.groups
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            sized = module.weight if module.weight is not None else module.running_mean
            if sized is not None:
                module.num_features = len(sized)


def shrunk_copy(model: nn.Module, plan: Plan, structure: Structure | None) -> nn.Module:
    """Copy `model` with as many groups removed as `plan` says, for its cost; any groups will do.

    Args:
        model: may be on the meta device, where this takes no time and no memory.
    """
    smaller = copy.deepcopy(model)
    kept = {p.layer.name: torch.arange(p.groups) >= p.pruned for p in plan.layers if p.pruned}
    if plan.kind != "weight":
        cut(smaller, kept, plan.kind, structure)
    return smaller
