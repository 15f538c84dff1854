"""Select the groups to prune: by magnitude, at random, or as another run did.

The criterion is ``groups.scores``.
"""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from . import groups
from .base import PruningContext
from .layers import Layer
from .options import PrunerOptions
from .plan import Plan, PlannedLayer

Comparison = dict[str, dict[str, float]]


def pick(model: nn.Module, plan: Plan, how: str, generator=None) -> dict[str, Tensor]:
    """Select the groups that L1 keeps: layer name -> bool (groups,).

    Args:
        how: ``min``, ``max`` or ``rand``; the last draws from `generator`, layer after layer.
    """
    return {
        p.layer.name: groups.keep(scores_of(model, p, plan.kind), p.pruned, how, generator)
        for p in plan.layers
        if p.pruned
    }


def scores_of(model: nn.Module, planned: PlannedLayer, kind: str) -> Tensor:
    """Mean |w| over each group of a layer, (groups,)."""
    layer = planned.layer
    return groups.scores(model.get_parameter(f"{layer.name}.weight"), kind, layer.width_of(kind))


def filter_scores(model: nn.Module, layers: list[Layer]) -> dict[str, Tensor]:
    """Score the filters of each layer that can lose some: layer name -> (groups,)."""
    return {
        layer.name: groups.scores(model.get_parameter(f"{layer.name}.weight"), "filter", layer.width)
        for layer in layers
        if layer.prunable
    }


def digest(state: object, kept: Mapping[str, Tensor]) -> int:
    """Return a number of 62 bits that stands for `state`, as Python prints it, and a selection: equal on all ranks."""
    hashed = hashlib.sha256(repr(state).encode())
    for name, mask in kept.items():
        hashed.update(name.encode())
        hashed.update(mask.cpu().numpy().tobytes())
    return int.from_bytes(hashed.digest()[:8], "big") >> 2


def picks(options: PrunerOptions, context: PruningContext) -> tuple[dict[str, Tensor], Comparison]:
    """Select by ``options.pick_pruned``, or take another run's selection and compare it with L1's."""
    generator = torch.Generator().manual_seed(options.seed)  # so that random picks follow the seed
    own = pick(context.model, context.plan, options.pick_pruned, generator)
    if context.inherited is None:
        return own, {}
    inherited = {name: mask.to(own[name].device) for name, mask in context.inherited.items()}
    return inherited, {name: {"overlap": groups.overlap(mask, own[name])} for name, mask in inherited.items()}
