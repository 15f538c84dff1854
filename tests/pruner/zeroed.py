"""Independent reference for the cut: groups zeroed after their batch norm, for networks with addresses."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pruner import groups


@torch.no_grad()
def zeroed_outputs(model: nn.Module, kept: dict[str, Tensor], kind: str, images: Tensor) -> Tensor:
    """Compute outputs of the whole `model`, (batch, classes), with every group not in `kept` zeroed.

    Filters are held at zero after their batch-norm. Nothing here knows of the library that makes the cut.

    Args:
        kept: layer name -> bool (groups,).
    """
    if kind == "weight":
        weights = {name: model.get_parameter(f"{name}.weight") for name in kept}
        masked = {f"{n}.weight": w * groups.spread(kept[n].to(w.device), w.shape, kind) for n, w in weights.items()}
        return functional_call(model, masked, images)
    norms = _norms_after(model, images)
    with ExitStack() as hooks:
        for name, is_kept in kept.items():
            mask = is_kept.to(images.device)
            if kind == "filter":
                hook = model.get_submodule(norms.get(name, name)).register_forward_hook(_zero_outputs(mask))
            else:
                hook = model.get_submodule(name).register_forward_pre_hook(_zero_inputs(mask))
            hooks.callback(hook.remove)
        return model(images)


def _masked(values: Tensor, mask: Tensor) -> Tensor:
    return values * mask.view(1, -1, *[1] * (values.ndim - 2))


def _zero_outputs(mask: Tensor):
    return lambda module, inputs, output: _masked(output, mask)


def _zero_inputs(mask: Tensor):
    return lambda module, inputs: (_masked(inputs[0], mask),)


def _norms_after(model: nn.Module, images: Tensor) -> dict[str, str]:
    """Layer name -> name of the batch-norm layer that reads its output."""
    outputs: dict[str, Tensor] = {}
    found: dict[str, str] = {}

    def watch(name: str, module: nn.Module):
        def hook(module, inputs, output):
            if isinstance(module, nn.BatchNorm2d):
                found.update({layer: name for layer, out in outputs.items() if out is inputs[0]})
            else:
                outputs[name] = output

        return module.register_forward_hook(hook)

    kinds = nn.Conv2d | nn.Linear | nn.BatchNorm2d
    with ExitStack() as hooks:
        for name, module in model.named_modules():
            if isinstance(module, kinds):
                hooks.callback(watch(name, module).remove)
        model(images)
    return found
