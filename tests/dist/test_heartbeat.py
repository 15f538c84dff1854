"""The heartbeat: who is named when a process falls silent, and that work is no silence."""

import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from utils.dist.heartbeat import Heartbeat

BEAT, SILENCE = 0.05, 0.6


@pytest.fixture
def store():
    return dist.TCPStore("localhost", 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=5))


class Processes:
    """Heartbeats of several ranks in one process, each with a connection of its own."""

    def __init__(self, server: dist.TCPStore, n: int):
        self.server, self.lines, self.beats = server, {}, {}
        begun = threading.Barrier(n)

        def start(rank):
            store = server if rank == 0 else dist.TCPStore("localhost", server.port, is_master=False)
            begun.wait()
            self.beats[rank] = Heartbeat(
                store, rank, n, lambda line: self.lines.setdefault(rank, line), f"machine{rank}", BEAT, SILENCE
            )

        threads = [threading.Thread(target=start, args=(rank,)) for rank in range(n)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def lines_after(self, seconds: float) -> dict[int, str]:
        end = time.monotonic() + seconds
        while time.monotonic() < end and len(self.lines) < len(self.beats) - 1:
            time.sleep(0.02)
        return dict(self.lines)

    def close(self):
        for beat in self.beats.values():
            beat.close()


@pytest.fixture
def processes(store):
    made = Processes(store, 3)
    yield made
    made.close()


def test_processes_that_count_are_not_taken_for_gone(processes):
    assert processes.lines_after(3 * SILENCE) == {}


def test_a_silent_process_is_named_with_its_machine(processes):
    processes.beats[2]._stopped.set()  # neither counts nor says why
    lines = processes.lines_after(10)
    assert lines == dict.fromkeys((0, 1), "no sign of life from rank 2 on machine2 for 1 seconds")


def test_a_process_that_has_finished_is_not_missed(processes):
    processes.beats[2].close()
    assert processes.lines_after(3 * SILENCE) == {}


def test_a_process_that_failed_is_named_before_the_silence_is_over(processes):
    began = time.monotonic()
    processes.beats[1].close(failed=True)
    lines = processes.lines_after(10)
    assert lines == dict.fromkeys((0, 2), "rank 1 on machine1 ended with an error, which it has printed")
    assert time.monotonic() - began < SILENCE


def test_without_the_store_rank_0_is_named(processes, monkeypatch):
    for rank in (1, 2):
        monkeypatch.setattr(processes.beats[rank], "_store", Unreachable())
    lines = processes.lines_after(10)
    assert lines[1] == lines[2] == "rank 0 on machine0 could not be reached for 1 seconds"


class Unreachable:
    def set(self, *_):
        raise RuntimeError("Connection reset by peer")

    multi_get = set


def test_a_process_that_was_stopped_itself_gives_the_others_their_time_again(processes, monkeypatch):
    clock = time.monotonic
    monkeypatch.setattr("utils.dist.heartbeat.time.monotonic", lambda: clock() + jump[0])
    jump = [0.0]
    time.sleep(2 * BEAT)
    jump[0] = 100.0
    assert processes.lines_after(3 * SILENCE) == {}


def test_an_error_of_a_collective_waits_for_the_verdict(processes):
    waited = threading.Thread(target=processes.beats[0].wait_for_loss)
    waited.start()
    processes.beats[2]._stopped.set()
    waited.join(10)
    assert processes.lines[0].startswith("no sign of life from rank 2")
