"""Several processes on the CPU over gloo: equal selections and weights on all ranks, equal to those of one process."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT, SHORT_GREG, run_program, write_npz_set

from data.sampler import Shard, batches_of_indices, images_in_step
from scripts.checks.kill_test import differences
from utils.config.cli import parse
from utils.dist import launch as launch_module
from utils.dist.launch import count_processes, launch

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
LINE = "--dataset digits --arch resnet20"


def several(cwd, *words, **more):
    cwd.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [*TORCHRUN, *map(str, words)], cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, check=False, **more
    )


def started(cwd, words):
    """Start a run of two processes and wait for its fifth step."""
    cwd.mkdir()
    command = [*TORCHRUN, ROOT / "main.py", *map(str, words)]
    process = subprocess.Popen(
        command, cwd=cwd, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    for line in process.stdout:
        if "prune  step 5/" in line:
            break
    return process


# the parts of a batch


@pytest.mark.parametrize("of", [1, 2, 3, 5])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 64])
def test_every_batch_is_split_over_ranks_and_no_rank_is_without_images(n, of):
    own, lacking = zip(*(Shard(rank, of).local_indices(n) for rank in range(of)), strict=True)
    real = [indices[: len(indices) - k] for indices, k in zip(own, lacking, strict=True)]
    assert torch.cat(real).tolist() == list(range(n))
    assert all(len(indices) >= min(n, 2) for indices in own) or of == 1
    assert max(map(len, real)) - min(map(len, real)) <= 1


def test_images_in_step_equals_the_length_of_the_batch():
    batches = batches_of_indices(10, 4, 0, "x")
    assert [images_in_step(10, 4, step) for step in range(7)] == [len(next(batches)[0]) for _ in range(7)]


# two processes, and one


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of two_ranks.py: (rank 0 of 2, rank 1 of 2, the single process)."""
    folder = tmp_path_factory.mktemp("ranks")
    script = ROOT / "tests" / "dist" / "two_ranks.py"
    ran = several(folder, script, folder)
    assert ran.returncode == 0, ran.stderr
    subprocess.run([sys.executable, script, folder], env=ENVIRONMENT, check=True)
    return [torch.load(folder / name, weights_only=True) for name in ("rank0of2.pt", "rank1of2.pt", "rank0of1.pt")]


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def test_greg_2_with_batch_norm_is_identical_on_both_ranks(results):
    first, second, _ = results
    for key in ("model", "penalties", "kept"):
        assert same(first[key], second[key])
    assert first["fingerprint"] == second["fingerprint"]
    assert all((~kept).any() for kept in first["kept"].values())


def test_gradients_of_a_short_batch_equal_those_of_one_process(results):
    first, second, alone = results
    assert same(first["gradients"], second["gradients"])
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(first["gradients"][name], gradient)


def test_evaluation_on_both_ranks_equals_that_of_one_process(results):
    first, second, alone = results
    assert first["accuracy"] == second["accuracy"] == pytest.approx(alone["accuracy"])


def test_ranks_that_differ_stop_at_the_next_step(results):
    assert all("ranks differ" in result["consensus_error"] for result in results[:2])


def test_a_signal_is_received_by_all_ranks_at_the_next_step_and_by_one_process_at_once(results):
    first, second, alone = results
    assert first["signal"] == second["signal"] == [(0, False), (0, False), (15, False), (0, True), 0]
    assert alone["signal"] == [(0, False)] * 4 + [0]


# the program


@pytest.fixture
def tiny(tmp_path):
    return write_npz_set(tmp_path / "tiny_set", size=32)


def words_for(tiny, method, *more):
    greg = SHORT_GREG if method.startswith("GReg") else ()
    return [
        *("--dataset", "npz", "--data_path", tiny, "--arch", "lenet5", "--method", method, "--stage_pr", "[1-3:0.5]"),
        *("--seed", "3", "--epochs", "2", "--batch_size", "16", "--lr", "0.001", "--allow_untrained"),
        *("--save_interval", "1", "--device", "cpu", *greg, *more),
    ]


@pytest.mark.parametrize("method", ["L1", "GReg-1", "GReg-2"])
def test_selections_and_weights_equal_those_of_one_process_without_batch_norm(method, tiny, tmp_path):
    words = words_for(tiny, method)
    alone = run_program(tmp_path / "one", *words)
    ran = several(tmp_path / "two", ROOT / "main.py", *words)
    assert ran.returncode == 0, ran.stderr
    (run_dir,) = (tmp_path / "two" / "Experiments").iterdir()
    two = torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)
    assert two["kept"].keys() == alone.load("checkpoint")["kept"].keys()
    assert same(two["kept"], alone.load("checkpoint")["kept"])
    for key, value in alone.load("checkpoint_just_finished_prune")["model"].items():
        after_cut = torch.load(run_dir / "weights" / "checkpoint_just_finished_prune.pth", weights_only=True)["model"]
        torch.testing.assert_close(after_cut[key], value, rtol=1e-4, atol=1e-5)
    assert ran.stdout.count("Plan: ") == 1  # only rank 0 prints


def test_a_run_of_two_stopped_by_a_signal_resumes_bit_for_bit_with_two_and_also_with_one(tiny, tmp_path):
    """With batch norm, whose running statistics differ between ranks."""
    words = words_for(tiny, "GReg-1", "--arch", "resnet20", "--stage_pr", "[0,0.5,0.25,0.5,0]", "--lr_ft", "0:0.01")
    words += ["--stabilize_reg_interval", "40"]
    assert several(tmp_path / "alone", ROOT / "main.py", *words).returncode == 0
    (alone,) = (tmp_path / "alone" / "Experiments").iterdir()
    process = started(tmp_path / "stopped", words)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert "stopped by SIGTERM after step" in err
    (run_dir,) = (tmp_path / "stopped" / "Experiments").iterdir()
    saved = torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)
    assert (saved["phase"], len(saved["rng"])) == ("prune", 2)
    (tmp_path / "with_one" / "Experiments").mkdir(parents=True)
    subprocess.run(["cp", "-r", run_dir, tmp_path / "with_one" / "Experiments"], check=True)

    again = several(tmp_path / "stopped", ROOT / "main.py", *words, "--resume_path", "auto")
    assert again.returncode == 0, again.stderr
    assert differences(alone, run_dir) == []
    one = run_program(tmp_path / "with_one", *words, "--resume_path", "auto")
    assert one.code == 0
    assert "saved by 2 process(es), resumed by 1: the result will not be bit-identical" in one.err


def test_a_killed_process_ends_all_others_within_a_minute(tiny, tmp_path):
    words = words_for(tiny, "GReg-1", "--stabilize_reg_interval", "1000000")
    process = started(tmp_path / "run", words)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    workers = [int(pid) for pid in children.stdout.split() if b"main.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    began = time.monotonic()
    os.kill(workers[1], signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 60
    assert process.returncode != 0
    assert "SIGKILL" in err or "-9" in err
    assert not any(os.path.exists(f"/proc/{pid}") for pid in workers)


# launch of several processes


def options_of(*words):
    return parse([*LINE.split(), *words])[0]


@pytest.mark.parametrize(
    ("gpus", "words", "expected"),
    [
        (0, (), 1), (1, (), 1), (2, (), 2),
        (4, ("--multiprocessing-distributed", "--world-size", "1", "--rank", "0"), 4),
        (4, ("--gpu", "1"), 1), (4, ("--device", "cpu"), 1), (4, ("--plan",), 1), (4, ("--evaluate",), 1),
    ],
)  # fmt: skip
def test_all_visible_gpus_are_used_except_with_gpu_cpu_plan_or_evaluate(gpus, words, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert count_processes(options_of(*words)) == expected


def test_under_torchrun_nothing_is_launched_and_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(launch_module, "under_torchrun", lambda: True)
    assert count_processes(options_of()) == 1
    with pytest.raises(ValueError, match="--gpu"):
        count_processes(options_of("--gpu", "1"))


def launched(cwd, *words):
    """Run ``launch`` with two processes, in a subprocess."""
    program = "import sys; from utils.dist.launch import launch; sys.exit(launch(sys.argv[1], sys.argv[2:], 2))"
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    cwd.mkdir()
    return subprocess.run(
        [sys.executable, "-c", program, ROOT / "main.py", *map(str, words)], cwd=cwd, env=environment, text=True,
        capture_output=True, check=False,
    )  # fmt: skip


def test_the_program_starts_itself_in_two_processes(tiny, tmp_path):
    ran = launched(tmp_path / "run", *words_for(tiny, "L1"))
    assert ran.returncode == 0, ran.stderr
    (run_dir,) = (tmp_path / "run" / "Experiments").iterdir()
    assert re.search(r'"processes": 2', (run_dir / "log" / "report.json").read_text())


@pytest.mark.parametrize("flag", ["--plan", "--plan=json"])
def test_only_rank_0_prints(flag, tiny, tmp_path):
    ran = launched(tmp_path / "run", *words_for(tiny, "L1", flag))
    assert (ran.returncode, ran.stdout.count("FLOPs") + ran.stdout.count('"flops1"')) == (0, 1 + (flag == "--plan"))


def test_a_wrong_command_in_several_processes_gives_one_line_and_exit_code_2(tiny, tmp_path):
    ran = launched(tmp_path / "run", *words_for(tiny, "L1", "--stage_pr", "[99:0.5]"))
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert line.startswith("main.py: error: --stage_pr")
    assert not list((tmp_path / "run").iterdir())


def test_main_calls_launch(monkeypatch, tmp_path):
    import main

    called = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(main, "launch", lambda program, argv, n: called.append((program, list(argv), n)) or 7)
    assert run_program(tmp_path, *LINE.split(), "--method", "none").code == 7
    assert called == [(main.__file__, [*LINE.split(), "--method", "none"], 2)]
    assert launch.__module__ == "utils.dist.launch"
