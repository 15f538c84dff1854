"""The door to the data: ``DATASETS``, ``describe``, ``build_loaders``."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from .arrays import ArraySplit, Batch
from .folders import BadImageError, FolderSplit
from .order import Shard, held_out_images, images_in_step, steps_per_epoch
from .sets import DATASETS
from .spec import DataSpec

__all__ = [
    "DATASETS", "BadImageError", "Data", "DataSpec", "Shard", "build_loaders", "describe", "held_out_images",
    "images_in_step", "steps_per_epoch",
]  # fmt: skip

TEST_BATCH = 256
WHOLE_TRAINING_SET = 100_000  # images; of larger sets, 200 batches give the batch-norm statistics
STATISTICS_BATCHES = 200


class Data:
    """Training and test images of one set.

    Args:
        shard: the part of every batch that this process takes.

    Attributes:
        train, test: ``ArraySplit`` or ``FolderSplit``.
        val: the part of the training images that is held out, or None.
    """

    def __init__(self, spec: DataSpec, train, test, seed: int, val=None, shard: Shard | None = None):
        self.spec, self.train, self.test, self.val = spec, train, test, val
        self._seed, self._shard = seed, shard or Shard()

    @property
    def sizes(self) -> tuple[int, int]:
        """How many images there are to train on and to test."""
        return len(self.train), len(self.test)

    def train_batches(self, batch_size: int, stream: str, start: int = 0) -> Iterator[Batch]:
        """Augmented batches of step `start`, `start` + 1, … without end; a function of seed, `stream` and step."""
        return self.train.augmented(batch_size, self._seed, stream, start, self._shard)

    def test_batches(self) -> Iterator[Batch]:
        return self.test.plain(TEST_BATCH, self._shard)

    def val_batches(self) -> Iterator[Batch]:
        return self.val.plain(TEST_BATCH, self._shard)

    def train_once(self) -> Iterator[Batch]:
        """Every training image, without augmentation."""
        return self.train.plain(TEST_BATCH, self._shard)

    def statistics_batches(self) -> Iterator[Batch]:
        """Training images for batch-norm's statistics: one epoch, or 200 batches of a larger set.

        Augmented, since the network has learnt under statistics of augmented images: the black borders of
        padded crops move a mean by enough to cost a ResNet20 four points on CIFAR-10 (JPEG). A stream of its
        own, so that looking changes nothing. Every process gets all of them.
        """
        whole = len(self.train) <= WHOLE_TRAINING_SET
        batches = steps_per_epoch(len(self.train), TEST_BATCH) if whole else STATISTICS_BATCHES
        return islice(self.train.augmented(TEST_BATCH, self._seed, "statistics", 0, Shard()), batches)


def _folder_of(dataset: str, data_path: str) -> Path:
    return Path(data_path) if DATASETS[dataset].is_folder else Path(data_path) / dataset


def describe(dataset: str, data_path: str) -> DataSpec:
    """What the set is, without reading an image.

    Raises:
        ValueError: no such set, or its folder is not as it should be.
    """
    if dataset not in DATASETS:
        raise ValueError(f"no data set '{dataset}'; choose from {', '.join(DATASETS)}")
    return DATASETS[dataset].describe(_folder_of(dataset, data_path))


def build_loaders(
    dataset: str,
    data_path: str,
    seed: int,
    workers: int,
    device: torch.device,
    val_fraction: float = 0.0,
    shard: Shard | None = None,
    train_images: int | None = None,
) -> Data:
    """Read the set; arrays go to `device` whole.

    Args:
        val_fraction: of the training images, the part that is held out.
        train_images: how many training images there shall be, drawn by `seed`; None: all.

    Raises:
        ValueError: the data cannot be had or are not as they should be; says what to do.
    """
    spec = describe(dataset, data_path)
    train, test = DATASETS[dataset].read(_folder_of(dataset, data_path), spec)
    if isinstance(train, tuple):
        splits = [ArraySplit(images, labels, spec, device) for images, labels in (train, test)]
    else:
        splits = [FolderSplit(samples, spec, device, workers) for samples in (train, test)]
    val, n_images = None, train_images or len(splits[0])
    if n_images > len(splits[0]):
        raise ValueError(f"--train_images {n_images}: {spec.name} has {len(splits[0])}")
    if n_images < len(splits[0]):
        splits[0], _ = splits[0].held_out(len(splits[0]) - n_images, seed)
    if val_fraction:
        splits[0], val = splits[0].held_out(held_out_images(n_images, val_fraction), seed)
        if not len(val):
            raise ValueError(f"--val_fraction {val_fraction:g} of {n_images} training images is none")
    processes = shard.of if shard else 1
    if len(splits[0]) < 2 or any(len(part) < processes for part in (*splits, *([val] if val else []))):
        raise ValueError(
            f"{spec.name} has too few images: {len(splits[0])} to train on, {len(splits[1])} to test"
            + (f", for {processes} processes" if processes > 1 else "")
        )
    return Data(spec, *splits, seed, val, shard)
