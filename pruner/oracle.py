"""Exhaustive search over pruned groups: the reference for selection criteria, for tiny networks."""

import copy
import itertools
import logging
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from .base import Pruner, PruningContext
from .cut import cut
from .options import PrunerOptions
from .plan import Plan
from .structure import Structure

log = logging.getLogger(__name__)
MOST_COMBINATIONS = 20_000  # at a second each, a night


class Oracle(Pruner):
    """Cut the combination with the lowest training loss before fine-tuning.

    Source: the original's Oracle pruning (not in the paper); for each layer int(r·n) groups go.

    Args:
        candidate_loss: a cut network and its masks (for ``weight``) -> its training loss as cut.
        structure: of `model`, for filters and channels.

    Raises:
        ValueError: there are more combinations than a night's work.
    """

    prunes = True
    rounded = staticmethod(math.floor)
    ignores = ("pick_pruned", "inherit_pruned")

    @classmethod
    def check(cls, options: PrunerOptions, plan: Plan) -> None:
        combinations_of(plan)

    @classmethod
    def build(cls, options: PrunerOptions, context: PruningContext) -> "Oracle":
        assert context.candidate_loss is not None  # the command line gives one
        return cls(context.model, context.plan, context.candidate_loss, context.structure)

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        candidate_loss: Callable[[nn.Module, dict[str, Tensor]], float],
        structure: Structure | None,
    ):
        n_combinations = combinations_of(plan)
        log.warning("Oracle: %s combinations to try", f"{n_combinations:,}")
        best = math.inf
        self._kept: dict[str, Tensor] = {}
        from tqdm import tqdm  # here: the library does without

        for kept in tqdm(candidates(plan), total=n_combinations, unit="net", disable=None, leave=False):
            candidate = copy.deepcopy(model)
            loss = candidate_loss(candidate, cut(candidate, kept, plan.kind, structure))
            if loss < best:
                best, self._kept = loss, kept
        if math.isinf(best):
            raise ArithmeticError("Oracle pruning: no candidate has a finite loss")
        log.info("Oracle: the best of %d combinations has training loss %.5f", n_combinations, best)

    def kept(self) -> dict[str, Tensor]:
        return self._kept


def combinations_of(plan: Plan) -> int:
    """Number of combinations: the product over layers of n choose n_pruned.

    Raises:
        ValueError: more than ``MOST_COMBINATIONS``.
    """
    total = math.prod(math.comb(p.groups, p.pruned) for p in plan.layers)
    if total > MOST_COMBINATIONS:
        shown = f"{total:,}" if total < 10**15 else f"10^{math.log10(total):.0f}"
        raise ValueError(
            f"Oracle pruning would try {shown} combinations; at most {MOST_COMBINATIONS:,} are tried: "
            "take a smaller network or fewer layers"
        )
    return total


def candidates(plan: Plan) -> Iterator[dict[str, Tensor]]:
    """Yield every combination, as layer name -> bool (groups,)."""
    losing = [p for p in plan.layers if p.pruned]
    for chosen in itertools.product(*(itertools.combinations(range(p.groups), p.pruned) for p in losing)):
        kept = {}
        for planned, pruned in zip(losing, chosen, strict=True):
            mask = torch.ones(planned.groups, dtype=torch.bool)
            mask[list(pruned)] = False
            kept[planned.layer.name] = mask
        yield kept
