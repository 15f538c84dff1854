#!/usr/bin/env python3
"""Run a grid of experiments: python scripts/sweep.py GRID.yaml [--only NAME] [--set PLACE=PATH] [--jobs N]

Runs that have a report in the results folder are skipped; one that was killed is resumed. Where a run fails, those
that start from its files are skipped, and the others are made. With several GPUs, as many runs at once, each on its
own. What a grid is: scripts/evidence/grid.py; one that was run: scripts/evidence/evidence.yaml.

Exit code: 0; 1 where runs failed or were skipped; 2 for a wrong command, which starts nothing; 128 + n after signal n.
"""

import argparse
import glob
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from fnmatch import fnmatch
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from scripts.evidence.command_line import Parser, print_out
from scripts.evidence.grid import Cell, cells_of, read_grid
from utils.checkpoint.atomic import write_text
from utils.checkpoint.validation import read_report

ROOT = Path(__file__).resolve().parent.parent
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Sweep:
    """Runs cells, several at once where there is room, and takes their reports to `results`.

    Args:
        places: for each run at a time what its environment gets.
    """

    def __init__(self, results: Path, places: list[dict[str, str]]):
        self.results, self.free = results, list(places)
        self.running: dict[subprocess.Popen, tuple[Cell, dict[str, str], IO[str], float]] = {}
        self.failed: dict[str, str] = {}  # name -> why
        self.skipped: set[str] = set()
        self.told = 0  # the signal that ends the sweep
        self.heard = True  # whether stdout can still be written

    def stop(self, number: int, _frame) -> None:
        self.told = number

    def run(self, cells: list[Cell]) -> int:
        """Every cell once; experiments one after the other, since a later one may start from files of an earlier.

        Returns:
            The exit code: 0; 1 where runs failed or were skipped; 128 + n where signal n ended the sweep.
        """
        waiting = list(cells)
        began, n, passed_on = time.monotonic(), len(waiting), False
        while (waiting and not self.told) or self.running:
            if self.told and not passed_on:
                passed_on = True
                for process in self.running:
                    process.send_signal(self.told)
            self._start_those_that_may(waiting)
            ended = next((process for process in self.running if process.poll() is not None), None)
            if ended is None:
                time.sleep(0.2)
                continue
            line = self._end(ended)
            done = n - len(waiting) - len(self.running)
            left = tqdm.format_interval((time.monotonic() - began) / (done - len(self.skipped)) * (n - done))
            self._print(f"[{done}/{n}] {line}   {left} left")
        for name, why in self.failed.items():
            print(f"failed: {name}: {why}", file=sys.stderr)
        if self.failed or self.skipped:
            made = n - len(waiting) - len(self.failed) - len(self.skipped)
            print(f"{made} made, {len(self.failed)} failed, {len(self.skipped)} skipped", file=sys.stderr)
        return 128 + self.told if self.told else int(bool(self.failed or self.skipped))

    def _start_those_that_may(self, waiting: list[Cell]) -> None:
        """Take cells from `waiting` while there is room; those that cannot be made are skipped."""
        while waiting and self.free and not self.told and self._may_start(waiting[0]):
            cell = waiting.pop(0)
            missing = self._missing(cell)
            if missing:
                self.skipped.add(cell.name)
                print(f"skipped: {cell.name} needs {missing}", file=sys.stderr, flush=True)
                continue
            try:
                self._start(cell)
            except OSError as error:  # no process, no temporary file
                self.failed[cell.name] = f"it could not be started: {error.strerror}"

    def _may_start(self, cell: Cell) -> bool:
        needed = {name for name, _ in cell.needs}
        running = [other for other, *_ in self.running.values()]
        return all(other.experiment == cell.experiment and other.name not in needed for other in running)

    def _missing(self, cell: Cell) -> str | None:
        """The first run whose files `cell` starts from and cannot have, and why; None where it has all."""
        for name, files in cell.needs:
            if name in self.failed or name in self.skipped:
                return f"{name}, which {'failed' if name in self.failed else 'was skipped'}"
            if not glob.glob(os.path.expanduser(files)):
                return f"{name}, of which there is no {files} here"
        return None

    def _print(self, line: str) -> None:
        """A line of progress; a reader that is gone ends no run."""
        if self.heard:
            try:
                print_out(line)
            except ValueError as error:
                self.heard = False
                print(f"notice: {error}; the sweep continues without lines of progress", file=sys.stderr, flush=True)

    def _start(self, cell: Cell) -> None:
        place = self.free[0]
        # A pipe that nobody reads could fill and hold the run up; _end closes the file.
        complaints = TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        command = [sys.executable, str(ROOT / cell.program), *cell.flags]
        process = subprocess.Popen(
            [*command, "--project_name", cell.project, "--resume_path", "auto"], env=os.environ | place,
            stdout=subprocess.DEVNULL, stderr=complaints, process_group=0,  # Ctrl-C is passed on once, by the sweep
        )  # fmt: skip
        self.free.remove(place)
        self.running[process] = cell, place, complaints, time.monotonic()
        self._print(f"start: {cell.name}")

    def _end(self, process: subprocess.Popen) -> str:
        """Take a run that has ended from those that run; returns a line on it."""
        cell, place, complaints, began = self.running.pop(process)
        self.free.append(place)
        with complaints:
            complaints.seek(0)
            complaint = (complaints.read().strip().splitlines() or ["no message"])[-1]
        took = tqdm.format_interval(time.monotonic() - began)
        if process.returncode == 0:
            try:
                return f"{cell.name}: {brief(self._fetch(cell))}, {took}"
            except (OSError, ValueError) as error:
                complaint = " ".join(str(error).split())
        if not self.told:
            self.failed[cell.name] = complaint
        return f"{cell.name}: exit code {process.returncode} after {took}: {complaint}"

    def _fetch(self, cell: Cell) -> dict:
        """The report of a finished run, copied to the results; where this machine keeps its files is left out."""
        reports = list(Path("Experiments").glob(f"{glob.escape(cell.project)}_SERVER*/log/report.json"))
        if not reports:
            raise ValueError("it left no report")
        newest = max(reports, key=lambda file: file.stat().st_mtime)
        report = read_report(newest) | {"recipe": cell.recipe}
        if report["base_model"] and Path(report["base_model"]).is_absolute():
            report["base_model"] = Path(report["base_model"]).name
        target = cell.file(self.results)
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in newest.parents[1].glob(cell.keep) if cell.keep else ():
            target.with_suffix("").mkdir(exist_ok=True)
            shutil.copy(file, target.with_suffix(""))
        write_text(target, json.dumps(report, indent=1) + "\n")
        return report


def brief(report: dict) -> str:
    """The one figure of a run that a reader of progress wants."""
    key = "acc1_best" if report["acc1_best"] is not None else "acc1_after_cut_bn"
    return f"{key} {report[key]:.2f}" if report[key] is not None else "done"


def gpus() -> list[str]:
    """Numbers of the visible GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return list(takewhile(lambda gpu: gpu not in ("", "-1"), named.replace(" ", "").split(",")))  # as CUDA does
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed))]


def places(jobs: int | None) -> list[dict[str, str]]:
    """The environment of each run at a time: a GPU of its own, or a share of the cores."""
    found = gpus()
    jobs = jobs or len(found) or 1
    if found:
        return [{"CUDA_VISIBLE_DEVICES": found[i % len(found)]} for i in range(jobs)]
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    return [{"OMP_NUM_THREADS": str(threads)} for _ in range(jobs)]


def wanted(cell: Cell, only: list[str] | None) -> bool:
    return not only or any(cell.experiment == name or fnmatch(cell.name, name) for name in only)


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
        "--set", metavar="PLACE=PATH", action="append", default=[], help="where on this machine a place of the grid is"
    )
    parser.add_argument("--jobs", metavar="N", type=int, help="runs at a time (default: one per GPU; one without)")
    parser.add_argument("--results", metavar="FOLDER", type=Path, default=ROOT / "results", help="default: results/")
    parser.add_argument("--list", action="store_true", help="print every run, whether it is done, and its command")
    return parser


def chosen_cells(args: argparse.Namespace) -> list[Cell]:
    """The runs of the grid that the command names.

    Raises:
        ValueError: the command or the grid is wrong.
    """
    if any("=" not in text for text in args.set):
        raise ValueError(f"--set {' '.join(args.set)}: give PLACE=PATH")
    if args.jobs is not None and args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs}: give 1 or more")
    cells = cells_of(read_grid(args.grid), dict(text.split("=", 1) for text in args.set))
    for name in args.only or []:
        if not any(wanted(cell, [name]) for cell in cells):
            experiments = ", ".join(dict.fromkeys(cell.experiment for cell in cells))
            raise ValueError(f"--only {name}: no run has this name; experiments are {experiments}")
    return [cell for cell in cells if wanted(cell, args.only)]


def refuse_what_is_not_here(cells: list[Cell]) -> None:
    """Raises:
    ValueError: places or programs of `cells` that do not exist on this machine.
    """
    used = {name: path for cell in cells for name, path in cell.places.items()}
    missing = {name: path for name, path in used.items() if not os.path.exists(path)}
    if missing:
        found = ", ".join(f"{name} is '{path}'" for name, path in missing.items())
        mend = " ".join(f"--set {name}=PATH" for name in missing)
        raise ValueError(f"places that are not on this machine: {found}; give {mend}")
    programs = [program for program in {cell.program for cell in cells} if not (ROOT / program).is_file()]
    if programs:
        raise ValueError(f"program: {ROOT / programs[0]} is no file")


def main(argv: list[str] | None = None) -> int:
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        cells = chosen_cells(args)
        waiting = [cell for cell in cells if cell.report(args.results) is None]
        if args.list:
            for cell in cells:
                print_out(f"{'to do' if cell in waiting else 'done':5}  {cell.name}\n       {cell.recipe}")
            return 0
        refuse_what_is_not_here(waiting)
        rooms = places(args.jobs)
        print_out(f"{len(cells)} runs, {len(cells) - len(waiting)} done before, {len(rooms)} at a time")
        args.results.mkdir(parents=True, exist_ok=True)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    sweep = Sweep(args.results, rooms)
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, sweep.stop)
    return sweep.run(waiting)


if __name__ == "__main__":
    sys.exit(main())
