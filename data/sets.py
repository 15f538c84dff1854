"""The sets by name: what each is, and how it is read."""

import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

from .folders import Sample, annotated_samples, samples_in
from .spec import IMAGENET_MEAN, IMAGENET_STD, DataSpec

Arrays = tuple[Tensor, Tensor]  # images (N, channels, size, size) uint8, labels (N,) int64


@dataclass(frozen=True)
class Source:
    """How to describe a set without its images, and how to read it.

    Attributes:
        describe: folder -> DataSpec.
        read: folder -> (train, test), each arrays or a list of files.
        is_folder: ``--data_path`` is the set's folder itself, not its parent.
    """

    describe: Callable[[Path], DataSpec]
    read: Callable[[Path, DataSpec], tuple[Arrays, Arrays] | tuple[list[Sample], list[Sample]]]
    is_folder: bool = False


def _digits(folder: Path, spec: DataSpec) -> tuple[Arrays, Arrays]:
    """scikit-learn's 1,797 8×8 digits, shown at 32×32; a stratified fifth, the same for every seed, is the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)  # values 0 to 16
    images = _resized(torch.from_numpy(images / 16 * 255).view(-1, 1, 8, 8), spec.size)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0)
    labels = torch.from_numpy(labels).long()
    return (images[train], labels[train]), (images[test], labels[test])


def _resized(images: Tensor, size: int) -> Tensor:
    """(N, channels, height, width) of any type with values 0 to 255 -> uint8 at `size`."""
    return F.interpolate(images.float(), (size, size), mode="bilinear").round().to(torch.uint8)


def _torchvision(dataset: type, file: str) -> Callable[[Path, DataSpec], tuple[Arrays, Arrays]]:
    """A reader of one of torchvision's array sets, downloaded on first use."""

    def read(folder: Path, spec: DataSpec) -> tuple[Arrays, Arrays]:
        splits = []
        for train in (True, False):
            try:
                found = dataset(str(folder), train=train, download=True)
            except (
                OSError,
                RuntimeError,
            ) as error:  # torchvision's words for no network and for a broken file
                said = " ".join(str(error).split())
                raise ValueError(f"{spec.name} could not be downloaded ({said}); put {file} into {folder}") from None
            images = torch.as_tensor(found.data)
            images = images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images.unsqueeze(1)
            if images.shape[-1] != spec.size:
                images = _resized(images, spec.size)
            splits.append((images, torch.as_tensor(found.targets).long()))
        return splits[0], splits[1]

    return read


def _describe_npz(folder: Path) -> DataSpec:
    shapes = {name: _npz_shape(folder / f"{name}.npz") for name in ("train", "test")}
    labels = {name: _npz_labels(folder / f"{name}.npz", shapes[name]) for name in shapes}
    _, height, width, channels = shapes["train"]
    if height != width or shapes["test"][1:] != shapes["train"][1:]:
        raise ValueError(f"images in {folder} must be square and alike in train.npz and test.npz, not {shapes}")
    most = {name: int(part.max()) for name, part in labels.items()}
    if most["test"] > most["train"]:
        raise ValueError(
            f"{folder / 'test.npz'} has label {most['test']}; those to train on go from 0 to {most['train']}"
        )
    colour = channels == 3
    return DataSpec(
        name=folder.resolve().name,
        classes=most["train"] + 1,
        channels=channels,
        size=height,
        mean=IMAGENET_MEAN if colour else (0.5,) * channels,
        std=IMAGENET_STD if colour else (0.5,) * channels,
        pad=height // 8,
        flip=colour,
        train_images=shapes["train"][0],
    )


def _npz_shape(file: Path) -> tuple[int, ...]:
    """Shape of ``images``, read from the header alone."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open("images.npy") as member:
            version = np.lib.format.read_magic(member)
            read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            shape, _, dtype = read[version](member)
    except OSError:
        raise ValueError(f"no file {file}; --dataset npz wants train.npz and test.npz in --data_path") from None
    except (KeyError, ValueError, zipfile.BadZipFile):
        raise ValueError(f"{file} is not an .npz file with an array 'images'") from None
    if dtype != np.uint8 or len(shape) != 4 or 0 in shape:
        raise ValueError(f"'images' in {file} must be uint8 of shape (N, H, W, C), not {dtype} of shape {shape}")
    return shape


def _npz_labels(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        with np.load(file) as arrays:
            labels = arrays.get("labels")
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:  # an array of objects; a damaged file
        raise ValueError(f"'labels' in {file} cannot be read: {error}") from None
    if labels is None or labels.shape != shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise ValueError(f"'labels' in {file} must be {shape[0]} integers from 0, one per image")
    return labels


def _read_npz(folder: Path, spec: DataSpec) -> tuple[Arrays, Arrays]:
    splits = []
    for name in ("train", "test"):
        file = folder / f"{name}.npz"
        try:
            with np.load(file) as arrays:
                images = torch.from_numpy(arrays["images"]).permute(0, 3, 1, 2).contiguous()
                splits.append((images, torch.from_numpy(arrays["labels"].astype(np.int64))))
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ValueError(f"{file} is damaged: {error}") from None
    return splits[0], splits[1]


def _describe_folder(folder: Path) -> DataSpec:
    samples, classes = samples_in(folder / "train")
    samples_in(folder / "val")
    name = folder.resolve().name
    return DataSpec(name, len(classes), 3, 224, IMAGENET_MEAN, IMAGENET_STD, flip=True, train_images=len(samples))


def _read_folder(folder: Path, spec: DataSpec) -> tuple[list[Sample], list[Sample]]:
    train, classes = samples_in(folder / "train")
    if len(classes) != spec.classes:
        raise ValueError(f"{folder / 'train'} has {len(classes)} classes, {spec.name} has {spec.classes}")
    if (folder / "val" / "val_annotations.txt").exists():
        return train, annotated_samples(folder / "val", classes)
    test, test_classes = samples_in(folder / "val")
    if test_classes != classes:
        odd = sorted(set(classes) ^ set(test_classes))
        raise ValueError(f"train/ and val/ in {folder} differ in the classes {', '.join(odd[:5])}")
    return train, test


def _fixed(spec: DataSpec, read) -> Source:
    return Source(lambda folder: spec, read)


_CIFAR100 = {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}
_IMAGENET = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD, "flip": True}
_CROP = {"pad": 4, "flip": True}

# A new set is one entry here. CIFAR-10 has ImageNet's mean and std, as in the original program.
DATASETS: dict[str, Source] = {
    "digits": _fixed(DataSpec("digits", 10, 1, 32, (0.3054,), (0.3237,), pad=4, train_images=1437), _digits),
    "mnist": _fixed(
        DataSpec("mnist", 10, 1, 32, (0.1307,), (0.3081,), train_images=60_000),
        _torchvision(datasets.MNIST, "MNIST/raw/*-ubyte"),
    ),
    "fashion_mnist": _fixed(
        DataSpec("fashion_mnist", 10, 1, 32, (0.2860,), (0.3530,), pad=4, train_images=60_000),
        _torchvision(datasets.FashionMNIST, "FashionMNIST/raw/*-ubyte"),
    ),
    "cifar10": _fixed(
        DataSpec("cifar10", 10, 3, 32, IMAGENET_MEAN, IMAGENET_STD, **_CROP, train_images=50_000),
        _torchvision(datasets.CIFAR10, "cifar-10-python.tar.gz"),
    ),
    "cifar100": _fixed(
        DataSpec("cifar100", 100, 3, 32, **_CIFAR100, **_CROP, train_images=50_000),
        _torchvision(datasets.CIFAR100, "cifar-100-python.tar.gz"),
    ),
    "npz": Source(_describe_npz, _read_npz, is_folder=True),
    "folder": Source(_describe_folder, _read_folder, is_folder=True),
    "imagenet": _fixed(DataSpec("imagenet", 1000, 3, 224, **_IMAGENET, train_images=1_281_167), _read_folder),
    "imagenet_subset_200": _fixed(DataSpec("imagenet_subset_200", 200, 3, 224, **_IMAGENET), _read_folder),
    "tiny_imagenet": _fixed(
        DataSpec("tiny_imagenet", 200, 3, 64, **_IMAGENET, pad=8, train_images=100_000), _read_folder
    ),
}
