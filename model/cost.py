"""Cost of a network: parameters and FLOPs of its conv and linear layers, for one image."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

_aten = torch.ops.aten
COUNTED = (_aten.convolution, _aten.mm, _aten.addmm)  # of conv and linear layers; not attention's products


@dataclass(frozen=True)
class Cost:
    """Attributes:
    params: conv and linear weights and biases; not batch-norm's.
    params_with_bn: every parameter; the paper's sparsity columns count so.
    flops: 2 per multiply-add of conv and linear layers.
    widths: out-channels of the convs in order, shortcuts left out.
    """

    params: int
    params_with_bn: int
    flops: int
    widths: tuple[int, ...]


def cost_of(model: nn.Module, channels: int, size: int) -> Cost:
    """Measure the cost of one image of `channels` × `size` × `size`; the model's state is unchanged.

    Raises:
        ValueError: the network cannot take such an image.
    """
    layers = (m for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd))
    counted = {p for layer in layers for p in layer.parameters(recurse=False)}  # tied ones once
    widths = tuple(
        module.out_channels
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.conv._ConvNd) and "downsample" not in name
    )
    training, fused = model.training, torch.backends.mha.get_fastpath_enabled()
    model.eval()
    torch.backends.mha.set_fastpath_enabled(False)  # it would hide the layers of attention
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(example(model, channels, size))
    except (RuntimeError, AssertionError) as error:  # made for larger images, it pools these to nothing
        raise ValueError(f"{type(model).__name__} cannot take images of {size} px: {error}".splitlines()[0]) from None
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        model.train(training)
    return Cost(
        params=sum(p.numel() for p in counted),
        params_with_bn=sum(p.numel() for p in model.parameters()),
        flops=sum(counter.get_flop_counts().get("Global", {}).get(op, 0) for op in COUNTED),
        widths=widths,
    )


def example(model: nn.Module, channels: int, size: int) -> torch.Tensor:
    """One image of zeros on the model's device, for tracing."""
    return torch.zeros(1, channels, size, size, device=next(model.parameters()).device)
