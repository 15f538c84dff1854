"""Follow channels through the operators of a forward pass.

Every tensor carries the ids of its channels; an id stands for one filter of a conv or linear layer. Operators pass ids
on, join them (additions), or are barriers: whatever is not known to compute each channel from that channel alone.
"""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .channels import NONE, Call, Channels, Trace
from .outputs import call, tensors_in

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

# Operators that, of one tensor, compute each channel from that channel alone.
PASS = frozenset({
    "relu", "relu6", "leaky_relu", "hardtanh", "gelu", "silu", "mish", "elu", "celu", "selu", "softplus", "tanh",
    "sigmoid", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "log_sigmoid", "threshold",
    "clamp", "clamp_min", "clamp_max", "exp", "sqrt", "rsqrt", "abs", "neg", "square", "pow", "positive",
    "reciprocal", "alias", "detach", "clone", "_to_copy", "dropout", "feature_dropout",
    "max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d",
    "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d",
    "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d",
})  # fmt: skip
LAYER_CALLS = frozenset({"convolution", "conv1d", "conv2d", "conv3d", "linear"})
ARITHMETIC = frozenset({"add", "sub", "mul", "div", "rsub"})
CAT = frozenset({"cat", "concat"})
RESHAPE = frozenset({"view", "reshape", "flatten", "unflatten", "_unsafe_view", "squeeze", "unsqueeze"})
REDUCE = frozenset({"mean", "sum", "amax", "amin"})
PERMUTE = frozenset({"permute", "transpose", "t"})
PAD = frozenset({"constant_pad_nd", "pad"})


class BarrierError(Exception):
    """An operator that mixes channels, or is not known to keep them apart."""


Given = dict[str, Any]  # arguments of an operator, by name
# Name of the operator, arguments by ATen's schema, first output -> channels of every output. None only where no
# argument carries channels: what cannot follow them raises BarrierError.
Rule = Callable[[str, Given, Tensor], Channels | None]


class Tracer(TorchDispatchMode):
    """Follow channels through forward passes of `model`, which gets hooks for it."""

    FROM_INPUT = 1  # the bit of what is computed from the network's input; each layer has one above it

    def __init__(self, model: nn.Module):
        super().__init__()
        self.trace = Trace()
        tensors = [*model.named_parameters(), *model.named_buffers()]
        self._names = {id(tensor): name for name, tensor in tensors}
        self._layers = {f"{n}.weight": n for n, m in model.named_modules() if isinstance(m, LAYERS)}
        self._more = {
            layer: {name for name, _ in model.get_submodule(layer).named_parameters()} - {"weight", "bias"}
            for layer in self._layers.values()
        }
        for layer in self._layers.values():
            model.get_submodule(layer).register_forward_pre_hook(lambda *_, layer=layer: self.trace.called.add(layer))
        self._bits: dict[str, int] = {}
        self._channels: dict[int, Channels] = {}
        self._upstream: dict[int, int] = {}  # layers that a tensor is computed from, a bit each
        self._alive: list[Tensor] = []  # an id() is an object's own only while the object lives
        self._rules: list[tuple[frozenset[str], Rule]] = [
            (PASS, self._pass), (LAYER_CALLS, self._layer_call),
            (frozenset({"batch_norm"}), self._batch_norm), (ARITHMETIC, self._arithmetic), (CAT, self._cat),
            (RESHAPE, self._reshape), (REDUCE, self._reduce), (PERMUTE, self._permute), (PAD, self._pad),
            (frozenset({"expand"}), self._expand),
        ]  # fmt: skip

    def run(self, model: nn.Module, example: Any) -> None:
        """Make one pass; what reaches the output must stay."""
        self.trace.calls = []
        for leaf in tree_leaves(example):
            if isinstance(leaf, Tensor):
                self.carry(leaf, None, Tracer.FROM_INPUT)
        with self:
            out = call(model, example)
        for tensor in tensors_in(out):
            if channels := self.channels(tensor):
                self.trace.stop(channels.ids, "reaches the network's output")

    def channels(self, tensor: Tensor) -> Channels | None:
        return self._channels.get(id(tensor))

    def carry(self, tensor: Tensor, channels: Channels | None, upstream: int) -> None:
        """Set what `tensor` carries from here on."""
        self._alive.append(tensor)
        self._upstream[id(tensor)] = upstream
        self._channels.pop(id(tensor), None)
        if channels is not None and (channels.ids != NONE).any():
            self._channels[id(tensor)] = channels

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        name = name.removesuffix("_") if func._schema.is_mutable else name
        rule = next((rule for names, rule in self._rules if name in names), None)
        if rule is None and func._can_decompose():
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        upstream = 0
        for tensor in tensors:
            upstream |= self._upstream.get(id(tensor), 0)
        out = func(*args, **kwargs)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        channels = None
        try:
            if rule is None:
                raise BarrierError(name)
            channels = rule(name, given, results[0])
        except BarrierError as barrier:
            for tensor in tensors:
                if stopped := self.channels(tensor):
                    self.trace.stop(stopped.ids, str(barrier))
        if channels is not None and channels.layer is not None:
            upstream |= self._bit(channels.layer)
        for tensor in results:
            self.carry(tensor, channels, upstream)
        return out

    def _bit(self, layer: str) -> int:
        return self._bits.setdefault(layer, Tracer.FROM_INPUT << (1 + len(self._bits)))

    def _pass(self, name: str, given: Given, out: Tensor) -> Channels | None:
        tensors = [argument for argument in given.values() if isinstance(argument, Tensor)]
        carried = [channels for tensor in tensors if (channels := self.channels(tensor))]
        if not carried:
            return None
        if len(tensors) > 1 or out.shape[carried[0].dim] != len(carried[0].ids):
            raise BarrierError(name)
        return carried[0]

    # Layers

    def _layer_call(self, name: str, given: Given, out: Tensor) -> Channels:
        try:
            return self._linear(given, out) if name == "linear" else self._conv(given, out)
        except BarrierError as barrier:
            self._fixed_call(name, given, out, str(barrier))
            raise

    def _fixed_call(self, name: str, given: Given, out: Tensor, reason: str) -> None:
        """Count a call whose filters and columns all stay; those of a layer stay in its other calls, too."""
        x, weight, groups = given["input"], given["weight"], given.get("groups", 1)
        over, n_rows, n_columns = out, weight.shape[0], weight.shape[1] * groups
        if given.get("transposed"):
            over, n_columns, groups = x, weight.shape[1], 1
        dim = x.ndim - 1 if name == "linear" else x.ndim - weight.ndim + 1
        layer = self._layers.get(self._names.get(id(weight), ""), "")
        rows, columns, kernel = np.full(n_rows, NONE), np.full(n_columns, NONE), prod(weight.shape[2:])
        if layer:
            rows = self.trace.make_filters(layer, n_rows)
            self.trace.stop(rows, self.trace.reasons.get(layer, reason))
            self.trace.use(f"{layer}.weight", 1, np.full(weight.shape[1], NONE))
        self.trace.calls.append(Call(layer, over.numel() // over.shape[dim], columns, rows, groups, kernel))

    def _conv(self, given: Given, out: Tensor) -> Channels:
        x, weight, groups = given["input"], given["weight"], given.get("groups", 1)
        if given.get("transposed"):
            raise BarrierError("transposed conv")
        layer = self._layer_of(weight, given.get("bias"), x)
        dim = x.ndim - weight.ndim + 1
        columns, kernel = self._ids(x, dim), prod(weight.shape[2:])
        if groups == 1:
            return self._make(layer, columns, dim, out, kernel)
        # The unit is a whole group: its inputs go together, and its outputs with them.
        blocks = columns.reshape(groups, -1)
        for column in blocks.T[1:]:
            self.trace.join(blocks[:, 0], column, f"{layer} groups it with fixed channels")
        rows = np.repeat(blocks[:, 0], weight.shape[0] // groups)
        self._use_rows(layer, rows)
        self.trace.reasons[layer] = "grouped conv: its groups follow their inputs"
        self.trace.calls.append(Call(layer, out.numel() // out.shape[dim], columns, rows, groups, kernel))
        return Channels(dim, rows, layer)

    def _linear(self, given: Given, out: Tensor) -> Channels:
        x = given["input"]
        layer = self._layer_of(given["weight"], given.get("bias"), x)
        return self._make(layer, self._ids(x, x.ndim - 1), x.ndim - 1, out, 1)

    def _make(self, layer: str, columns: np.ndarray, dim: int, out: Tensor, kernel: int) -> Channels:
        rows = self.trace.make_filters(layer, out.shape[dim])
        self._use_rows(layer, rows)
        self.trace.use(f"{layer}.weight", 1, columns)
        self.trace.calls.append(Call(layer, out.numel() // out.shape[dim], columns, rows, 1, kernel))
        return Channels(dim, rows, layer)

    def _layer_of(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> str:
        """Return the layer whose own weight and bias these are."""
        name = self._names.get(id(weight), "")
        layer = self._layers.get(name)
        if layer is None:
            raise BarrierError(f"{name} is not the weight of a conv or linear layer" if name else "computed weight")
        if self._more[layer] or (bias is not None and self._names.get(id(bias)) != f"{layer}.bias"):
            self.trace.reasons[layer] = "has parameters other than weight and bias"
        elif not self._upstream.get(id(x), 0) & Tracer.FROM_INPUT:
            self.trace.reasons[layer] = "does not read the network's input"
        else:
            return layer
        raise BarrierError(f"{layer} {self.trace.reasons[layer]}")

    def _ids(self, tensor: Tensor, dim: int) -> np.ndarray:
        """Return the ids along `dim`."""
        channels = self.channels(tensor)
        if channels is None:
            return np.full(tensor.shape[dim], NONE)
        if channels.dim != dim:
            raise BarrierError("layer along another dimension than the channels")
        return channels.ids

    def _use_rows(self, layer: str, rows: np.ndarray) -> None:
        self.trace.use(f"{layer}.weight", 0, rows)
        if f"{layer}.bias" in self._names.values():
            self.trace.use(f"{layer}.bias", 0, rows)

    def _batch_norm(self, name: str, given: Given, out: Tensor) -> Channels | None:
        channels = self.channels(given["input"])
        if channels is None:
            return None
        if channels.dim != 1:
            raise BarrierError("batch norm along another dimension than the channels")
        for role in ("weight", "bias", "running_mean", "running_var"):
            if given[role] is not None:
                tensor = self._names.get(id(given[role]))
                if tensor is None:
                    raise BarrierError("batch norm with computed parameters")
                self.trace.use(tensor, 0, channels.ids)
        return Channels(1, channels.ids)

    # Operators on several tensors

    def _arithmetic(self, name: str, given: Given, out: Tensor) -> Channels | None:
        x, y = given["self"], given["other"]
        if not isinstance(y, Tensor):
            return self._pass(name, given, out)
        a, b = self.channels(x), self.channels(y)
        if a is None or (b is not None and len(a.ids) == 1):
            x, y, a, b = y, x, b, a
        if a is None:
            return None
        place = x.ndim - a.dim  # as broadcasting counts dimensions: from the last, which is 1
        if b is not None and y.ndim - b.dim != place:
            raise BarrierError(f"{name} of channels in different dimensions")
        size = y.shape[y.ndim - place] if y.ndim >= place else 1
        if size == 1 and len(a.ids) > 1:  # one value for every channel
            if b is not None:
                self.trace.stop(b.ids, f"{name} to every channel of another tensor")
        elif size != len(a.ids):
            raise BarrierError(f"{name} to every channel of another tensor")
        elif b is None:
            other = self._names.get(id(y))
            raise BarrierError(f"{name} of the parameter {other}" if other else f"{name} of fixed channels")
        else:
            if name == "mul":
                self._gate((x, a), (y, b))
            self.trace.join(a.ids, b.ids, f"{name} of fixed channels")
        return Channels(out.ndim - place, a.ids)

    def _gate(self, *factors: tuple[Tensor, Channels]) -> None:
        """Let the factor that is computed from the other follow it (squeeze and excitation)."""
        owners = [{self.trace.owner[i] for i in channels.ids.tolist() if i != NONE} for _, channels in factors]
        for first, (gate, _) in ((0, factors[1]), (1, factors[0])):
            upstream = self._upstream.get(id(gate), 0)
            if not owners[0] & owners[1] and all(upstream & self._bit(layer) for layer in owners[first]):
                self.trace.gates |= owners[1 - first]
                return

    def _cat(self, name: str, given: Given, out: Tensor) -> Channels | None:
        tensors, dim = given["tensors"], given.get("dim", 0) % out.ndim
        carried = [channels for t in tensors if (channels := self.channels(t))]
        if not carried:
            return None
        if len(carried) != len(tensors) or len({channels.dim for channels in carried}) > 1:
            raise BarrierError("cat with fixed channels")
        first = carried[0]
        if first.dim == dim:
            return Channels(dim, np.concatenate([channels.ids for channels in carried]))
        for channels in carried[1:]:
            self.trace.join(first.ids, channels.ids, "cat with fixed channels")
        return Channels(first.dim, first.ids)

    # Operators that move dimensions

    def _reshape(self, name: str, given: Given, out: Tensor) -> Channels | None:
        x = given["self"]
        channels = self.channels(x)
        if channels is None:
            return None
        n, rest = len(channels.ids), x.shape[channels.dim + 1 :]
        merged = {n * prod(rest[:k]) for k in range(len(rest) + 1)}  # with none or some of the dimensions behind
        outer, before = prod(x.shape[: channels.dim]), 1
        for dim, size in enumerate(out.shape):
            if before == outer and size in merged and (size > 1 or n == 1):
                return Channels(dim, np.repeat(channels.ids, size // n))
            before *= size
        raise BarrierError(f"{name} to {out.ndim} dimensions")

    def _reduce(self, name: str, given: Given, out: Tensor) -> Channels | None:
        x = given["self"]
        channels = self.channels(x)
        if channels is None:
            return None
        dims = given.get("dim")
        dims = [dims] if isinstance(dims, int) else dims or range(x.ndim)
        reduced = {dim % x.ndim for dim in dims}
        if channels.dim in reduced:
            raise BarrierError(f"{name} over the channels")
        removed = 0 if given.get("keepdim") else sum(dim < channels.dim for dim in reduced)
        return Channels(channels.dim - removed, channels.ids)

    def _permute(self, name: str, given: Given, out: Tensor) -> Channels | None:
        x = given["self"]
        channels = self.channels(x)
        if channels is None:
            return None
        order = list(range(x.ndim))
        if name == "permute":
            order = [dim % x.ndim for dim in given["dims"]]
        elif x.ndim > 1:
            i, j = (given["dim0"], given["dim1"]) if name == "transpose" else (0, 1)
            order[i], order[j] = order[j], order[i]
        return Channels(order.index(channels.dim), channels.ids)

    def _pad(self, name: str, given: Given, out: Tensor) -> Channels | None:
        channels = self.channels(given["self"])
        if channels is not None and out.shape[channels.dim] != len(channels.ids):
            raise BarrierError("padding of the channels")
        return channels

    def _expand(self, name: str, given: Given, out: Tensor) -> Channels | None:
        channels = self.channels(given["self"])
        if channels is None:
            return None
        dim = channels.dim + out.ndim - given["self"].ndim
        if out.shape[dim] != len(channels.ids):
            raise BarrierError(name)
        return Channels(dim, channels.ids)
