"""The public API of the data sets."""

from .images import BadImageError
from .loaders import TEST_BATCH, Data, DataSource
from .registry import DATASETS
from .sampler import ArgumentError, Shard, check_subset, held_out_images, steps_per_epoch
from .spec import DataSpec
from .split import Batch, Split
from .workers import LostWorkerError, lost_worker

__all__ = [
    "DATASETS",
    "TEST_BATCH",
    "ArgumentError",
    "BadImageError",
    "Batch",
    "Data",
    "DataSource",
    "DataSpec",
    "LostWorkerError",
    "Shard",
    "Split",
    "check_subset",
    "held_out_images",
    "lost_worker",
    "steps_per_epoch",
]
