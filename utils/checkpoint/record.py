"""What a run has measured so far. Every checkpoint holds it: a run that was killed reports what it would have."""

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass
class PhaseCounters:
    """What the phases took, in all processes that worked on the run one after the other.

    Attributes:
        iterations, seconds: by phase; seconds of what was saved, that is, without steps made twice.
        images, stepping: images trained on and seconds of training steps alone, by stage of the run.
    """

    iterations: Counter = field(default_factory=Counter)
    seconds: Counter = field(default_factory=Counter)
    images: Counter = field(default_factory=Counter)
    stepping: Counter = field(default_factory=Counter)

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
    """What was measured before fine-tuning; None where nothing was there to measure.

    Attributes:
        base, before_cut, after_cut: on the test set: ``acc1``, ``acc5`` (more than 5 classes), percent, and ``loss``.
        acc1_…_bn: with batch-norm statistics re-estimated on a copy.
        gap: layer name -> the pruner's gap; GReg's is a running average that ends where λ does.
        latency: ``dense`` and ``cut`` -> batch size -> seconds of a forward pass and images per second.
        l1_comparison: layer name -> GReg-2's pick held against L1's: overlap, Kendall's τ, Spearman's ρ.
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
        right, seen: training images of the epoch under way.
    """

    acc1: list[float] = field(default_factory=list)
    acc5: list[float] = field(default_factory=list)
    val_acc1: list[float] = field(default_factory=list)
    best_epoch: int | None = None
    right: int = 0
    seen: int = 0

    def add(self, test: dict[str, float], val: dict[str, float] | None = None) -> bool:
        """One more epoch. Returns whether it is the best so far."""
        self.acc1.append(test["acc1"])
        self.acc5 += [test["acc5"]] if "acc5" in test else []
        self.val_acc1 += [val["acc1"]] if val else []
        self.right = self.seen = 0
        judged = self.val_acc1 or self.acc1
        if self.best_epoch is not None and judged[-1] <= judged[self.best_epoch]:
            return False
        self.best_epoch = len(self.acc1) - 1
        return True

    @property
    def best(self) -> float | None:
        """Test accuracy of the best epoch."""
        return None if self.best_epoch is None else self.acc1[self.best_epoch]

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
    images: of the training and the test set: a run goes on with the data that it began with.
    base: where the starting weights came from, in words; None if nobody had trained them.
    tests: a row for each test of the network, with the keys ``TESTED``, None where there is no such figure.
    """

    images: tuple[int, int] = (0, 0)
    base: str | None = None
    around: PruningMetrics = field(default_factory=PruningMetrics)
    tuned: FinetuneMetrics = field(default_factory=FinetuneMetrics)
    tally: PhaseCounters = field(default_factory=PhaseCounters)
    tests: list[dict[str, Any]] = field(default_factory=list)

    def tested(self, phase: str, step: int, test: dict[str, float], **more: Any) -> None:
        """One more row of accuracies after `step` steps of `phase`."""
        row = {"phase": phase, "step": step, **{f"test_{key}": value for key, value in test.items()}, **more}
        self.tests.append({key: row.get(key) for key in TESTED})

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "images": self.images,
            "base": self.base,
            "around": asdict(self.around),
            "tuned": asdict(self.tuned),
            "tally": {f.name: dict(getattr(self.tally, f.name)) for f in fields(PhaseCounters)},
            "tests": [dict(row) for row in self.tests],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`, which ``state_dict`` gave."""
        self.images, self.base, self.tests = tuple(state["images"]), state["base"], list(state["tests"])
        self.around, self.tuned = PruningMetrics(**state["around"]), FinetuneMetrics(**state["tuned"])
        self.tally = PhaseCounters(**{name: Counter(counts) for name, counts in state["tally"].items()})
