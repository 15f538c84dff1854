"""Small sets, held whole as uint8 on the device and augmented a batch at a time."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .order import batches_of_indices
from .spec import DataSpec

Batch = tuple[Tensor, Tensor]  # images (batch, channels, size, size) float, labels (batch,)


class ArraySplit:
    """The training or the test half of a set.

    Args:
        images: (N, channels, size, size) uint8.
        labels: (N,) int64.
    """

    def __init__(self, images: Tensor, labels: Tensor, spec: DataSpec, device: torch.device):
        self.images, self.labels = images.to(device), labels.to(device)
        self.spec, self.device = spec, device
        std = torch.tensor(spec.std, device=device).view(-1, 1, 1)
        self._scale = 1 / (255 * std)
        self._shift = torch.tensor(spec.mean, device=device).view(-1, 1, 1) / std

    def __len__(self) -> int:
        return len(self.labels)

    def augmented(self, batch_size: int, seed: int, stream: str, start: int = 0) -> Iterator[Batch]:
        """Training batches of step `start`, `start` + 1, … without end."""
        for indices, generator in batches_of_indices(len(self), batch_size, seed, stream, start):
            indices = indices.to(self.device)
            images = augment(self.images[indices], self.spec.pad, self.spec.flip, generator)
            yield self._normalise(images), self.labels[indices]

    def plain(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, unaugmented."""
        for images, labels in zip(self.images.split(batch_size), self.labels.split(batch_size), strict=True):
            yield self._normalise(images), labels

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().mul_(self._scale).sub_(self._shift)


def augment(images: Tensor, pad: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Random crops of `images` padded with `pad` zeros on each side, and random flips, in one gather.

    The numbers are drawn on the CPU, so that every device sees the same images.

    Args:
        images: (batch, channels, height, width).
    """
    if not pad and not flip:
        return images
    batch, channels, height, width = images.shape
    offsets = torch.randint(0, 2 * pad + 1, (2, batch, 1), generator=generator)
    flipped = torch.rand(batch, 1, generator=generator) < (0.5 if flip else 0.0)
    rows = offsets[0] + torch.arange(height)  # (batch, height)
    columns = offsets[1] + torch.arange(width)  # (batch, width)
    columns = torch.where(flipped, columns.flip(1), columns)
    rows, columns = rows.to(images.device), columns.to(images.device)
    padded = F.pad(images, (pad, pad, pad, pad))
    which = torch.arange(batch, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(1, -1, 1, 1)
    return padded[which, channel, rows.view(batch, 1, -1, 1), columns.view(batch, 1, 1, -1)]
