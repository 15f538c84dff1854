"""The public API of the data sets."""

from .images import BadImageError
from .loaders import Data, build_loaders, describe
from .registry import DATASETS
from .sampler import Shard, held_out_images, images_in_step, steps_per_epoch
from .spec import DataSpec
from .workers import LostWorkerError, lost_worker

__all__ = [
    "DATASETS", "BadImageError", "Data", "DataSpec", "LostWorkerError", "Shard", "build_loaders", "describe",
    "held_out_images", "images_in_step", "lost_worker", "steps_per_epoch",
]  # fmt: skip
