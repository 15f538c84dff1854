"""Measurements just after the cut: noisy ensembles and the Jacobian of the outputs."""

import copy
from itertools import islice

import torch
from torch import Tensor, nn

from data import Data
from utils.engine.train import split_heads

JACOBIAN_IMAGES = 32  # of a batch


@torch.no_grad()
def noisy_ensemble_acc1(model: nn.Module, data: Data, std: float, copies: int, seed: int) -> float:
    """Accuracy on the training images, percent, of the averaged outputs of noisy copies of `model`.

    Args:
        std: standard deviation of the Gaussian noise on every weight.
    """
    # A generator of its own and copies of the model: looking must change nothing.
    generator = torch.Generator().manual_seed(seed)
    ensemble = []
    for _ in range(copies):
        ensemble.append(copy.deepcopy(model).eval())
        add_noise(ensemble[-1], std, generator)
    right = total = 0
    for images, labels, _ in data.train_once():
        outputs = sum(noisy(images) for noisy in ensemble)  # the mean's order is the sum's
        right += (outputs.argmax(1) == labels).sum().item()
        total += len(labels)
    return 100 * right / total


@torch.no_grad()
def add_noise(model: nn.Module, std: float, generator: torch.Generator) -> None:
    """Add Gaussian noise to every weight of `model`, in place; biases, batch-norm's β too, stay as they are."""
    for name, parameter in model.named_parameters():
        if not name.endswith("bias"):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.add_(noise, alpha=std)


def jacobian_singular_values(model: nn.Module, data: Data, batches: int) -> dict[str, float]:
    """Mean, std, max and min of the singular values of d outputs / d image in training mode, over training batches.

    Of each batch the first ``JACOBIAN_IMAGES`` images, since the time grows with their square. The Jacobian of an
    image is (classes, channels·size·size): of its own outputs by its own pixels, the other images held constant.

    Source: the original looks in training mode, so that batch-norm uses the batch's statistics.
    """
    clone = copy.deepcopy(model).train().requires_grad_(False)
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # dropout would draw from the run's
        values = [
            torch.linalg.svdvals(jacobians(clone, images[:JACOBIAN_IMAGES]))
            for images, *_ in islice(data.statistics_batches(), batches)
        ]
    found = torch.cat([of_batch.flatten() for of_batch in values])
    return {
        "mean": found.mean().item(),
        "std": found.std().item(),
        "max": found.max().item(),
        "min": found.min().item(),
    }


def jacobians(model: nn.Module, images: Tensor) -> Tensor:
    """Each image's Jacobian within its batch, (batch, classes, channels·size·size).

    In training mode an output depends on the whole batch; an image's Jacobian has its own pixels as variables alone,
    so that each of its outputs takes a backward pass of its own.
    """
    images = images.detach().requires_grad_()
    outputs, *_ = split_heads(model(images))
    rows = [
        torch.stack([torch.autograd.grad(output, images, retain_graph=True)[0][i] for output in of_image])
        for i, of_image in enumerate(outputs)
    ]
    return torch.stack(rows).flatten(2)
