#!/usr/bin/env python3
"""Check that runs and grids survive SLURM. scripts/checks/slurm.sh makes a cluster of one node and calls this script.

    slurm.py FOLDER            work in FOLDER, which the caller removes; SLURM_CONF names the cluster

A run that is longer than its time limit is stopped and queued again at least three times and ends with the bits of an
undisturbed run. A wrong command ends its job with exit code 2, of one process and of two. A grid of six runs is a job
array: one run fails, one is cancelled and submitted again.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # run as a file, from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.checks.kill_test import ROOT, command, differences, run_alone, write_images
from scripts.evidence.slurm import job_name

MINUTES = 20  # at most, of each wait
# The run that is longer than its time limit. SLURM looks twice a minute at limits in whole minutes; a signal 100 s
# before the end of two minutes leaves 20 to 50 s for each start, so that the run starts at least four times.
LIMITS = ("--time=2", "--signal=TERM@100")
WANTED_SECONDS = 180
SHORT_EPOCHS = 3  # of ``kill_test.command``
# Six runs: a base and five that start from it, numbered in this order.
GRID = """
experiments:
  base:
    flags: >-
      --dataset npz --data_path {images} --arch resnet20 --method none --epochs 2 --lr_ft 0:0.05 --seed 0 --device cpu
  cut:
    flags: >-
      --dataset npz --data_path {images} --arch resnet20 --method L1 --stage_pr [0,{ratio},{ratio},{ratio},0] --seed 0
      --base_model_path Experiments/base,run_SERVER*/weights/checkpoint_best.pth --lr_ft 0:0.01 --epochs {epochs}
      --device cpu
    axes:
      ratio: [0.2, 0.4, 0.6, 0.8, "0.8,0.8"]
values: {epochs: 6}
places: {images: IMAGES}
"""
RUN_THAT_FAILS, RUN_TO_CANCEL = 5, 2  # of too many ratios, which only the run finds; and of ratio 0.4


class Cluster:
    """Commands to SLURM, from a copy of the repository."""

    def __init__(self, work: Path):
        self.work, self.repository = work, work / "repository"
        files = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                               capture_output=True, text=True, check=True).stdout.split("\0")  # fmt: skip
        for name in filter(lambda name: name and (ROOT / name).is_file(), files):
            target = self.repository / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
        self.environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, *words: str) -> str:
        ran = subprocess.run(words, cwd=self.repository, capture_output=True, text=True, env=self.environment)
        if ran.returncode:
            sys.exit(f"{' '.join(words)}: {ran.stderr.strip()}")
        return ran.stdout

    def job(self, number: str) -> dict[str, str]:
        """Return the fields of a job."""
        shown = self.run("scontrol", "--oneliner", "show", "job", number)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def wait(self, done: Callable[[], bool], what: str) -> None:
        end = time.monotonic() + 60 * MINUTES
        while not done():
            if time.monotonic() > end:
                sys.exit(f"{what}: not after {MINUTES} minutes")
            time.sleep(1)

    def wait_for_job(self, number: str) -> dict[str, str]:
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        self.wait(lambda: self.job(number)["JobState"] in ended, f"job {number} ends")
        return self.job(number)

    def states(self, grid: Path) -> dict[int, str]:
        """Return number -> state of the runs of a grid, as ``sweep.py --list`` prints them."""
        listed = self.run("python", "scripts/sweep.py", str(grid), "--results", "results-of-check", "--list")
        return {int(n): state.strip() for n, state in re.findall(r"^ *(\d+)  (\w+(?: \w+)?) +\S+/", listed, re.M)}


def expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        sys.exit(f"FAULT: {what}: {found}, not {expected}")


def check_requeues(cluster: Cluster, images: Path) -> None:
    """A run longer than its time limit."""
    words = [*command(images, "GReg-1", "filter"), "--print_freq", "5"]
    short = run_alone(words, cluster.work / "short")
    seconds = json.loads((short / "log" / "report.json").read_text())["seconds"]["finetune"]
    epochs = round(SHORT_EPOCHS * WANTED_SECONDS / seconds)
    words += ["--epochs", str(epochs)]
    alone = run_alone(words, cluster.work / "alone")
    flags = words[2:]  # of main.py
    job = cluster.run("sbatch", "--parsable", *LIMITS, "scripts/slurm/train.sbatch", *flags).strip()
    fields = cluster.wait_for_job(job)
    log = (cluster.repository / f"prune-{job}.log").read_text()
    expect(fields["JobState"], "COMPLETED", log[-800:])
    requeues, resumed = int(fields["Restarts"]), log.count("\nresumed from")
    if requeues < 3:
        sys.exit(f"FAULT: queued again {requeues} times only")
    (run_dir,) = cluster.repository.glob("Experiments/GReg-1__*")
    expect(differences(alone, run_dir), [], "differences from the undisturbed run")
    expect("Traceback" in log, False, "a traceback in the log")
    lines = len(re.findall(r"--resume_path", log))
    print(f"run of {epochs} epochs: {requeues} times queued again, {resumed} times resumed, identical; "
          f"{lines} lines on how to resume", flush=True)  # fmt: skip


def check_wrong_command(cluster: Cluster, processes: int) -> None:
    words = ["--parsable", f"--ntasks-per-node={processes}", "scripts/slurm/train.sbatch", "--dataset", "no-such-set"]
    job = cluster.run("sbatch", *words).strip()
    fields = cluster.wait_for_job(job)
    expect((fields["JobState"], fields["ExitCode"], fields["Restarts"]), ("FAILED", "2:0", "0"), "a wrong command")
    lines = (cluster.repository / f"prune-{job}.log").read_text().strip().splitlines()
    of_run = [line for line in lines if not line.startswith(("srun:", "slurmstepd:"))]
    expect(len(of_run), 1, f"lines of the run: {of_run}")
    print(f"a wrong command to {processes} process(es): exit code 2, not repeated: {of_run[0]}", flush=True)


def check_grid(cluster: Cluster, images: Path) -> None:
    """A grid as a job array; one run fails, one is cancelled and submitted again."""
    grid = cluster.work / "six.yaml"
    grid.write_text(GRID.replace("IMAGES", str(images)))
    sweep = ("python", "scripts/sweep.py", str(grid), "--results", "results-of-check")
    print(cluster.run(*sweep, "--jobs", "2", "--slurm", "--time=10").strip(), flush=True)
    states = cluster.states(grid)
    expect(set(states.values()) <= {"queued", "running"}, True, f"states {states}")
    cluster.wait(lambda: cluster.states(grid)[RUN_TO_CANCEL] == "running", f"run {RUN_TO_CANCEL} starts")
    listed = cluster.run("squeue", "--noheader", "--array", f"--name={job_name(grid)}", "--format=%F_%K")
    cluster.run("scancel", next(task for task in listed.split() if task.endswith(f"_{RUN_TO_CANCEL}")))
    cluster.wait(lambda: not {"queued", "running"} & set(cluster.states(grid).values()), "the array ends")
    expected = dict.fromkeys(range(6), "done") | {RUN_THAT_FAILS: "failed", RUN_TO_CANCEL: "failed"}
    expect(cluster.states(grid), expected, "states after the array")
    print(cluster.run(*sweep, "--slurm", "--time=10").strip(), flush=True)
    cluster.wait(lambda: not {"queued", "running"} & set(cluster.states(grid).values()), "the second array ends")
    expect(cluster.states(grid), expected | {RUN_TO_CANCEL: "done"}, "states after the second array")
    reports = json.loads((cluster.repository / "results-of-check" / "cut.json").read_text())
    expect(len(reports), 4, "reports")
    print("a grid of six runs: 5 done, 1 failed as it must; the cancelled one was submitted again", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    work = parser.parse_args().folder
    os.environ["OMP_NUM_THREADS"] = "1"  # of every run: another number rounds differently
    write_images(work / "arrays")
    cluster = Cluster(work)
    for processes in (1, 2):
        check_wrong_command(cluster, processes)
    check_grid(cluster, work / "arrays")
    check_requeues(cluster, work / "arrays")
    return 0


if __name__ == "__main__":
    sys.exit(main())
