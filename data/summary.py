"""Summary line of a data set."""

import torch
from torch import Tensor

from .tree import first_ten


def counts_of(split, classes: int) -> Tensor:
    """Number of images per label, (`classes`,)."""
    return torch.bincount(split.labels.cpu(), minlength=classes)


def summary_of(counts: Tensor, n_held_out: int, n_test: int, passed_over: str) -> str:
    """Summarize: ``images: 18 to train on in 3 classes (6 to 6 each), 18 to test; passed over: 2 hidden``.

    Args:
        counts: training images per label.
        passed_over: entries that were not read, as text.
    """
    held_out = f", {n_held_out:,} held out" if n_held_out else ""
    return (
        f"images: {int(counts.sum()):,} to train on in {len(counts):,} classes "
        f"({int(counts.min()):,} to {int(counts.max()):,} each){held_out}, {n_test:,} to test"
        + (f"; passed over: {passed_over}" if passed_over else "")
    )


def missing_labels(counts: Tensor, part: str, class_names: tuple[str, ...]) -> str:
    """Name the labels that no image of `part` has; empty where all have some."""
    missing = (counts == 0).nonzero().flatten().tolist()
    names = [f"{label} ({class_names[label]})" if class_names else str(label) for label in missing]
    return f"no {part} image has label {first_ten(names)}" if names else ""
