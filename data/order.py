"""Which images, in which order: a function of (seed, stream, step) alone, so that a run can be continued."""

import zlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


def generator_for(seed: int, stream: str, *counts: int) -> torch.Generator:
    """A generator of its own for each (seed, stream, counts); `stream` keeps phases apart."""
    state = np.random.SeedSequence([seed, zlib.crc32(stream.encode()), *counts]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> 1))


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
