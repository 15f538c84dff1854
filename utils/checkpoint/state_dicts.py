"""Find and normalize state dicts in files of other tools."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Names of weights under an active PyTorch utility -> the utility, and how to remove it.
UNFINISHED = {
    r"_mask$": (
        "pruned by torch.nn.utils.prune with separate masks; before saving, for each pruned "
        "module: torch.nn.utils.prune.remove(module, 'weight')"
    ),
    r"(^|\.)parametrizations\.": (
        "parametrized by torch.nn.utils.parametrize; before saving, for each parametrized module: "
        "torch.nn.utils.parametrize.remove_parametrizations(module, 'weight')"
    ),
    r"(^|\.)weight_u$": (
        "under spectral_norm; before saving, for each such module: torch.nn.utils.remove_spectral_norm(module)"
    ),
    r"(^|\.)weight_g$": (
        "under weight_norm; before saving, for each such module: torch.nn.utils.remove_weight_norm(module)"
    ),
    r"(^|\.)(weight|bias)_orig$": (
        "pruned by torch.nn.utils.prune without masks in the file; before saving, for each pruned module: "
        "torch.nn.utils.prune.remove(module, 'weight')"
    ),
}
# DataParallel and torch.compile, which may wrap a submodule.
_WRAPPER = re.compile(r"(^|\.)((?:(?:module|_orig_mod)\.)+)")
_CONTAINERS = (Mapping, list, tuple, nn.Module)
_WEIGHT = re.compile(r"(^|\.)(weight(_orig|_g)?|parametrizations\.weight\.original0?)$")


def find_weights(
    content: Any, source: object, key: str | None = None, own: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], list[str]]:
    """Find the one state dict in the content of a file.

    A state dict is a mapping of names to tensors, at any depth and under any key, with layer names that end in
    ``weight``, unlike optimizer buffers, random states and counters. A mapping with less than half as many of these
    names as the largest is ignored (a loss, a discriminator's head). Copies count once. A prefix shared by all conv
    and linear layers (``module.``, ``_orig_mod.``, ``model.``) is a wrapper, but for the network's own: it is removed,
    with tensors outside of it (a loss) and scalars of no layer (``n_averaged``).

    Args:
        key: search only under it, e.g. ``state_dict_ema`` or ``checkpoint.model``; ``.`` is the file's top level.
        own: state dict of the network, where all its layers may be in one submodule.

    Returns:
        The state dict, and notices on changes.

    Raises:
        ValueError: there is none, or none under `key`, or several (names their keys), or weights are under an active
            PyTorch utility.
    """
    dicts = _tensor_dicts(content)
    chosen = dicts if key is None else _select_under(key, dicts)
    if key is not None and not _state_dicts(chosen):
        keys = ", ".join(_label(path) for path, _ in _state_dicts(dicts)) or "no weights"
        raise ValueError(f"--weights_key {key}: no weights under this key in {source}; it has: {keys}")
    state_dicts = _without_copies([_unwrap(path, tensors, own or {}) for path, tensors in _state_dicts(chosen)])
    if not state_dicts:
        raise ValueError(f"{source} holds no weights: no tensor has a name like conv1.weight")
    if len(state_dicts) > 1:
        keys = ", ".join(_label(entry.path) for entry in state_dicts)
        raise ValueError(f"{source} holds {len(state_dicts)} state dicts: {keys}; choose one with --weights_key KEY")
    (state_dict,) = state_dicts
    _refuse_unfinished(state_dict.state, source)
    notice = state_dict.notice()
    return state_dict.state, [f"{source}: {notice}"] if notice else []


@dataclass(frozen=True)
class _StateDict:
    """A state dict found in a file.

    Attributes:
        path: dotted keys in the file.
        removed: prefixes removed from names.
        left_out: names of dropped tensors.
    """

    path: str
    state: dict[str, Tensor]
    removed: list[str]
    left_out: list[str]

    def notice(self) -> str:
        more = f" and {len(self.left_out) - 4} more" if len(self.left_out) > 4 else ""
        parts = {
            "weights taken from": f"'{self.path}'" if self.path else "",
            "removed from names:": ", ".join(self.removed),
            "dropped, not of a layer:": ", ".join(self.left_out[:4]) + more,
        }
        return "; ".join(f"{label} {value}" for label, value in parts.items() if value)


def _tensor_dicts(content: Any) -> list[tuple[str, dict[str, Tensor]]]:
    """Return all mappings and lists in `content` that hold tensors, outermost first, with their dotted paths."""
    containers, visited = [], set()
    queue = [("", content)]
    for path, value in queue:  # appended to inside the loop
        if id(value) in visited:  # a file may contain itself
            continue
        visited.add(id(value))
        members = _members(value)
        tensors = {name: member for name, member in members if isinstance(member, Tensor)}
        if tensors:
            containers.append((path, tensors))
        queue += [(_join(path, name), member) for name, member in members if isinstance(member, _CONTAINERS)]
    return containers


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, nn.Module) and "_parameters" in vars(value):  # not a stand-in for another type
        value = value.state_dict()
    if isinstance(value, Mapping):
        return [(str(name), member) for name, member in value.items()]
    return [(str(i), member) for i, member in enumerate(value)] if isinstance(value, list | tuple) else []


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _label(path: str) -> str:
    return path or ". (the top level)"


def _select_under(key: str, dicts: list[tuple[str, dict[str, Tensor]]]) -> list[tuple[str, dict[str, Tensor]]]:
    """Select the part of `dicts` whose full names begin with `key`."""
    if key == ".":
        return [(path, tensors) for path, tensors in dicts if not path]
    parts = [
        (path, {name: value for name, value in tensors.items() if _join(path, name).startswith(f"{key}.")})
        for path, tensors in dicts
    ]
    return [(path, tensors) for path, tensors in parts if tensors]


def _state_dicts(dicts: list[tuple[str, dict[str, Tensor]]]) -> list[tuple[str, dict[str, Tensor]]]:
    counts = [sum(bool(_WEIGHT.search(name)) for name in tensors) for _, tensors in dicts]
    largest = max(counts, default=0)
    return [entry for entry, count in zip(dicts, counts, strict=True) if count and 2 * count >= largest]


def _without_copies(state_dicts: list[_StateDict]) -> list[_StateDict]:
    """Drop state dicts equal to an earlier one (e.g. a network saved with its state dict)."""
    distinct: list[_StateDict] = []
    for entry in state_dicts:
        if not any(_equal(entry.state, other.state) for other in distinct):
            distinct.append(entry)
    return distinct


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_equal_tensors(one[name], other[name]) for name in one)


def _equal_tensors(one: Tensor, other: Tensor) -> bool:
    if one is other or (one.layout, one.dtype, one.device) != (other.layout, other.dtype, other.device):
        return one is other
    return one.layout == torch.strided and not (one.is_quantized or one.is_meta) and torch.equal(one, other)


def _layer_prefix(state: Mapping[str, Tensor]) -> str:
    """Return the prefix that all conv and linear layers share, such as ``module.``; empty if there is none."""
    layers = [_WEIGHT.sub("", name) for name, value in state.items() if value.ndim > 1 and _WEIGHT.search(name)]
    parts = zip(*(name.split(".")[:-1] for name in layers), strict=False)
    return "".join(f"{part[0]}." for part in itertools.takewhile(lambda part: len(set(part)) == 1, parts))


def _unwrap(path: str, tensors: dict[str, Tensor], network: Mapping[str, Tensor]) -> _StateDict:
    """Remove wrapper prefixes from names, and tensors outside the wrapper."""
    prefix, of_network = _layer_prefix(tensors), _layer_prefix(network)
    if f".{prefix}".endswith(f".{of_network}"):
        prefix = prefix.removesuffix(of_network)
    names, left_out = {}, []
    for name, value in tensors.items():
        own = name.removeprefix(prefix)
        if not name.startswith(prefix) or ("." not in own and value.numel() <= 1 and own not in network):
            left_out.append(name)
        else:
            names[name] = own
    bare = {name: _WRAPPER.sub(r"\1", own) for name, own in names.items()}
    if len(set(bare.values())) < len(bare):  # names with and without the wrapper: two networks
        bare = names
    inside = sorted({part for name in bare if bare[name] != names[name] for _, part in _WRAPPER.findall(names[name])})
    removed = [prefix] * bool(prefix) + inside
    return _StateDict(path, {bare[name]: tensors[name] for name in names}, removed, left_out)


def _refuse_unfinished(state: dict[str, Tensor], source: object) -> None:
    for pattern, advice in UNFINISHED.items():
        name = next((name for name in state if re.search(pattern, name)), None)
        if name:
            raise ValueError(f"{source} ({name}) is of a network {advice}")


def rename_head(
    state: dict[str, Tensor], own: dict[str, Tensor], source: object
) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the classifier to its name in the network, if only that differs and its shape fits.

    Args:
        own: the network's state dict.

    Returns:
        The state dict, and a notice if it was renamed.
    """
    head = [name for name, value in own.items() if value.ndim > 1][-1].removesuffix("weight")
    ours = {name.removeprefix(head): value.shape for name, value in own.items() if name.startswith(head)}
    unexpected = [name for name in state if name not in own]
    theirs = unexpected[0].rpartition(".")[0] + "." if unexpected else ""
    shapes = {name.removeprefix(theirs): state[name].shape for name in unexpected}
    if shapes != ours or any(head + leaf in state for leaf in ours):
        return state, []
    names = {theirs + leaf: head + leaf for leaf in shapes}
    notice = f"{source}: classifier renamed from {theirs[:-1]} to {head[:-1]}"
    return {names.get(name, name): value for name, value in state.items()}, [notice]


def conversion_notices(state: dict[str, Tensor], source: object) -> list[str]:
    """Return a notice on tensors that loading converts to float32."""
    other = [value.dtype for value in state.values() if value.is_floating_point() and value.dtype != torch.float32]
    types = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in other}))
    return [f"{source}: {len(other)} tensors converted from {types} to float32"] if other else []
