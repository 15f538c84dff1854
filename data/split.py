"""The interface of the training or test half of a data set, in memory or in files."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol, Self

from torch import Tensor

from .sampler import Shard
from .spec import DataSpec

FILLING = -100  # label of an image that only fills up a batch: F.cross_entropy leaves it out


class Batch(NamedTuple):
    """Images and labels of one step, on the device.

    Attributes:
        images: (batch, channels, size, size) float.
        labels: (batch,) int64.
        global_size: images of the step over all processes, without those that only fill up.
    """

    images: Tensor
    labels: Tensor
    global_size: int


class Split(Protocol):
    """The training or the test half of a set.

    Attributes:
        labels: (N,) int64.
    """

    spec: DataSpec

    @property
    def labels(self) -> Tensor: ...

    def __len__(self) -> int: ...

    def augmented(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the training batches of step `start`, `start` + 1, … without end."""
        ...

    def plain(self, batch_size: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the images, each once, unaugmented."""
        ...

    def held_out(self, n_out: int, seed: int) -> tuple[Self, Self]:
        """The images that remain, and `n_out` drawn at random."""
        ...
