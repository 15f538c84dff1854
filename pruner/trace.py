"""Trace a network: which filters, columns and per-channel parameters belong together."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .channels import Trace
from .operators import Tracer
from .outputs import copied, one_line


def trace(model: nn.Module, example: Any) -> Trace:
    """Trace a copy of `model` by two forward passes: in eval mode, and as it trains.

    Args:
        example: the argument of the model, on any device; a tuple: its arguments.

    Raises:
        ValueError: the network cannot be copied, or not be run on it.
    """
    inputs = tree_map_only(Tensor, lambda t: t.to("meta"), example)
    with suppress(Exception):  # what depends on values, or on tensors of its own, cannot run on the meta device
        return _trace(_copy_on_meta(model), inputs)
    try:
        copy = copied(model)
    except Exception as error:  # locks, open files
        raise ValueError(f"{type(model).__name__} cannot be copied, to be traced: {one_line(error)}") from error
    try:
        return _trace(copy, example)
    except Exception as error:  # whatever the network raises
        raise ValueError(f"{type(model).__name__} cannot be run on the example: {one_line(error)}") from error


def _copy_on_meta(model: nn.Module) -> nn.Module:
    copies: dict[int, Any] = {id(buffer): buffer.detach().to("meta") for buffer in model.buffers()}
    copies |= {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}
    return copied(model, copies)


def _trace(model: nn.Module, example: Any) -> Trace:
    """Trace `model`, which may be changed by it."""
    tracer = Tracer(model)
    with eval_mode(model), torch.inference_mode(), torch.random.fork_rng(devices=()):
        tracer.run(model, example)
        calls = tracer.trace.calls
        # Some outputs, such as auxiliary heads, are there only while the network trains. Norms and dropout, which have
        # no children, stay in eval mode.
        for module in model.modules():
            module.training = any(True for _ in module.children())
        with suppress(Exception):  # such as a loss that wants labels
            tracer.run(model, example)
        tracer.trace.calls = calls
    return tracer.trace


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode within, without fused attention, which would hide its layers."""
    modes = {module: module.training for module in model.modules()}
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    model.eval()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for module, mode in modes.items():
            module.training = mode
