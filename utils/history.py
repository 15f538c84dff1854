"""How groups' scores, their order and λ went during the prune phase."""

import csv
from pathlib import Path

import numpy as np
from torch import Tensor

from pruner import Pruner
from pruner.groups import rank_agreement, sample


class History:
    """Every group's score, each `every` steps.

    Attributes:
        steps: when.
        penalties: the largest λ then.
        scores: layer name -> one (groups,) array per entry of `steps`.
    """

    def __init__(self, pruner: Pruner, every: int):
        self._pruner, self._every = pruner, every
        self.steps: list[int] = []
        self.penalties: list[float] = []
        self.scores: dict[str, list[np.ndarray]] = {}

    def observe(self, step: int) -> None:
        """Called with each step; looks at every so many."""
        if step % self._every:
            return
        self.steps.append(step)
        self.penalties.append(self._pruner.report().get("lambda", 0.0))
        for name, scores in self._pruner.scores().items():
            self.scores.setdefault(name, []).append(scores.cpu().numpy())

    def write(self, folder: Path) -> None:
        """One ``mag_<layer>.npz`` per layer: ``steps``, ``penalties`` and ``scores`` (steps, groups)."""
        for name, scores in self.scores.items():
            np.savez(folder / f"mag_{name}.npz", steps=self.steps, penalties=self.penalties, scores=np.stack(scores))


class OrderLog:
    """How far the order of a layer's groups has gone from where it started, each `every` steps, as a CSV file."""

    COLUMNS = ("step", "layer", "kendall", "spearman")

    def __init__(self, pruner: Pruner, every: int, path: Path):
        self._pruner, self._every, self._path = pruner, every, path
        self._start: dict[str, Tensor] = self._now()
        with open(path, "w", newline="") as file:
            csv.writer(file).writerow(self.COLUMNS)

    def _now(self) -> dict[str, Tensor]:
        return {name: sample(scores).clone() for name, scores in self._pruner.scores().items()}

    def observe(self, step: int) -> None:
        """Called with each step; looks at every so many."""
        if step % self._every == 0:
            self.look(step)

    def look(self, step: int) -> None:
        rows = [
            (step, name, *(f"{value:.4f}" for value in rank_agreement(self._start[name], scores)))
            for name, scores in self._now().items()
        ]
        with open(self._path, "a", newline="") as file:
            csv.writer(file).writerows(rows)
