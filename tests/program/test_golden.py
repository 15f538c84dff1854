"""Costs and histories of the original program, to the last digit."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
import torch
from torch import nn

import main
from pruner import PruningContext, Settings, groups
from pruner.greg import GReg1, GReg2
from pruner.layers import Layer
from pruner.plan import Plan, PlannedLayer
from pruner.schedule import Schedule

HERE = Path(__file__).parents[1]
SPEC = HERE.parent.parent / "shared" / "spec"
COSTS = json.loads((HERE / "golden" / "costs.json").read_text())
TRACES = json.loads((HERE / "golden" / "traces.json").read_text())


def name_of(row: dict) -> str:
    return " ".join(str(row[key]) for key in ("arch", "method", "wg", "stage_pr") if key in row)


def plan_of(capsys, row: dict, *more: str) -> dict:
    argv = [f"--{key}={row[key]}" for key in ("arch", "dataset", "stage_pr", "wg")]
    assert main.main([*argv, "--plan=json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("row", COSTS, ids=name_of)
def test_the_plan_of_each_command_of_the_seed_costs_what_the_original_counted(row, capsys):
    found = plan_of(capsys, row, "--method=L1", f"--skip_layers=[{','.join(row.get('skip_layers', []))}]")
    assert (found["params0"], found["flops0"]) == (row["params0"], row["flops0"])
    if row["wg"] == "weight":
        assert (found["prunable_weights"], found["pruned_weights"]) == (row["prunable_weights"], row["pruned_weights"])
        assert found["sparsity"] == row["pruned_weights"] / row["prunable_weights"]
        assert round(found["sparsity"], 4) == row["sparsity_of_conv_and_linear_weights"]
        assert (found["params1"], found["flops1"], found["speedup"]) == (row["params0"], row["flops0"], 1.0)
    else:
        assert (found["params1"], found["flops1"]) == (row["params1"], row["flops1"])
        assert found["widths"] == row["widths"]
        assert round(found["speedup"], 2) == row["speedup"]
        assert round(100 * (1 - 1 / found["compression"]), 2) == row["param_reduction_pct"]
    assert found["picked_at"] is found["stabilise_from"] is found["cut_after_step"] is None


def only(values: list[int]) -> int | None:
    assert len(values) <= 1
    return values[0] if values else None


def steps_of(row: dict) -> dict:
    return {key: only(row[key]) for key in ("picked_at", "stabilise_from", "cut_after_step")}


@pytest.mark.parametrize("row", TRACES, ids=name_of)
def test_the_plan_of_each_traced_run_tells_the_steps_of_the_original(row, capsys):
    flags = {
        "method": "method", "update_reg_interval": "K_u", "stabilize_reg_interval": "K_s",
        "reg_granularity_prune": "delta", "reg_granularity_pick": "delta_pick",
        "reg_upper_limit": "tau", "reg_upper_limit_pick": "tau_pick",
    }  # fmt: skip
    found = plan_of(capsys, row, *(f"--{flag}={row[key]}" for flag, key in flags.items()))
    assert {key: found[key] for key in steps_of(row)} == steps_of(row)
    assert found["iterations"]["prune"] == only(row["cut_after_step"]) + 1


def schedule_of(row: dict) -> Schedule:
    return Schedule(
        update_every_steps=row["K_u"],
        stabilize_steps=row["K_s"],
        grow=Decimal(str(row["delta"])),
        grow_pick=Decimal(str(row["delta_pick"])),
        limit=Decimal(str(row["tau"])),
        limit_pick=Decimal(str(row["tau_pick"])),
        keep=Decimal("-1e-4"),
        gap_limit=1000.0,
        picks_later=row["method"] == "GReg-2",
    )


@pytest.mark.parametrize("row", TRACES, ids=name_of)
def test_the_schedule_gives_the_steps_and_penalties_of_the_original(row):
    schedule = schedule_of(row)
    assert {key: getattr(schedule, key.replace("stabilise", "stabilize")) for key in steps_of(row)} == steps_of(row)
    for step, penalty in row["lambda_max_at"].items():
        updates = min(int(step), schedule.stabilize_from) // row["K_u"] + 1
        assert schedule.penalty(updates) == Decimal(str(penalty))


@pytest.mark.parametrize("row", TRACES, ids=name_of)
def test_a_pruner_that_is_really_stepped_goes_through_the_history_of_the_original(row):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 5, 3))
    planned = []
    for index, conv in enumerate(model):
        shape = tuple(conv.weight.shape)
        n_groups = groups.count(shape, row["wg"])
        layer = Layer(str(index), str(index), index, shape, frozenset(groups.KINDS))
        planned.append(PlannedLayer(layer, n_groups, n_groups // 2 * index))
    picks = {"1": groups.keep(groups.scores(model[1].weight, row["wg"]), planned[1].pruned)}
    method = {"GReg-1": GReg1, "GReg-2": GReg2}[row["method"]]
    context = PruningContext(model, Plan(row["wg"], tuple(planned)), schedule_of(row), picks)
    pruner = method.build(Settings(penalize="filter"), context)

    penalties, picked_at, stabilise_from, step = {}, None, None, -1
    while not pruner.finished:
        step += 1
        before = pruner.kept().get("1")
        pruner.before_step(step)
        if before is None and pruner.kept().get("1") is not None:
            picked_at = step
        if stabilise_from is None and pruner.status == "stabilizing":
            stabilise_from = step
        penalties[str(step)] = pruner.report()["lambda"]

    assert steps_of(row) == {"picked_at": picked_at, "stabilise_from": stabilise_from, "cut_after_step": step}
    for at, penalty in row["lambda_max_at"].items():
        assert penalties[at] == pytest.approx(penalty, rel=1e-6)


@pytest.mark.skipif(not SPEC.is_dir(), reason="the shared specification is not beside this checkout")
@pytest.mark.parametrize("name", ["costs.json", "traces.json"])
def test_the_committed_numbers_are_those_of_the_specification(name):
    assert (HERE / "golden" / name).read_bytes() == (SPEC / f"golden-{name}").read_bytes()
