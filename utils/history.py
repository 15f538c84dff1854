"""How groups' scores and λ went during the prune phase."""

from pathlib import Path

import numpy as np

from pruner import Pruner


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
