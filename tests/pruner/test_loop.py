"""The library: pruners attached to the optimizer of a user's own loop."""

import copy
import io
import logging
import math
import pickle
import shutil
import subprocess
import sys
import threading
from dataclasses import fields
from itertools import count

import pytest
import torch
import torch.nn.functional as F
from helpers import ROOT
from torch import nn

from pruner import L1, CutMismatchError, FixReg, GReg1, GReg2, Settings, cut, groups, proof
from pruner.loop import InLoop

EXAMPLE = torch.zeros(1, 3, 8, 8)


class Inverted(nn.Module):
    """A stem, an inverted residual with a depthwise conv, an MLP with LayerNorm and GELU, a classifier."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.up, self.n1 = nn.Conv2d(8, 16, 1, bias=False), nn.BatchNorm2d(16)
        self.dw, self.n2 = nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False), nn.BatchNorm2d(16)
        self.down, self.n3 = nn.Conv2d(16, 8, 1, bias=False), nn.BatchNorm2d(8)
        self.norm, self.fc1, self.fc2, self.fc = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.stem(x)
        y = F.relu(self.n2(self.dw(F.relu(self.n1(self.up(x))))))
        x = (x + self.n3(self.down(y))).mean((2, 3))
        return self.fc(x + self.fc2(F.gelu(self.fc1(self.norm(x)))))


class Counting(Inverted):
    """Its outputs depend on how often it was called."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * self.calls


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.c(F.silu(self.a(x)) * self.b(x))


class Wrapper(torch.optim.Optimizer):
    """As accelerate wraps an optimizer."""

    def __init__(self, optimizer):
        self.optimizer = optimizer


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Inverted()


def batches(n=32):
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 4
    images += labels[:, None, None, None] * 0.5
    for step in count():
        part = torch.arange(step * 16, step * 16 + 16) % n
        yield images[part], labels[part]


def sgd(network):
    return torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)


def train(
    network, pruner, optimizer, steps=None, each_step=lambda loss, optimizer: (loss.backward(), optimizer.step())
):
    """The loop of the documentation. Returns the last loss, whose graph is still alive, and the steps made."""
    for step, (images, labels) in enumerate(batches(), 1):
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        each_step(loss, optimizer)
        if pruner.finished or step == steps:
            return loss, step


def change_at_cut(network, pruner):
    images, _ = next(batches())
    before = network.eval()(images)
    pruner.cut()
    after = network(images)
    network.train()
    return ((after - before).abs().max() / before.abs().max()).item()


@pytest.mark.parametrize("method", [GReg1, GReg2, FixReg], ids=lambda method: method.__name__)
def test_the_example_of_the_documentation_runs_and_training_continues(network, method):
    optimizer = sgd(network)
    parameters = [id(p) for p in network.parameters()]
    pruner = method(network, EXAMPLE, speedup=1.5, steps=120).attach(optimizer)
    loss, steps = train(network, pruner, optimizer)
    assert loss.grad_fn is not None
    assert 60 < steps <= 120
    assert change_at_cut(network, pruner) < 1e-5
    assert network.dw.groups == network.up.out_channels < 16
    assert network.fc1.out_features < 16
    assert [id(p) for p in network.parameters()] == parameters
    before = copy.deepcopy(network.state_dict())
    train(network, pruner, optimizer, steps=2)
    assert all(not value.equal(before[key]) for key, value in network.state_dict().items() if key.endswith("weight"))


@pytest.mark.parametrize("penalize", ["filter", "group"])
def test_only_a_penalty_on_the_whole_group_makes_the_cut_free(network, penalize):
    """The filter before a batch norm is scale-free, and GELU(bias) is not zero."""
    optimizer = sgd(network)
    pruner = GReg1(network, EXAMPLE, ratios="up:0.5, fc1:0.5", steps=150, penalize=penalize).attach(optimizer)
    train(network, pruner, optimizer)
    change = change_at_cut(network, pruner)
    assert change < 1e-5 if penalize == "group" else change > 1e-2


def plain(loss, optimizer):
    loss.backward()
    optimizer.step()


def accumulating(loss, optimizer):
    (loss / 2).backward(retain_graph=True)
    (loss / 2).backward()
    optimizer.step()


def by_closure(loss, optimizer):
    def closure():
        loss.backward()
        return loss

    optimizer.step(closure)


def clipping(loss, optimizer):
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1e9)
    optimizer.step()


@pytest.mark.parametrize("each_step", [accumulating, by_closure, clipping], ids=lambda step: step.__name__)
def test_other_loops_give_the_same_weights(each_step):
    results = []
    for how in (plain, each_step):
        torch.manual_seed(0)
        network = Inverted()
        optimizer = sgd(network)
        pruner = GReg1(network, EXAMPLE, speedup=1.5, steps=40).attach(optimizer)
        train(network, pruner, optimizer, 20, how)
        results.append(network.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-4, atol=1e-6)


def test_bf16_and_adamw_run_and_adamw_is_warned_of(network, caplog):
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    with caplog.at_level(logging.WARNING):
        pruner = GReg1(network, EXAMPLE, speedup=1.5, steps=20).attach(optimizer)
    assert "AdamW" in caplog.text
    for images, labels in batches():
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        plain(loss, optimizer)
        if pruner.finished:
            break
    pruner.cut()
    train(network, pruner, optimizer, steps=1)


def test_a_resumed_loop_gives_the_same_weights(network):
    optimizer = sgd(network)
    pruner = GReg2(network, EXAMPLE, speedup=1.5, steps=60).attach(optimizer)
    train(network, pruner, optimizer, 20)
    file = io.BytesIO()
    torch.save([network.state_dict(), optimizer.state_dict(), pruner.state_dict()], file)
    train(network, pruner, optimizer, 20)

    torch.manual_seed(1)
    again = Inverted()
    second = sgd(again)
    resumed = GReg2(again, EXAMPLE, speedup=1.5, steps=60).attach(second)
    file.seek(0)
    for part, state in zip((again, second, resumed), torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(again, resumed, second, 20)
    for name, value in network.state_dict().items():
        assert value.equal(again.state_dict()[name]), name


LOWER = {  # precision that a user has lowered
    "bf16 products": lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "TF32": lambda: torch.set_float32_matmul_precision("high"),
    "nothing": lambda: None,
}


@pytest.mark.parametrize("lower", LOWER.values(), ids=LOWER)
def test_the_cut_is_compared_in_full_precision_and_settings_come_back(lower, network):
    backends = torch.backends
    places = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    pruner, seen = L1(network, EXAMPLE, speedup=1.5), []
    try:
        lower()
        lowered = [place.fp32_precision for place in places]
        network.register_forward_hook(
            lambda *_: seen.append([*(place.fp32_precision for place in places), torch.is_autocast_enabled("cpu")])
        )
        with torch.autocast("cpu", torch.bfloat16):
            pruner.cut()
        assert seen[-2:] == [[*["ieee"] * 4, False]] * 2  # masked, cut
        assert [place.fp32_precision for place in places] == lowered
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_network_in_another_precision_is_cut(dtype, network):
    assert L1(network.to(dtype), EXAMPLE.to(dtype), speedup=1.5).cut().up.out_channels < 16


@pytest.mark.parametrize(
    ("method", "built", "again"),
    [
        (GReg1, {"speedup": 1.5, "steps": 60}, {"speedup": 1.8, "steps": 60}),
        (GReg1, {"speedup": 1.5, "steps": 60}, {"speedup": 1.5, "steps": 600}),
        (GReg2, {"speedup": 1.5, "steps": 60}, {"speedup": 1.5, "steps": 60, "reg_upper_limit": 2}),
    ],
)
def test_a_state_of_another_plan_or_schedule_is_refused(network, method, built, again):
    state = method(network, EXAMPLE, **built).state_dict()
    method(network, EXAMPLE, **built).load_state_dict(state)
    with pytest.raises(ValueError, match="of a pruner with another"):
        method(network, EXAMPLE, **again).load_state_dict(state)


@pytest.mark.parametrize(
    "optimizer",
    [torch.optim.Adafactor, torch.optim.Adam, torch.optim.RMSprop, torch.optim.Adadelta, torch.optim.ASGD],
    ids=lambda kind: kind.__name__,
)
@pytest.mark.filterwarnings("ignore:.*is not SGD")
def test_the_optimizer_stays_valid_after_the_cut(network, optimizer):
    optimizer = optimizer(network.parameters(), lr=1e-3)
    pruner = GReg1(network, EXAMPLE, speedup=1.5, steps=10).attach(optimizer)
    train(network, pruner, optimizer)
    pruner.cut()
    train(network, pruner, optimizer, steps=2)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_weights_without_a_gradient_are_left_when_the_penalty_replaces_it(network):
    optimizer = sgd(network)
    network.stem.weight.requires_grad_(False)
    pruner = GReg1(network, EXAMPLE, ratios="up:0.5", steps=20, block_loss_grad=True).attach(optimizer)
    train(network, pruner, optimizer, steps=3)


def test_l1_cuts_at_once(network):
    assert L1(network, EXAMPLE, ratios={"up": 0.5}).cut() is network
    assert (network.up.out_channels, network.fc1.out_features) == (8, 16)


REFUSED = {
    "nothing to prune": (lambda network: GReg1(network, EXAMPLE), ValueError, "give speedup=2.0, or ratios="),
    "a fixed layer": (lambda network: GReg1(network, EXAMPLE, ratios="fc:0.5"), ValueError, "reaches the"),
    "a misspelt layer": (lambda network: L1(network, EXAMPLE, ratios="fc9:0.5"), ValueError, "no conv or linear layer"),
    "too much": (lambda network: L1(network, EXAMPLE, speedup=50.0), ValueError, "cannot be reached: at most"),
    "a setting that is none": (lambda network: L1(network, EXAMPLE, speedup=1.5, tau=3), TypeError, "no setting 'tau'"),
    "a penalty on nothing known": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, penalize="groups"), ValueError, "penalize 'groups'",
    ),
    "no interval": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, update_reg_interval=0), ValueError, "0 is less than 1",
    ),
    "infinite steps": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, steps=float("inf")), ValueError, "inf is not a whole",
    ),
    "two lengths": (
        lambda network: FixReg(network, EXAMPLE, speedup=1.5, steps=100, fix_reg_interval=50), ValueError, "exclude",
    ),
    "no layer that may go": (
        lambda _: L1(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.zeros(1, 4), speedup=2.0),
        ValueError, "at most 1.00x; ratios may name 0, too",
    ),
    "half an interval": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, update_reg_interval=1.5), ValueError, "not a whole number",
    ),
    "no growth": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, reg_granularity_prune=0), ValueError, "not above 0",
    ),
    "a negative ceiling": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, reg_upper_limit=-1), ValueError, "-1 is less than 0",
    ),
    "no steps": (lambda network: GReg1(network, EXAMPLE, speedup=1.5, steps=0), ValueError, "steps 0 is less than 1"),
    "a pick that is none": (
        lambda network: L1(network, EXAMPLE, speedup=1.5, pick_pruned="mid"), ValueError, "pick_pruned 'mid'",
    ),
    **{
        f"a speedup of {speedup}": (
            lambda network, ratio=speedup: L1(network, EXAMPLE, speedup=ratio), ValueError, "is not a number above 1",
        )
        for speedup in (0.5, 0, -1, 1.0, True, float("nan"), float("inf"), "2")
    },
    **{
        f"multiples of {n}": (
            lambda network, n=n: L1(network, EXAMPLE, speedup=1.5, round_to=n), ValueError, "a whole number above 0",
        )
        for n in (0, -8, 2.5)
    },
    **{
        f"{name} {value}": (
            lambda network, given={name: value}: GReg1(network, EXAMPLE, speedup=1.5, **given), ValueError, "a finite",
        )
        for name in ("reg_upper_limit", "reg_granularity_prune", "mag_ratio_limit", "update_reg_interval")
        for value in ("x", float("nan"))
    },
    "a flag that is no truth value": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5, block_loss_grad="no"), ValueError, "not True or False",
    ),
    "a list of ratios": (lambda network: L1(network, EXAMPLE, ratios=["up:0.5"]), ValueError, "ratios is a list"),
    "a rank of ratios": (
        lambda network: L1(network, EXAMPLE, ratios="up:0.5", rank="global"), ValueError, "needs a speedup",
    ),
    "a wrapped network": (
        lambda network: L1(nn.DataParallel(network), EXAMPLE, ratios="up:0.5"), ValueError, "network.module",
    ),
    "an optimizer that wraps one": (
        lambda network: GReg1(network, EXAMPLE, ratios="up:0.5").attach(Wrapper(sgd(network))),
        ValueError, "a Wrapper is not one of torch's optimizers; give the one that it wraps: .optimizer",
    ),
    "no optimizer": (
        lambda network: GReg1(network, EXAMPLE, ratios="up:0.5").attach([sgd(network)]), ValueError, "a list is not",
    ),
    "a loss that is maximized": (
        lambda net: GReg1(net, EXAMPLE, ratios="up:0.5").attach(torch.optim.SGD(net.parameters(), 0.1, maximize=True)),
        ValueError, "maximize=True",
    ),
    "other layers since": (
        lambda net: (pruner := GReg1(net, EXAMPLE, ratios="up:0.5"), setattr(net, "n1", nn.Identity()),
                     pruner.attach(sgd(net))),
        RuntimeError, "n1.weight is not what it was",
    ),
    "a computed weight since": (
        lambda net: (pruner := GReg1(net, EXAMPLE, ratios="up:0.5"), nn.utils.parametrizations.weight_norm(net.up),
                     pruner.attach(sgd(net))),
        RuntimeError, "up.weight is not what it was",
    ),
    "outputs that change by themselves": (
        lambda _: L1(Counting(), EXAMPLE, ratios="up:0.5"), ValueError, "other outputs when called again",
    ),
    "a network that cannot be copied": (
        lambda net: (setattr(net, "lock", threading.Lock()), L1(net, EXAMPLE, ratios="up:0.5")),
        ValueError, "cannot be copied",
    ),
    "layers that are all joined": (
        lambda _: L1(nn.Sequential(nn.Linear(8, 8), Gated()), torch.zeros(1, 8), speedup=1.2),
        ValueError, "layers that keep all: .*1.a: coupled, joined with 1.b",
    ),
    "an optimizer of some parameters": (
        lambda network: GReg1(network, EXAMPLE, ratios="up:0.5").attach(sgd(network.up)),
        ValueError, "does not hold n1.weight, which the cut makes smaller",
    ),
    "a frozen norm": (
        lambda net: (net.n1.requires_grad_(False), GReg1(net, EXAMPLE, ratios="up:0.5").attach(sgd(net))),
        ValueError, "n1.weight is frozen",
    ),
    "several losses per step": (
        lambda network: GReg1(network, EXAMPLE, ratios="up:0.5").attach(torch.optim.LBFGS(network.parameters())),
        ValueError, "LBFGS",
    ),
    "frozen weights": (
        lambda network: GReg1(network.requires_grad_(False), EXAMPLE, speedup=1.5).attach(sgd(network)),
        ValueError, "frozen",
    ),
    "another network's optimizer": (
        lambda network: GReg1(network, EXAMPLE, speedup=1.5).attach(sgd(Inverted())), ValueError, "does not hold",
    ),
    "a cut before the selection": (lambda network: GReg2(network, EXAMPLE, speedup=1.5).cut(), RuntimeError, "select"),
    "images that do not fit": (lambda network: L1(network, EXAMPLE[:, :2], speedup=1.5), ValueError, "cannot be run"),
}  # fmt: skip


SETTINGS = {
    "seed": 1, "pick_pruned": "max", "penalize": "filter", "block_loss_grad": True, "update_reg_interval": 2,
    "stabilize_reg_interval": 3, "reg_upper_limit": 0.5, "reg_upper_limit_pick": 0.02, "reg_granularity_prune": 0.05,
    "reg_granularity_pick": 0.005, "reg_granularity_recover": -1e-3, "mag_ratio_limit": 50.0, "fix_reg_interval": 7,
    "prune_steps": 30, "lr_prune": 0.1, "stage_pr": "0.5",
}  # fmt: skip
EFFECTIVE = {
    L1: {"seed", "pick_pruned"},
    GReg1: {*SETTINGS} - {
        "reg_upper_limit_pick", "reg_granularity_pick", "reg_granularity_recover", "fix_reg_interval",
        "prune_steps", "lr_prune", "stage_pr",
    },
    GReg2: {*SETTINGS} - {"pick_pruned", "fix_reg_interval", "prune_steps", "lr_prune", "stage_pr"},
    FixReg: {*SETTINGS} - {
        "reg_upper_limit_pick", "reg_granularity_pick", "reg_granularity_recover", "mag_ratio_limit",
        "prune_steps", "lr_prune", "stage_pr",
    },
}  # fmt: skip


def test_a_frozen_norm_does_without_the_penalty_on_filters(network):
    network.n1.requires_grad_(False)
    GReg1(network, EXAMPLE, ratios="up:0.5", penalize="filter").attach(sgd(network))


def test_a_second_attachment_replaces_the_first(network):
    old, new = sgd(network), sgd(network)
    pruner = GReg1(network, EXAMPLE, ratios="up:0.5", steps=20).attach(old).attach(new).attach(new)
    train(network, pruner, new, steps=3)
    old.step()
    assert pruner._made == 3


@pytest.mark.parametrize("method", [L1, GReg1])
def test_after_the_cut_the_pruner_does_nothing_more(network, method):
    pruner = method(network, EXAMPLE, ratios="up:0.5")
    pruner.cut()
    with pytest.raises(RuntimeError, match="cut already"):
        pruner.cut()
    with pytest.raises(RuntimeError, match="fine-tune it without the pruner"):
        pruner.attach(sgd(network))


@pytest.mark.parametrize("decays", [False, True])
@pytest.mark.parametrize("steps", [0, 5, 150])
def test_a_cut_of_filters_that_have_not_decayed_is_said_to_be_one(network, steps, decays, caplog):
    network.n3.weight.data *= 3
    base = copy.deepcopy(network.state_dict())
    optimizer = sgd(network)
    pruner = GReg1(network, EXAMPLE, ratios="up:0.75", steps=150).attach(optimizer)
    if steps:
        train(network, pruner, optimizer, steps=steps)
    if not decays:  # as in bf16 at a small learning rate
        network.load_state_dict(base)
    pruner.cut()
    assert ("before the prune phase has finished" in caplog.text) == (steps < 150)
    if steps == 150:
        assert ("have not decayed" in caplog.text) == (not decays)


def test_layers_that_the_example_does_not_call_are_named_and_tied_ones_are_not(network, caplog):
    network.other, network.fc2.weight = nn.Linear(8, 3), nn.Parameter(network.fc1.weight.data.T.clone())
    network.tied = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
    network.fc = nn.Sequential(network.fc, network.tied)
    del network.tied
    pruner = L1(network, EXAMPLE, ratios="up:0.5")
    assert "not called for the example: other;" in caplog.text
    assert pruner.structure.layers["fc.1"].reason == "its weight is computed, or shared with another layer"


def test_the_selection_is_by_the_weights_at_the_attachment_and_those_decay(network):
    """Weights that are loaded between, DDP's among them, and parameters that are other objects since."""
    other = Inverted().state_dict()
    pruner, l1 = GReg1(network, EXAMPLE, ratios="up:0.5", steps=150), L1(network, EXAMPLE, ratios="fc1:0.5")
    network.load_state_dict(other, assign=True)
    optimizer = sgd(network)
    pruner.attach(optimizer)
    wanted = groups.keep(other["up.weight"].abs().mean((1, 2, 3)), 8)
    assert torch.equal(pruner.kept()["up"], wanted)
    train(network, pruner, optimizer)
    assert network.up.weight[~wanted].abs().max() < 1e-3 < network.up.weight[wanted].abs().min()
    kept = network.fc1.weight[groups.keep(network.fc1.weight.abs().mean(1), 8)].clone()
    assert torch.equal(l1.cut().fc1.weight, kept)


RANK = """
import sys, torch
sys.path[:0] = sys.argv[3:]
from test_loop import EXAMPLE, GReg1, Inverted, L1, sgd
rank = int(sys.argv[1])
torch.distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
torch.manual_seed(rank)
network = Inverted()
early, l1 = GReg1(network, EXAMPLE, ratios="up:0.5", steps=20), L1(network, EXAMPLE, ratios="up:0.5")
for call in (lambda: early.attach(sgd(network)), l1.cut):
    try:
        call()
    except RuntimeError as error:
        print(error)
torch.nn.parallel.DistributedDataParallel(network)
early.attach(sgd(network))
print(early.kept()["up"].int().tolist())
"""


def test_ranks_that_would_cut_different_filters_are_told(tmp_path):
    paths = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "pruner")]
    command = [sys.executable, "-W", "ignore", "-c", RANK]
    ranks = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "store"), *paths], stdout=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    first, second = (process.communicate(timeout=120)[0].splitlines() for process in ranks)
    assert first == second
    assert [line[:45] for line in first[:2]] == ["the ranks have selected different filters: at"] * 2
    assert len(first) == 3


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda pruner: pickle.loads(pickle.dumps(pruner))])
def test_a_copy_of_a_pruner_is_not_attached_but_can_be(network, copy_of):
    optimizer = sgd(network)
    pruner = GReg1(network, EXAMPLE, ratios="up:0.5", steps=40).attach(optimizer)
    train(network, pruner, optimizer, steps=10)
    other = copy_of(pruner)
    own = sgd(other.network)
    own.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.attach(own)
    for each, its_optimizer in ((pruner, optimizer), (other, own)):
        train(each.network, each, its_optimizer)
        each.cut()
    assert torch.equal(other.network.up.weight, network.up.weight)


@pytest.mark.parametrize("spoil", ["nan", "layer", "error"])
def test_a_network_that_cannot_be_cut_stays_whole(network, spoil):
    optimizer = sgd(network)
    pruner = GReg1(network, EXAMPLE, ratios="up:0.5", steps=20).attach(optimizer)
    train(network, pruner, optimizer)
    norm, kind, message = network.n1, RuntimeError, "n1.weight is not what it was"
    if spoil == "nan":
        weight = network.fc.weight[0, 0].item()
        network.fc.weight.data[0, 0], kind, message = math.nan, ArithmeticError, "returns nan"
    elif spoil == "layer":
        network.n1 = nn.Identity()
    else:
        network.norm, layer_norm, message = nn.LayerNorm(3), network.norm, "no longer runs on the example"
    with pytest.raises(kind, match=message):
        pruner.cut()
    network.n1 = norm
    if spoil == "nan":
        network.fc.weight.data[0, 0] = weight
    if spoil == "error":
        network.norm = layer_norm
    train(network, pruner, optimizer, steps=1)  # the hooks are there still
    assert len(pruner.cut().up.weight) == 8


def test_a_network_is_cut_in_inference_mode_and_trains_on(network):
    optimizer = sgd(network)
    with torch.inference_mode():
        pruner = GReg1(network, EXAMPLE, ratios="up:0.5", steps=20).attach(optimizer)
    train(network, pruner, optimizer)
    with torch.inference_mode():
        pruner.cut()
    train(network, pruner, optimizer, steps=1)


@pytest.mark.parametrize("extra", [torch.arange(4), torch.ones(2, dtype=torch.bool), torch.zeros(0, 3)])
def test_parameters_that_are_no_weights_are_left_alone(network, extra):
    network.index = nn.Parameter(extra, requires_grad=False)
    assert len(L1(network, EXAMPLE, ratios="up:0.5").cut().up.weight) == 8


@pytest.mark.parametrize("around", [False, True])
def test_the_cut_frees_weights_that_autocast_holds(network, around):
    optimizer = sgd(network)
    pruner = L1(network, EXAMPLE, ratios="up:0.5").attach(optimizer)
    with torch.autocast("cpu", torch.bfloat16, enabled=around):
        train(network, pruner, optimizer, steps=1)
        pruner.cut()
    train(network, pruner, optimizer, steps=1)


def test_gradient_hooks_outlive_the_cut(network):
    counted = []
    for parameter in network.parameters():
        parameter.register_hook(torch.zeros_like)
        parameter.register_post_accumulate_grad_hook(lambda p: counted.append(p.grad.count_nonzero().item()))
    L1(network, EXAMPLE, ratios="up:0.5").cut()
    network(torch.randn(2, 3, 8, 8)).square().sum().backward()
    assert counted == [0] * len([*network.parameters()])


class Factored(torch.optim.Optimizer):
    """Keeps sums over rows and columns, as some Adafactors do."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure=None):
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            if not state and parameter.ndim > 1:
                state |= {"row": parameter.new_zeros(parameter.shape[:-1]), "column": parameter.new_zeros(())}
            if parameter.ndim > 1:
                state["row"] += parameter.grad.mean(-1)


def test_a_state_that_cannot_be_cut_begins_anew(network, caplog):
    optimizer = Factored(network.parameters())
    pruner = L1(network, EXAMPLE, ratios="up:0.5").attach(optimizer)
    train(network, pruner, optimizer, steps=1)
    pruner.cut()
    assert "begins anew" in caplog.text
    train(network, pruner, optimizer, steps=1)


@pytest.mark.parametrize("other", [L1, FixReg, GReg2])
def test_the_state_of_another_method_is_refused(network, other):
    state = other(network, EXAMPLE, ratios="up:0.5").state_dict()
    pruner = GReg1(network, EXAMPLE, ratios="up:0.5")
    with pytest.raises(ValueError, match=r"the state is (not of a GReg1|of a pruner with another method)"):
        pruner.load_state_dict(state)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"penalize": "filter"}, "penalize"),
        ({"block_loss_grad": True}, "block_loss_grad"),
        ({"reg_upper_limit": 2}, "limit"),
    ],
)
def test_the_state_of_other_settings_is_refused(network, given, named):
    state = GReg1(network, EXAMPLE, ratios="up:0.5", **given).state_dict()
    with pytest.raises(ValueError, match=f"another {named}"):
        GReg1(network, EXAMPLE, ratios="up:0.5").load_state_dict(state)


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("method", EFFECTIVE)
def test_a_setting_has_an_effect_or_is_refused(network, method, name):
    assert SETTINGS.keys() == {f.name for f in fields(Settings)}
    if name in EFFECTIVE[method]:
        method(network, EXAMPLE, ratios="up:0.5", **{name: SETTINGS[name]})
        return
    with pytest.raises(TypeError, match=f"{method.__name__} has no setting '{name}'; its settings are .*seed"):
        method(network, EXAMPLE, ratios="up:0.5", **{name: SETTINGS[name]})


def test_whole_numbers_may_be_written_as_others(network):
    made = GReg1(network, EXAMPLE, ratios="up:0.5", steps=3e2, stabilize_reg_interval=1e2)
    assert made.schedule == GReg1(network, EXAMPLE, ratios="up:0.5", steps=300, stabilize_reg_interval=100).schedule


def test_filters_that_are_named_are_rounded_beside_a_speedup_too(network):
    named = L1(network, EXAMPLE, ratios="up:0.4", round_to=4).plan.pruned
    assert named == {"up": 4}  # 7 of 16, but a multiple of 4 is kept
    assert L1(network, EXAMPLE, ratios="up:0.4", speedup=1.15, round_to=4).plan.pruned["up"] == 4


def test_a_wrong_cut_is_noticed_though_the_example_is_zero(network, monkeypatch):
    """Zeros alone cannot tell the filters of a conv without bias apart."""

    def cut_and_swap(model, *arguments):
        masks = cut(model, *arguments)
        model.up.weight.data = model.up.weight.flip(0)
        return masks

    pruner = L1(network.eval(), EXAMPLE, ratios="up:0.5")
    network.stem.bias.data.zero_()
    monkeypatch.setattr(proof, "cut", cut_and_swap)
    with pytest.raises(CutMismatchError, match="the cut is wrong"):
        pruner.cut()


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_arguments_are_refused_before_training(network, call, kind, message):
    with pytest.raises(kind, match=message):
        call(network)


def test_a_fused_optimizer_that_unscales_by_itself_is_refused(network):
    optimizer = sgd(network)
    GReg1(network, EXAMPLE, speedup=1.5, steps=20).attach(optimizer)
    optimizer.grad_scale = torch.tensor(2.0)  # as GradScaler sets it for fused optimizers
    images, labels = next(batches())
    F.cross_entropy(network(images), labels).backward()
    with pytest.raises(RuntimeError, match="fused"):
        optimizer.step()


def test_every_method_of_a_loop_is_public():
    assert {cls.__name__ for cls in (L1, FixReg, GReg1, GReg2)} <= set(__import__("pruner").__all__)
    assert all(issubclass(cls, InLoop) for cls in (L1, FixReg, GReg1, GReg2))


def test_the_library_installs_and_stands_alone(tmp_path):
    """Beside a project that has a model.py and a utils/ of its own."""
    source = tmp_path / "source"  # building writes beside it
    shutil.copytree(ROOT / "pruner", source / "pruner")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*install, tmp_path / "site", source], check=True, capture_output=True)
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "__init__.py").write_text("raise ImportError('the wrong utils')")
    (tmp_path / "data.py").write_text("raise ImportError('the wrong data')")
    (tmp_path / "model.py").write_text(
        "from torch import nn\n"
        "net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))\n"
    )
    (tmp_path / "use.py").write_text(
        "import torch\nfrom growing_regularization import L1, __version__\nfrom model import net\n"
        "L1(net, torch.zeros(1, 3, 8, 8), ratios='0:0.5').cut()\nprint(net[0].out_channels, __version__)\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    ran = subprocess.run([sys.executable, "use.py"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert ran.stdout.split() == ["4", "0.7.0"], ran.stderr
    assert (tmp_path / "site" / "growing_regularization" / "py.typed").exists()
