"""An interrupted run resumed by the same command gives the same result."""

import gc
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
import yaml
from helpers import PRUNE_STEPS, ROOT, run_program, short_phase, write_image_folder, write_npz_set

from pruner import PRUNERS
from pruner.groups import KINDS
from scripts.checks.kill_test import (
    COMBINATIONS,
    command,
    differences,
    run_alone,
    run_dir_in,
    run_killed,
    targets_for,
    write_images,
)
from utils.checkpoint.state import Checkpoint
from utils.dist.signals import StoppedError
from utils.engine import train

MAIN = [sys.executable, str(ROOT / "main.py")]


@pytest.fixture
def tiny(tmp_path):
    return write_npz_set(tmp_path / "tiny_set")


def words_for(tiny, method, *more):
    greg = short_phase(method)
    greg += ("--save_order_log", "--plot_interval", "2") if greg else ()
    return [
        *("--method", method, "--arch", "resnet20", "--dataset", "npz", "--data_path", tiny, "--seed", "3"),
        *("--epochs", "2", "--batch_size", "16", "--lr_ft", "0:0.01", "--allow_untrained", "--save_interval", "1"),
        *(("--stage_pr", "[0,0.5,0.25,0.5,0]") if method != "none" else ()),
        *(*greg, *more),
    ]


class Killed(BaseException):
    """Stand-in for SIGKILL."""


def run_until(n, cwd, words, monkeypatch):
    """Run until the n-th training step, which is not made."""
    made, step = [], train.train_step

    def counted(*args, **kwargs):
        made.append(1)
        if len(made) == n:
            raise Killed
        return step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", counted)
        with pytest.raises(Killed):
            run_program(cwd, *words)


# killed and resumed in one process: every step of every pruner


REGULARIZED = [method for method in PRUNERS if method not in ("none", "Oracle")]
EACH_METHOD_AND_KIND = [  # each method and each kind; the other combinations are slow
    pytest.param(method, kind, marks=[] if i % len(KINDS) == j else pytest.mark.slow)
    for i, method in enumerate(REGULARIZED)
    for j, kind in enumerate(KINDS)
]


@pytest.mark.parametrize(("method", "kind"), EACH_METHOD_AND_KIND)
def test_a_run_killed_before_any_step_resumes_to_the_same_result(method, kind, tiny, tmp_path, monkeypatch):
    words = words_for(tiny, method, "--wg", kind)
    alone = run_program(tmp_path / "alone", *words)
    steps = sum(alone.report["iterations"].values())
    killed = tmp_path / "killed"
    for n in random.Random(0).sample(range(1, steps + 1), 3):
        run_until(n, killed, words, monkeypatch)
        again = run_program(killed, *words, "--resume_path", "auto")
        assert again.code == 0
        assert differences(alone.run_dir, again.run_dir) == []
        shutil.rmtree(killed)


@pytest.mark.parametrize(
    ("arch", "images", "workers", "killed_at"), [("resnet18", 6, 1, 5), ("squeezenet1_1", 4, 0, 4)]
)
def test_plain_training_with_image_folders_and_dropout_resumes(arch, images, workers, killed_at, tmp_path, monkeypatch):
    """ResNet18 with a data worker; SqueezeNet with dropout, which draws from the run's generator."""
    folder = write_image_folder(tmp_path / "pets", train=images)
    words = ["--dataset", "folder", "--data_path", folder, "--arch", arch, "--method", "none", "--seed", "1",
             "--epochs", "2", "--batch_size", "4", "--workers", workers, "--save_interval", "1"]  # fmt: skip
    alone = run_program(tmp_path / "alone", *words)
    run_until(killed_at, tmp_path / "killed", words, monkeypatch)
    again = run_program(tmp_path / "killed", *words, "--resume_path", "auto")
    assert differences(alone.run_dir, again.run_dir) == []


@pytest.mark.parametrize(("again", "kind"), [("--speedup 1.3", "filter"), ("--stage_pr [0,0.5,0.25,0.5,0]", "channel")])
def test_a_pruned_network_is_pruned_again_and_resumed(again, kind, tiny, tmp_path, monkeypatch):
    once = run_program(tmp_path / "once", *words_for(tiny, "L1", "--wg", kind))
    words = [word for word in words_for(tiny, "GReg-1", "--wg", kind) if word not in ("--allow_untrained",)]
    at = words.index("--stage_pr")
    words = [*words[:at], *again.split(), *words[at + 2 :], "--base_model_path", once.weights("checkpoint_best")]
    alone = run_program(tmp_path / "alone", *words)
    assert alone.code == 0, alone.err
    first, second = once.report, alone.report
    assert second["params_before"] == first["params_after"] > second["params_after"]
    assert (second["params_dense"], second["flops_dense"]) == (first["params_before"], first["flops_before"])
    assert second["speedup_dense"] == pytest.approx(first["speedup"] * second["speedup"])
    for killed_at in (3, 7):  # in the prune phase and in fine-tuning
        cwd = tmp_path / f"killed{killed_at}"
        run_until(killed_at, cwd, words, monkeypatch)
        resumed = run_program(cwd, *words, "--resume_path", "auto")
        assert resumed.code == 0, resumed.err
        assert differences(alone.run_dir, resumed.run_dir) == []


@pytest.mark.parametrize("killed_at", [3, 8], ids=["prune", "finetune"])
def test_a_resumed_run_frees_its_checkpoint_before_training(killed_at, tiny, tmp_path, monkeypatch):
    """The checkpoint holds a second copy of the optimizer and pruner state."""
    words = words_for(tiny, "GReg-1")
    run_until(killed_at, tmp_path, words, monkeypatch)
    alive = []

    def counting(*args, **kwargs):
        alive.append(sum(type(item) is Checkpoint for item in gc.get_objects()))
        raise Killed

    gc.collect()
    before = sum(type(item) is Checkpoint for item in gc.get_objects())
    monkeypatch.setattr(train, "train_step", counting)
    with pytest.raises(Killed):
        run_program(tmp_path, *words, "--resume_path", "auto")
    assert alive == [before]


# killed processes


def resume_after_kills(method, kind, targets, tmp_path, dice):
    write_images(tmp_path / "images")
    words = command(tmp_path / "images", method, kind)
    alone = run_alone(words, tmp_path / "alone")
    outcome = run_killed(words, tmp_path / "killed", method, targets, dice)
    assert outcome.differences == []
    assert differences(alone, run_dir_in(tmp_path / "killed")) == []
    return outcome


def test_a_process_killed_three_times_gives_the_same_result(tmp_path):
    outcome = resume_after_kills("GReg-2", "filter", ["update", "cut", "fine-tuning"], tmp_path, random.Random(5))
    assert sum(outcome.kills.values()) == 3


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("method", "kind"), COMBINATIONS)
def test_a_process_killed_a_dozen_times_gives_the_same_result(method, kind, tmp_path):
    dice = random.Random(f"{method} {kind}")
    outcome = resume_after_kills(method, kind, targets_for(method, 12, dice), tmp_path, dice)
    assert sum(outcome.kills.values()) >= 10  # a process may end before its kill


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)]
)
def test_a_signal_ends_the_step_saves_prints_how_to_resume_and_sets_the_exit_code(sent, code, tmp_path):
    write_images(tmp_path / "images")
    words = command(tmp_path / "images", "GReg-1", "filter")
    words[words.index("--save_interval") + 1] = "100000"
    alone = run_alone(words, tmp_path / "alone")
    cwd = tmp_path / "stopped"
    cwd.mkdir()
    process = subprocess.Popen(words, cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while run_dir_in(cwd) is None or "prune  step 5/" not in log_of(cwd):
        time.sleep(0.01)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == code
    run_dir = run_dir_in(cwd)
    assert signal.Signals(sent).name in err
    assert f"--resume_path {run_dir.relative_to(cwd)}" in err
    assert "Traceback" not in err
    saved = torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)
    assert saved["phase"] == "prune"
    assert saved["step"] >= 5
    subprocess.run([*MAIN, "--resume_path", run_dir], cwd=cwd, check=True, capture_output=True)
    assert differences(alone, run_dir) == []


def log_of(cwd):
    log = run_dir_in(cwd) / "log" / "log.txt"
    return log.read_text() if log.exists() else ""


# values of --resume_path


@pytest.fixture
def half(tiny, tmp_path, monkeypatch):
    """Return the directory and the words of a run killed in its second epoch."""
    words = words_for(tiny, "L1")
    run_until(5, tmp_path / "half", words, monkeypatch)
    (run_dir,) = (tmp_path / "half" / "Experiments").iterdir()
    return run_dir, words


@pytest.mark.parametrize("kind", ["directory", "checkpoint", "pattern"])
def test_a_path_needs_no_other_flag(kind, half):
    run_dir, _ = half
    path = {
        "directory": run_dir,
        "checkpoint": run_dir / "weights" / "checkpoint.pth",
        "pattern": f"{run_dir}"[:-3] + "*",
    }
    ran = run_program(run_dir.parents[1], "--resume_path", path[kind])
    assert ran.code == 0
    assert ran.run_dir == run_dir
    assert len(ran.load("checkpoint")["record"]["tuned"]["acc1"]) == 2


def test_a_checkpoint_outside_of_a_run_directory_is_resumed_in_a_new_one(half, tmp_path):
    run_dir, _ = half
    shutil.copy(run_dir / "weights" / "checkpoint.pth", tmp_path / "moved.pth")
    whole = run_program(run_dir.parents[1], "--resume_path", run_dir)
    ran = run_program(tmp_path / "elsewhere", "--resume_path", tmp_path / "moved.pth")
    assert ran.code == 0
    assert ran.report["acc1_last"] == whole.report["acc1_last"]


def test_checkpoint_init_cannot_be_resumed(tiny, tmp_path):
    ran = run_program(tmp_path / "run", *words_for(tiny, "L1"), "--save_init_model")
    refused = run_program(tmp_path / "run", "--resume_path", ran.weights("checkpoint_init"))
    assert refused.code == 2
    assert "before the first step" in refused.err


def test_auto_starts_a_new_run_and_prints_the_table_of_a_finished_one(tiny, tmp_path):
    words = [*words_for(tiny, "L1"), "--resume_path", "auto"]
    first = run_program(tmp_path / "run", *words)
    written = {path: path.stat().st_mtime_ns for path in first.run_dir.rglob("*")}
    second = run_program(tmp_path / "run", *words)
    assert (first.code, second.code) == (0, 0)
    assert "fine-tuning, best epoch" in second.out
    assert {path: path.stat().st_mtime_ns for path in second.run_dir.rglob("*")} == written


def test_stored_settings_repeat_a_run(tiny, tmp_path):
    first = run_program(tmp_path / "first", *words_for(tiny, "L1"), "--resume_path", "auto")
    again = run_program(tmp_path / "again", "--config", first.run_dir / "log" / "params.yaml")
    assert (again.code, again.report["acc1_best"]) == (0, first.report["acc1_best"])
    assert again.run_dir != first.run_dir


def test_auto_finds_the_run_without_a_given_seed(tiny, tmp_path, monkeypatch):
    words = words_for(tiny, "GReg-1")
    at = words.index("--seed")
    words[at : at + 2] = []
    run_until(4, tmp_path / "run", words, monkeypatch)
    ran = run_program(tmp_path / "run", *words, "--resume_path", "auto")
    assert ran.code == 0
    assert ran.report["seed"] == yaml.safe_load((ran.run_dir / "log" / "params.yaml").read_text())["seed"]


def test_a_run_killed_before_its_first_checkpoint_restarts_in_its_directory(tiny, tmp_path, monkeypatch):
    words = [*words_for(tiny, "GReg-1"), "--resume_path", "auto"]
    run_until(1, tmp_path / "run", words, monkeypatch)
    ran = run_program(tmp_path / "run", *words)
    assert (ran.code, len(list((tmp_path / "run" / "Experiments").iterdir()))) == (0, 1)


CHANGED = {
    "seed": "4", "batch_size": "8", "lr_ft": "0:0.02", "wd": "0.5", "momentum": "0.5", "stage_pr": "[0,0.5,0.5,0.5,0]",
    "pick_pruned": "max", "val_fraction": "0.2", "wg": "channel", "method": "GReg-1", "epochs": "1",
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGED)
@pytest.mark.parametrize("path", ["auto", "directory"])
def test_changed_settings_that_affect_results_are_refused_by_name(name, path, half):
    run_dir, words = half
    before = {file: file.read_bytes() for file in run_dir.rglob("*") if file.is_file()}
    named = ["--project_name", "L1__resnet20__npz"] if path == "auto" else []
    given = [*(words if path == "auto" else []), *named, f"--{name}", CHANGED[name]]
    ran = run_program(run_dir.parents[1], *given, "--resume_path", run_dir if path == "directory" else "auto")
    assert ran.code == 2
    (line,) = ran.err.splitlines()
    assert f"--{name} {CHANGED[name]} (was " in line
    assert {file: file.read_bytes() for file in run_dir.rglob("*") if file.is_file()} == before


def test_settings_that_do_not_affect_results_may_change_and_epochs_may_be_added(half):
    run_dir, words = half
    more = ["--workers", "1", "--print_interval", "7", "--print_freq", "3", "--note", "again", "--epochs", "3"]
    ran = run_program(run_dir.parents[1], *words, *more, "--resume_path", "auto")
    assert ran.code == 0
    assert len(ran.load("checkpoint")["record"]["tuned"]["acc1"]) == 3
    longer = run_program(run_dir.parents[1], "--resume_path", run_dir, "--epochs", "4")  # of a finished run
    assert len(longer.load("checkpoint")["record"]["tuned"]["acc1"]) == 4


@pytest.mark.parametrize(("given", "noted"), [([], True), (["--lr_ft", "0:0.01"], False)])
def test_added_epochs_that_change_the_rates_of_plain_training_are_noticed(given, noted, tmp_path):
    words = [
        "--dataset",
        "npz",
        "--data_path",
        write_npz_set(tmp_path / "set"),
        "--arch",
        "resnet20",
        "--method",
        "none",
    ]
    ran = run_program(tmp_path, *words, "--epochs", "4", "--lr", "0.01", "--batch_size", "20", *given)
    assert ran.code == 0, ran.err
    more = run_program(tmp_path, "--resume_path", ran.run_dir, "--epochs", "12")
    line = (
        "--epochs 12 (was 4): plain training divides --lr at half and at three quarters of them; the rate from epoch 4"
    )
    assert (f"{line} on is 0.01" in more.err) == noted
    again = run_program(tmp_path, "--resume_path", ran.run_dir, "--epochs", "12")
    assert line not in again.err


@pytest.mark.parametrize("path", ["auto", "directory"])
@pytest.mark.parametrize("steps", [1, 4])  # before the first checkpoint of the added epochs, and after it
def test_a_finished_run_killed_in_added_epochs_resumes_in_them(steps, path, half, monkeypatch):
    run_dir, words = half
    cwd = run_dir.parents[1]
    before = run_program(cwd, "--resume_path", run_dir).report
    run_until(steps, cwd, ["--resume_path", run_dir, "--epochs", "5"], monkeypatch)
    assert json.loads((run_dir / "log" / "report_before.json").read_text()) == before
    given = ["--resume_path", run_dir] if path == "directory" else [*words, "--epochs", "5", "--resume_path", "auto"]
    ran = run_program(cwd, *given)
    assert ran.code == 0
    assert len(ran.load("checkpoint")["record"]["tuned"]["acc1"]) == 5
    assert ran.report["iterations"]["finetune"] == 5 * 3  # of 40 images in batches of 16


def test_a_signal_after_the_last_step_loses_none(half, monkeypatch):
    run_dir, _ = half
    cwd = run_dir.parents[1]
    report = run_program(cwd, "--resume_path", run_dir).report
    (run_dir / "log" / "report.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("utils.engine.monitor.RankConsensus.close", lambda *_: signal.SIGTERM)
        assert run_program(cwd, "--resume_path", run_dir).code == 143
    again = run_program(cwd, "--resume_path", run_dir)
    assert again.report["iterations"] == report["iterations"]
    assert again.load("checkpoint")["record"]["tuned"]["acc1"][-1] == report["acc1_last"]


def test_another_number_of_images_is_refused(half, tiny):
    run_dir, words = half
    write_npz_set(tiny, train=41)
    ran = run_program(run_dir.parents[1], *words, "--resume_path", "auto")
    assert ran.code == 2
    assert "40" in ran.err
    assert "41" in ran.err


@pytest.mark.parametrize("damage", ["short", "flipped", "foreign", "missing"])
def test_auto_falls_back_to_the_previous_checkpoint(damage, half, tmp_path):
    run_dir, words = half
    latest = run_dir / "weights" / "checkpoint.pth"
    good = latest.read_bytes()
    bad = {
        "short": good[:-500],
        "flipped": bytes(b ^ (i == len(good) // 2) for i, b in enumerate(good)),
        "foreign": b"x",
    }
    latest.unlink() if damage == "missing" else latest.write_bytes(bad[damage])
    ran = run_program(run_dir.parents[1], *words, "--resume_path", "auto")
    assert ran.code == 0
    if damage != "missing":
        assert "checkpoint.pth" in ran.err
        assert "resuming from checkpoint_previous.pth" in ran.err
    alone = run_program(tmp_path / "alone", *words)
    assert differences(alone.run_dir, run_dir) == []


def test_a_run_with_two_damaged_checkpoints_is_refused(half):
    run_dir, words = half
    for name in ("checkpoint", "checkpoint_previous"):
        (run_dir / "weights" / f"{name}.pth").write_bytes(b"x")
    ran = run_program(run_dir.parents[1], *words, "--resume_path", "auto")
    assert ran.code == 2
    assert "checkpoint.pth" in ran.err
    assert "checkpoint_previous.pth" in ran.err


def test_a_locked_run_is_refused(half):
    run_dir, words = half
    hold = f"import sys, time; sys.path.insert(0, {str(ROOT)!r}); from pathlib import Path\n"
    hold += "from utils.reporting.run_dir import lock\n"
    hold += f"file = lock(Path({str(run_dir)!r})); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    ran = run_program(run_dir.parents[1], *words, "--resume_path", "auto")
    holder.kill()
    holder.communicate()
    assert ran.code == 2
    assert f"process {holder.pid}" in ran.err
    assert run_program(run_dir.parents[1], *words, "--resume_path", "auto").code == 0  # the lock ends with its process


# full disks, non-finite losses, memory


def test_a_full_disk_gives_one_error_line_and_leaves_the_last_checkpoint_intact(tiny, tmp_path):
    """RLIMIT_FSIZE stands in for a full disk, since mounting one needs root."""
    words = [str(word) for word in words_for(tiny, "GReg-1")]
    first = run_program(tmp_path / "run", *words, "--epochs", "0")
    latest = first.weights("checkpoint").read_bytes()
    limit = len(latest) * 5 // 4  # those to come have the momentum of every weight, too
    ran = subprocess.run(
        [*MAIN, "--resume_path", first.run_dir, "--epochs", "2"], cwd=tmp_path / "run", capture_output=True, text=True,
        check=False, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert ran.returncode == 1
    (line,) = [line for line in ran.stderr.splitlines() if "notice" not in line]
    assert line.startswith("main.py: error: ")
    assert "could not be written: File too large" in line
    assert "intact" in line
    assert first.weights("checkpoint").read_bytes() == latest
    assert not list(first.run_dir.rglob("*.part"))
    assert run_program(tmp_path / "run", "--resume_path", first.run_dir, "--epochs", "2").code == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may mount")
def test_a_full_tmpfs(tiny, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=5m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        ran = subprocess.run(
            [*MAIN, *(str(word) for word in words_for(tiny, "GReg-1"))],
            cwd=disk,
            capture_output=True,
            text=True,
            check=False,
        )
        (run_dir,) = (disk / "Experiments").iterdir()
        assert ran.returncode == 1
        lines = [line for line in ran.stderr.splitlines() if "notice" not in line]
        assert len(lines) == 1, ran.stderr
        assert "No space left on device" in lines[0]
        assert torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)["phase"] == "prune"
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_non_finite_loss_names_its_first_step_and_saves_no_state(tiny, tmp_path):
    words = words_for(tiny, "GReg-1", "--lr_prune", "1e20", "--stabilize_reg_interval", "500", "--print_interval", "50")
    ran = run_program(tmp_path / "run", *words, "--save_interval", "60")
    assert ran.code == 1
    (line,) = [line for line in ran.err.splitlines() if "notice" not in line]
    assert "not finite at step" in line
    assert int(line.split("at step ")[1].split(";")[0]) < 10
    assert not ran.weights("checkpoint").exists()


@pytest.mark.slow
def test_memory_stays_flat_over_thousands_of_steps(tiny, tmp_path):
    """Compare resident memory after 1,000 and after 6,000 steps, in a subprocess."""
    program = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import torch
import main
from utils.engine import train
torch.set_num_threads(1)
made, step, pages = [0], train.train_step, {{}}
def counted(*args):
    made[0] += 1
    if made[0] in (1000, 6000):
        pages[made[0]] = int(open("/proc/self/statm").read().split()[1])
    return step(*args)
train.train_step = counted
code = main.main(sys.argv[1:])
print("MEMORY", code, pages[1000] * 4096, pages[6000] * 4096)
"""
    small = write_npz_set(tmp_path / "small", size=32)
    words = f"""--method GReg-1 --arch lenet5_mini --dataset npz --data_path {small} --allow_untrained --seed 0
        --epochs 0 --stage_pr [1-2:0.5] --batch_size_prune 2 --print_interval 10 --save_interval 500
        --update_reg_interval 5 --reg_granularity_prune 0.002 --stabilize_reg_interval 3600"""
    words = [sys.executable, "-c", program, *words.split()]
    ran = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    _, code, early, late = next(line for line in ran.stdout.splitlines() if line.startswith("MEMORY")).split()
    assert int(code) == 0
    assert int(late) - int(early) < 12e6


def test_stopped_error_is_not_caught_by_except_exception():
    assert not issubclass(StoppedError, Exception)


@pytest.mark.parametrize("damage", [b"", b"abc", None])
def test_a_damaged_record_for_the_figure_is_a_notice_at_every_resume(damage, tiny, tmp_path, monkeypatch):
    words = words_for(tiny, "GReg-1", "--stabilize_reg_interval", "4")
    alone = run_program(tmp_path / "alone", *words)
    run_until(5, tmp_path / "run", words, monkeypatch)
    (run_dir,) = (tmp_path / "run" / "Experiments").iterdir()
    rows = run_dir / "log" / "filter_norms.rows"
    rows.unlink() if damage is None else rows.write_bytes(damage)
    ran = run_program(tmp_path / "run", *words, "--resume_path", "auto")
    assert ran.code == 0
    assert "notice: no filter_norms.png" in ran.err
    assert differences(alone.run_dir, run_dir) == []


def test_a_run_killed_at_the_cut_resumes_from_the_state_before_it(tiny, tmp_path, monkeypatch):
    words = words_for(tiny, "GReg-2")
    words[words.index("--save_interval") + 1] = "100000"
    alone = run_program(tmp_path / "alone", *words)

    def killed(*args, **kwargs):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("main.cut_and_measure", killed)
        with pytest.raises(Killed):
            run_program(tmp_path / "run", *words)
    again = run_program(tmp_path / "run", *words, "--resume_path", "auto")
    assert f"after {sum(PRUNE_STEPS['GReg-2'].values())} steps of the prune phase" in again.out
    assert differences(alone.run_dir, again.run_dir) == []
