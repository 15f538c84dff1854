"""Small sets, held whole as uint8 on the device and augmented a batch at a time."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .order import Shard, batches_of_indices, generator_for
from .spec import DataSpec

Batch = tuple[Tensor, Tensor]  # images (batch, channels, size, size) float, labels (batch,)
FILLING = -100  # label of an image that only fills up a batch: F.cross_entropy leaves it out


class Normalise:
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


class ArraySplit:
    """The training or the test half of a set.

    Args:
        images: (N, channels, size, size) uint8.
        labels: (N,) int64.
    """

    def __init__(self, images: Tensor, labels: Tensor, spec: DataSpec, device: torch.device):
        self.images, self.labels = images.to(device), labels.to(device)
        self.spec, self.device = spec, device
        self._normalise = Normalise(spec, device)

    def __len__(self) -> int:
        return len(self.labels)

    def augmented(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the training batches of step `start`, `start` + 1, … without end."""
        for indices, generator in batches_of_indices(len(self), batch_size, seed, stream, start):
            crops = draw_crops(len(indices), self.spec.pad, self.spec.flip, generator)
            places, filling = shard.places(len(indices))
            own = sent(indices[places], self.device)
            labels = self.labels[own]
            labels[len(places) - filling :] = FILLING
            images = augment(self.images[own], self.spec.pad, *(of_image[places] for of_image in crops))
            yield self._normalise(images), labels

    def plain(self, batch_size: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the images, each once, unaugmented."""
        part = shard.part(len(self))
        images, labels = self.images[part], self.labels[part]
        for some, of_some in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            yield self._normalise(some), of_some

    def held_out(self, n_out: int, seed: int) -> "tuple[ArraySplit, ArraySplit]":
        """What stays, and `n_out` images drawn at random."""
        out, rest = held_out(len(self), n_out, seed)
        return tuple(
            ArraySplit(self.images[part.to(self.device)], self.labels[part.to(self.device)], self.spec, self.device)
            for part in (rest, out)
        )


def held_out(n_images: int, n_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the `n_out` images held out and of the others, each in order."""
    order = torch.randperm(n_images, generator=generator_for(seed, "held out"))
    return order[:n_out].sort().values, order[n_out:].sort().values


def draw_crops(n: int, pad: int, flip: bool, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `n` images where its crop begins, row and column, (n,) from 0 to 2·`pad`, and whether it is flipped.

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
    """A small CPU tensor on `device`; the host does not wait until it is there."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values
