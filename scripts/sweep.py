#!/usr/bin/env python3
"""Run a grid of experiments: python scripts/sweep.py GRID.yaml [--only EXPERIMENT] [--set NAME=VALUE] [--jobs N]

Runs that have a report in the results folder are skipped; one that was killed goes on where it was; a failed one is
named, and the others are made. With several GPUs, as many runs at once, each on its own.

The grid is YAML:

    values:                       # for {names} in flags; --set wins
      images: my_arrays
    experiments:
      schedule:                   # one run for each combination of the axes, the first axis outermost
        flags: --dataset npz --data_path {images} --arch resnet20 --stage_pr [0,{ratio},{ratio},{ratio},0] --seed {seed}
        keep: log/mag_*.npz       # more files of each run to take to the results
        axes:
          seed: [0, 1, 2]
          ratio: [0.5, 0.9]       # a list: what stands for {ratio}
          method:                 # names: the flags that each one adds
            L1: --method L1
            GReg-1: --method GReg-1 --lr_prune 0.01
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import yaml
from tqdm import tqdm

from utils.files import write_text

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        axes: axis -> its value or name here.
        program: what runs it, relative to the repository.
        flags: of the program, complete but for how the run is named and resumed.
        keep: pattern of files of the run's directory that go to the results beside its report; empty: none.
    """

    experiment: str
    axes: dict[str, str]
    program: str
    flags: list[str]
    keep: str = ""

    @property
    def name(self) -> str:
        """``schedule/seed=0,ratio=0.5,method=L1``: of the result's file, without its ending."""
        return f"{self.experiment}/{','.join(f'{axis}={value}' for axis, value in self.axes.items()) or 'run'}"

    def report(self, results: Path) -> Path:
        return results / f"{self.name}.json"

    @property
    def project(self) -> str:
        return self.name.replace("/", ",")

    def command(self) -> list[str]:
        program = [sys.executable, str(ROOT / self.program)]
        return [*program, *self.flags, "--project_name", self.project, "--resume_path", "auto"]


def cells_of(grid: dict, given: dict[str, str] | None = None) -> list[Cell]:
    """Every run of `grid`, in order.

    Args:
        given: values that win over the grid's own.

    Raises:
        ValueError: a name in braces that nothing stands for, or an experiment without flags.
    """
    values = {name: str(value) for name, value in (grid.get("values") or {}).items()} | (given or {})
    return [cell for name, experiment in grid["experiments"].items() for cell in cells_of_one(name, experiment, values)]


def cells_of_one(name: str, experiment: dict, values: dict[str, str]) -> Iterator[Cell]:
    if "flags" not in experiment:
        raise ValueError(f"experiment {name} has no flags")
    values = values | {name: str(value) for name, value in (experiment.get("values") or {}).items()}
    axes = {axis: as_names(choices) for axis, choices in (experiment.get("axes") or {}).items()}
    for chosen in product(*axes.values()):
        here = dict(zip(axes, chosen, strict=True))
        added = [axes[axis][value] for axis, value in here.items()]
        flags = " ".join(fill(text, values | here, name) for text in (experiment["flags"], *added))
        program, keep = experiment.get("program", "main.py"), experiment.get("keep", "")
        yield Cell(name, here, program, shlex.split(flags), keep)


def as_names(choices: list | dict) -> dict[str, str]:
    """Name -> flags that it adds; a list's members add none."""
    if isinstance(choices, dict):
        return {str(name): flags or "" for name, flags in choices.items()}
    return {str(choice): "" for choice in choices}


def fill(text: str, values: dict[str, str], where: str) -> str:
    """`text` with its {names} replaced, to the depth that values name values."""
    try:
        while "{" in text:
            text = text.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise ValueError(f"{where}: nothing stands for {error} in: {text}") from None
    return text


def gpus() -> list[str]:
    """Numbers of the visible GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [gpu for gpu in named.split(",") if gpu]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(len(listed))]


class Sweep:
    """Runs cells, several at once where there is room, and takes their reports to `results`.

    Args:
        places: for each run at a time what its environment gets.
    """

    def __init__(self, results: Path, places: list[dict[str, str]]):
        self.results, self.free = results, list(places)
        self.running: dict[subprocess.Popen, tuple[Cell, dict[str, str], IO[str], float]] = {}
        self.failed: list[str] = []
        self.told = 0  # the signal that ended the sweep

    def stop(self, number: int, _frame) -> None:
        self.told = number
        for process in self.running:
            process.send_signal(number)

    def run(self, cells: list[Cell]) -> int:
        """Every cell once; experiments one after the other, since a later one may start from files of an earlier.

        Returns:
            The exit code: 0; 1 where runs failed; 128 + n where signal n ended the sweep.
        """
        waiting = [cell for cell in cells if not cell.report(self.results).exists()]
        print(f"{len(cells)} runs, {len(cells) - len(waiting)} done before, {len(self.free)} at a time", flush=True)
        began, done, n = time.monotonic(), 0, len(waiting)
        while (waiting and not self.told) or self.running:
            while waiting and self.free and not self.told and self._may_start(waiting[0]):
                self._start(waiting.pop(0))
            ended = self._wait()
            if ended is None:
                continue
            done += 1
            spent = time.monotonic() - began
            left = tqdm.format_interval(spent / done * (n - done))
            print(f"[{done}/{n}] {ended}   {left} left", flush=True)
        for name in self.failed:
            print(f"failed: {name}", file=sys.stderr)
        return 128 + self.told if self.told else int(bool(self.failed))

    def _may_start(self, cell: Cell) -> bool:
        return all(other.experiment == cell.experiment for other, *_ in self.running.values())

    def _start(self, cell: Cell) -> None:
        place = self.free.pop(0)
        # A pipe that nobody reads could fill and hold the run up; _wait closes the file.
        complaints = TemporaryFile("w+")  # noqa: SIM115
        command, environment = cell.command(), os.environ | place
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=complaints)
        self.running[process] = cell, place, complaints, time.monotonic()

    def _wait(self) -> str | None:
        """What came of a run that has ended, for a line; None where all are under way."""
        ended = next((process for process in self.running if process.poll() is not None), None)
        if ended is None:
            time.sleep(0.2)
            return None
        cell, place, complaints, began = self.running.pop(ended)
        self.free.append(place)
        with complaints:
            complaints.seek(0)
            complaint = (complaints.read().strip().splitlines() or ["no message"])[-1]
        took = tqdm.format_interval(time.monotonic() - began)
        if ended.returncode == 0:
            return f"{cell.name}: {brief(self._fetch(cell))}, {took}"
        if not self.told:
            self.failed.append(f"{cell.name}: {complaint}")
        return f"{cell.name}: exit code {ended.returncode} after {took}: {complaint}"

    def _fetch(self, cell: Cell) -> dict:
        """The report of a finished run, copied to the results; where this machine keeps its files is left out."""
        reports = Path("Experiments").glob(f"{cell.project}_SERVER*/log/report.json")
        newest = max(reports, key=lambda file: file.stat().st_mtime)
        report = json.loads(newest.read_text())
        if report["base_model"] and Path(report["base_model"]).is_absolute():
            report["base_model"] = Path(report["base_model"]).name
        target = cell.report(self.results)
        target.parent.mkdir(parents=True, exist_ok=True)
        for file in newest.parents[1].glob(cell.keep) if cell.keep else ():
            shutil.copy(file, target.parent)
        write_text(target, json.dumps(report, indent=1) + "\n")
        return report


def brief(report: dict) -> str:
    """The one figure of a run that a reader of progress wants."""
    key = "acc1_best" if report["acc1_best"] is not None else "acc1_after_cut_bn"
    return f"{key} {report[key]:.2f}" if report[key] is not None else "done"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter, usage="sweep.py GRID.yaml [flags]",
    )  # fmt: skip
    parser.add_argument("grid", metavar="GRID.yaml", type=Path)
    parser.add_argument("--only", metavar="TEXT", action="append", help="runs with this in their name; may be repeated")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a value of the grid's")
    parser.add_argument("--jobs", metavar="N", type=int, help="runs at a time (default: one per GPU; one without)")
    parser.add_argument("--results", metavar="FOLDER", type=Path, default=ROOT / "results", help="default: results/")
    parser.add_argument("--list", action="store_true", help="print every run, whether it is done, and its command")
    args = parser.parse_args(argv)
    try:
        wrong = [text for text in args.set if "=" not in text]
        if wrong:
            raise ValueError(f"--set {wrong[0]}: give NAME=VALUE")
        if args.jobs is not None and args.jobs < 1:
            raise ValueError(f"--jobs {args.jobs}: give 1 or more")
        cells = cells_of(yaml.safe_load(args.grid.read_text()), dict(text.split("=", 1) for text in args.set))
        cells = [cell for cell in cells if not args.only or any(text in cell.name for text in args.only)]
        if not cells:
            raise ValueError(f"--only {' '.join(args.only or [])}: no run has this in its name")
    except (ValueError, OSError, KeyError, TypeError, yaml.YAMLError) as error:
        parser.exit(2, f"sweep.py: error: {' '.join(str(error).split())}\n")
    if args.list:
        for cell in cells:
            state = "done" if cell.report(args.results).exists() else "to do"
            print(f"{state:5}  {cell.name}\n       {shlex.join([cell.program, *cell.flags])}")
        return 0
    sweep = Sweep(args.results, places(args.jobs))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, sweep.stop)
    return sweep.run(cells)


def places(jobs: int | None) -> list[dict[str, str]]:
    """The environment of each run at a time: a GPU of its own, or a share of the cores."""
    found = gpus()
    jobs = jobs or len(found) or 1
    if found:
        return [{"CUDA_VISIBLE_DEVICES": found[i % len(found)]} for i in range(jobs)]
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    return [{"OMP_NUM_THREADS": str(threads)} for _ in range(jobs)]


if __name__ == "__main__":
    sys.exit(main())
