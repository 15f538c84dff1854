"""One pass for penalty and weight decay; its compiled form."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from model.cost import example
from pruner import PRUNERS, Pruner, PruningContext, groups, make_plan
from pruner.layers import layers_of
from pruner.structure import Structure
from utils.config.cli import parse
from utils.engine.train import restore, train_step
from utils.engine.update import Update
from utils.reporting.run_dir import Run

DECAY = 0.05
KINDS = (*((kind, "filter") for kind in groups.KINDS), ("filter", "group"))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    ).to(memory_format=torch.channels_last)  # fmt: skip


def pruner_of(network, method: str, kind: str, penalize: str, **changed) -> Pruner:
    ratios = "[1:0.5]" if kind == "channel" else "[0-1:0.5]"
    words = f"--dataset digits --method {method} --wg {kind} --stage_pr {ratios} --update_reg_interval 2"
    options = replace(parse(words.split())[0], penalize=penalize, **changed)
    plan = make_plan(layers_of(network), options.stage_pr, "", kind)
    schedule = PRUNERS[method].make_schedule(options, plan)
    structure = Structure(network, example(network, 3, 8)) if kind == "filter" else None
    return PRUNERS[method].build(options, PruningContext(network, plan, schedule, structure=structure))


def sgd(network, **more) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=DECAY, **more)


def train(network, step_of, steps: int = 7) -> dict[str, torch.Tensor]:
    """Train on one batch; return the parameters."""
    torch.manual_seed(1)
    images, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 3
    network.train()
    for step in range(steps):
        step_of(images, labels, step)
    return {name: parameter.detach().clone() for name, parameter in network.named_parameters()}


def two_passes(network, pruner: Pruner):
    """Return a step in which the optimizer decays the weights, written out."""
    optimizer = sgd(network)

    def step_of(images, labels, step):
        pruner.before_step(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), labels).backward()
        pruner.after_backward()
        optimizer.step()

    return step_of


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2", "FixReg"])
@pytest.mark.parametrize(("kind", "penalize"), KINDS)
@pytest.mark.parametrize("blocked", [False, True])
def test_decay_in_the_penaltys_pass_is_the_optimizers_decay(network, method, kind, penalize, blocked):
    twin = copy.deepcopy(network)
    pruners = [pruner_of(net, method, kind, penalize, block_loss_grad=blocked) for net in (network, twin)]
    update = Update(sgd(network), pruners[0])
    found = train(network, lambda images, labels, step: train_step(network, images, labels, update, step))
    expected = train(twin, two_passes(twin, pruners[1]))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("decay", [0.0, DECAY])
def test_parameters_without_a_gradient_are_left_alone(network, decay):
    network[0].weight.requires_grad_(False)
    network[1].bias.requires_grad_(False)
    before = [parameter.clone() for parameter in (network[0].weight, network[1].bias)]
    optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=decay)
    update = Update(optimizer, pruner_of(network, "GReg-1", "filter", "group"))
    train(network, lambda images, labels, step: train_step(network, images, labels, update, step))
    assert all(map(torch.equal, before, (network[0].weight, network[1].bias)))


def test_without_a_penalty_the_optimizer_keeps_its_decay(network):
    optimizer = sgd(network)
    Update(optimizer, Pruner(), compiled=True)
    assert optimizer.param_groups[0]["weight_decay"] == DECAY


def test_adam_keeps_its_own_decay(network):
    optimizer = torch.optim.AdamW(network.parameters(), 0.01, weight_decay=DECAY)
    Update(optimizer, pruner_of(network, "GReg-1", "filter", "filter"))
    assert optimizer.param_groups[0]["weight_decay"] == DECAY


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "penalize"), [("filter", "filter"), ("weight", "filter"), ("filter", "group")])
def test_the_compiled_update_is_the_eager_one(network, kind, penalize):
    twin = copy.deepcopy(network)
    results = []
    for net, compiled in ((network, True), (twin, False)):
        optimizer = sgd(net)
        update = Update(optimizer, pruner_of(net, "GReg-2", kind, penalize), compiled)
        results.append(train(net, lambda *args, net=net, update=update: train_step(net, *args[:2], update, args[2])))
        results[-1] |= {
            f"momentum {i}": state["momentum_buffer"] for i, state in optimizer.state_dict()["state"].items()
        }
    for name, value in results[1].items():
        torch.testing.assert_close(results[0][name], value, rtol=1e-5, atol=1e-7)


def test_a_checkpoint_gives_momentum_and_the_phase_its_decay(network):
    """Older checkpoints have the optimizer's own decay, which the penalty's pass now applies."""

    class Older(Run):
        def take_checkpoint(self, phase):
            older = sgd(network)
            for parameter in network.parameters():
                older.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 3.0)
            return type("Checkpoint", (), {"optimizer": older.state_dict(), "rng": (), "step": 5})

    fresh = torch.optim.SGD(network.parameters(), 0.05, 0.9, weight_decay=0.0)
    assert restore(fresh, Older(parse(["--dataset", "digits"])[0]), "prune") == 5
    assert fresh.param_groups[0]["weight_decay"] == 0.0
    assert all((fresh.state[parameter]["momentum_buffer"] == 3).all() for parameter in network.parameters())
