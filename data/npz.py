"""Sets of arrays: ``train.npz`` and ``test.npz``, checked before anything is allocated."""

import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from .contents import Arrays, Contents, fingerprint_of
from .spec import IMAGENET_MEAN, IMAGENET_STD, DataSpec

NAMES = ("images", "labels")
MOST_CLASSES = 100_000
DEFLATE_RATIO = 1032  # the most that deflate can compress
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
Header = tuple[tuple[int, ...], np.dtype]


def describe_npz(folder: Path) -> DataSpec:
    """Describe the set from array headers and labels.

    Raises:
        ValueError: a file cannot be read, or its arrays are not as they should be.
    """
    return _described(folder)[0]


def read_npz(folder: Path) -> Contents:
    """Read both files.

    Raises:
        ValueError: as ``describe_npz``, or a file is damaged.
    """
    spec, labels = _described(folder)
    splits: list[Arrays] = []
    sums: list[bytes] = []
    for name in ("train", "test"):
        file = folder / f"{name}.npz"
        with _readable(f"{file} is damaged"):
            images = torch.from_numpy(_array(file, "images")).permute(0, 3, 1, 2).contiguous()
            with zipfile.ZipFile(file) as archive:
                members = [archive.getinfo(f"{key}.npy") for key in NAMES]
        splits.append((images, torch.from_numpy(labels[name].astype(np.int64))))
        sums += [f"{name} {member.filename} {member.file_size} {member.CRC}".encode() for member in members]
    train, test = splits
    return Contents(spec, train, test, fingerprint_of(sums))


def _described(folder: Path) -> tuple[DataSpec, dict[str, np.ndarray]]:
    """The set, and the labels of both files."""
    shapes = {name: _images_shape(folder / f"{name}.npz") for name in ("train", "test")}
    labels = {name: _labels(folder / f"{name}.npz", shape) for name, shape in shapes.items()}
    _, height, width, channels = shapes["train"]
    if height != width or shapes["test"][1:] != shapes["train"][1:]:
        raise ValueError(f"images in {folder} must be square and alike in train.npz and test.npz, not {shapes}")
    most = int(labels["train"].max())
    _check_labels(folder, labels)
    is_rgb = channels == 3
    spec = DataSpec(
        name=folder.resolve().name,
        classes=most + 1,
        channels=channels,
        size=height,
        mean=IMAGENET_MEAN if is_rgb else (0.5,) * channels,
        std=IMAGENET_STD if is_rgb else (0.5,) * channels,
        pad=height // 8,
        flip=is_rgb,
        train_images=shapes["train"][0],
    )
    return spec, labels


def _check_labels(folder: Path, labels: dict[str, np.ndarray]) -> None:
    """Refuse labels that do not number classes: one alone, more classes than images, or more than ``MOST_CLASSES``."""
    train = folder / "train.npz"
    most = int(labels["train"].max())
    if most >= min(len(labels["train"]), MOST_CLASSES):
        raise ValueError(
            f"{train} has label {most} for {len(labels['train'])} images: labels must count from 0; renumber them with "
            "np.unique(labels, return_inverse=True), training and test labels together"
        )
    if int(labels["train"].min()) == most:
        raise ValueError(f"all labels in {train} are {most}: training needs two classes or more")
    if labels["test"].max() > most:
        raise ValueError(f"{folder / 'test.npz'} has label {labels['test'].max()}; those to train on go up to {most}")


def _images_shape(file: Path) -> tuple[int, ...]:
    if not os.path.isfile(file):  # a FIFO would be waited for
        raise ValueError(f"no file {file}: the folder must hold train.npz and test.npz")
    shape, dtype = _header(file, "images")
    if dtype != np.uint8 or len(shape) != 4:
        raise ValueError(f"'images' in {file} must be uint8 of shape (N, H, W, C), not {dtype} of shape {shape}")
    return shape


def _labels(file: Path, images: tuple[int, ...]) -> np.ndarray:
    shape, dtype = _header(file, "labels")
    if shape != images[:1] or dtype.kind not in "iu":
        raise ValueError(
            f"'labels' in {file} must be {images[0]} integers from 0, one per image, not {dtype} of shape {shape}"
        )
    with _readable(f"'labels' in {file} cannot be read"):
        labels = _array(file, "labels")
    if labels.min() < 0:
        raise ValueError(f"'labels' in {file} must be integers from 0; the lowest is {labels.min()}")
    return labels


def _header(file: Path, name: str) -> Header:
    """Read shape and type of an array, and check its size against the archive's directory."""
    with _readable(f"{file} is not an .npz file with an array '{name}'"), zipfile.ZipFile(file) as archive:
        member = _member(archive, name)
        with archive.open(member) as content:
            version = np.lib.format.read_magic(content)
            if version not in HEADERS:
                raise ValueError(f"format {version} of arrays is not supported")
            shape, _, dtype = HEADERS[version](content)
            begins = content.tell()
    if len(shape) == 0 or min(shape) <= 0:
        raise ValueError(f"'{name}' in {file} is empty, of shape {shape}; images must be of shape (N, H, W, C)")
    if dtype.hasobject:
        raise ValueError(f"'{name}' in {file} holds Python objects, which are not read; save it as an array of numbers")
    claimed = begins + math.prod(shape) * dtype.itemsize
    if claimed > member.file_size or member.file_size > file.stat().st_size * DEFLATE_RATIO:
        raise ValueError(f"'{name}' in {file} claims {claimed:,} bytes, which are not there: the file is damaged")
    return shape, dtype


def _member(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    there = archive.namelist()
    if f"{name}.npy" not in there:
        raise ValueError(f"it has {', '.join(key.removesuffix('.npy') for key in there[:10]) or 'no arrays'}")
    member = archive.getinfo(f"{name}.npy")
    if member.flag_bits & 1:
        raise ValueError("it is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("its compression is not numpy's; save it with np.savez or np.savez_compressed")
    return member


def _array(file: Path, name: str) -> np.ndarray:
    with np.load(file) as arrays:
        return arrays[name]


@contextmanager
def _readable(what_is_wrong: str) -> Iterator[None]:
    """Turn any error raised within into a ValueError; numpy and zipfile raise many types on damaged files.

    Raises:
        ValueError: `what_is_wrong`, and the error's own words.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy's remarks on old headers
        try:
            yield
        except Exception as error:
            reason = " ".join((str(error) or type(error).__name__).split())
            raise ValueError(f"{what_is_wrong}: {reason}") from None
