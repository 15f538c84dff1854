#!/usr/bin/env python3
"""Write RESULTS.md, its tables and its pictures from the reports in results/: python scripts/results.py

The prose is scripts/results_template.md; a line ``{{name}}`` there becomes the table of that name, which is also
written to results/name.csv. The reports are those that scripts/sweep.py has made by scripts/evidence.yaml; runs that
have none are counted at the end of the page. The same reports give the same bytes.
"""

import csv
import io
import re
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from scripts.figure1 import picture, read
from scripts.grid import Cell, cells_of, read_grid
from scripts.results_figures import Report, Run, accuracies, by_rate, draw
from utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent
GRID, TEMPLATE, ROWS = (ROOT / "scripts" / name for name in ("evidence.yaml", "results_template.md", "paper_rows.yaml"))
RESULTS = ROOT / "results"
FIGURE1, LAYER = Path("figure1", "run"), "layer2.1.conv1"  # whose files, and of which layer


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


def mean_of(key: str) -> Callable[[Report], float | None]:
    """Of the comparison with L1's pick, over the layers."""

    def mean(report: Report) -> float | None:
        found = [values[key] for values in report["l1_comparison"].values()]
        return statistics.fmean(found) if found else None

    return mean


def percent_gone(before: str, after: str) -> Callable[[Report], float]:
    return lambda report: 100 * (1 - report[after] / report[before])


def steps(*phases: str) -> Callable[[Report], float]:
    return lambda report: sum(report["iterations"].get(phase, 0) for phase in phases)


AROUND = [
    acc("before the cut, raw", "acc1_before_cut"),
    acc("after, raw", "acc1_after_cut"),
    acc("before, re-estimated", "acc1_before_cut_bn"),
    acc("after, re-estimated", "acc1_after_cut_bn"),
    Column("lost, re-estimated", lost),
]
CUT = [*AROUND, Column("smallest gap", smallest_gap, "{:.0f}")]
TUNED = [acc("best epoch (on test)", "acc1_best"), acc("last epoch", "acc1_last")]
STEPS = [
    Column("steps before the cut", steps("update", "stabilise"), "{:.0f}"),
    Column("steps of fine-tuning", steps("finetune"), "{:.0f}"),
]
COST = [
    Column("speedup", lambda report: report["speedup"], "{:.2f}x"),
    Column("params gone, %", percent_gone("params_before", "params_after")),
    Column("with batch-norm, %", percent_gone("params_with_bn_before", "params_with_bn_after")),
    Column("hours", lambda report: sum(report["seconds"].values()) / 3600, "{:.3f}"),
]
ZEROS = Column("zeros, %", lambda report: 100 * report["sparsity"] if "sparsity" in report else None)
PICK = [
    Column("pick shared with L1, %", lambda r: None if (v := mean_of("overlap")(r)) is None else 100 * v, "{:.1f}"),
    Column("Kendall's τ to the start", mean_of("kendall"), "{:.3f}"),
    Column("Spearman's ρ", mean_of("spearman"), "{:.3f}"),
]


@dataclass(frozen=True)
class Table:
    """Attributes:
    experiments: of the grid, one below the other.
    without: methods that are left out.
    """

    experiments: tuple[str, ...]
    columns: list[Column]
    without: tuple[str, ...] = ()


TABLES = {
    "base": Table(("base",), [acc("as it came", "acc1_base"), *TUNED, Column("steps", steps("finetune"), "{:.0f}")]),
    "cut": Table(("schedule", "torch-pruning"), [*CUT, STEPS[0]], without=("L1-longer", "scratch")),  # cut as L1's
    "lambda": Table(("lambda",), CUT),
    "length": Table(("length",), [STEPS[0], *CUT]),
    "schedule": Table(("schedule",), [*TUNED, *STEPS, *COST]),
    "proportion": Table(("proportion",), [*CUT, *TUNED]),
    "schedule56": Table(("schedule56",), [*TUNED, *STEPS, *COST]),
    "cut56": Table(("schedule56",), CUT, without=("L1-longer", "scratch")),
    "tuned-longer": Table(("tuned-longer",), [*TUNED, STEPS[1]]),
    "importance": Table(("importance",), [*PICK, *AROUND[2:], *TUNED]),
    "tiny": Table(("tiny-base", "tiny"), [*AROUND[2:], *TUNED, *COST]),
    "unstructured": Table(("unstructured",), [*AROUND, *TUNED, ZEROS]),
}


def reports_of(cells: Iterable[Cell], results: Path) -> dict[str, list[Run]]:
    """Experiment -> axes and report of every run that has one, in the order of the grid.

    Raises:
        ValueError: a report is of other flags than the grid has.
    """
    found: dict[str, list[Run]] = {}
    for cell in cells:
        report = cell.report(results)
        found.setdefault(cell.experiment, []).extend([(cell.axes, report)] if report else [])
    return found


def rows_of(table: Table, reports: dict[str, list[Run]]) -> list[list[str]]:
    """Header and rows; runs that differ in their seed alone share a row."""
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
        assert len(seeds) == len(members), f"{group}: runs that differ in more than their seed"
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


def rows_of_gains(runs: list[Run]) -> list[list[str]]:
    """Header and rows: what a method has above L1 and above L1-longer, seed by seed: a seed draws the same images for
    all."""
    rows = [["ratio", "method", "seeds", "above L1, points", "above L1-longer, points"]]
    for ratio in sorted({axes["ratio"] for axes, _ in runs}, key=float):
        for method in METHODS:
            found = accuracies(runs, ratio=ratio, method=method)
            gains = []
            for other in ("L1", "L1-longer"):
                theirs = accuracies(runs, ratio=ratio, method=other)
                gains.append([found[seed] - theirs[seed] for seed in found if seed in theirs and method != other])
            if found and method != "L1":
                rows.append([ratio, method, str(len(found)), *(mean_and_std(values, "{:+.2f}") for values in gains)])
    return rows


AXES_FIRST = ("arch", "ratio", "method")
TITLES = {"arch": "net", "tau": "λ grows to", "tau_pick": "picked at λ", "lr": "first lr"}
METHODS = ("none", "L1", "L1-longer", "GReg-1", "GReg-2", "Torch-Pruning", "scratch")


def rank(value: str) -> float:
    """Methods in the order in which they are spoken of, numbers by size."""
    try:
        return METHODS.index(value) if value in METHODS else float(value)
    except ValueError:
        return 0.0


def shown(column: Column, members: list[Report]) -> str:
    """A figure of some seeds, for a cell."""
    return mean_and_std([value for report in members if (value := column.of(report)) is not None], column.show)


def mean_and_std(values: list[float], show: str) -> str:
    """With n - 1; a dash for none, the value alone for one or for equal ones."""
    if not values:
        return "–"
    text = show.format(statistics.fmean(values))
    if len(set(values)) == 1:
        return text
    return f"{text} ± {re.sub('[^0-9.]', '', show.format(statistics.stdev(values)))}"


def published_rows() -> list[list[str]]:
    """The paper's Table 1, ResNet56, as printed."""
    entry = next(row for row in yaml.safe_load(ROWS.read_text()) if row["name"] == "table1_resnet56")
    rows = [["ratio", "speedup", "sparsity, %", "L1", "GReg-1"]]
    return rows + [[str(row[key]) for key in ("pr", "speedup", "sparsity", "L1", "GReg-1")] for row in entry["rows"]]


def markdown(rows: list[list[str]]) -> str:
    header, *body = rows
    if not body:
        return "*Not run yet.*"
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_csv(rows: list[list[str]]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def page(template: str, tables: dict[str, list[list[str]]], left_out: str) -> str:
    """`template` with its tables.

    Raises:
        KeyError: it names a table that is not there.
    """
    text = re.sub(r"^\{\{([\w-]+)\}\}$", lambda found: markdown(tables[found[1]]), template, flags=re.M)
    return text.rstrip("\n") + f"\n\n{left_out}\n"


def write(results: Path = RESULTS, target: Path = ROOT / "RESULTS.md", docs: Path = ROOT / "docs") -> None:
    """The page, its tables and its pictures, from the reports in `results`.

    Raises:
        ValueError: a report is of other flags than the grid has.
    """
    cells = cells_of(read_grid(GRID))
    reports = reports_of(cells, results)
    tables = {name: rows_of(table, reports) for name, table in TABLES.items()}
    tables |= {"published": published_rows(), "lr": rows_by_rate(reports)}
    tables["gains"] = rows_of_gains(reports["schedule"])
    for name, rows in tables.items():
        write_text(results / f"{name}.csv", as_csv(rows))
    made = {name: len(found) for name, found in reports.items()}
    wanted = Counter(cell.experiment for cell in cells)
    short = [f"`{name}` {made[name]} of {n}" for name, n in wanted.items() if made[name] < n]
    left_out = f"{sum(made.values())} of the {len(cells)} runs of `scripts/evidence.yaml` have been made"
    left_out += f"; where some are missing: {', '.join(short)}." if short else "."
    write_text(target, page(TEMPLATE.read_text(), tables, left_out))
    draw(reports, docs)
    if (results / FIGURE1).is_dir():
        figure = picture(read(results / FIGURE1), LAYER)
        figure.savefig(docs / "results_figure1.png", dpi=110, metadata={"Software": None})


def main() -> int:
    if len(sys.argv) > 1:
        print("results.py: error: takes no arguments; python scripts/compare.py RUN… compares runs", file=sys.stderr)
        return 2
    try:
        write()
    except (ValueError, OSError) as error:
        print(f"results.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
