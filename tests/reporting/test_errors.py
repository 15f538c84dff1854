"""Every exception gives one line; its traceback is in log/log.txt, and on stderr with --debug."""

import errno
import logging
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import ROOT, run_program, write_npz_set

from utils.engine import train
from utils.pipeline import prepare
from utils.reporting.errors import explain
from utils.reporting.scalars import Scalars

MAIN = [sys.executable, str(ROOT / "main.py")]
RESUME = "; resume with: X"
ADVICE = {
    "CPU memory": (RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
                                "you tried to allocate 400 bytes. Error code 12 (Cannot allocate memory)"), "--batch_size"),
    "Python's memory": (MemoryError(), "--batch_size"),
    "numpy's memory": (np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("u1")), "--batch_size"),
    "GPU memory": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "the GPU is out of memory"),
    "shared memory": (RuntimeError("unable to open shared memory object </torch_1_2_3> in read-write mode: "
                                   "No space left on device (28)"), "--shm-size"),
    "a full /dev/shm": (RuntimeError("unable to write to file </torch_12_34>: No space left on device (28)"), "--workers 0"),
    "a full disk": (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "log/x"), "free some space"),
    "open files": (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
    "a worker's full memory": (RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most "
                                            "recent call last):\n  File x\nRuntimeError: unable to write to file "
                                            "</torch_12_34>: No space left on device (28)\n"), "--shm-size"),
    "a killed worker": (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "worker was killed"),
}  # fmt: skip


@pytest.mark.parametrize("name", ADVICE)
def test_errors_of_the_machine_give_advice_and_how_to_resume(name):
    error, advice = ADVICE[name]
    line = explain(error, RESUME)
    assert advice in line
    assert line.endswith(RESUME)
    assert "\n" not in line


class OddError(Exception):
    def __str__(self):
        return "first\nsecond"


@pytest.mark.parametrize(
    "error", [KeyError("x"), OddError(), RuntimeError(), AssertionError(), RecursionError("deep"), StopIteration()]
)
def test_any_other_error_is_reported_as_unexpected_in_one_line(error):
    line = explain(error)
    assert type(error).__name__ in line
    assert "--debug" in line
    assert "\n" not in line


WORDS = [
    "--dataset",
    "digits",
    "--arch",
    "lenet5_mini",
    "--method",
    "none",
    "--epochs",
    "1",
    "--batch_size",
    "256",
    "--seed",
    "0",
]


@pytest.mark.parametrize("debug", [False, True])
def test_a_failed_run_prints_one_line_and_logs_its_traceback(debug, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyError("odd")

    monkeypatch.setattr(train, "train_step", broken)
    ran = run_program(tmp_path, *WORDS, *(["--debug"] if debug else []))
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("main.py: error: unexpected KeyError")
    assert ("Traceback" in ran.err) == debug
    (run_dir,) = (tmp_path / ("Debug_Dir" if debug else "Experiments")).iterdir()
    assert "Traceback" in (run_dir / "log" / "log.txt").read_text()


def test_an_error_before_the_run_starts_has_exit_code_2(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise MemoryError

    monkeypatch.setattr(prepare, "plan_run", broken)
    ran = run_program(tmp_path, *WORDS)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("main.py: error: out of memory")
    assert not list(tmp_path.iterdir())


# terminals


def run_in_shell(cwd, *words, shell=None, **environment):
    command = " ".join([*MAIN, *words]) + (shell or "")
    return subprocess.run(
        ["bash", "-c", command],
        cwd=cwd,
        capture_output=True,
        env={**os.environ, **environment},
        check=False,
        timeout=120,
    )


GREG_PLAN = [
    "--dataset",
    "digits",
    "--arch",
    "resnet20",
    "--method",
    "GReg-2",
    "--stage_pr",
    "'[0,0.5,0.5,0.5,0]'",
    "--plan",
]


@pytest.mark.parametrize(
    "encoding",
    ["ascii:strict", "cp437", *(pytest.param(e, marks=pytest.mark.slow) for e in ("ascii", "latin-1", "utf-8"))],
)
def test_output_survives_any_encoding(encoding, tmp_path):
    ran = run_in_shell(tmp_path, *GREG_PLAN, PYTHONIOENCODING=encoding)
    assert (ran.returncode, b"Traceback" in ran.stderr) == (0, False)
    assert b"grows to step" in ran.stdout


@pytest.mark.parametrize(
    ("shell", "words"),
    [
        pytest.param(" >&-", [*GREG_PLAN], marks=pytest.mark.slow),
        pytest.param(" 2>&-", [*GREG_PLAN], marks=pytest.mark.slow),
        (" <&- >&- 2>&-", [*GREG_PLAN]),
        (" | head -c 1; exit ${PIPESTATUS[0]}", [*GREG_PLAN]),
        (" | head -c 1; exit ${PIPESTATUS[0]}", ["--help"]),
        pytest.param(" | true; exit ${PIPESTATUS[0]}", [*GREG_PLAN], marks=pytest.mark.slow),
        (" > /dev/full", [*GREG_PLAN]),
        (" | head -1; exit ${PIPESTATUS[0]}", [*WORDS, "-p", "1"]),
        (" >&- 2>&-", [*WORDS, "-p", "1"]),
    ],
)
def test_a_closed_stream_does_not_end_the_run(shell, words, tmp_path):
    ran = run_in_shell(tmp_path, *words, shell=shell)
    assert b"Traceback" not in ran.stderr
    assert b"Exception ignored" not in ran.stderr
    assert ran.returncode == 0, ran.stderr
    if words[0] == "--dataset" and "--epochs" in words:
        (run_dir,) = (tmp_path / "Experiments").iterdir()
        assert (run_dir / "log" / "report.json").exists()


def test_odd_bytes_in_notes_and_paths_are_kept(tmp_path):
    odd = os.fsdecode(b"p\xff\xe9ts")
    write_npz_set(tmp_path / odd, size=32)
    words = ["--dataset", "npz", "--data_path", odd, "--arch", "lenet5_mini", "--method", "none", "--epochs", "1",
             "--note", os.fsdecode(b"na\xefve \xce\xbb"), "--project", "x"]  # fmt: skip
    ran = subprocess.run([*MAIN, *words], cwd=tmp_path, capture_output=True, check=False, timeout=120)
    assert (ran.returncode, b"Traceback" in ran.stderr) == (0, False), ran.stderr
    again = subprocess.run([*MAIN, *words, "--resume_path", "auto"], cwd=tmp_path, capture_output=True, check=False)
    assert (again.returncode, b"best epoch" in again.stdout) == (0, True), again.stderr


def test_ctrl_c_during_import_prints_no_traceback(tmp_path):
    process = subprocess.Popen(MAIN, cwd=tmp_path, stderr=subprocess.PIPE)
    while process.poll() is None and not os.path.exists(f"/proc/{process.pid}/fd/2"):
        pass
    try:
        process.wait(0.3)
    except subprocess.TimeoutExpired:
        process.send_signal(2)
    _, err = process.communicate()
    assert b"Traceback" not in err


# optional output


def test_unwritable_tensorboard_scalars_are_a_notice(tmp_path, caplog):
    scalars = Scalars(tmp_path / "no folder")
    scalars.add("x", 0, {"y": 1.0})
    scalars.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


@pytest.mark.parametrize("function", ["prune.norms_figure", "cut.to_memory_format"])
def test_a_failed_figure_is_a_notice_and_a_failed_cut_is_an_error(function, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise ValueError("odd")

    module, name = function.split(".")
    monkeypatch.setattr(sys.modules[f"utils.pipeline.{module}"], name, broken)
    words = ["--dataset", "digits", "--arch", "lenet5_mini", "--method", "GReg-1", "--stage_pr", "[1:0.5]", "--epochs", "0",
             "--allow_untrained", "--reg_granularity_prune", "0.5", "--stabilize_reg_interval", "2"]  # fmt: skip
    ran = run_program(tmp_path, *words)
    if module == "prune":
        assert ran.code == 0
        assert "notice: no filter_norms.png (ValueError: odd)" in ran.err
    else:
        assert ran.code == 1
