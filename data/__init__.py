"""The door to the data: ``DATASETS``, ``describe``, ``build_loaders``."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from .arrays import ArraySplit, Batch
from .folders import BadImageError, FolderSplit
from .order import steps_per_epoch
from .sets import DATASETS
from .spec import DataSpec

__all__ = ["DATASETS", "BadImageError", "Data", "DataSpec", "build_loaders", "describe", "steps_per_epoch"]

TEST_BATCH = 256
WHOLE_TRAINING_SET = 100_000  # images; of larger sets, 200 batches give the batch-norm statistics
STATISTICS_BATCHES = 200


class Data:
    """Training and test images of one set.

    Attributes:
        train, test: ``ArraySplit`` or ``FolderSplit``.
    """

    def __init__(self, spec: DataSpec, train, test, seed: int):
        self.spec, self.train, self.test, self._seed = spec, train, test, seed

    def train_batches(self, batch_size: int, stream: str, start: int = 0) -> Iterator[Batch]:
        """Augmented batches of step `start`, `start` + 1, … without end; a function of seed, `stream` and step."""
        return self.train.augmented(batch_size, self._seed, stream, start)

    def test_batches(self) -> Iterator[Batch]:
        return self.test.plain(TEST_BATCH)

    def train_once(self) -> Iterator[Batch]:
        """Every training image, without augmentation."""
        return self.train.plain(TEST_BATCH)

    def statistics_batches(self) -> Iterator[Batch]:
        """Training images for batch-norm's statistics: one epoch, or 200 batches of a larger set.

        Augmented, since the network has learnt under statistics of augmented images: the black borders of
        padded crops move a mean by enough to cost a ResNet20 four points on CIFAR-10 (JPEG). A stream of its
        own, so that looking changes nothing.
        """
        whole = len(self.train) <= WHOLE_TRAINING_SET
        batches = steps_per_epoch(len(self.train), TEST_BATCH) if whole else STATISTICS_BATCHES
        return islice(self.train_batches(TEST_BATCH, "statistics"), batches)


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


def build_loaders(dataset: str, data_path: str, seed: int, workers: int, device: torch.device) -> Data:
    """Read the set; arrays go to `device` whole.

    Raises:
        ValueError: the data cannot be had or are not as they should be; says what to do.
    """
    spec = describe(dataset, data_path)
    train, test = DATASETS[dataset].read(_folder_of(dataset, data_path), spec)
    if isinstance(train, tuple):
        splits = [ArraySplit(images, labels, spec, device) for images, labels in (train, test)]
    else:
        splits = [FolderSplit(samples, spec, device, workers) for samples in (train, test)]
    if min(len(split) for split in splits) < 1 or len(splits[0]) < 2:
        raise ValueError(f"{spec.name} has too few images: {len(splits[0])} to train on, {len(splits[1])} to test")
    return Data(spec, *splits, seed)
