"""The door to the data: ``DATASETS``, ``describe``, ``build_loaders``."""

from collections.abc import Iterator
from pathlib import Path

import torch

from .arrays import ArraySplit, Batch
from .folders import FolderSplit
from .order import generator_for, steps_per_epoch
from .sets import DATASETS
from .spec import DataSpec

__all__ = ["DATASETS", "Data", "DataSpec", "build_loaders", "describe", "steps_per_epoch"]

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

    def statistics_batches(self) -> Iterator[Batch]:
        """Training images without augmentation, for batch-norm's statistics.

        Shuffled, since in a set sorted by class no batch would have the set's variance; by a generator of its
        own, so that looking changes nothing.
        """
        order = torch.randperm(len(self.train), generator=generator_for(self._seed, "statistics"))
        if len(order) > WHOLE_TRAINING_SET:
            order = order[: STATISTICS_BATCHES * TEST_BATCH]
        return self.train.plain(TEST_BATCH, order)


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
    return Data(spec, *splits, seed)
