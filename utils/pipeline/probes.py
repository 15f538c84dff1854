"""Measurements after the cut: noisy ensembles and the input-output Jacobian."""

import copy
from itertools import islice

import torch
from torch import Tensor, nn

from data import Data
from utils.engine.evaluate import evaluate
from utils.engine.train import split_heads

JACOBIAN_IMAGES = 32  # per batch


@torch.no_grad()
def noisy_ensemble_acc1(model: nn.Module, data: Data, std: float, copies: int, seed: int) -> float:
    """Compute training accuracy, percent, of the averaged outputs of noisy copies of `model`.

    Args:
        std: standard deviation of the Gaussian noise on every weight.
    """
    # A separate generator and copies of the model, to leave the run's state unchanged.
    generator = torch.Generator().manual_seed(seed)
    ensemble = [copy.deepcopy(model) for _ in range(copies)]
    for network in ensemble:
        add_noise(network, std, generator)
    return evaluate(_Ensemble(ensemble), data.train_once())["acc1"]


class _Ensemble(nn.ModuleList):
    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([network(images) for network in self]).mean(0)


@torch.no_grad()
def add_noise(model: nn.Module, std: float, generator: torch.Generator) -> None:
    """Add Gaussian noise to every weight of `model`, in place; biases, including batch norm's β, are unchanged."""
    for name, parameter in model.named_parameters():
        if not name.endswith("bias"):
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.add_(noise, alpha=std)


def jacobian_singular_values(model: nn.Module, data: Data, batches: int) -> dict[str, float]:
    """Compute mean, std, max and min of the singular values of d outputs / d image, over training batches.

    Uses the first ``JACOBIAN_IMAGES`` images of each batch, since time grows with their square. The Jacobian of an
    image is (classes, channels·size·size): its own outputs by its own pixels, the other images held constant.

    Source: as in the original, in training mode, where batch norm uses the batch's statistics.
    """
    clone = copy.deepcopy(model).train().requires_grad_(False)
    device = next(model.parameters()).device
    # Dropout must not draw from the run's generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        values = [
            torch.linalg.svdvals(jacobians(clone, images[:JACOBIAN_IMAGES]))
            for images, *_ in islice(data.statistics_batches(), batches)
        ]
    flat = torch.cat([batch_values.flatten() for batch_values in values])
    return {
        "mean": flat.mean().item(),
        "std": flat.std().item(),
        "max": flat.max().item(),
        "min": flat.min().item(),
    }


def jacobians(model: nn.Module, images: Tensor) -> Tensor:
    """Compute each image's Jacobian within its batch, (batch, classes, channels·size·size).

    In training mode an output depends on the whole batch; the Jacobian covers only the image's own pixels, so each
    output takes a backward pass.
    """
    images = images.detach().requires_grad_()
    outputs, *_ = split_heads(model(images))
    rows = [
        torch.stack([torch.autograd.grad(output, images, retain_graph=True)[0][i] for output in image_outputs])
        for i, image_outputs in enumerate(outputs)
    ]
    return torch.stack(rows).flatten(2)
