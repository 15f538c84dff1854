"""The door to the pruners: ``PRUNERS``, ``build_pruner``."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import groups, l1
from .base import Masks, Pruner
from .cut import cut
from .greg import GReg1, GReg2
from .l1 import L1
from .oracle import Oracle, combinations_of
from .plan import Plan, inherit_plan, keep_all, make_plan
from .schedule import Schedule

__all__ = [
    "PRUNERS", "Masks", "Plan", "Pruner", "Schedule", "Setting", "build_pruner", "combinations_of", "cut",
    "inherit_plan", "keep_all", "make_plan", "schedule_of",
]  # fmt: skip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Setting:
    """What pruners are built from, beside the options.

    Attributes:
        model: the network to prune, with its starting weights.
        inherited: what another run kept, layer name -> bool (groups,); None: pick afresh.
        judge: a cut network and its masks -> its training loss.
        example: one image, where the model is.
    """

    model: nn.Module
    plan: Plan
    inherited: dict[str, Tensor] | None
    judge: Callable[[nn.Module, dict[str, Tensor]], float]
    example: Tensor


# --method -> builder(options, setting). A new pruner is one file and one line here.
PRUNERS: dict[str, Callable[..., Pruner]] = {
    "none": lambda options, setting: Pruner(),
    "L1": lambda options, setting: L1(_picks(options, setting)),
    "GReg-1": lambda options, setting: GReg1(
        setting.model, setting.plan, schedule_of(options, setting.plan),
        _picks(options, setting), options.block_loss_grad,
    ),
    # GReg-2 picks by the lowest magnitude later on; L1's pick of the starting weights is what it is compared with.
    "GReg-2": lambda options, setting: GReg2(
        setting.model, setting.plan, schedule_of(options, setting.plan),
        l1.pick(setting.model, setting.plan, "min"), options.block_loss_grad,
    ),
    "Oracle": lambda options, setting: Oracle(setting.model, setting.plan, setting.judge, setting.example),
}  # fmt: skip


def build_pruner(options, setting: Setting) -> Pruner:
    """The pruner of ``options.method``."""
    return PRUNERS[options.method](options, setting)


def _picks(options, setting: Setting) -> dict[str, Tensor]:
    """L1's picks by ``--pick_pruned``, or those inherited from another run, held against L1's own."""
    generator = torch.Generator().manual_seed(options.seed)  # so that random picks follow the seed
    own = l1.pick(setting.model, setting.plan, options.pick_pruned, generator)
    if setting.inherited is None:
        return own
    device = setting.example.device
    inherited = {name: mask.to(device) for name, mask in setting.inherited.items()}
    for name, mask in inherited.items():
        log.info("%s inherited; %.1f %% of the pick is L1's own", name, 100 * groups.overlap(mask, own[name]))
    return inherited


def schedule_of(options, plan: Plan) -> Schedule | None:
    """The prune phase that carries out `plan`; None for a method without one."""
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
        empty=not plan.pruned,
    )
