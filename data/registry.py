"""Data sets by name."""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import datasets

from .contents import Contents, fingerprint_of, fingerprint_of_files
from .image_folder import ANNOTATIONS, annotated_samples
from .npz import describe_npz, read_npz
from .spec import IMAGENET_MEAN, IMAGENET_STD, DataSpec
from .tree import ImageTree, Sample, find_images, first_ten, passed_over_text


@dataclass(frozen=True)
class Source:
    """Opener of a data set, which describes it without reading an image.

    Attributes:
        open: folder -> the set, described.
        is_folder: the path that a user gives is the set's folder itself, not its parent.
    """

    open: Callable[[Path], "OpenSet"]
    is_folder: bool = False


@dataclass(frozen=True)
class OpenSet:
    """A data set with a known description, ready to be read."""

    spec: DataSpec
    read: Callable[[], Contents]


def _digits(folder: Path, spec: DataSpec) -> Contents:
    """scikit-learn's 1,797 8×8 digits, shown at 32×32; a stratified fifth, the same for every seed, is the test."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    raw, targets = load_digits(return_X_y=True)  # values 0 to 16
    images = _resized(torch.from_numpy(raw / 16 * 255).view(-1, 1, 8, 8), spec.size)
    train, test = train_test_split(np.arange(len(targets)), test_size=0.2, stratify=targets, random_state=0)
    labels = torch.from_numpy(targets).long()
    # Of the digits before resizing, whose rounding is the machine's.
    fingerprint = fingerprint_of([array[part].astype(np.uint8) for part in (train, test) for array in (raw, targets)])
    names = tuple(str(digit) for digit in range(spec.classes))
    return Contents(spec, (images[train], labels[train]), (images[test], labels[test]), fingerprint, names)


def _resized(images: Tensor, size: int) -> Tensor:
    """(N, channels, height, width) of any type with values 0 to 255 -> uint8 at `size`."""
    return F.interpolate(images.float(), (size, size), mode="bilinear").round().to(torch.uint8)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process of this machine reads or downloads a set in `folder`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / ".lock", "w")  # noqa: SIM115 - closed below
    except OSError:  # files that were put there, and no right to write beside them
        yield
        return
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _torchvision(dataset: type, file: str) -> Callable[[Path, DataSpec], Contents]:
    """A reader of one of torchvision's array sets, downloaded on first use."""

    def read(folder: Path, spec: DataSpec) -> Contents:
        splits, raw = [], []
        for train in (True, False):
            try:
                with _alone_in(folder):
                    loaded = dataset(str(folder), train=train, download=True)
            except Exception as error:  # no network, and whatever torchvision's readers raise on a broken file
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"{spec.name} could not be downloaded ({reason}); put {file} into {folder}") from None
            images, labels = torch.as_tensor(loaded.data), torch.as_tensor(loaded.targets).long()
            if len(images) != len(labels) or labels.min() < 0 or labels.max() >= spec.classes:
                raise ValueError(f"the files of {spec.name} in {folder} are damaged; remove them, and put {file} there")
            raw += [images.numpy(), labels.numpy()]  # before resizing, whose rounding is the machine's
            images = images.permute(0, 3, 1, 2).contiguous() if images.ndim == 4 else images.unsqueeze(1)
            if images.shape[-1] != spec.size:
                images = _resized(images, spec.size)
            splits.append((images, labels))
        train_split, test_split = splits
        return Contents(spec, train_split, test_split, fingerprint_of(raw), tuple(loaded.classes))

    return read


def _open_folder(folder: Path) -> OpenSet:
    """Describe a user's folder; it is walked here and not again."""
    train = _train_tree(folder)
    test, passed_over = _test_files(folder, train.classes)
    name, n_classes, n_images = folder.resolve().name, len(train.classes), len(train.samples)
    spec = DataSpec(name, n_classes, 3, 224, IMAGENET_MEAN, IMAGENET_STD, flip=True, train_images=n_images)
    return OpenSet(spec, lambda: _folder_contents(folder, spec, train, test, passed_over))


def _read_folder(folder: Path, spec: DataSpec) -> Contents:
    train = _train_tree(folder)
    if len(train.classes) != spec.classes:
        raise ValueError(f"{folder / 'train'} has {len(train.classes)} classes, {spec.name} has {spec.classes}")
    return _folder_contents(folder, spec, train, *_test_files(folder, train.classes))


def _folder_contents(
    folder: Path, spec: DataSpec, train: ImageTree, test: list[Sample], passed_over: Counter[str]
) -> Contents:
    return Contents(
        spec,
        train.samples,
        test,
        fingerprint_of_files(folder, train.samples, test),
        tuple(train.classes),
        passed_over_text(train.passed_over + passed_over),
    )


def _train_tree(folder: Path) -> ImageTree:
    """The training images, of two classes or more."""
    train = folder / "train"
    if not os.path.isdir(train):
        below = sorted(path.parent for path in folder.glob("*/train")) if os.path.isdir(folder) else []
        hint = f"; {below[0]} has them: take that folder" if below else ""
        raise ValueError(f"no folder {train}: the set wants class folders of images in train/ and in val/{hint}")
    tree = find_images(train)
    if len(tree.classes) == 1:
        (only,) = tree.classes
        inside = {Path(path).relative_to(train / only).parts[0] for path, _ in tree.samples}
        deeper = f"; the class folders seem to lie one level deeper, in {train / only}: move them up into {train}"
        raise ValueError(
            f"{train} has one class only, '{only}': training needs two or more"
            + (deeper if len(inside) > 1 and all((train / only / name).is_dir() for name in inside) else "")
        )
    return tree


def _test_files(folder: Path, classes: list[str]) -> tuple[list[Sample], Counter[str]]:
    """The images of ``val/``, and what is passed over there.

    Raises:
        ValueError: their classes are not those of ``train/``.
    """
    if os.path.lexists(folder / "val" / ANNOTATIONS):
        samples, others = annotated_samples(folder / "val", classes)
        return samples, Counter({f"not in {ANNOTATIONS}": others} if others else {})
    tree = find_images(folder / "val")
    if tree.classes == ["images"]:
        raise ValueError(f"{folder / 'val'} has images/ alone: Tiny-ImageNet's {ANNOTATIONS} is missing beside it")
    if tree.classes != classes:
        odd = sorted(set(classes) ^ set(tree.classes))
        raise ValueError(f"train/ and val/ in {folder} differ in the classes {first_ten(odd)}")
    return tree.samples, tree.passed_over


def _fixed(spec: DataSpec, read: Callable[[Path, DataSpec], Contents]) -> Source:
    """A data set with a fixed description; its files are not opened before they are read."""
    return Source(lambda folder: OpenSet(spec, lambda: read(folder, spec)))


def _open_npz(folder: Path) -> OpenSet:
    return OpenSet(describe_npz(folder), lambda: read_npz(folder))


_CIFAR100_MEAN, _CIFAR100_STD = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)


def _cifar(name: str, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> DataSpec:
    return DataSpec(name, classes, 3, 32, mean, std, pad=4, flip=True, train_images=50_000)


def _imagenet(name: str, classes: int, size: int = 224, pad: int = 0, train_images: int | None = None) -> DataSpec:
    return DataSpec(name, classes, 3, size, IMAGENET_MEAN, IMAGENET_STD, pad=pad, flip=True, train_images=train_images)


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
        _cifar("cifar10", 10, IMAGENET_MEAN, IMAGENET_STD),
        _torchvision(datasets.CIFAR10, "cifar-10-python.tar.gz"),
    ),
    "cifar100": _fixed(
        _cifar("cifar100", 100, _CIFAR100_MEAN, _CIFAR100_STD),
        _torchvision(datasets.CIFAR100, "cifar-100-python.tar.gz"),
    ),
    "npz": Source(_open_npz, is_folder=True),
    "folder": Source(_open_folder, is_folder=True),
    "imagenet": _fixed(_imagenet("imagenet", 1000, train_images=1_281_167), _read_folder),
    "imagenet_subset_200": _fixed(_imagenet("imagenet_subset_200", 200), _read_folder),
    "tiny_imagenet": _fixed(_imagenet("tiny_imagenet", 200, size=64, pad=8, train_images=100_000), _read_folder),
}
