#!/usr/bin/env python3
"""Run a grid of experiments: python scripts/sweep.py GRID.yaml [--only NAME] [--set PLACE=PATH] [--jobs N]

Runs that have a report in the results folder are skipped; one that was killed goes on where it was; a failed one is
named, and the others are made. With several GPUs, as many runs at once, each on its own. What a grid is:
scripts/grid.py; one that was run: scripts/evidence.yaml.
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
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tqdm import tqdm

from scripts.grid import Cell, cells_of, read_grid
from utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent


class Sweep:
    """Runs cells, several at once where there is room, and takes their reports to `results`.

    Args:
        places: for each run at a time what its environment gets.
    """

    def __init__(self, results: Path, places: list[dict[str, str]]):
        self.results, self.free = results, list(places)
        self.running: dict[subprocess.Popen, tuple[Cell, dict[str, str], IO[str], float]] = {}
        self.failed: list[str] = []
        self.told = 0  # the signal that ends the sweep

    def stop(self, number: int, _frame) -> None:
        self.told = number

    def run(self, cells: list[Cell]) -> int:
        """Every cell once; experiments one after the other, since a later one may start from files of an earlier.

        Returns:
            The exit code: 0; 1 where runs failed; 128 + n where signal n ended the sweep.
        """
        waiting = list(cells)
        began, done, n, passed_on = time.monotonic(), 0, len(waiting), False
        while (waiting and not self.told) or self.running:
            if self.told and not passed_on:
                passed_on = True
                for process in self.running:
                    process.send_signal(self.told)
            while waiting and self.free and not self.told and self._may_start(waiting[0]):
                self._start(waiting.pop(0))
            ended = next((process for process in self.running if process.poll() is not None), None)
            if ended is None:
                time.sleep(0.2)
                continue
            done += 1
            left = tqdm.format_interval((time.monotonic() - began) / done * (n - done))
            print(f"[{done}/{n}] {self._end(ended)}   {left} left", flush=True)
        for name in self.failed:
            print(f"failed: {name}", file=sys.stderr)
        return 128 + self.told if self.told else int(bool(self.failed))

    def _may_start(self, cell: Cell) -> bool:
        return all(other.experiment == cell.experiment for other, *_ in self.running.values())

    def _start(self, cell: Cell) -> None:
        place = self.free.pop(0)
        # A pipe that nobody reads could fill and hold the run up; _end closes the file.
        complaints = TemporaryFile("w+")  # noqa: SIM115
        command = [sys.executable, str(ROOT / cell.program), *cell.flags]
        process = subprocess.Popen(
            [*command, "--project_name", cell.project, "--resume_path", "auto"], env=os.environ | place,
            stdout=subprocess.DEVNULL, stderr=complaints, process_group=0,  # Ctrl-C is passed on once, by the sweep
        )  # fmt: skip
        self.running[process] = cell, place, complaints, time.monotonic()
        print(f"start: {cell.name}", flush=True)

    def _end(self, process: subprocess.Popen) -> str:
        """What came of a run, for a line."""
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
                complaint = str(error)
        if not self.told:
            self.failed.append(f"{cell.name}: {complaint}")
        return f"{cell.name}: exit code {process.returncode} after {took}: {complaint}"

    def _fetch(self, cell: Cell) -> dict:
        """The report of a finished run, copied to the results; where this machine keeps its files is left out."""
        reports = list(Path("Experiments").glob(f"{glob.escape(cell.project)}_SERVER*/log/report.json"))
        if not reports:
            raise ValueError("it left no report")
        newest = max(reports, key=lambda file: file.stat().st_mtime)
        report = json.loads(newest.read_text()) | {"recipe": cell.recipe}
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
        return [gpu for gpu in named.split(",") if gpu]
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


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, usage="sweep.py GRID.yaml [flags]",
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
    args = parser.parse_args(argv)
    try:
        if any("=" not in text for text in args.set):
            raise ValueError(f"--set {' '.join(args.set)}: give PLACE=PATH")
        if args.jobs is not None and args.jobs < 1:
            raise ValueError(f"--jobs {args.jobs}: give 1 or more")
        cells = cells_of(read_grid(args.grid), dict(text.split("=", 1) for text in args.set))
        experiments = ", ".join(dict.fromkeys(cell.experiment for cell in cells))
        cells = [cell for cell in cells if wanted(cell, args.only)]
        if not cells:
            raise ValueError(f"--only {' '.join(args.only or [])}: no run has this name; experiments are {experiments}")
        waiting = [cell for cell in cells if cell.report(args.results) is None]
    except ValueError as error:
        parser.exit(2, f"sweep.py: error: {' '.join(str(error).split())}\n")
    if args.list:
        for cell in cells:
            print(f"{'to do' if cell in waiting else 'done':5}  {cell.name}\n       {cell.recipe}")
        return 0
    rooms = places(args.jobs)
    print(f"{len(cells)} runs, {len(cells) - len(waiting)} done before, {len(rooms)} at a time", flush=True)
    sweep = Sweep(args.results, rooms)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, sweep.stop)
    return sweep.run(waiting)


if __name__ == "__main__":
    sys.exit(main())
