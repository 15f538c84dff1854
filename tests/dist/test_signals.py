"""Signals to the program or its process group, and killed data workers, with images in memory and in files."""

import os
import signal
import subprocess
import time

import pytest
import torch
from helpers import write_image_folder

from scripts.checks.kill_test import command, differences, run_alone, run_dir_in, write_images

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def words_of(kind, folder):
    """Return the words of a run that writes checkpoints only on signals."""
    if kind == "arrays":
        words = command(folder, "GReg-1", "filter")
        words[words.index("--save_interval") + 1] = "100000"
        return words
    main = command(folder, "L1", "filter")[:2]
    return [*main, *f"""--dataset folder --data_path {folder} --arch squeezenet1_1 --method none --seed 1 --device cpu --epochs 3
        --batch_size 4 --workers 2 --lr_ft 0:0.001 --save_interval 100000 -p 1""".split()]  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return kind of images -> (words of a run, directory of an uninterrupted one)."""
    root, uninterrupted = tmp_path_factory.mktemp("signals"), {}
    write_images(root / "arrays")
    write_image_folder(root / "files", train=8)
    for kind in ("arrays", "files"):
        words = words_of(kind, root / kind)
        uninterrupted[kind] = words, run_alone(words, root / f"alone_{kind}")
    return uninterrupted


def log_of(cwd):
    run_dir = run_dir_in(cwd)
    log = run_dir and run_dir / "log" / "log.txt"
    return log.read_text() if log and log.exists() else ""


def started(words, cwd, until="step 3/"):
    """Start the program in its own process group and wait until its log contains `until`."""
    cwd.mkdir()
    process = subprocess.Popen(
        words, cwd=cwd, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, process_group=0
    )
    while until not in log_of(cwd):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    return process


def workers_of(process):
    children = subprocess.run(
        ["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True, check=False
    )
    return [int(pid) for pid in children.stdout.split()]


@pytest.mark.parametrize("sent", SIGNALS, ids=lambda sent: sent.name)
@pytest.mark.parametrize(("kind", "to"), [("arrays", "process"), ("files", "group")])
def test_a_signal_saves_the_state_and_prints_one_line_and_the_resumed_run_is_bit_equal(sent, kind, to, runs, tmp_path):
    words, alone = runs[kind]
    process = started(words, tmp_path / "cwd")
    (os.killpg if to == "group" else os.kill)(process.pid, sent)
    _, err = process.communicate(timeout=60)
    run_dir = run_dir_in(tmp_path / "cwd")
    lines = [line for line in err.splitlines() if "notice" not in line]
    assert process.returncode == 128 + sent
    assert len(lines) == 1, err
    assert lines[0].startswith(f"main.py: stopped by {sent.name} after step ")
    assert lines[0].endswith(f"; resume with: python main.py --resume_path {run_dir.relative_to(tmp_path / 'cwd')}")
    assert torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)["step"] >= 3
    subprocess.run([*words, "--resume_path", "auto"], cwd=tmp_path / "cwd", check=True, capture_output=True)
    assert differences(alone, run_dir) == []


def test_sighup_stays_ignored_under_nohup(runs, tmp_path):
    words, alone = runs["arrays"]
    process = started(["nohup", *words], tmp_path / "cwd")
    process.send_signal(signal.SIGHUP)
    process.communicate()
    assert process.returncode == 0
    assert differences(alone, run_dir_in(tmp_path / "cwd")) == []


def test_a_killed_data_worker_gives_one_line_with_the_likely_cause_and_how_to_resume(runs, tmp_path):
    words, alone = runs["files"]
    process = started(words, tmp_path / "cwd", until="epoch 0:")
    for pid in workers_of(process):
        os.kill(pid, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    lines = [line for line in err.splitlines() if "notice" not in line]
    assert process.returncode == 1
    assert len(lines) == 1, err
    assert "a data worker was killed" in lines[0]
    assert "; resume with: python main.py --resume_path Experiments/" in lines[0]
    subprocess.run([*words, "--resume_path", "auto"], cwd=tmp_path / "cwd", check=True, capture_output=True)
    assert differences(alone, run_dir_in(tmp_path / "cwd")) == []
