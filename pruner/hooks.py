"""Hooks of a training step."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .penalty import Penalty


class Hooks(Protocol):
    """Hook points at which weights and gradients may be changed.

    The loop calls ``before_step(step)``, then forward and backward, ``after_backward()``, the optimizer,
    ``after_step()``.

    Attributes:
        decisions: number of discrete decisions so far; while it stands, so does ``fingerprint``.
        penalty: what ``after_backward`` adds to gradients, if anything; it can apply weight decay in the same pass.
    """

    decisions: int
    penalty: Penalty | None

    def before_step(self, step: int) -> None:
        """Called before the forward pass of `step`, counted from 0."""
        ...

    def after_backward(self) -> None:
        """Called when every weight has its gradient."""
        ...

    def after_step(self) -> None:
        """Called after the optimizer."""
        ...

    def fingerprint(self) -> int:
        """62-bit digest of the decisions, compared between processes."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """State for resuming."""
        ...


class NoHooks(Hooks):
    """Do nothing: plain training."""

    decisions = 0
    penalty: Penalty | None = None

    def before_step(self, step: int) -> None:
        pass

    def after_backward(self) -> None:
        pass

    def after_step(self) -> None:
        pass

    def fingerprint(self) -> int:
        return 0

    def state_dict(self) -> dict[str, Any]:
        return {}


class WeightMasks(NoHooks):
    """Keep pruned weights at exactly zero while a masked network is trained (``weight`` groups).

    Args:
        masks: layer name -> bool, the weight's shape, False where a weight is pruned; empty: nothing to do.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Tensor]):
        self._pairs = [(model.get_parameter(f"{name}.weight"), mask) for name, mask in masks.items()]
        self.after_step()

    @torch.no_grad()
    def after_step(self) -> None:
        """Zero the masked weights again, which momentum moves."""
        for weight, mask in self._pairs:
            weight.mul_(mask)
