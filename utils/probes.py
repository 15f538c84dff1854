"""Looks at a network just after the cut: noisy ensembles and the Jacobian of its outputs."""

import copy
from itertools import islice

import torch
from torch import nn

from data import Data


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
        noisy = copy.deepcopy(model).eval()
        for parameter in noisy.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
            parameter.add_(noise, alpha=std)
        ensemble.append(noisy)
    right = total = 0
    for images, labels in data.train_once():
        outputs = sum(noisy(images) for noisy in ensemble)  # the mean's order is the sum's
        right += (outputs.argmax(1) == labels).sum().item()
        total += len(labels)
    return 100 * right / total


def jacobian_singular_values(model: nn.Module, data: Data, batches: int) -> dict[str, float]:
    """Mean, std, max and min of the singular values of d outputs / d image, over training batches.

    Each image's Jacobian is (classes, channels·size·size); its singular values are taken one image at a time.
    """
    frozen = copy.deepcopy(model).eval()
    jacobian = torch.func.jacrev(lambda image: frozen(image.unsqueeze(0)).squeeze(0))
    values = []
    for images, _ in islice(data.statistics_batches(), batches):
        values += [torch.linalg.svdvals(jacobian(image).flatten(1).detach()) for image in images]
    found = torch.cat(values)
    return {
        "mean": found.mean().item(),
        "std": found.std().item(),
        "max": found.max().item(),
        "min": found.min().item(),
    }
