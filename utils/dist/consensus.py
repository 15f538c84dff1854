"""Per-step exchange between ranks (signal, save due, state digest) by one asynchronous all-reduce."""

import torch
import torch.distributed as dist
from torch import Tensor

from utils.dist.process_group import PATIENCE, shard


class ConsensusError(ArithmeticError):
    """The processes have come to different λ, picks or phases."""


class RankConsensus:
    """What all processes must know of each other at every step, by one small message that nobody waits for.

    What is said at one step is heard at the next: the message travels while the step is made. It goes over
    gloo, from CPU to CPU, so that no GPU is stalled.
    """

    def __init__(self):
        self._several = shard().world_size > 1
        self._group = dist.new_group(backend="gloo", timeout=PATIENCE) if self._several else None
        self._pending: tuple[dist.Work, Tensor] | None = None

    def exchange(self, signal: int, due: bool, fingerprint: int) -> tuple[int, bool]:
        """Say whether this process was sent a signal (its number, or 0), whether it finds a checkpoint due, and
        what it has decided so far. Returns the first two, of any process.

        Raises:
            ConsensusError: the fingerprints differ.
        """
        if not self._several:
            return signal, due
        heard = self._hear()
        said = torch.tensor([signal, due, fingerprint, -fingerprint], dtype=torch.int64)
        self._pending = dist.all_reduce(said, dist.ReduceOp.MAX, self._group, async_op=True), said
        return heard

    def _hear(self) -> tuple[int, bool]:
        if self._pending is None:
            return 0, False
        work, said = self._pending
        work.wait()
        self._pending = None
        signal, due, most, least = said.tolist()
        if most != -least:
            raise ConsensusError("the processes disagree on λ, picks or phase; nothing more is saved")
        return signal, bool(due)

    def close(self, signal: int) -> int:
        """Hear what was said last. Returns the number of a signal, or 0."""
        if not self._several:
            return signal
        signal, _ = self._hear()
        dist.destroy_process_group(self._group)
        return signal
