"""Re-initialization of a network."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

_Layer = nn.Linear | nn.modules.conv._ConvNd


def initialize(model: nn.Module) -> None:
    """Give `model` Kaiming-normal weights, zero biases and fresh norms, in place; other parameters stay."""
    for module in model.modules():
        if isinstance(module, _Layer):
            for name, parameter in module.named_parameters(recurse=False):  # not what a parametrization computes
                if name == "weight":
                    nn.init.kaiming_normal_(parameter)
                elif name == "bias":
                    nn.init.zeros_(parameter)
        elif reset := _reset_of(module):
            reset()


def reinitialize(model: nn.Module, how: str, build: Callable[[], nn.Module]) -> None:
    """Re-initialize `model` in place.

    Args:
        how: ``orth``: orthogonal weights, all else as it is. Anything else: as ``initialize``, which makes what follows
            a training of the small network from scratch.
        build: makes the dense network with new weights, for parameters that only it initializes: class tokens, layer
            scales, position embeddings.
    """
    if how == "orth":
        for module in model.modules():
            if isinstance(module, _Layer) and "weight" in module._parameters:
                nn.init.orthogonal_(module.weight)
            elif isinstance(module, _Layer):  # a parametrization turns it into what it computes the weight from
                module.weight = nn.init.orthogonal_(torch.empty_like(module.weight))
        return
    initialize(model)
    if own := dict(_own_tensors(model)):
        new = dict(_own_tensors(build()))
        with torch.no_grad():
            for name, tensor in own.items():  # of the shape of the cut network
                tensor.copy_(new[name][tuple(slice(n) for n in tensor.shape)])


def _reset_of(module: nn.Module) -> Callable[[], None] | None:
    """Return the method of norms, embeddings and attention that initializes their own parameters."""
    return getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)


def _own_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers that ``initialize`` leaves as they are, with their names."""
    for prefix, module in model.named_modules():
        if not isinstance(module, _Layer) and _reset_of(module):
            continue
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if not (isinstance(module, _Layer) and name in ("weight", "bias")):
                yield f"{prefix}.{name}" if prefix else name, tensor
