"""A data set in memory or as a list of files, and its fingerprint."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from .spec import DataSpec
from .tree import Sample

Arrays = tuple[Tensor, Tensor]  # images (N, channels, size, size) uint8, labels (N,) int64


@dataclass(frozen=True)
class Contents:
    """A set of images.

    Attributes:
        train, test: arrays, or a list of files.
        fingerprint: 16 hexadecimal digits; the same for the same images, wherever they are stored.
        class_names: in label order; empty where the set has none.
        passed_over: files that were found and not read, for a line.
    """

    spec: DataSpec
    train: Arrays | list[Sample]
    test: Arrays | list[Sample]
    fingerprint: str
    class_names: tuple[str, ...] = ()
    passed_over: str = ""


def fingerprint_of(parts: Iterable[bytes | np.ndarray]) -> str:
    """Hash `parts` in order."""
    total = hashlib.blake2b(digest_size=8)
    for part in parts:
        content = part if isinstance(part, bytes) else np.ascontiguousarray(part).data
        total.update(hashlib.blake2b(content, digest_size=16).digest())  # so that the limits of parts count, too
    return total.hexdigest()


def fingerprint_of_files(folder: Path, *splits: list[Sample]) -> str:
    """Hash (path below `folder`, label, size in bytes) of all files, in the order of their names.

    Files replaced by others of the same names and sizes are not detected: no file is read.

    Raises:
        ValueError: a file cannot be reached.
    """
    parts, before = [], str(folder / "train").removesuffix("train")
    for split in splits:
        for path, label in split:
            try:
                size = os.stat(path).st_size
            except OSError as error:
                raise ValueError(f"{path}: {error.strerror}") from None
            parts.append(os.fsencode(f"{path.removeprefix(before)}\0{label}\0{size}"))
    return fingerprint_of([b"\0".join(sorted(parts))])
