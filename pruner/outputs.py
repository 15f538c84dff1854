"""Run a network on an example, and find the tensors in whatever it returns."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves

VALUES = (str, bytes, int, float, complex, type, np.generic, torch.dtype, torch.device)  # hold no tensors


def call(network: nn.Module, example: Any, tensors: dict[str, Tensor] | None = None) -> Any:
    """Call `network` with its argument `example`, or with its arguments if that is a tuple.

    Args:
        tensors: by name, in place of its parameters and buffers.
    """
    return functional_call(network, tensors or {}, example)


def copied(network: nn.Module, copies: Mapping[int, Any] | None = None) -> nn.Module:
    """Copy `network` deeply, without the graph of tensors that it keeps of a forward pass, which Python cannot copy.

    Args:
        copies: id of an object -> its copy.
    """
    attributes = [vars(module) for module in network.modules()]
    computed = [leaf for leaf in tree_leaves(attributes) if isinstance(leaf, Tensor) and not leaf.is_leaf]
    return copy.deepcopy(network, {id(tensor): tensor.detach().clone() for tensor in computed} | {**(copies or {})})


def one_line(error: Exception) -> str:
    """Return what a network has raised, in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def tensors_in(outputs: Any) -> Iterator[Tensor]:
    """Yield the tensors, and the arrays as tensors, of containers and objects of any class, in their order.

    Raises:
        TypeError: something neither has attributes nor is a plain value, so that it may hide some.
    """
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, np.ndarray):
        yield torch.as_tensor(outputs)
    elif isinstance(outputs, list | tuple):
        for value in outputs:
            yield from tensors_in(value)
    elif isinstance(outputs, Mapping):
        yield from tensors_in([*outputs.values()])
    elif hasattr(outputs, "__dict__") and not callable(outputs):
        yield from tensors_in([*vars(outputs).values()])
    elif outputs is not None and not isinstance(outputs, VALUES):
        raise TypeError(f"returns a {type(outputs).__name__}, whose tensors cannot be found")
