"""Networks by name, their sizes, their layers' addresses, and their way back from a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision.models as tv
from torch import nn

import main
import model as door
from model.build import WITH_HEADS
from model.resnet import BasicBlock
from pruner.layers import is_residual, layers_of
from utils.config.cli import parse
from utils.config.options import to_plain

ROOT = Path(__file__).parents[2]


def on_meta(arch: str, classes: int = 10, channels: int = 3, size: int = 32) -> nn.Module:
    with torch.device("meta"):
        return door.build_model(arch, classes, channels, size)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def count_conv_and_linear(model: nn.Module) -> int:
    return sum(count(module) for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear))


def addresses(arch: str, size: int = 32) -> dict[str, str]:
    return {layer.name: layer.address for layer in layers_of(on_meta(arch, size=size))}


@pytest.mark.parametrize(("classes", "channels"), [(10, 3), (7, 1), (200, 2)])
@pytest.mark.parametrize("arch", door.CIFAR_MODELS)
def test_every_small_network_adapts_to_classes_and_channels(arch, classes, channels):
    model = on_meta(arch, classes, channels)
    images = torch.empty(2, channels, 32, 32, device="meta")
    assert model(images).shape == (2, classes)


@pytest.mark.parametrize("arch", door.CIFAR_MODELS)
def test_every_small_network_learns_from_its_first_step(arch):
    torch.manual_seed(0)
    model = door.build_model(arch, 10, 1, 32)
    model(torch.randn(2, 1, 32, 32)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert all(m.weight.grad.abs().max() > 0 for m in model.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize("arch", ["resnet18", "vgg11", "alexnet"])
def test_torchvision_networks_adapt_to_classes_and_channels(arch):
    model = on_meta(arch, classes=6, channels=1, size=96)
    assert type(model).__module__.startswith("torchvision")
    assert model(torch.empty(2, 1, 96, 96, device="meta")).shape == (2, 6)


def test_a_torchvision_network_is_torchvisions_own():
    torch.manual_seed(0)
    ours = door.build_model("resnet18", 1000, 3, 224)
    assert ours.state_dict().keys() == tv.resnet18().state_dict().keys()
    assert count(ours) == 11_689_512


@pytest.mark.parametrize(("size", "small"), [(28, True), (64, True), (65, False), (224, False)])
def test_the_size_of_the_images_decides_between_two_networks_of_one_name(size, small):
    assert door.is_small("vgg16", size) == small
    assert isinstance(on_meta("vgg16", size=size), tv.VGG) != small
    assert door.is_small("resnet56", size)
    assert not door.is_small("resnet50", size)


def test_sizes_are_the_published_ones():
    assert count(on_meta("resnet56")) == 853_018
    assert count_conv_and_linear(on_meta("resnet56")) == 848_954
    assert count_conv_and_linear(on_meta("vgg19", classes=100)) == 20_070_180
    assert count(on_meta("resnet50", classes=1000, size=224)) == 25_557_032
    assert count(on_meta("lenet5", channels=1)) == 61_706
    assert count(on_meta("mlp_7_linear", channels=1)) == 1024 * 100 + 100 + 5 * (100 * 100 + 100) + 100 * 10 + 10


@pytest.mark.parametrize(("arch", "blocks"), [("resnet20", 3), ("resnet32", 5), ("resnet44", 7), ("resnet110", 18)])
def test_the_depth_of_a_small_resnet_gives_its_number_of_blocks(arch, blocks):
    model = on_meta(arch)
    assert [len(stage) for stage in (model.layer1, model.layer2, model.layer3)] == [blocks] * 3
    assert len(layers_of(model)) == int(arch.removeprefix("resnet"))


def test_the_miniature_lenet_has_ten_of_everything():
    shapes = [layer.shape for layer in layers_of(on_meta("lenet5_mini", channels=1))]
    assert shapes == [(10, 1, 5, 5), (10, 10, 5, 5), (10, 10, 5, 5), (10, 10), (10, 10)]


def test_the_perceptron_is_linear():
    torch.manual_seed(0)
    model = door.build_model("mlp_7_linear", 10, 1, 32).double()
    a, b = torch.randn(2, 1, 1, 32, 32, dtype=torch.double)
    torch.testing.assert_close(model(a + b) + model(0 * a), model(a) + model(b))


def test_the_shortcut_subsamples_and_pads_with_zero_channels_on_both_sides():
    block = BasicBlock(2, 6, stride=2).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.arange(1.0, 33).view(1, 2, 4, 4)
    out = block(x)
    assert out.shape == (1, 6, 2, 2)
    assert out[0, [0, 1, 4, 5]].abs().max() == 0
    assert out[0, 2].tolist() == [[1, 3], [9, 11]]
    assert out[0, 3].tolist() == [[17, 19], [25, 27]]
    assert {name.split(".")[0] for name, _ in block.named_parameters()} == {"conv1", "bn1", "conv2", "bn2"}


def test_a_block_that_keeps_its_width_adds_its_input():
    block = BasicBlock(3, 3, stride=1).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 3, 5, 5)
    assert block(x).equal(x.relu())


@pytest.mark.parametrize("arch", ["resnet57", "", "ResNet56", "vgg19_bn2", "torch"])
def test_an_unknown_network_is_refused_with_names_of_known_ones(arch):
    with pytest.raises(ValueError, match=rf"'{arch}'.*resnet56.*vgg19"):
        door.build_model(arch, 10, 3, 32)


def test_every_name_on_the_list_can_be_built():
    assert set(door.CIFAR_MODELS) <= set(door.ARCHS)
    assert len(set(door.ARCHS)) == len(door.ARCHS)
    assert {"resnet18", "resnet34", "resnet50", "alexnet", "vgg16_bn"} <= set(door.ARCHS)


@pytest.mark.parametrize("size", [28, 64, 224])
def test_lenet_refuses_images_of_another_size(size):
    with pytest.raises(ValueError, match=f"32.*{size}"):
        door.build_model("lenet5", 10, 1, size)


def test_a_small_vgg_can_do_without_batch_norm():
    with torch.device("meta"):
        model = door.build_model("vgg19", 100, 3, 32, batch_norm=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert count(model) == 20_070_180  # no convs' biases
    with_norm = layers_of(on_meta("vgg19", classes=100))
    assert [layer.shape for layer in layers_of(model)] == [layer.shape for layer in with_norm]


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("arch", ["vgg11", "vgg19"])
def test_a_fresh_small_vgg_is_kaiming_normal_by_fan_in_with_zero_biases(arch, batch_norm):
    torch.manual_seed(0)
    model = door.build_model(arch, 100, 3, 32, batch_norm=batch_norm)
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    stds = [layer.weight.std().item() for layer in layers]
    assert stds == pytest.approx([(2 / layer.weight[0].numel()) ** 0.5 for layer in layers], rel=0.06)
    assert stds[0] == pytest.approx(0.272, rel=0.06)
    assert stds[-1] == pytest.approx(0.0625, rel=0.02)
    assert all(layer.weight.mean().abs() < 0.1 * std for layer, std in zip(layers, stds, strict=True))
    assert all((value == 0).all() for name, value in model.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(("arch", "size"), [("resnet56", 32), ("lenet5", 32), ("vgg16", 224), ("resnet50", 224)])
def test_other_nets_refuse_to_do_without_batch_norm(arch, size):
    with pytest.raises(ValueError, match=rf"{arch}.*batch-norm"):
        door.build_model(arch, 10, 3, size, batch_norm=False)


def test_orthogonal_reinitialization_changes_only_weights():
    torch.manual_seed(0)
    model = door.build_model("vgg11", 10, 3, 32)
    model(torch.randn(4, 3, 32, 32))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    door.reinitialize(model, "orth", lambda: model)
    weights = {f"{layer.name}.weight" for layer in layers_of(model)}
    assert {key for key, value in model.state_dict().items() if not value.equal(before[key])} == weights
    for key in weights:
        flat = model.state_dict()[key].flatten(1)
        gram = flat @ flat.T if flat.shape[0] <= flat.shape[1] else flat.T @ flat
        torch.testing.assert_close(gram, torch.eye(len(gram)), atol=1e-4, rtol=0)


def test_any_other_reinitialization_resets_all_parameters():
    torch.manual_seed(0)
    model = door.build_model("vgg11", 10, 3, 32)
    model(torch.randn(4, 3, 32, 32))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    nn.init.ones_(model.classifier.bias)
    door.reinitialize(model, "pth_reset", lambda: model)
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.running_var == 1).all()
            assert module.num_batches_tracked == 0
            assert not any(values.any() for values in (module.bias, module.running_mean))
        elif isinstance(module, nn.Conv2d | nn.Linear):
            assert not module.weight.equal(before[f"{name}.weight"])
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)
    assert not model.classifier.bias.any()


@pytest.mark.parametrize("arch", ["convnext_tiny", "swin_t", "vit_b_16", "regnet_y_400mf", "googlenet"])
def test_reinitialization_leaves_no_trained_parameter(arch):
    model = door.build_model(arch, 10, 3, 224)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 77.0)
    door.reinitialize(model, "kaiming", lambda: door.build_model(arch, 10, 3, 224))
    assert [name for name, parameter in model.named_parameters() if (parameter == 77.0).any()] == []


def test_reinitialization_takes_a_modules_own_tensors_from_a_new_network():
    class Norm(nn.Module):
        def __init__(self, n=4):
            super().__init__()
            self.scale = nn.Parameter(torch.arange(n) + 1.0)
            self.register_buffer("mean", torch.zeros(n))

    cut = nn.Sequential(Norm(3), nn.Linear(3, 2))
    cut[0].scale.data.fill_(77)
    cut[0].mean.fill_(77)
    door.reinitialize(cut, "kaiming", lambda: nn.Sequential(Norm(), nn.Linear(4, 2)))
    assert (cut[0].scale.tolist(), cut[0].mean.tolist()) == ([1, 2, 3], [0, 0, 0])


class ScaledConv(nn.Conv2d):
    """As timm's ScaledStdConv2d."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.gain = nn.Parameter(torch.ones(self.out_channels, 1, 1, 1))

    def forward(self, x):
        return self._conv_forward(x, self.weight * self.gain, self.bias)


def scaled_network():
    computed = nn.utils.parametrizations.weight_norm(nn.Linear(8, 8, bias=False))
    return nn.Sequential(ScaledConv(3, 8, 1), nn.Flatten(), computed)


def test_reinitialization_reaches_what_a_conv_has_beside_its_weight_and_what_its_weight_is_computed_from():
    trained = scaled_network()
    for parameter in trained.parameters():
        nn.init.constant_(parameter, 77.0)
    door.reinitialize(trained, "kaiming", scaled_network)
    assert [name for name, parameter in trained.named_parameters() if (parameter == 77.0).any()] == []
    assert (trained[0].gain == 1).all()
    door.reinitialize(trained, "orth", scaled_network)
    torch.testing.assert_close(trained[2].weight @ trained[2].weight.T, torch.eye(8))


@pytest.mark.parametrize("method", ["none", "L1"])
def test_a_network_that_would_pool_the_images_to_nothing_is_refused_in_one_line(method, capsys):
    argv = ["--arch=alexnet", "--dataset=cifar10", f"--method={method}", "--stage_pr=[0:0]", "--plan=json"]
    assert main.main(argv) == 2
    assert "alexnet" in capsys.readouterr().err.splitlines()[-1].lower()


# --- addresses


def test_addresses_of_a_small_residual_net():
    found = addresses("resnet20")
    assert found["conv1"] == "0"
    assert found["layer1.0.conv1"] == "1.0.0"
    assert found["layer2.2.conv2"] == "2.2.1"
    assert found["linear"] == "4"
    assert len(set(found.values())) == len(found) == 20
    assert addresses("resnet110")["layer1.10.conv1"] == "1.10.0"


def test_addresses_of_bottlenecks_and_their_shortcuts():
    found = addresses("resnet50", 224)
    assert (found["conv1"], found["fc"]) == ("0", "5")
    assert [found[f"layer2.3.conv{i}"] for i in (1, 2, 3)] == ["2.3.0", "2.3.1", "2.3.2"]
    assert found["layer4.0.downsample.0"].startswith("4.0.")
    assert len(set(found.values())) == len(found) == 54


@pytest.mark.parametrize(("arch", "size", "n"), [("vgg19", 32, 17), ("lenet5", 32, 5), ("mlp_7_linear", 32, 7),
                                                 ("alexnet", 224, 8), ("vgg16_bn", 224, 16)])  # fmt: skip
def test_addresses_of_a_single_branch_net_are_indices_in_order(arch, size, n):
    layers = layers_of(on_meta(arch, size=size))
    assert [layer.address for layer in layers] == [str(index) for index in range(n)]
    assert [layer.entry for layer in layers] == list(range(n))
    assert not is_residual(layers)


@pytest.mark.parametrize(("arch", "size"), [("resnet56", 32), ("resnet50", 224), ("vgg11", 32), ("alexnet", 224)])
def test_layers_are_all_convs_and_linears_in_the_order_of_the_network(arch, size):
    model = on_meta(arch, size=size)
    expected = [(n, tuple(m.weight.shape)) for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    layers = layers_of(model)
    assert [(layer.name, layer.shape) for layer in layers] == expected
    assert is_residual(layers) == arch.startswith("resnet")


@pytest.mark.parametrize(
    "arch", ["mobilenet_v2", "resnext50_32x4d", "densenet121", "googlenet", "inception_v3", "vit_b_16", "squeezenet1_1"]
)
def test_a_net_whose_layers_have_no_addresses_is_refused_with_those_that_have(arch):
    with pytest.raises(ValueError, match=r"resnet.*vgg.*alexnet.*lenet.*mlp"):
        layers_of(on_meta(arch, size=224))


# --- from a file


def narrow_vgg() -> nn.Module:
    """VGG11 with its first conv cut to 5 filters, by hand."""
    torch.manual_seed(0)
    model = door.build_model("vgg11", 4, 1, 32)
    conv, reader = model.features[0], model.features[4]
    model.features[0], model.features[1] = nn.Conv2d(1, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
    model.features[4] = nn.Conv2d(5, reader.out_channels, 3, padding=1, bias=False)
    model.features[0].weight.data, model.features[4].weight.data = conv.weight.data[3:8], reader.weight.data[:, 3:8]
    model.features[1].running_mean.copy_(torch.arange(5.0))
    return model.eval()


def saved(model: nn.Module) -> dict:
    """Return a checkpoint's content of a VGG11 for 4 classes of gray 32-pixel images."""
    options, _ = parse(["--dataset=cifar10", "--arch=vgg11"])
    data = {"name": "made", "classes": 4, "channels": 1, "size": 32}
    content = {"options": to_plain(options), "data": data, "kept": {}, "masks": {}, "model": model.state_dict()}
    return {"version": 1, **content}


def test_a_network_is_rebuilt_with_the_widths_of_its_weights():
    model = narrow_vgg()
    again = door.rebuild(saved(model)).eval()
    images = torch.randn(3, 1, 32, 32)
    assert again(images).equal(model(images))
    assert (again.features[0].out_channels, again.features[1].num_features, again.features[4].in_channels) == (5, 5, 5)
    assert all(parameter.requires_grad for parameter in again.parameters())
    assert again.features[1].running_mean.tolist() == [0, 1, 2, 3, 4]


def test_fitting_a_network_to_its_own_weights_changes_nothing():
    torch.manual_seed(0)
    model = door.build_model("resnet20", 4, 1, 32)
    before = {name: id(parameter) for name, parameter in model.named_parameters()}
    assert door.fit_to(model, model.state_dict()) is model
    assert {name: id(parameter) for name, parameter in model.named_parameters()} == before


def test_a_pruned_network_loads_in_one_call_from_any_working_directory(tmp_path):
    model, images = narrow_vgg(), torch.randn(3, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    file = tmp_path / "pruned_model.pth"
    torch.save(saved(model), file)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = (
        "import sys, torch\n"
        "from model import load_pruned\n"
        "model = load_pruned(sys.argv[1])\n"
        "assert not model.training\n"
        "torch.save(model(torch.load(sys.argv[2])), sys.argv[3])\n"
    )
    torch.save(images, elsewhere / "images.pt")
    subprocess.run(
        [sys.executable, "-c", script, "../pruned_model.pth", "images.pt", "outputs.pt"],
        cwd=elsewhere,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        timeout=120,
    )
    assert torch.load(elsewhere / "outputs.pt").equal(model(images))


# --- files that are not sound


def test_a_vgg_without_batch_norm_of_an_older_checkpoint_keeps_the_biases_of_its_convs():
    torch.manual_seed(0)
    for biases in (False, True):
        model = door.build_model("vgg11", 4, 1, 32, batch_norm=False)
        for module in model.modules():
            if isinstance(module, nn.Conv2d) and biases:
                module.bias = nn.Parameter(torch.randn(module.out_channels))
        # cut by hand: the first conv loses filters
        conv, reader = model.features[0], model.features[3]
        for layer, name, cut in ((conv, "weight", conv.weight[:5]), (reader, "weight", reader.weight[:, :5])):
            setattr(layer, name, nn.Parameter(cut.detach()))
        if biases:
            conv.bias = nn.Parameter(conv.bias[:5].detach())
        content = saved(model)
        content["options"]["not_use_bn"] = True
        again = door.rebuild(content).eval()
        assert again.state_dict().keys() == model.state_dict().keys()
        images = torch.randn(2, 1, 32, 32)
        assert again(images).equal(model.eval()(images))


def changed(content: dict, place: str, value: object) -> dict:
    """A copy of `content` with `value` at `place`; ``...`` removes what is there."""
    key, _, rest = place.partition("/")
    if rest:
        value = changed(content[key], rest, value)
    copied = {name: entry for name, entry in content.items() if name != key}
    return copied if value is ... else copied | {key: value}


def sound() -> dict:
    """A checkpoint's network part, with something in each of its places."""
    content = saved(narrow_vgg())
    mask = torch.ones(4, 512, dtype=torch.bool)
    return content | {"kept": {"features.0": torch.arange(64) < 5}, "masks": {"classifier": mask}}


WEIGHT, VARIANCE = "model/features.0.weight", "model/features.1.running_var"
UNSOUND = {
    "version": (..., None, "1", 0, -1, 1.5, True, [1]),
    "options": (..., None, {}, [], "vgg11", 3),
    "options/arch": (..., None, 7, "vgg12", "", ["vgg11"], torch.ones(2)),
    "options/not_use_bn": (..., None, 0, "false"),
    "data": (..., None, {}, [], "cifar10"),
    "data/classes": (..., None, 0, -4, 4.0, "4", True, [4], torch.tensor(4)),
    "data/channels": (..., 0, "1"),
    "data/size": (..., -32, None),
    "kept": (..., None, [], {"features.0": [True]}, {0: torch.ones(2).bool()}, {"features.0": torch.ones(64)}),
    "kept/features.0": (torch.ones(64, 1).bool(), torch.tensor(True)),
    "kept/nowhere": (torch.ones(64).bool(),),
    "masks": (..., None, "x", {"classifier": torch.ones(4, 512)}),
    "masks/classifier": (torch.ones(4).bool(), torch.ones(512, 4).bool(), None),
    "masks/nowhere": (torch.ones(64).bool(),),
    "model": (..., None, [], torch.ones(2), {1: torch.ones(2)}),
    WEIGHT: (
        None, 3, "text", torch.ones(5, 1, 3, 3).int(), torch.ones(5, 1, 3, 3).bool(), torch.ones(5, 1, 3, 3).cfloat(),
        torch.full((5, 1, 3, 3), torch.nan), torch.full((5, 1, 3, 3), -torch.inf), torch.ones(5, 1, 3, 3).to_sparse(),
        torch.ones(5, 1, 3, 3, device="meta"), torch.ones(5, 1, 3, 3).double() * 1e300,
    ),
    VARIANCE: (-torch.ones(5), torch.full((5,), torch.nan), torch.ones(5).long()),
}  # fmt: skip


def refused(call, *args) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers check the message
        call(*args)
    (line,) = str(caught.value).splitlines()
    return line


@pytest.mark.parametrize(("place", "value"), [(place, value) for place, values in UNSOUND.items() for value in values])
def test_an_invalid_checkpoint_is_refused_with_the_key(place, value, tmp_path):
    content = changed(sound(), place, value)
    line = refused(door.check_network, content, "x.pth")
    assert line.startswith("x.pth")
    assert place.split("/")[-1] in line or (place, value) == ("options", {})
    torch.save(content, tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in refused(door.load_pruned, tmp_path / "x.pth")


def test_a_valid_checkpoint_is_returned_unchanged():
    content = sound()
    assert door.check_network(content, "x.pth") is content
    swin = {"features.1.0.attn.relative_position_index": torch.arange(3)}
    door.check_network(changed(content, "model", content["model"] | swin), "x.pth")


MISFITS = {
    "a key too few": (WEIGHT, ..., "missing features.0.weight"),
    "a key too many": ("model/features.99.weight", torch.ones(2), "unexpected features.99.weight"),
    "wider than the network": (WEIGHT, torch.ones(65, 1, 3, 3), "features.0.weight (65, 1, 3, 3)"),
    "no filters": (WEIGHT, torch.ones(0, 1, 3, 3), "features.0.weight (0, 1, 3, 3)"),
    "fewer dimensions": (WEIGHT, torch.ones(5, 9), "features.0.weight (5, 9)"),
    "no dimensions": (WEIGHT, torch.tensor(1.0), "features.0.weight ()"),
    "filters without their batch-norm": (WEIGHT, torch.ones(6, 1, 3, 3), "do not fit each other"),
    "batch-norm of two lengths": (VARIANCE, torch.ones(6), "running_var should contain 5 elements not 6"),
    "channels that nothing makes": ("model/features.4.weight", torch.ones(128, 7, 3, 3), "do not fit each other"),
    "another number of classes": ("data/classes", 5, "4 outputs for 5 classes"),
    "fewer outputs than classes": (
        "model",
        narrow_vgg().state_dict() | {"classifier.weight": torch.ones(3, 512), "classifier.bias": torch.ones(3)},
        "3 outputs for 4 classes",
    ),
    "another network": ("options/arch", "resnet20", "does not fit the network"),
    "a network for images of another size": ("options/arch", "lenet5", "does not fit the network"),
    "images that it cannot take": ("data", {"classes": 4, "channels": 1, "size": 10**30}, "does not fit the network"),
    "classes beyond all bounds": ("data/classes", 10**30, "vgg11"),
    "no form without batch-norm": ("options", {"arch": "resnet20", "not_use_bn": True}, "batch-norm"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_network_that_cannot_be_rebuilt_is_refused_in_one_line(name, tmp_path):
    place, value, message = MISFITS[name]
    content = door.check_network(changed(saved(narrow_vgg()), place, value), "x.pth")
    line = refused(door.rebuild, content, "x.pth")
    assert line.startswith("x.pth")
    assert message in line
    torch.save(content, tmp_path / "x.pth")
    assert message in refused(door.load_pruned, tmp_path / "x.pth")


def test_a_checkpoint_in_another_floating_point_type_is_rebuilt_in_float32():
    content = saved(narrow_vgg().half())
    assert {value.dtype for value in door.rebuild(content).state_dict().values()} == {torch.float32, torch.int64}


def test_a_checkpoint_without_counts_of_batches_is_rebuilt():
    content = saved(narrow_vgg())
    content["model"] = {key: value for key, value in content["model"].items() if "num_batches" not in key}
    assert door.rebuild(content)(torch.randn(2, 1, 32, 32)).isfinite().all()


OTHERS = {
    "another program's weights": lambda file: torch.save({"state_dict": narrow_vgg().state_dict()}, file),
    "a plain state dict": lambda file: torch.save(narrow_vgg().state_dict(), file),
    "a tensor": lambda file: torch.save(torch.ones(3), file),
    "a pickled network": lambda file: torch.save(narrow_vgg(), file),
    "text": lambda file: file.write_text("weights\n"),
    "no bytes": lambda file: file.touch(),
    "a directory": lambda file: file.mkdir(),
    "half a file": lambda file: (torch.save(sound(), file), file.write_bytes(file.read_bytes()[:-5000])),
}


@pytest.mark.parametrize("name", OTHERS)
def test_load_pruned_refuses_another_file_with_what_to_do(name, tmp_path):
    file = tmp_path / "x.pth"
    OTHERS[name](file)
    for path in (file, str(file)):
        line = refused(door.load_pruned, path)
        assert line.startswith(str(file))
        assert "pruned_model.pth" in line


def test_load_pruned_refuses_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*x\.pth.*pruned_model\.pth"):
        door.load_pruned(tmp_path / "x.pth")


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("arch", sorted(WITH_HEADS))
def test_networks_whose_weights_are_for_rgb_read_other_images_too(arch, channels):
    network = on_meta(arch, channels=channels, size=96).eval()
    assert network(torch.zeros(2, channels, 96, 96, device="meta")).shape == (2, 10)
