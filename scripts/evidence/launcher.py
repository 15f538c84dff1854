"""Run the cells of a grid as processes, one per slot at a time, and add their reports to the results."""

import glob
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from tqdm import tqdm

from scripts.evidence.command_line import print_out
from scripts.evidence.grid import Cell
from scripts.evidence.reports import Report, add_report
from utils.checkpoint.validation import read_report
from utils.config.paths import matching
from utils.dist.signals import SIGNALS

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.2
Slot = dict[str, str]  # the environment variables that give a run its GPU or its threads


def visible_gpus() -> list[str]:
    """Return the visible GPUs, as CUDA_VISIBLE_DEVICES names them."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return list(takewhile(lambda gpu: gpu not in ("", "-1"), named.replace(" ", "").split(",")))  # as CUDA does
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(sum(line.startswith("GPU ") for line in listed))]


def make_slots(jobs: int | None) -> list[Slot]:
    """Return a slot for each concurrent run: a GPU, or a share of the CPU cores.

    Args:
        jobs: concurrent runs; None: one per GPU, or one without GPUs.
    """
    gpus = visible_gpus()
    jobs = jobs or len(gpus) or 1
    if gpus:
        return [{"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} for i in range(jobs)]
    threads = max(len(os.sched_getaffinity(0)) // jobs, 1)
    return [{"OMP_NUM_THREADS": str(threads)} for _ in range(jobs)]


@dataclass
class Job:
    """A running cell."""

    cell: Cell
    slot: Slot
    process: subprocess.Popen
    stderr: IO[str]
    started: float


class Launcher:
    """Runs cells, one per slot at a time, and adds their reports to `results`."""

    def __init__(self, results: Path, slots: list[Slot]):
        self.results, self.free_slots = results, list(slots)
        self.jobs: list[Job] = []
        self.failed: dict[str, str] = {}  # name of the cell -> error
        self.skipped: set[str] = set()
        self.received_signal = 0
        self._prints_progress = True

    def install_signal_handlers(self) -> None:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.received_signal = number

    def run(self, cells: Iterable[Cell]) -> int:
        """Run every cell once, experiment by experiment: later ones may start from files of earlier ones.

        Returns:
            The exit code: 0; 1 where runs failed or were skipped; 128 + n where signal n ended the sweep.
        """
        waiting = list(cells)
        total, started, forwarded = len(waiting), time.monotonic(), False
        while self.jobs or (waiting and not self.received_signal):
            if self.received_signal and not forwarded:
                forwarded = True
                for job in self.jobs:
                    job.process.send_signal(self.received_signal)
            self._start_ready(waiting)
            finished = next((job for job in self.jobs if job.process.poll() is not None), None)
            if finished is None:
                time.sleep(POLL_SECONDS)
                continue
            line = self._finish(finished)
            done = total - len(waiting) - len(self.jobs)
            seconds_per_run = (time.monotonic() - started) / (done - len(self.skipped))
            self._print(f"[{done}/{total}] {line}   {tqdm.format_interval(seconds_per_run * (total - done))} left")
        self._print_failures(total - len(waiting))
        if self.received_signal:
            return 128 + self.received_signal
        return 1 if self.failed or self.skipped else 0

    def _start_ready(self, waiting: list[Cell]) -> None:
        """Take cells from `waiting` while slots are free; skip those whose inputs are missing."""
        while waiting and self.free_slots and not self.received_signal and self._may_start(waiting[0]):
            cell = waiting.pop(0)
            missing = self._missing_input(cell)
            if missing:
                self.skipped.add(cell.name)
                print(f"skipped: {cell.name} needs {missing}", file=sys.stderr, flush=True)
                continue
            try:
                self._start(cell)
            except OSError as error:  # no process, no temporary file
                self.failed[cell.name] = f"could not be started: {error.strerror}"

    def _may_start(self, cell: Cell) -> bool:
        """Whether no running cell is of another experiment or an input of `cell`."""
        inputs = {name for name, _ in cell.needs}
        return all(job.cell.experiment == cell.experiment and job.cell.name not in inputs for job in self.jobs)

    def _missing_input(self, cell: Cell) -> str | None:
        """Return the first run whose files `cell` needs and cannot have, with the reason; None if it has all."""
        for name, pattern in cell.needs:
            if name in self.failed:
                return f"{name}, which failed"
            if name in self.skipped:
                return f"{name}, which was skipped"
            files = matching(pattern)
            if not files:
                return (
                    f"{name}, but no file matches {pattern}: make it first, with --only {name}, "
                    f"and --results of an empty folder if it counts as done"
                )
            if not any(_is_of_finished_run(file) for file in files):
                return f"{name}, which has not finished: {files[0]} may change"
        return None

    def _start(self, cell: Cell) -> None:
        slot = self.free_slots[0]
        # A file, since a full pipe that is not read would block the run; _finish closes it.
        stderr = TemporaryFile("w+", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        command = [sys.executable, str(ROOT / cell.program), *cell.flags]
        process = subprocess.Popen(
            [*command, "--project_name", cell.project, "--resume_path", "auto"], env=os.environ | slot,
            stdout=subprocess.DEVNULL, stderr=stderr, process_group=0,  # the launcher forwards Ctrl-C, once
        )  # fmt: skip
        self.free_slots.remove(slot)
        self.jobs.append(Job(cell, slot, process, stderr, time.monotonic()))
        self._print(f"start: {cell.name}")

    def _finish(self, job: Job) -> str:
        """Free the slot of a job that has ended and collect its report; return a line about it."""
        self.jobs.remove(job)
        self.free_slots.append(job.slot)
        with job.stderr as stderr:
            stderr.seek(0)
            error = (stderr.read().strip().splitlines() or ["no message"])[-1]
        name, took = job.cell.name, tqdm.format_interval(time.monotonic() - job.started)
        if job.process.returncode == 0:
            try:
                return f"{name}: {headline(collect(job.cell, self.results))}, {took}"
            except (OSError, ValueError) as reason:
                error = " ".join(str(reason).split())
        if not self.received_signal:
            self.failed[name] = error
        return f"{name}: exit code {job.process.returncode} after {took}: {error}"

    def _print(self, line: str) -> None:
        """Print a line of progress; a closed stdout does not stop the runs."""
        if self._prints_progress:
            try:
                print_out(line)
            except ValueError as error:
                self._prints_progress = False
                print(f"notice: {error}; the sweep continues without progress", file=sys.stderr, flush=True)

    def _print_failures(self, n_taken: int) -> None:
        for name, error in self.failed.items():
            print(f"failed: {name}: {error}", file=sys.stderr)
        if self.failed or self.skipped:
            n_made = n_taken - len(self.failed) - len(self.skipped)
            print(f"{n_made} made, {len(self.failed)} failed, {len(self.skipped)} skipped", file=sys.stderr)


def _is_of_finished_run(file: Path) -> bool:
    """Whether the run that wrote `file` has a report; true of files outside of Experiments/."""
    inside = Path(os.path.relpath(file)).parts
    return inside[0] != "Experiments" or Path(*inside[:2], "log", "report.json").exists()


def collect(cell: Cell, results: Path) -> Report:
    """Add the report and the kept files of a finished run to `results`; return the report.

    Raises:
        ValueError: the run has no sound report.
        OSError: a file cannot be written.
    """
    files = list(Path("Experiments").glob(f"{glob.escape(cell.project)}_SERVER*/log/report.json"))
    if not files:
        raise ValueError("the run wrote no report")
    newest = max(files, key=lambda file: file.stat().st_mtime)
    report = read_report(newest) | {"recipe": cell.recipe}
    base_model = Path(report["base_model"] or "")
    if base_model.is_absolute() or ".." in base_model.parts:
        report["base_model"] = base_model.name  # reports do not show where a machine has its files
    for file in newest.parents[1].glob(cell.keep) if cell.keep else ():
        (results / cell.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, results / cell.name)
    add_report(cell, report, results)
    return report


def headline(report: Report) -> str:
    """Return the accuracy that progress shows of a finished run."""
    key = "acc1_best" if report["acc1_best"] is not None else "acc1_after_cut_bn"
    return f"{key} {report[key]:.2f}" if report[key] is not None else "done"
