"""Conv and linear layers of a network, in order, with their addresses.

Residual nets: ``0`` for the stem, ``stage.sequence.conv`` for a conv of a block (``2.3.0``), the number of
the last stage for the classifier. Single-branch nets: the layer's index.
"""

import re
from dataclasses import dataclass

from torch import nn

from . import groups
from .structure import Structure

Modules = dict[str, nn.Conv2d | nn.Linear]
BLOCK_CONV = re.compile(r"layer(?P<stage>\d+)\.(?P<sequence>\d+)\.(?:conv(?P<conv>\d+)|.+)")


@dataclass(frozen=True)
class Layer:
    """One conv or linear layer.

    Attributes:
        name: module path, e.g. ``layer2.3.conv1``.
        address: e.g. ``2.3.0``, or ``5`` in a single-branch net.
        entry: index into the list of ratios: the layer's stage, or its own index.
        shape: the weight's, (out, in, kh, kw) or (out, in).
        prunable: the kinds of structured group it can lose, of ``filter`` and ``channel``.
        in_block: one of a block's convs, which share a ratio: those that cannot be pruned keep all.
        width: filters per group, where a grouped conv reads several together.
        status, reason: whether filters are free, coupled or fixed, and why, where the network was traced for that.
    """

    name: str
    address: str
    entry: int
    shape: tuple[int, ...]
    prunable: frozenset[str]
    in_block: bool = False
    width: int = 1
    status: str = ""
    reason: str = ""

    def count(self, kind: str) -> int:
        """Number of groups of this kind."""
        return groups.count(self.shape, kind, self.width_of(kind))

    def width_of(self, kind: str) -> int:
        """Slices of the weight per group of this kind."""
        return self.width if kind == "filter" else 1


def traced_layers(structure: Structure) -> list[Layer]:
    """All conv and linear layers of a traced network, in order, addressed by their names."""
    return [
        Layer(
            name, name, number, layer.shape, frozenset({"filter"} if layer.units else ()),
            width=layer.width, status=layer.status, reason=layer.reason,
        )
        for number, (name, layer) in enumerate(structure.layers.items())
    ]  # fmt: skip


def is_residual(layers: list[Layer]) -> bool:
    return any(layer.in_block for layer in layers)


def layers_of(model: nn.Module) -> list[Layer]:
    """All conv and linear layers of `model`, in order.

    Raises:
        ValueError: the network is of a form whose layers have no addresses.
    """
    modules: Modules = {n: m for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)}
    convs = [m for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)]
    if any(m.groups > 1 or not isinstance(m, nn.Conv2d) for m in convs):
        kinds = "grouped, 1d, 3d or transposed convs"
        raise ValueError(f"{type(model).__name__} with {kinds} has no addresses to prune by; {_which_can()}")
    if _is_single_branch(model, modules):
        return _chain(modules)
    if any(BLOCK_CONV.fullmatch(name) for name in modules):
        return _blocks(modules)
    raise ValueError(f"layers of {type(model).__name__} have no addresses to prune by; {_which_can()}")


def _is_single_branch(model: nn.Module, layers: Modules) -> bool:
    """Whether all `layers` lie in ``nn.Sequential`` containers, each reading the one before.

    Blocks with branches are modules of a type of their own; none of torchvision's branched networks passes.
    """
    containers = {name.rpartition(".")[0] for name in layers}
    while containers - {""}:
        if not all(type(model.get_submodule(name)) is nn.Sequential for name in containers if name):
            return False
        containers = {name.rpartition(".")[0] for name in containers if name}
    return True


def _which_can() -> str:
    return "residual nets (resnet*, wide_resnet*) and single-branch nets (vgg*, alexnet, lenet5*, mlp_*) have"


def _chain(modules: Modules) -> list[Layer]:
    """Single-branch networks: filters are free in all layers but the last, channels in all but the first.

    A linear layer that reads flattened maps has several columns per filter before it: no channel of its own.
    """
    layers: list[Layer] = []
    last = len(modules) - 1
    for index, (name, module) in enumerate(modules.items()):
        shape = tuple(module.weight.shape)
        reads_whole_filters = index > 0 and layers[-1].shape[0] == shape[1]
        prunable = set()
        if index < last:
            prunable.add("filter")
        if reads_whole_filters:
            prunable.add("channel")
        layers.append(Layer(name, str(index), index, shape, frozenset(prunable)))
    return layers


def _blocks(modules: Modules) -> list[Layer]:
    """Residual blocks: filters are free in all convs but the last, channels in all but the first; shortcuts are fixed.

    So every sum over branches keeps its width.
    """
    matches = {name: BLOCK_CONV.fullmatch(name) for name in modules}
    stages = max(int(match["stage"]) for match in matches.values() if match)
    last_conv: dict[tuple[str, str], str] = {}
    for match in matches.values():
        if match and match["conv"]:
            block = (match["stage"], match["sequence"])
            last_conv[block] = max(last_conv.get(block, "1"), match["conv"])

    layers: list[Layer] = []
    for name, module in modules.items():
        shape, match = tuple(module.weight.shape), matches[name]
        if not match:  # the stem comes before any block, the classifier after all
            entry = stages + 1 if is_residual(layers) else 0
            layers.append(Layer(name, str(entry), entry, shape, frozenset()))
            continue
        block = (match["stage"], match["sequence"])
        stage, conv = int(match["stage"]), match["conv"]
        prunable = set()
        if conv and conv != last_conv[block]:
            prunable.add("filter")
        if conv and conv != "1":
            prunable.add("channel")
        inner = name.split(".", 2)[2]
        place = str(int(conv) - 1) if conv else "shortcut" if inner == "downsample.0" else inner
        layers.append(Layer(name, f"{stage}.{block[1]}.{place}", stage, shape, frozenset(prunable), in_block=True))
    return layers
