"""Finished runs side by side: differing settings, figures, and means over seeds."""

import csv
import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from utils.reporting.format import aligned
from utils.reporting.tables import COUNTED

Report = dict[str, Any]
SETTINGS = ("arch", "data_name", "train_images", "wg", "stage_pr", "ratios", "penalize", "base_model", "amp", "seed")


def _steps(*phases: str) -> Callable[[Report], int]:
    return lambda report: sum(report["iterations"].get(phase, 0) for phase in phases)


def _seconds(*phases: str) -> Callable[[Report], float | None]:
    return lambda report: sum(report["seconds"].get(phase, 0) for phase in phases) or None


def _of_cut(value: Callable[[Report], Any]) -> Callable[[Report], Any]:
    return lambda report: value(report) if report["pruned"] else None


# Name in CSV -> title of its row, form of a number, value of a report.
FIGURES: dict[str, tuple[str, str, Callable[[Report], Any]]] = {
    "acc1_base": ("base accuracy, %", ".2f", lambda r: r["acc1_base"]),
    "acc1_before_cut": ("just before the cut", ".2f", lambda r: r["acc1_before_cut"]),
    "acc1_after_cut": ("just after the cut", ".2f", lambda r: r["acc1_after_cut"]),
    "acc1_before_cut_bn": ("before, batch-norm re-estimated", ".2f", lambda r: r.get("acc1_before_cut_bn")),
    "acc1_after_cut_bn": ("after, batch-norm re-estimated", ".2f", lambda r: r.get("acc1_after_cut_bn")),
    "acc1_best": ("best epoch (on the test set)", ".2f", lambda r: r["acc1_best"]),
    "acc1_last": ("last epoch", ".2f", lambda r: r["acc1_last"]),
    "params": ("params", ",", lambda r: r["params_after"]),
    "flops": ("FLOPs", ",", lambda r: r["flops_after"]),
    "speedup": ("speedup", ".2f", _of_cut(lambda r: r["speedup"])),
    "steps_prune": ("steps: prune phase", ",", _of_cut(_steps("update", "stabilise"))),
    "steps_training": ("steps: training", ",", _steps("finetune")),
    "seconds_prune": ("seconds: prune phase", ".1f", _seconds("update", "stabilise")),
    "seconds_cut": ("seconds: cut and re-estimates", ".1f", _of_cut(_seconds("cut"))),
    "seconds_training": ("seconds: training", ".1f", _seconds("finetune")),
}


@dataclass(frozen=True)
class Column:
    """A run, or runs that differ only in their seed.

    Attributes:
        title: lines of it: the method, and each setting in which it differs from the others.
    """

    title: tuple[str, ...]
    reports: tuple[Report, ...]


def columns_of(reports: list[Report], mean: bool = False) -> list[Column]:
    """A column for each run, or with `mean` for each group of runs that differ only in their seed, by time of start."""
    reports = sorted(reports, key=lambda report: report["run_dir"][-15:])
    groups: dict[tuple, list[Report]] = {}
    for i, report in enumerate(reports):
        alike = tuple(str(report.get(name)) for name in ("method", *SETTINGS) if name != "seed")
        groups.setdefault(alike if mean else (i,), []).append(report)
    titles = [_title(group[0], reports, mean) for group in groups.values()]
    return [
        # Runs of equal reported settings are distinguished by the time in their names.
        Column((*title, group[0]["run_dir"][-15:]) if titles.count(title) > 1 else title, tuple(group))
        for title, group in zip(titles, groups.values(), strict=True)
    ]


def _title(report: Report, reports: list[Report], mean: bool) -> tuple[str, ...]:
    others = [other for other in reports if bool(other["pruned"]) == bool(report["pruned"])]
    differing = [
        f"{name}={_short(report.get(name))}"
        for name in SETTINGS
        if len({str(other.get(name)) for other in others}) > 1 and not (mean and name == "seed")
    ]
    return (report["method"] if report["pruned"] else "base", *differing)


def _short(value: Any) -> str:
    return str(value).replace(" ", "").removesuffix("/weights/checkpoint_best.pth").rpartition("/")[2]


def comparison_table(columns: list[Column]) -> str:
    """One line per figure; with several seeds mean ± sample standard deviation."""
    height = max(len(column.title) for column in columns)
    heads = [("", *((*column.title, *[""] * height)[line] for column in columns)) for line in range(height)]
    texts = {"network": "arch", "images": "data_name", "seed": "seed", "device": "device", "torch": "torch_version"}
    words = {name: (name, *(_words(column, key) for column in columns)) for name, key in texts.items()}
    figures = [(title, *(_text(column, value, form) for column in columns)) for title, form, value in FIGURES.values()]
    first, last = [words[name] for name in ("network", "images", "seed")], [words[n] for n in ("device", "torch")]
    files = [f"  {' '.join(column.title)}: {report['run_dir']}" for column in columns for report in column.reports]
    return "\n".join([*aligned([*heads, *first, *figures, *last]), COUNTED, "files:", *files])


def _words(column: Column, key: str) -> str:
    return ", ".join(dict.fromkeys(str(report.get(key, "-")) for report in column.reports))


def _text(column: Column, value: Callable[[Report], Any], form: str) -> str:
    values = [found for report in column.reports if (found := value(report)) is not None]
    if not values:
        return "-"
    unit = "x" if value is FIGURES["speedup"][2] else ""
    if len(values) == 1 or (form == "," and len(set(values)) == 1):
        return f"{values[0]:{form}}{unit}"
    some = "" if len(values) == len(column.reports) else f" (of {len(values)})"
    digits = ",.1f" if form == "," else form
    return f"{statistics.fmean(values):{digits}}{unit} ± {statistics.stdev(values):{digits}}{some}"


def comparison_csv(columns: list[Column]) -> str:
    """A row per column, unrounded; of several runs the mean, and the standard deviation as ``<name>_std``."""
    several = any(len(column.reports) > 1 for column in columns)
    rows = []
    for column in columns:
        row: dict[str, Any] = {name: _words(column, name) for name in ("method", *SETTINGS, "run_dir")}
        row["runs"] = len(column.reports)
        for name, (_, _, value) in FIGURES.items():
            values = [found for report in column.reports if (found := value(report)) is not None]
            row[name] = values[0] if len(values) == 1 else statistics.fmean(values) if values else ""
            if several:
                row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else ""
        rows.append(row)
    lines = io.StringIO()
    table = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return lines.getvalue().rstrip("\n")
