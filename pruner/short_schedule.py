"""Constants of a prune phase of exactly N optimizer steps. Pure functions."""

from collections.abc import Callable, Collection
from decimal import ROUND_FLOOR, Decimal
from typing import Any

from .options import PrunerOptions
from .schedule import Schedule, updates_to_pass, updates_to_reach

MOST_UPDATES = 10_000  # of λ, as many as at the defaults: beyond them K_u grows
SHORT, SHORT_LR = 20_000, 0.01  # at 0.001 a cut after 626 steps costs 24 points (RESULTS.md, "In plain proportion")


def short_schedule(options: PrunerOptions, given: Collection[str], picks_later: bool) -> dict[str, Any]:
    """Choose the constants that make the prune phase ``options.prune_steps`` steps, by the names of their flags.

    λ grows for 64 % of the steps and is then frozen; GReg-2 selects at the end of the first eighth of the
    growth. K_u is 1 up to 10,000 steps of growth, and beyond that as small as 10,000 updates allow. δ and δ' are the
    decimals with the fewest digits that make so many updates. What is given stays, and the others make up for it:

    * with K_u or τ: δ follows, K_s takes the steps that K_u leaves over;
    * with δ: K_u is what brings growth nearest to 64 % from below, K_s the rest;
    * with K_s: growth takes N − K_s steps, K_u divides them;
    * with δ': the pick falls where it must, δ brings λ to τ in what is left of the 64 %;
    * with so many that N cannot be kept (K_u and K_s, say), the prune phase is the longest they make below N.

    Args:
        options: has the values of the flags, given or default.
        given: names of the flags that were given.
        picks_later: the method picks at τ' (GReg-2).

    Raises:
        ValueError: N is too small; names the smallest that is possible.
    """
    assert options.prune_steps is not None
    n_steps, fixed_stabilize = options.prune_steps, "stabilize_reg_interval" in given
    growing = n_steps - options.stabilize_reg_interval if fixed_stabilize else (64 * n_steps + 50) // 100
    every, picking, pushing = _updates(options, given, picks_later, max(growing, 1))
    grow_pick, grow = options.reg_granularity_pick, options.reg_granularity_prune
    if picks_later and "reg_granularity_pick" not in given:
        grow_pick = _growth(options.reg_upper_limit_pick, picking, grow_pick, updates_to_reach)
    if "reg_granularity_prune" not in given:
        grow = _growth(options.reg_upper_limit - picking * grow_pick, pushing, grow, updates_to_pass)
    growth = Schedule(
        update_every_steps=every,
        stabilize_steps=0,
        grow=grow,
        grow_pick=grow_pick,
        limit=options.reg_upper_limit,
        limit_pick=options.reg_upper_limit_pick,
        keep=options.reg_granularity_recover,
        gap_limit=options.mag_ratio_limit,
        picks_later=picks_later,
    )
    grown = growth.stabilize_from + 1
    stabilize = options.stabilize_reg_interval if fixed_stabilize else max(n_steps - grown, 0)
    if grown + stabilize > n_steps:
        smallest = grown + stabilize
        raise ValueError(f"{n_steps} is too few: with the other flags as they are, {smallest} is the smallest possible")
    chosen = {
        "update_reg_interval": every,
        "stabilize_reg_interval": stabilize,
        "reg_granularity_prune": grow,
        "reg_granularity_pick": grow_pick,
        "lr_prune": SHORT_LR if n_steps < SHORT else options.lr_prune,
    }
    return {name: value for name, value in chosen.items() if name not in given}


def _updates(options: PrunerOptions, given: Collection[str], picks_later: bool, growing: int) -> tuple[int, int, int]:
    """K_u, the updates up to GReg-2's pick (0: there is none) and those after it, for `growing` steps of growth."""
    picking = 0
    if picks_later and "reg_granularity_pick" in given:
        picking = updates_to_reach(options.reg_upper_limit_pick, options.reg_granularity_pick)
    if "reg_granularity_prune" in given:
        start = options.reg_upper_limit_pick if picks_later else Decimal(0)
        pushing = max(updates_to_pass(options.reg_upper_limit - start, options.reg_granularity_prune), 1)
        picking = picking or (_eighth(options, pushing * 8 // 7) if picks_later else 0)
        every = max((growing - 1) // max(picking + pushing - 1, 1), 1)
    else:
        every = _interval(growing, picking, dividing="stabilize_reg_interval" in given)
    if "update_reg_interval" in given:
        every = options.update_reg_interval
    if "reg_granularity_prune" not in given:
        updates = (growing - 1) // every + 1
        picking = picking or (_eighth(options, updates) if picks_later else 0)
        pushing = max(updates - picking, 1)
    return every, picking, pushing


def _eighth(options: PrunerOptions, updates: int) -> int:
    """Updates up to GReg-2's pick: an eighth of all; all where the pick ends growth, one where any λ picks."""
    if options.reg_upper_limit_pick > options.reg_upper_limit:
        return updates
    return max(updates // 8, 1) if options.reg_upper_limit_pick else 1


def _interval(growing: int, picking: int, dividing: bool) -> int:
    """K_u: at most 10,000 updates in `growing` steps, but time to pick; `dividing`: evenly, or else 1."""
    most = max((growing - 1) // max(picking, 1), 1)
    least = min(-(-growing // MOST_UPDATES), most)
    if not dividing:
        return least
    return next((k for k in range(least, min(10 * least, most) + 1) if (growing - 1) % k == 0), 1)


def _growth(total: Decimal, updates: int, default: Decimal, count: Callable[[Decimal, Decimal], int]) -> Decimal:
    """The decimal with the fewest digits that takes `updates` updates to `total`; `default` where there is no way."""
    if total <= 0:
        return default
    exact = total / updates
    for digits in range(1, 28):  # the interval of what fits is 1/updates of it wide: far fewer digits do
        unit = Decimal(1).scaleb(exact.adjusted() - digits + 1)
        below = exact.quantize(unit, ROUND_FLOOR)
        for step in (below, below + unit):
            if step > 0 and count(total, step) == updates:
                return Decimal(f"{step:f}")
    raise ValueError(f"{updates} updates to {total} are too many")
