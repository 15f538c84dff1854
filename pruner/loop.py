"""Pruners in anybody's training loop: the plan by keyword, hooks on the optimizer, the cut.

pruner = GReg1(network, example, speedup=2.0, steps=3000).attach(optimizer)
for images, labels in loader:  # the user's loop, unchanged
    ...
    optimizer.step()
    if pruner.finished:
        break
pruner.cut()
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from .base import Pruner, PruningContext
from .cut import Kept
from .layers import traced_layers
from .options import PrunerOptions
from .outputs import one_line
from .plan import Plan
from .proof import change_by_cut, cut_and_compare, prove, random_like
from .ratios import RANKS, GlobRatios, plan_by_name, plan_by_speedup
from .selection import digest, filter_scores
from .structure import NOT_CALLED, Structure

log = logging.getLogger(__name__)
LARGE_CHANGE = 0.1  # of the outputs at the cut: pruned filters have not decayed


def make_plan_for(
    network: nn.Module,
    structure: Structure,
    speedup: float | None,
    ratios: str | Mapping[str, float] | None,
    rank: str = "uniform",
    round_to: int = 1,
) -> Plan:
    """Make the plan of filters for a speedup, ratios by module name, or both.

    Args:
        ratios: ``"layer3.*.conv1:0.5, *.fc:0.3"`` or a mapping; with `speedup`, of the layers that it does not choose.

    Raises:
        ValueError: neither is given, or they do not fit the network.
    """
    if speedup is None and not ratios:
        raise ValueError("give speedup=2.0, or ratios='*:0.5'")
    if speedup is not None and not (isinstance(speedup, Real) and 1 < speedup < math.inf):
        raise ValueError(f"speedup {speedup!r} is not a number above 1")
    if rank not in RANKS:
        raise ValueError(f"rank '{rank}' is not one of {', '.join(RANKS)}")
    if rank != "uniform" and speedup is None:
        raise ValueError(f"rank '{rank}' needs a speedup: ratios say how many filters of each layer go")
    if not isinstance(round_to, Integral) or round_to < 1:
        raise ValueError(f"round_to {round_to} is not a whole number above 0")
    if not isinstance(ratios, str | Mapping | None):
        raise ValueError(f"ratios is a {type(ratios).__name__}, not 'layer3.*.conv1:0.5' or {{'layer3.*.conv1': 0.5}}")
    text = ratios if isinstance(ratios, str) else ",".join(f"{name}:{r}" for name, r in (ratios or {}).items())
    layers = traced_layers(structure)
    if speedup is None:
        return plan_by_name(layers, GlobRatios(text), "filter", round_to=round_to)
    scores = filter_scores(network, layers) if rank == "global" else None
    total = structure.flops({})
    return plan_by_speedup(structure, layers, speedup, total, GlobRatios(text), scores, round_to)


class InLoop(Pruner):
    """A pruner that can be attached to the optimizer of any training loop."""

    network: nn.Module
    example: Any
    plan: Plan
    structure: Structure
    _options: PrunerOptions
    _made = 0  # optimizer steps so far
    _optimizer: torch.optim.Optimizer | None = None
    _handles: tuple[Any, ...] = ()
    _is_cut = False

    @property
    def penalized(self) -> Sequence[nn.Parameter]:
        """Parameters that λ acts on."""
        return ()

    @classmethod
    def build(cls, options: PrunerOptions, context: PruningContext) -> Self:
        pruner = cls.__new__(cls)
        pruner._begin(options, context)
        return pruner

    def _begin(self, options: PrunerOptions, context: PruningContext) -> None:
        """Set the state of step 0, with a selection by the weights as they are now."""
        raise NotImplementedError

    def _prepare(
        self,
        options: PrunerOptions,
        network: nn.Module,
        example: Any,
        speedup: float | None,
        ratios: Any,
        rank: str,
        round_to: int,
    ) -> None:
        sharded = any(type(module).__name__ == "FullyShardedDataParallel" for module in network.modules())
        if sharded or any(type(parameter).__name__ == "DTensor" for parameter in network.parameters()):
            raise ValueError("networks under FSDP cannot be pruned: their parameters are sharded")
        if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
            raise ValueError(f"give the network that {type(network).__name__} wraps: network.module")
        self.network, self.example, self._options = network, example, options
        self.structure = Structure(network, example)
        self.plan = make_plan_for(network, self.structure, speedup, ratios, rank, round_to)
        prove(network, self.plan, self.structure, example)
        uncalled = [layer.name for layer in self.structure.layers.values() if layer.reason == NOT_CALLED]
        if uncalled:
            log.warning(
                "not called for the example: %s; if another method calls them on pruned features, they no longer fit "
                "after the cut", ", ".join(uncalled),
            )  # fmt: skip
        self._restart()

    @torch.inference_mode(False)
    def _restart(self) -> None:
        schedule = self.make_schedule(self._options, self.plan)
        self._begin(self._options, PruningContext(self.network, self.plan, schedule, structure=self.structure))

    def attach(self, optimizer: torch.optim.Optimizer):
        """Add λ·w to the gradients in each ``optimizer.step()``, after clipping and unscaling. Returns the pruner.

        Before the first step the selection is made anew, by the weights as they are now. An earlier optimizer is given
        up.

        Raises:
            ValueError: the optimizer does not hold all parameters that the cut makes smaller, some that are to decay
                are frozen, it makes several passes per step, or it is not torch's.
            RuntimeError: the network is cut or has got other layers or parameters, or the ranks' selections differ.
        """
        if self._is_cut:
            raise RuntimeError("the network is cut: fine-tune it without the pruner")
        self._check_optimizer(optimizer)
        self._check_shapes()
        if not self._made:
            self._restart()
        self._check_parameters(optimizer)
        self._check_ranks()
        if not any("SGD" in kind.__name__ for kind in type(optimizer).__mro__):
            log.warning(
                "%s is not SGD: if it normalizes gradients, pruned weights fall by at most the learning rate a step; "
                "see that they have decayed before the cut, or train the prune phase by SGD",
                type(optimizer).__name__,
            )
        self._detach()
        self._optimizer = optimizer
        self._handles = (
            optimizer.register_step_pre_hook(self._before_update),
            optimizer.register_step_post_hook(self._after_update),
        )
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles are not attached: optimizers lose their hooks when they are copied."""
        return self.__dict__ | {"_optimizer": None, "_handles": ()}

    @staticmethod
    def _check_optimizer(optimizer: Any) -> None:
        if "_optimizer_step_pre_hooks" not in getattr(optimizer, "__dict__", ()):
            inner = "; give the one that it wraps: .optimizer" if hasattr(optimizer, "optimizer") else ""
            raise ValueError(f"a {type(optimizer).__name__} is not one of torch's optimizers{inner}")
        if isinstance(optimizer, torch.optim.LBFGS):
            raise ValueError("LBFGS computes several losses per step, and λ would grow at each: train by SGD")
        if any(group.get("maximize") for group in optimizer.param_groups):
            raise ValueError("an optimizer with maximize=True would let pruned weights grow: minimize the negative")

    def _check_shapes(self) -> None:
        """Check that the layers and norms that the cut changes are those that were traced."""
        tensors = dict(self.network.named_parameters()) | dict(self.network.named_buffers())
        for (name, dim), (numbers, _) in self.structure.members().items():
            if name not in tensors or tensors[name].shape[dim] != len(numbers):
                raise RuntimeError(f"{name} is not what it was when the pruner was built: build the pruner anew")

    def _check_ranks(self) -> None:
        """Check that all ranks have the same selection: they have not if each had weights of its own."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return
        selected = digest(self.plan.pruned, self.kept())
        extremes = torch.tensor([selected, -selected], device=next(self.network.parameters()).device)
        torch.distributed.all_reduce(extremes, torch.distributed.ReduceOp.MAX)
        if extremes.sum():
            raise RuntimeError(
                "the ranks have selected different filters: attach the pruner after the DDP wrapper has given all "
                "ranks the same weights, and with rank='global' build it then, too"
            )

    def _check_parameters(self, optimizer: torch.optim.Optimizer) -> None:
        held, penalized = {p for group in optimizer.param_groups for p in group["params"]}, {*self.penalized}
        pruned = [number for number, name in enumerate(self.structure.layers) if name in self.plan.pruned]
        members = self.structure.members().items()
        smaller = {name for (name, _), (numbers, _) in members if np.isin(pruned, numbers).any()}
        for name, parameter in self.network.named_parameters():
            if name in smaller and parameter.requires_grad and parameter not in held:
                raise ValueError(
                    f"the optimizer does not hold {name}, which the cut makes smaller: make it of all the network's "
                    "parameters that are trained"
                )
            if parameter in penalized and not parameter.requires_grad:
                raise ValueError(
                    f"{name} is frozen (requires_grad=False) and would not decay: unfreeze it, or cut by L1"
                )
        if penalized - {*self.network.parameters()}:
            raise RuntimeError("parameters of the network have been replaced since λ began to grow")

    def _after_update(self, *_: Any) -> None:
        self.after_step()

    def _detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    def _before_update(self, optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict):
        if getattr(optimizer, "grad_scale", None) is not None:
            raise RuntimeError("a fused optimizer that unscales within step() hides the gradients: give fused=False")
        # Called as optimizer.step(self, closure): the gradients are made in the closure (Lightning).
        closure: Callable | None = kwargs.get("closure", args[1] if len(args) > 1 else None)
        if closure is None:
            self._penalize()
            return None

        def penalized():
            loss = closure()
            self._penalize()
            return loss

        if "closure" in kwargs:
            return args, kwargs | {"closure": penalized}
        return (args[0], penalized, *args[2:]), kwargs

    def _penalize(self) -> None:
        self.before_step(self._made)
        self._made += 1
        self.after_backward()

    @torch.inference_mode(False)
    def cut(self) -> nn.Module:
        """Remove the pruned filters from the network, in place, and their part of the optimizer's state.

        Networks wrapped by DDP or ``torch.compile`` are to be wrapped again. An error leaves the network whole.

        Raises:
            RuntimeError: the selection is not made yet or differs by rank, or the network is cut already, has got other
                layers or no longer runs on the example.
            ArithmeticError: the network returns nan.
            CutMismatchError: the cut network does not compute what the masked one does.
        """
        if self._is_cut:
            raise RuntimeError("the network is cut already")
        self._check_shapes()
        if not self.has_prune_phase:
            self._restart()
        kept: Kept = self.kept()
        if kept.keys() != self.plan.pruned.keys():
            raise RuntimeError("not all layers have made their selection: train until the pruner has finished")
        self._check_ranks()
        device = next(self.network.parameters()).device
        images = random_like(self.example, torch.Generator().manual_seed(0))
        images = tree_map_only(Tensor, lambda t: t.to(device), images)
        self._tell_of_change(kept, images)
        cut_and_compare(self.network, kept, "filter", self.structure, images, self._optimizer)
        self._detach()
        self._is_cut = True
        return self.network

    def _tell_of_change(self, kept: Kept, images: Any) -> None:
        try:
            change = change_by_cut(self.network, kept, self.structure, images)
        except Exception as error:  # whatever the network raises
            raise RuntimeError(
                f"the network no longer runs on the example that was given: {one_line(error)}"
            ) from error
        log.info("the cut changes the outputs by %.1e of their size, on random images", change)
        if not self.has_prune_phase:
            return
        if not self.finished:
            log.warning("cut before the prune phase has finished, after %d optimizer steps", self._made)
        if LARGE_CHANGE < change < math.inf:  # else the network returns nan, which the cut refuses
            log.warning(
                "the cut changes the outputs by %.0f %% of their size, on random images: the pruned filters have not "
                "decayed; a longer prune phase, or fine-tuning, may help", 100 * change,
            )  # fmt: skip
