"""Interface of a pruner. The base class does nothing: it is the pruner of plain training."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from torch import Tensor, nn

from .hooks import NoHooks
from .options import PrunerOptions
from .plan import Plan
from .schedule import Schedule
from .structure import Structure

# Status -> the key under which steps and seconds are counted in reports, which is that of the original program.
COUNTED_AS = {"growing": "update", "stabilizing": "stabilise", "done": "done"}


@dataclass(frozen=True)
class PruningContext:
    """Arguments of pruners beside the options.

    Attributes:
        model: the network to prune, with its starting weights.
        schedule: of the prune phase (``Pruner.schedule``); None for a method without one.
        inherited: groups kept by another run, layer name -> bool (groups,); None: select anew.
        candidate_loss: a cut network and its masks -> its training loss, before any fine-tuning; for the Oracle.
        structure: of `model`, for filters and channels.
    """

    model: nn.Module
    plan: Plan
    schedule: Schedule | None = None
    inherited: dict[str, Tensor] | None = None
    candidate_loss: Callable[[nn.Module, dict[str, Tensor]], float] | None = None
    structure: Structure | None = None


class Pruner(NoHooks):
    """Hooks of the training loop; the only holder of λ, selections and status.

    The loop calls ``before_step(step)``, then forward and backward, ``after_backward()``, the optimizer,
    ``after_step()``, until ``finished``; then the cut is made by ``kept()``.

    Attributes:
        prunes: whether ratios are needed.
        has_prune_phase: whether steps are trained before the cut.
        gap_kinds: kinds of group whose gap may end the prune phase early.
        growth: how λ grows until it is frozen, for the plan's table.
        picks_later: whether the groups are picked in the course of the prune phase, at τ'.
        rounded: how r·n becomes a number of groups.
        milestones: event -> the step at which it happened.
        decisions: number of picks and changes of status so far.
        ignores: flags that have no effect on this method, for a notice where they are typed.
    """

    milestones: dict[str, int] = {}  # noqa: RUF012 - never written to here
    prunes = False
    has_prune_phase = False
    gap_kinds: tuple[str, ...] = ()
    growth = "λ grows"
    picks_later = False
    rounded: Callable[[Fraction], int] = staticmethod(math.ceil)
    ignores: tuple[str, ...] = (
        "stage_pr", "ratios", "speedup", "rank", "round_to", "skip_layers", "wg", "pick_pruned", "expect_speedup",
        "base_pr_model", "inherit_pruned", "reinit",
    )  # fmt: skip

    @classmethod
    def make_schedule(cls, options: PrunerOptions, plan: Plan) -> Schedule | None:
        """Make the schedule of the prune phase for `plan`; None for a method without one."""
        return None

    @classmethod
    def check(cls, options: PrunerOptions, plan: Plan) -> None:
        """Raises:
        ValueError: this method cannot carry out `plan`, or not with these options.
        """

    @classmethod
    def build(cls, options: PrunerOptions, context: PruningContext) -> "Pruner":
        """The pruner of a run."""
        return cls()

    @property
    def status(self) -> str:
        """``growing`` or ``stabilizing`` in the prune phase, ``done`` where there is none."""
        return "done"

    @property
    def counted_as(self) -> str:
        """Key of the report that counts the next step."""
        return COUNTED_AS[self.status]

    @property
    def finished(self) -> bool:
        """Whether the cut is due."""
        return True

    def kept(self) -> dict[str, Tensor]:
        """Layer name -> bool (groups,), True for the groups that are kept; layers that keep all are left out."""
        return {}

    def report(self) -> dict[str, float]:
        """Scalars for the log: the largest λ, gaps."""
        return {}

    def gaps(self) -> dict[str, float]:
        """Layer name -> mean score of the kept groups over that of the pruned ones, where it is tracked."""
        return {}

    def comparison(self) -> dict[str, dict[str, float]]:
        """Layer name -> comparison of the selection with L1's on the initial weights, where both exist."""
        return {}

    def scores(self) -> dict[str, Tensor]:
        """Layer name -> current score of each group, (groups,), for the layers that lose groups."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, a result of ``state_dict``."""
