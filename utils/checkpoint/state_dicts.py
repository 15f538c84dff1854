"""Recognize state dicts of other tools by content."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Names that PyTorch's utilities give to a layer's weight while they are at work on it -> how to finish that work.
UNFINISHED = {
    r"_mask$": (
        "pruned by torch.nn.utils.prune with the masks still apart from the weights; before saving, for each pruned "
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
        "pruned by torch.nn.utils.prune, and the masks are not in the file; before saving, for each pruned module: "
        "torch.nn.utils.prune.remove(module, 'weight')"
    ),
}
# Of DataParallel and torch.compile, which may wrap a part of a network.
_WRAPPER = re.compile(r"(^|\.)((?:(?:module|_orig_mod)\.)+)")
_CONTAINERS = (Mapping, list, tuple, nn.Module)
_WEIGHT = re.compile(r"(^|\.)(weight(_orig|_g)?|parametrizations\.weight\.original0?)$")


def find_weights(content: Any, source: object, key: str | None = None) -> tuple[dict[str, Tensor], list[str]]:
    """Find the one state dict in the content of a file.

    A state dict is a mapping of names to tensors, at any depth and under any key, with names that end in ``weight``
    as those of layers do: an optimizer's buffers, random states and counters have none. A mapping with less than half
    as many of them as the largest is something else (a loss, a discriminator's head). Two with the same tensors count
    once. Components that all its conv and linear layers begin with (``module.``, ``_orig_mod.``, ``model.``) are
    wrappers, since no network of ours has all its layers in one submodule: they are removed, and what is not in them
    (a loss) is left out, as are single numbers that belong to no layer (``n_averaged``).

    Args:
        key: take only what is under it, e.g. ``state_dict_ema`` or ``checkpoint.model``; ``.`` is the file's top level.

    Returns:
        The state dict, and notices on what was done.

    Raises:
        ValueError: there is none, or several (names their keys), none under `key`, or layers are in the form that one
            of PyTorch's utilities needs.
    """
    dicts = _tensor_dicts(content)
    chosen = dicts if key is None else _under(key, dicts)
    if key is not None and not _state_dicts(chosen):
        places = ", ".join(_label(path) for path, _ in _state_dicts(dicts)) or "none at all"
        raise ValueError(f"--weights_key {key}: no weights there in {source}; it has: {places}")
    found = _without_copies([_unwrap(path, tensors) for path, tensors in _state_dicts(chosen)])
    if not found:
        raise ValueError(f"{source} holds no weights: no tensor in it has a name like conv1.weight")
    if len(found) > 1:
        places = ", ".join(_label(one.path) for one in found)
        raise ValueError(f"{source} holds {len(found)} sets of weights: {places}; choose one with --weights_key KEY")
    _refuse_unfinished(found[0].state, source)
    notice = found[0].notice()
    return found[0].state, [f"{source}: {notice}"] if notice else []


@dataclass(frozen=True)
class _StateDict:
    """Attributes:
    path: dotted keys in the file.
    removed: what was removed from names.
    left_out: names of tensors that are not of the network.
    """

    path: str
    state: dict[str, Tensor]
    removed: list[str]
    left_out: list[str]

    def notice(self) -> str:
        more = f" and {len(self.left_out) - 4} more" if len(self.left_out) > 4 else ""
        parts = {
            "weights taken from": f"'{self.path}'" if self.path else "",
            "removed from their names:": ", ".join(self.removed),
            "left out, since no layer has it:": ", ".join(self.left_out[:4]) + more,
        }
        return "; ".join(f"{what} {value}" for what, value in parts.items() if value)


def _tensor_dicts(content: Any) -> list[tuple[str, dict[str, Tensor]]]:
    """All mappings and lists in `content` that hold tensors, outermost first, with their dotted paths."""
    found, visited = [], set()
    queue = [("", content)]
    for path, value in queue:  # grows on the way
        if id(value) in visited:  # a file may contain itself
            continue
        visited.add(id(value))
        members = _members(value)
        tensors = {name: member for name, member in members if isinstance(member, Tensor)}
        if tensors:
            found.append((path, tensors))
        queue += [(_join(path, name), member) for name, member in members if isinstance(member, _CONTAINERS)]
    return found


def _members(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, nn.Module) and "_parameters" in vars(value):  # not a stand-in for something else
        value = value.state_dict()
    if isinstance(value, Mapping):
        return [(str(name), member) for name, member in value.items()]
    return [(str(i), member) for i, member in enumerate(value)] if isinstance(value, list | tuple) else []


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _label(path: str) -> str:
    return path or ". (the top level)"


def _under(key: str, dicts: list[tuple[str, dict[str, Tensor]]]) -> list[tuple[str, dict[str, Tensor]]]:
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
    most = max(counts, default=0)
    return [entry for entry, count in zip(dicts, counts, strict=True) if count and 2 * count >= most]


def _without_copies(found: list[_StateDict]) -> list[_StateDict]:
    """Drop state dicts that hold the same weights as an earlier one (a network beside its state dict)."""
    distinct: list[_StateDict] = []
    for one in found:
        if not any(_equal(one.state, other.state) for other in distinct):
            distinct.append(one)
    return distinct


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(_equal_tensors(one[name], other[name]) for name in one)


def _equal_tensors(one: Tensor, other: Tensor) -> bool:
    if one is other or (one.layout, one.dtype, one.device) != (other.layout, other.dtype, other.device):
        return one is other
    return one.layout == torch.strided and not (one.is_quantized or one.is_meta) and torch.equal(one, other)


def _unwrap(path: str, tensors: dict[str, Tensor]) -> _StateDict:
    """Remove wrapper prefixes from names, and tensors outside the wrapper."""
    layers = [_WEIGHT.sub("", name) for name, value in tensors.items() if value.ndim > 1 and _WEIGHT.search(name)]
    parts = zip(*(name.split(".")[:-1] for name in layers), strict=False)
    prefix = "".join(f"{part[0]}." for part in itertools.takewhile(lambda part: len(set(part)) == 1, parts))
    names, left_out = {}, []
    for name, value in tensors.items():
        own = name.removeprefix(prefix)
        if not name.startswith(prefix) or ("." not in own and value.numel() <= 1):
            left_out.append(name)
        else:
            names[name] = own
    bare = {name: _WRAPPER.sub(r"\1", own) for name, own in names.items()}
    if len(set(bare.values())) < len(bare):  # both with and without it: two networks, not a wrapper
        bare = names
    inside = sorted({part for name in bare if bare[name] != names[name] for _, part in _WRAPPER.findall(names[name])})
    removed = [prefix] * bool(prefix) + inside
    return _StateDict(path, {bare[name]: tensors[name] for name in names}, removed, left_out)


def _refuse_unfinished(state: dict[str, Tensor], source: object) -> None:
    for pattern, what in UNFINISHED.items():
        name = next((name for name in state if re.search(pattern, name)), None)
        if name:
            raise ValueError(f"{source} ({name}) is of a network {what}")


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
    found = {name.removeprefix(theirs): state[name].shape for name in unexpected}
    if found != ours or any(head + leaf in state for leaf in ours):
        return state, []
    names = {theirs + leaf: head + leaf for leaf in found}
    notice = f"{source}: the classifier is called {theirs[:-1]} there and {head[:-1]} here"
    return {names.get(name, name): value for name, value in state.items()}, [notice]


def conversion_notices(state: dict[str, Tensor], source: object) -> list[str]:
    """A notice on tensors of other floating-point types, which loading converts to float32."""
    other = [value.dtype for value in state.values() if value.is_floating_point() and value.dtype != torch.float32]
    types = ", ".join(sorted({str(dtype).removeprefix("torch.") for dtype in other}))
    return [f"{source}: {len(other)} tensors converted from {types} to float32"] if other else []
