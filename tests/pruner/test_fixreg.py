"""FixReg: the same λ at every step, for as many steps as GReg-1's growth takes."""

import json

import pytest
import torch
from helpers import SHORT_GREG, run_program
from torch import nn

from model import build_model
from pruner import PRUNERS, PruningContext, make_plan
from pruner.layers import layers_of
from utils.config.cli import parse

WORDS = """--dataset digits --arch lenet5_mini --seed 0 --stage_pr 1-2:0.3 --update_reg_interval 4
    --reg_granularity_prune 0.1 --reg_upper_limit 0.5 --stabilize_reg_interval 6"""
GROWTH = 5 * 4 + 1  # λ passes 0.5 at the sixth update: steps 0 to 20


def built(*words, method="FixReg", model=None):
    options, _ = parse([*WORDS.split(), "--method", method, *words])
    torch.manual_seed(0)
    model = model or build_model("lenet5_mini", 10, 1, 32)
    plan = make_plan(layers_of(model), options.stage_pr, "", options.wg)
    return model, PRUNERS[method].build(
        options,
        PruningContext(model, plan, PRUNERS[method].make_schedule(options, plan)),
    )


def phases(pruner):
    """The phase after each step until the cut."""
    found = []
    while not pruner.finished:
        pruner.before_step(len(found))
        found.append(pruner.status)
    return found


@pytest.mark.parametrize("kind", ["filter", "channel", "weight"])
def test_the_penalty_is_tau_on_the_selection_from_the_first_step_to_the_cut(kind):
    model, pruner = built("--wg", kind)
    _, l1 = built("--wg", kind, method="L1", model=model)
    step = 0
    while not pruner.finished:
        pruner.before_step(step)
        step += 1
        assert pruner.report() == {"lambda": 0.5}
        for layer in pruner.layers:
            assert layer.kept.equal(l1.kept()[layer.name])
            assert layer.penalty.equal(torch.where(layer.kept, 0.0, 0.5))
    assert step == GROWTH + 6


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        ([], GROWTH),
        (["--update_reg_interval", "1"], 6),
        (["--reg_upper_limit", "0"], 1),
        (["--fix_reg_interval", "1"], 1),
        (["--fix_reg_interval", "9"], 9),
        (["--fix_reg_interval", "9", "--stabilize_reg_interval", "0"], 9),
    ],
)
def test_it_makes_the_given_number_of_steps_or_those_of_greg_1(words, steps, tmp_path):
    _, pruner = built(*words)
    found = phases(pruner)
    more = 0 if "0" in words and "9" in words else 6
    assert found == ["growing"] * (steps - 1) + ["stabilizing"] * (more + 1)
    plan = json.loads(run_program(tmp_path, *WORDS.split(), "--method", "FixReg", *words, "--plan=json").out)
    assert (plan["picked_at"], plan["stabilise_from"], plan["cut_after_step"]) == (None, steps - 1, steps - 1 + more)
    assert plan["iterations"]["prune"] == len(found)
    if "--fix_reg_interval" not in words:
        assert len(found) == len(phases(built(*words, method="GReg-1")[1]))


def test_the_plan_mentions_neither_growth_nor_gaps(tmp_path):
    shown = {
        method: run_program(tmp_path, *WORDS.split(), "--method", method, "--plan", *more).out
        for method, *more in (("FixReg",), ("GReg-1",), ("GReg-2", "--wg", "weight"))
    }
    assert f"λ = τ to step {GROWTH - 1}, cut after step {GROWTH + 5}\n" in shown["FixReg"]
    assert f"λ grows to step {GROWTH - 1}, cut after step {GROWTH + 5} (sooner if gaps widen)\n" in shown["GReg-1"]
    assert "sooner" not in shown["GReg-2"]  # the gap of single weights ends nothing


def test_it_is_not_ended_by_gaps_and_records_none():
    _, pruner = built("--mag_ratio_limit", "1e-6")
    with torch.no_grad():
        for layer in pruner.layers:
            layer.weight[~layer.kept] = 0
    assert len(phases(pruner)) == GROWTH + 6
    assert pruner.gaps() == {}


@pytest.mark.parametrize("blocked", [False, True])
def test_tau_times_the_selected_weights_is_added_to_the_gradient(blocked):
    model, pruner = built(*(["--block_loss_grad"] if blocked else []))
    pruner.before_step(0)
    model(torch.randn(2, 1, 32, 32)).sum().backward()
    before = {layer.name: layer.weight.grad.clone() for layer in pruner.layers}
    pruner.after_backward()
    for layer in pruner.layers:
        of_loss = torch.zeros_like(layer.weight) if blocked else before[layer.name]
        pruned = ~layer.kept.view(-1, *[1] * (layer.weight.ndim - 1))
        torch.testing.assert_close(layer.weight.grad, of_loss + 0.5 * pruned * layer.weight.detach())


@pytest.mark.parametrize("at", [0, 1, GROWTH - 1, GROWTH, GROWTH + 3])
def test_it_is_restored_at_any_step(at):
    _, whole = built()
    for step in range(at):
        whole.before_step(step)
    model = build_model("lenet5_mini", 10, 1, 32)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.neg_().add_(1)  # other picks
    _, other = built(model=model)
    assert other.fingerprint() != whole.fingerprint()
    other.load_state_dict(whole.state_dict())
    step = at
    while not whole.finished:
        for pruner in (whole, other):
            pruner.before_step(step)
        step += 1
        assert other.fingerprint() == whole.fingerprint()
        assert other.report() == whole.report()
        assert (other.status, other.finished) == (whole.status, whole.finished)
    assert step == GROWTH + 6


def test_without_anything_to_prune_it_ends_as_greg_1_does(tmp_path):
    words = ["--stage_pr", "0-4:0", "--fix_reg_interval", "9"]
    assert phases(built(*words)[1]) == phases(built(*words[:2], method="GReg-1")[1]) == ["stabilizing"] * 7


def test_a_run_reports_its_steps_and_takes_the_flags_of_greg_1(tmp_path):
    words = (*WORDS.split(), "--method", "FixReg", "--allow_untrained", "--epochs", "0", *SHORT_GREG)
    ran = run_program(tmp_path, *words, "--batch_size_prune", "256", "--fix_reg_interval", "4")
    assert ran.code == 0, ran.err
    assert ran.report["iterations"] == {"update": 4, "stabilise": 2}
    assert {name: int((~kept).sum()) for name, kept in ran.load("pruned_model")["kept"].items()} == {
        "features.3": 3, "features.6": 3,
    }  # fmt: skip
