"""The tables of RESULTS.md, as rows of text.

To add one: an entry in ``TABLES`` (experiments of evidence.yaml and the columns to show of them) and a line
``{{name}}`` in results_template.md.
"""

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass

from scripts.evidence.runs import Report, Run, accuracies, arithmetic, by_length, by_rate, gains, mean_and_std, steps

AXES_FIRST = ("arch", "ratio", "method")
TITLES = {
    "arch": "net",
    "tau": "λ grows to",
    "tau_pick": "picked at λ",
    "before": "steps before the cut",
    "tuned": "steps of fine-tuning",
}
# In the order in which they are spoken of.
METHODS = ("none", "L1", "L1-longer", "GReg-1", "GReg-2", "Torch-Pruning", "scratch")


@dataclass(frozen=True)
class Column:
    """A figure of a run; over seeds its mean and standard deviation (n - 1) are shown.

    Attributes:
        of: report -> the figure, or None where there is none.
        show: how a number is written.
    """

    title: str
    of: Callable[[Report], float | None]
    show: str = "{:.2f}"


def acc(title: str, key: str) -> Column:
    return Column(title, lambda report: report[key])


def lost(report: Report) -> float | None:
    before, after = report["acc1_before_cut_bn"], report["acc1_after_cut_bn"]
    return None if before is None else before - after


def smallest_gap(report: Report) -> float | None:
    return min(report["gap"].values(), default=None)


def mean_of(key: str, times: float = 1) -> Callable[[Report], float | None]:
    """Of the comparison with L1's pick, over the layers."""

    def mean(report: Report) -> float | None:
        found = [times * values[key] for values in report["l1_comparison"].values()]
        return statistics.fmean(found) if found else None

    return mean


def percent_gone(before: str, after: str) -> Callable[[Report], float]:
    return lambda report: 100 * (1 - report[after] / report[before])


AROUND = [
    acc("before the cut, raw", "acc1_before_cut"),
    acc("after, raw", "acc1_after_cut"),
    acc("before, re-estimated", "acc1_before_cut_bn"),
    acc("after, re-estimated", "acc1_after_cut_bn"),
    Column("lost, re-estimated", lost),
]
TUNED = [acc("best epoch (on test)", "acc1_best"), acc("last epoch", "acc1_last")]
STEPS = [
    Column("steps before the cut", lambda report: steps(report)[0], "{:.0f}"),
    Column("steps of fine-tuning", lambda report: steps(report)[1], "{:.0f}"),
]
COST = [
    Column("speedup", lambda report: report["speedup"], "{:.2f}x"),
    Column("params gone, %", percent_gone("params_before", "params_after")),
    Column("with batch-norm, %", percent_gone("params_with_bn_before", "params_with_bn_after")),
    Column("hours", lambda report: sum(report["seconds"].values()) / 3600, "{:.3f}"),
]
ARITHMETIC = Column("arithmetic, in steps of the uncut network", arithmetic, "{:.0f}")
BASE = [acc("as it came", "acc1_base"), *TUNED, Column("steps", lambda report: steps(report)[1], "{:.0f}")]
ZEROS = Column("zeros, %", lambda report: 100 * report["sparsity"] if "sparsity" in report else None)
PICK = [
    Column("pick shared with L1, %", mean_of("overlap", times=100), "{:.1f}"),
    Column("Kendall's correlation to the start", mean_of("kendall"), "{:.3f}"),
    Column("Spearman's", mean_of("spearman"), "{:.3f}"),
]
CUT = [*AROUND, Column("smallest gap", smallest_gap, "{:.0f}"), PICK[0]]


@dataclass(frozen=True)
class Table:
    """Runs that differ in their seed alone share a row; a column without a figure in any row is left out.

    Attributes:
        experiments: of the grid, one below the other.
        without: methods that are left out.
    """

    experiments: tuple[str, ...]
    columns: list[Column]
    without: tuple[str, ...] = ()


TABLES = {
    "base": Table(("base",), BASE),
    "cut": Table(("schedule", "torch-pruning"), CUT, without=("L1-longer", "scratch")),  # cut as L1's
    "lambda": Table(("lambda",), CUT),
    "length": Table(("length",), CUT),
    "schedule": Table(("schedule",), [*TUNED, *STEPS, *COST]),
    "torch-pruning-tuned": Table(("torch-pruning-tuned",), TUNED),
    "proportion": Table(("proportion",), [*CUT, *TUNED]),
    "schedule56": Table(("schedule56",), [*TUNED, *STEPS, *COST]),
    "same-flops56": Table(("same-flops56",), [*TUNED, STEPS[1], ARITHMETIC]),
    "cut56": Table(("schedule56",), CUT, without=("L1-longer", "scratch")),
    "importance": Table(("importance",), [*PICK, *AROUND[2:], *TUNED]),
    "tiny-base": Table(("tiny-base",), BASE),
    "tiny-base-longer": Table(("tiny-base-longer",), BASE),
    "tiny": Table(("tiny",), [*CUT, *TUNED, *COST]),
    "unstructured": Table(("unstructured",), [*AROUND, *TUNED, ZEROS, PICK[0]]),
}


def rows_of(table: Table, reports: dict[str, list[Run]]) -> list[list[str]]:
    """Header and rows.

    Raises:
        ValueError: runs of one row differ in more than their seed.
    """
    runs = [run for experiment in table.experiments for run in reports.get(experiment, [])]
    runs = [({"method": report["method"]} | axes, report) for axes, report in runs]
    runs = [(axes, report) for axes, report in runs if axes["method"] not in table.without]
    axes_in_order = [axis for axis in AXES_FIRST if any(axis in axes for axes, _ in runs)]
    axes_in_order += dict.fromkeys(axis for axes, _ in runs for axis in axes if axis not in (*axes_in_order, "seed"))
    groups: dict[tuple[str, ...], list[Report]] = {}
    for axes, report in runs:
        groups.setdefault(tuple(axes.get(axis, "") for axis in axes_in_order), []).append(report)
    # An axis on which the runs do not differ is not worth a column.
    named = [i for i in range(len(axes_in_order)) if len({group[i] for group in groups}) > 1]
    columns = [
        column for column in table.columns
        if any(column.of(report) is not None for group in groups.values() for report in group)
    ]  # fmt: skip
    titles = [TITLES.get(axes_in_order[i], axes_in_order[i]) for i in named]
    rows = [[*titles, "seeds", *(column.title for column in columns)]]
    for group, members in sorted(groups.items(), key=lambda item: [*map(rank, item[0])]):
        seeds = {report["seed"] for report in members}
        if len(seeds) < len(members):
            raise ValueError(f"{' '.join(group)}: runs that differ in more than their seed share a row")
        rows.append([*(group[i] for i in named), str(len(seeds)), *(shown(column, members) for column in columns)])
    return rows


def rows_by_rate(reports: dict[str, list[Run]]) -> list[list[str]]:
    """Header and rows: the best epoch of the same cut networks by the first learning rate, `schedule`'s among them."""
    runs = by_rate(reports)
    rates = sorted({axes["lr"] for axes, _ in runs}, key=float)
    groups: dict[tuple[str, str], dict[str, list[Report]]] = {}
    for axes, report in runs:
        groups.setdefault((axes["ratio"], axes["method"]), {}).setdefault(axes["lr"], []).append(report)
    rows = [["ratio", "method", *(f"from {rate}" for rate in rates), "seeds"]]
    for group, found in sorted(groups.items(), key=lambda item: [*map(rank, item[0])]):
        seeds = ", ".join(str(len(found.get(rate, []))) for rate in rates)
        rows.append([*group, *(shown(TUNED[0], found.get(rate, [])) for rate in rates), seeds])
    return rows


def rows_by_length(reports: dict[str, list[Run]]) -> list[list[str]]:
    """Header and rows: L1 and GReg-1 by the steps that they had before and after the cut."""
    return rows_of(Table(("lengths",), [ARITHMETIC, *TUNED]), {"lengths": by_length(reports)})


def rows_of_gains(runs: list[Run]) -> list[list[str]]:
    """Header and rows: what a method has above L1 and above L1-longer."""
    rows = [["ratio", "method", "seeds", "above L1, points", "above L1-longer, points"]]
    for ratio in sorted({axes["ratio"] for axes, _ in runs}, key=float):
        for method in METHODS:
            n_seeds = len(accuracies(runs, ratio=ratio, method=method))
            if n_seeds and method != "L1":
                above = [gains(runs, ratio, method, other) if method != other else [] for other in ("L1", "L1-longer")]
                rows.append([ratio, method, str(n_seeds), *(written(points, "{:+.2f}") for points in above)])
    return rows


def rank(value: str) -> float:
    """Methods in the order in which they are spoken of, numbers by size."""
    try:
        return METHODS.index(value) if value in METHODS else float(value)
    except ValueError:
        return 0.0


def shown(column: Column, members: list[Report]) -> str:
    """A figure of some seeds, for a cell."""
    return written([value for report in members if (value := column.of(report)) is not None], column.show)


def written(values: list[float], show: str) -> str:
    """Mean ± standard deviation; a dash for none, the value alone for one or for equal ones."""
    if not values:
        return "–"
    mean, std = mean_and_std(values)
    # The format's sign and unit belong to the mean.
    return show.format(mean) + (f" ± {re.sub('[^0-9.]', '', show.format(std))}" if std else "")
