"""Where picks come from, what is done with a cut besides, and networks that other programs wrote."""

import copy
import csv
import itertools
import json
import re
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import SHORT_GREG, run_program, short_phase, write_image_folder, write_npz_set
from safetensors.torch import save_file
from torch import nn

from data import DataSource
from model import build_model, load_pruned
from pruner import PRUNERS
from pruner.groups import KINDS
from utils.config.cli import parse
from utils.engine.evaluate import evaluate
from utils.pipeline.probes import add_noise, jacobian_singular_values, jacobians, noisy_ensemble_acc1
from utils.pipeline.prune import candidate_training_loss

TINY = ("--dataset", "digits", "--arch", "lenet5_mini", "--seed", "3", "--batch_size", "256", "--lr", "0.003")
CUT = ("--stage_pr", "[1:0.2, 2:0.3, 3:0.5]")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A trained lenet5_mini."""
    ran = run_program(tmp_path_factory.mktemp("base"), *TINY, "--method", "none", "--epochs", 4)
    assert ran.code == 0
    return ran.weights("checkpoint_best")


@pytest.fixture
def prune(base, tmp_path):
    """Prune the trained network in a new directory; must succeed."""
    numbers = itertools.count()

    def call(*words, start=base):
        ran = run_program(tmp_path / str(next(numbers)), *TINY, "--base_model_path", start, "--epochs", 0, *words)
        assert ran.code == 0, ran.err
        return ran

    return call


def kept_by(ran):
    return ran.load("pruned_model")["kept"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", PRUNERS)
def test_every_pruner_cuts_as_planned_and_its_file_is_loaded(method, kind, prune, tmp_path):
    """Covers new pruners without changes."""
    words = ("--method", method, "--wg", kind, "--stage_pr", "[4:0.01]" if kind == "weight" else "[2:0.1]")
    ran = prune(*words, *short_phase(method))
    plan = json.loads(run_program(tmp_path / "plan", *TINY, *words, "--plan=json").out)
    planned = {layer["name"]: layer["pruned"] for layer in plan["layers"] if layer["pruned"]}
    name = "pruned_model" if planned else "checkpoint"  # what is not pruned has no pruned file
    assert ran.weights("pruned_model").exists() == bool(planned)
    saved = ran.load(name)
    held = saved["masks"] if kind == "weight" else saved["kept"]
    assert {name: int((~mask).sum()) for name, mask in held.items()} == planned
    assert bool(planned) == (method != "none")
    assert ran.report["params_after"] == plan["params1"]
    again = run_program(tmp_path / "elsewhere", *TINY, "--evaluate", "--base_model_path", ran.weights(name).resolve())
    after = ran.report["acc1_after_cut"] if planned else ran.report["acc1_base"]
    assert f"acc1 {after:.2f} " in again.out
    assert f"params {plan['params1']:,} " in again.out


def test_random_selection_follows_the_seed(prune):
    words = ("--method", "L1", "--pick_pruned", "rand", *CUT)
    first, again, other = prune(*words), prune(*words), prune(*words, "--seed", 4)
    for name, mask in kept_by(first).items():
        assert mask.equal(kept_by(again)[name])
    assert any(not mask.equal(kept_by(other)[name]) for name, mask in kept_by(first).items())


@pytest.mark.parametrize(("how", "sign"), [("min", 1), ("max", -1)])
def test_selection_is_by_magnitude(prune, base, how, sign):
    weights = torch.load(base, weights_only=True)["model"]
    for name, mask in kept_by(prune("--method", "L1", "--pick_pruned", how, *CUT)).items():
        scores = sign * weights[f"{name}.weight"].abs().flatten(1).mean(1)
        assert scores[~mask].max() <= scores[mask].min()


@pytest.mark.parametrize("method", ["L1", "GReg-1"])
def test_the_kept_groups_of_another_run_are_inherited(prune, method):
    random = prune("--method", "L1", "--pick_pruned", "rand", *CUT)
    heir = prune("--method", method, "--base_pr_model", random.weights("pruned_model"), *SHORT_GREG)
    for name, mask in kept_by(random).items():
        assert mask.equal(kept_by(heir)[name])
        assert f"{name}: inherited selection overlaps" in heir.log
        assert 0 <= heir.report["l1_comparison"][name]["overlap"] <= 1


@pytest.mark.parametrize("words", [("--method", "L1", "--inherit_pruned", "pr"), ("--method", "GReg-2", *SHORT_GREG)])
def test_only_numbers_are_inherited_if_requested_or_by_greg_2(prune, words):
    random = prune("--method", "L1", "--pick_pruned", "rand", *CUT)
    heir = prune("--base_pr_model", random.weights("pruned_model"), *words)
    assert {n: int(m.sum()) for n, m in kept_by(random).items()} == {n: int(m.sum()) for n, m in kept_by(heir).items()}
    assert any(not mask.equal(kept_by(heir)[name]) for name, mask in kept_by(random).items())


def test_masks_are_inherited(prune):
    first = prune("--method", "L1", "--wg", "weight", "--pick_pruned", "rand", *CUT)
    heir = prune("--method", "L1", "--wg", "weight", "--base_pr_model", first.weights("pruned_model"))
    for name, mask in first.load("pruned_model")["masks"].items():
        assert mask.equal(heir.load("pruned_model")["masks"][name])


@pytest.mark.parametrize(
    ("words", "message"),
    [(CUT, "exclude each other"), (("--wg", "channel"), "use --wg filter"), (("--arch", "lenet5"), "not a lenet5")],
)
def test_inheriting_from_another_network_is_refused(prune, base, tmp_path, words, message):
    source = prune("--method", "L1", *CUT).weights("pruned_model")
    ran = run_program(
        tmp_path / "refused", *TINY, "--method", "L1", "--base_model_path", base, "--base_pr_model", source, *words
    )
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "refused" / "Experiments").exists()


def test_orthogonal_weights_after_the_cut(prune):
    network = load_pruned(prune("--method", "L1", *CUT, "--reinit", "orth").weights("checkpoint"))
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            rows = module.weight.flatten(1)
            rows = rows if len(rows) <= rows.shape[1] else rows.T
            torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)


def test_pruned_weights_are_zero_in_every_file_of_a_restarted_masked_network(prune):
    ran = prune("--method", "L1", "--wg", "weight", *CUT, "--reinit", "orth")
    for name in ("pruned_model", "checkpoint_just_finished_prune", "checkpoint_best"):
        saved = ran.load(name)
        assert saved["masks"]
        for layer, mask in saved["masks"].items():
            assert (saved["model"][f"{layer}.weight"][~mask] == 0).all()


def test_starting_the_cut_network_from_scratch(prune):
    plain, anew = (prune("--method", "L1", *CUT, *words) for words in ((), ("--reinit", "kaiming")))
    a, b = (ran.load("checkpoint")["model"] for ran in (plain, anew))
    assert all(a[key].shape == b[key].shape for key in a)
    assert not any(a[key].equal(b[key]) for key in a if key.endswith("weight"))
    assert all((b[key] == 0).all() for key in b if key.endswith("bias"))


def test_greg_warns_that_it_ignores_reinit(prune):
    ran = prune("--method", "GReg-1", *CUT, *SHORT_GREG, "--reinit", "orth")
    assert "no effect under --method GReg-1: --reinit" in ran.err


def test_the_oracle_finds_the_combination_of_lowest_training_loss(prune, base):
    few = ("--train_images", 200)
    ran = prune("--method", "Oracle", "--stage_pr", "[1:0.19, 2:0.1]", *few)  # int(1.9) and int(1.0): one of 10 each
    assert "Oracle: 100 combinations to try" in ran.err
    data = DataSource("digits", "./data").load(3, 0, torch.device("cpu"), train_images=200)

    def loss_without(first, second):
        network = load_pruned(base)
        with torch.no_grad():
            for layer, index in ((network.features[3], first), (network.features[6], second)):
                layer.weight[index], layer.bias[index] = 0, 0
        return evaluate(network, data.train_once())["loss"]

    losses = {pair: loss_without(*pair) for pair in itertools.product(range(10), repeat=2)}
    gone = tuple(int((~kept_by(ran)[name]).nonzero()) for name in ("features.3", "features.6"))
    assert losses[gone] == pytest.approx(min(losses.values()), rel=1e-5)


def test_the_oracle_refuses_absurd_counts(tmp_path):
    words = ("--dataset", "digits", "--arch", "vgg11", "--method", "Oracle", "--stage_pr", "[1-3:0.5]", "--plan")
    ran = run_program(tmp_path, *words)
    assert ran.code == 2
    assert "at most 20,000" in ran.err


def test_the_oracle_compares_candidates_before_fine_tuning(prune):
    words = ("--oracle_pruning", "--stage_pr", "[1:0.1]", "--epochs", 1, "--lr_ft", "0:0.01")
    plain, tuned = prune(*words), prune(*words, "--ft_in_oracle_pruning")
    assert "fine-tuned" not in plain.log
    found = re.findall(r"candidate with training loss ([0-9.]+); fine-tuned: test acc1 ([0-9.]+) ", tuned.log)
    before, accuracies = (list(map(float, column)) for column in zip(*found, strict=True))
    assert len(found) == 10
    assert all(0 <= accuracy <= 100 for accuracy in accuracies)
    assert f"the best of 10 combinations has training loss {min(before):.5f}" in tuned.log
    for name, mask in kept_by(plain).items():
        assert mask.equal(kept_by(tuned)[name])
        assert int((~mask).nonzero()) == before.index(min(before))


def test_a_candidates_loss_is_that_before_fine_tuning(base):
    options, _ = parse([str(word) for word in (*TINY, "--method", "Oracle", "--ft_in_oracle_pruning", "--epochs", 1)])
    data = DataSource("digits", "./data").load(3, 0, torch.device("cpu"))
    candidate = load_pruned(base)
    loss = evaluate(candidate, data.train_once())["loss"]
    assert candidate_training_loss(options, data)(candidate, {}) == loss
    assert evaluate(candidate, data.train_once())["loss"] != loss


@pytest.mark.parametrize("second", ["[1:0.5]", "[0:0.5]", "[0:0.2,1:0.3,2:0.4]"])
@pytest.mark.parametrize("kinds", [("filter", "filter"), ("filter", "channel"), ("channel", "filter")], ids="-".join)
def test_a_network_pruned_twice_is_fine_tuned_with_the_costs_that_it_has(prune, kinds, second):
    if kinds[1] == "channel":
        second = second.replace("0:", "3:")
    first = prune("--method", "L1", "--wg", kinds[0], *CUT)
    pruned_again = ("--method", "L1", "--wg", kinds[1], "--stage_pr", second)
    twice = prune(*pruned_again, start=first.weights("pruned_model"))
    file = twice.weights("pruned_model")
    again = prune("--method", "L1", "--wg", kinds[1], "--directly_ft_weights", file)
    for cost in ("params", "params_with_bn", "flops"):
        assert again.report[f"{cost}_after"] == twice.report[f"{cost}_after"]
        assert again.report[f"{cost}_before"] == first.report[f"{cost}_before"]
    resumed = run_program(again.cwd, "--resume_path", again.run_dir, "--epochs", "1")
    assert resumed.code == 0, resumed.err
    assert resumed.report["flops_after"] == twice.report["flops_after"]


@pytest.mark.parametrize("kind", ["filter", "weight"])
def test_directly_ft_weights_fine_tunes_any_kind(prune, kind):
    first = prune("--method", "L1", "--wg", kind, *CUT)
    again = prune("--method", "L1", "--wg", kind, "--directly_ft_weights", first.weights("pruned_model"), "--epochs", 1)
    assert again.report["params_after"] == first.report["params_after"]
    before, after = first.load("pruned_model"), again.load("pruned_model")
    assert any(not before["model"][key].equal(after["model"][key]) for key in before["model"])
    for name, mask in before["masks"].items():
        assert mask.equal(after["masks"][name])
        assert (after["model"][f"{name}.weight"][~mask] == 0).all()
    for name, mask in before["kept"].items():
        assert mask.equal(after["kept"][name])


def test_masked_weights_are_zero_and_sparsity_is_reported_by_layer(prune):
    ran = prune("--method", "GReg-2", "--wg", "weight", *CUT, *SHORT_GREG, "--epochs", 2)
    saved, report = ran.load("checkpoint"), ran.report
    assert {name: 1 - mask.float().mean().item() for name, mask in saved["masks"].items()} == pytest.approx(
        {name: s for name, s in report["sparsity_per_layer"].items() if s}, abs=1e-6
    )
    for name, mask in saved["masks"].items():
        assert mask.dtype == torch.bool
        assert (saved["model"][f"{name}.weight"][~mask] == 0).all()
    assert set(report["gap"]) == set(saved["masks"])


def test_the_pruned_file_is_smaller_than_the_dense_one(prune, base):
    ran = prune("--method", "L1", *CUT, "--save_init_model")
    dense, pruned = ran.weights("checkpoint_init"), ran.weights("pruned_model")
    assert pruned.stat().st_size < dense.stat().st_size
    start = torch.load(base, weights_only=True)["model"]
    assert all(value.equal(start[key]) for key, value in ran.load("checkpoint_init")["model"].items())


def test_the_logs_of_the_prune_phase(prune):
    ran = prune(
        *("--method", "GReg-2", *CUT, *SHORT_GREG, "--plot_interval", 2, "--save_mag_reg_log", "--save_order_log")
    )
    with np.load(ran.run_dir / "log" / "mag_features.3.npz") as found:
        assert found["steps"].tolist() == [0, 2, 4]
        assert found["scores"].shape == (3, 10)
    rows = list(csv.DictReader((ran.run_dir / "log" / "order_log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows if row["layer"] == "features.6"] == ["0", "2", "4", "6"]
    assert all(row["kendall"] == row["spearman"] == "1.0000" for row in rows if row["step"] == "0")
    comparison = ran.report["l1_comparison"]["features.3"]
    assert 0 <= comparison["overlap"] <= 1
    assert -1 <= comparison["kendall"] <= comparison["spearman"] <= 1


def test_an_ensemble_without_noise_is_the_network(base):
    data = DataSource("digits", "./data").load(3, 0, torch.device("cpu"))
    network = load_pruned(base).train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    quiet = noisy_ensemble_acc1(network, data, 0.0, 2, seed=0)
    assert quiet == pytest.approx(evaluate(network, data.train_once())["acc1"])
    assert noisy_ensemble_acc1(network, data, 1.0, 2, seed=0) < quiet
    assert network.training
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())


def test_noise_does_not_change_biases():
    """Of convs, linear layers and batch-norm; every weight has noise, batch-norm's γ too."""
    network = small_net_with_batch_norm()
    before = {name: value.clone() for name, value in network.named_parameters()}
    add_noise(network, 0.5, torch.Generator().manual_seed(0))
    for name, value in network.named_parameters():
        assert (value == before[name]).all() if name.endswith("bias") else (value != before[name]).all()
    noise = network[-2].weight - before["4.weight"]
    assert noise.std().item() == pytest.approx(0.5, rel=0.5)


def test_a_linear_networks_jacobian_is_the_product_of_its_weights():
    data = DataSource("digits", "./data").load(3, 0, torch.device("cpu"))
    network = build_model("mlp_7_linear", 10, 1, 32)
    product = torch.eye(1024)
    for module in network:
        if isinstance(module, nn.Linear):
            product = module.weight.detach() @ product
    values = torch.linalg.svdvals(product)
    found = jacobian_singular_values(network, data, 1)
    assert found["max"] == pytest.approx(values.max().item(), rel=1e-3)
    assert found["mean"] == pytest.approx(values.mean().item(), rel=1e-3)


def small_net_with_batch_norm() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2), nn.Dropout(0.5)
    return nn.Sequential(*layers)


def test_an_images_jacobian_is_of_its_own_outputs_within_the_batch():
    """Compared with differences: batch-norm's statistics move with the one image whose pixels move."""
    network = small_net_with_batch_norm()[:-1].double().train()
    images = torch.randn(5, 1, 4, 4, dtype=torch.float64)
    found = jacobians(network, images)
    assert found.shape == (5, 2, 16)
    step = 1e-6
    for i in range(5):
        for pixel in range(16):
            moved = [images.clone(), images.clone()]
            for sign, batch in zip((1, -1), moved, strict=True):
                batch[i].view(-1)[pixel] += sign * step
            with torch.no_grad():
                slope = (network(moved[0])[i] - network(moved[1])[i]) / (2 * step)
            torch.testing.assert_close(found[i, :, pixel], slope, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(found, jacobians(network.eval(), images), rtol=0.01)


def test_the_jacobian_is_taken_in_training_mode_on_a_copy():
    network = small_net_with_batch_norm().eval()
    batches = [(torch.randn(40, 1, 4, 4), torch.zeros(40)) for _ in range(3)]
    data = SimpleNamespace(statistics_batches=lambda: iter(batches))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    torch.manual_seed(1)
    numbers = torch.get_rng_state()
    found = jacobian_singular_values(network, data, 2)
    assert torch.get_rng_state().equal(numbers)
    assert not network.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(value.equal(before[key]) for key, value in network.state_dict().items())
    clone = copy.deepcopy(network).train()
    values = torch.cat([torch.linalg.svdvals(jacobians(clone, images[:32])).flatten() for images, _ in batches[:2]])
    assert found["max"] == pytest.approx(values.max().item())
    assert found["std"] == pytest.approx(values.std().item())


def test_probes_are_reported(prune):
    words = ("--model_noise_std", 0.01, "--model_noise_num", 2, "--check_jsv_loop", 1)
    report = prune("--method", "L1", "--stage_pr", "[1:0.2]", *words).report
    assert 0 < report["noisy_ensemble_acc1"] <= 100
    assert report["jacobian_singular_values"]["min"] <= report["jacobian_singular_values"]["max"]


def test_vgg_without_batch_norm(tmp_path):
    words = ("--dataset", "digits", "--arch", "vgg11", "--not_use_bn", "--method", "L1", "--stage_pr", "[1-7:0.9]")
    ran = run_program(tmp_path, *words, "--allow_untrained", "--epochs", 0, "--batch_size", 256)
    assert ran.code == 0, ran.err
    network = load_pruned(ran.weights("pruned_model"))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
    refused = run_program(tmp_path / "no", "--dataset", "digits", "--arch", "resnet20", "--not_use_bn", "--plan")
    assert refused.code == 2
    assert "without batch-norm" in refused.err


def test_params_json_gives_defaults_under_config_and_command_line(tmp_path):
    (tmp_path / "p.json").write_text('{"epochs": 7, "seed": 5, "lr": 0.5, "arch": "vgg11"}')
    (tmp_path / "c.yaml").write_text("epochs: 8\nseed: 6\n")
    words = ("--params_json", tmp_path / "p.json", "--config", tmp_path / "c.yaml", "--seed", 7)
    ran = run_program(tmp_path / "run", "--dataset", "digits", *words, "--plan=json")
    assert ran.code == 0, ran.err
    assert '"arch": "vgg11"' in ran.out
    assert f'"finetune": {8 * 6}' in ran.out
    (tmp_path / "p.json").write_text('{"epohcs": 7}')
    ran = run_program(tmp_path / "run", "--dataset", "digits", "--params_json", tmp_path / "p.json", "--plan")
    assert ran.code == 2
    assert "--params_json" in ran.err
    assert "'epohcs'" in ran.err


@pytest.mark.parametrize(("words", "message"), [(("--gpu", 1), "--gpu 1"), (("--start-epoch", 3), "--start_epoch")])
def test_flags_without_effect_here_give_a_notice(tmp_path, monkeypatch, words, message):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    ran = run_program(tmp_path, "--dataset", "digits", "--arch", "resnet20", *words, "--plan")
    assert ran.code == 0
    assert message in ran.err
    assert len(ran.err.splitlines()) == 1


# --- torchvision's weights and networks --------------------------------------------------------------------


def test_pretrained_is_refused_for_a_network_without_trained_weights(tmp_path):
    ran = run_program(tmp_path, "--dataset", "cifar10", "--arch", "resnet56", "--pretrained", "--plan")
    assert ran.code == 2
    assert "there are no weights of resnet56" in ran.err
    ran = run_program(tmp_path, "--dataset", "imagenet", "--arch", "resnet50", "--pretrained", "V9", "--plan")
    assert ran.code == 2
    assert "there are IMAGENET1K_V1, IMAGENET1K_V2" in ran.err


def test_a_failed_download_of_weights_names_the_file_and_its_place(tmp_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no network")

    folder = write_image_folder(tmp_path / "pets")
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    words = ("--dataset", "folder", "--data_path", folder, "--arch", "resnet18", "--pretrained", "--epochs", 0)
    ran = run_program(tmp_path / "run", *words, "--workers", 0)
    assert ran.code == 2
    assert "resnet18-f37072fd.pth" in ran.err
    assert str(tmp_path / "hub" / "checkpoints") in ran.err
    assert len(ran.err.splitlines()) == 1


def test_weights_in_the_cache_are_the_base(tmp_path, monkeypatch):
    folder = write_image_folder(tmp_path / "pets")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    there = build_model("resnet18", 1000, 3, 224).state_dict()
    torch.save(there, place / "resnet18-f37072fd.pth")
    words = ("--dataset", "folder", "--data_path", folder, "--arch", "resnet18", "--pretrained", "--epochs", 0)
    cut_words = ("--method", "L1", "--speedup", 2, "--rank", "global", "--save_init_model")  # which loads them twice
    ran = run_program(tmp_path / "run", *words, *cut_words, "--workers", 0)
    assert ran.code == 0, ran.err
    assert ran.err.count("fc.weight, fc.bias start untrained") == 1
    assert "fc.weight, fc.bias start untrained" in ran.log
    init = ran.load("checkpoint_init")["model"]
    assert all(value.equal(there[key]) for key, value in init.items() if not key.startswith("fc."))
    assert ran.report["base_model"] == "torchvision's ResNet18_Weights.IMAGENET1K_V1"


@pytest.mark.parametrize("classes", [6, 64])  # as many as the first conv has filters
def test_trained_weights_are_refused_for_images_of_other_channels(classes, tmp_path, monkeypatch):
    images = write_npz_set(tmp_path / "grey", train=2 * classes, test=classes, size=72, classes=classes)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save(build_model("resnet18", 1000, 3, 224).state_dict(), place / "resnet18-f37072fd.pth")
    words = ("--dataset", "npz", "--data_path", images, "--arch", "resnet18", "--pretrained", "--method", "none")
    ran = run_program(tmp_path / "run", *words, "--epochs", 1)
    assert ran.code == 2
    assert "conv1.weight" in ran.err.splitlines()[-1]
    assert not (tmp_path / "run" / "Experiments").exists()


def test_any_torchvision_network_trains_and_those_without_addresses_are_not_pruned(tmp_path):
    folder = write_image_folder(tmp_path / "pets")
    words = ("--dataset", "folder", "--data_path", folder, "--arch", "squeezenet1_1", "--batch_size", 3)
    ran = run_program(tmp_path / "run", *words, "--method", "none", "--epochs", 1, "--workers", 0)
    assert ran.code == 0, ran.err
    assert ran.report["acc1_last"] is not None
    ran = run_program(tmp_path / "no", *words, "--method", "L1", "--stage_pr", "[0:0.5]", "--plan")
    assert ran.code == 2
    assert "resnet*" in ran.err


# --- files of other tools ----------------------------------------------------------------------------------


def test_safetensors_are_read(base, tmp_path):
    save_file(torch.load(base, weights_only=True)["model"], tmp_path / "base.safetensors")
    theirs, ours = (
        run_program(tmp_path, *TINY, "--evaluate", "--base_model_path", file)
        for file in (tmp_path / "base.safetensors", base)
    )
    assert theirs.code == 0
    assert theirs.out.split("test images")[1] == ours.out.split("test images")[1]
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    assert run_program(tmp_path, *TINY, "--evaluate", "--base_model_path", tmp_path / "junk.safetensors").code == 2


LOOKALIKE = """
    import sys, torch
    from torch import nn

    class Net(nn.Module):  # of a program whose classes are not to be had here
        def __init__(self, second):
            super().__init__()
            self.features = nn.Sequential(
                nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(10, second, 5), nn.ReLU(), nn.MaxPool2d(2),
                nn.Conv2d(second, 10, 5), nn.ReLU())
            self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(10, 10), nn.ReLU(), nn.Linear(10, 10))

    Net.__module__ = "theirs"
    sys.modules["theirs"] = sys.modules["__main__"]
    torch.manual_seed(0)
    torch.save({"arch": "lenet", "model": nn.DataParallel(Net(int(sys.argv[2]))), "ExpID": "x"}, sys.argv[1])
"""


@pytest.mark.parametrize("width", [10, 7])
def test_a_pickled_network_is_read_only_with_trust_checkpoint(tmp_path, width):
    file = tmp_path / "theirs.pth"
    subprocess.run([sys.executable, "-c", textwrap.dedent(LOOKALIKE), str(file), str(width)], check=True)
    words = (*TINY, "--evaluate", "--base_model_path", file)
    refused = run_program(tmp_path, *words)
    assert refused.code == 2
    assert "--trust_checkpoint" in refused.err
    trusted = run_program(tmp_path, *words, "--trust_checkpoint")
    assert trusted.code == 0, trusted.err
    assert "running code from" in trusted.err
    shrunk = 250 * (10 - width) * 2 + (10 - width)  # its filters, its readers' channels, its biases
    assert f"params {5500 - shrunk:,} " in trusted.out
    pruning = run_program(
        tmp_path, *words[:-3], "--method", "L1", *CUT, *words[-2:], "--trust_checkpoint", "--epochs", 0
    )
    assert pruning.code == (0 if width == 10 else 2)
