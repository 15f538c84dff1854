"""Pruning by a fixed penalty, λ = τ from the first step: the control for growing."""

from dataclasses import dataclass
from decimal import Decimal

from .greg import GReg1
from .options import PrunerOptions
from .plan import Plan
from .regularized import RegularizedLayer
from .schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class FixedSchedule(Schedule):
    """λ = τ from step 0 on; its updates, one per step, only count.

    Attributes:
        steps: number of steps before the K_s further ones.
    """

    steps: int

    @property
    def updates_to_finish(self) -> int:
        return 1 if self.empty else self.steps

    def penalty(self, updates: int) -> Decimal:
        return self.limit if updates else Decimal(0)


class FixReg(GReg1):
    """GReg-1 with λ = τ at once: the same selection, gradient, K_s and cut; no gap ends it.

    Source: the original's fixed-penalty method; the paper's section 3.2 argues for growing λ instead.
    """

    gap_kinds: tuple[str, ...] = ()
    growth = "λ = τ"
    ignores = (
        "reinit", "reg_upper_limit_pick", "reg_granularity_pick", "reg_granularity_recover", "mag_ratio_limit",
    )  # fmt: skip

    @classmethod
    def make_schedule(cls, options: PrunerOptions, plan: Plan) -> FixedSchedule:
        """Take ``options.fix_reg_interval`` steps at τ; None: as many as GReg-1's growth.

        Raises:
            ValueError: the steps of the whole phase are given, too.
        """
        if options.prune_steps and options.fix_reg_interval:
            raise ValueError("fix_reg_interval and the number of steps of the whole prune phase exclude each other")
        greg1 = GReg1.make_schedule(options, plan)
        steps = options.fix_reg_interval or greg1.stabilize_from + 1
        return FixedSchedule(**vars(greg1) | {"update_every_steps": 1}, steps=steps)

    def _grow(self, layer: RegularizedLayer, step: int) -> None:
        if layer.updates == 1:
            self._set_penalty(layer)
