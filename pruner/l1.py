"""One-shot L1-norm pruning (Li et al. 2017)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import groups
from .base import PruningContext
from .loop import InLoop, Settings
from .options import PrunerOptions
from .plan import Plan, PlannedLayer

Comparison = dict[str, dict[str, float]]


class L1(InLoop):
    """Cut the groups of smallest (or largest, or random) mean magnitude, without a prune phase.

    In a program of one's own: ``L1(network, example, speedup=2.0).cut()``; the arguments are those of ``GReg1``.
    """

    prunes = True
    ignores = ()

    def __init__(
        self,
        network: nn.Module,
        example: Any,
        *,
        speedup: float | None = None,
        ratios: str | Mapping[str, float] | None = None,
        rank: str = "uniform",
        round_to: int = 1,
        **settings: Any,
    ):
        self._prepare(network, example, speedup, ratios, rank, round_to)
        context = PruningContext(network, self.plan, None, None, lambda *_: 0.0, self.structure)
        self._kept, self._comparison = picks(Settings.of(None, False, settings), context)

    @classmethod
    def build(cls, options: PrunerOptions, context: PruningContext) -> "L1":
        pruner = cls.__new__(cls)
        pruner._kept, pruner._comparison = picks(options, context)
        return pruner

    def kept(self) -> dict[str, Tensor]:
        return self._kept

    def comparison(self) -> Comparison:
        return self._comparison


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


def picks(options: PrunerOptions, context: PruningContext) -> tuple[dict[str, Tensor], Comparison]:
    """Select by ``options.pick_pruned``, or take another run's selection and compare it with L1's."""
    generator = torch.Generator().manual_seed(options.seed)  # so that random picks follow the seed
    own = pick(context.model, context.plan, options.pick_pruned, generator)
    if context.inherited is None:
        return own, {}
    inherited = {name: mask.to(own[name].device) for name, mask in context.inherited.items()}
    comparison = {}
    for name, mask in inherited.items():
        comparison[name] = {"overlap": groups.overlap(mask, own[name])}
    return inherited, comparison
