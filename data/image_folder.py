"""Sets of image files, read by DataLoader workers through torchvision's decoders and transforms."""

import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from .images import check_images, load_image, load_pixels
from .sampler import Shard, batches_of_indices, held_out, images_in_step
from .spec import DataSpec
from .split import FILLING, Batch
from .transforms import N_DRAWS, Normalize, random_crop, random_resized_crop
from .tree import Sample
from .workers import end_with_program, starting_workers, worker_errors

ANNOTATIONS = "val_annotations.txt"
LARGEST_UNRESIZED = 64  # pixels; images of larger sets are resized
MOST_CHECKED = 20_000  # headers checked before a run: of all test images, and of training images up to this sum


def annotated_samples(folder: Path, classes: list[str]) -> tuple[list[Sample], int]:
    """List the files of Tiny-ImageNet's own ``val/``: ``images/`` and ``val_annotations.txt`` (file, class, box).

    Returns:
        The files with their classes, and the number of files in ``images/`` without a line.

    Raises:
        ValueError: the annotations cannot be read, name a file twice, or a class or a file that is not there.
    """
    file = folder / ANNOTATIONS
    label = {name: i for i, name in enumerate(classes)}
    samples: dict[str, int] = {}
    for line in filter(None, _bytes_of(file).splitlines()):
        name, class_name = [os.fsdecode(word) for word in (*line.split(b"\t"), b"")[:2]]
        if class_name not in label:
            raise ValueError(f"{file} has a line without a class of train/: {os.fsdecode(line)!r}")
        path = os.path.join(folder, "images", name)
        if os.path.basename(name) != name or not os.path.isfile(path):
            raise ValueError(f"{file} names {name!r}, which is not a file in {folder / 'images'}")
        if path in samples:
            raise ValueError(f"{file} names {name!r} twice")
        samples[path] = label[class_name]
    return [*samples.items()], sum(path.is_file() for path in (folder / "images").glob("*")) - len(samples)


def _bytes_of(file: Path) -> bytes:
    if not os.path.isfile(file):  # a FIFO would be waited for
        raise ValueError(f"{file} is not a file")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from None


def check_files(train: list[Sample], test: list[Sample], spec: DataSpec, show_progress: bool = True) -> None:
    """Check the headers of all images, or, of more than ``MOST_CHECKED``, of the test set and some to train on.

    Raises:
        ValueError: some cannot be used; names them.
    """
    n_train = min(max(MOST_CHECKED - len(test), 0), len(train))
    chosen = [train[i * len(train) // n_train] for i in range(n_train)]  # of all classes
    size = None if spec.size > LARGEST_UNRESIZED else spec.size
    check_images([path for path, _ in chosen + test], size, show_progress)


def read_augmented(spec: DataSpec, path: str, draws: list[float]) -> Tensor:
    """Read a training image; resized as a tensor, which takes a third of PIL's time."""
    image = load_pixels(path)
    if spec.size > LARGEST_UNRESIZED:
        return random_resized_crop(image, spec.size, draws, spec.flip)
    return random_crop(image, spec.pad, draws, spec.flip)


def plain_transform(spec: DataSpec) -> Callable[[Any], Tensor]:
    """Make the transform of test images, that of torchvision's references."""
    resize = [transforms.Resize(spec.size * 256 // 224), transforms.CenterCrop(spec.size)]
    return transforms.Compose([*(resize if spec.size > LARGEST_UNRESIZED else ()), transforms.PILToTensor()])


def read_plain(transform: Callable[[Any], Tensor], path: str, draws: list[float]) -> Tensor:
    """Read a test image."""
    return transform(load_image(path))


Reader = Callable[[str, list[float]], Tensor]  # path, numbers that augmentation uses -> image
Key = tuple[int, list[float], bool]  # index, numbers that augmentation uses, and whether the image only fills up


class _Files(Dataset):
    """Images by key."""

    def __init__(self, samples: list[Sample], read: Reader):
        self.samples, self.read = samples, read

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index, draws, fills_up = key
        path, label = self.samples[index]
        return self.read(path, draws), FILLING if fills_up else label


class FolderSplit:
    """The training or the test half of a set of image files."""

    def __init__(self, samples: list[Sample], spec: DataSpec, device: torch.device, workers: int):
        self.samples, self.spec, self.device = samples, spec, device
        # More workers than cores only take turns.
        self.workers = min(workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else workers)
        self._normalize = Normalize(spec, device)  # a batch at a time: workers pass bytes on, a quarter of the floats

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def labels(self) -> Tensor:
        """(N,) int64."""
        return torch.tensor([label for _, label in self.samples], dtype=torch.int64)

    def augmented(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the training batches of step `start`, `start` + 1, … without end."""
        sizes = (images_in_step(len(self), batch_size, step) for step in count(start))
        keys = self._keys(batch_size, seed, stream, start, shard)
        return self._load(partial(read_augmented, self.spec), keys, sizes)

    def _keys(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[list[Key]]:
        for indices, generator in batches_of_indices(len(self), batch_size, seed, stream, start):
            draws = torch.rand(len(indices), N_DRAWS, generator=generator)
            local_indices, filling = shard.local_indices(len(indices))
            fills_up = [False] * (len(local_indices) - filling) + [True] * filling
            yield list(zip(indices[local_indices].tolist(), draws[local_indices].tolist(), fills_up, strict=True))

    def plain(self, batch_size: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the images, each once, unaugmented."""
        indices = torch.arange(len(self))[shard.part(len(self))]
        keys: list[list[Key]] = [[(i, [], False) for i in part.tolist()] for part in indices.split(batch_size)]
        return self._load(partial(read_plain, plain_transform(self.spec)), keys, map(len, keys))

    def held_out(self, n_out: int, seed: int) -> "tuple[FolderSplit, FolderSplit]":
        """Return the remaining images, and `n_out` drawn at random."""
        out, rest = held_out(len(self), n_out, seed)
        return self._part(rest), self._part(out)

    def _part(self, indices: Tensor) -> "FolderSplit":
        return FolderSplit([self.samples[i] for i in indices.tolist()], self.spec, self.device, self.workers)

    def _load(self, read: Reader, keys: Iterable[list[Key]], sizes: Iterable[int]) -> Iterator[Batch]:
        loader = DataLoader(
            _Files(self.samples, read),
            batch_sampler=keys,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=end_with_program,
            generator=torch.Generator(),  # else the workers' seed is drawn from the global one
        )
        with worker_errors() as workers:
            with starting_workers(workers):
                batches = iter(loader)
            for (images, labels), size in zip(batches, sizes, strict=False):
                if self.device.type == "cpu":
                    yield Batch(self._normalize.in_one_thread(images), labels, size)
                    continue
                images, labels = (part.to(self.device, non_blocking=True) for part in (images, labels))
                yield Batch(self._normalize(images), labels, size)
