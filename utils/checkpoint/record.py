"""Figures measured by a run so far; stored in every checkpoint, so that a resumed run reports them all."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def _zeros() -> dict[str, float]:
    return Counter()  # type: ignore[return-value]  # a Counter adds floats as well as ints; its type says ints alone


@dataclass
class PhaseCounters:
    """Steps, images and seconds, summed over all interruptions of the run.

    Attributes:
        iterations, seconds: by part of the run (``update``, ``cut``, …); of what was saved, without steps made twice.
        images, stepping: images trained on, and seconds of training steps alone, by phase.
    """

    iterations: dict[str, int] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=_zeros)
    images: dict[str, int] = field(default_factory=Counter)
    stepping: dict[str, float] = field(default_factory=_zeros)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - began

    @property
    def images_per_second(self) -> dict[str, float]:
        return {stage: n / self.stepping[stage] for stage, n in self.images.items() if self.stepping[stage]}


@dataclass
class PruningMetrics:
    """Figures measured before fine-tuning; None where not applicable.

    Attributes:
        base, before_cut, after_cut: on the test set: ``acc1``, ``acc5`` (more than 5 classes), percent, and ``loss``.
        acc1_…_bn: with batch-norm statistics re-estimated on a copy.
        gap: layer name -> the pruner's gap; GReg's is a running average that ends where λ does.
        latency: ``dense`` and ``cut`` -> batch size -> seconds of a forward pass and images per second.
        l1_comparison: layer name -> GReg-2's pick compared with L1's: overlap, Kendall's τ, Spearman's ρ.
    """

    base: dict[str, float] = field(default_factory=dict)
    before_cut: dict[str, float] = field(default_factory=dict)
    after_cut: dict[str, float] = field(default_factory=dict)
    acc1_before_cut_bn: float | None = None
    acc1_after_cut_bn: float | None = None
    gap: dict[str, float] = field(default_factory=dict)
    l1_comparison: dict[str, dict[str, float]] = field(default_factory=dict)
    latency: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    noisy_ensemble_acc1: float | None = None
    jacobian_singular_values: dict[str, float] | None = None


@dataclass
class FinetuneMetrics:
    """Accuracy by epoch, percent.

    Attributes:
        acc1, acc5: on the test set.
        val_acc1: on the held-out part of the training set, where there is one (``--val_fraction``).
        best_epoch: by ``val_acc1`` if that is there, else by ``acc1``; counted from 0; None where there was no epoch.
        n_correct, n_seen: training images of the current epoch.
    """

    acc1: list[float] = field(default_factory=list)
    acc5: list[float] = field(default_factory=list)
    val_acc1: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    n_correct: int = 0
    n_seen: int = 0

    def add(self, test: dict[str, float], val: dict[str, float] | None = None) -> bool:
        """Add an epoch. Returns whether it is the best so far."""
        self.acc1.append(test["acc1"])
        self.acc5 += [test["acc5"]] if "acc5" in test else []
        self.val_acc1 += [val["acc1"]] if val else []
        self.n_correct = self.n_seen = 0
        judged = self.val_acc1 or self.acc1
        if self.best_epoch is not None and judged[-1] <= judged[self.best_epoch]:
            return False
        self.best_epoch = len(self.acc1) - 1
        return True

    @property
    def best(self) -> float | None:
        """Test accuracy of the best epoch."""
        return self.of_best_epoch(self.acc1)

    def of_best_epoch(self, values: list[float]) -> float | None:
        """The entry of `values`, one per epoch, of the best epoch; None where there are none."""
        return None if self.best_epoch is None or not values else values[self.best_epoch]

    @property
    def last(self) -> float | None:
        return self.acc1[-1] if self.acc1 else None

    def last_epochs(self, n: int) -> tuple[float, float] | None:
        """Mean and standard deviation of the last `n` epochs' accuracy."""
        tail = self.acc1[-n:]
        return (statistics.fmean(tail), statistics.pstdev(tail)) if tail else None


TESTED = ("phase", "step", "epoch", "lr", "train_acc1", "val_acc1", "test_acc1", "test_acc5", "test_loss")


@dataclass
class Record:
    """Attributes:
    images: number of images to train on and to test: a run is resumed with the data that it began with.
    base: where the starting weights came from, in words; None: untrained.
    base_shapes: name -> shape of every tensor of a base network that was pruned before; empty for a dense one.
    tests: a row for each test of the network, with the keys ``TESTED``, None where there is no such figure.
    """

    images: tuple[int, int] = (0, 0)
    base: str | None = None
    base_shapes: dict[str, list[int]] = field(default_factory=dict)
    pruning: PruningMetrics = field(default_factory=PruningMetrics)
    finetuning: FinetuneMetrics = field(default_factory=FinetuneMetrics)
    counters: PhaseCounters = field(default_factory=PhaseCounters)
    tests: list[dict[str, Any]] = field(default_factory=list)

    def add_test(self, phase: str, step: int, test: dict[str, float], **more: Any) -> None:
        """Add a row of accuracies after `step` steps of `phase`."""
        row = {"phase": phase, "step": step, **{f"test_{key}": value for key, value in test.items()}, **more}
        self.tests.append({key: row.get(key) for key in TESTED})

    def state_dict(self) -> dict[str, Any]:
        """State as plain values, under keys that all versions share."""
        finetuning = asdict(self.finetuning)
        return {
            "images": self.images,
            "base": self.base,
            "base_shapes": self.base_shapes,
            "around": asdict(self.pruning),
            "tuned": {_STORED_AS.get(name, name): value for name, value in finetuning.items()},
            "tally": {f.name: dict(getattr(self.counters, f.name)) for f in fields(PhaseCounters)},
            "tests": [dict(row) for row in self.tests],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state`, a result of ``state_dict``."""
        self.images, self.base, self.tests = tuple(state["images"]), state["base"], list(state["tests"])
        self.base_shapes = dict(state.get("base_shapes", {}))  # older versions pruned dense networks only
        names = {stored: name for name, stored in _STORED_AS.items()}
        self.pruning = PruningMetrics(**state["around"])
        self.finetuning = FinetuneMetrics(**{names.get(key, key): value for key, value in state["tuned"].items()})
        self.counters = PhaseCounters()
        for name, counts in state["tally"].items():
            getattr(self.counters, name).update(counts)


_STORED_AS = {"n_correct": "right", "n_seen": "seen"}
