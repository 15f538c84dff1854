"""The door to the pruners: ``PRUNERS``, ``build_pruner``."""

from collections.abc import Callable

import torch
from torch import nn

from . import l1
from .base import Masks, Pruner
from .cut import cut
from .greg import GReg1, GReg2
from .l1 import L1
from .plan import Plan, keep_all, make_plan
from .schedule import Schedule

__all__ = [
    "PRUNERS",
    "Masks",
    "Plan",
    "Pruner",
    "build_pruner",
    "cut",
    "keep_all",
    "make_plan",
    "schedule_of",
]

# name of --method -> builder(options, model, plan, generator). A new pruner is one file and one line here.
PRUNERS: dict[str, Callable[..., Pruner]] = {
    "none": lambda options, model, plan, generator: Pruner(),
    "L1": lambda options, model, plan, generator: L1(l1.pick(model, plan, options.pick_pruned, generator)),
    "GReg-1": lambda options, model, plan, generator: GReg1(
        model,
        plan,
        schedule_of(options),
        l1.pick(model, plan, options.pick_pruned, generator),
        options.block_loss_grad,
    ),
    # GReg-2 always picks by the lowest magnitude; L1's pick of the starting weights is what it is compared with.
    "GReg-2": lambda options, model, plan, generator: GReg2(
        model, plan, schedule_of(options), l1.pick(model, plan, "min"), options.block_loss_grad
    ),
}


def build_pruner(options, model: nn.Module, plan: Plan) -> Pruner:
    """The pruner of ``options.method`` for `model`; random picks follow ``options.seed``."""
    generator = torch.Generator().manual_seed(options.seed)
    return PRUNERS[options.method](options, model, plan, generator)


def schedule_of(options) -> Schedule | None:
    """The prune phase of ``options.method``; None for a method without one."""
    if options.method not in ("GReg-1", "GReg-2"):
        return None
    return Schedule(
        update_every_steps=options.update_reg_interval,
        stabilize_steps=options.stabilize_reg_interval,
        grow=options.reg_granularity_prune,
        grow_pick=options.reg_granularity_pick,
        limit=options.reg_upper_limit,
        limit_pick=options.reg_upper_limit_pick,
        keep=options.reg_granularity_recover,
        gap_limit=options.mag_ratio_limit,
        picks_later=options.method == "GReg-2",
    )
