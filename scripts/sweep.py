#!/usr/bin/env python3
"""Run a grid of experiments: python scripts/sweep.py GRID.yaml [--only NAME] [--set PLACE=PATH] [--jobs N]

Runs that have a report in the results folder (<experiment>.json) are skipped; interrupted ones are resumed; to redo a
run, remove its entry there and its directory in Experiments/. When a run fails, the runs that start from its files are
skipped and the others are made. With several GPUs, runs are concurrent, one per GPU. --slurm submits the runs as a job
array of SLURM instead, one task per run; --cell N makes one run, for any scheduler with numbered jobs. The form of a
grid: scripts/evidence/grid.py; an example: scripts/evidence/evidence.yaml.

Exit code: 0; 1 where runs failed or were skipped; 2 for a wrong command, which starts nothing; 128 + n after signal n.
"""

import argparse
import os
import sys
from collections.abc import Collection
from fnmatch import fnmatch
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.evidence import slurm
from scripts.evidence.command_line import Parser, print_out
from scripts.evidence.grid import Cell, expand_grid
from scripts.evidence.grid_file import MAIN, read_grid
from scripts.evidence.launcher import ROOT, Launcher, make_slots
from scripts.evidence.reports import finished_runs
from utils.config.cli import parse


def build_parser() -> Parser:
    parser = Parser(
        prog="sweep.py", usage="sweep.py GRID.yaml [flags]", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("grid", metavar="GRID.yaml", type=Path)
    parser.add_argument(
        "--only", metavar="NAME", action="append",
        help="an experiment, or a pattern of runs such as 'schedule/seed=0,*'; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="PLACE=PATH", action="append", default=[], help="path of one of the grid's places here"
    )
    parser.add_argument("--jobs", metavar="N", type=int, help="concurrent runs (default: one per GPU; one without)")
    parser.add_argument("--results", metavar="FOLDER", type=Path, default=ROOT / "results", help="default: results/")
    parser.add_argument("--list", action="store_true", help="print every run, its state and its command")
    parser.add_argument("--cell", metavar="N", type=int, help="make run N of the grid, as --list numbers them")
    parser.add_argument(
        "--slurm", nargs=argparse.REMAINDER, metavar="OPTION",
        help="submit the unfinished runs to SLURM; all that follows is given to sbatch: --slurm --time=4:00:00",
    )  # fmt: skip
    return parser


def is_selected(cell: Cell, only: list[str] | None) -> bool:
    return not only or any(cell.experiment == name or fnmatch(cell.name, name) for name in only)


def selected_cells(args: argparse.Namespace) -> list[tuple[int, Cell]]:
    """Return the runs of the grid that the command selects, with their numbers.

    Raises:
        ValueError: the command or the grid is wrong.
    """
    if any("=" not in text for text in args.set):
        raise ValueError(f"--set {' '.join(args.set)}: give PLACE=PATH")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: give 1 or more")
    paths = dict(text.split("=", 1) for text in args.set)
    results = os.path.relpath(args.results)  # so that a report has no path of this machine, wherever its run started
    cells = expand_grid(read_grid(args.grid), paths, results)
    for name in args.only or []:
        if not any(is_selected(cell, [name]) for cell in cells):
            experiments = ", ".join(dict.fromkeys(cell.experiment for cell in cells))
            raise ValueError(f"--only {name}: no run has this name; experiments are {experiments}")
    if args.cell is not None and (args.only or args.slurm is not None or not 0 <= args.cell < len(cells)):
        raise ValueError(f"--cell {args.cell}: give it alone, with a number from 0 to {len(cells) - 1}")
    numbered = enumerate(cells) if args.cell is None else [(args.cell, cells[args.cell])]
    return [(number, cell) for number, cell in numbered if is_selected(cell, args.only)]


def check_cells(cells: list[Cell]) -> None:
    """Check that `cells` can start on this machine: their places and programs, and the flags of main.py.

    Raises:
        ValueError: a place or program does not exist, or a flag is wrong.
    """
    places = {name: path for cell in cells for name, path in cell.places.items()}
    missing = {name: path for name, path in places.items() if not os.path.exists(path)}
    if missing:
        listed = ", ".join(f"{name} is '{path}'" for name, path in missing.items())
        flags = " ".join(f"--set {name}=PATH" for name in missing)
        raise ValueError(f"places that do not exist on this machine: {listed}; give {flags}")
    for program in dict.fromkeys(cell.program for cell in cells):
        if not (ROOT / program).is_file():
            raise ValueError(f"program {ROOT / program} does not exist")
    for cell in cells:
        if cell.program == MAIN:
            try:
                parse(cell.flags)
            except ValueError as error:
                raise ValueError(f"{cell.name}: {error}") from None


def list_cells(grid: Path, numbered: list[tuple[int, Cell]], finished: Collection[str]) -> None:
    """Print the number, the state, the name and the command of every run.

    Without a report a run is ``queued`` or ``running`` on SLURM, ``failed`` if SLURM has a log of it, or ``to do``.
    """
    queue = slurm.queue(grid)
    for number, cell in numbered:
        (state, _), error = queue.get(number, ("to do", "")), ""
        if cell.name in finished:
            state = "done"
        elif state == "to do" and slurm.log_file(grid, number).is_file():
            state, error = "failed", f"\n         {slurm.last_line(grid, number)}"
        print_out(f"{number:4}  {state:7}  {cell.name}\n         {cell.recipe}{error}")


def submit_cells(args: argparse.Namespace, unfinished: list[tuple[int, Cell]]) -> None:
    """Submit the runs that are neither finished nor queued nor running.

    Raises:
        ValueError: SLURM refuses, or this is not the folder that holds the batch scripts.
    """
    queue = slurm.queue(args.grid)
    cells = [(number, cell) for number, cell in unfinished if number not in queue]
    names = [cell.name for cell in expand_grid(read_grid(args.grid))]
    queued = {names[number]: job for number, (_, job) in queue.items() if number < len(names)}
    arguments = [f"--results={os.path.abspath(args.results)}", *(word for text in args.set for word in ("--set", text))]
    jobs = slurm.submit(args.grid, cells, queued, arguments, args.jobs, args.slurm)
    for job, numbers in jobs:
        print_out(f"job {job}: {len(numbers)} runs")
    print_out(f"{len(cells)} runs submitted, {len(unfinished) - len(cells)} already queued or running")


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        numbered = selected_cells(args)
        cells = [cell for _, cell in numbered]
        finished = finished_runs(cells, args.results)
        unfinished = [(number, cell) for number, cell in numbered if cell.name not in finished]
        waiting = [cell for _, cell in unfinished]
        if args.list:
            list_cells(args.grid, numbered, finished)
            return 0
        check_cells(waiting)
        if args.slurm is not None:
            submit_cells(args, unfinished)
            return 0
        slots = make_slots(args.jobs)
        print_out(f"{len(cells)} runs, {len(finished)} already done, {len(slots)} at a time")
        args.results.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    launcher = Launcher(args.results, slots)
    launcher.install_signal_handlers()
    return launcher.run(waiting)


if __name__ == "__main__":
    sys.exit(main())
