"""Pruning by growing regularization: GReg-1 and GReg-2, two short classes over a shared one.

Near a minimum with diagonal Hessian h, raising λ by δ moves the optimum to ŵ = w / (1 + δ/h): weights of high
curvature shrink less, so that magnitude under a uniform penalty reflects curvature.

Source: paper, section 3.3.
"""

import logging

from torch import Tensor

from . import groups, selection
from .base import PruningContext
from .options import PrunerOptions
from .regularized import GReg, RegularizedLayer

log = logging.getLogger(__name__)


class GReg1(GReg):
    """Grow λ on the groups that L1 selects before the first step.

    It ends early when the gaps of all layers, of this update, are at the limit: the paper's reading. The original looks
    layer by layer, at gaps of the update before, and so ends an update later.

    Source: paper, section 3.2.
    """

    ignores = ("reinit", "reg_upper_limit_pick", "reg_granularity_pick", "reg_granularity_recover", "fix_reg_interval")

    def _begin(self, options: PrunerOptions, context: PruningContext) -> None:
        super()._begin(options, context)
        for layer in self.layers:
            layer.kept = self._l1_picks[layer.name]

    def _grow(self, layer: RegularizedLayer, step: int) -> None:
        self._set_penalty(layer)
        if self.kind in self.gap_kinds:
            layer.average_gap(groups.gap(layer.scores(), self._l1_picks[layer.name]))

    def _wide(self, gaps: list[float]) -> list[bool]:
        """End all layers together, when every gap is wide."""
        return [min(gaps) >= self.schedule.gap_limit] * len(gaps)


class GReg2(GReg):
    """Grow λ on every group until λ = τ'; then select the smallest and grow λ on them.

    Source: paper, section 3.3.
    """

    picks_later = True
    ignores = ("reinit", "pick_pruned", "inherit_pruned", "fix_reg_interval")  # numbers are all that it can inherit

    def _begin(self, options: PrunerOptions, context: PruningContext) -> None:
        super()._begin(options, context)
        self._starting_scores = {layer.name: groups.sample(layer.scores()).clone() for layer in self.layers}

    def _l1(self, options: PrunerOptions, context: PruningContext) -> tuple[dict[str, Tensor], selection.Comparison]:
        """L1's selection on the initial weights, for comparison."""
        return selection.pick(context.model, context.plan, "min"), {}

    def _grow(self, layer: RegularizedLayer, step: int) -> None:
        self._set_penalty(layer)
        if layer.kept is None and layer.updates >= self.schedule.updates_to_pick:
            self._pick(layer, step)
        if self.kind in self.gap_kinds:
            scores = layer.scores()
            kept = groups.keep(scores, layer.n_pruned) if layer.kept is None else layer.kept
            layer.average_gap(groups.gap(scores, kept))

    def _wide(self, gaps: list[float]) -> list[bool]:
        return [gap >= self.schedule.gap_limit for gap in gaps]

    def _pick(self, layer: RegularizedLayer, step: int) -> None:
        """Select the smallest groups of the current weights, and log the difference from L1's selection."""
        scores = layer.scores()
        self.milestones.setdefault("pick", step)
        layer.kept = groups.keep(scores, layer.n_pruned)
        self.decisions += 1
        share = groups.overlap(layer.kept, self._l1_picks[layer.name])
        kendall, spearman = groups.rank_agreement(self._starting_scores[layer.name], groups.sample(scores))
        self._comparison[layer.name] = {"overlap": share, "kendall": kendall, "spearman": spearman}
        log.info(
            "step %d: %s picked; %.1f %% of the pick is L1's own; order against the start: Kendall %.3f, Spearman %.3f",
            step, layer.name, 100 * share, kendall, spearman,
        )  # fmt: skip

    def state_dict(self) -> dict:
        return super().state_dict() | {"starting_scores": self._starting_scores}

    def load_state_dict(self, state: dict) -> None:
        super().load_state_dict(state)
        self._starting_scores = state["starting_scores"]
