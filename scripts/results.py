#!/usr/bin/env python3
"""Write RESULTS.md, its tables and its pictures from the reports in results/: python scripts/results.py

The prose is scripts/evidence/results_template.md; a line ``{{name}}`` there becomes the table of that name, which is
also written to results/name.csv. The reports are those that scripts/sweep.py has made by
scripts/evidence/evidence.yaml; runs that have none are counted at the end of the page, but for those that are for
later. The same reports give the same bytes.
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

from scripts.evidence.figures import draw
from scripts.evidence.grid import cells_of, read_grid
from scripts.evidence.runs import reports_of
from scripts.evidence.tables import TABLES, rows_by_length, rows_by_rate, rows_of, rows_of_gains
from scripts.figure1 import picture, read, save
from utils.checkpoint.atomic import write_text

ROOT = Path(__file__).resolve().parent.parent
GRID, TEMPLATE = (ROOT / "scripts" / "evidence" / name for name in ("evidence.yaml", "results_template.md"))
ROWS = ROOT / "scripts" / "paper" / "paper_rows.yaml"
RESULTS = ROOT / "results"
FIGURE1, LAYER = Path("figure1", "run"), "layer2.1.conv1"  # whose files, and of which layer


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


def write(results: Path = RESULTS, target: Path = ROOT / "RESULTS.md", pictures: Path = ROOT / "docs" / "img") -> None:
    """The page, its tables and its pictures, from the reports in `results`.

    Raises:
        ValueError: a report is of other flags than the grid has.
    """
    cells = [cell for cell in cells_of(read_grid(GRID)) if not cell.later or cell.file(results).exists()]
    reports = reports_of(cells, results)
    tables = {name: rows_of(table, reports) for name, table in TABLES.items()} | {
        "gains": rows_of_gains(reports["schedule"]),
        "gains56": rows_of_gains(reports["schedule56"]),
        "lengths": rows_by_length(reports),
        "lr": rows_by_rate(reports),
        "published": published_rows(),
    }
    for name, rows in tables.items():
        write_text(results / f"{name}.csv", as_csv(rows))
    made = {name: len(found) for name, found in reports.items()}
    wanted = Counter(cell.experiment for cell in cells)
    short = [f"`{name}` {made[name]} of {n}" for name, n in wanted.items() if made[name] < n]
    left_out = f"{sum(made.values())} of the {len(cells)} runs of `scripts/evidence/evidence.yaml` have been made"
    left_out += f"; where some are missing: {', '.join(short)}." if short else "."
    write_text(target, page(TEMPLATE.read_text(), tables, left_out))
    draw(reports, pictures)
    if (results / FIGURE1).is_dir():
        save(picture(read(results / FIGURE1), LAYER), pictures / "results_figure1.png")


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
