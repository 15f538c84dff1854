"""The penalty's pass over the weights: gradients gain (γ + λ)·w, growing penalty and weight decay in one."""

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from . import groups
from .structure import Structure


class RegularizedLayer:
    """A pruned layer: its λ, selection and progress.

    Attributes:
        updates: number of penalty updates so far; λ follows from it alone.
        gap: running average of the gap, a scalar tensor, or None before the first.
        width: filters per group.
    """

    def __init__(self, name: str, weight: nn.Parameter, kind: str, n_pruned: int, width: int = 1):
        self.name, self.weight, self.kind, self.n_pruned, self.width = name, weight, kind, n_pruned, width
        self.updates, self.finished = 0, False
        self.gap: Tensor | None = None
        self.kept: Tensor | None = None
        self.set_penalty(0.0, 0.0)

    @property
    def kept(self) -> Tensor | None:
        """Bool (groups,), or None while nothing is picked."""
        return self._kept

    @kept.setter
    def kept(self, kept: Tensor | None) -> None:
        self._kept = kept
        self._pruned_slices = None if kept is None else self._laid_out((~kept).byte().repeat_interleave(self.width))

    def _laid_out(self, values: Tensor) -> Tensor:
        """A value per slice, in a shape that broadcasts to the weight's; for single weights in the weight's layout."""
        spread = groups.spread(values, self.weight.shape, self.kind)
        same_shape = spread.shape == self.weight.shape
        return torch.empty_like(self.weight, dtype=values.dtype).copy_(spread) if same_shape else spread

    def scores(self) -> Tensor:
        return groups.scores(self.weight, self.kind, self.width)

    def average_gap(self, new: Tensor) -> None:
        """0.9 old + 0.1 new; the first value is taken as it is.

        Source: the original; the paper says only "when the magnitude gap is large enough" (section 3.3).
        """
        self.gap = new if self.gap is None else 0.9 * self.gap + 0.1 * new

    def set_penalty(self, pruned: float, kept: float) -> None:
        """Set λ of the pruned groups, which are all while nothing is picked, and of the kept ones."""
        self.pruned_penalty, self.kept_penalty = pruned, kept

    @property
    def largest_penalty(self) -> float:
        return max(self.pruned_penalty, self.kept_penalty)

    @property
    def penalty(self) -> Tensor:
        """λ per group, (groups,)."""
        n_groups = groups.count(self.weight.shape, self.kind, self.width)
        penalty = self.weight.new_full((n_groups,), self.pruned_penalty, requires_grad=False)
        return penalty if self.kept is None else penalty.masked_fill_(self.kept, self.kept_penalty)

    def new_factor(self) -> Tensor:
        """Zeros that broadcast to the weight, one per group."""
        n_slices = groups.count(self.weight.shape, self.kind)
        return self._laid_out(self.weight.new_zeros(n_slices, requires_grad=False))

    def write_factor(self, factor: Tensor, decay: float) -> None:
        """Write γ + λ into a tensor of ``new_factor``."""
        if self._pruned_slices is None:
            factor.fill_(decay + self.pruned_penalty)
        else:  # by arithmetic: masked_fill_ and where take twenty times as long on a CPU
            factor.copy_(self._pruned_slices).mul_(self.pruned_penalty - self.kept_penalty)
            factor.add_(decay + self.kept_penalty)


class Factors(Protocol):
    """The factors (γ + λ) of some parameters.

    Attributes:
        parameters: that are penalized.
        factors: of each, in a shape that broadcasts to it; written in place.
    """

    parameters: Sequence[nn.Parameter]
    factors: Sequence[Tensor]

    def write(self, decay: float) -> None:
        """Write the current γ + λ into the factors."""
        ...


class FilterFactors(Factors):
    """λ on the weights of the pruned layers.

    Source: paper, section 3.2.
    """

    def __init__(self, layers: Sequence[RegularizedLayer]):
        self._layers = layers
        self.parameters = [layer.weight for layer in layers]
        self.factors = [layer.new_factor() for layer in layers]

    def write(self, decay: float) -> None:
        for layer, factor in zip(self._layers, self.factors, strict=True):
            layer.write_factor(factor, decay)


class GroupFactors(Factors):
    """λ on every parameter that the cut removes: filters, biases, batch-norm entries, depthwise filters, columns.

    Before a batch-norm a filter is scale-free: λ on the filter alone shrinks its weights and not its output.
    """

    def __init__(self, model: nn.Module, layers: Sequence[RegularizedLayer], structure: Structure):
        self._layers = layers
        starts, n_units = {}, 0
        for layer in layers:
            starts[layer.name], n_units = n_units, n_units + groups.count(layer.weight.shape, layer.kind, layer.width)
        start_of = np.array([starts.get(name, -1) for name in structure.layers])
        named = dict(model.named_parameters())
        self._indices: dict[nn.Parameter, list[Tensor]] = {}  # of the unit, along each dimension that units remove
        for (name, dim), (numbers, units) in structure.members().items():
            index = np.where(start_of[numbers] >= 0, start_of[numbers] + units, n_units)
            index[numbers < 0] = n_units  # the last λ is 0: of what always stays
            if name in named and (index < n_units).any():
                parameter = named[name]
                shape = [-1 if d == dim else 1 for d in range(parameter.ndim)]
                self._indices.setdefault(parameter, []).append(torch.from_numpy(index).to(parameter.device).view(shape))
        self.parameters = list(self._indices)
        self.factors = [
            parameter.new_zeros(torch.broadcast_shapes(*(index.shape for index in indices)), requires_grad=False)
            for parameter, indices in self._indices.items()
        ]

    def write(self, decay: float) -> None:
        per_layer = [layer.penalty for layer in self._layers]
        penalties = torch.cat([*per_layer, per_layer[0].new_zeros(1)])
        for factor, indices in zip(self.factors, self._indices.values(), strict=True):
            factor.fill_(decay)
            for index in indices:
                factor.add_(penalties[index])


class Penalty:
    """Adds (γ + λ)·w to gradients.

    Args:
        blocked: weights whose loss gradient the penalty replaces.

    Attributes:
        decay: γ, where this pass takes it over from the optimizer.
        others: where it does, the parameters with γ alone.
        parameters: that λ acts on.
    """

    def __init__(self, factors: Factors, blocked: Sequence[nn.Parameter] = ()):
        self._factors, self._blocked = factors, blocked
        self.parameters = factors.parameters
        self.decay, self.others = 0.0, list[nn.Parameter]()
        self._stale = True

    def take_over_decay(self, parameters: Iterable[nn.Parameter], decay: float) -> None:
        """Apply γ = `decay` to `parameters`; the optimizer is to apply none."""
        penalized = set(self.parameters)
        self.decay, self._stale = decay, True
        self.others = [parameter for parameter in parameters if parameter not in penalized]

    def set_stale(self) -> None:
        """λ has changed."""
        self._stale = True

    def prepare(self) -> list[tuple[nn.Parameter, Tensor]]:
        """Zero the blocked gradients.

        Returns:
            The penalized parameters with a gradient, and their γ + λ, in a shape that broadcasts to theirs.
        """
        for weight in self._blocked:
            if weight.grad is not None:
                weight.grad.zero_()
        if self._stale:
            self._factors.write(self.decay)
            self._stale = False
        pairs = zip(self.parameters, self._factors.factors, strict=True)
        return [(parameter, factor) for parameter, factor in pairs if parameter.grad is not None]

    @torch.no_grad()
    def add_gradients(self) -> None:
        """Add (γ + λ)·w to the gradients."""
        if pairs := self.prepare():
            weights: list[Tensor] = [weight for weight, _ in pairs]
            torch._foreach_addcmul_([grad_of(weight) for weight in weights], weights, [factor for _, factor in pairs])
        others: list[Tensor] = [parameter for parameter in self.others if parameter.grad is not None]
        if others and self.decay:
            torch._foreach_add_([grad_of(parameter) for parameter in others], others, alpha=self.decay)


def grad_of(weight: Tensor) -> Tensor:
    """Return the weight's gradient."""
    assert weight.grad is not None, "called when every weight has its gradient"
    return weight.grad
