"""The tables of RESULTS.md, as rows of text.

To add one: an entry in ``TABLES`` (experiments of evidence.yaml and the columns to show of them) and a line
``{{name}}`` in results_template.md. Tables with another form have a function, named in ``all_tables``.
"""

import re
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.evidence.reports import Report
from scripts.evidence.runs import (
    BY_LENGTH,
    TOLERANCE,
    Run,
    accuracy_by_seed,
    dense_equivalent_steps,
    gains,
    group_by_steps,
    lead_over_curve,
    mean_and_std,
    paired_differences,
    select_by_length,
    select_by_rate,
    select_full,
    step_counts,
    total_steps,
)

FIRST_AXES = ("arch", "ratio", "method")
TITLES = {
    "arch": "net",
    "tau": "λ grows to",
    "tau_pick": "picked at λ",
    "penalize": "λ on",
    "before": "steps before the cut",
    "tuned": "steps of fine-tuning",
}
METHODS = ("none", "L1", "L1-longer", "GReg-1", "FixReg", "GReg-2", "Torch-Pruning", "scratch")  # the order of rows


@dataclass(frozen=True)
class Column:
    """A quantity of a run, shown as its mean and standard deviation (n - 1) over seeds.

    Attributes:
        value: report -> the quantity, or None where there is none.
        format: format of a number.
    """

    title: str
    value: Callable[[Report], float | None]
    format: str = "{:.2f}"


def accuracy_column(title: str, key: str) -> Column:
    return Column(title, lambda report: report[key])


def points_lost(report: Report) -> float | None:
    before, after = report["acc1_before_cut_bn"], report["acc1_after_cut_bn"]
    return None if before is None else before - after


def smallest_gap(report: Report) -> float | None:
    return min(report["gap"].values(), default=None)


def mean_over_layers(key: str, scale: float = 1) -> Callable[[Report], float | None]:
    """Return the mean over the layers of one figure of the comparison with the filters that L1 prunes."""

    def mean(report: Report) -> float | None:
        values = [scale * layer[key] for layer in report["l1_comparison"].values()]
        return statistics.fmean(values) if values else None

    return mean


def percent_removed(before: str, after: str) -> Callable[[Report], float]:
    return lambda report: 100 * (1 - report[after] / report[before])


LOST = Column("lost, re-estimated", points_lost)
CUT_ACCURACY = [
    accuracy_column("before the cut, raw", "acc1_before_cut"),
    accuracy_column("after, raw", "acc1_after_cut"),
    accuracy_column("before, re-estimated", "acc1_before_cut_bn"),
    accuracy_column("after, re-estimated", "acc1_after_cut_bn"),
    LOST,
]
FINETUNED = [accuracy_column("best epoch (on test)", "acc1_best"), accuracy_column("last epoch", "acc1_last")]
FINETUNE_STEPS = Column("steps of fine-tuning", lambda report: step_counts(report)[1], "{:.0f}")
STEPS = [Column("steps before the cut", lambda report: step_counts(report)[0], "{:.0f}"), FINETUNE_STEPS]
HOURS = Column("hours", lambda report: sum(report["seconds"].values()) / 3600, "{:.3f}")
FINETUNE_HOURS = Column("hours of fine-tuning", lambda report: report["seconds"]["finetune"] / 3600, "{:.1f}")
COST = [
    Column("speedup", lambda report: report["speedup"], "{:.2f}x"),
    Column("params gone, %", percent_removed("params_before", "params_after")),
    Column("with batch-norm, %", percent_removed("params_with_bn_before", "params_with_bn_after")),
    HOURS,
]
ARITHMETIC = Column("arithmetic, in steps of the uncut network", dense_equivalent_steps, "{:.0f}")
BASE = [
    accuracy_column("as it came", "acc1_base"),
    *FINETUNED,
    Column("steps", lambda report: step_counts(report)[1], "{:.0f}"),
]
ZEROS = Column("zeros, %", lambda report: 100 * report["sparsity"] if "sparsity" in report else None)
OVERLAP = Column("pick shared with L1, %", mean_over_layers("overlap", scale=100), "{:.1f}")
PICK = [
    OVERLAP,
    Column("Kendall's correlation to the start", mean_over_layers("kendall"), "{:.3f}"),
    Column("Spearman's", mean_over_layers("spearman"), "{:.3f}"),
]
CUT = [*CUT_ACCURACY, Column("smallest gap", smallest_gap, "{:.0f}"), OVERLAP]


@dataclass(frozen=True)
class Table:
    """Runs that differ only in their seed share a row; a column without a value in any row is left out.

    Attributes:
        experiments: of the grid, one below the other.
        without: methods that are left out.
    """

    experiments: tuple[str, ...]
    columns: list[Column]
    without: tuple[str, ...] = ()


TABLES = {
    "base": Table(("base",), BASE),
    # L1-longer and scratch have the same cut as L1.
    "cut": Table(("schedule", "torch-pruning"), CUT, without=("L1-longer", "scratch")),
    "lambda": Table(("lambda",), CUT),
    "length": Table(("length",), CUT),
    "length-10000": Table(("length-10000",), [*CUT, *FINETUNED, *STEPS, HOURS]),
    "schedule": Table(("schedule",), [*FINETUNED, *STEPS, *COST]),
    "fixreg": Table(
        ("fixreg-l1", "fixreg-greg1", "fixreg-group", "fixreg", "fixreg-sum"), [*CUT_ACCURACY, *FINETUNED, *STEPS]
    ),
    "torch-pruning-tuned": Table(("torch-pruning-tuned",), FINETUNED),
    "proportion": Table(("proportion",), [*CUT, *FINETUNED]),
    "schedule56": Table(("schedule56",), [*FINETUNED, *STEPS, *COST]),
    "same-flops56": Table(("same-flops56",), [*FINETUNED, FINETUNE_STEPS, ARITHMETIC]),
    "cut56": Table(("schedule56",), CUT, without=("L1-longer", "scratch")),
    "importance": Table(("importance",), [*PICK, *CUT_ACCURACY[2:], *FINETUNED]),
    "tiny-base": Table(("tiny-base",), BASE),
    "tiny-base-longer": Table(("tiny-base-longer",), BASE),
    "tiny": Table(("tiny",), [*CUT, *FINETUNED, *COST]),
    "full-base": Table(("full-base",), BASE),
    "full-cut": Table(("full-cut",), [*CUT, HOURS], without=("scratch",)),
    "unstructured": Table(("unstructured",), [*CUT_ACCURACY, *FINETUNED, ZEROS, OVERLAP]),
}
SUMMARY_RATIOS = ("0.5", "0.7", "0.9")


def all_tables(runs: dict[str, list[Run]]) -> dict[str, list[list[str]]]:
    """Return the name of each table made from reports -> its header and rows.

    Args:
        runs: experiment -> its finished runs.
    """
    return {name: make_rows(table, runs) for name, table in TABLES.items()} | {
        "summary": summary_rows(runs),
        "gains": gain_rows(runs["schedule"]),
        "gains56": gain_rows(runs["schedule56"]),
        "lengths": length_rows(select_by_length(runs)),
        "matched": matched_rows(select_by_length(runs)),
        "full": length_rows(select_full(runs), [FINETUNE_HOURS]),
        "trend": trend_rows(runs),
        "lr": rate_rows(runs),
    }


def make_rows(table: Table, runs_by_experiment: dict[str, list[Run]]) -> list[list[str]]:
    """Return header and rows; an axis that an experiment does not have is shown as its reports have it.

    Raises:
        ValueError: runs of one row differ in more than their seed.
    """
    runs = [run for experiment in table.experiments for run in runs_by_experiment.get(experiment, [])]
    runs = [({"method": report["method"]} | axes, report) for axes, report in runs]
    runs = [(axes, report) for axes, report in runs if axes["method"] not in table.without]
    axis_order = [axis for axis in FIRST_AXES if any(axis in axes for axes, _ in runs)]
    axis_order += dict.fromkeys(axis for axes, _ in runs for axis in axes if axis not in (*axis_order, "seed"))
    groups: dict[tuple[str, ...], list[Report]] = {}
    for axes, report in runs:
        row = tuple(axes.get(axis) or str(report.get(axis) or "–") for axis in axis_order)
        groups.setdefault(row, []).append(report)
    # An axis with the same value in all runs has no column.
    shown = [i for i in range(len(axis_order)) if len({group[i] for group in groups}) > 1]
    columns = [
        column for column in table.columns
        if any(column.value(report) is not None for group in groups.values() for report in group)
    ]  # fmt: skip
    titles = [TITLES.get(axis_order[i], axis_order[i]) for i in shown]
    rows = [[*titles, "seeds", *(column.title for column in columns)]]
    for group, reports in sorted(groups.items(), key=lambda item: [*map(sort_key, item[0])]):
        seeds = {report["seed"] for report in reports}
        if len(seeds) < len(reports):
            raise ValueError(f"{' '.join(group)}: runs that differ in more than their seed share a row")
        rows.append(
            [*(group[i] for i in shown), str(len(seeds)), *(format_cell(column, reports) for column in columns)]
        )
    return rows


def summary_rows(runs: dict[str, list[Run]]) -> list[list[str]]:
    """Return header and rows: the main comparisons at three ratios, and where the page has more of each."""

    def gain(experiment: str, baseline: str) -> list[str]:
        return [
            format_values(gains(runs[experiment], ratio, "GReg-1", baseline), "{:+.1f}") for ratio in SUMMARY_RATIOS
        ]

    def gain_at_equal_flops(experiment: str, l1_experiment: str) -> list[str]:
        cells = []
        for ratio in SUMMARY_RATIOS:
            greg1 = accuracy_by_seed(runs[experiment], ratio=ratio, method="GReg-1")
            l1 = accuracy_by_seed(runs[l1_experiment], ratio=ratio, method="L1")
            cells.append(format_values(paired_differences(greg1, l1), "{:+.1f}"))
        return cells

    def mean_of(column: Column, method: str) -> list[str]:
        return [
            format_cell(column, [report for axes, report in runs["schedule"]
                                 if (axes["ratio"], axes["method"]) == (ratio, method)])
            for ratio in SUMMARY_RATIOS
        ]  # fmt: skip

    lost = Column(LOST.title, LOST.value, "{:.1f}")
    return [
        [
            "comparison, in points (ResNet20, 3 seeds)",
            *(f"pruning ratio {ratio}" for ratio in SUMMARY_RATIOS),
            "read on",
        ],
        ["GReg-1 − L1, equal fine-tuning", *gain("schedule", "L1"), "part 2"],
        ["GReg-1 − L1, equal total steps", *gain("schedule", "L1-longer"), "part 2"],
        ["GReg-1 − L1, equal training FLOPs", *gain_at_equal_flops("schedule", "same-flops"), "part 2"],
        ["GReg-1 − L1, equal total steps, ResNet56 (1 seed)", *gain("schedule56", "L1-longer"), "part 2, ResNet56"],
        [
            "GReg-1 − L1, equal training FLOPs, ResNet56 (1 seed)",
            *gain_at_equal_flops("schedule56", "same-flops56"),
            "part 2, ResNet56",
        ],
        ["lost at the cut, L1", *mean_of(lost, "L1"), "part 1"],
        ["lost at the cut, GReg-1", *mean_of(lost, "GReg-1"), "part 1"],
        ["pruned filters that GReg-2 shares with L1, %", *mean_of(OVERLAP, "GReg-2"), "part 4"],
    ]


def rate_rows(runs: dict[str, list[Run]]) -> list[list[str]]:
    """Return header and rows: the best epoch of the same cut networks by the first learning rate of fine-tuning."""
    selected = select_by_rate(runs)
    rates = sorted({axes["lr"] for axes, _ in selected}, key=float)
    groups: dict[tuple[str, str], dict[str, list[Report]]] = {}
    for axes, report in selected:
        groups.setdefault((axes["ratio"], axes["method"]), {}).setdefault(axes["lr"], []).append(report)
    rows = [["ratio", "method", *(f"from {rate}" for rate in rates), "seeds"]]
    for group, by_rate in sorted(groups.items(), key=lambda item: [*map(sort_key, item[0])]):
        seeds = ", ".join(str(len(by_rate.get(rate, []))) for rate in rates)
        rows.append([*group, *(format_cell(FINETUNED[0], by_rate.get(rate, [])) for rate in rates), seeds])
    return rows


def length_rows(selected: list[Run], more: Sequence[Column] = ()) -> list[list[str]]:
    """Return header and rows: runs by their steps before and after the cut, with `more` columns."""
    return make_rows(Table(("lengths",), [ARITHMETIC, *FINETUNED, *more]), {"lengths": selected})


def matched_rows(selected: list[Run]) -> list[list[str]]:
    """Return header and rows: GReg-1 minus L1 at each length of GReg-1, where L1 had equal steps or equal FLOPs."""
    groups = group_by_steps(selected)

    def above_l1(ratio: str, reports: list[Report], length: Callable[[Report], float]) -> str:
        for (other_ratio, method, *_), baseline in groups.items():
            if (other_ratio, method) == (ratio, "L1") and abs(length(baseline[0]) / length(reports[0]) - 1) < TOLERANCE:
                values, baselines = ({r["seed"]: r["acc1_best"] for r in group} for group in (reports, baseline))
                return format_values(paired_differences(values, baselines), "{:+.2f}")
        return "–"

    rows = [["ratio", "GReg-1's steps", "total", "above L1, equal steps", "arithmetic", "above L1, equal arithmetic"]]
    for group, reports in sorted(groups.items(), key=lambda item: [*map(sort_key, item[0])]):
        ratio, method, before, tuned = group
        if method == "GReg-1":
            at_equal_steps = above_l1(ratio, reports, total_steps)
            at_equal_flops = above_l1(ratio, reports, dense_equivalent_steps)
            arithmetic = f"{dense_equivalent_steps(reports[0]):.0f}"
            steps = [f"{before} + {tuned}", str(total_steps(reports[0]))]
            rows.append([ratio, *steps, at_equal_steps, arithmetic, at_equal_flops])
    return rows


def trend_rows(runs: dict[str, list[Run]]) -> list[list[str]]:
    """Return header and rows: GReg-1 minus L1 at ratio 0.9 by GReg-1's steps before the cut."""
    rows = [["steps before the cut", "of fine-tuning", "above L1, equal steps", "above L1, equal arithmetic"]]
    for select in BY_LENGTH:
        selected = select(runs)
        by_steps = lead_over_curve(selected, "0.9", total_steps)
        by_flops = lead_over_curve(selected, "0.9", dense_equivalent_steps)
        for steps in sorted(by_steps):
            leads = [
                format_values([] if lead is None else [lead], "{:+.1f}") for lead in (by_steps[steps], by_flops[steps])
            ]
            rows.append([*map(str, steps), *leads])
    return rows


def gain_rows(runs: list[Run]) -> list[list[str]]:
    """Return header and rows: the points of each method above L1 and above L1-longer."""
    rows = [["ratio", "method", "seeds", "above L1, points", "above L1-longer, points"]]
    for ratio in sorted({axes["ratio"] for axes, _ in runs}, key=float):
        for method in METHODS:
            n_seeds = len(accuracy_by_seed(runs, ratio=ratio, method=method))
            if n_seeds and method != "L1":
                points = [gains(runs, ratio, method, other) if method != other else [] for other in ("L1", "L1-longer")]
                rows.append([ratio, method, str(n_seeds), *(format_values(values, "{:+.2f}") for values in points)])
    return rows


def sort_key(value: str) -> float:
    """Sort methods as in ``METHODS`` and numbers by size."""
    try:
        return METHODS.index(value) if value in METHODS else float(value)
    except ValueError:
        return 0.0


def format_cell(column: Column, reports: list[Report]) -> str:
    """Format a column's value over the seeds of a row."""
    return format_values([value for report in reports if (value := column.value(report)) is not None], column.format)


def format_values(values: list[float], number_format: str) -> str:
    """Format mean ± standard deviation; a dash for no values, the value alone for one or for equal ones."""
    if not values:
        return "–"
    mean, std = mean_and_std(values)
    # The sign and the unit of the format belong to the mean.
    return number_format.format(mean) + (f" ± {re.sub('[^0-9.]', '', number_format.format(std))}" if std else "")
