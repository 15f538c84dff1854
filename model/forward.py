"""Check what a network computes by forward passes."""

from typing import Any

import torch
from torch import Tensor, nn


def check_forward(model: nn.Module, data: dict, source: object) -> None:
    """Check by one forward pass that the shapes of a fitted network are consistent.

    Args:
        data: ``classes``, ``channels`` and ``size`` (pixels) of the images.

    Raises:
        ValueError: they do not: the shapes have not come from pruning.
    """
    try:
        shape = tuple(_outputs(model, data, 1, training=False).shape)
    except RuntimeError as error:
        raise ValueError(f"{source}: the shapes of its layers do not fit each other ({one_line(error)})") from None
    if shape != (1, data["classes"]):
        raise ValueError(f"{source} has {shape[-1]} outputs for {data['classes']} classes")


def check_outputs(model: nn.Module, data: dict, n_images: int = 2) -> None:
    """Check that a network returns what a run trains and tests, by one pass in each mode.

    That is (N, classes); while it trains perhaps a tuple, with auxiliary heads of the same shape behind.

    Args:
        model: its batch-norm statistics change.
        data: ``classes``, ``channels`` and ``size`` (pixels) of the images.
        n_images: in a batch; some networks cannot train on a single one.

    Raises:
        ValueError: it returns something else, or does not run.
    """
    name, classes, size = type(model).__name__, data["classes"], data["size"]
    for training, mode in ((False, "in eval mode"), (True, "in training mode")):
        try:
            outputs = _outputs(model, data, n_images, training)
        except Exception as error:  # whatever the network raises
            text = f"{name} cannot take images of {size} px {mode}, {n_images} at a time"
            raise ValueError(f"{text} ({type(error).__name__}: {one_line(error)})") from error
        heads = outputs if training and isinstance(outputs, tuple) and outputs else (outputs,)
        if any(not isinstance(head, Tensor) or head.shape != (n_images, classes) for head in heads):
            wanted = f"for {n_images} images; a run needs {(n_images, classes)}"
            raise ValueError(f"{name} returns {_shown(outputs)} {mode} {wanted}")


@torch.no_grad()
def _outputs(model: nn.Module, data: dict, n_images: int, training: bool) -> Any:
    """Run `model` in either mode, and leave it in the mode that it was in."""
    images = torch.zeros(n_images, data["channels"], data["size"], data["size"], device=next(model.parameters()).device)
    before = model.training
    try:
        return model.train(training)(images)
    finally:
        model.train(before)


def _shown(outputs: Any) -> str:
    if isinstance(outputs, Tensor):
        return str(tuple(outputs.shape))
    if isinstance(outputs, tuple | list):
        return f"a {type(outputs).__name__} of {', '.join(map(_shown, outputs)) or 'nothing'}"
    return f"a {type(outputs).__name__}"


def one_line(error: Exception) -> str:
    """Return the first words of an error, which may have many lines."""
    return " ".join(str(error).split())[:200]
