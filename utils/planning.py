"""What a run would do, before it does anything: the plan, its costs, and what speaks against it."""

from dataclasses import dataclass
from typing import Any

import torch

from data import DataSpec
from model import build_model
from model.layers import layers_of
from pruner import Plan, Schedule, keep_all, make_plan, schedule_of
from utils.checkpoint import find_one
from utils.cost import Cost, cost_after, cost_of
from utils.options import Options
from utils.tables import plan_values


@dataclass(frozen=True)
class Planned:
    """Attributes:
    before, after: costs of the network and of what the plan leaves.
    values: the plan as plain values, for the table, ``--plan=json`` and the report.
    """

    plan: Plan
    schedule: Schedule | None
    before: Cost
    after: Cost
    values: dict[str, Any]


def plan_run(options: Options, spec: DataSpec) -> Planned:
    """Plan on a network without weights, in no time and memory.

    Raises:
        ValueError: the flags do not fit the network, or the plan misses ``--expect_speedup``.
    """
    with torch.device("meta"):
        model = build_model(options.arch, spec.classes, spec.channels, spec.size)
    layers = layers_of(model)
    if options.method == "none":
        plan = keep_all(layers, options.wg)
    elif options.stage_pr:
        plan = make_plan(layers, options.stage_pr, options.skip_layers, options.wg)
    else:
        raise ValueError(f"--method {options.method} needs --stage_pr, such as [0,0.5,0.5,0.5,0] or [1-15:0.7]")
    before = cost_of(model, spec.channels, spec.size)
    after = cost_after(model, plan, spec.channels, spec.size)
    schedule = schedule_of(options)
    values = plan_values(options, spec, plan, before, after, schedule)
    _check_speedup(options.expect_speedup, values["speedup"], plan)
    return Planned(plan, schedule, before, after, values)


def _check_speedup(expected: float | None, planned: float, plan: Plan) -> None:
    if expected is None:
        return
    if plan.kind == "weight":
        raise ValueError("--expect_speedup does not go with --wg weight: masks leave the FLOPs as they are")
    if abs(planned / expected - 1) > 0.01:
        raise ValueError(f"--expect_speedup {expected:g}: this plan's speedup is {planned:.2f}x")


def refuse_untrained(options: Options, plan: Plan) -> None:
    """A network that nobody trained has nothing worth keeping.

    Raises:
        ValueError: something would be removed from freshly initialised weights, and nobody asked for that.
    """
    if plan.pruned and not options.base_model_path and not options.allow_untrained:
        raise ValueError(
            "nobody has trained this network: give --base_model_path FILE, "
            "or --allow_untrained to prune it as it is initialised"
        )


def plan_notes(options: Options, plan: Plan) -> list[str]:
    """What a plan forgives and a run would not."""
    try:
        refuse_untrained(options, plan)
        if options.base_model_path:
            find_one(options.base_model_path)
    except ValueError as error:
        return [f"a run would stop here: {error}"]
    return []
