"""The public API of the pruners: ``PRUNERS`` by name."""

from .base import Pruner, PruningContext
from .cut import cut, shrunk_copy
from .fixreg import FixReg
from .greg import GReg1, GReg2
from .hooks import Hooks, NoHooks, WeightMasks
from .l1 import L1
from .oracle import Oracle
from .plan import LayerAddresses, Plan, StageRatios, inherit_plan, keep_all, make_plan, skipped_addresses
from .proof import ProofError, masked_outputs, prove
from .schedule import Schedule
from .short_schedule import short_schedule

__all__ = [
    "PRUNERS",
    "Hooks",
    "LayerAddresses",
    "NoHooks",
    "Plan",
    "ProofError",
    "Pruner",
    "PruningContext",
    "Schedule",
    "StageRatios",
    "WeightMasks",
    "cut",
    "inherit_plan",
    "keep_all",
    "make_plan",
    "masked_outputs",
    "prove",
    "short_schedule",
    "shrunk_copy",
    "skipped_addresses",
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
