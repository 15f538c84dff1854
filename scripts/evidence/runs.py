"""Finished runs of the grid, and the quantities that both tables and pictures take from them."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from scripts.evidence.grid import Cell
from scripts.evidence.reports import Report

Run = tuple[dict[str, str], Report]  # the run's axes in the grid, and its report
# Experiments that fine-tune the cut networks of `schedule` for other lengths; `lengths` shows those named here.
REFINETUNED = ("length-l1", "same-flops", "tuned-longer", "tuned-longer-flops")
TOLERANCE = 0.02  # relative difference up to which the steps, or the FLOPs, of two runs count as equal


def runs_by_experiment(cells: Iterable[Cell], reports: Mapping[str, Report]) -> dict[str, list[Run]]:
    """Group the cells that have a report by experiment, in the order of the grid.

    Args:
        reports: name of a cell -> its report.
    """
    runs: dict[str, list[Run]] = {}
    for cell in cells:
        members = runs.setdefault(cell.experiment, [])
        if cell.name in reports:
            members.append((cell.axes, reports[cell.name]))
    return runs


def cut_network(axes: dict[str, str]) -> tuple[str, str, str]:
    """Return what identifies a cut network of `schedule`."""
    return axes["seed"], axes["ratio"], axes["method"]


def select_by_rate(runs: dict[str, list[Run]]) -> list[Run]:
    """Return the runs of `lr`, and those of `schedule` that fine-tuned the same cut networks, from 0.01."""
    networks = {cut_network(axes) for axes, _ in runs["lr"]}
    return runs["lr"] + [
        (axes | {"lr": "0.01"}, report) for axes, report in runs["schedule"] if cut_network(axes) in networks
    ]


def step_counts(report: Report) -> tuple[int, int]:
    """Return the steps before the cut and the steps of fine-tuning."""
    finetune = report["iterations"].get("finetune", 0)
    return sum(report["iterations"].values()) - finetune, finetune


def total_steps(report: Report) -> int:
    return sum(step_counts(report))


def dense_equivalent_steps(report: Report) -> float:
    """Return the FLOPs of all steps, in units of one step of the uncut network."""
    before, finetune = step_counts(report)
    return before + finetune / report["speedup"]


def select_by_length(runs: dict[str, list[Run]]) -> list[Run]:
    """Return the runs of L1 and GReg-1, with the axes ``before`` and ``tuned``: steps before and after the cut.

    L1-longer counts as L1. Where a cut network was fine-tuned again, the steps before its cut are taken from the run
    that cut it; without that report the run is left out. So are ratios that only `schedule` has.
    """
    schedule = [(axes, report) for axes, report in runs["schedule"] if axes["method"] in ("L1", "L1-longer", "GReg-1")]
    iterations = {cut_network(axes): report["iterations"] for axes, report in schedule}
    refinetuned = [
        (axes, report | {"iterations": iterations[cut_network(axes)] | report["iterations"]})
        for experiment in REFINETUNED
        for axes, report in runs[experiment]
        if cut_network(axes) in iterations
    ]
    slower = [(axes | {"method": report["method"]}, report) for axes, report in runs["length"]] + runs["length-10000"]
    ratios = {axes["ratio"] for axes, _ in [*refinetuned, *slower]}
    return [named_by_steps(*run) for run in [*schedule, *refinetuned, *slower] if run[0]["ratio"] in ratios]


def select_full(runs: dict[str, list[Run]]) -> list[Run]:
    """Return the runs at the length of the paper, with the axes ``before`` and ``tuned``, as ``select_by_length``."""
    iterations = {axes["method"]: report["iterations"] for axes, report in runs["full-cut"]}
    return [
        named_by_steps(
            axes | {"ratio": "0.9"},  # of all these runs, so not an axis of the grid
            report | {"iterations": iterations[axes["method"]] | report["iterations"]},
        )
        for experiment in ("full", "full-seeds", "full-longer", "full-longest", "full-scratch")
        for axes, report in runs[experiment]
        if axes["method"] in iterations
    ]


# Of all lengths; only runs of one selection share a base network and are compared.
BY_LENGTH = (select_by_length, select_full)


def named_by_steps(axes: dict[str, str], report: Report) -> Run:
    before, finetune = step_counts(report)
    names = {"seed": axes["seed"], "ratio": axes["ratio"], "method": axes["method"].removesuffix("-longer")}
    return names | {"before": str(before), "tuned": str(finetune)}, report


def group_by_steps(runs: list[Run]) -> dict[tuple[str, str, str, str], list[Report]]:
    """Return (ratio, method, ``before``, ``tuned``) -> the reports of all seeds."""
    groups: dict[tuple[str, str, str, str], list[Report]] = {}
    for axes, report in runs:
        groups.setdefault((axes["ratio"], axes["method"], axes["before"], axes["tuned"]), []).append(report)
    return groups


def lead_over_curve(
    runs: list[Run], ratio: str, length: Callable[[Report], float]
) -> dict[tuple[int, int], float | None]:
    """Compare GReg-1 with L1 as if L1 had been trained for just as long.

    L1's accuracy, the mean over its seeds, is read from the line through its lengths, straight over log(length).

    Args:
        runs: of ``select_by_length`` or ``select_full``.
        length: of a run, such as ``total_steps``.

    Returns:
        (steps before the cut, after it) of GReg-1 -> mean accuracy minus that of L1; None where L1 has no run that is
        shorter, or none that is longer, up to 2 %.
    """
    groups = {key[1:]: reports for key, reports in group_by_steps(runs).items() if key[0] == ratio}
    curve = sorted(
        (math.log(length(reports[0])), statistics.fmean(report["acc1_best"] for report in reports))
        for (method, *_), reports in groups.items()
        if method == "L1"
    )
    lengths, accuracies = zip(*curve, strict=True) if curve else ((math.inf,), (0.0,))
    leads: dict[tuple[int, int], float | None] = {}
    for (method, before, tuned), reports in groups.items():
        if method == "GReg-1":
            at, accuracy = math.log(length(reports[0])), statistics.fmean(report["acc1_best"] for report in reports)
            covered = lengths[0] - TOLERANCE < at < lengths[-1] + TOLERANCE
            leads[int(before), int(tuned)] = accuracy - float(np.interp(at, lengths, accuracies)) if covered else None
    return leads


def accuracy_by_seed(runs: list[Run], **wanted: str) -> dict[int, float]:
    """Return seed -> ``acc1_best`` of the runs with these axes."""
    return {report["seed"]: report["acc1_best"] for axes, report in runs if wanted.items() <= axes.items()}


def paired_differences(values: dict[int, float], baseline: dict[int, float]) -> list[float]:
    """Return `values` minus `baseline`, seed by seed: a seed draws the same images for all methods."""
    return [value - baseline[seed] for seed, value in values.items() if seed in baseline]


def gains(runs: list[Run], ratio: str, method: str, baseline: str) -> list[float]:
    """Return the points of `method` above the method `baseline`, seed by seed."""
    return paired_differences(
        accuracy_by_seed(runs, ratio=ratio, method=method), accuracy_by_seed(runs, ratio=ratio, method=baseline)
    )


def mean_and_std(values: list[float]) -> tuple[float, float]:
    """Return the mean and the standard deviation (n - 1); 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0
