"""The reports of a grid's runs: results/<experiment>.json, an object of run -> report, sorted by the run's name.

Files that are kept beside a report (``keep`` in the grid) are in results/<experiment>/<run>/.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.evidence.grid import Cell
from utils.checkpoint.atomic import locked, write_text
from utils.config.paths import regular_file

Report = dict[str, Any]


def read_experiment(results: Path, experiment: str) -> dict[str, Report]:
    """Read an experiment's reports: ``Cell.key`` -> report; empty if there is no file.

    Raises:
        ValueError: the file cannot be read, or the folder has the layout of an older version.
    """
    if any((results / experiment).glob("*.json")):
        raise ValueError(
            f"{results / experiment} has a file per run, the layout of an older version: "
            f"move it away, or give another --results folder"
        )
    file = results / f"{experiment}.json"
    if not file.exists():
        return {}
    try:
        reports = json.loads(regular_file(file).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}; restore it, or remove it to redo its runs") from None
    if not isinstance(reports, dict) or not all(isinstance(report, dict) for report in reports.values()):
        raise ValueError(f"{file} is not an object of run -> report; restore it, or remove it to redo its runs")
    return reports


def finished_runs(cells: Iterable[Cell], results: Path) -> dict[str, Report]:
    """Return ``Cell.name`` -> report of each cell that has one, in the order of `cells`.

    Raises:
        ValueError: a file cannot be read, or a report was made with other flags than the grid has.
    """
    experiments: dict[str, dict[str, Report]] = {}
    finished = {}
    for cell in cells:
        if cell.experiment not in experiments:
            experiments[cell.experiment] = read_experiment(results, cell.experiment)
        report = experiments[cell.experiment].get(cell.key)
        if report is None:
            continue
        if report.get("recipe") != cell.recipe:
            file = results / f"{cell.experiment}.json"
            raise ValueError(
                f"{file}: {cell.key} was made with other flags than the grid has; to redo the run, remove its entry "
                f"and Experiments/{cell.project}_SERVER*"
            )
        finished[cell.name] = report
    return finished


def add_report(cell: Cell, report: Report, results: Path) -> None:
    """Add a run's report to its experiment's file, which is replaced whole.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be written.
    """
    file = results / f"{cell.experiment}.json"
    with locked(results):
        reports = read_experiment(results, cell.experiment) | {cell.key: report}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(dict(sorted(reports.items())), indent=1) + "\n")
