"""Ratios by module name, and the ratio that reaches a speedup. Pure but for the names of layers."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from difflib import get_close_matches
from fnmatch import fnmatchcase
from fractions import Fraction

from torch import Tensor

from .layers import Layer
from .plan import Plan, number_pruned, parse_ratio, plan_of
from .structure import Structure

RANKS = ("uniform", "global")
KEPT_SHARE = Fraction(1, 10)  # what every layer keeps under global ranking


class GlobRatios(str):
    """Ratios by module name, as typed: ``layer3.*.conv1:0.5, features.*:0.3``; parsed into ``ratios``.

    Raises:
        ValueError: names the part that cannot be read.
    """

    ratios: dict[str, Decimal]

    def __new__(cls, text: str) -> "GlobRatios":
        typed = super().__new__(cls, text)
        typed.ratios = {}
        for entry in filter(None, re.split(r"[,\s]+", text)):
            glob, colon, ratio = entry.rpartition(":")
            if not colon or not glob:
                raise ValueError(f"'{entry}' is not of the form name:ratio, such as layer3.*.conv1:0.5")
            typed.ratios.pop(glob, None)  # the last one counts, in its own place
            typed.ratios[glob] = parse_ratio(ratio)
        return typed


def ratios_by_name(layers: list[Layer], globs: GlobRatios, kind: str) -> dict[str, Decimal]:
    """Return the ratio of each layer that a glob matches and that can be pruned; the last match wins.

    Raises:
        ValueError: a glob matches no layer that can be pruned; a layer named outright is not free.
    """
    ratios: dict[str, Decimal] = {}
    for glob, ratio in globs.ratios.items():
        matched = [layer for layer in layers if fnmatchcase(layer.name, glob)]
        prunable = [layer for layer in matched if kind == "weight" or kind in layer.prunable]
        if not matched:
            names = [layer.name for layer in layers]
            near = get_close_matches(glob, names, 3) or names[:3] + ["…"] * (len(names) > 3)
            raise ValueError(f"no conv or linear layer is called {glob}; there are {', '.join(near)}")
        if not prunable and ratio:
            reasons = "; ".join(f"{layer.name}: {layer.status}, {layer.reason}" for layer in matched[:3])
            raise ValueError(f"{kind}s of {glob} cannot be pruned ({reasons})")
        ratios |= {layer.name: ratio for layer in prunable}
    return ratios


def plan_by_name(
    layers: list[Layer],
    globs: GlobRatios,
    kind: str,
    rounded: Callable[[Fraction], int] = math.ceil,
    round_to: int = 1,
) -> Plan:
    """Make the plan of ratios by module name.

    Args:
        rounded: how r·n becomes a whole number.
        round_to: kept filters are rounded up to a multiple of it.

    Raises:
        ValueError: the ratios do not fit the network; names the glob or the layer.
    """
    ratios = ratios_by_name(layers, globs, kind)
    numbers = {
        layer.name: rounded_width(layer, number_pruned(ratios[layer.name], layer.count(kind), rounded), kind, round_to)
        for layer in layers
        if layer.name in ratios
    }
    return plan_of(layers, numbers, kind)


def rounded_width(layer: Layer, n_pruned: int, kind: str, round_to: int) -> int:
    """Prune fewer filters, so that a multiple of `round_to` is kept.

    Layers of `round_to` filters or fewer, and those whose filters go in groups, are left alone.
    """
    n = layer.count(kind)
    if round_to == 1 or kind != "filter" or layer.width > 1 or n <= round_to:
        return n_pruned
    return n - min(n, math.ceil((n - n_pruned) / round_to) * round_to)


def plan_by_speedup(
    structure: Structure,
    layers: list[Layer],
    speedup: float,
    total_flops: int,
    globs: GlobRatios,
    scores: Mapping[str, Tensor] | None = None,
    round_to: int = 1,
) -> Plan:
    """Make the plan of filters that just reaches `speedup`.

    The first layer of the network and the squeezes of squeeze-and-excitation take part only if a glob names them.

    Args:
        total_flops: of the network, one image.
        globs: ratios that are given; the others follow from the speedup.
        scores: layer -> score of each group: rank all groups by their score over the layer's mean, each layer keeping
            at least a tenth; None: one ratio for all layers.

    Raises:
        ValueError: the speedup cannot be reached; names the largest that can.
    """
    given = ratios_by_name(layers, globs, "filter")
    base = plan_by_name(layers, globs, "filter", round_to=round_to).pruned
    taking_part = [
        layer
        for layer in layers
        if "filter" in layer.prunable and layer.name not in given and layer.name not in structure.set_apart
    ]
    rest = total_flops - structure.flops({})  # of what is not a layer's own, such as the projections of attention

    def reached(numbers: Mapping[str, int]) -> float:
        return total_flops / (structure.flops(base | dict(numbers)) + rest)

    n_candidates, candidate = _by_global_rank(taking_part, scores) if scores else _by_one_ratio(taking_part)

    def numbers_of(number: int) -> dict[str, int]:
        return {
            layer.name: rounded_width(layer, n_pruned, "filter", round_to)
            for layer, n_pruned in zip(taking_part, candidate(number), strict=True)
        }

    low, high = 0, n_candidates - 1
    most = reached(numbers_of(high)) if total_flops else 1.0
    if most < speedup:
        apart = [name for name in structure.set_apart if name in structure.layers and name not in given]
        free = [name for name in apart if structure.layers[name].units]
        more = f"; ratios may name {', '.join(free)}, too, which otherwise take no part" if free else ""
        kept = [f"{layer.name}: {layer.status}, {layer.reason}" for layer in structure.layers.values() if layer.reason]
        more += f"; layers that keep all: {'; '.join(kept[:3])}{'; …' * (len(kept) > 3)}" if kept else ""
        raise ValueError(f"{speedup:g}x cannot be reached: at most {most:.2f}x{more}")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(numbers_of(middle)) >= speedup else (middle, high)
    # Between the last two candidates: layer by layer in the network's order, and last the one that goes least too far.
    numbers = numbers_of(low)
    steps = {name: n for name, n in numbers_of(high).items() if n != numbers[name]}
    while reached(numbers) < speedup:
        enough = [(reached(numbers | {name: n}), name) for name, n in steps.items()]
        last = min(((x, name) for x, name in enough if x >= speedup), default=None)
        name = last[1] if last else next(iter(steps))
        numbers[name] = steps.pop(name)
    return plan_of(layers, base | numbers, "filter")


Candidates = tuple[int, Callable[[int], list[int]]]  # how many; number -> pruned groups by layer, never falling


def _by_one_ratio(layers: list[Layer]) -> Candidates:
    """Return the candidates of uniform ranking: every ratio k/n that changes a layer's number of groups."""
    sizes = [layer.count("filter") for layer in layers]
    ratios = sorted({Fraction(k, n) for n in set(sizes) for k in range(n)})
    return len(ratios), lambda number: [min(math.ceil(ratios[number] * n), n - 1) for n in sizes]


def _by_global_rank(layers: list[Layer], scores: Mapping[str, Tensor]) -> Candidates:
    """Return the candidates of global ranking: every number of groups lowest in score over the layer's mean."""
    ranked = []
    for place, layer in enumerate(layers):
        n = layer.count("filter")
        relative = scores[layer.name] / scores[layer.name].mean().clamp_min(1e-30)
        most = n - max(1, math.ceil(KEPT_SHARE * n))
        ranked += [(value, place) for value in relative.sort().values.tolist()[:most]]
    ranked.sort()

    def candidate(number: int) -> list[int]:
        counts = Counter(place for _, place in ranked[:number])
        return [counts[place] for place in range(len(layers))]

    return len(ranked) + 1, candidate
