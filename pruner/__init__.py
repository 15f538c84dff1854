"""The door to the pruners: ``PRUNERS``, by the names of ``--method``."""

from .base import Masks, Pruner, PruningContext
from .cut import cut
from .fixreg import FixReg
from .greg import GReg1, GReg2
from .l1 import L1
from .oracle import Oracle
from .plan import Plan, inherit_plan, keep_all, make_plan
from .schedule import Schedule
from .short_schedule import short_schedule
from .zeroed import zeroed_outputs

__all__ = [
    "PRUNERS",
    "Masks",
    "Plan",
    "Pruner",
    "PruningContext",
    "Schedule",
    "cut",
    "inherit_plan",
    "keep_all",
    "make_plan",
    "short_schedule",
    "zeroed_outputs",
]

# A new pruner is one file and one line here.
PRUNERS: dict[str, type[Pruner]] = {
    "none": Pruner,
    "L1": L1,
    "GReg-1": GReg1,
    "GReg-2": GReg2,
    "FixReg": FixReg,
    "Oracle": Oracle,
}
