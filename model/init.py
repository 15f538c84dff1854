"""Re-initialization of a network."""

from torch import nn


def reinitialize(model: nn.Module, how: str) -> None:
    """Re-initialize `model` in place.

    Args:
        how: ``orth``: orthogonal weights, all else as it is. Anything else: Kaiming-normal weights, zero biases
            and fresh batch-norm, which makes what follows a training of the small network from scratch.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            if how == "orth":
                nn.init.orthogonal_(module.weight)
                continue
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d) and how != "orth":
            module.reset_parameters()
