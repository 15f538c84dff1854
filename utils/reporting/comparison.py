"""Compare finished runs: differing settings, metrics, and means over seeds."""

import csv
import io
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from utils.reporting.format import align_columns
from utils.reporting.tables import COST_CONVENTION

Report = dict[str, Any]
SETTINGS = ("arch", "data_name", "train_images", "wg", "stage_pr", "ratios", "penalize", "base_model", "amp", "seed")
NAMED_OTHERWISE = ("method", "dataset")  # in ``settings`` of a report


def _steps(*phases: str) -> Callable[[Report], int]:
    return lambda report: sum(report["iterations"].get(phase, 0) for phase in phases)


def _seconds(*phases: str) -> Callable[[Report], float | None]:
    return lambda report: sum(report["seconds"].get(phase, 0) for phase in phases) or None


def _if_pruned(value: Callable[[Report], Any]) -> Callable[[Report], Any]:
    return lambda report: value(report) if report["pruned"] else None


# Name in CSV -> title of the row, number format, value from a report.
FIGURES: dict[str, tuple[str, str, Callable[[Report], Any]]] = {
    "acc1_base": ("base accuracy, %", ".2f", lambda r: r["acc1_base"]),
    "acc1_before_cut": ("just before the cut", ".2f", lambda r: r["acc1_before_cut"]),
    "acc1_after_cut": ("just after the cut", ".2f", lambda r: r["acc1_after_cut"]),
    "acc1_before_cut_bn": ("before, batch-norm re-estimated", ".2f", lambda r: r.get("acc1_before_cut_bn")),
    "acc1_after_cut_bn": ("after, batch-norm re-estimated", ".2f", lambda r: r.get("acc1_after_cut_bn")),
    "acc1_best": ("best epoch (on {chosen})", ".2f", lambda r: r["acc1_best"]),
    "acc1_last": ("last epoch", ".2f", lambda r: r["acc1_last"]),
    "params": ("params", ",", lambda r: r["params_after"]),
    "flops": ("FLOPs", ",", lambda r: r["flops_after"]),
    "speedup": ("speedup", ".2f", _if_pruned(lambda r: r["speedup"])),
    "steps_prune": ("steps: prune phase", ",", _if_pruned(_steps("update", "stabilise"))),
    "steps_training": ("steps: training", ",", _steps("finetune")),
    "seconds_prune": ("seconds: prune phase", ".1f", _seconds("update", "stabilise")),
    "seconds_cut": ("seconds: cut and re-estimates", ".1f", _if_pruned(_seconds("cut"))),
    "seconds_training": ("seconds: training", ".1f", _seconds("finetune")),
}


@dataclass(frozen=True)
class Column:
    """A run, or runs that differ only in seed.

    Attributes:
        title: its lines: the method, and each setting that differs between runs.
    """

    title: tuple[str, ...]
    reports: tuple[Report, ...]


def columns_of(reports: list[Report], mean: bool = False) -> list[Column]:
    """Make a column per run or, with `mean`, per group of runs that differ only in seed; sorted by start time."""
    reports = sorted(reports, key=lambda report: report["run_dir"][-15:])
    names = [name for name in _names(reports) if name != "seed"]
    groups: dict[tuple, list[Report]] = {}
    for i, report in enumerate(reports):
        key = (report["method"], *(str(_setting(report, name)) for name in names))
        groups.setdefault(key if mean else (i,), []).append(report)
    titles = [_title(group[0], reports, mean) for group in groups.values()]
    return [
        # Runs with equal settings are distinguished by their start time.
        Column((*title, group[0]["run_dir"][-15:]) if titles.count(title) > 1 else title, tuple(group))
        for title, group in zip(titles, groups.values(), strict=True)
    ]


def same_seeds(columns: list[Column]) -> list[str]:
    """Return a notice for each mean that has a seed more than once."""
    return [
        f"{' '.join(column.title)}: {len(column.reports)} runs, but {n_seeds} seeds; they may differ in what their "
        "reports do not have"
        for column in columns
        if (n_seeds := len({report["seed"] for report in column.reports})) < len(column.reports)
    ]


def _names(reports: list[Report]) -> list[str]:
    """Return the names of all settings that runs may differ in."""
    more = {name for report in reports for name in report.get("settings", {})}
    return [*SETTINGS, *sorted(more - {*SETTINGS, *NAMED_OTHERWISE})]


def _setting(report: Report, name: str) -> Any:
    return report.get(name) if name in SETTINGS else report.get("settings", {}).get(name, "default")


def _title(report: Report, reports: list[Report], mean: bool) -> tuple[str, ...]:
    others = [other for other in reports if bool(other["pruned"]) == bool(report["pruned"])]
    differing = [
        f"{name}={_shorten(_setting(report, name))}"
        for name in _names(reports)
        if _differs(name, report, others) and not (mean and name == "seed")
    ]
    return (report["method"] if report["pruned"] else "base", *differing)


def _differs(name: str, report: Report, others: list[Report]) -> bool:
    if name == "penalize":  # L1 has no penalty
        others = [other for other in others if other.get(name)]
    if name not in SETTINGS:  # methods have settings of their own
        others = [other for other in others if other["method"] == report["method"]]
    return report in others and len({str(_setting(other, name)) for other in others}) > 1


def _shorten(value: Any) -> str:
    return str(value).replace(" ", "").removesuffix("/weights/checkpoint_best.pth").rpartition("/")[2]


def comparison_table(columns: list[Column]) -> str:
    """Format one line per metric; with several seeds, mean ± sample standard deviation."""
    height = max(len(column.title) for column in columns)
    heads = [("", *((*column.title, *[""] * height)[line] for column in columns)) for line in range(height)]
    texts = {"network": "arch", "images": "data_name", "seed": "seed", "device": "device", "torch": "torch_version"}
    text_rows = {name: (name, *(_join_texts(column, key) for column in columns)) for name, key in texts.items()}
    of_runs = [report for column in columns for report in column.reports]
    chosen = {"the test set" if report.get("val_acc1_best") is None else "held-out images" for report in of_runs}
    rows = [
        (title.format(chosen=" or ".join(sorted(chosen))), *(_format_values(c, value, spec) for c in columns))
        for title, spec, value in FIGURES.values()
    ]
    first = [text_rows[name] for name in ("network", "images", "seed")]
    last = [text_rows[name] for name in ("device", "torch")]
    files = [f"  {' '.join(column.title)}: {report['run_dir']}" for column in columns for report in column.reports]
    return "\n".join([*align_columns([*heads, *first, *rows, *last]), COST_CONVENTION, "files:", *files])


def _join_texts(column: Column, key: str) -> str:
    return ", ".join(dict.fromkeys(str(report.get(key, "-")) for report in column.reports))


def _values(column: Column, value: Callable[[Report], Any]) -> list[Any]:
    return [number for report in column.reports if (number := value(report)) is not None]


def _format_values(column: Column, value: Callable[[Report], Any], number_format: str) -> str:
    values = _values(column, value)
    if not values:
        return "-"
    unit = "x" if value is FIGURES["speedup"][2] else ""
    if len(values) == 1 or (number_format == "," and len(set(values)) == 1):
        return f"{values[0]:{number_format}}{unit}"
    n_reports = "" if len(values) == len(column.reports) else f" (of {len(values)})"
    digits = ",.1f" if number_format == "," else number_format
    return f"{statistics.fmean(values):{digits}}{unit} ± {statistics.stdev(values):{digits}}{n_reports}"


def comparison_csv(columns: list[Column]) -> str:
    """Format a CSV row per column, unrounded; of several runs mean and standard deviation (``<name>_std``)."""
    several = any(len(column.reports) > 1 for column in columns)
    rows = []
    for column in columns:
        row: dict[str, Any] = {name: _join_texts(column, name) for name in ("method", *SETTINGS, "run_dir")}
        row["runs"] = len(column.reports)
        for name, (_, _, value) in FIGURES.items():
            values = _values(column, value)
            row[name] = values[0] if len(values) == 1 else statistics.fmean(values) if values else ""
            if several:
                row[f"{name}_std"] = statistics.stdev(values) if len(values) > 1 else ""
        rows.append(row)
    lines = io.StringIO()
    table = csv.DictWriter(lines, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return lines.getvalue().rstrip("\n")
