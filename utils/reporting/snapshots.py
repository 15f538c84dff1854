"""Snapshots of group scores, their order and λ during the prune phase."""

import csv
import os
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from pruner import Pruner
from pruner.groups import rank_agreement, sample
from utils.reporting.console import optional


class Observer:
    """Observer of the prune phase; disabled with a notice if it fails."""

    title = "log of the prune phase"
    _failed = False

    def observe(self, step: int) -> None:
        """Observe the state before `step`."""
        if not self._failed:
            self._failed = True  # until it succeeds
            with optional(self.title):
                self._observe(step)
                self._failed = False

    def _observe(self, step: int) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        return {}


class ScoreHistory(Observer):
    """Score of every group each `every` steps, in a file of rows to bound memory.

    Args:
        resumed_at: the step at which the run resumes; rows of later steps are overwritten.

    Raises:
        ValueError: rows of earlier steps are missing.
    """

    title = "record of the groups' scores"

    def __init__(self, pruner: Pruner, every: int, file: Path, resumed_at: int = 0):
        self._pruner, self._every, self._file = pruner, every, file
        self._groups = {name: len(scores) for name, scores in pruner.scores().items()}
        file.touch()
        size = -(-resumed_at // every) * self._row_bytes
        if file.stat().st_size < size:
            raise ValueError(f"{file.name} is truncated")
        os.truncate(file, size)

    @property
    def _row_bytes(self) -> int:
        return 4 * (1 + sum(self._groups.values()))  # λ and the scores, as float32

    def _observe(self, step: int) -> None:
        if step % self._every:
            return
        with open(self._file, "ab") as file:
            np.float32(self._pruner.report().get("lambda", 0.0)).tofile(file)
            for scores in self._pruner.scores().values():
                scores.float().cpu().numpy().tofile(file)

    @property
    def _rows(self) -> np.ndarray:
        if not self._file.stat().st_size:
            return np.empty((0, self._row_bytes // 4), np.float32)
        return np.memmap(self._file, np.float32, mode="r").reshape(-1, self._row_bytes // 4)

    @property
    def steps(self) -> np.ndarray:
        """Steps of the snapshots, (snapshots,)."""
        return np.arange(len(self._rows)) * self._every

    @property
    def penalties(self) -> np.ndarray:
        """Largest λ at each snapshot, (snapshots,)."""
        return self._rows[:, 0]

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Layer name -> (snapshots, groups)."""
        ends = np.cumsum([1, *self._groups.values()])
        return {
            name: self._rows[:, end - n : end] for (name, n), end in zip(self._groups.items(), ends[1:], strict=True)
        }

    def write(self, folder: Path) -> None:
        """Write one ``mag_<layer>.npz`` per layer: ``steps``, ``penalties`` and ``scores`` (snapshots, groups)."""
        for name, scores in self.scores.items():
            np.savez(folder / f"mag_{name}.npz", steps=self.steps, penalties=self.penalties, scores=scores)


class OrderLog(Observer):
    """Rank correlation of each layer's groups with their initial order, each `every` steps, in a CSV file.

    Args:
        state: result of ``state_dict`` in the checkpoint to resume.
    """

    title = "order log"
    COLUMNS = ("step", "layer", "kendall", "spearman")

    def __init__(self, pruner: Pruner, every: int, path: Path, state: dict[str, Any] | None = None):
        self._pruner, self._every, self._path = pruner, every, path
        self._start: dict[str, Tensor] = state["start"] if state else self._sample_scores()
        self._rows: list[list] = [list(row) for row in state["rows"]] if state else []
        self._write()

    def _sample_scores(self) -> dict[str, Tensor]:
        return {name: sample(scores).cpu().clone() for name, scores in self._pruner.scores().items()}

    def _write(self) -> None:
        with open(self._path, "w", newline="") as file:
            csv.writer(file).writerows([self.COLUMNS, *self._rows])

    def _observe(self, step: int) -> None:
        if step % self._every == 0:
            self._snapshot(step)

    def observe_last(self, step: int) -> None:
        """Take a snapshot after the phase, regardless of the interval."""
        with optional(self.title):
            self._snapshot(step)

    def _snapshot(self, step: int) -> None:
        for name, scores in self._sample_scores().items():
            self._rows.append([step, name, *(f"{v:.4f}" for v in rank_agreement(self._start[name], scores))])
        self._write()

    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start, "rows": [list(row) for row in self._rows]}
