"""λ as an exact function of the update count; the steps of selection, stabilization and cut. Pure functions.

A penalty is a count of updates times the typed decimal, never a running float sum: adding 1e-4 ten thousand
times in float32 ends one update early.
"""

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def updates_to_reach(total: Decimal, step: Decimal) -> int:
    """The first n with n·`step` ≥ `total`, at least 1."""
    return max(int((total / step).to_integral_value(ROUND_CEILING)), 1)


def updates_to_pass(total: Decimal, step: Decimal) -> int:
    """The first n with n·`step` > `total`."""
    return int((total / step).to_integral_value(ROUND_FLOOR)) + 1


@dataclass(frozen=True)
class Schedule:
    """The constants of the prune phase, in the symbols of the paper.

    Attributes:
        update_every_steps: K_u, steps between two updates of λ.
        stabilize_steps: K_s, steps with λ frozen before the cut.
        grow: δ, growth of λ per update on the pruned set.
        grow_pick: δ', growth per update on every group while GReg-2 has not picked.
        limit: τ, past which a layer has finished.
        limit_pick: τ', at which GReg-2 picks.
        keep: λ of the kept groups after the pick (a constant).
        gap_limit: a gap at which a layer finishes early.
        picks_later: GReg-2: the set is picked at τ'. GReg-1: it is known from the start.
        empty: no layer loses anything, so that all have finished at the first update.
    """

    update_every_steps: int
    stabilize_steps: int
    grow: Decimal
    grow_pick: Decimal
    limit: Decimal
    limit_pick: Decimal
    keep: Decimal
    gap_limit: float
    picks_later: bool
    empty: bool = False

    @property
    def updates_to_pick(self) -> int:
        """The first n with n·δ' ≥ τ' (at least one update is made); 0 for GReg-1.

        Source: paper, section 3.3 (τ' ends the picking).
        """
        if not self.picks_later:
            return 0
        return updates_to_reach(self.limit_pick, self.grow_pick)

    @property
    def updates_to_finish(self) -> int:
        """The first n at which λ of the pruned set exceeds τ.

        Source: paper, sections 3.2 and 3.3; strictly more than τ follows the original.
        """
        if self.empty:
            return 1
        rest = self.limit - self.updates_to_pick * self.grow_pick
        return max(self.updates_to_pick + updates_to_pass(rest, self.grow), self.updates_to_pick, 1)

    def penalty(self, updates: int) -> Decimal:
        """λ of the pruned set after so many updates; of every group while `updates` ≤ `updates_to_pick`."""
        picking = min(updates, self.updates_to_pick)
        return picking * self.grow_pick + (updates - picking) * self.grow

    def penalty_kept(self, updates: int) -> Decimal:
        """λ of the kept groups after so many updates."""
        if updates <= self.updates_to_pick:
            return self.penalty(updates)
        return self.keep if self.picks_later else Decimal(0)

    @property
    def picked_at(self) -> int | None:
        """The step at whose update GReg-2 selects."""
        picks = self.picks_later and not self.empty
        return (self.updates_to_pick - 1) * self.update_every_steps if picks else None

    @property
    def stabilize_from(self) -> int:
        """The step T at whose update the last layer finishes, if no gap ends it sooner."""
        return (self.updates_to_finish - 1) * self.update_every_steps

    @property
    def penalty_sum(self) -> float:
        """λ of the pruned set summed over the steps of the prune phase, if no gap ends it sooner."""
        if self.empty:
            return 0.0
        first, last = self.updates_to_pick, self.updates_to_finish
        at_last = float(self.penalty(last))
        mean = (float(self.penalty(first + 1)) + at_last) / 2 if last > first else 0.0  # λ grows evenly
        return self.update_every_steps * (last - first) * mean + self.stabilize_steps * at_last

    @property
    def cut_after_step(self) -> int:
        """The step after whose update of the weights the cut is made: T + K_s."""
        return self.stabilize_from + self.stabilize_steps
