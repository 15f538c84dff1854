"""What a pruner is. The base does nothing: it is the pruner of plain training."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .plan import Plan
from .schedule import Schedule


@dataclass(frozen=True)
class PruningContext:
    """What pruners are built from, beside the options.

    Attributes:
        model: the network to prune, with its starting weights.
        inherited: what another run kept, layer name -> bool (groups,); None: pick afresh.
        judge: a cut network and its masks -> its training loss, before any fine-tuning.
        example: one image, where the model is.
    """

    model: nn.Module
    plan: Plan
    inherited: dict[str, Tensor] | None
    judge: Callable[[nn.Module, dict[str, Tensor]], float]
    example: Tensor


class Pruner:
    """Asked by the training loop at fixed places of each step; the only holder of λ, picks and phase.

    The loop calls ``before_step(step)``, then forward and backward, ``after_backward()``, the optimiser,
    ``after_step()``, until ``finished``; then the cut is made by ``kept()``.

    Attributes:
        status: ``growing`` or ``stabilizing`` in the prune phase, ``done`` after it.
        prunes: whether ratios are needed.
        has_prune_phase: whether steps are trained before the cut.
        gap_kinds: kinds of group whose gap may end the prune phase early.
        growth: λ until it stands still, for the plan's table.
        picks_later: whether the groups are picked in the course of the prune phase, at τ'.
        rounded: how r·n becomes a number of groups.
        milestones: what has happened -> the step at which it did.
        decisions: how many picks and changes of phase there were so far.
        ignores: flags that have no effect on this method, for a notice where they are typed.
    """

    status = "done"
    milestones: dict[str, int] = {}  # noqa: RUF012 - never written to here
    decisions = 0
    prunes = False
    has_prune_phase = False
    gap_kinds: tuple[str, ...] = ()
    growth = "λ grows"
    picks_later = False
    rounded = staticmethod(math.ceil)
    ignores: tuple[str, ...] = (
        "stage_pr", "skip_layers", "wg", "pick_pruned", "expect_speedup", "base_pr_model", "inherit_pruned", "reinit",
    )  # fmt: skip

    @classmethod
    def schedule(cls, options, plan: Plan) -> Schedule | None:
        """The prune phase that carries out `plan`; None for a method without one."""
        return None

    @classmethod
    def check(cls, plan: Plan) -> None:
        """Raises:
        ValueError: `plan` is more than this method can carry out.
        """

    @classmethod
    def build(cls, options, setting: PruningContext) -> "Pruner":
        """The pruner of a run."""
        return cls()

    @property
    def finished(self) -> bool:
        """Whether the cut is due."""
        return True

    def before_step(self, step: int) -> None:
        """Called before the forward pass of `step`, counted from 0."""

    def after_backward(self) -> None:
        """Called when every weight has its gradient."""

    def after_step(self) -> None:
        """Called after the optimiser."""

    def kept(self) -> dict[str, Tensor]:
        """Layer name -> bool (groups,), True for the groups that stay; layers that keep all are left out."""
        return {}

    def report(self) -> dict[str, float]:
        """Scalars for the log."""
        return {}

    def gaps(self) -> dict[str, float]:
        """Layer name -> how far kept and pruned groups are apart, where that is followed."""
        return {}

    def comparison(self) -> dict[str, dict[str, float]]:
        """Layer name -> how the pick compares with L1's of the starting weights, where both are made."""
        return {}

    def scores(self) -> dict[str, Tensor]:
        """Layer name -> score of each group now, (groups,), for the layers that lose groups."""
        return {}

    def fingerprint(self) -> int:
        """62 bits that are the same in two processes whose λ, picks and phase are."""
        return 0

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Continue from `state`, which ``state_dict`` gave."""


class Masks(Pruner):
    """Holds pruned weights at exactly zero while a masked network is fine-tuned (``--wg weight``).

    Args:
        masks: layer name -> bool, the weight's shape, False where a weight is pruned.
    """

    def __init__(self, model: nn.Module, masks: dict[str, Tensor]):
        self._pairs = [(model.get_submodule(name).weight, mask) for name, mask in masks.items()]
        self.after_step()

    @torch.no_grad()
    def after_step(self) -> None:
        """Zero again what momentum has moved."""
        for weight, mask in self._pairs:
            weight.mul_(mask)
