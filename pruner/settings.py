"""Settings of the pruners in a training loop of one's own: checked, and fitted to a number of steps."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any

from . import groups
from .base import Pruner
from .options import PENALIZED
from .short_schedule import short_schedule

OF_SELECTION = ("seed", "pick_pruned")  # settings of methods without a prune phase, too
GIVEN_OTHERWISE = ("prune_steps", "lr_prune", "stage_pr")  # given by `steps`, by the user's optimizer and by `ratios`
# Settings that are whole numbers -> the smallest possible; those from 0 up; those above 0.
WHOLE = {"seed": 0, "update_reg_interval": 1, "stabilize_reg_interval": 0, "fix_reg_interval": 1, "prune_steps": 1}
NOT_NEGATIVE = ("reg_upper_limit", "reg_upper_limit_pick")
POSITIVE = ("reg_granularity_prune", "reg_granularity_pick", "mag_ratio_limit", "lr_prune")


@dataclass(frozen=True)
class Settings:
    """Settings of the pruners, by the names of the original program's flags; see ``PrunerOptions``."""

    seed: int = 0
    pick_pruned: str = "min"
    penalize: str | None = "group"
    stage_pr: str = ""
    block_loss_grad: bool = False
    update_reg_interval: int = 5
    stabilize_reg_interval: int = 40_000
    reg_upper_limit: Decimal = Decimal("1.0")
    reg_upper_limit_pick: Decimal = Decimal("0.01")
    reg_granularity_prune: Decimal = Decimal("1e-4")
    reg_granularity_pick: Decimal = Decimal("1e-5")
    reg_granularity_recover: Decimal = Decimal("-1e-4")
    mag_ratio_limit: float = 1000.0
    fix_reg_interval: int | None = None
    prune_steps: int | None = None
    lr_prune: float = 0.001

    def __post_init__(self):
        if self.penalize not in (None, *PENALIZED):
            raise ValueError(f"penalize '{self.penalize}' is not one of {', '.join(PENALIZED)}")
        if self.pick_pruned not in groups.PICKS:
            raise ValueError(f"pick_pruned '{self.pick_pruned}' is not one of {', '.join(groups.PICKS)}")
        if not isinstance(self.block_loss_grad, bool):
            raise ValueError(f"block_loss_grad {self.block_loss_grad!r} is not True or False")
        for name, value in vars(self).items():
            if value is None:
                continue
            shown = f"{'steps' if name == 'prune_steps' else name} {value}"
            if name in WHOLE and not float(value).is_integer():
                raise ValueError(f"{shown} is not a whole number")
            if name in (*WHOLE, *NOT_NEGATIVE) and not value >= WHOLE.get(name, 0):
                raise ValueError(f"{shown} is less than {WHOLE.get(name, 0)}")
            if name in POSITIVE and not value > 0:
                raise ValueError(f"{shown} is not above 0")
            if name in WHOLE:
                object.__setattr__(self, name, int(value))  # 3e3, say: the schedule counts in whole numbers

    @classmethod
    def of(cls, method: type[Pruner], steps: int | None, given: Mapping[str, Any]) -> "Settings":
        """Make the settings of a method; with `steps` the schedule fits into so many optimizer steps.

        Raises:
            TypeError: the method has no such setting.
            ValueError: too few steps, or a setting out of its range.
        """
        known = {f.name: f for f in fields(cls) if f.name not in (*GIVEN_OTHERWISE, *method.ignores)}
        if not method.has_prune_phase:
            known = {name: known[name] for name in OF_SELECTION}
        for name in given:
            if name not in known:
                raise TypeError(f"{method.__name__} has no setting '{name}'; its settings are {', '.join(known)}")
        exact: dict[str, Any] = {name: _exact(name, value, known[name].default) for name, value in given.items()}
        settings = cls(**exact | {"prune_steps": _exact("steps", steps, 0)})
        if steps is None:
            return settings
        chosen = short_schedule(settings, {*given, "lr_prune"}, method.picks_later)
        return replace(settings, **chosen)


def _exact(name: str, value: Any, default: Any) -> Any:
    """Return `value` as exactly as its setting wants it: λ grows in decimals."""
    if not isinstance(default, int | float | Decimal) or isinstance(default, bool) or value is None:
        return value
    try:
        number = Decimal(str(value))
    except ArithmeticError:
        number = Decimal("nan")
    if number.is_nan() or (number.is_infinite() and isinstance(default, Decimal)):
        raise ValueError(f"{name} {value} is not a finite number")
    return number if isinstance(default, Decimal) else value
