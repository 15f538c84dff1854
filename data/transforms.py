"""Augmentation and normalization of a batch of uint8 images, on any device."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .spec import DataSpec


class Normalize:
    """uint8 images -> float, per channel (pixel / 255 - mean) / std.

    Args:
        device: of the images.
    """

    def __init__(self, spec: DataSpec, device: torch.device):
        std = torch.tensor(spec.std, device=device).view(-1, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = torch.tensor(spec.mean, device=device).view(-1, 1, 1) / std

    def __call__(self, images: Tensor) -> Tensor:
        return images.float().mul_(self._scale).sub_(self._shift)


def draw_crops(n: int, pad: int, flip: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw for each of `n` images the row and column of its crop, (n,) from 0 to 2·`pad`, and whether it is flipped.

    Drawn on the CPU and for the whole batch, so that every device and every number of processes sees the same images.
    """
    if not pad and not flip:
        nothing = torch.zeros(n, dtype=torch.int64)
        return nothing, nothing, nothing.bool()
    rows, columns = torch.randint(0, 2 * pad + 1, (2, n), generator=generator)
    return rows, columns, torch.rand(n, generator=generator) < (0.5 if flip else 0.0)


def augment(images: Tensor, pad: int, top: Tensor, left: Tensor, flipped: Tensor) -> Tensor:
    """Crops of `images` padded with `pad` zeros on each side, and flips.

    Args:
        images: (batch, channels, height, width).
        top, left, flipped: (batch,), as ``draw_crops`` gives them.
    """
    if not pad and not flipped.any():
        return images
    batch, _, height, width = images.shape
    windows = F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)
    # (batch, channels, rows to begin at, columns to begin at, height, width): a view, so only the crops are copied
    top, left, flipped = (sent(of_image, images.device) for of_image in (top, left, flipped))
    crops = windows[torch.arange(batch, device=images.device), :, top, left]
    return torch.where(flipped.view(-1, 1, 1, 1), crops.flip(3), crops)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy a small CPU tensor to `device` without a host sync."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
