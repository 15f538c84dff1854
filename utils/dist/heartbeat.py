"""Notice when another process of a run is gone: its host is down, the link is cut, or it hangs.

A collective only waits, half an hour if need be, since one process may be at work that the others wait for. So each
process has a thread that counts in a store of rank 0 and reads the counts of the others. Work does not stop the
counting; SIGSTOP, a dead process, a dead host and a cut link do.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta

import torch.distributed as dist

from utils.dist.process_group import broadcast_from_main, shard

BEAT_SECONDS = 5.0  # between two counts
SILENCE_SECONDS = 60.0  # without a new count, after which a process is taken for gone
FAILED, DONE = "failed", "done"  # in place of a count


class Heartbeat:
    """Counts of one process, and its watch over the others.

    Args:
        store: on rank 0; a process that cannot reach it has lost rank 0.
        rank: of this process, of `world_size`.
        on_loss: called once, in a thread, with a line that names who is gone; not expected to return.
        host: name of this machine.
        beat, silence: seconds.
    """

    def __init__(
        self,
        store: dist.Store,
        rank: int,
        world_size: int,
        on_loss: Callable[[str], None],
        host: str = "",
        beat: float = BEAT_SECONDS,
        silence: float = SILENCE_SECONDS,
    ):
        self._store, self._rank, self._on_loss = store, rank, on_loss
        self._beat, self._silence = beat, silence
        self._others = [other for other in range(world_size) if other != rank]
        self._stopped, self._lost = threading.Event(), threading.Event()
        self._counts: dict[int, str] = {}
        store.set(f"host/{rank}", host or socket.gethostname())
        store.set(f"count/{rank}", "0")
        self._hosts = {other: store.get(f"host/{other}").decode() for other in self._others}
        self._last_seen = dict.fromkeys([*self._others, None], time.monotonic())  # None: the store
        for name, target in (("heartbeat", self._count), ("heartbeat watch", self._watch)):
            threading.Thread(target=target, name=name, daemon=True).start()

    def close(self, failed: bool = False) -> None:
        """Stop; tell the others that this process has finished, or ended with an error."""
        if not self._stopped.is_set():
            self._stopped.set()
            self._publish(FAILED if failed else DONE)

    def wait_for_loss(self) -> None:
        """Wait until it is known who is gone, after an error of a collective; return if nobody is."""
        self._lost.wait(self._silence + 2 * self._beat)

    def _publish(self, count: str) -> None:
        try:
            self._store.set(f"count/{self._rank}", count)
        except RuntimeError:  # rank 0 is gone
            return

    def _count(self) -> None:
        n = 0
        while not self._stopped.wait(self._beat):
            n += 1
            try:
                self._store.set(f"count/{self._rank}", str(n))
                counts = [value.decode() for value in self._store.multi_get([f"count/{r}" for r in self._others])]
            except RuntimeError:
                continue  # the watch counts the seconds
            now = time.monotonic()
            self._last_seen[None] = now
            for other, count in zip(self._others, counts, strict=True):
                if count != self._counts.get(other) or count == DONE:
                    self._counts[other], self._last_seen[other] = count, now

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._stopped.wait(self._beat / 5):
            now = time.monotonic()
            if now - before > self._silence / 2:  # this process itself was stopped: the others get their time again
                self._last_seen = dict.fromkeys(self._last_seen, now)
            before = now
            line = self._loss(now)
            if line and not self._stopped.is_set():
                self._lost.set()
                self._on_loss(line)
                return

    def _loss(self, now: float) -> str:
        """Return a line on who is gone; empty if nobody is."""
        failed = [other for other in self._others if self._counts.get(other) == FAILED]
        if failed:
            return f"{self._names(failed)} ended with an error, which it has printed"
        silent = [other for other in self._others if now - self._last_seen[other] > self._silence]
        if now - self._last_seen[None] > self._silence:  # nothing can be known of the others
            return f"{self._names([0])} could not be reached for {self._silence:.0f} seconds"
        return f"no sign of life from {self._names(silent)} for {self._silence:.0f} seconds" if silent else ""

    def _names(self, ranks: list[int]) -> str:
        return ", ".join(f"rank {rank} on {self._hosts[rank]}" for rank in ranks)


_heartbeat: Heartbeat | None = None  # of this process, as its process group is


def start_heartbeat(on_loss: Callable[[str], None]) -> None:
    """Start the heartbeat of this process, unless it is the only one. All processes call this together."""
    global _heartbeat  # noqa: PLW0603
    ranks = shard()
    if ranks.world_size == 1 or _heartbeat:
        return
    host, timeout = os.environ["MASTER_ADDR"], timedelta(seconds=SILENCE_SECONDS)
    server = None if ranks.rank else dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timeout)
    port = broadcast_from_main(server.port if server else 0)
    store = server or dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
    _heartbeat = Heartbeat(store, ranks.rank, ranks.world_size, on_loss)


def stop_heartbeat(failed: bool = False) -> None:
    """Stop the heartbeat, if any, and tell the others whether this process `failed`."""
    if _heartbeat:
        _heartbeat.close(failed)


def wait_for_loss() -> None:
    """After an error of a collective: wait until the heartbeat, if any, has named who is gone and ended this process."""
    if _heartbeat:
        _heartbeat.wait_for_loss()
