"""Structure of a network: which filters can be removed, what goes with them, and what the rest costs."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from .channels import Call
from .operators import LAYERS
from .trace import trace

FREE, COUPLED, FIXED = "free", "coupled", "fixed"
NOT_CALLED, SHARED = "not called as a module", "its weight is computed, or shared with another layer"


@dataclass(frozen=True)
class TracedLayer:
    """A conv or linear layer, and whether its filters can be removed.

    Attributes:
        status: ``free``; ``coupled``: only together with filters of other layers; ``fixed``: not at all.
        reason: why the layer is not free; empty for a free layer.
        units: groups of filters that can be removed; a unit is one filter, or as many as a grouped conv reads
            together. 0 unless the layer is free.
    """

    name: str
    shape: tuple[int, ...]
    status: str
    reason: str = ""
    units: int = 0

    @property
    def width(self) -> int:
        """Filters per unit."""
        return self.shape[0] // self.units if self.units else 1


class Structure:
    """Layers of a network, the entries of its tensors that go with each unit, and the cost of what is kept.

    Attributes:
        example: what the network was traced on.
        layers: name -> layer, for all conv and linear layers in the network's order.
    """

    def __init__(self, model: nn.Module, example: Any):
        """Trace `model`, which is left as it was.

        Args:
            example: the argument of the model, e.g. one image (1, channels, height, width).

        Raises:
            ValueError: the network cannot be run on it.
        """
        self.example = example
        self._trace = trace(model, example)
        self._unit_of_root: dict[int, tuple[str, int]] = {}
        self.layers = {
            name: self._layer(name, tuple(module.weight.shape))
            for name, module in model.named_modules()
            if isinstance(module, LAYERS)
        }

    def _layer(self, name: str, shape: tuple[int, ...]) -> TracedLayer:
        ids = self._trace.filters.get(name)
        if ids is None:
            unknown = SHARED if name in self._trace.called else NOT_CALLED
            return TracedLayer(name, shape, FIXED, self._trace.reasons.get(name, unknown))
        roots = [self._trace.root(i) for i in ids.tolist()]
        barrier = next((self._barriers[root] for root in roots if root in self._barriers), None)
        if barrier:
            return TracedLayer(name, shape, FIXED, barrier)
        owners = set[str]().union(*(self._owners[root] for root in roots))
        if name in self._trace.gates and len(owners) > 1:
            return TracedLayer(name, shape, FIXED, f"gate of {min(owners - {name})}")
        others = owners - {name} - self._trace.gates
        if others:
            return TracedLayer(name, shape, COUPLED, f"joined with {min(others)}")
        units = list(dict.fromkeys(roots))
        if roots != [root for root in units for _ in range(len(roots) // len(units))]:
            return TracedLayer(name, shape, FIXED, "groups of filters are of different sizes")
        self._unit_of_root |= {root: (name, number) for number, root in enumerate(units)}
        return TracedLayer(name, shape, FREE, units=len(units))

    @cached_property
    def _barriers(self) -> dict[int, str]:
        """Root -> the first reason why one of its ids must stay."""
        barriers: dict[int, str] = {}
        for i, reason in self._trace.barriers.items():
            barriers.setdefault(self._trace.root(i), reason)
        return barriers

    @cached_property
    def _owners(self) -> dict[int, set[str]]:
        """Root -> the layers whose filters are joined there."""
        owners = defaultdict(set)
        for i, layer in enumerate(self._trace.owner):
            owners[self._trace.root(i)].add(layer)
        return owners

    @cached_property
    def _layer_numbers(self) -> dict[str, int]:
        return {name: number for number, (name, layer) in enumerate(self.layers.items()) if layer.units}

    @cached_property
    def _units(self) -> tuple[np.ndarray, np.ndarray]:
        """Id -> number of the free layer whose unit it belongs to, and number of the unit; -1, -1 for ids that stay.

        The last entry of each array is that of ``NONE``.
        """
        layers, units = (np.full(len(self._trace.owner) + 1, -1) for _ in range(2))
        for i in range(len(self._trace.owner)):
            layer, unit = self._unit_of_root.get(self._trace.root(i), (None, -1))
            if layer is not None:
                layers[i], units[i] = self._layer_numbers[layer], unit
        return layers, units

    @cached_property
    def set_apart(self) -> set[str]:
        """Layers that a ratio for all leaves out: the network's first, and those that only gates read (squeezes)."""
        readers = defaultdict(set)
        for (name, dim), (numbers, _) in self.members().items():
            if dim == 1:
                for number in set(numbers.tolist()) - {-1}:
                    readers[number].add(name.removesuffix(".weight") in self._trace.gates)
        names = list(self.layers)
        first = {self._trace.calls[0].layer} if self._trace.calls else set[str]()
        return first | {names[number] for number, gates in readers.items() if all(gates)}

    def members(self) -> dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]:
        """Return (tensor, dimension) -> for each entry along it the number of its layer in ``layers``, and its unit.

        Entries that always stay have -1. Dimension 1 is that of the columns that read a unit; along dimension 0 are its
        filters, their biases, and what carries them on: batch-norm entries, depthwise filters.
        """
        layers, units = self._units
        entries = {key: (layers[ids], units[ids]) for key, ids in self._trace.uses.items()}
        return {key: entry for key, entry in entries.items() if (entry[0] >= 0).any()}

    def kept_entries(self, kept: Mapping[str, np.ndarray]) -> dict[tuple[str, int], np.ndarray]:
        """Return (tensor, dimension) -> bool, which of its entries are kept; tensors that keep all are left out.

        Args:
            kept: free layer -> bool (units,).
        """
        removed = {self._layer_numbers[name]: ~mask for name, mask in kept.items()}
        entries = {}
        for key, (layers, units) in self.members().items():
            gone = np.zeros(len(layers), dtype=bool)
            for number in set(layers.tolist()) & removed.keys():
                own = layers == number
                gone[own] = removed[number][units[own]]
            if gone.any():
                entries[key] = ~gone
        return entries

    def units_read(self, reader: str, columns: np.ndarray) -> dict[str, np.ndarray]:
        """Return what is left of the layers that `reader` reads: free layer -> bool (units,).

        Args:
            columns: bool, which of the reader's columns are kept.

        Raises:
            ValueError: a column that is not kept reads no free layer.
        """
        layers, units = (of_id[self._trace.uses[f"{reader}.weight", 1]] for of_id in self._units)
        if (layers[~columns] < 0).any():
            raise ValueError(f"channels of {reader} cannot be removed: they read filters that must stay")
        names = list(self.layers)
        kept = {}
        for number in set(layers[~columns].tolist()):
            kept[names[number]] = np.ones(self.layers[names[number]].units, dtype=bool)
            kept[names[number]][units[~columns & (layers == number)]] = False
        return kept

    # Costs

    @cached_property
    def _counts(self) -> list[tuple[Call, Counter[str], Counter[str]]]:
        """Every call, with its numbers of columns and of rows by free layer."""
        names, (layers, _) = list(self.layers), self._units

        def count(ids: np.ndarray) -> Counter[str]:
            return Counter(names[number] for number in layers[ids].tolist() if number >= 0)

        return [(call, count(call.columns), count(call.rows)) for call in self._trace.calls]

    def flops(self, pruned: Mapping[str, int]) -> int:
        """FLOPs of all calls of layers, 2 per multiply-add, for the example.

        Args:
            pruned: free layer -> number of units removed.
        """

        def left(total: int, counts: Counter[str]) -> int:
            return total - sum(n * pruned.get(name, 0) // self.layers[name].units for name, n in counts.items())

        flops = 0
        for call, columns, rows in self._counts:
            n_rows = left(len(call.rows), rows)
            n_columns = left(len(call.columns), columns) if call.groups == 1 else len(call.columns) // call.groups
            flops += 2 * call.positions * call.kernel * n_rows * n_columns
        return flops
