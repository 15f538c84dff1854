"""Any network from the command line: plans to the digit, speedups that are met, and runs to the end."""

import importlib.util
import json

import pytest
import torch
import torchvision
from helpers import ROOT, run_program, write_npz_set

import main
from model import build_on_meta
from model.cost import cost_of, example
from pruner.cut import shrunk_copy
from pruner.layers import traced_layers
from pruner.proof import prove
from pruner.ratios import GlobRatios, plan_by_speedup, plan_of, rounded_width
from pruner.structure import Structure

ROWS = json.loads((ROOT / "tests" / "golden" / "networks.json").read_text())["rows"]
ONE_OF_EACH_KIND = {
    "alexnet", "vgg11", "resnet18", "resnext50_32x4d", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0",
    "densenet121", "googlenet", "squeezenet1_0", "mnasnet0_5", "shufflenet_v2_x0_5", "regnet_y_400mf", "convnext_tiny",
    "swin_t", "swin_v2_t", "vit_b_16", "maxvit_t",
}  # fmt: skip
TIMM = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="timm is not installed")


def golden(row):
    marks = [] if row["name"] in ONE_OF_EACH_KIND and row["lib"] == "tv" else [pytest.mark.slow]
    marks += [TIMM] if row["lib"] == "timm" else []
    return pytest.param(row, id=f"{row['lib']} {row['name']}", marks=marks)


@pytest.mark.parametrize("row", [golden(row) for row in ROWS])
def test_half_of_all_free_filters_is_planned_to_the_digit(row, capsys):
    arch = row["name"] if row["lib"] == "tv" else f"timm/{row['name']}"
    words = ["--dataset", "imagenet", "--arch", arch, "--method", "L1", "--ratios", "*:0.5", "--plan=json"]
    assert main.main(words) == 0
    plan = json.loads(capsys.readouterr().out)
    for key in ("params0", "flops0", "params1", "flops1"):
        assert plan[key] == row[key], key
    removed = {layer["name"]: layer["pruned"] for layer in plan["layers"] if layer["pruned"]}
    assert removed == row["removed"]
    assert sum(layer["status"] in ("free", "pruned") for layer in plan["layers"]) == row["free"]


@pytest.mark.slow
def test_a_network_with_auxiliary_heads_trains_is_pruned_and_evaluated(tmp_path):
    images = write_npz_set(tmp_path / "images", train=8, test=4, size=96, channels=3, classes=2)
    words = ["--dataset", "npz", "--data_path", images, "--arch", "googlenet", "--batch_size", "4", "--seed", "0"]
    base = run_program(tmp_path / "base", *words, "--method", "none", "--epochs", "1")
    assert base.code == 0, base.err
    file = base.weights("checkpoint_best")
    greg = ["--method", "GReg-1", "--speedup", "1.5", "--prune_steps", "6", "--batch_size_prune", "4", "--epochs", "1"]
    pruned = run_program(tmp_path / "pruned", *words, *greg, "--base_model_path", file)
    assert pruned.code == 0, pruned.err
    state = pruned.load("pruned_model")["model"]
    assert state["aux1.conv.conv.weight"].shape[1] < 512  # a head loses the columns that read pruned filters
    assert (
        run_program(
            tmp_path, "--evaluate", "--base_model_path", pruned.weights("pruned_model"), "--data_path", images
        ).code
        == 0
    )


FAST = {"resnet18", "mobilenet_v3_small", "squeezenet1_0", "regnet_y_400mf", "swin_t"}
BY_SPEEDUP = [
    pytest.param(arch, marks=[] if arch in FAST else pytest.mark.slow)
    for arch in sorted(ONE_OF_EACH_KIND - {"vgg11", "maxvit_t"})
]


@pytest.mark.parametrize("round_to", [1, 8])
@pytest.mark.parametrize("arch", BY_SPEEDUP)
def test_a_speedup_is_met_or_its_largest_value_is_named(arch, round_to):
    network = build_on_meta(arch, 1000, 3, 224)
    structure, total = Structure(network, example(network, 3, 224)), cost_of(network, 3, 224).flops
    numbers = {
        layer.name: rounded_width(layer, layer.count("filter") - 1, "filter", round_to)
        for layer in traced_layers(structure)
        if layer.prunable and layer.name not in structure.set_apart
    }
    everything = plan_of(traced_layers(structure), numbers, "filter")
    most = total / cost_of(shrunk_copy(network, everything, structure), 3, 224).flops
    for wanted in (1.25, 1.5, 2, 3):
        arguments = (structure, traced_layers(structure), wanted, total, GlobRatios(""), None, round_to)
        if wanted > most:
            with pytest.raises(ValueError, match=rf"cannot be reached: at most {most:.2f}x"):
                plan_by_speedup(*arguments)
            continue
        plan = plan_by_speedup(*arguments)
        reached = total / cost_of(shrunk_copy(network, plan, structure), 3, 224).flops
        coarse = arch == "regnet_y_400mf"  # whole groups of a grouped conv
        assert wanted <= reached <= wanted * (1.005 if round_to == 1 and not coarse else 1.02)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_network_of_torchvision_is_proved():
    """On random weights in float64: the cut network is the masked one, for all 80 networks."""
    refused = []
    for arch in torchvision.models.list_models(module=torchvision.models):
        heads = {"init_weights": False} if arch in ("googlenet", "inception_v3") else {}
        network = torchvision.models.get_model(arch, **heads)
        if sum(p.numel() for p in network.parameters()) > 200e6:
            continue  # the proof copies the network in float64
        image = torch.zeros(1, 3, 299 if arch == "inception_v3" else 224, 299 if arch == "inception_v3" else 224)
        structure = Structure(network, image)
        numbers = {name: layer.units // 2 for name, layer in structure.layers.items() if layer.units > 1}
        try:
            prove(network, plan_of(traced_layers(structure), numbers, "filter"), structure, image)
        except ValueError as error:
            refused.append(f"{arch}: {error}")
    assert refused == []
