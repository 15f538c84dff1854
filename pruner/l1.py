"""One-shot L1-norm pruning (Li et al. 2017)."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .base import PruningContext
from .loop import InLoop
from .options import PrunerOptions
from .selection import Comparison, picks
from .settings import Settings


class L1(InLoop):
    """Cut the groups of smallest (or largest, or random) mean magnitude, without a prune phase.

    In a program of one's own: ``L1(network, example, speedup=2.0).cut()``; settings are ``seed`` and ``pick_pruned``,
    and the other arguments those of ``GReg1`` without `steps`.
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
        options = Settings.of(type(self), None, settings)
        self._prepare(options, network, example, speedup, ratios, rank, round_to)

    def _begin(self, options: PrunerOptions, context: PruningContext) -> None:
        self._kept, self._comparison = picks(options, context)

    def kept(self) -> dict[str, Tensor]:
        return self._kept

    def comparison(self) -> Comparison:
        return self._comparison
