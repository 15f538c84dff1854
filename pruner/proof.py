"""Prove that a cut is right: the cut network computes what the masked one does.

The masked network is the whole one in which the columns that read pruned filters are zero, in every reader. It needs no
rule for norms, activations with f(0) ≠ 0, padding or depthwise convs: only what the readers read is compared.
"""

import copy
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from . import groups
from .cut import Entries, Kept, cut, kept_entries
from .outputs import call, copied, one_line, tensors_in
from .plan import Plan
from .structure import Structure
from .trace import eval_mode

log = logging.getLogger(__name__)
CLOSE = 1e-9  # of the outputs, in float64
ROUNDING = 1e-4  # of the outputs, in float32: 1e-5 is usual, trained networks sometimes exceed it
ORDINARY = 1e3  # times the median: larger outputs, such as one fill value of -1e9, are no measure for the others


class ProofError(ValueError):
    """A planned cut cannot be proved right."""


class CutMismatchError(ArithmeticError):
    """The outputs of the cut network differ from those of the masked one: the network is not cut."""


@torch.no_grad()
def cut_and_compare(
    model: nn.Module,
    kept: Kept,
    kind: str,
    structure: Structure | None,
    images: Any,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Tensor]:
    """Cut `model` in place as ``cut`` does, if a copy's outputs for `images` are then those of the masked network.

    In eval mode, up to ``ROUNDING``, or 16 times the rounding of a network's own 16-bit numbers. The copy is there so
    that an error leaves `model` whole.

    Returns:
        Masks of single weights, as ``cut``.

    Raises:
        ArithmeticError: the network returns nan.
        CutMismatchError: the outputs differ.
    """
    with eval_mode(model), _full_precision(next(model.parameters()).device):
        expected = _flat(masked_outputs(model, kept, kind, structure, images))
        smaller = copied(model)
        cut(smaller, kept, kind, structure)
        apart = _furthest([_flat(_repeatable(smaller, images))], [expected])
        del smaller
    coarsest = max(torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point())
    if not apart <= max(ROUNDING, 16 * coarsest):
        if expected.isnan().any():
            raise ArithmeticError("the network returns nan: it has diverged, and is not cut")
        raise CutMismatchError(
            f"the cut is wrong: outputs differ from the masked network's by {apart:.1e} of their size"
        )
    log.info("cut: outputs equal the masked network's to %.1e of their size", apart)
    return cut(model, kept, kind, structure, optimizer)


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Compute float32 convs and matrix products without TF32, bf16 or autocast."""
    backends: Any = torch.backends  # torch does not annotate these
    places = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


@torch.no_grad()
def masked_outputs(model: nn.Module, kept: Kept, kind: str, structure: Structure | None, images: Any) -> Any:
    """Compute outputs of the whole `model` with every group not in `kept` masked: the reference for the cut network."""
    if kind == "weight":
        weights = {name: model.get_parameter(f"{name}.weight") for name in kept}
        masked = {f"{n}.weight": w * groups.spread(kept[n].to(w.device), w.shape, kind) for n, w in weights.items()}
        return _repeatable(model, images, masked)
    if not kept:
        return _repeatable(model, images)
    assert structure is not None, "filters and channels are masked by the structure of the network"
    return _repeatable(model, images, _masked_readers(model, kept_entries(structure, kept, kind)))


@torch.no_grad()
def change_by_cut(model: nn.Module, kept: Kept, structure: Structure, images: Any) -> float:
    """Return by how much the removal of filters changes the outputs for `images`, as a part of their size."""
    with eval_mode(model):
        whole = _flat(_repeatable(model, images))
        return _furthest([_flat(masked_outputs(model, kept, "filter", structure, images))], [whole])


def _repeatable(model: nn.Module, images: Any, tensors: dict[str, Tensor] | None = None) -> Any:
    """Call `model`, then go back to the random state before: some networks draw noise in eval mode."""
    device = next(model.parameters()).device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return call(model, images, tensors)


def _masked_readers(model: nn.Module, entries: Entries) -> dict[str, Tensor]:
    masked = {}
    for (name, dim), mask in entries.items():
        if dim == 1:
            weight = model.get_parameter(name)
            masked[name] = weight * _along(weight, 1, torch.from_numpy(mask).to(weight.device))
    return masked


@torch.no_grad()
def prove(model: nn.Module, plan: Plan, structure: Structure, example: Any, seed: int = 0) -> None:
    """Prove before training that the planned cut of `model` will be right, on a copy with random weights.

    The masked network must not change when pruned filters get other values (all their readers are known), the cut
    network must compute the same as the masked one, and it must run in training mode if the whole one does. Real
    weights hide errors: a layer scale of 1e-6 hides anything.

    Args:
        example: the argument of the model, or a tuple of its arguments; its tensors are replaced by random ones.

    Raises:
        ProofError: the cut is wrong, or cannot be proved right; names a layer or the reason.
    """
    pruned = plan.pruned
    if plan.kind == "weight" or not pruned:
        return
    groups_of = {p.layer.name: p.groups for p in plan.layers}
    generator = torch.Generator().manual_seed(seed)
    proof = _Proof(model, plan.kind, structure, example, generator)
    kept = {}
    for name, n in pruned.items():
        kept[name] = torch.ones(groups_of[name], dtype=torch.bool)
        kept[name][torch.randperm(groups_of[name], generator=generator)[:n]] = False
    reason = proof.difference(kept)
    if reason is None:
        return
    for name, mask in kept.items():
        of_layer = proof.difference({name: mask})
        if of_layer is not None:
            raise ProofError(f"pruning {name} cannot be proved right: {of_layer}; give it the ratio 0")
    raise ProofError(f"pruning these layers together cannot be proved right: {reason}")


class _Proof:
    """A copy of a network that hides nothing, and images for it.

    In float64 with two images of each, or as far towards that as the network runs.

    Raises:
        ProofError: it does not run, or its outputs can be compared with nothing.
    """

    def __init__(self, model: nn.Module, kind: str, structure: Structure, example: Any, generator: torch.Generator):
        self.kind, self.structure, self._generator = kind, structure, generator
        name, error = type(model).__name__, ""
        for dtype, n_images in ((torch.float64, 2), (torch.float32, 2), (torch.float64, 0), (torch.float32, 0)):
            self.whole = _scrambled(model, dtype, generator)
            self.images = random_like(example, generator, dtype, n_images)
            self._close = CLOSE if dtype == torch.float64 else ROUNDING
            try:
                outputs = self._outputs()
                break
            except Exception as raised:  # whatever the network raises
                error = error or one_line(raised)
        else:
            raise ProofError(f"{name} cannot be run on random images of the example's shape: {error}")
        if not outputs:
            raise ProofError(f"{name} returns no tensors that a cut could be compared by")
        if any(output.isnan().any() for output in outputs):
            raise ProofError(f"{name} returns nan for random images: give an example with real values, not all equal")
        if not _furthest(self._outputs(), outputs) <= self._close:
            raise ProofError(f"{name} returns other outputs when called again in eval mode: no cut can be compared")
        self._trains = False
        with suppress(Exception):  # such as a loss that wants labels
            _repeatable(copy.deepcopy(self.whole).train(), self.images)
            self._trains = True

    def _outputs(self, tensors: dict[str, Tensor] | None = None) -> list[Tensor]:
        return [*tensors_in(_repeatable(self.whole, self.images, tensors))]

    def difference(self, kept: Kept) -> str | None:
        """Return why the cut is wrong, or None."""
        entries = kept_entries(self.structure, kept, self.kind)
        readers = _masked_readers(self.whole, entries)
        expected = self._outputs(readers)
        others = _other_filters(self.whole, entries, self._generator)
        others = {name: _combined(name, others, readers, entries) for name in others} | {
            name: tensor for name, tensor in readers.items() if name not in others
        }
        apart = _furthest(self._outputs(others), expected)
        if not apart <= self._close:
            return f"something else reads its filters (outputs change by {apart:.1e} of their size)"
        smaller = copy.deepcopy(self.whole)
        try:
            cut(smaller, kept, self.kind, self.structure)
            apart = _furthest([*tensors_in(_repeatable(smaller, self.images))], expected)
            if self._trains:
                _repeatable(smaller.train(), self.images)
        except Exception as error:  # whatever the network raises
            return f"the cut network does not run ({one_line(error)})"
        return None if apart <= self._close else f"the cut network's outputs differ by {apart:.1e} of their size"


def _other_filters(model: nn.Module, entries: Entries, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the tensors of pruned filters with random values in place of those that are removed."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    others = {}
    for (name, dim), mask in entries.items():
        tensor = tensors[name]
        if dim == 0 and (tensor.is_floating_point() or tensor.is_complex()):
            random = 0.5 + torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype)
            others[name] = torch.where(_along(tensor, 0, torch.from_numpy(mask)), tensor, random)
    return others


def _combined(name: str, others: Mapping[str, Tensor], readers: Mapping[str, Tensor], entries: Entries) -> Tensor:
    """Return a tensor with other filters whose columns are masked, if it reads pruned filters, too."""
    if name not in readers:
        return others[name]
    return others[name] * _along(others[name], 1, torch.from_numpy(entries[name, 1]))


def _along(tensor: Tensor, dim: int, values: Tensor) -> Tensor:
    """Reshape values of the entries along `dim` so that they broadcast to `tensor`."""
    return values.view([-1 if d == dim else 1 for d in range(tensor.ndim)])


def _flat(outputs: Any) -> Tensor:
    """Join all outputs, so that the size of all counts: in float32 one of them may be rounding errors alone."""
    return torch.cat([_real(tensor.cpu()).flatten() for tensor in tensors_in(outputs)])


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor).double() if tensor.is_complex() else tensor.double()


def _furthest(a: list[Tensor], b: list[Tensor]) -> float:
    """Return the largest ``_apart`` of several outputs."""
    if [tensor.shape for tensor in a] != [tensor.shape for tensor in b]:
        return math.inf
    return max((_apart(x, y) for x, y in zip(a, b, strict=True) if y.numel()), default=0.0)


def _apart(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, as a part of the size of `b` there or, if that is more, of its ordinary size."""
    a, b = _real(a), _real(b)
    difference = (a - b).abs() / b.abs().clamp_min(max(_ordinary_size(b), torch.finfo(b.dtype).tiny))
    return difference.masked_fill(a == b, 0.0).nan_to_num(nan=math.inf).max().item()


def _ordinary_size(outputs: Tensor) -> float:
    """Return the largest computed value: not one that stands there twice, or is far above all others."""
    some = outputs.flatten()[:: outputs.numel() // 10**6 + 1]
    values, times = some[some.isfinite() & (some != 0)].abs().unique(return_counts=True)
    sizes = values[times == 1] if (times == 1).any() else values
    return sizes[sizes <= ORDINARY * sizes.median()].max().item() if len(sizes) else 0.0


def random_like(example: Any, generator: torch.Generator, dtype: torch.dtype | None = None, n_images: int = 0) -> Any:
    """Put random images in place of the floating-point tensors of `example`, all on the CPU.

    They are drawn from the values of the tensor, so that a network that takes logarithms gets no negative ones; or of
    the normal distribution, if these are all equal.

    Args:
        dtype: of the random images; None: as they are in `example`.
        n_images: length of the first dimension of all tensors; 0: as it is in `example`.
    """

    def random(tensor: Tensor) -> Tensor:
        tensor = tensor.detach().cpu()
        if n_images and tensor.ndim:
            tensor = tensor[torch.arange(n_images) % len(tensor)]
        if not tensor.is_floating_point():
            return tensor
        values = tensor.unique()
        if len(values) == 1:
            return torch.randn(tensor.shape, generator=generator).to(dtype or tensor.dtype)
        return values[torch.randint(len(values), tensor.shape, generator=generator)].to(dtype or tensor.dtype)

    return tree_map_only(Tensor, random, example)


@torch.no_grad()
def _scrambled(model: nn.Module, dtype: torch.dtype, generator: torch.Generator) -> nn.Module:
    """Copy `model` to the CPU in eval mode, with weights that hide nothing: no zeros, no tiny scales."""
    scrambled = copied(model).cpu().eval()
    scrambled = scrambled.double() if dtype == torch.float64 else scrambled.float()  # to(dtype) makes complex ones real

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))

    for module in scrambled.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.numel() or not (parameter.is_floating_point() or parameter.is_complex()):
                continue
            if parameter.ndim > 1 and name == "weight":
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) / fan_in**0.5)
            elif name == "bias":
                uniform(parameter, -0.5, 0.5)
            else:
                uniform(parameter, 0.25, 0.75)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic, low in ((module.running_mean, -0.5), (module.running_var, 0.5)):
                if statistic is not None:
                    uniform(statistic, low, low + 1)
    return scrambled
