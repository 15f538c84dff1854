"""Augmentation and normalization of uint8 images: batches on any device, single images in data workers."""

import math
from collections.abc import Sequence

import numpy as np
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

    def in_one_thread(self, images: Tensor) -> Tensor:
        """As ``__call__``, on the CPU: threads of torch would spin on the cores on which workers decode."""
        pixels = np.multiply(images.numpy(), self._scale.numpy())
        return torch.from_numpy(np.subtract(pixels, self._shift.numpy(), out=pixels))


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


AREAS, RATIOS = (0.08, 1.0), (3 / 4, 4 / 3)  # of crops. Source: Szegedy et al. 2015, section 6
TRIES = 10
N_DRAWS = 2 * TRIES + 3


def random_resized_crop(image: Tensor, size: int, draws: Sequence[float], flip: bool) -> Tensor:
    """Crop of random area and aspect ratio, resized to (channels, `size`, `size`); flipped half the time, if `flip`.

    Args:
        image: (channels, height, width) uint8.
        draws: ``N_DRAWS`` numbers from [0, 1).
    """
    top, left, height, width = crop_box(image.shape[1], image.shape[2], draws)
    crop = image[None, :, top : top + height, left : left + width]
    resized = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)[0]
    return resized.flip(2) if flip and draws[-1] < 0.5 else resized


def crop_box(height: int, width: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """Top, left, height and width of a random crop of an image; the distribution of torchvision's RandomResizedCrop.

    Of areas and ratios drawn the first that fits is taken; if none fits, the centre, as far as the ratio allows.
    """
    (smallest, largest), (narrowest, widest) = AREAS, map(math.log, RATIOS)
    for area, ratio in zip(draws[0 : 2 * TRIES : 2], draws[1 : 2 * TRIES : 2], strict=True):
        pixels = height * width * (smallest + (largest - smallest) * area)
        root = math.exp((narrowest + (widest - narrowest) * ratio) / 2)
        h, w = round(math.sqrt(pixels) / root), round(math.sqrt(pixels) * root)
        if 0 < h <= height and 0 < w <= width:
            top, left = draws[2 * TRIES : 2 * TRIES + 2]
            return int(top * (height - h + 1)), int(left * (width - w + 1)), h, w
    h = min(height, round(width / RATIOS[0]))
    w = min(width, round(height * RATIOS[1]))
    return (height - h) // 2, (width - w) // 2, h, w


def random_crop(image: Tensor, pad: int, draws: Sequence[float], flip: bool) -> Tensor:
    """Crop of the image's size from the image padded with `pad` zeros on each side; flipped half the time, if `flip`.

    Args:
        image, draws: as of ``random_resized_crop``.
    """
    height, width = image.shape[1:]
    top, left = (int(draw * (2 * pad + 1)) for draw in draws[-3:-1])
    crop = F.pad(image, (pad, pad, pad, pad))[:, top : top + height, left : left + width]
    return crop.flip(2) if flip and draws[-1] < 0.5 else crop
