"""The update of the weights after backward: penalty, weight decay, momentum, step."""

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from pruner import Hooks
from pruner.penalty import Penalty, grad_of


class Update:
    """From gradients to weights. Called as ``update()``.

    SGD under a penalty leaves weight decay to the penalty's pass, which touches the weights anyhow. Compiled, the whole
    update is one kernel per tensor, which touches memory five times: it reads weight, gradient and momentum, and
    writes weight and momentum.

    Args:
        compiled: compile the update, where there is a penalty.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hooks: Hooks, compiled: bool = False):
        self.optimizer, self.hooks = optimizer, hooks
        penalty = hooks.penalty if isinstance(optimizer, torch.optim.SGD) else None
        if penalty:
            (group,) = optimizer.param_groups
            penalty.take_over_decay(group["params"], group["weight_decay"])
            group["weight_decay"] = 0.0
        self._kernels = _CompiledUpdate(optimizer, penalty) if penalty and compiled else None

    def __call__(self) -> None:
        if self._kernels:
            self._kernels()
        else:
            self.hooks.after_backward()
            self.optimizer.step()
        self.hooks.after_step()


class _CompiledUpdate:
    """SGD with momentum and the penalty, one compiled kernel per tensor."""

    def __init__(self, optimizer: torch.optim.Optimizer, penalty: Penalty):
        self._optimizer, self._penalty = optimizer, penalty
        self._kernels = torch.compile(_penalized_sgd, dynamic=False)

    @torch.no_grad()
    def __call__(self) -> None:
        (group,) = self._optimizer.param_groups
        pairs = self._penalty.prepare()
        others = [parameter for parameter in self._penalty.others if parameter.grad is not None]
        parameters: list[Tensor] = [*(parameter for parameter, _ in pairs), *others]
        states = [self._optimizer.state[parameter] for parameter in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            if state.get("momentum_buffer") is None:  # at 0, the first step is as any other
                state["momentum_buffer"] = torch.zeros_like(parameter)
        self._kernels(
            parameters,
            [grad_of(parameter) for parameter in parameters],
            [factor for _, factor in pairs],
            [state["momentum_buffer"] for state in states],
            self._penalty.decay,
            group["lr"],
            group["momentum"],
        )


def _penalized_sgd(
    parameters: list[Tensor],
    grads: list[Tensor],
    factors: list[Tensor],
    buffers: list[Tensor],
    decay: float,
    lr: float,
    momentum: float,
) -> None:
    """SGD where the first parameters have L2 factors of their own, γ + λ, and the others γ."""
    n = len(factors)
    penalized = torch._foreach_addcmul(grads[:n], parameters[:n], factors) if n else ()
    decayed = torch._foreach_add(grads[n:], parameters[n:], alpha=decay) if n < len(parameters) else ()
    sgd(
        parameters, [*penalized, *decayed], list[Tensor | None](buffers), foreach=True,
        weight_decay=0.0, momentum=momentum, lr=lr, dampening=0.0, nesterov=False, maximize=False,
    )  # fmt: skip
