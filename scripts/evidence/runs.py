"""The runs of the grid that have been made, and what tables and pictures both take of them."""

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.evidence.grid import Cell

Report = dict[str, Any]
Run = tuple[dict[str, str], Report]  # its axes in the grid, and what was found
# Experiments that fine-tune cut networks of `schedule` for other lengths; add one here to have it in `lengths`.
TUNED_AGAIN = ("length-l1", "same-flops", "tuned-longer", "tuned-longer-flops")


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


def by_rate(reports: dict[str, list[Run]]) -> list[Run]:
    """The runs of `lr`, and those of `schedule` that fine-tuned the same cut networks, from 0.01."""
    runs = reports["lr"]
    same = {(axes["seed"], axes["ratio"], axes["method"]) for axes, _ in runs}
    return runs + [
        (axes | {"lr": "0.01"}, report)
        for axes, report in reports["schedule"]
        if (axes["seed"], axes["ratio"], axes["method"]) in same
    ]


def steps(report: Report) -> tuple[int, int]:
    """Before the cut, and of fine-tuning."""
    made = report["iterations"]
    return made.get("update", 0) + made.get("stabilise", 0), made.get("finetune", 0)


def arithmetic(report: Report) -> float:
    """Steps before the cut and those of fine-tuning by their FLOPs: one of the uncut network counts as 1."""
    before, tuned = steps(report)
    return before + tuned / report["speedup"]


def by_length(reports: dict[str, list[Run]]) -> list[Run]:
    """L1 and GReg-1, by their steps ``before`` the cut and the steps ``tuned`` after it.

    L1-longer is L1 here. To the report of a cut network that was fine-tuned again, the steps before its cut are added;
    without the report of that cut it is left out. So are ratios that `schedule` alone has.
    """
    schedule = [
        (axes, report) for axes, report in reports["schedule"] if axes["method"] in ("L1", "L1-longer", "GReg-1")
    ]
    cut = {(axes["seed"], axes["ratio"], axes["method"]): report["iterations"] for axes, report in schedule}
    again = [
        (axes, report | {"iterations": cut[key] | report["iterations"]})
        for experiment in TUNED_AGAIN
        for axes, report in reports[experiment]
        if (key := (axes["seed"], axes["ratio"], axes["method"])) in cut
    ]
    slower = [(axes | {"method": report["method"]}, report) for axes, report in reports["length"]]
    ratios = {axes["ratio"] for axes, _ in [*again, *slower]}
    found = []
    for axes, report in [*schedule, *again, *slower]:
        if axes["ratio"] in ratios:
            before, tuned = steps(report)
            names = {"seed": axes["seed"], "ratio": axes["ratio"], "method": axes["method"].removesuffix("-longer")}
            found.append((names | {"before": str(before), "tuned": str(tuned)}, report))
    return found


def accuracies(runs: list[Run], **wanted: str) -> dict[int, float]:
    """Seed -> ``acc1_best`` of the runs with these axes."""
    return {report["seed"]: report["acc1_best"] for axes, report in runs if wanted.items() <= axes.items()}


def gains(runs: list[Run], ratio: str, method: str, over: str) -> list[float]:
    """Points of `method` above `over`, seed by seed: a seed is one draw of the images for all methods."""
    found, theirs = (accuracies(runs, ratio=ratio, method=name) for name in (method, over))
    return [found[seed] - theirs[seed] for seed in found if seed in theirs]


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """With n - 1; the deviation of one value is 0."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
