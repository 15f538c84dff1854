"""Sets of image files, read by DataLoader workers through torchvision's transforms."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader

from .arrays import FILLING, Batch, Normalise, held_out
from .order import Shard, batches_of_indices
from .spec import DataSpec

Sample = tuple[str, int]  # path, label


def samples_in(folder: Path) -> tuple[list[Sample], list[str]]:
    """Files and class names of an ImageFolder tree, without opening an image.

    Raises:
        ValueError: no such folder, or no class folder with images in it.
    """
    try:
        tree = ImageFolder(str(folder))
    except OSError as error:
        raise ValueError(f"no images in class folders under {folder}: {' '.join(str(error).split())}") from None
    return tree.samples, tree.classes


def annotated_samples(folder: Path, classes: list[str]) -> list[Sample]:
    """Files of Tiny-ImageNet's own ``val/``: ``images/`` and ``val_annotations.txt`` (file, class, box)."""
    label = {name: i for i, name in enumerate(classes)}
    lines = (folder / "val_annotations.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line]
    try:
        samples = [(str(folder / "images" / row[0]), label[row[1]]) for row in rows]
    except (IndexError, KeyError) as error:
        raise ValueError(f"{folder / 'val_annotations.txt'} has a line without a class of train/: {error}") from None
    missing = next((path for path, _ in samples if not os.path.exists(path)), None)
    if missing:
        raise ValueError(f"{folder / 'val_annotations.txt'} names {missing}, which is not there")
    return samples


class BadImageError(ValueError):
    """A file that is no image, met when it is read."""


@contextmanager
def _numbers_from(seed: int) -> Iterator[None]:
    """Random numbers within follow `seed`; those of the run are left alone, of which a worker process has none."""
    state = None if get_worker_info() else torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    yield
    if state is not None:
        torch.set_rng_state(state)


Key = tuple[int, int, bool]  # index, seed, and whether the image counts or only fills up


class _Files(Dataset):
    """Images by key: augmentation draws from the key's seed, whichever worker does it."""

    def __init__(self, samples: list[Sample], transform):
        self.samples, self.transform = samples, transform

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        index, seed, counts = key
        path, label = self.samples[index]
        try:
            image = default_loader(path)
        except OSError as error:
            raise BadImageError(f"the image {path} cannot be read: {error}") from None
        with _numbers_from(seed):
            return self.transform(image), label if counts else FILLING


def _leave_signals_to_the_program(worker: int) -> None:
    """Ctrl-C goes to every process of a terminal; the program finishes its step, for which it needs its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class FolderSplit:
    """The training or the test half of a set of image files."""

    def __init__(self, samples: list[Sample], spec: DataSpec, device: torch.device, workers: int):
        self.samples, self.spec, self.device = samples, spec, device
        # More workers than cores only take turns.
        self.workers = min(workers, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else workers)
        self._normalise = Normalise(spec, device)  # a batch at a time: workers pass bytes on, a quarter of the floats
        finish = [transforms.PILToTensor()]
        if spec.size > 64:
            train = [transforms.RandomResizedCrop(spec.size)]
            test = [transforms.Resize(spec.size * 256 // 224), transforms.CenterCrop(spec.size)]
        else:
            train, test = [transforms.RandomCrop(spec.size, padding=spec.pad)], []
        flip = [transforms.RandomHorizontalFlip()] if spec.flip else []
        self._train, self._test = transforms.Compose(train + flip + finish), transforms.Compose(test + finish)

    def __len__(self) -> int:
        return len(self.samples)

    def augmented(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the training batches of step `start`, `start` + 1, … without end."""
        return self._load(self._train, self._keys(batch_size, seed, stream, start, shard))

    def _keys(self, batch_size: int, seed: int, stream: str, start: int, shard: Shard) -> Iterator[list[Key]]:
        for indices, generator in batches_of_indices(len(self), batch_size, seed, stream, start):
            seeds = torch.randint(2**62, (len(indices),), generator=generator)
            places, filling = shard.places(len(indices))
            real = [True] * (len(places) - filling) + [False] * filling
            yield list(zip(indices[places].tolist(), seeds[places].tolist(), real, strict=True))

    def plain(self, batch_size: int, shard: Shard) -> Iterator[Batch]:
        """`shard`'s part of the images, each once, unaugmented."""
        indices = torch.arange(len(self))[shard.part(len(self))]
        return self._load(self._test, [[(i, 0, True) for i in part.tolist()] for part in indices.split(batch_size)])

    def held_out(self, n_out: int, seed: int) -> "tuple[FolderSplit, FolderSplit]":
        """What stays, and `n_out` images drawn at random."""
        out, rest = held_out(len(self), n_out, seed)
        return tuple(
            FolderSplit([self.samples[i] for i in part.tolist()], self.spec, self.device, self.workers)
            for part in (rest, out)
        )

    def _load(self, transform, keys) -> Iterator[Batch]:
        loader = DataLoader(
            _Files(self.samples, transform),
            batch_sampler=keys,
            num_workers=self.workers,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_leave_signals_to_the_program,
            generator=torch.Generator(),  # else the workers' seed is drawn from the global one
        )
        try:
            for images, labels in loader:
                images, labels = (part.to(self.device, non_blocking=True) for part in (images, labels))
                yield self._normalise(images), labels
        except BadImageError as error:  # a worker's comes with its traceback in the text
            raise BadImageError(str(error).strip().splitlines()[-1].split("BadImageError: ")[-1]) from None
