"""Growing regularization: prune networks in any training loop. Installed as ``growing_regularization``.

``GReg1``, ``GReg2``, ``FixReg`` and ``L1`` take a network, an example and a speedup or ratios; ``attach`` and ``cut``
do the rest. ``PRUNERS`` are the methods of the command line, by name.
"""

from .base import Pruner, PruningContext
from .cut import cut, shrunk_copy
from .fixreg import FixReg
from .greg import GReg1, GReg2
from .hooks import Hooks, NoHooks, WeightMasks
from .l1 import L1
from .oracle import Oracle
from .plan import LayerAddresses, Plan, StageRatios, inherit_plan, make_plan, plan_of, plan_of_cut, skipped_addresses
from .proof import CutMismatchError, ProofError, cut_and_compare, prove
from .schedule import Schedule
from .settings import Settings
from .short_schedule import short_schedule
from .structure import Structure, TracedLayer

__version__ = "0.7.0"
__all__ = [
    "L1",
    "PRUNERS",
    "CutMismatchError",
    "FixReg",
    "GReg1",
    "GReg2",
    "Hooks",
    "LayerAddresses",
    "NoHooks",
    "Plan",
    "ProofError",
    "Pruner",
    "PruningContext",
    "Schedule",
    "Settings",
    "StageRatios",
    "Structure",
    "TracedLayer",
    "WeightMasks",
    "cut",
    "cut_and_compare",
    "inherit_plan",
    "make_plan",
    "plan_of",
    "plan_of_cut",
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
