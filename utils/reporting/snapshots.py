"""Snapshots of the groups' scores, their order and λ during the prune phase."""

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
    """Observer of the prune phase. One that fails is dropped, with a notice."""

    what = "log of the prune phase"
    _failed = False

    def observe(self, step: int) -> None:
        """Called with each step."""
        if not self._failed:
            self._failed = True  # until it has succeeded
            with optional(self.what):
                self._observe(step)
                self._failed = False

    def _observe(self, step: int) -> None:
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        return {}


class ScoreHistory(Observer):
    """Every group's score, each `every` steps, in a file of rows, to bound memory.

    Args:
        resumed_at: the step at which a run is resumed; rows of later steps are written again.

    Raises:
        ValueError: rows of earlier steps are missing.
    """

    what = "record of the groups' scores"

    def __init__(self, pruner: Pruner, every: int, file: Path, resumed_at: int = 0):
        self._pruner, self._every, self._file = pruner, every, file
        self._groups = {name: len(scores) for name, scores in pruner.scores().items()}
        file.touch()
        size = -(-resumed_at // every) * self._row_bytes
        if file.stat().st_size < size:
            raise ValueError(f"{file.name} is cut short")
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
        """The steps of the snapshots, (snapshots,)."""
        return np.arange(len(self._rows)) * self._every

    @property
    def penalties(self) -> np.ndarray:
        """The largest λ at each snapshot, (snapshots,)."""
        return self._rows[:, 0]

    @property
    def scores(self) -> dict[str, np.ndarray]:
        """Layer name -> (snapshots, groups)."""
        ends = np.cumsum([1, *self._groups.values()])
        return {
            name: self._rows[:, end - n : end] for (name, n), end in zip(self._groups.items(), ends[1:], strict=True)
        }

    def write(self, folder: Path) -> None:
        """One ``mag_<layer>.npz`` per layer: ``steps``, ``penalties`` and ``scores`` (steps, groups)."""
        for name, scores in self.scores.items():
            np.savez(folder / f"mag_{name}.npz", steps=self.steps, penalties=self.penalties, scores=scores)


class OrderLog(Observer):
    """Rank correlation of a layer's groups with their initial order, each `every` steps, as a CSV file.

    Args:
        state: what ``state_dict`` gave when a checkpoint was written.
    """

    what = "order log"
    COLUMNS = ("step", "layer", "kendall", "spearman")

    def __init__(self, pruner: Pruner, every: int, path: Path, state: dict[str, Any] | None = None):
        self._pruner, self._every, self._path = pruner, every, path
        self._start: dict[str, Tensor] = state["start"] if state else self._now()
        self._rows: list[list] = [list(row) for row in state["rows"]] if state else []
        self._write()

    def _now(self) -> dict[str, Tensor]:
        return {name: sample(scores).cpu().clone() for name, scores in self._pruner.scores().items()}

    def _write(self) -> None:
        with open(self._path, "w", newline="") as file:
            csv.writer(file).writerows([self.COLUMNS, *self._rows])

    def _observe(self, step: int) -> None:
        if step % self._every == 0:
            self._snapshot(step)

    def observe_last(self, step: int) -> None:
        """Take the snapshot after the phase, whatever the interval."""
        with optional(self.what):
            self._snapshot(step)

    def _snapshot(self, step: int) -> None:
        for name, scores in self._now().items():
            self._rows.append([step, name, *(f"{v:.4f}" for v in rank_agreement(self._start[name], scores))])
        self._write()

    def state_dict(self) -> dict[str, Any]:
        return {"start": self._start, "rows": [list(row) for row in self._rows]}
