"""L1-norm pruning: pick by magnitude, cut at once (Li et al. 2017)."""

from torch import Tensor, nn

from . import groups
from .base import Pruner
from .plan import Plan


class L1(Pruner):
    """Cuts the groups with the lowest (or highest, or any) mean magnitude, with no prune phase."""

    def __init__(self, picks: dict[str, Tensor]):
        self._kept = picks

    def kept(self) -> dict[str, Tensor]:
        return self._kept


def pick(model: nn.Module, plan: Plan, how: str, generator=None) -> dict[str, Tensor]:
    """What L1 keeps of `model` as it is now: layer name -> bool (groups,).

    Args:
        how: ``min``, ``max`` or ``rand``; the last draws from `generator`, layer after layer.
    """
    return {
        name: groups.keep(groups.scores(model.get_submodule(name).weight, plan.kind), n_pruned, how, generator)
        for name, n_pruned in plan.pruned.items()
    }
