"""Ids of the channels of a network, joined where they must be removed together."""

from dataclasses import dataclass, field

import numpy as np

NONE = -1  # the id of a channel that is no layer's filter


@dataclass(frozen=True)
class Channels:
    """Channels of a tensor: their dimension, and the id of each.

    Attributes:
        layer: the layer that computed the tensor.
    """

    dim: int
    ids: np.ndarray
    layer: str | None = None


@dataclass(frozen=True)
class Call:
    """One call of a layer, for its FLOPs.

    Attributes:
        positions: outputs per filter and example.
        columns, rows: ids of the input channels and of the filters.
        kernel: elements of the kernel; 1 for a linear layer.
    """

    layer: str
    positions: int
    columns: np.ndarray
    rows: np.ndarray
    groups: int
    kernel: int


@dataclass
class Trace:
    """Ids of all filters, joined where they must be removed together.

    Attributes:
        owner: id -> layer.
        filters: layer -> ids of its filters, for the layers that have some of their own.
        uses: (parameter or buffer, dimension) -> ids along it; dimension 1 reads channels, 0 makes or carries them.
        barriers: id -> reason why it must stay.
        gates: layers whose outputs multiply outputs of layers before them, which they follow.
        reasons: layer -> reason why it has no filters of its own.
        calls: every call of a layer, known by its weight.
        called: layers that are called as modules, whose weights may be computed or other layers', too.
    """

    owner: list[str] = field(default_factory=list)
    filters: dict[str, np.ndarray] = field(default_factory=dict)
    uses: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    barriers: dict[int, str] = field(default_factory=dict)
    gates: set[str] = field(default_factory=set)
    reasons: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    called: set[str] = field(default_factory=set)
    _parents: list[int] = field(default_factory=list)  # of a union-find

    def make_filters(self, layer: str, n: int) -> np.ndarray:
        """Return the ids of the filters of `layer`, the same ones at each call."""
        if layer not in self.filters:
            first = len(self.owner)
            self._parents += range(first, first + n)
            self.owner += [layer] * n
            self.filters[layer] = np.arange(first, first + n)
        return self.filters[layer]

    def root(self, i: int) -> int:
        """Return the representative of all ids joined with `i`."""
        while self._parents[i] != i:
            self._parents[i] = self._parents[self._parents[i]]
            i = self._parents[i]
        return i

    def join(self, a: np.ndarray, b: np.ndarray, reason: str) -> None:
        """Join ids position by position; an id that meets ``NONE`` must stay, for `reason`."""
        for x, y in zip(a.tolist(), b.tolist(), strict=True):
            if x != y and NONE in (x, y):
                self.barriers.setdefault(max(x, y), reason)
            elif x != y:
                self._parents[self.root(x)] = self.root(y)

    def stop(self, ids: np.ndarray, reason: str) -> None:
        """Make ids stay, for `reason`."""
        for i in ids[ids != NONE].tolist():
            self.barriers.setdefault(i, reason)

    def use(self, tensor: str, dim: int, ids: np.ndarray) -> None:
        """Record the ids along a dimension; those of an earlier use are joined."""
        before = self.uses.setdefault((tensor, dim), ids)
        if before is not ids:
            self.join(before, ids, f"{tensor} is used for other channels, too")
