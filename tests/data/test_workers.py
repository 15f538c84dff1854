"""Data workers: signals to the whole process group, their end, and the errors that they cause."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from helpers import ROOT, write_image_folder
from torch._utils import ExceptionWrapper

from data import BadImageError, DataSource, LostWorkerError, lost_worker, workers
from data.workers import SIGNALS, starting_workers, worker_errors

# Trains on a folder with two workers; then what the test asks for.
PROGRAM = """
import multiprocessing, os, signal, sys, time

def workers():
    return [child.pid for child in multiprocessing.active_children()]

def main(folder, method, what):
    global batches
    import torch
    from data import DataSource

    multiprocessing.set_start_method(method)
    received = []
    for number in {signals}:
        signal.signal(number, lambda number, _: received.append(number))
    batches = DataSource("folder", folder).load(0, 2, torch.device("cpu")).train_batches(4, "prune")
    next(batches)
    pids = workers()
    print(*pids, flush=True)
    if what == "signals":
        for number in {signals}:
            os.killpg(0, number)
        for _ in range(20):
            next(batches)
        assert sorted(set(received)) == sorted({signals}) and workers() == pids
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
        batches.close()
        assert not workers()
    elif what == "wait":
        time.sleep(100)
    print("ended", flush=True)

if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.fixture
def started(tmp_path):
    """The program above as the leader of a process group, and the ids of its workers."""
    write_image_folder(tmp_path / "pets", train=8)
    (tmp_path / "program.py").write_text(PROGRAM.format(signals=[int(number) for number in SIGNALS]))
    running = []

    def start(method, what):
        process = subprocess.Popen(
            [sys.executable, tmp_path / "program.py", tmp_path / "pets", method, what],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        running.append(process)
        return process, [int(pid) for pid in process.stdout.readline().split()]

    yield start
    for process in running:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(ended, seconds):
    until = time.monotonic() + seconds
    while not ended() and time.monotonic() < until:
        time.sleep(0.05)
    return ended()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_outlive_signals_to_the_group_and_end_with_the_loader(started, method):
    process, pids = started(method, "signals")
    assert len(pids) == min(2, len(os.sched_getaffinity(0)))
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out.strip()) == (0, "ended"), err
    assert not [pid for pid in pids if is_running(pid)]


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_workers_end_when_the_program_is_killed(started, method):
    process, pids = started(method, "wait")
    process.kill()
    assert wait_until(lambda: not [pid for pid in pids if is_running(pid)], seconds=10)


def test_a_program_ends_with_a_loader_still_open(started):
    process, pids = started("fork", "end")
    assert process.stdout.readline() == "ended\n"
    assert process.wait(timeout=10) == 0
    assert wait_until(lambda: not [pid for pid in pids if is_running(pid)], seconds=2)
    assert process.stderr.read() == ""


def test_signals_are_blocked_while_workers_start_and_no_longer():
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with starting_workers():
        assert set(SIGNALS) <= signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


# lost workers


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (signal.SIGKILL, "a data worker was killed (out of memory or of shared memory?)"),
        (signal.SIGBUS, "--shm-size"),
        (signal.SIGSEGV, "a data worker has ended: Segmentation fault"),
    ],
)
def test_a_lost_worker_is_one_line(image_folder, number, message, monkeypatch):
    data = DataSource("folder", str(image_folder)).load(0, 1, torch.device("cpu"))
    batches, of_others = data.train_batches(4, "prune"), multiprocessing.active_children()
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - set(of_others)
    with pytest.raises(RuntimeError) as caught:  # noqa: PT012 - torch raises it wherever the main thread is
        os.kill(worker.pid, number)
        for _ in range(1000):
            next(batches)
    line = lost_worker(caught.value)
    assert message in line
    assert len(line.splitlines()) == 1
    worker.join()
    monkeypatch.setattr(workers, "WAIT_FOR_SIGNAL", 0)
    late = (RuntimeError(f"DataLoader worker (pid(s) {worker.pid}) exited unexpectedly"), ConnectionResetError())
    for error in late:  # where torch comes too late to see the signal
        with pytest.raises(LostWorkerError, match=re.escape(message)), worker_errors() as known:  # noqa: PT012
            known.append(worker)
            raise error
    batches.close()


def test_a_signal_that_comes_long_after_the_connection_broke_is_waited_for():
    def torchs_handler(*_):
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ")

    before = signal.signal(signal.SIGALRM, torchs_handler)
    signal.setitimer(signal.ITIMER_REAL, 1.5)
    try:
        with pytest.raises(LostWorkerError, match="has ended: Segmentation fault"), worker_errors():
            raise EOFError
    finally:
        signal.signal(signal.SIGALRM, before)


TEXTS = {
    "DataLoader worker (pid 7) is killed by signal: Killed. ": "(out of memory or of shared memory?)",
    "DataLoader worker (pid(s) 7, 8) exited unexpectedly": "(out of memory or of shared memory?)",
    "DataLoader worker (pid 7) exited unexpectedly with exit code 1. Details are lost": "has ended: exit code 1",
    "DataLoader worker (pid 7) is killed by signal: Aborted. ": "Aborted",
    "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers are out of "
    "shared memory. Please try to raise your shared memory limit.": "shared memory",
    "unable to write to file </torch_7_123_0>: No space left on device (28)": "shared memory",
    "unable to open shared memory object </torch_7_1> in read-write mode: Too many open files (24)": "shared memory",
    "unable to mmap 128 bytes from file </torch_7_123_0>: Cannot allocate memory (12)": "--shm-size",
    "unable to allocate shared memory(shm) for file </torch_7_1>: Success (0)": "--shm-size",
}  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_errors_of_a_lost_worker_are_recognized_wherever_they_surface(text, depth):
    error = RuntimeError(text)
    for _ in range(depth):
        outer = OSError("checkpoint.pth could not be written")
        outer.__cause__ = error
        error = outer
    assert TEXTS[text] in lost_worker(error)
    assert lost_worker(LostWorkerError("a message")) == "a message"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA out of memory"),
        RuntimeError("out of resource: shared memory, Required: 147456, Hardware limit: 101376"),
        OSError(28, "No space left on device"),
        ValueError("x"),
        KeyboardInterrupt(),
        MemoryError(),
    ],
)
def test_other_errors_are_not_those_of_a_lost_worker(error):
    error.__context__ = error.__cause__ = None
    assert lost_worker(error) is None


def test_a_circle_of_causes_ends():
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert lost_worker(one) is None


def test_workers_that_cannot_be_started_are_one_line(image_folder, monkeypatch):
    def no_process(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_process)
    data = DataSource("folder", str(image_folder)).load(0, 1, torch.device("cpu"))
    with pytest.raises(LostWorkerError, match="Resource temporarily unavailable"):
        next(data.train_batches(4, "prune"))


# errors within workers


class StrangeError(Exception):
    """Cannot be made of one text."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class Failing(torch.utils.data.Dataset):
    def __init__(self, error):
        self.error = error

    def __getitem__(self, _):
        raise self.error

    def __len__(self):
        return 1


def raised_in_worker(error):
    """Return type and text of the error that a loader's user gets for `error`, as DataLoader passes it on."""
    try:
        with worker_errors():
            try:
                raise error
            except Exception:
                ExceptionWrapper(where="in DataLoader worker process 0").reraise()
    except Exception as raised:
        return type(raised), str(raised)


RAISED = [
    (BadImageError("the image a.jpg cannot be read"), BadImageError, "the image a.jpg cannot be read"),
    (ValueError("two\nlines: of text"), ValueError, "two lines: of text"),
    (MemoryError(), MemoryError, "MemoryError in a data worker"),
    (OSError(5, "Input/output error", "a.jpg"), OSError, "[Errno 5] Input/output error: 'a.jpg'"),
    (torch.OutOfMemoryError("no room"), torch.OutOfMemoryError, "no room"),
    (StrangeError(1, 2), RuntimeError, "StrangeError: 1 and 2"),
    (RuntimeError("ValueError: not the type"), RuntimeError, "ValueError: not the type"),
]


@pytest.mark.parametrize(("error", "kind", "message"), RAISED, ids=[type(row[0]).__name__ for row in RAISED])
def test_an_error_of_a_worker_is_one_line_of_its_own_type(error, kind, message):
    assert raised_in_worker(error) == (kind, message)


def test_an_error_of_a_real_worker_is_one_line():
    with pytest.raises(RuntimeError, match=r"^StrangeError: 1 and 2$"), worker_errors():
        list(torch.utils.data.DataLoader(Failing(StrangeError(1, 2)), num_workers=1))


def test_an_error_of_the_main_process_is_unchanged():
    error = ValueError("as\nit is")
    with pytest.raises(ValueError, match="as\nit is") as caught, worker_errors():
        raise error
    assert caught.value is error


def test_shared_memory_that_ends_in_a_worker_is_one_line():
    kind, message = raised_in_worker(
        RuntimeError("unable to write to file </torch_7_1_0>: No space left on device (28)")
    )
    assert kind is LostWorkerError
    assert "shared memory" in message
