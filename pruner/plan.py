"""Pruning plan: ratios -> number of pruned groups per layer, in exact decimals. Pure functions."""

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from torch import Tensor

from .layers import Layer, is_residual

Ratios = tuple[Decimal, ...] | Mapping[int, Decimal]  # one per stage, or layer index -> ratio

_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?:(.+)")  # no network has 10,000 layers


@dataclass(frozen=True)
class PlannedLayer:
    """A layer and its number of pruned groups."""

    layer: Layer
    groups: int
    pruned: int


@dataclass(frozen=True)
class Plan:
    """Kind of group, and number of pruned groups per layer, in the network's order."""

    kind: str
    layers: tuple[PlannedLayer, ...]

    @property
    def pruned(self) -> dict[str, int]:
        """Layer name -> number of pruned groups, for layers with any."""
        return {p.layer.name: p.pruned for p in self.layers if p.pruned}


def parse_ratio(text: str) -> Decimal:
    """Parse a pruning ratio in [0, 1), exact in decimal; a layer keeps at least one group.

    Raises:
        ValueError: names `text`.
    """
    try:
        ratio = Decimal(text.strip())
    except InvalidOperation:
        ratio = Decimal("NaN")
    # At most fifty decimals: 1e-999999999 would be a number of a billion digits.
    exponent = ratio.as_tuple().exponent  # a letter where the number is not finite
    if not (ratio.is_finite() and 0 <= ratio < 1 and isinstance(exponent, int) and exponent >= -50):
        raise ValueError(f"'{' '.join(text.split())}' is not a ratio from 0 to less than 1")
    return ratio


def parse_stage_pr(text: str) -> Ratios:
    """``[0,0.75,0.32,0]``, a ratio per stage, or ``[0-4:0.5, 7:0.2]``, ratios of layers by index.

    Brackets may be left out, and a comma may end the list.

    Raises:
        ValueError: names the part that cannot be read.
    """
    entries = _entries(text)
    if not re.search(r"[\[{,:]", text):
        raise ValueError(f"'{entries[0]}' is not a list, such as [0,0.5,0.5,0.5,0] or 1-15:0.7")
    if not any(":" in entry for entry in entries):
        return tuple(parse_ratio(entry) for entry in entries)
    ratios: dict[int, Decimal] = {}
    for entry in entries:
        match = _RANGE.fullmatch(entry)
        if not match:
            raise ValueError(f"'{entry}' is not of the form 0-4:0.5 or 7:0.2")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"'{entry}' runs backwards; a range is {last}-{first}:{match[3]}")
        for index in range(first, last + 1):
            if index in ratios:
                raise ValueError(f"'{entry}' names layer {index} a second time")
            ratios[index] = parse_ratio(match[3])
    return ratios


class StageRatios(str):
    """Pruning ratios as typed, parsed into ``ratios``; may be empty.

    Raises:
        ValueError: names the part that cannot be read.
    """

    ratios: Ratios

    def __new__(cls, text: str) -> "StageRatios":
        typed = super().__new__(cls, text)
        typed.ratios = parse_stage_pr(text) if text else ()
        return typed


def parse_skip_layers(text: str) -> tuple[str, ...]:
    """``[1.0,2.3]``: addresses, or beginnings of addresses that end at a dot; brackets may be left out.

    Raises:
        ValueError: names the part that is no address.
    """
    entries = _entries(text) if "".join(text.split()) not in ("", "[]") else []
    for entry in entries:
        if not re.fullmatch(r"[0-9]+(\.[0-9]+){0,2}", entry):
            raise ValueError(f"'{entry}' is not a layer's address, such as 2.3.0, 2.3 or 7")
    return tuple(entries)


class LayerAddresses(str):
    """Addresses as typed, parsed into ``addresses``; may be empty.

    Raises:
        ValueError: names the part that is no address.
    """

    addresses: tuple[str, ...]

    def __new__(cls, text: str) -> "LayerAddresses":
        typed = super().__new__(cls, text)
        typed.addresses = parse_skip_layers(text)
        return typed


def _entries(text: str) -> list[str]:
    text = " ".join(text.split())  # blanks of any kind count as one, so that errors stay on one line
    inner = text[1:-1].strip() if text[:1] + text[-1:] in ("[]", "{}") else text
    if re.search(r"[\[\]{}]", inner):
        raise ValueError(f"'{text}' is not a list: it has one pair of brackets around it, or none")
    return [entry.strip() for entry in inner.removesuffix(",").split(",")]


def number_pruned(ratio: Decimal, n_groups: int, rounded: Callable[[Fraction], int] = math.ceil) -> int:
    """min(ceil(r·n), n − 1), and 0 for r = 0. Exact: 0.14 of 100 is 14.

    Source: the original; the paper's section 4 gives ratios only. One group always stays.
    """
    return min(rounded(Fraction(ratio) * n_groups), n_groups - 1)


def make_plan(
    layers: list[Layer],
    stage_ratios: StageRatios,
    skipped: Collection[str],
    kind: str,
    rounded: Callable[[Fraction], int] = math.ceil,
) -> Plan:
    """Make the plan of the ratios.

    Args:
        skipped: addresses of layers that keep all (``skipped_addresses``).
        rounded: how r·n becomes a whole number: up, but down for the Oracle.

    Raises:
        ValueError: the ratios do not fit the network; names the entry or the layer.
    """
    ratios = stage_ratios.ratios
    by_entry = _by_stage(layers, ratios) if is_residual(layers) else _by_index(layers, ratios)
    planned = []
    for layer in layers:
        ratio = Decimal(0) if layer.address in skipped else by_entry.get(layer.entry, Decimal(0))
        if kind != "weight" and kind not in layer.prunable:
            if ratio and not layer.in_block:
                raise ValueError(f"{kind}s of layer {layer.address} ({layer.name}) cannot be pruned; give it ratio 0")
            ratio = Decimal(0)
        n_groups = layer.count(kind)
        planned.append(PlannedLayer(layer, n_groups, number_pruned(ratio, n_groups, rounded)))
    return Plan(kind, tuple(planned))


def plan_of(layers: list[Layer], numbers: Mapping[str, int], kind: str) -> Plan:
    """Make the plan of numbers of pruned groups by layer; layers without one keep all."""
    return Plan(kind, tuple(PlannedLayer(layer, layer.count(kind), numbers.get(layer.name, 0)) for layer in layers))


def inherit_plan(layers: list[Layer], kind: str, kept: dict[str, Tensor], source: str) -> Plan:
    """Make the plan that prunes as many groups per layer as another run.

    Args:
        kept: what that run kept, layer name -> bool (groups,).
        source: its file, for the error.

    Raises:
        ValueError: `kept` is of another network.
    """
    sizes = {layer.name: layer.count(kind) for layer in layers}
    for name, mask in kept.items():
        if sizes.get(name) != len(mask):
            raise ValueError(f"{source} has pruned {name} of {len(mask)} {kind}s, which this network lacks")
    pruned = {name: len(mask) - int(mask.sum()) for name, mask in kept.items()}
    return plan_of(layers, pruned, kind)


def plan_of_cut(layers: list[Layer], kind: str, shapes: Mapping[str, Sequence[int]], source: str) -> Plan:
    """Make the plan that leads from the dense network to a cut one, which may have been pruned several times.

    Args:
        kind: ``filter`` or ``channel``.
        shapes: of the cut network's tensors, by name.
        source: its file, for the error.

    Raises:
        ValueError: `shapes` are of another network.
    """
    planned = []
    for layer in layers:
        left = shapes.get(f"{layer.name}.weight", ())[kind == "channel" :][:1]
        n, width = layer.count(kind), layer.width_of(kind)
        if not left or not 0 < left[0] <= n * width:
            raise ValueError(f"{source} has {left[0] if left else 'no'} {kind}s in {layer.name}; this network has {n}")
        planned.append(PlannedLayer(layer, n, n - left[0] // width if kind in layer.prunable else 0))
    return Plan(kind, tuple(planned))


def _by_stage(layers: list[Layer], ratios: Ratios) -> Mapping[int, Decimal]:
    stages = layers[-1].entry + 1
    if isinstance(ratios, Mapping):
        raise ValueError(f"this network has stages; give it a list of {stages} ratios, stem to classifier")
    if len(ratios) != stages:
        raise ValueError(f"{len(ratios)} ratios for {stages} stages (stem, blocks, classifier)")
    return dict(enumerate(ratios))


def _by_index(layers: list[Layer], ratios: Ratios) -> Mapping[int, Decimal]:
    if not isinstance(ratios, Mapping):
        raise ValueError("this network has no stages; name layers by index, such as [1-15:0.7]")
    for index, ratio in ratios.items():
        if index >= len(layers) and ratio:
            raise ValueError(f"there is no layer {index}, the last is {len(layers) - 1}")
    return ratios


def skipped_addresses(layers: list[Layer], typed: LayerAddresses, kind: str) -> set[str]:
    """Addresses of the layers that `typed` matches at a dot boundary: 1.1 matches 1.1.0 but not 1.10.0.

    Raises:
        ValueError: an entry names no layer, or layers cannot be skipped for this kind of group.
    """
    entries = typed.addresses
    if entries and kind == "weight" and is_residual(layers):
        raise ValueError(f"single {kind}s of a residual net are skipped by stage; give the stage ratio 0")
    named: set[str] = set()
    for entry in entries:
        found = {layer.address for layer in layers if f"{layer.address}.".startswith(f"{entry}.")}
        if not found:
            first, last = layers[0].address, layers[-1].address
            raise ValueError(
                f"no layer's address begins with {entry}; addresses run from {first} to {last}, "
                f"such as {layers[1].address}"
            )
        named |= found
    return named
