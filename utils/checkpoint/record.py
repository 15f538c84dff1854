"""Metrics and counters of a run; stored in every checkpoint, so that a resumed run reports them all."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any


def _zeros() -> dict[str, float]:
    return Counter()  # type: ignore[return-value]  # a Counter adds floats, too; its type allows ints only


@dataclass
class PhaseCounters:
    """Steps, images and seconds, summed over all interruptions of the run.

    Attributes:
        iterations, seconds: by part of the run (``update``, ``cut``, …); steps repeated after a resume count once.
        images, stepping: training images, and seconds of training steps without tests, by phase.
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
        return {phase: n / self.stepping[phase] for phase, n in self.images.items() if self.stepping[phase]}


@dataclass
class PruningMetrics:
    """Metrics measured before fine-tuning; None where not applicable.

    Attributes:
        base, before_cut, after_cut: on the test set: ``acc1``, ``acc5`` (more than 5 classes), percent, and ``loss``.
        acc1_…_bn: with batch-norm statistics re-estimated on a copy, percent.
        gap: layer name -> the pruner's gap; for GReg a running average up to the last update of λ.
        latency: ``dense`` and ``cut`` -> batch size -> seconds of a forward pass and images per second.
        l1_comparison: layer name -> GReg-2's selection compared with L1's: overlap, Kendall's τ, Spearman's ρ.
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
        val_acc1: on the held-out part of the training set (``--val_fraction``), if any.
        best_epoch: by ``val_acc1`` if present, else by ``acc1``; counted from 0; None before the first epoch.
        n_correct, n_seen: correct and all training images of the current epoch.
    """

    acc1: list[float] = field(default_factory=list)
    acc5: list[float] = field(default_factory=list)
    val_acc1: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    n_correct: int = 0
    n_seen: int = 0

    def add(self, test: dict[str, float], val: dict[str, float] | None = None) -> bool:
        """Add an epoch. Returns whether it is the best."""
        self.acc1.append(test["acc1"])
        self.acc5 += [test["acc5"]] if "acc5" in test else []
        self.val_acc1 += [val["acc1"]] if val else []
        self.n_correct = self.n_seen = 0
        compared = self.val_acc1 or self.acc1
        if self.best_epoch is not None and compared[-1] <= compared[self.best_epoch]:
            return False
        self.best_epoch = len(self.acc1) - 1
        return True

    @property
    def best(self) -> float | None:
        """Test accuracy of the best epoch."""
        return self.of_best_epoch(self.acc1)

    def of_best_epoch(self, values: list[float]) -> float | None:
        """Return the best epoch's entry of `values` (one per epoch); None if there is none."""
        return None if self.best_epoch is None or not values else values[self.best_epoch]

    @property
    def last(self) -> float | None:
        return self.acc1[-1] if self.acc1 else None

    def last_epochs(self, n: int) -> tuple[float, float] | None:
        """Return mean and standard deviation of the test accuracy of the last `n` epochs."""
        tail = self.acc1[-n:]
        return (statistics.fmean(tail), statistics.pstdev(tail)) if tail else None


TESTED = ("phase", "step", "epoch", "lr", "train_acc1", "val_acc1", "test_acc1", "test_acc5", "test_loss")


@dataclass
class Record:
    """Record of a run.

    Attributes:
        images: numbers of training and test images; a run is resumed with the same data.
        base: description of the base weights' source; None: untrained.
        base_shapes: name -> shape of every tensor of an already pruned base network; empty for a dense one.
        tests: a row for each test of the network, with the keys ``TESTED``; missing values are None.
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
        """Return the state as plain values, under keys shared by all versions."""
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
        """Restore `state`, a result of ``state_dict``."""
        self.images, self.base, self.tests = tuple(state["images"]), state["base"], list(state["tests"])
        self.base_shapes = dict(state.get("base_shapes", {}))  # older versions pruned only dense networks
        names = {stored: name for name, stored in _STORED_AS.items()}
        self.pruning = PruningMetrics(**state["around"])
        self.finetuning = FinetuneMetrics(**{names.get(key, key): value for key, value in state["tuned"].items()})
        self.counters = PhaseCounters()
        for name, counts in state["tally"].items():
            getattr(self.counters, name).update(counts)


_STORED_AS = {"n_correct": "right", "n_seen": "seen"}
