"""What is left after the cut computes what the whole network would, were the cut filters silent."""

import copy
import io
from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from zeroed import zeroed_outputs

import model as door
from data import DataSpec
from model.cost import cost_of, example
from pruner import WeightMasks, cut, groups
from pruner.cut import shrunk_copy
from pruner.layers import layers_of
from pruner.plan import Plan, PlannedLayer
from pruner.proof import masked_outputs
from pruner.structure import Structure
from utils.config.cli import parse
from utils.config.options import to_plain

CLASSES = 7
TORCHVISION_MODELS = (
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "alexnet", "vgg11", "vgg16_bn",
)  # fmt: skip
SLOW = {f"torchvision's {arch}" for arch in ("resnet101", "resnet152", "wide_resnet50_2", "vgg11", "vgg16_bn")}
SMALLEST_LARGE = {"alexnet": 63, "vgg11": 65}  # pixels; up to 64 px vgg11 is the small network


def net(arch: str, size: int, name: str, batch_norm: bool = True):
    return pytest.param(arch, size, batch_norm, id=name, marks=[pytest.mark.slow] if name in SLOW else [])


NETS = [
    *(net(arch, 32, arch) for arch in door.CIFAR_MODELS),
    net("vgg11", 32, "vgg11 without batch-norm", batch_norm=False),
    *(net(arch, SMALLEST_LARGE.get(arch, 32), f"torchvision's {arch}") for arch in TORCHVISION_MODELS),
]


def structure_of(model: nn.Module, channels: int, size: int) -> Structure:
    return Structure(model, example(model, channels, size))


KINDS = pytest.mark.parametrize("kind", groups.KINDS)


def channels_of(arch: str) -> int:
    return 1 if arch.startswith("lenet") else 3


def trained_a_little(arch: str, size: int, batch_norm: bool = True) -> tuple[nn.Module, Tensor]:
    """A network whose batch-norm layers have seen one batch and are not all alike, and that batch."""
    torch.manual_seed(0)
    model = door.build_model(arch, CLASSES, channels_of(arch), size, batch_norm)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.2)
        images = torch.randn(4, channels_of(arch), size, size)
        model.train()(images)
    return model.eval(), images


def random_plan(model: nn.Module, kind: str) -> tuple[Plan, dict[str, Tensor]]:
    """Every layer that can loses some of its groups, which ones is chance."""
    generator = torch.Generator().manual_seed(1)
    planned, kept = [], {}
    for layer in layers_of(model):
        n_groups, n_pruned = groups.count(layer.shape, kind), 0
        if kind == "weight" or kind in layer.prunable:
            mask = torch.rand(n_groups, generator=generator) < torch.rand((), generator=generator)
            mask[:2] = torch.tensor([True, False])
            kept[layer.name], n_pruned = mask, int((~mask).sum())
        planned.append(PlannedLayer(layer, n_groups, n_pruned))
    return Plan(kind, tuple(planned)), kept


def saved(arch: str, size: int, batch_norm: bool, model: nn.Module, kept: dict, masks: dict) -> io.BytesIO:
    """What the run directory would hold of the network."""
    options, _ = parse(["--dataset=cifar10", f"--arch={arch}", *([] if batch_norm else ["--not_use_bn"])])
    spec = DataSpec("made", CLASSES, channels_of(arch), size, (0.5,), (0.25,))
    content = {
        "version": 1,
        "options": to_plain(options),
        "data": asdict(spec),
        "kept": {} if masks else kept,
        "masks": masks,
        "model": model.state_dict(),
    }
    file = io.BytesIO()
    torch.save(content, file)
    file.seek(0)
    return file


def check_running_statistics(before: nn.Module, after: nn.Module) -> None:
    old = {name: module for name, module in before.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, module in after.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            is_kept = torch.isin(old[name].running_mean, module.running_mean)
            for key in ("running_mean", "running_var", "weight", "bias"):
                assert getattr(module, key).equal(getattr(old[name], key)[is_kept])
            assert module.num_batches_tracked == old[name].num_batches_tracked == 1


@KINDS
@pytest.mark.parametrize(("arch", "size", "batch_norm"), NETS)
def test_a_cut_network_equals_the_whole_one_with_pruned_groups_zeroed(arch, size, batch_norm, kind):
    model, images = trained_a_little(arch, size, batch_norm)
    channels = images.shape[1]
    plan, kept = random_plan(model, kind)
    assert kept
    whole = copy.deepcopy(model)
    masks = cut(model, kept, kind, structure_of(model, channels, size))

    with torch.no_grad():
        expected, found = zeroed_outputs(whole, kept, kind, images), model(images)
        masked = masked_outputs(whole, kept, kind, structure_of(whole, channels, size), images)
        assert (masked - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
        assert (whole(images) - expected).abs().max() > 1e-3 * expected.abs().max()  # the pick did matter
        check_running_statistics(whole, model)

        again = door.load_pruned(saved(arch, size, batch_norm, model, kept, masks))
        assert again(images).equal(found)

    with torch.device("meta"):
        weightless = door.build_model(arch, CLASSES, channels, size, batch_norm)
    planned = cost_of(shrunk_copy(weightless, plan, structure_of(weightless, channels, size)), channels, size)
    assert cost_of(model, channels, size) == cost_of(again, channels, size) == planned
    assert (planned.params == cost_of(whole, channels, size).params) == (kind == "weight")
    assert set(masks) == (set(kept) if kind == "weight" else set())
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert mask.shape == weight.shape
        assert weight.equal(whole.get_submodule(name).weight * kept[name].view_as(weight))


@pytest.mark.parametrize("kind", ["filter", "channel"])
@pytest.mark.parametrize("training", [True, False])
def test_the_cut_leaves_the_mode_and_trains_on(kind, training):
    model, images = trained_a_little("resnet20", 32)
    whole = copy.deepcopy(model)
    model.train(training)
    _, kept = random_plan(model, kind)
    cut(model, kept, kind, structure_of(model, 3, 32))
    assert {module.training for module in model.modules()} == {training}
    check_running_statistics(whole, model)
    model(images).square().sum().backward()
    assert all(p.grad.shape == p.shape and p.grad.isfinite().all() for p in model.parameters())


@KINDS
def test_cutting_nothing_changes_nothing(kind):
    model, _ = trained_a_little("resnet20", 32)
    before = copy.deepcopy(model.state_dict())
    assert cut(model, {}, kind, structure_of(model, 3, 32)) == {}
    assert model.state_dict().keys() == before.keys()
    assert all(value.equal(before[key]) for key, value in model.state_dict().items())


def test_a_kept_filter_keeps_its_weights():
    model, _ = trained_a_little("lenet5", 32)
    whole = copy.deepcopy(model)
    kept = {"features.0": torch.tensor([True, False, True, True, False, True])}
    cut(model, kept, "filter", structure_of(model, 1, 32))
    kept = [0, 2, 3, 5]
    assert model.features[0].weight.equal(whole.features[0].weight[kept])
    assert model.features[0].bias.equal(whole.features[0].bias[kept])
    assert model.features[3].weight.equal(whole.features[3].weight[:, kept])
    assert model.features[3].bias.equal(whole.features[3].bias)


def test_a_pruned_neuron_is_removed_with_its_bias_and_the_next_layers_column():
    model, _ = trained_a_little("lenet5_mini", 32)
    whole = copy.deepcopy(model)
    cut(model, {"classifier.1": torch.arange(10) != 4}, "filter", structure_of(model, 1, 32))
    kept = [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert model.classifier[1].weight.equal(whole.classifier[1].weight[kept])
    assert model.classifier[1].bias.equal(whole.classifier[1].bias[kept])
    assert model.classifier[3].weight.equal(whole.classifier[3].weight[:, kept])


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
@pytest.mark.parametrize("arch", ["resnet20", "lenet5_mini", "mlp_7_linear"])
def test_masks_hold_pruned_weights_at_exactly_zero_through_training(arch, optimizer):
    model, images = trained_a_little(arch, 32)
    _, kept = random_plan(model, "weight")
    masks = cut(model, kept, "weight", structure_of(model, images.shape[1], 32))
    pruner = WeightMasks(model, masks)
    how = {"momentum": 0.9, "weight_decay": 5e-4} if optimizer == "SGD" else {}
    stepper = getattr(torch.optim, optimizer)(model.parameters(), lr=0.01, **how)
    before = copy.deepcopy(model.state_dict())
    moved = dict.fromkeys(masks, False)
    for _ in range(4):
        stepper.zero_grad()
        model.train()(images).square().mean().backward()
        pruner.after_backward()
        stepper.step()
        for name, mask in masks.items():
            moved[name] |= bool(model.get_submodule(name).weight[~mask].any())
        pruner.after_step()
        for name, mask in masks.items():
            weight = model.get_submodule(name).weight
            assert (weight[~mask] == 0).all()
    assert any(moved.values())  # without the masks they would have come back
    for name, mask in masks.items():
        weight = model.get_submodule(name).weight
        assert (weight[mask] != before[f"{name}.weight"][mask]).any()


def test_masks_zero_nonzero_pruned_weights_of_a_file():
    model, _ = trained_a_little("lenet5_mini", 32)
    mask = torch.rand_like(model.features[0].weight) < 0.5
    WeightMasks(model, {"features.0": mask})
    assert (model.features[0].weight[~mask] == 0).all()
    assert (model.features[0].weight[mask] != 0).all()
