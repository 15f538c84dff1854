"""λ by hand: when it grows, on which groups, when a layer picks and when it has had enough."""

import copy
import io
import math
from decimal import Decimal

import pytest
import torch
from torch import Tensor, nn

from pruner import PruningContext, Settings, groups
from pruner.greg import GReg1, GReg2
from pruner.layers import Layer
from pruner.penalty import RegularizedLayer
from pruner.plan import Plan, PlannedLayer
from pruner.regularized import GReg
from pruner.schedule import Schedule

METHODS = pytest.mark.parametrize("method", [GReg1, GReg2])
KINDS = pytest.mark.parametrize("kind", groups.KINDS)


def schedule_for(method: type[GReg], **changed) -> Schedule:
    """The defaults of the program, with `changed` in place of some; decimals as text."""
    defaults = {
        "update_every_steps": 5, "stabilize_steps": 40000, "grow": "1e-4", "grow_pick": "1e-5", "limit": "1.0",
        "limit_pick": "0.01", "keep": "-1e-4", "gap_limit": 1000.0, "picks_later": method is GReg2,
    }  # fmt: skip
    given = defaults | changed
    return Schedule(**{key: Decimal(value) if isinstance(value, str) else value for key, value in given.items()})


def plan_for(model: nn.Module, kind: str, pruned: dict[str, int]) -> Plan:
    layers = []
    for index, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            shape = tuple(module.weight.shape)
            layer = Layer(name, str(index), index, shape, frozenset(groups.KINDS))
            layers.append(PlannedLayer(layer, groups.count(shape, kind), pruned.get(name, 0)))
    return Plan(kind, tuple(layers))


def pruner_for(method, model, pruned, kind="filter", block_loss_grad=False, **changed) -> GReg:
    plan = plan_for(model, kind, pruned)
    picks = {name: groups.keep(groups.scores(model.get_submodule(name).weight, kind), n) for name, n in pruned.items()}
    context = PruningContext(model, plan, schedule_for(method, **changed), picks)
    return method.build(Settings(penalize="filter", block_loss_grad=block_loss_grad), context)


def linear(*rows: float) -> nn.Sequential:
    """A layer named ``0`` whose filters are single weights."""
    layer = nn.Linear(1, len(rows), bias=False)
    layer.weight.data = torch.tensor(rows)[:, None]
    return nn.Sequential(layer)


def two_layers(first: tuple[float, ...], second: tuple[float, ...]) -> nn.Sequential:
    return nn.Sequential(*linear(*first), *linear(*second))


def penalties(pruner: GReg, layer: int = 0) -> list[float]:
    return pruner.layers[layer].penalty.tolist()


def run_out(pruner: GReg, made: int = 0) -> dict[str, int | None]:
    """Step `pruner`, which has `made` steps behind it, until the cut is due."""
    step, stabilize_from = made - 1, None
    while not pruner.finished:
        step += 1
        pruner.before_step(step)
        if stabilize_from is None and pruner.status == "stabilizing":
            stabilize_from = step
    return {"stabilize_from": stabilize_from, "cut_after_step": step}


# --- counting


def test_by_default_greg_1_makes_10001_updates():
    schedule = schedule_for(GReg1)
    assert (schedule.updates_to_pick, schedule.updates_to_finish) == (0, 10_001)
    assert (schedule.picked_at, schedule.stabilize_from, schedule.cut_after_step) == (None, 50_000, 90_000)
    assert schedule.penalty(10_000) == 1
    assert schedule.penalty(10_001) == Decimal("1.0001")


def test_by_default_greg_2_selects_at_the_1000th_update_and_needs_9901_more():
    schedule = schedule_for(GReg2)
    assert (schedule.updates_to_pick, schedule.updates_to_finish) == (1000, 10_901)
    assert (schedule.picked_at, schedule.stabilize_from, schedule.cut_after_step) == (4995, 54_500, 94_500)
    assert schedule.penalty(999) < Decimal("0.01") == schedule.penalty(1000)


def test_the_cifar_schedule_is_100000_iterations_and_the_stabilization():
    schedule = schedule_for(GReg1, update_every_steps=10, stabilize_steps=10_000)
    assert (schedule.stabilize_from, schedule.cut_after_step) == (100_000, 110_000)


def test_at_iteration_48200_of_the_published_log_the_penalty_is_exact():
    assert schedule_for(GReg2).penalty(48_200 // 5 + 1) == Decimal("0.8741")


def test_a_pruner_stepped_to_iteration_48200_has_that_penalty():
    pruner = pruner_for(GReg2, linear(1.0, 2.0), {"0": 1})
    for step in range(48_201):
        pruner.before_step(step)
    assert pruner.report()["lambda"] == pytest.approx(0.8741, rel=1e-7)
    assert penalties(pruner) == pytest.approx([0.8741, -1e-4], rel=1e-6)


@pytest.mark.parametrize(
    ("method", "changed", "updates"),
    [
        (GReg1, {"grow": "0.1", "limit": "0.3"}, 4),  # 0.3 is not more than 0.3, though in floats 0.1 + 0.1 + 0.1 is
        (GReg1, {"grow": "0.1", "limit": "0.29"}, 3),
        (GReg1, {"grow": "0.1", "limit": "0.31"}, 4),
        (GReg1, {"grow": "0.5", "limit": "0"}, 1),
        (GReg1, {"grow": "2", "limit": "1"}, 1),
        (GReg2, {"grow": "0.1", "limit": "0.3", "grow_pick": "0.05", "limit_pick": "0.1"}, 2 + 3),
        (GReg2, {"grow": "0.1", "limit": "0.3", "grow_pick": "0.04", "limit_pick": "0.1"}, 3 + 2),
        (GReg2, {"grow": "0.1", "limit": "0.05", "grow_pick": "0.05", "limit_pick": "0.1"}, 2),  # τ below τ'
        (GReg2, {"grow": "0.1", "limit": "0.1", "grow_pick": "0.05", "limit_pick": "0.1"}, 3),
        (GReg2, {"grow": "0.1", "limit": "0", "grow_pick": "0.05", "limit_pick": "0"}, 1),
    ],
)
@pytest.mark.parametrize("every", [1, 3, 7])
@pytest.mark.parametrize("stabilize", [0, 4])
def test_updates_and_the_step_of_the_cut_by_hand(method, changed, updates, every, stabilize):
    pruner = pruner_for(
        method, linear(1.0, 2.0), {"0": 1}, **changed, update_every_steps=every, stabilize_steps=stabilize
    )
    assert pruner.schedule.updates_to_finish == updates
    last_update = (updates - 1) * every
    expected = {"stabilize_from": last_update, "cut_after_step": last_update + stabilize}
    assert {key: getattr(pruner.schedule, key) for key in expected} == expected
    assert run_out(pruner) == expected


@METHODS
def test_nothing_to_prune_is_finished_at_the_first_update(method):
    assert run_out(pruner_for(method, linear(1.0, 2.0), {}, stabilize_steps=3))["cut_after_step"] == 3


@METHODS
def test_penalties_are_constant_during_stabilization(method):
    pruner = pruner_for(
        method, linear(1.0, 2.0), {"0": 1}, update_every_steps=1, stabilize_steps=20,
        grow="0.1", limit="0.35", grow_pick="0.1", limit_pick="0.1",
    )  # fmt: skip
    seen = []
    for step in range(20):
        pruner.before_step(step)
        seen.append(penalties(pruner)[0])
    assert seen == pytest.approx([0.1, 0.2, 0.3] + [0.4] * 17)


# --- which groups


def test_greg_1_selects_before_the_first_step_and_penalizes_only_its_selection():
    model = linear(3.0, 1.0, -2.0, 0.5)
    pruner = pruner_for(GReg1, model, {"0": 2}, update_every_steps=2, grow="0.25")
    assert pruner.kept()["0"].tolist() == [True, False, True, False]
    model[0].weight.data = torch.tensor([[0.1], [9.0], [0.1], [9.0]])
    seen = []
    for step in range(4):
        pruner.before_step(step)
        seen.append(penalties(pruner))
    assert seen == [[0, 0.25, 0, 0.25]] * 2 + [[0, 0.5, 0, 0.5]] * 2
    assert pruner.kept()["0"].tolist() == [True, False, True, False]


def test_greg_1_accepts_any_selection():
    model = linear(3.0, 1.0)
    picks = {"0": torch.tensor([False, True])}
    context = PruningContext(model, plan_for(model, "filter", {"0": 1}), schedule_for(GReg1, grow="0.25"), picks)
    pruner = GReg1.build(Settings(penalize="filter"), context)
    pruner.before_step(0)
    assert penalties(pruner) == [0.25, 0]


def test_greg_2_penalizes_every_group_until_it_selects_the_lowest_of_the_current_weights():
    model = linear(3.0, 1.0, -2.0, 0.5)
    pruner = pruner_for(
        GReg2, model, {"0": 2}, update_every_steps=1, grow_pick="0.25", limit_pick="0.5", grow="1", keep="-0.125",
        limit="9",
    )  # fmt: skip
    pruner.before_step(0)
    assert penalties(pruner) == [0.25] * 4
    assert pruner.kept().get("0") is None
    model[0].weight.data = torch.tensor([[0.1], [9.0], [-0.1], [9.0]])
    pruner.before_step(1)
    assert penalties(pruner) == [0.5] * 4
    assert pruner.kept()["0"].tolist() == [False, True, False, True]
    model[0].weight.data = torch.tensor([[5.0], [0.1], [5.0], [0.1]])  # too late
    for step, grown in ((2, 1.5), (3, 2.5), (4, 3.5)):
        pruner.before_step(step)
        assert penalties(pruner) == [grown, -0.125, grown, -0.125]


@KINDS
@METHODS
def test_exactly_as_many_groups_are_kept_as_planned_at_the_end(method, kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 2), nn.Conv2d(6, 4, 2))
    pruner = pruner_for(
        method, model, {"1": 3}, kind, update_every_steps=1, stabilize_steps=0, grow="0.5", grow_pick="0.01"
    )
    run_out(pruner)
    assert set(pruner.kept()) == {"1"}
    assert (~pruner.kept()["1"]).sum() == 3


# --- the gradient


def test_two_steps_of_sgd_on_a_scalar_weight_by_hand():
    model = linear(2.0, 4.0)
    pruner = pruner_for(GReg1, model, {"0": 1}, update_every_steps=1, grow="0.5", limit="9")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=0.1)
    for step in range(2):
        pruner.before_step(step)
        optimizer.zero_grad()
        (0.3 * model[0].weight.sum()).backward()
        pruner.after_backward()
        optimizer.step()
        pruner.after_step()
    # Pruned: 0.3 + (0.5 + 0.1)·2 = 1.5; then 0.3 + (1.0 + 0.1)·1.985 = 2.4835, and 0.9·1.5 on top.
    # Kept: 0.3 + 0.1·4 = 0.7; then 0.3 + 0.1·3.993 = 0.6993, and 0.9·0.7 on top.
    pruned = 2 - 0.01 * 1.5 - 0.01 * (0.9 * 1.5 + 2.4835)
    kept = 4 - 0.01 * 0.7 - 0.01 * (0.9 * 0.7 + 0.6993)
    assert model[0].weight.flatten().tolist() == pytest.approx([pruned, kept], rel=1e-6)


@KINDS
def test_the_penalty_of_its_group_times_the_weight_is_added_to_the_gradient(kind):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 2))
    pruner = pruner_for(GReg2, model, {"0": 2}, kind, update_every_steps=1, grow_pick="1", limit_pick="1", keep="-3")
    for step in range(2):
        pruner.before_step(step)
    weight = model[0].weight
    weight.grad = torch.ones_like(weight)
    pruner.after_backward()
    values = torch.where(pruner.kept()["0"], -3.0, float(pruner.schedule.penalty(2)))
    torch.testing.assert_close(weight.grad, 1 + groups.spread(values, weight.shape, kind) * weight.detach())
    assert len(values.unique()) == 2


def net_with_everything() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(5, 2)
    )


def gradients(model: nn.Module) -> dict[str, Tensor]:
    images = torch.randn(3, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    model(images).square().sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@KINDS
@METHODS
def test_only_weights_of_pruned_layers_are_penalized(method, kind):
    model = net_with_everything()
    pruner = pruner_for(method, model, {"3": 2}, kind, update_every_steps=1, grow="1", grow_pick="1", limit="99")
    for step in range(3):
        pruner.before_step(step)
    before = gradients(model)
    pruner.after_backward()
    changed = {name for name, parameter in model.named_parameters() if not parameter.grad.equal(before[name])}
    assert changed == {"3.weight"}


def test_with_block_loss_grad_the_penalty_replaces_the_gradient_of_the_weights():
    model = net_with_everything()
    pruner = pruner_for(GReg1, model, {"3": 2}, "filter", True, update_every_steps=1, grow="0.5")
    pruner.before_step(0)
    before = gradients(model)
    pruner.after_backward()
    weight = model[3].weight
    assert weight.grad.equal(pruner.layers[0].penalty.view(-1, 1, 1, 1) * weight)
    assert weight.grad[pruner.kept()["3"]].abs().max() == 0
    assert weight.grad.abs().max() > 0
    assert model[0].weight.grad.abs().max() == 0
    for name in ("0.bias", "1.weight", "1.bias", "3.bias", "5.bias"):
        assert model.get_parameter(name).grad.equal(before[name])


# --- curvature


def quadratic(model: nn.Module, curvatures: list[float], optimum: float) -> Tensor:
    return (0.5 * torch.tensor(curvatures) * (model[0].weight.flatten() - optimum).square()).sum()


def descend(pruner, model, loss, until, lr=0.02) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for step in range(until):
        if pruner.finished:
            return
        pruner.before_step(step)
        optimizer.zero_grad()
        loss().backward()
        pruner.after_backward()
        optimizer.step()
        pruner.after_step()


@pytest.mark.parametrize("flat", [0, 1])
@pytest.mark.parametrize("kind", ["filter", "weight"])
def test_of_two_equal_weights_greg_2_selects_the_flat_one_where_l1_ties(kind, flat):
    model = linear(1.0, 1.0)
    curvatures = [10.0, 10.0]
    curvatures[flat] = 1.0
    scores = groups.scores(model[0].weight, kind)
    assert scores[0] == scores[1]
    pruner = pruner_for(
        GReg2, model, {"0": 1}, kind, update_every_steps=2, stabilize_steps=100,
        grow_pick="0.01", limit_pick="0.5", grow="0.1", limit="50",
    )  # fmt: skip
    descend(pruner, model, lambda: quadratic(model, curvatures, 1.0), until=5000)
    assert pruner.finished
    assert (~pruner.kept()["0"]).nonzero().flatten().tolist() == [flat]
    weight = model[0].weight.flatten()
    assert weight[flat] < 0.05
    assert weight[1 - flat] > 0.99


def test_the_optimum_moves_by_curvature_as_in_the_paper():
    model, curvatures, penalty = linear(2.0, 2.0, 2.0), [8.0, 2.0, 0.5], 0.5
    pruner = pruner_for(GReg2, model, {"0": 1}, update_every_steps=10_000, grow_pick=str(penalty), limit_pick="1")
    descend(pruner, model, lambda: quadratic(model, curvatures, 2.0), until=2000)
    expected = [2 / (1 + penalty / curvature) for curvature in curvatures]
    assert model[0].weight.flatten().tolist() == pytest.approx(expected, rel=1e-4)


# --- the gap


def test_the_first_gap_is_taken_as_it_is_and_later_ones_are_averaged_in():
    layer = RegularizedLayer("0", linear(1.0, 2.0)[0].weight, "filter", 1)
    seen = []
    for gap in (2.0, 12.0, 3.0):
        layer.average_gap(torch.tensor(gap))
        seen.append(layer.gap.item())
    assert seen == pytest.approx([2.0, 3.0, 3.0])


@METHODS
def test_a_pruner_averages_the_gaps_of_its_updates(method):
    model = linear(1.0, 4.0)
    pruner = pruner_for(method, model, {"0": 1}, update_every_steps=2)
    pruner.before_step(0)
    assert pruner.gaps() == {"0": 4.0}
    model[0].weight.data[1] = 14.0
    pruner.before_step(1)
    assert pruner.gaps() == {"0": 4.0}
    pruner.before_step(2)
    assert pruner.gaps() == {"0": pytest.approx(0.9 * 4 + 0.1 * 14)}


def test_before_selection_greg_2s_gap_is_that_of_the_current_selection():
    model = linear(1.0, 4.0)
    pruner = pruner_for(GReg2, model, {"0": 1}, update_every_steps=1)
    pruner.before_step(0)
    model[0].weight.data = torch.tensor([[28.0], [2.0]])
    pruner.before_step(1)
    assert pruner.kept().get("0") is None
    assert pruner.gaps()["0"] == pytest.approx(0.9 * 4 + 0.1 * 14)


QUICK = {"update_every_steps": 1, "stabilize_steps": 2, "gap_limit": 10.0, "grow": "0.01", "grow_pick": "0.01"}


def test_greg_1_ends_early_only_when_the_gaps_of_all_layers_are_wide():
    model = two_layers((1.0, 11.0), (1.0, 4.0))
    pruner = pruner_for(GReg1, model, {"0": 1, "1": 1}, **QUICK)
    for step in range(5):
        pruner.before_step(step)
    assert [layer.finished for layer in pruner.layers] == [False, False]
    assert penalties(pruner, 0) == pytest.approx([0.05, 0])
    model[1].weight.data[1] = 1000.0
    pruner.before_step(5)
    assert pruner.gaps()["1"] > 10
    assert [layer.finished for layer in pruner.layers] == [True, True]
    assert pruner.status == "stabilizing"
    pruner.before_step(6)
    assert not pruner.finished
    pruner.before_step(7)
    assert pruner.finished
    assert penalties(pruner, 0) == pytest.approx([0.06, 0])


@METHODS
def test_a_gap_of_exactly_the_limit_is_wide(method):
    pruner = pruner_for(method, linear(1.0, 10.0), {"0": 1}, **QUICK)
    pruner.before_step(0)
    assert pruner.status == "stabilizing"


def test_greg_2_ends_a_layer_by_its_own_gap():
    model = two_layers((1.0, 4.0), (1.0, 4.0))
    pruner = pruner_for(GReg2, model, {"0": 1, "1": 1}, **QUICK, limit_pick="0.02", limit="0.1", keep="-0.5")
    for step in range(3):
        pruner.before_step(step)
    model[0].weight.data[1] = 1000.0
    pruner.before_step(3)
    assert [layer.finished for layer in pruner.layers] == [True, False]
    for step in range(4, 7):
        pruner.before_step(step)
    assert penalties(pruner, 0) == pytest.approx([0.04, -0.5])
    assert penalties(pruner, 1) == pytest.approx([0.07, -0.5])
    assert pruner.status == "growing"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("dead", [1, 3])
def test_a_layer_with_zero_filters_selects_and_ends_at_its_ceiling(dead, every, late):
    """Its gap is infinite from the start, but gaps end nothing before selection."""
    model = two_layers((0.0,) * dead + (1.0, 2.0), (1.0, 4.0))
    pruner = pruner_for(
        GReg2, model, {"0": dead, "1": 1}, update_every_steps=every, stabilize_steps=every, grow_pick="0.01",
        limit_pick="0.1", grow="0.1", limit="0.5",
    )  # fmt: skip
    pruner.reads_late = late
    at_pick = 9 * every
    for step in range(at_pick):
        pruner.before_step(step)
        assert pruner.kept() == {}
        assert penalties(pruner, 0) == pytest.approx([0.01 * (step // every + 1)] * (dead + 2))
    assert pruner.gaps()["0"] > 1e30
    pruner.before_step(at_pick)
    assert pruner.kept()["0"].tolist() == [False] * dead + [True] * 2
    for step in range(at_pick + 1, at_pick + every + 1):
        pruner.before_step(step)
    assert [layer.finished for layer in pruner.layers] == [True, False]
    assert penalties(pruner, 0) == pytest.approx([0.1] * (dead + 2))  # the pick's update was its last
    assert penalties(pruner, 1) == pytest.approx([0.2, -1e-4])
    assert run_out(pruner, at_pick + every + 1) == {"stabilize_from": 14 * every, "cut_after_step": 15 * every}


@pytest.mark.parametrize("late", [False, True])
def test_layers_with_zero_filters_end_growth_at_selection(late):
    model = linear(0.0, 0.0, 1.0)
    pruner = pruner_for(
        GReg2, model, {"0": 2}, update_every_steps=4, stabilize_steps=6, grow_pick="0.001", limit_pick="0.01"
    )
    pruner.reads_late = late
    assert run_out(pruner)["cut_after_step"] == 36 + 6
    assert pruner.milestones == {"pick": 36, "λ stops": 36}


@METHODS
def test_gaps_of_single_weights_are_recorded_but_end_nothing_early(method):
    model = linear(1.0, 1e6)
    pruner = pruner_for(method, model, {"0": 1}, "weight", **QUICK, limit_pick="0.02", limit="0.05")
    expected = pruner.schedule.cut_after_step
    assert run_out(pruner)["cut_after_step"] == expected
    assert expected >= 5
    assert pruner.gaps()["0"] == pytest.approx(1e6)


# --- state


def net_and_images() -> tuple[nn.Sequential, Tensor]:
    model = net_with_everything()
    return model, torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(2))


class Run:
    """A prune phase under way."""

    def __init__(self, method: type[GReg], kind: str, seed: int, **changed):
        self.model, self.images = net_and_images()
        torch.manual_seed(seed)
        for parameter in self.model.parameters():
            nn.init.uniform_(parameter, -0.5, 0.5)
        schedule = {"grow": "0.05", "grow_pick": "0.02", "limit": "0.5", "limit_pick": "0.1"} | changed
        self.pruner = pruner_for(
            method, self.model, {"0": 2, "3": 3}, kind, update_every_steps=2, stabilize_steps=7, **schedule
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
        self.step = 0

    def go(self, until: int | None = None) -> None:
        while not self.pruner.finished and self.step != until:
            self.pruner.before_step(self.step)
            self.optimizer.zero_grad()
            self.model(self.images).square().mean().backward()
            self.pruner.after_backward()
            self.optimizer.step()
            self.pruner.after_step()
            self.step += 1

    def state(self) -> dict:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "pruner": self.pruner.state_dict(),
            "step": self.step,
        }

    def load(self, state: dict) -> None:
        for part in ("model", "optimizer", "pruner"):
            getattr(self, part).load_state_dict(state[part])
        self.step = state["step"]


def same(a, b) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.equal(b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b)))


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@KINDS
@METHODS
@pytest.mark.parametrize("interrupted_at", [3, 9, 15, 27])
def test_a_run_restored_in_the_middle_continues_as_uninterrupted(method, kind, interrupted_at):
    whole = Run(method, kind, seed=0)
    whole.go()
    assert whole.step > 27

    first = Run(method, kind, seed=0)
    first.go(until=interrupted_at)
    saved = through_a_file(first.state())
    second = Run(method, kind, seed=1)
    assert not same(second.pruner.state_dict(), saved["pruner"])
    assert not same(through_a_file(second.state()), saved)
    second.load(saved)
    assert same(through_a_file(second.state()), saved)
    assert second.pruner.status == first.pruner.status
    second.go()

    assert second.step == whole.step
    assert same(second.state(), whole.state())
    assert second.pruner.report() == whole.pruner.report()
    assert second.pruner.gaps().keys() == {"0", "3"}
    assert same(second.pruner.kept(), whole.pruner.kept())


@METHODS
def test_a_pruner_restored_in_memory_is_independent_of_the_one_it_came_from(method):
    first, second = Run(method, "filter", seed=0), Run(method, "filter", seed=0)
    first.go(until=15)
    second.load(first.state())
    before = copy.deepcopy(second.pruner.state_dict())
    first.go()
    assert not same(first.pruner.state_dict(), before)
    assert same(second.pruner.state_dict(), before)


@METHODS
@pytest.mark.parametrize("late", [False, True])
def test_saving_changes_no_decision(method, late):
    """With several processes only rank 0 saves: saving must not change its state."""
    saved, alone = (gap_ended(method, late) for _ in range(2))
    ended_by_gap = False
    while not alone.pruner.finished:
        ended_by_gap |= saved.pruner.state_dict()["pending"] is not None
        saved.go(saved.step + 1)
        saved.pruner.state_dict()
        alone.go(alone.step + 1)
        for what in (GReg.fingerprint, GReg.kept, GReg.gaps, GReg.state_dict):
            assert same(what(saved.pruner), what(alone.pruner))
        for one, other in zip(saved.pruner.layers, alone.pruner.layers, strict=True):
            assert one.penalty.equal(other.penalty)
            assert one.finished is other.finished
        assert (saved.pruner.status, saved.pruner.decisions) == (alone.pruner.status, alone.pruner.decisions)
        assert saved.pruner.milestones == alone.pruner.milestones
    assert saved.pruner.finished
    assert ended_by_gap is late


@METHODS
@pytest.mark.parametrize("late", [False, True])
def test_a_run_restored_at_any_step_makes_the_same_decisions(method, late):
    whole = gap_ended(method, late)
    states, prints = [], []
    while not whole.pruner.finished:
        states.append(through_a_file(whole.state()))
        whole.go(whole.step + 1)
        prints.append(whole.pruner.fingerprint())
    assert whole.step < whole.pruner.schedule.cut_after_step  # a gap has ended it
    for at, state in enumerate(states):
        restored = gap_ended(method, late, seed=1)
        restored.load(state)
        assert same(through_a_file(restored.state()), state)
        found = []
        while not restored.pruner.finished:
            restored.go(restored.step + 1)
            found.append(restored.pruner.fingerprint())
        assert found == prints[at:]
        assert same(restored.state(), whole.state())


@METHODS
def test_a_checkpoint_without_pending_gaps_is_read_as_one_that_has_none(method):
    run = Run(method, "filter", seed=0)
    run.pruner.reads_late = True
    run.go(until=11)
    state = run.pruner.state_dict()
    assert state["pending"]["layers"] == ["0", "3"]
    del state["pending"]
    run.pruner.load_state_dict(state)
    assert run.pruner.state_dict()["pending"] is None


def gap_ended(method: type[GReg], late: bool, seed: int = 0) -> Run:
    """Prune phase whose layers end by their gaps, read an update later or immediately."""
    run = Run(method, "filter", seed, grow="2", limit="90", gap_limit=4.0)
    run.pruner.reads_late = late
    return run


# gaps that are read late, as on a GPU


@METHODS
def test_gaps_read_an_update_later_give_the_same_penalties_selections_and_steps(method):
    """λ is constant between updates, so the decision of an update may be read at the next."""
    schedule = schedule_for(
        method, update_every_steps=3, stabilize_steps=4, grow="0.5", grow_pick="0.2", limit="50", limit_pick="3",
        gap_limit=3.0,
    )  # fmt: skip
    found = []
    for late in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 16, 3))
        layers = [Layer(str(i), str(i), i, tuple(model[i].weight.shape), frozenset({"filter"})) for i in (0, 2)]
        plan = Plan("filter", tuple(PlannedLayer(layer, layer.shape[0], layer.shape[0] // 2) for layer in layers))
        pruner = method.build(Settings(penalize="filter"), PruningContext(model, plan, schedule))
        pruner.reads_late = late
        optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
        penalties = []
        while not pruner.finished:
            pruner.before_step(len(penalties))
            images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(len(penalties)))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
            pruner.after_backward()
            optimizer.step()
            penalties.append(torch.cat([layer.penalty for layer in pruner.layers]))
        found.append((torch.stack(penalties), pruner.milestones, torch.cat(list(pruner.kept().values()))))
    (at_once, milestones, kept), (late, late_milestones, late_kept) = found
    assert milestones["λ stops"] < 3 * schedule.updates_to_finish  # a gap has ended it, before the ceiling
    assert torch.equal(at_once, late)  # (steps, groups)
    assert milestones == late_milestones
    assert torch.equal(kept, late_kept)
