#!/usr/bin/env python3
"""Write RESULTS.md, its tables and its pictures from the reports in results/: python scripts/results.py

The prose is scripts/evidence/results_template.md; a line ``{{name}}`` there becomes the table of that name, which is
also written to results/name.csv. The reports are those of scripts/evidence/evidence.yaml, made by scripts/sweep.py; the
last line of the page counts the runs that have none, except optional ones (``later``). The same reports give the same
bytes.
"""

import csv
import io
import re
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml

from scripts.evidence.command_line import Parser
from scripts.evidence.figures import draw_all
from scripts.evidence.grid import expand_grid
from scripts.evidence.grid_file import read_grid
from scripts.evidence.reports import finished_runs
from scripts.evidence.runs import runs_by_experiment
from scripts.evidence.tables import all_tables
from scripts.figure1 import draw_figure1, read_magnitudes, save
from utils.checkpoint.atomic import write_text

ROOT = Path(__file__).resolve().parent.parent
GRID, TEMPLATE = (ROOT / "scripts" / "evidence" / name for name in ("evidence.yaml", "results_template.md"))
PAPER_ROWS = ROOT / "scripts" / "paper" / "paper_rows.yaml"
RESULTS = ROOT / "results"
FIGURE1_RUNS, FIGURE1_LAYER = ("figure1", "full-figure1"), "layer2.1.conv1"


def published_rows() -> list[list[str]]:
    """Return header and rows: the paper's Table 1, ResNet56, as printed."""
    entry = next(row for row in yaml.safe_load(PAPER_ROWS.read_text()) if row["name"] == "table1_resnet56")
    rows = [["ratio", "speedup", "sparsity, %", "L1", "GReg-1"]]
    return rows + [[str(row[key]) for key in ("pr", "speedup", "sparsity", "L1", "GReg-1")] for row in entry["rows"]]


def to_markdown(rows: list[list[str]]) -> str:
    header, *body = rows
    if not body:
        return "*Not run yet.*"
    lines = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def to_csv(rows: list[list[str]]) -> str:
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def fill_template(template: str, tables: dict[str, list[list[str]]]) -> str:
    """Replace each line ``{{name}}`` by the table of that name.

    Raises:
        KeyError: there is no such table.
    """
    return re.sub(r"^\{\{([\w-]+)\}\}$", lambda match: to_markdown(tables[match[1]]), template, flags=re.M)


def count_runs(n_finished: dict[str, int], n_planned: dict[str, int]) -> str:
    """Return a sentence on how many runs have been made, and where some are missing.

    Args:
        n_finished, n_planned: experiment -> number of runs.
    """
    made = f"{sum(n_finished.values())} of the {sum(n_planned.values())} runs of `scripts/evidence/evidence.yaml`"
    missing = [f"`{name}` {n_finished[name]} of {n}" for name, n in n_planned.items() if n_finished[name] < n]
    return f"{made} have been made" + (f"; where some are missing: {', '.join(missing)}." if missing else ".")


def write_page(
    results: Path = RESULTS, target: Path = ROOT / "RESULTS.md", pictures: Path = ROOT / "docs" / "img"
) -> None:
    """Write the page, its tables and its pictures from the reports in `results`.

    Raises:
        ValueError: a report was made with other flags than the grid has.
    """
    cells = expand_grid(read_grid(GRID))
    finished = finished_runs(cells, results)
    runs = runs_by_experiment(cells, finished)
    tables = all_tables(runs) | {"published": published_rows()}
    for name, rows in tables.items():
        write_text(results / f"{name}.csv", to_csv(rows))
    planned = Counter(cell.experiment for cell in cells if not cell.later or cell.name in finished)
    counts = count_runs({name: len(members) for name, members in runs.items()}, planned)
    write_text(target, f"{fill_template(TEMPLATE.read_text(), tables).rstrip()}\n\n{counts}\n")
    draw_all(runs, pictures)
    for name in FIGURE1_RUNS:
        if (results / name / "run").is_dir():
            figure = draw_figure1(read_magnitudes(results / name / "run"), FIGURE1_LAYER)
            save(figure, pictures / f"results_{name}.png")


def main() -> int:
    Parser(
        prog="results.py", description=__doc__, epilog="To compare runs: python scripts/compare.py RUN…"
    ).parse_args()
    try:
        write_page()
    except (ValueError, OSError) as error:
        print(f"results.py: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
