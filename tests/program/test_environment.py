"""The environment: stale variables of launchers, missing GPUs; and numbers of any size."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from helpers import ROOT, run_program

from utils.config.cli import parse
from utils.dist.device import device_notices, resolve_device

MAIN = [sys.executable, str(ROOT / "main.py")]
WORDS = ["--dataset", "digits", "--arch", "lenet5_mini", "--method", "none", "--epochs", "1", "--seed", "0"]


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR"])
def test_a_single_launcher_variable_suppresses_no_output(variable, tmp_path, monkeypatch):
    monkeypatch.setenv(variable, "1")
    ran = run_program(tmp_path, *WORDS, "--epochz", "3")
    assert ran.code == 2
    assert ran.err.startswith("main.py: error: ")
    assert "Plan: " in run_program(tmp_path, *WORDS, "--plan").out


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "x"}, "RANK=x is not a whole number"),
        ({"WORLD_SIZE": "abc"}, "WORLD_SIZE=abc is not a whole number"),
        ({"RANK": "3"}, "RANK=3 is not below WORLD_SIZE=2"),
        ({"RANK": "2"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"RANK": "-1"}, "RANK=-1 is not a whole number"),
        ({"MASTER_PORT": "x"}, "MASTER_PORT=x is not a port"),
        ({"MASTER_PORT": ""}, "MASTER_PORT= is not a port"),
    ],
)
def test_variables_of_a_launcher_that_do_not_fit_are_refused_on_any_rank(variables, message, tmp_path, monkeypatch):
    stale = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29599"}
    for name, value in (stale | variables).items():
        monkeypatch.setenv(name, value)
    ran = subprocess.run([*MAIN, *WORDS], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr == f"main.py: error: {message}; to run a single process, unset RANK, WORLD_SIZE and MASTER_ADDR\n"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_stale_launcher_variables_give_a_notice_about_waiting(rank, end, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"RANK": rank, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    stderr = tmp_path / "stderr.txt"
    with open(stderr, "w") as file:
        process = subprocess.Popen([*MAIN, *WORDS], cwd=tmp_path, env=environment, stderr=file)
    began = time.monotonic()
    while time.monotonic() - began < 60 and "waiting" not in stderr.read_text():
        time.sleep(0.1)
    process.send_signal(end)
    assert process.wait(timeout=30) == -end
    assert f"waiting for 1 other process at 127.0.0.1:{port}" in stderr.read_text()
    assert "unset RANK" in stderr.read_text()


@pytest.mark.parametrize("visible", ["-1", "", "NoDevFiles", "-1,0"])
def test_hidden_gpus_give_no_notice(visible, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_notices(resolve_device("cpu"), None) == []


def test_every_thread_of_a_run_rounds_subnormal_numbers_to_zero(tmp_path):
    code = """
import sys, torch
from main import main
assert main(sys.argv[1:]) == 0
print((torch.full((1 << 22,), 1e-39) * 1).count_nonzero().item(), "of", torch.get_num_threads())
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    ran = subprocess.run(
        [sys.executable, "-c", code, *WORDS], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert ran.stdout.endswith("\n0 of 2\n")


def test_a_billion_epochs_are_planned_at_once(tmp_path):
    began = time.perf_counter()
    ran = run_program(tmp_path, *WORDS, "--epochs", "1000000000", "--plan=json")
    assert time.perf_counter() - began < 10
    assert json.loads(ran.out)["iterations"]["finetune"] == 6_000_000_000
    options, _ = parse([*WORDS, "--epochs", "1000000000"])
    from utils.config.lr_schedule import learning_rates

    assert len(learning_rates(options)) == 3


@pytest.mark.parametrize("value", ["1e39", "1e300", "-1e39", "inf", "nan"])
@pytest.mark.parametrize("flag", ["lr", "lr_prune", "wd", "momentum", "mag_ratio_limit", "reg_granularity_recover"])
def test_numbers_beyond_float32_are_refused(flag, value, tmp_path):
    ran = run_program(tmp_path, *WORDS, f"--{flag}={value}")
    assert ran.code == 2
    assert f"--{flag}" in ran.err
    assert len(ran.err.splitlines()) == 1
