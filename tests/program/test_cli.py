import csv
import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from helpers import PRUNE_STEPS, ROOT, SHORT_GREG, run_program, short_phase, write_image_folder, write_npz_set

import main
from model import load_pruned
from pruner import PRUNERS, proof
from utils.config.cli import parse
from utils.engine import precision
from utils.pipeline import latency

RESIDUAL, SINGLE_BRANCH = ("resnet20", "[0,0.5,0.25,0.5,0]"), ("lenet5", "[1-3:0.5]")
METHODS = ("none", "L1", "GReg-1", "GReg-2", "FixReg")
REPORTED = {
    "method", "arch", "dataset", "wg", "seed", "params_before", "params_after", "flops_before", "flops_after",
    "speedup", "compression", "acc1_base", "acc1_before_cut", "acc1_after_cut", "acc1_before_cut_bn",
    "acc1_after_cut_bn", "gap", "acc1_best", "best_epoch", "acc1_last", "iterations", "seconds", "images_per_second",
    "torch_version", "device", "data_name",
}  # fmt: skip
CHECKPOINT = {
    "version", "phase", "step", "epoch", "options", "kept", "masks", "model", "optimizer", "pruner", "rng", "best",
}  # fmt: skip
PRUNED_MODEL = {"version", "options", "kept", "masks", "model"}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Return small npz sets by network, in the size that each takes."""
    root = tmp_path_factory.mktemp("sets")
    return {
        "resnet20": write_npz_set(root / "small"),
        "vgg11": root / "small",
        "lenet5": write_npz_set(root / "of_32_px", size=32),
    }


def command(sets, method, arch, stage_pr="", *more):
    """Return the words of a run of one epoch on 40 images; later words override."""
    ratios = ["--stage_pr", stage_pr] if stage_pr and method != "none" else []
    return [
        *("--method", method, "--arch", arch, "--dataset", "npz", "--data_path", sets[arch], "--seed", "3"),
        *("--epochs", "1", "--batch_size", "16", "--lr", "0.001", "--lr_ft", "0:0.01", "--allow_untrained"),
        *(*ratios, *short_phase(method), *more),
    ]


@pytest.fixture(scope="module")
def runs(sets, tmp_path_factory):
    """Return a function that makes a run of (method, network) once and caches it."""
    made = {}

    def run(method, arch_and_ratios):
        arch, stage_pr = arch_and_ratios
        if (method, arch) not in made:
            cwd = tmp_path_factory.mktemp("run")
            made[method, arch] = run_program(cwd, *command(sets, method, arch, stage_pr))
        return made[method, arch]

    return run


@pytest.fixture(params=[(m, n) for m in METHODS for n in (RESIDUAL, SINGLE_BRANCH)], ids=lambda p: f"{p[0]}-{p[1][0]}")
def ran(request, runs):
    return runs(*request.param)


@pytest.fixture
def base(runs):
    """Return the best checkpoint of plain training of resnet20."""
    return runs("none", RESIDUAL).weights("checkpoint_best")


def same_weights(one, other):
    states = one.load("checkpoint")["model"], other.load("checkpoint")["model"]
    return all(torch.equal(states[0][key], states[1][key]) for key in states[0].keys() | states[1].keys())


# files and report of a run


def network_file(ran):
    """Return the file of the network: ``pruned_model``, or ``checkpoint_best`` if nothing is pruned."""
    return ran.weights("checkpoint_best" if ran.report["method"] == "none" else "pruned_model")


def test_a_run_succeeds_and_prints_a_closing_table(ran):
    assert ran.code == 0
    assert "accuracy on the test set" in ran.out
    assert str(ran.run_dir.name) in ran.out
    assert all(line.startswith("notice: ") for line in ran.err.splitlines())


def test_a_run_writes_into_one_directory_under_experiments_and_nowhere_else(ran):
    assert [file.name for file in ran.cwd.iterdir()] == ["Experiments"]
    method, arch = ran.report["method"], ran.report["arch"]
    assert re.fullmatch(rf"{method}__{arch}__npz_SERVER\w*-\d{{8}}-\d{{6}}", ran.run_dir.name)


def test_the_run_directory_holds_weights_and_logs(ran):
    weights = {file.name for file in (ran.run_dir / "weights").iterdir()}
    logs = {file.name for file in (ran.run_dir / "log").iterdir()}
    assert {
        "checkpoint.pth",
        "checkpoint_best.pth",
        "checkpoint_just_finished_prune.pth",
    } <= weights
    assert ("pruned_model.pth" in weights) is (ran.report["method"] != "none")
    assert {"log.txt", "params.yaml", "model_arch.txt", "report.json"} <= logs
    assert any(name.startswith("events.out.tfevents") for name in logs)
    assert all(file.stat().st_size for file in ran.run_dir.rglob("*") if file.is_file())
    (events,) = (ran.run_dir / "log").glob("events.out.tfevents*")
    tags = set(re.findall(rb"(?:prune|finetune)/[a-z_0-9]+", events.read_bytes()))
    assert b"finetune/test_acc1" in tags
    assert (b"prune/lambda" in tags) is PRUNERS[ran.report["method"]].has_prune_phase
    assert not [name for name in weights if name.endswith(".part")]


def test_methods_with_a_prune_phase_write_a_figure_and_a_checkpoint_after_growth(ran):
    penalized = PRUNERS[ran.report["method"]].has_prune_phase
    assert (ran.run_dir / "log" / "filter_norms.png").exists() is penalized
    assert ran.weights("checkpoint_just_finished_update_reg").exists() is penalized


def test_the_log_has_the_seed_the_plan_every_epoch_and_the_closing_table(ran):
    assert "seed 3" in ran.log
    assert "Plan:" in ran.log
    assert "epoch 0: lr" in ran.log
    assert "accuracy on the test set" in ran.log


def test_the_architecture_is_written_as_it_was_before_the_cut(ran):
    text = (ran.run_dir / "log" / "model_arch.txt").read_text()
    assert "Conv2d(16, 16" in text if ran.report["arch"] == "resnet20" else "Conv2d(1, 6" in text


def test_the_report_has_every_metric_of_a_table(ran):
    report = ran.report
    assert set(report) >= REPORTED
    assert (report["seed"], report["dataset"], report["wg"], report["device"]) == (3, "npz", "filter", "cpu")
    assert report["data_name"] in ("small", "of_32_px")
    assert report["torch_version"] == torch.__version__
    assert {"seed", "lr_ft", "batch_size", "epochs"} <= report["settings"].keys()
    assert not {"data_path", "base_model_path", "workers", "momentum"} & report["settings"].keys()
    assert report["acc1_base"] is None
    assert report["acc1_last"] == report["acc1_best"]
    assert report["best_epoch"] == 0
    assert report["seconds"]["finetune"] > 0
    assert report["images_per_second"]["finetune"] > 0
    prunes = report["method"] != "none"
    for key in ("acc1_before_cut", "acc1_after_cut", "acc1_before_cut_bn", "acc1_after_cut_bn"):
        assert (report[key] is not None) is prunes
        assert report[key] is None or 0 <= report[key] <= 100
    assert bool(report["gap"]) is report["method"].startswith("GReg")


def test_reported_costs_are_those_of_the_networks(ran):
    report = ran.report
    cut = load_pruned(network_file(ran))
    counted = sum(
        p.numel() for m in cut.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for p in m.parameters()
    )
    assert report["params_after"] == counted
    assert report["compression"] == report["params_before"] / counted
    assert report["speedup"] == report["flops_before"] / report["flops_after"]
    assert (report["speedup"] > 1) is (report["method"] != "none")


def test_the_steps_made_equal_those_planned(ran, sets):
    report = ran.report
    assert report["iterations"] == {**PRUNE_STEPS[report["method"]], "finetune": 3}
    words = yaml.safe_load((ran.run_dir / "log" / "params.yaml").read_text())
    planned = run_program(ran.cwd, "--config", ran.run_dir / "log" / "params.yaml", "--plan=json")
    assert words["method"] == report["method"]
    expected = json.loads(planned.out)["iterations"]
    assert expected == {"prune": sum(PRUNE_STEPS[report["method"]].values()), "finetune": 3}


def test_stored_settings_are_those_of_the_run(ran):
    file = ran.run_dir / "log" / "params.yaml"
    options, _ = parse(["--config", str(file)])
    assert (options.method, options.arch, options.seed, options.epochs) == (
        ran.report["method"], ran.report["arch"], 3, 1,
    )  # fmt: skip


def test_checkpoints_are_plain_values_with_the_documented_keys(ran):
    for file in (ran.run_dir / "weights").iterdir():
        checkpoint = torch.load(file, weights_only=True)
        assert set(checkpoint) >= (PRUNED_MODEL if file.stem == "pruned_model" else CHECKPOINT), file.name
        assert checkpoint["options"]["seed"] == 3
        assert ("optimizer" in checkpoint) is (file.stem != "pruned_model")
    last = ran.load("checkpoint")
    assert (last["phase"], last["step"], last["epoch"]) == ("finetune", 3, 1)
    assert last["optimizer"]["param_groups"]


def test_kept_groups_are_in_the_checkpoints_and_fit_the_weights(ran):
    checkpoint = ran.load("checkpoint_best")
    assert bool(checkpoint["kept"]) is (ran.report["method"] != "none")
    assert checkpoint["masks"] == {}
    for name, kept in checkpoint["kept"].items():
        assert kept.dtype == torch.bool
        assert checkpoint["model"][f"{name}.weight"].shape[0] == kept.sum()
        assert len(kept) - kept.sum() == ran.report["pruned"][name]


def test_a_pruned_model_is_smaller_on_disk_than_its_base(runs, tmp_path):
    torch.save(runs("none", RESIDUAL).load("checkpoint_best")["model"], tmp_path / "dense.pth")
    pruned = runs("L1", RESIDUAL).weights("pruned_model")
    assert pruned.stat().st_size < 0.7 * (tmp_path / "dense.pth").stat().st_size


def test_load_pruned_gives_the_reported_accuracy(ran):
    net = load_pruned(network_file(ran))
    assert not net.training
    evaluated = run_program(
        ran.cwd, "--config", ran.run_dir / "log" / "params.yaml", "-e", "--base_model_path", network_file(ran)
    )
    assert f"acc1 {ran.report['acc1_best']:.2f}" in evaluated.out


# evaluation


@pytest.mark.parametrize("name", ["checkpoint_best", "pruned_model"])
def test_evaluate_prints_accuracy_and_costs_and_writes_nothing(ran, name, sets, tmp_path):
    if not ran.weights(name).exists():
        assert (name, ran.report["method"]) == ("pruned_model", "none")
        return
    words = ("--arch", ran.report["arch"], "--dataset", "npz", "--data_path", sets[ran.report["arch"]])
    evaluated = run_program(tmp_path, *words, "--evaluate", "--base_model_path", ran.weights(name))
    assert (evaluated.code, evaluated.err) == (0, "")
    assert f"acc1 {ran.report['acc1_best']:.2f}" in evaluated.out
    assert "acc5" in evaluated.out
    assert f"{ran.report['params_after']:,}" in evaluated.out
    assert f"{ran.report['flops_after']:,}" in evaluated.out
    assert not list(tmp_path.iterdir())


def test_evaluate_takes_a_pattern_that_matches_one_file(runs, sets, tmp_path):
    ran = runs("L1", RESIDUAL)
    words = ("--arch", "resnet20", "--dataset", "npz", "--data_path", sets["resnet20"], "-e")
    pattern = ran.cwd / "Experiments/*L1__resnet20*/weights/*best.pth"
    evaluated = run_program(tmp_path, *words, "--base_model_path", pattern)
    assert f"acc1 {ran.report['acc1_best']:.2f}" in evaluated.out


@pytest.mark.parametrize("name", ["checkpoint_best", "checkpoint", "pruned_model"])
def test_evaluate_takes_the_network_from_the_file(ran, name, sets, tmp_path):
    if not ran.weights(name).exists():
        return
    words = ("--evaluate", "--base_model_path", ran.weights(name))
    evaluated = run_program(tmp_path, *words, "--data_path", sets[ran.report["arch"]])
    assert (evaluated.code, evaluated.err) == (0, "")
    assert f"{ran.report['params_after']:,}" in evaluated.out
    assert_refused(run_program(tmp_path, *words), "--data_path")
    assert_refused(run_program(tmp_path, *words, "--dataset", "npz"), "--data_path")
    assert_refused(run_program(tmp_path, *words, "--arch", "vgg16", "--data_path", sets["resnet20"]), "vgg16")


def test_evaluate_takes_the_data_set_and_batch_norm_from_the_file(tmp_path):
    words = ("--dataset", "digits", "--arch", "vgg11", "--not_use_bn", "--epochs", 0)
    ran = run_program(tmp_path / "run", *words)
    evaluated = run_program(tmp_path / "other", "-e", "--base_model_path", ran.weights("checkpoint"))
    assert "on the test images of digits" in evaluated.out
    assert evaluated.code == 0
    other = write_npz_set(tmp_path / "set")
    words = ("-e", "--base_model_path", ran.weights("checkpoint"), "--dataset", "npz", "--data_path", other)
    assert_refused(run_program(tmp_path / "x", *words), "classes, channels and size")


@pytest.mark.parametrize("words", [(), ("--dataset", "digits"), ("--dataset", "digits", "--trust_checkpoint")])
def test_evaluate_requires_arch_for_a_file_of_another_tool(words, base, tmp_path):
    torch.save(torch.load(base, weights_only=True)["model"], tmp_path / "other.pth")
    torch.save({"net": re.compile("x")}, tmp_path / "pickled.pth")
    trusted = "--trust_checkpoint" in words
    for name in ("other.pth", "pickled.pth") if trusted else ("other.pth",):
        ran = run_program(tmp_path / "cwd", "-e", "--base_model_path", tmp_path / name, *words)
        assert_refused(ran, "--arch is required")
        assert name in ran.err


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ("-e", "--evaluate needs --base_model_path FILE"),
        ("-e --base_model_path nowhere.pth", "--base_model_path: no file nowhere.pth"),
    ],
)
def test_evaluate_without_a_file_is_refused(words, culprit, tmp_path):
    assert_refused(run_program(tmp_path, *words.split()), culprit)


# reproducibility


@pytest.mark.parametrize(("method", "net"), [("none", RESIDUAL), ("GReg-2", SINGLE_BRANCH)])
def test_the_same_seed_gives_the_same_weights_and_another_seed_others(method, net, runs, sets, tmp_path):
    first = runs(method, net)
    again = run_program(tmp_path / "again", *command(sets, method, *net))
    other = run_program(tmp_path / "other", *command(sets, method, *net, "--seed", "4"))
    assert same_weights(first, again)
    assert again.report["acc1_best"] == first.report["acc1_best"]
    assert not same_weights(first, other)


def test_random_selection_follows_the_seed(sets, tmp_path):
    words = command(sets, "L1", *RESIDUAL, "--pick_pruned", "rand", "--epochs", "0")
    kept = [
        run_program(tmp_path / str(i), *words, "--seed", seed).load("checkpoint")["kept"]["layer3.0.conv1"].tolist()
        for i, seed in enumerate((1, 1, 2))
    ]
    assert kept[0] == kept[1] != kept[2]


@pytest.mark.parametrize("arch", ["resnet20", "lenet5"])
def test_l1_that_prunes_nothing_is_plain_training(arch, runs, sets, tmp_path):
    nothing = {"resnet20": "[0,0,0,0,0]", "lenet5": "[0-4:0]"}[arch]
    one_shot = run_program(tmp_path, *command(sets, "L1", arch, nothing))
    plain = runs("none", RESIDUAL if arch == "resnet20" else SINGLE_BRANCH)
    assert same_weights(one_shot, plain)
    assert one_shot.report["acc1_best"] == plain.report["acc1_best"]
    assert one_shot.report["speedup"] == 1


def test_a_plan_that_prunes_nothing_needs_no_allow_untrained(sets, tmp_path):
    words = [
        word for word in command(sets, "L1", "resnet20", "[0,0,0,0,0]", "--epochs", "0") if word != "--allow_untrained"
    ]
    assert run_program(tmp_path, *words).code == 0


def test_a_drawn_seed_is_reported_and_repeats_the_run(sets, tmp_path):
    words = command(sets, "none", "lenet5")
    at = words.index("--seed")
    drawn = run_program(tmp_path / "drawn", *words[:at], *words[at + 2 :])
    again = run_program(tmp_path / "again", *words, "--seed", drawn.report["seed"])
    assert same_weights(drawn, again)


def test_stored_settings_repeat_a_run(runs, tmp_path):
    first = runs("GReg-1", SINGLE_BRANCH)
    again = run_program(tmp_path, "--config", first.run_dir / "log" / "params.yaml")
    assert same_weights(first, again)


# from a trained base


def test_a_base_is_tested_before_it_is_pruned(base, runs, sets, tmp_path):
    words = [word for word in command(sets, "L1", *RESIDUAL) if word != "--allow_untrained"]
    ran = run_program(tmp_path, *words, "--base_model_path", base)
    assert ran.report["acc1_base"] == runs("none", RESIDUAL).report["acc1_best"]
    assert ran.report["base_model"] == str(base)
    assert "base: test acc1" in ran.out


def test_l1_keeps_the_filters_with_the_largest_weights(base, sets, tmp_path):
    dense = torch.load(base, weights_only=True)["model"]
    ran = run_program(tmp_path, *command(sets, "L1", *RESIDUAL, "--base_model_path", base, "--epochs", "0"))
    checkpoint = ran.load("checkpoint")
    assert len(checkpoint["kept"]) == 9
    for name, kept in checkpoint["kept"].items():
        scores = dense[f"{name}.weight"].abs().mean((1, 2, 3))
        assert scores[kept].min() > scores[~kept].max()
        assert checkpoint["model"][f"{name}.weight"].shape[0] == kept.sum()


def test_pruned_single_weights_stay_zero(base, sets, tmp_path):
    words = command(sets, "GReg-1", "resnet20", "[0.5,0.5,0.5,0.5,0.5]", "--wg", "weight", "--base_model_path", base)
    ran = run_program(tmp_path, *words)
    checkpoint = ran.load("checkpoint")
    assert checkpoint["kept"] == {}
    assert len(checkpoint["masks"]) == 20
    for name, mask in checkpoint["masks"].items():
        weight = checkpoint["model"][f"{name}.weight"]
        assert weight.shape == mask.shape
        assert weight[~mask].eq(0).all()
        assert mask.sum() == weight.numel() // 2
    assert ran.report["sparsity"] == 0.5
    assert ran.report["speedup"] == 1


def test_a_single_branch_network_with_batch_norm_is_pruned(sets, tmp_path):
    ran = run_program(tmp_path, *command(sets, "GReg-2", "vgg11", "[1-6:0.7]", "--epochs", "0"))
    assert ran.code == 0
    assert ran.report["iterations"] == PRUNE_STEPS["GReg-2"]
    assert load_pruned(ran.weights("pruned_model")).features[4].out_channels == 128 - 90


def test_channels_are_pruned(base, sets, tmp_path):
    ran = run_program(tmp_path, *command(sets, "L1", *RESIDUAL, "--wg", "channel", "--base_model_path", base))
    checkpoint = ran.load("checkpoint")
    weights, kept_channels = checkpoint["model"], checkpoint["kept"]
    assert set(kept_channels) == {f"layer{s}.{b}.conv2" for s in (1, 2, 3) for b in range(3)}
    assert all(weights[f"{name}.weight"].shape[1] == kept.sum() for name, kept in kept_channels.items())


def test_an_image_folder_is_trained_on(tmp_path):
    folder = write_image_folder(tmp_path / "pets", train=2, val=1)
    words = ("--arch", "resnet18", "--dataset", "folder", "--data_path", folder, "--epochs", "1", "--batch_size", "4")
    ran = run_program(tmp_path / "cwd", "--lr_ft", "0:0.01", *words, "--workers", "0", "--seed", "0")
    assert ran.code == 0
    assert (ran.report["data_name"], ran.report["iterations"]) == ("pets", {"finetune": 1})


def test_without_fine_tuning_the_cut_network_is_saved(sets, tmp_path):
    ran = run_program(tmp_path, *command(sets, "L1", *RESIDUAL, "--epochs", "0"))
    assert (ran.report["acc1_best"], ran.report["best_epoch"], ran.report["acc1_last"]) == (None, None, None)
    best, pruned = ran.load("checkpoint_best")["model"], ran.load("pruned_model")["model"]
    assert best["layer1.0.conv1.weight"].shape[0] == 8
    assert all(torch.equal(best[key], pruned[key]) for key in best.keys() | pruned.keys())


# names, log and notices


def test_project_name_and_server_name_the_run_directory(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVER", "7")
    words = command(sets, "none", "lenet5", "", "--epochs", "0", "--project", "scratch__lenet5", "--note", "why not")
    ran = run_program(tmp_path, *words)
    assert re.fullmatch(r"scratch__lenet5_SERVER7-\d{8}-\d{6}", ran.run_dir.name)
    assert "why not" in ran.log


def test_debug_runs_are_in_debug_dir(sets, tmp_path):
    run_program(tmp_path, *command(sets, "none", "lenet5", "", "--epochs", "0", "--debug"))
    assert [file.name for file in tmp_path.iterdir()] == ["Debug_Dir"]


def test_two_runs_of_one_name_have_separate_directories(sets, tmp_path):
    for _ in range(2):
        run_program(tmp_path, *command(sets, "none", "lenet5", "", "--epochs", "0"))
    assert len(list((tmp_path / "Experiments").iterdir())) == 2


def test_screen_print_shows_every_line_of_the_log(sets, tmp_path):
    words = command(sets, "none", "lenet5", "", "--epochs", "0")
    quiet, loud = (run_program(tmp_path / name, *words, *more) for name, more in (("a", []), ("b", ["--screen"])))
    assert "all settings are in params.yaml" not in quiet.out
    assert "all settings are in params.yaml" in loud.out


def test_progress_lines_have_rate_and_remaining_time(sets, tmp_path):
    ran = run_program(tmp_path, *command(sets, "none", "lenet5", "", "-p", "1"))
    lines = [line for line in ran.out.splitlines() if line.startswith("train  step")]
    assert len(lines) == 3
    assert re.search(r"step 1/3  loss [\d.]+ .* img/s  \d\d:\d\d left", lines[0])


def test_a_flag_without_effect_gets_a_notice(sets, tmp_path):
    ran = run_program(tmp_path, *command(sets, "none", "lenet5", "", "--epochs", "0", "--lr_prune", "0.1"))
    (line,) = ran.err.splitlines()
    assert line.startswith("notice: ")
    assert "no effect" in line
    assert "--lr_prune" in line


def test_non_finite_loss_gives_one_line_and_exit_code_1(sets, tmp_path):
    words = command(sets, "none", "resnet20", "", "--lr_ft", "0:1e30", "-p", "1", "--epochs", "5")
    ran = run_program(tmp_path, *words)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("main.py: error: loss is not finite at step ")


def test_non_finite_loss_between_progress_lines_stops_the_prune_phase(sets, tmp_path):
    words = command(sets, "GReg-1", *SINGLE_BRANCH, "--lr_prune", "1e30", "--print_interval", "1000")
    ran = run_program(tmp_path, *words)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("main.py: error: ")


# plans


@pytest.mark.parametrize(
    "dataset", ["digits", "mnist", "fashion_mnist", "cifar10", "cifar100", "tiny_imagenet", "imagenet"]
)
def test_a_plan_needs_no_data_and_writes_nothing(dataset, tmp_path):
    words = ("--arch", "resnet20", "--method", "GReg-2", "--stage_pr", "[0,0.5,0.5,0.5,0]")
    ran = run_program(tmp_path, *words, "--dataset", dataset, "--plan")
    assert ran.code == 0
    assert "speedup" in ran.out
    assert "cut after step" in ran.out
    assert not list(tmp_path.iterdir())


def test_a_plan_of_an_imagenet_run_has_the_published_speedup(tmp_path):
    words = ("--dataset", "imagenet", "--arch", "resnet50", "--method", "GReg-1", "--plan=json")
    ran = run_program(
        tmp_path, *words, *["--stage_pr", "[0,", "0.68,", "0.68,", "0.68,", "0.5,", "0]"], "--expect_speedup", "3.06"
    )
    plan = json.loads(ran.out)
    assert ran.code == 0
    assert ran.err.startswith("note: a run would stop here: no trained weights")
    assert plan["speedup"] == pytest.approx(3.06, abs=0.005)
    assert plan["flops0"] == 8_178_368_512
    assert plan["cut_after_step"] == 5 * 10_000 + 40_000
    assert not list(tmp_path.iterdir())


def test_a_json_plan_is_on_stdout_and_notices_are_on_stderr(tmp_path):
    words = ("--dataset", "digits", "--arch", "resnet20", "--method", "L1", "--stage_pr", "[0,0.5,0.5,0.5,0]")
    ran = run_program(tmp_path, *words, "--lr_prune", "1", "--plan=json")
    plan = json.loads(ran.out)
    assert (plan["picked_at"], plan["stabilise_from"], plan["cut_after_step"]) == (None, None, None)
    assert "notice" in ran.err


def test_a_plan_notes_errors_that_would_stop_the_run(tmp_path):
    words = ("--dataset", "digits", "--arch", "resnet20", "--method", "L1", "--stage_pr", "[0,0.5,0.5,0.5,0]", "--plan")
    assert "--allow_untrained" in run_program(tmp_path, *words).out
    assert "no file nowhere.pth" in run_program(tmp_path, *words, "--base_model_path", "nowhere.pth").out
    assert "would stop" not in run_program(tmp_path, *words, "--allow_untrained").out


def test_a_plan_for_an_npz_set_reads_no_images(sets, tmp_path, monkeypatch):
    read = []
    real = np.lib.npyio.NpzFile.__getitem__
    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", lambda self, key: read.append(key) or real(self, key))
    assert run_program(tmp_path, *command(sets, "L1", *RESIDUAL), "--plan").code == 0
    assert set(read) == {"labels"}


# validation, precision, latency


def test_held_out_images_choose_the_best_epoch(sets, tmp_path):
    words = command(sets, "none", "lenet5", "", "--val_fraction", "0.25", "--epochs", "3")
    ran = run_program(tmp_path, *words)
    report, saved = ran.report, ran.load("checkpoint")["record"]
    assert saved["images"] == (30, 24)
    assert len(saved["tuned"]["val_acc1"]) == 3
    assert report["best_epoch"] == saved["tuned"]["val_acc1"].index(max(saved["tuned"]["val_acc1"]))
    assert report["acc1_best"] == saved["tuned"]["acc1"][report["best_epoch"]]
    assert "held-out" in report["acc1_best_is"]
    assert "chosen on held-out images" in ran.out
    assert "held out" in ran.log


def test_train_images_limits_the_training_set(sets, tmp_path):
    words = command(sets, "none", "lenet5", "", "--train_images", "20", "--val_fraction", "0.25", "--batch_size", "5")
    plan = json.loads(run_program(tmp_path, *words, "--plan=json").out)
    ran = run_program(tmp_path, *words)
    assert plan["iterations"]["finetune"] == ran.report["iterations"]["finetune"] == 3  # 15 images, 5 are held out
    assert ran.report["train_images"] == 15
    assert ran.load("checkpoint")["record"]["images"] == (15, 24)


def test_precision_is_resolved_once_and_stored(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda: True)
    ran = run_program(tmp_path, *command(sets, "L1", *RESIDUAL, "--save_interval", "1"))
    assert (ran.report["amp"], ran.report["channels_last"]) == ("bf16", True)
    assert ran.load("checkpoint")["options"]["amp"] == "bf16"
    first = ran.load("pruned_model")["model"]["layer1.0.conv1.weight"]
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert first.dtype == torch.float32
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda: False)  # resumed on another machine
    again = run_program(tmp_path, "--resume_path", ran.run_dir, "--epochs", "2")
    assert again.report["amp"] == "bf16"
    refused = run_program(tmp_path, "--resume_path", ran.run_dir, "--epochs", "3", "--amp", "none")
    assert "--amp none (was bf16)" in refused.err


@pytest.mark.parametrize(("arch", "fast"), [("resnet20", True), ("vgg11", True), ("lenet5", False)])
def test_small_networks_compute_in_float32(arch, fast, monkeypatch):
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda: True)
    resolved = precision.resolve_auto(parse(["--dataset", "digits", "--arch", arch])[0], torch.device("cpu"))
    assert (resolved.amp, resolved.channels_last) == (("bf16", "true") if fast else ("none", "false"))
    explicit = parse(["--dataset", "digits", "--arch", arch, "--amp", "none", "--no-channels_last"])[0]
    assert precision.resolve_auto(explicit, torch.device("cpu")) == replace(explicit, cuda_graph="off")


@pytest.mark.parametrize(("size", "amp"), [(16, "none"), (32, "bf16"), (224, "bf16")])
def test_large_networks_on_tiny_images_compute_in_float32(size, amp, monkeypatch):
    """There oneDNN's bf16 gradient of a strided depthwise conv is uninitialized memory."""
    monkeypatch.setattr(precision, "has_bf16_arithmetic", lambda: True)
    options = parse(["--dataset", "digits", "--arch", "mobilenet_v2"])[0]
    assert precision.resolve_auto(options, torch.device("cpu"), size).amp == amp


@pytest.mark.parametrize(
    ("arch", "device", "n_images", "compiler", "expected"),
    [
        ("resnet56", "cpu", 1_000_000, True, "on"), ("resnet20", "cpu", 50_000_000, True, "on"),
        ("resnet56", "cpu", 999_999, True, "off"), ("vgg19", "cpu", 50_000_000, True, "off"),
        ("resnet18", "cpu", 50_000_000, True, "off"), ("resnet56", "cuda", 50_000_000, True, "off"),
        ("resnet56", "cpu", 1_000_000, False, "off"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("amx", [True, False])
def test_auto_compiles_where_it_pays(arch, device, n_images, compiler, expected, amx, monkeypatch):
    monkeypatch.setattr(precision.shutil, "which", lambda name: name if compiler else None)
    monkeypatch.setattr(precision, "_cpu_capabilities", lambda: {"amx_bf16": amx})
    options = parse(["--dataset", "cifar10", "--arch", arch])[0]
    resolved, notices = precision.resolve_compile(options, torch.device(device), n_images)
    assert resolved.compile == (expected if amx else "off")
    assert bool(notices) == (amx and not compiler)


def test_a_run_stores_whether_it_compiles_and_resumes_so(sets, tmp_path):
    words = command(sets, "none", "lenet5")
    ran = run_program(tmp_path, *words)
    assert yaml.safe_load((ran.run_dir / "log" / "params.yaml").read_text())["compile"] == "off"
    refused = run_program(tmp_path, "--resume_path", ran.run_dir, "--epochs", "2", "--compile")
    assert refused.code == 2
    assert "--compile on (was off)" in refused.err


def test_compiling_without_a_compiler_is_refused(sets, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    refused = run_program(tmp_path, *command(sets, "none", "lenet5"), "--compile")
    assert refused.code == 2
    assert refused.err.splitlines() == [
        "main.py: error: --compile on needs a C++ compiler: install g++, or set CXX to one"
    ]
    assert not (tmp_path / "Experiments").exists()


@pytest.mark.parametrize(("stored", "value"), [("true", "on"), ("false", "off"), ("False", "off"), ("auto", "auto")])
def test_settings_of_older_runs_compile_as_they_did(stored, value):
    assert parse(["--dataset", "digits", f"--compile={stored}"])[0].compile == value


def test_report_latency_measures_latency(sets, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    ran = run_program(tmp_path, *command(sets, "L1", *RESIDUAL, "--report_latency"))
    assert set(ran.report["latency"]) == {"dense", "cut"}
    assert set(ran.report["latency"]["cut"]) == {"1", "128"}
    assert ran.report["latency"]["cut"]["128"]["images_per_second"] > 0
    network = torch.nn.Conv2d(1, 1, 1)
    state = torch.get_rng_state()
    latency.measure_latency(network, 1, 4)
    assert torch.equal(torch.get_rng_state(), state)  # the run goes on as without the measurement
    assert "measured, batch 128" in ran.out


def test_accuracies_are_in_accuracy_csv(ran):
    rows = list(csv.DictReader((ran.run_dir / "log" / "accuracy.csv").read_text().splitlines()))
    (epoch,) = (row for row in rows if row["phase"] == "finetune")
    assert float(epoch["test_acc1"]) == ran.report["acc1_last"]
    assert 0 <= float(epoch["train_acc1"]) <= 100
    cut = {row["phase"]: float(row["test_acc1"]) for row in rows if row["phase"].endswith("the cut")}
    reported = {f"{side} the cut": ran.report[f"acc1_{side}_cut"] for side in ("before", "after")}
    assert cut == {phase: acc1 for phase, acc1 in reported.items() if acc1 is not None}


@pytest.mark.parametrize("kind", ["filter", "channel", "weight"])
def test_a_wrong_cut_is_an_error_and_is_not_saved(kind, sets, tmp_path, monkeypatch):
    right = proof.cut

    def wrong(model, kept, *more):
        """Cut other groups of the run's first layer; the proof's are float64."""
        name, mask = next(iter(kept.items()))
        is_run = next(model.parameters()).dtype == torch.float32
        return right(model, kept | {name: mask.roll(1)} if is_run else kept, *more)

    monkeypatch.setattr(proof, "cut", wrong)
    ran = run_program(tmp_path, *command(sets, "L1", "resnet20", "[0,0.5,0.25,0.5,0]", "--wg", kind))
    assert ran.code == 1
    assert "the cut is wrong" in ran.err
    assert not list((ran.run_dir / "weights").iterdir())


# wrong commands that need an earlier run; others are in test_wrong_commands.py

DIGITS = "--dataset digits --arch resnet20"
PRUNE = f"{DIGITS} --method L1 --stage_pr [0,0.5,0.5,0.5,0]"


def assert_refused(ran, culprit, files=()):
    assert ran.code == 2
    (line,) = ran.err.splitlines()
    assert line.startswith("main.py: error: ")
    assert culprit in line
    assert ran.out == ""
    assert {file.name for file in ran.cwd.iterdir()} == set(files)


@pytest.mark.parametrize(
    ("content", "culprit"), [("epoch: 3", "'epoch'"), ("epochs: x", "--epochs"), ("[1", "settings.yaml")]
)
def test_wrong_settings_are_refused(content, culprit, tmp_path):
    (tmp_path / "settings.yaml").write_text(content)
    assert_refused(run_program(tmp_path, *DIGITS.split(), "--config", "settings.yaml"), culprit, ["settings.yaml"])


def test_a_base_of_another_network_is_refused(base, tmp_path, sets):
    words = [*command(sets, "L1", "vgg11", "[1-3:0.5]"), "--base_model_path", base]
    assert_refused(run_program(tmp_path, *words), str(base))


def test_a_base_for_other_images_is_refused(base, tmp_path):
    assert_refused(run_program(tmp_path, *PRUNE.split(), "--base_model_path", base), str(base))


def test_a_base_with_masked_weights_is_refused(sets, tmp_path):
    """A base with pruned filters or channels is allowed: see tests/checkpoint/test_resume.py."""
    masked = run_program(tmp_path / "masked", *command(sets, "L1", *RESIDUAL, "--wg", "weight", "--epochs", "0"))
    words = command(sets, "L1", *RESIDUAL, "--base_model_path", masked.weights("checkpoint_best"))
    assert_refused(run_program(tmp_path / "again", *words), "already pruned: pass a dense network")
    words = command(sets, "none", "resnet20", "", "--base_model_path", masked.weights("checkpoint_best"))
    assert_refused(run_program(tmp_path / "trained", *words), "already pruned: pass it to --directly_ft_weights")


def test_plain_training_from_a_pruned_base_is_refused(runs, sets, tmp_path):
    pruned = runs("L1", RESIDUAL).weights("checkpoint_best")
    assert_refused(
        run_program(tmp_path, *command(sets, "none", RESIDUAL[0], "", "--base_model_path", pruned)), "pruned"
    )


def test_evaluating_a_pruned_network_on_other_images_is_refused(runs, tmp_path):
    pruned = runs("L1", RESIDUAL).weights("pruned_model")
    folder = write_npz_set(tmp_path / "color", channels=3)
    words = ("--arch", "resnet20", "--dataset", "npz", "--data_path", folder, "-e", "--base_model_path", pruned)
    assert_refused(run_program(tmp_path, *words), "pruned_model.pth", ["color"])


def test_evaluating_as_another_network_is_refused(runs, sets, tmp_path):
    pruned = runs("L1", RESIDUAL).weights("pruned_model")
    words = (
        "--arch",
        "resnet56",
        "--dataset",
        "npz",
        "--data_path",
        sets["resnet20"],
        "-e",
        "--base_model_path",
        pruned,
    )
    assert_refused(run_program(tmp_path, *words), "resnet20")


@pytest.mark.parametrize("damage", ["labels", "pixels", "file"])
def test_a_bad_npz_folder_is_refused(damage, tmp_path):
    folder = write_npz_set(tmp_path / "bad")
    if damage == "labels":
        with np.load(folder / "train.npz") as arrays:
            np.savez(folder / "train.npz", images=arrays["images"], labels=arrays["labels"][1:])
    elif damage == "pixels":
        raw = bytearray((folder / "train.npz").read_bytes())
        raw[2000] ^= 0xFF
        (folder / "train.npz").write_bytes(raw)
    path = folder / "train.npz" if damage == "file" else folder
    ran = run_program(tmp_path, "--dataset", "npz", "--arch", "resnet20", "--data_path", path)
    assert_refused(ran, str(folder / "train.npz"), ["bad"])


def test_plain_training_ignores_expect_speedup_with_a_notice(sets, tmp_path):
    ran = run_program(tmp_path, *command(sets, "none", "lenet5", "", "--expect_speedup", "2"), "--plan")
    assert "no effect" in ran.err
    assert "--expect_speedup" in ran.err
    assert ran.code == 0


def test_help_is_printed_with_exit_code_0(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["--help"])
    assert stop.value.code == 0
    assert "--stage_pr" in capsys.readouterr().out


# subprocesses


def test_the_program_runs_from_any_directory_without_a_warning(tmp_path):
    words = ["--dataset", "digits", "--arch", "lenet5", "--method", "GReg-1", "--stage_pr", "[1-3:0.5]", "--seed", "0"]
    words += ["--allow_untrained", "--epochs", "1", "--lr", "0.001", *SHORT_GREG]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "main.py"), *words],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    (run_dir,) = (tmp_path / "Experiments").iterdir()
    report = json.loads((run_dir / "log" / "report.json").read_text())
    assert report["iterations"] == {"update": 3, "stabilise": 2, "finetune": 6}
    assert report["data_name"] == "digits"


def test_greg_with_nothing_to_prune_makes_the_steps_of_its_plan(sets, tmp_path):
    words = command(sets, "GReg-2", "lenet5", "[0-4:0]", "--epochs", "0")
    plan = json.loads(run_program(tmp_path / "plan", *words, "--plan=json").out)
    assert (plan["picked_at"], plan["stabilise_from"]) == (None, 0)
    report = run_program(tmp_path / "run", *words).report
    assert sum(report["iterations"].values()) == plan["cut_after_step"] + 1 == plan["iterations"]["prune"]


def test_a_project_name_that_is_a_path_is_refused(tmp_path):
    ran = run_program(tmp_path, "--dataset", "digits", "--arch", "lenet5", "--project_name", "../../x")
    assert_refused(ran, "--project_name")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--arch vit_b_16 --dataset cifar10", "cannot take images of 32 px"),
        ("--arch resnet20 --dataset digits --not_use_bn", "without batch-norm"),
    ],
)
def test_an_impossible_network_is_refused(words, message, tmp_path):
    assert_refused(run_program(tmp_path, *words.split(), "--plan"), message)


def test_plain_training_of_a_network_without_addresses_is_planned_for_any_kind(tmp_path):
    words = ("--arch", "mobilenet_v2", "--dataset", "imagenet", "--method", "none", "--wg", "weight", "--plan=json")
    assert json.loads(run_program(tmp_path, *words).out)["sparsity"] == 0


def test_an_unreadable_image_is_named_before_the_run_starts(image_folder, tmp_path):
    broken = sorted((image_folder / "train" / "cat").iterdir())[0]
    broken.write_bytes(b"no image")
    for workers in (0, 1):
        words = ("--dataset", "folder", "--data_path", image_folder, "--arch", "squeezenet1_1", "--epochs", 1)
        ran = run_program(tmp_path / str(workers), *words, "--batch_size", 6, "--workers", workers)
        assert ran.code == 2
        (line,) = ran.err.splitlines()
        assert line.startswith(f"main.py: error: --data_path: 1 image cannot be read: {broken}")
        assert not list((tmp_path / str(workers)).iterdir())


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        ("--method L1 --lr 0.5", "--lr"),
        ("--method L1 --save_order_log", "--save_order_log"),
        ("--method GReg-1 --ft_in_oracle_pruning", "--ft_in_oracle_pruning"),
    ],
)
def test_flags_without_effect_are_named(words, flag, tmp_path):
    common = ("--dataset", "digits", "--arch", "resnet20", "--stage_pr", "[0,0,0,0,0]", "--plan")
    assert run_program(tmp_path, *common, *words.split()).err.rstrip().endswith(flag)


# length of a run


GREG_1 = ("--method", "GReg-1", "--stage_pr", "[0,0.5,0.5,0.5,0]")


@pytest.mark.parametrize(
    ("words", "length"),
    [
        # 1,437 digits in batches of 64: 23 steps an epoch; 256: 6
        (GREG_1, "90,001 steps = 3,913 epochs of your 1,437 images, then fine-tuning 540 steps = 90 epochs"),
        ((*GREG_1, "--prune_steps", 626), "prune phase 626 steps = 27 epochs of your 1,437 images"),
        ((*GREG_1, "--prune_steps", 20), "prune phase 20 steps = 0.87 epochs of your 1,437 images"),
        (
            (*GREG_1, "--prune_steps", 23, "--epochs", 1),
            "23 steps = 1 epoch of your 1,437 images, then fine-tuning 6 steps = 1 epoch",
        ),
        ((*GREG_1, "--train_images", 1000, "--val_fraction", 0.1), "90,001 steps = 6,000 epochs of your 900 images"),
        (("--method", "L1", *GREG_1[2:]), "fine-tuning 540 steps = 90 epochs of your 1,437 images"),
        (("--epochs", 3), "training 18 steps = 3 epochs of your 1,437 images"),
        (("--method", "L1", "--stage_pr", "[0,0,0,0,0]"), "training 540 steps = 90 epochs of your 1,437 images"),
    ],
)  # fmt: skip
def test_a_plan_has_its_length_in_epochs(words, length, tmp_path):
    ran = run_program(tmp_path, "--dataset", "digits", "--arch", "resnet20", *words, "--plan")
    assert ran.out.splitlines()[0].endswith(length) or f"{length}, then" in ran.out.splitlines()[0]
    plan = json.loads(run_program(tmp_path, "--dataset", "digits", "--arch", "resnet20", *words, "--plan=json").out)
    assert f"{plan['train_images']:,} images" in length
    assert plan["epochs"]["prune"] == plan["iterations"]["prune"] / -(-plan["train_images"] // 64)


def test_a_plan_of_a_set_of_unknown_size_has_its_length_in_steps(tmp_path):
    words = ["--dataset", "imagenet_subset_200", "--method", "GReg-1", "--stage_pr", "[0,0,0.5,0,0,0]"]
    ran = run_program(tmp_path, *words, "--plan")
    assert ran.out.splitlines()[0] == "Plan: prune phase 90,001 steps, then fine-tuning 90 epochs"
    assert "epochs" not in ran.err


@pytest.mark.parametrize(
    ("words", "suggested"),
    [
        (GREG_1, "--prune_steps 690 makes it 30 epochs"),
        ((*GREG_1, "--train_images", 64), "--prune_steps 600 makes it 600 epochs"),
        ((*GREG_1, "--stabilize", 100, "--reg_granularity_prune", 0.1), None),
        ((*GREG_1, "--prune_steps", 50_000), None),  # given explicitly
        (("--method", "GReg-1", "--stage_pr", "[0,0,0,0,0]"), None),
        (("--method", "L1", *GREG_1[2:]), None),
        ((), None),
    ],
)
@pytest.mark.parametrize("plan_format", ["text", "json"])
def test_a_prune_phase_of_over_300_epochs_gives_a_notice(words, suggested, plan_format, tmp_path):
    ran = run_program(tmp_path, "--dataset", "digits", "--arch", "resnet20", *words, f"--plan={plan_format}")
    lines = [line for line in ran.err.splitlines() if "--prune_steps" in line]
    assert len(lines) == bool(suggested)
    assert not suggested or (lines[0].startswith("notice: ") and suggested in lines[0])


def test_a_length_changed_by_other_flags_gives_a_notice(tmp_path):
    words = ("--dataset", "digits", "--arch", "resnet20", *GREG_1, "--prune_steps", 1000, "--plan=json")
    ran = run_program(tmp_path, *words, "--update_reg_interval", 10, "--stabilize", 100)
    assert json.loads(ran.out)["iterations"]["prune"] == 991
    assert "--prune_steps 1000: the prune phase takes 991 steps" in ran.err


@pytest.mark.parametrize("method", ["GReg-1", "GReg-2"])
def test_a_run_with_prune_steps_prints_its_length_first_and_is_resumed(method, sets, tmp_path):
    words = [
        *("--method", method, "--arch", "lenet5", "--dataset", "npz", "--data_path", sets["lenet5"], "--seed", 3),
        *("--stage_pr", "[1-3:0.5]", "--allow_untrained", "--epochs", 1, "--batch_size", 16, "--batch_size_prune", 8),
        *("--prune_steps", 12, "--lr_ft", "0:0.01"),
    ]
    ran = run_program(tmp_path, *words)
    first = "Plan: prune phase 12 steps = 2.4 epochs of your 40 images, then fine-tuning 3 steps = 1 epoch"
    assert ran.out.splitlines()[0] == first
    assert ran.report["iterations"] == {"update": 8, "stabilise": 4, "finetune": 3}
    stored = yaml.safe_load((ran.run_dir / "log" / "params.yaml").read_text())
    assert (stored["prune_steps"], stored["stabilize_reg_interval"], stored["lr_prune"]) == (12, 4, 0.01)
    again = run_program(tmp_path, "--resume_path", ran.run_dir)
    assert (again.code, again.err) == (0, "")
    other = run_program(tmp_path, "--resume_path", ran.run_dir, "--prune_steps", 13)
    assert other.code == 2
    assert "--prune_steps" in other.err


# plain training


@pytest.mark.parametrize("words", [("none",), ("L1", "lenet5", "[0-4:0]")])
def test_output_of_plain_training_does_not_mention_pruning(words, sets, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.0)
    words = command(sets, words[0], "lenet5", *words[2:], "--report_latency")
    ran, plan = run_program(tmp_path, *words), run_program(tmp_path, *words, "--plan")
    for text in (ran.out, plan.out):
        assert "training" in text
        for word in ("speedup", "compression", "cut", "re-estimated", "fine-tun", "->", "prune"):
            assert word not in text.replace(str(tmp_path), ""), word
    assert "train  step 1/3" in ran.out
    assert "params 61,366" in ran.out
    assert (ran.report["speedup"], ran.report["compression"]) == (1, 1)  # the keys remain


def test_directly_ft_weights_fine_tunes_a_pruned_network(runs, sets, tmp_path):
    pruned = runs("L1", SINGLE_BRANCH).weights("pruned_model")
    words = command(sets, "none", "lenet5", "", "--directly_ft_weights", pruned)
    ran = run_program(tmp_path, *words)
    assert "fine-tune  step 1/3" in ran.out
    assert "speedup" in ran.out


def test_a_learning_rate_schedule_without_blanks_is_read_from_a_file(tmp_path):
    (tmp_path / "c.yaml").write_text("lr_ft: {0:0.1,30:0.01}\nstage_pr: [0,0.5,0.5,0.5,0]\n")
    options, notices = parse(["--dataset", "digits", "--config", str(tmp_path / "c.yaml")])
    assert options.lr_ft == "{0:0.1,30:0.01}"
    assert options.stage_pr == "[0,0.5,0.5,0.5,0]"
    assert not notices


@pytest.mark.slow
def test_compiled_training_gives_the_weights_of_eager_training(sets, tmp_path):
    words = command(sets, "GReg-1", *SINGLE_BRANCH, "--amp", "none", "--no-channels_last")
    eager = run_program(tmp_path / "eager", *words)
    compiled = run_program(tmp_path / "compiled", *words, "--compile")
    assert compiled.code == 0
    assert compiled.report["iterations"] == eager.report["iterations"]
    one, other = (ran.load("checkpoint")["model"] for ran in (eager, compiled))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4)
