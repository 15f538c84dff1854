"""Prove that a cut is right: the cut network computes what the masked one does.

The masked network is the whole one in which the columns that read pruned filters are zero, in every reader. It needs no
rule for norms, activations with f(0) ≠ 0, padding or depthwise convs: only what the readers read is compared.
"""

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map_only

from . import groups
from .cut import Entries, Kept, cut, kept_entries
from .plan import Plan
from .structure import Structure
from .trace import eval_mode

log = logging.getLogger(__name__)
CLOSE = 1e-9  # of the largest output, in float64
ROUNDING = 1e-4  # of the largest output, in float32: 1e-5 is usual, trained networks sometimes exceed it


class ProofError(ValueError):
    """A planned cut cannot be proved right."""


class CutMismatchError(ArithmeticError):
    """The outputs of the cut network differ from those of the masked one."""


@torch.no_grad()
def cut_and_compare(
    model: nn.Module,
    kept: Kept,
    kind: str,
    structure: Structure | None,
    images: Any,
    optimizer: torch.optim.Optimizer | None = None,
) -> dict[str, Tensor]:
    """Cut `model` in place as ``cut`` does, and compare its outputs for `images` with those of the masked network.

    In eval mode, up to ``ROUNDING``, or 16 times the rounding of a network's own 16-bit numbers.

    Returns:
        Masks of single weights, as ``cut``.

    Raises:
        CutMismatchError: the outputs differ.
    """
    with eval_mode(model), _full_precision(next(model.parameters()).device):
        expected = _flat(masked_outputs(model, kept, kind, structure, images)).float()
        masks = cut(model, kept, kind, structure, optimizer)
        apart = _apart(_flat(model(images)).float(), expected)
    coarsest = max(torch.finfo(p.dtype).eps for p in model.parameters() if p.is_floating_point())
    if not apart <= max(ROUNDING, 16 * coarsest):
        raise CutMismatchError(
            f"the cut is wrong: outputs differ from the masked network's by {apart:.1e} of the largest"
        )
    log.info("cut: outputs equal the masked network's to %.1e of the largest", apart)
    return masks


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
        return functional_call(model, masked, images)
    if not kept:
        return model(images)
    assert structure is not None, "filters and channels are masked by the structure of the network"
    return functional_call(model, _masked_readers(model, kept_entries(structure, kept, kind)), images)


def _masked_readers(model: nn.Module, entries: Entries) -> dict[str, Tensor]:
    masked = {}
    for (name, dim), mask in entries.items():
        if dim == 1:
            weight = model.get_parameter(name)
            masked[name] = weight * _along(weight, 1, torch.from_numpy(mask).to(weight.device))
    return masked


def prove(model: nn.Module, plan: Plan, structure: Structure, example: Any, seed: int = 0) -> None:
    """Prove before training that the planned cut of `model` will be right, on a copy with random weights in float64.

    The masked network must not change when pruned filters get other values (all their readers are known), the cut
    network must compute the same as the masked one, and it must run in training mode. Real weights hide errors: a layer
    scale of 1e-6 hides anything.

    Args:
        example: the argument of the model; tensors are replaced by random ones, two of each image.

    Raises:
        ProofError: the cut is wrong; names a layer.
    """
    pruned = plan.pruned
    if plan.kind == "weight" or not pruned:
        return
    groups_of = {p.layer.name: p.groups for p in plan.layers}
    generator = torch.Generator().manual_seed(seed)
    whole = _scrambled(model, generator)
    images = random_like(example, generator, torch.float64)
    kept = {}
    for name, n in pruned.items():
        kept[name] = torch.ones(groups_of[name], dtype=torch.bool)
        kept[name][torch.randperm(groups_of[name], generator=generator)[:n]] = False
    reason = _difference(whole, kept, plan.kind, structure, images, generator)
    if reason is None:
        return
    for name, mask in kept.items():
        of_layer = _difference(whole, {name: mask}, plan.kind, structure, images, generator)
        if of_layer is not None:
            raise ProofError(f"pruning {name} cannot be proved right: {of_layer}; give it the ratio 0")
    raise ProofError(f"pruning these layers together cannot be proved right: {reason}")


@torch.no_grad()
def _difference(
    whole: nn.Module, kept: Kept, kind: str, structure: Structure, images: Any, generator: torch.Generator
) -> str | None:
    """Return why the cut is wrong, or None."""
    entries = kept_entries(structure, kept, kind)
    readers = _masked_readers(whole, entries)
    expected = _flat(functional_call(whole, readers, images))
    others = _other_filters(whole, entries, generator)
    others = {name: _combined(name, others, readers, entries) for name in others} | {
        name: tensor for name, tensor in readers.items() if name not in others
    }
    apart = _apart(_flat(functional_call(whole, others, images)), expected)
    if not apart <= CLOSE:
        return f"something else reads its filters (outputs change by {apart:.1e} of the largest)"
    smaller = copy.deepcopy(whole)
    try:
        cut(smaller, kept, kind, structure)
        apart = _apart(_flat(smaller(images)), expected)
        smaller.train()(images)
    except (RuntimeError, ValueError, AssertionError, IndexError, TypeError) as error:
        return f"the cut network does not run ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
    return None if apart <= CLOSE else f"the cut network's outputs differ by {apart:.1e} of the largest"


def _other_filters(model: nn.Module, entries: Entries, generator: torch.Generator) -> dict[str, Tensor]:
    """Return the tensors of pruned filters with random values in place of those that are removed."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    others = {}
    for (name, dim), mask in entries.items():
        if dim == 0:
            tensor = tensors[name]
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
    return torch.cat([leaf.flatten() for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor)])


def _apart(a: Tensor, b: Tensor) -> float:
    return ((a - b).abs().max() / b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)).item()


def random_like(example: Any, generator: torch.Generator, dtype: torch.dtype | None = None) -> Any:
    """Put random images in place of the floating-point tensors of `example`, two of each, all on the CPU.

    Args:
        dtype: of the random images; None: as they are in `example`.
    """

    def random(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor.cpu()
        shape = (2, *tensor.shape[1:]) if tensor.ndim else ()
        return torch.randn(shape, generator=generator, dtype=dtype or tensor.dtype)

    return tree_map_only(Tensor, random, example)


@torch.no_grad()
def _scrambled(model: nn.Module, generator: torch.Generator) -> nn.Module:
    """Copy `model` to float64 on the CPU in eval mode, with weights that hide nothing: no zeros, no tiny scales."""
    scrambled = copy.deepcopy(model).to("cpu", torch.float64).eval()

    def uniform(tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(low + (high - low) * torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype))

    for module in scrambled.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim > 1 and name == "weight":
                fan_in = parameter[0].numel()
                parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / fan_in**0.5)
            elif name == "bias":
                uniform(parameter, -0.5, 0.5)
            else:
                uniform(parameter, 0.25, 0.75)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for statistic, low in ((module.running_mean, -0.5), (module.running_var, 0.5)):
                if statistic is not None:
                    uniform(statistic, low, low + 1)
    return scrambled
