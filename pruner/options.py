"""Settings of the pruners; any object with these attributes."""

from decimal import Decimal
from typing import Protocol

PENALIZED = ("filter", "group")


class PrunerOptions(Protocol):
    """Settings of the pruners, by the names of the original program's flags.

    Attributes:
        seed: of random picks.
        pick_pruned: ``min``, ``max`` or ``rand``: which groups L1, GReg-1 and FixReg pick, by magnitude.
        penalize: ``filter``: λ on the pruned layers' weights (the paper); ``group``: on every parameter that the cut
            removes; None: ``filter`` with `stage_pr`, else ``group``.
        stage_pr: ratios by stage or index; empty where layers are named otherwise.
        block_loss_grad: the penalty replaces the loss's gradient instead of adding to it.
        update_reg_interval, stabilize_reg_interval: K_u and K_s, steps.
        reg_granularity_prune, reg_granularity_pick: δ and δ', growth of λ per update.
        reg_upper_limit, reg_upper_limit_pick: τ and τ'.
        reg_granularity_recover: λ of the groups that GReg-2 keeps, after its pick.
        mag_ratio_limit: the gap that ends a layer early.
        fix_reg_interval: steps with λ at τ under FixReg; None: as many as GReg-1's growth takes.
        prune_steps: length of the whole prune phase, steps; None: by the other settings.
        lr_prune: learning rate of the prune phase.
    """

    @property
    def seed(self) -> int: ...
    @property
    def pick_pruned(self) -> str: ...
    @property
    def penalize(self) -> str | None: ...
    @property
    def stage_pr(self) -> str: ...
    @property
    def block_loss_grad(self) -> bool: ...
    @property
    def update_reg_interval(self) -> int: ...
    @property
    def stabilize_reg_interval(self) -> int: ...
    @property
    def reg_granularity_prune(self) -> Decimal: ...
    @property
    def reg_granularity_pick(self) -> Decimal: ...
    @property
    def reg_granularity_recover(self) -> Decimal: ...
    @property
    def reg_upper_limit(self) -> Decimal: ...
    @property
    def reg_upper_limit_pick(self) -> Decimal: ...
    @property
    def mag_ratio_limit(self) -> float: ...
    @property
    def fix_reg_interval(self) -> int | None: ...
    @property
    def prune_steps(self) -> int | None: ...
    @property
    def lr_prune(self) -> float: ...
