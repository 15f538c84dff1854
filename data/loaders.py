"""Training and test images of one set, by name."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch

from .contents import Contents
from .image_folder import LARGEST_UNRESIZED, FolderSplit, check_files
from .in_memory import ArraySplit
from .registry import DATASETS
from .sampler import Shard, check_subset, held_out_images, steps_per_epoch
from .spec import DataSpec
from .split import Batch, Split
from .summary import counts_of, missing_labels, summary_of

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]

TEST_BATCH = 256
WHOLE_TRAINING_SET = 100_000  # images; of larger sets, 200 batches give the batch-norm statistics
STATISTICS_BATCHES = 200


class Data:
    """Training and test images of one set.

    Args:
        shard: the part of every batch that this process takes.

    Attributes:
        val: the part of the training images that is held out, or None.
        class_names: in label order; empty where the set has none.
        fingerprint: 16 hexadecimal digits, of the set as it is stored; seed and subsets do not matter.
    """

    def __init__(
        self,
        spec: DataSpec,
        train: Split,
        test: Split,
        seed: int,
        val: Split | None = None,
        shard: Shard | None = None,
        *,
        class_names: tuple[str, ...] = (),
        fingerprint: str = "",
        passed_over: str = "",
    ):
        self.spec, self.train, self.test, self.val = spec, train, test, val
        self.class_names, self.fingerprint = class_names, fingerprint
        self._seed, self._shard, self._passed_over = seed, shard or Shard(), passed_over

    @cached_property
    def summary(self) -> str:
        """One line: numbers of images and classes, and files passed over."""
        n_held_out = len(self.val) if self.val else 0
        return summary_of(counts_of(self.train, self.spec.classes), n_held_out, len(self.test), self._passed_over)

    @cached_property
    def notices(self) -> list[str]:
        """Labels without a training or a test image."""
        parts = {"training": self.train, "test": self.test}
        counts = {name: counts_of(part, self.spec.classes) for name, part in parts.items()}
        return [text for name in parts if (text := missing_labels(counts[name], name, self.class_names))]

    @property
    def sizes(self) -> tuple[int, int]:
        """Numbers of training and test images."""
        return len(self.train), len(self.test)

    def train_batches(self, batch_size: int, stream: str, start: int = 0) -> Iterator[Batch]:
        """Augmented batches of step `start`, `start` + 1, … without end; a function of seed, `stream` and step."""
        return self.train.augmented(batch_size, self._seed, stream, start, self._shard)

    def test_batches(self) -> Iterator[Batch]:
        return self.test.plain(TEST_BATCH, self._shard)

    def val_batches(self) -> Iterator[Batch]:
        """The held-out images; none where none are held out."""
        return iter(()) if self.val is None else self.val.plain(TEST_BATCH, self._shard)

    def train_once(self) -> Iterator[Batch]:
        """Every training image, without augmentation."""
        return self.train.plain(TEST_BATCH, self._shard)

    def statistics_batches(self) -> Iterator[Batch]:
        """Training images for batch-norm statistics: one epoch, at most 200 batches.

        Augmented, since the network has learnt under statistics of augmented images: the black borders of
        padded crops move a mean by enough to cost a ResNet20 four points on CIFAR-10 (JPEG). A stream of its
        own, so that looking changes nothing. Every process gets all of them.
        """
        whole = len(self.train) <= WHOLE_TRAINING_SET
        batches = steps_per_epoch(len(self.train), TEST_BATCH) if whole else STATISTICS_BATCHES
        return islice(self.train.augmented(TEST_BATCH, self._seed, "statistics", 0, Shard()), batches)


class DataSource:
    """A data set whose description is known and whose images are not read yet.

    Raises:
        ValueError: no such set, or its folder is not as it should be.
    """

    def __init__(self, name: str, data_path: str, size: int | None = None, mean_std: MeanStd | None = None):
        """Open a set.

        Args:
            size: of the images that the network wants, where images are resized; None: the set's own.
            mean_std: mean and std per channel; None: the set's own.
        """
        if name not in DATASETS:
            raise ValueError(f"no data set '{name}'; choose from {', '.join(DATASETS)}")
        source = DATASETS[name]
        self._opened = source.open(Path(data_path) if source.is_folder else Path(data_path) / name)
        self._size, self._mean_std = size, mean_std
        self.spec = self._prepared(self._opened.spec)

    def _prepared(self, spec: DataSpec) -> DataSpec:
        """The description with the size, mean and std that the network wants."""
        if self._size and spec.size > LARGEST_UNRESIZED:
            spec = replace(spec, size=self._size)
        if self._mean_std and spec.channels == len(self._mean_std[0]):
            spec = replace(spec, mean=self._mean_std[0], std=self._mean_std[1])
        return spec

    def load(
        self,
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
            train_images: number of training images to use, drawn by `seed`; None: all.

        Raises:
            ArgumentError: `val_fraction` or `train_images` does not fit the set.
            ValueError: the data cannot be read or are not as they should be; says what to do.
        """
        contents, shard = self._opened.read(), shard or Shard()
        contents = replace(contents, spec=self._prepared(contents.spec))
        spec = contents.spec
        train, test = _splits(contents, device, workers, shard)
        if len(train) < max(2, shard.world_size) or len(test) < shard.world_size:
            counts = f"{len(train)} to train on, {len(test)} to test"
            processes = f", for {shard.world_size} processes" if shard.world_size > 1 else ""
            raise ValueError(f"{spec.name} has too few images: {counts}{processes}")
        check_subset(len(train), train_images, val_fraction, spec.name, shard.world_size)
        train, val = _split(_subset(train, train_images, seed), val_fraction, seed)
        return Data(
            spec, train, test, seed, val, shard, class_names=contents.class_names, fingerprint=contents.fingerprint,
            passed_over=contents.passed_over,
        )  # fmt: skip


def _splits(contents: Contents, device: torch.device, workers: int, shard: Shard) -> tuple[Split, Split]:
    train, test, spec = contents.train, contents.test, contents.spec
    if isinstance(train, list) and isinstance(test, list):
        check_files(train, test, spec, show_progress=shard.rank == 0)
        return FolderSplit(train, spec, device, workers), FolderSplit(test, spec, device, workers)
    assert isinstance(train, tuple)
    assert isinstance(test, tuple)
    return ArraySplit(*train, spec, device), ArraySplit(*test, spec, device)


def _subset(train: Split, n_images: int | None, seed: int) -> Split:
    """`n_images` of the training images, drawn by `seed`."""
    return train if n_images in (None, len(train)) else train.held_out(len(train) - n_images, seed)[0]


def _split(train: Split, val_fraction: float, seed: int) -> tuple[Split, Split | None]:
    """Split into the images to train on and those held out, or None."""
    return train.held_out(held_out_images(len(train), val_fraction), seed) if val_fraction else (train, None)
