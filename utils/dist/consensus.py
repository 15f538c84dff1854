"""Per-step exchange between ranks (signal, save due, state digest) by one asynchronous all-reduce."""

import torch
import torch.distributed as dist
from torch import Tensor

from utils.dist.process_group import TIMEOUT, shard


class ConsensusError(ArithmeticError):
    """The ranks differ in λ, selections or status."""


class RankConsensus:
    """Exchange a few integers between all ranks at every step, without a host sync.

    Values sent at one step are received at the next. They travel over gloo, from CPU to CPU, so that no GPU stalls.
    """

    def __init__(self) -> None:
        self._group: dist.ProcessGroup | None = None
        if shard().world_size > 1:
            group = dist.new_group(backend="gloo", timeout=TIMEOUT)
            assert isinstance(group, dist.ProcessGroup)  # every rank is a member
            self._group = group
        self._pending: tuple[dist.Work, Tensor] | None = None

    def exchange(self, signal: int, due: bool, fingerprint: int) -> tuple[int, bool]:
        """Send this rank's values; receive those of the previous step.

        Args:
            signal: number of the signal received by this process, or 0.
            due: whether a checkpoint is due in this process.
            fingerprint: digest of λ, selections and status in this process.

        Returns:
            The largest signal number of all ranks, and whether a checkpoint is due in any.

        Raises:
            ConsensusError: the fingerprints of the previous step differ.
        """
        if self._group is None:
            return signal, due
        received = self._receive()
        values = torch.tensor([signal, due, fingerprint, -fingerprint], dtype=torch.int64)
        work = dist.all_reduce(values, dist.ReduceOp.MAX, self._group, async_op=True)
        assert work is not None
        self._pending = work, values
        return received

    def _receive(self) -> tuple[int, bool]:
        if self._pending is None:
            return 0, False
        work, values = self._pending
        work.wait()
        self._pending = None
        signal, due, largest, negated_smallest = values.tolist()
        if largest != -negated_smallest:
            raise ConsensusError("ranks differ in λ, selections or status; no further checkpoint is saved")
        return signal, bool(due)

    def close(self, signal: int) -> int:
        """Receive the last exchange. Returns the signal number, or 0."""
        if self._group is None:
            return signal
        signal, _ = self._receive()
        dist.destroy_process_group(self._group)
        return signal
