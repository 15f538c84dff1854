"""Order of images: a function of (seed, stream, step) alone, so that runs can be resumed."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


def generator_for(seed: int, stream: str, *counts: int) -> torch.Generator:
    """Create the generator of (seed, stream, counts); `stream` separates phases."""
    state = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counts]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


@dataclass(frozen=True)
class Shard:
    """This process's part of every batch.

    Attributes:
        rank: which process this is, from 0.
        world_size: how many there are.
    """

    rank: int = 0
    world_size: int = 1

    def part(self, n: int) -> slice:
        """This process's contiguous part of `n` indices."""
        return slice(n * self.rank // self.world_size, n * (self.rank + 1) // self.world_size)

    def local_indices(self, n: int) -> tuple[Tensor, int]:
        """This process's indices in a batch of `n`, and how many at their end are padding.

        Batch-norm wants two images, though a short batch may have fewer for each process.
        """
        own = torch.arange(n)[self.part(n)]
        lacking = max(min(2, n) - len(own), 0) if self.world_size > 1 else 0
        return torch.cat([own, torch.arange(lacking)]), lacking


def images_in_step(n_images: int, batch_size: int, step: int) -> int:
    """Size of the batch of `step`, over all processes."""
    at = step % steps_per_epoch(n_images, batch_size) * batch_size
    return min(batch_size, n_images - at)


def held_out_images(n_images: int, val_fraction: float) -> int:
    """Number of images that `val_fraction` of `n_images` training images holds out."""
    return round(val_fraction * n_images)


class ArgumentError(ValueError):
    """An argument does not fit the set.

    Attributes:
        argument: its name.
    """

    def __init__(self, argument: str, text: str):
        super().__init__(text)
        self.argument = argument


def check_subset(n_images: int, n_wanted: int | None, val_fraction: float, name: str, n_ranks: int = 1) -> None:
    """Check that a set has as many training images as are wanted, and enough to hold some out.

    Args:
        n_images: that the set has.
        n_wanted: None: all.
        name: of the set.

    Raises:
        ArgumentError: it has not, or too few are left to train on.
    """
    n, ranks = n_wanted or n_images, f", for {n_ranks} processes" if n_ranks > 1 else ""
    if n > n_images:
        raise ArgumentError("train_images", f"{n}: {name} has {n_images}")
    if n < max(2, n_ranks):
        raise ArgumentError("train_images", f"{n} is too few to train on{ranks}")
    n_out, given = held_out_images(n, val_fraction), f"{val_fraction:g} of {n} training images"
    if val_fraction and n_out < n_ranks:
        raise ArgumentError("val_fraction", f"{given} is {n_out or 'none'}{ranks}; give a larger one")
    if val_fraction and n - n_out < max(2, n_ranks):
        raise ArgumentError("val_fraction", f"{given} leaves {n - n_out} to train on{ranks}; give a smaller one")


def held_out(n_images: int, n_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of the `n_out` images held out and of the others, each in order."""
    order = torch.randperm(n_images, generator=generator_for(seed, "held out"))
    return order[:n_out].sort().values, order[n_out:].sort().values


def steps_per_epoch(n_images: int, batch_size: int) -> int:
    """Batches in one pass; the last short one counts unless it is a single image, which batch-norm cannot take."""
    short = n_images % batch_size
    return max(n_images // batch_size + (short > 1), 1)


def batches_of_indices(
    n_images: int, batch_size: int, seed: int, stream: str, start: int = 0
) -> Iterator[tuple[Tensor, torch.Generator]]:
    """For step `start`, `start` + 1, …: the indices of its images, (batch,), and its generator for augmentation."""
    steps = steps_per_epoch(n_images, batch_size)
    step = start
    while True:
        epoch = step // steps
        order = torch.randperm(n_images, generator=generator_for(seed, f"{stream} order", epoch))
        while step // steps == epoch:
            at = step % steps * batch_size
            yield order[at : at + batch_size], generator_for(seed, f"{stream} augmentation", step)
            step += 1
