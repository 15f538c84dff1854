"""Finished runs of the grid, and the quantities that both tables and pictures take from them."""

import statistics
from collections.abc import Iterable, Mapping

from scripts.evidence.grid import Cell
from scripts.evidence.reports import Report

Run = tuple[dict[str, str], Report]  # the run's axes in the grid, and its report
# Experiments that fine-tune the cut networks of `schedule` for other lengths; `lengths` shows those named here.
REFINETUNED = ("length-l1", "same-flops", "tuned-longer", "tuned-longer-flops")


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
    slower = [(axes | {"method": report["method"]}, report) for axes, report in runs["length"]]
    ratios = {axes["ratio"] for axes, _ in [*refinetuned, *slower]}
    selected = []
    for axes, report in [*schedule, *refinetuned, *slower]:
        if axes["ratio"] in ratios:
            before, finetune = step_counts(report)
            names = {"seed": axes["seed"], "ratio": axes["ratio"], "method": axes["method"].removesuffix("-longer")}
            selected.append((names | {"before": str(before), "tuned": str(finetune)}, report))
    return selected


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
