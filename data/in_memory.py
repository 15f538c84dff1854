"""Small sets, held as uint8 on the device and augmented batch by batch."""

from collections.abc import Iterator

import torch
from torch import Tensor

from .sampler import Shard, batches_of_indices, held_out
from .spec import DataSpec
from .split import FILLING, Batch
from .transforms import Normalize, augment, draw_crops, sent


class ArraySplit:
    """The training or the test half of a set.

    Args:
        images: (N, channels, size, size) uint8.
        labels: (N,) int64.
    """

    def __init__(self, images: Tensor, labels: Tensor, spec: DataSpec, device: torch.device):
        self.images, self.labels = images.to(device), labels.to(device)
        self.spec, self.device = spec, device
        self._normalize = Normalize(spec, device)

    def __len__(self) -> int:
        return len(self.labels)

    def augmented(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the training batches of step `start`, `start` + 1, … without end."""
        for indices, generator in batches_of_indices(len(self), batch_size, seed, stream, start):
            crops = draw_crops(len(indices), self.spec.pad, self.spec.flip, generator)
            local_indices, filling = shard.local_indices(len(indices))
            own = sent(indices[local_indices], self.device)
            labels = self.labels[own]
            labels[len(local_indices) - filling :] = FILLING
            images = augment(self.images[own], self.spec.pad, *(of_image[local_indices] for of_image in crops))
            yield Batch(self._normalize(images), labels, len(indices))

    def plain(self, batch_size: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the images, each once, unaugmented."""
        part = shard.part(len(self))
        images, labels = self.images[part], self.labels[part]
        for some, of_some in zip(images.split(batch_size), labels.split(batch_size), strict=True):
            yield Batch(self._normalize(some), of_some, len(of_some))

    def held_out(self, n_out: int, seed: int) -> "tuple[ArraySplit, ArraySplit]":
        """Return the remaining images, and `n_out` drawn at random."""
        out, rest = held_out(len(self), n_out, seed)
        return self._part(rest), self._part(out)

    def _part(self, indices: Tensor) -> "ArraySplit":
        indices = indices.to(self.device)
        return ArraySplit(self.images[indices], self.labels[indices], self.spec, self.device)
