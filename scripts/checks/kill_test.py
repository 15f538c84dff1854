#!/usr/bin/env python3
"""Kill runs, resume them and compare them with uninterrupted runs: python scripts/checks/kill_test.py --kills 100

Each combination of method and group is run once without interruption. The same command, with --resume_path auto, is
then killed at random moments of every part of a run (start, update, stabilise, cut, fine-tuning) a given number of
times, and left to finish. Its kills count as survived if weights, masks, report (except times) and the logs of
accuracy, order and magnitude are bit-identical. Half of the runs are killed by SIGKILL, on images in memory
(scikit-learn's digits at 16 px). The others receive SIGTERM or SIGHUP as a process group, on image files (64 px, two
data workers), with no checkpoints except those that the signals cause.
"""

import argparse
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KILLS = {"arrays": (signal.SIGKILL,), "files": (signal.SIGTERM, signal.SIGHUP)}
COMBINATIONS = tuple(itertools.product(("L1", "GReg-1", "GReg-2"), ("filter", "weight")))
PARTS = ("start", "update", "stabilise", "cut", "fine-tuning")
STABILIZE_FROM = {"GReg-1": 40, "GReg-2": 60}
PER_RUN_KEYS = ("seconds", "images_per_second", "run_dir", "run_id")  # of a report: they differ between any two runs


@dataclass
class Outcome:
    """Result of a killed run: kills by part of the run, and differences from the uninterrupted run."""

    kills: Counter = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    exit_code: int = 0

    @property
    def survived(self) -> bool:
        return not self.exit_code and not self.differences


def write_images(folder: Path) -> None:
    """Write 800 training and 200 test images, 16×16."""
    import numpy as np
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images / 16 * 255).astype(np.uint8).reshape(-1, 8, 8, 1).repeat(2, 1).repeat(2, 2)
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", slice(0, 800)), ("test", slice(800, 1000))):
        np.savez(folder / f"{name}.npz", images=images[part], labels=labels[part])


def write_image_files(folder: Path) -> None:
    """Write 400 training and 200 test JPEG files, 64×64, in the 200 classes of Tiny-ImageNet's layout."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for part, n in (("train", 2), ("val", 1)):
        for label in range(200):
            class_folder = folder / "tiny_imagenet" / part / f"n{label:03}"
            class_folder.mkdir(parents=True, exist_ok=True)
            for i in range(n):
                pixels = rng.integers(0, 56, (64, 64, 3)) + label
                Image.fromarray(pixels.astype(np.uint8)).save(class_folder / f"{i}.JPEG")


def command(images: Path, method: str, kind: str, stored: str = "arrays", arch: str = "resnet20") -> list[str]:
    """Return the command of a run of some seconds with every part.

    Args:
        stored: ``arrays`` or ``files``.
        arch: another network than resnet20 is pruned by ``--ratios``.
    """
    ratios = "--stage_pr [0,0.5,0.5,0.5,0]" if arch == "resnet20" else "--ratios *:0.5"
    data, interval = ("npz", 7) if stored == "arrays" else ("tiny_imagenet --workers 2", 100_000)
    words = f"""--dataset {data} --data_path {images} --arch {arch} --method {method} --wg {kind} --seed 1
        --allow_untrained {ratios} --device cpu --epochs 3 --batch_size 64 --lr_ft 0:0.05,2:0.01
        --save_interval {interval} --print_freq 1 --val_fraction 0.1"""
    if method != "L1":
        words += """ --batch_size_prune 16 --lr_prune 0.01 --update_reg_interval 2 --reg_granularity_prune 0.05
            --reg_granularity_pick 0.001 --reg_upper_limit 1.0 --stabilize_reg_interval 40 --print_interval 1
            --test_interval 10 --plot_interval 8 --save_order_log"""
        words += " --save_mag_reg_log" if kind == "filter" else ""
    return [sys.executable, str(ROOT / "main.py"), *words.split()]


def run_alone(words: list[str], cwd: Path) -> Path:
    """Run to the end; return the run's directory."""
    cwd.mkdir(parents=True, exist_ok=True)
    subprocess.run(words, cwd=cwd, check=True, capture_output=True)
    run_dir = run_dir_in(cwd)
    assert run_dir is not None
    return run_dir


def seconds_to_start() -> float:
    """Measure the time that the program takes to start."""
    began = time.monotonic()
    subprocess.run([sys.executable, str(ROOT / "main.py"), "--help"], check=True, capture_output=True)
    return time.monotonic() - began


def run_dir_in(cwd: Path) -> Path | None:
    return next(iter(cwd.glob("Experiments/*")), None)


def logged(cwd: Path) -> list[str]:
    """Return the lines of the log of the run in `cwd`; none if there is no log."""
    run_dir = run_dir_in(cwd)
    log = run_dir and run_dir / "log" / "log.txt"
    return log.read_text().splitlines() if log and log.exists() else []


def part_of(lines: list[str], method: str) -> str:
    """Return the part of the run that a process has reached, from its log."""
    for line in reversed(lines):
        if "fine-tune  step" in line or "epoch " in line or "cut: test" in line:
            return "fine-tuning"
        step = re.search(r"prune  step (\d+)/(\d+)  loss", line)
        if step:
            if step[1] == step[2]:
                return "cut"
            return "update" if int(step[1]) < STABILIZE_FROM[method] else "stabilise"
    return "start"


def targets_for(method: str, kills: int, dice: random.Random) -> list[str]:
    """Draw the parts in which to kill a run, in the order of the run."""
    parts = PARTS if method != "L1" else ("start", "fine-tuning")
    return sorted(dice.choices(parts, k=kills), key=PARTS.index)


def run_killed(
    words: list[str],
    cwd: Path,
    method: str,
    targets: list[str],
    dice: random.Random,
    signals: Sequence[signal.Signals] = KILLS["arrays"],
) -> Outcome:
    """Start `words` in `cwd`, kill its process group once in each part of `targets`, then let it finish."""
    cwd.mkdir(parents=True, exist_ok=True)
    targets, starting = list(targets), seconds_to_start()
    outcome = Outcome()
    while True:
        target = targets.pop(0) if targets else None
        n_logged = len(logged(cwd))
        process = subprocess.Popen(
            [*words, "--resume_path", "auto"], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            process_group=0,
        )  # fmt: skip
        if target is None:
            output, _ = process.communicate()
            outcome.exit_code = process.returncode
            if process.returncode:
                outcome.differences.append(output.strip().splitlines()[-1])
            return outcome
        part = "start"
        while process.poll() is None:
            part = part_of(logged(cwd)[n_logged:], method)
            if PARTS.index(part) >= PARTS.index(target):
                time.sleep(dice.uniform(0, starting if target == "start" else 0.6))
                break
            time.sleep(0.005)
        sent = dice.choice(signals)
        if process.poll() is None:
            os.killpg(process.pid, sent)
            outcome.kills[part_of(logged(cwd)[n_logged:], method)] += 1
        output, _ = process.communicate()
        # A signal during the imports ends the program by its default action.
        if process.returncode not in (0, -sent, 128 + sent) or "Traceback" in output:
            outcome.exit_code = process.returncode
            last = (output.strip().splitlines() or [""])[-1]
            outcome.differences.append(f"exit code {process.returncode} after {sent.name}: {last}")
            return outcome


def differences(alone: Path, killed: Path) -> list[str]:
    """List the differences between the directories of two runs."""
    import numpy as np
    import torch

    differing = []
    names = {path.name for run in (alone, killed) for path in run.glob("weights/*.pth")} - {"checkpoint_previous.pth"}
    for name in sorted(names):
        one, other = (
            torch.load(run / "weights" / name, weights_only=True) if (run / "weights" / name).exists() else {}
            for run in (alone, killed)
        )
        for part in ("model", "masks", "kept"):
            values = [state.get(part, {}) for state in (one, other)]
            if values[0].keys() != values[1].keys() or any(
                not torch.equal(value, values[1][key]) for key, value in values[0].items()
            ):
                differing.append(f"{part} of {name}")
    for name in sorted({path.name for run in (alone, killed) for path in run.glob("log/*.csv")}):
        if len({(run / "log" / name).read_bytes() for run in (alone, killed)}) > 1:
            differing.append(name)
    for path in alone.glob("log/*.npz"):
        with np.load(path) as one, np.load(killed / "log" / path.name) as other:
            if any(not np.array_equal(one[key], other[key]) for key in one.files):
                differing.append(path.name)
    reports = [json.loads((run / "log" / "report.json").read_text()) for run in (alone, killed)]
    differing += [
        f"report: {key}" for key in reports[0] if key not in PER_RUN_KEYS and reports[0][key] != reports[1][key]
    ]
    return differing


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="stop after N kills (default: 100)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after this time (default: never)")
    parser.add_argument("--each", type=int, default=6, help="kills per run (default: 6)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments (default: 0)")
    parser.add_argument("--arch", default="resnet20", help="network to prune (default: resnet20)")
    parser.add_argument("--compile", action="store_true", help="train through torch.compile")
    parser.add_argument("--keep", type=Path, help="work in this folder, and keep it")
    args = parser.parse_args()
    signal.signal(signal.SIGHUP, lambda *_: None)  # under nohup the runs would inherit SIG_IGN
    work = args.keep or Path(tempfile.mkdtemp(prefix="kill_test_"))
    dice, began = random.Random(args.seed), time.monotonic()
    write_images(work / "arrays")
    write_image_files(work / "files")
    alone: dict[tuple[str, str, str], Path] = {}
    kills_by_part: Counter[str] = Counter()
    survived = lost = 0
    for n in itertools.count():
        if survived + lost >= args.kills or time.monotonic() - began > 60 * args.minutes:
            break
        (method, kind), stored = COMBINATIONS[n // 2 % len(COMBINATIONS)], list(KILLS)[n % 2]
        words = command(work / stored, method, kind, stored, args.arch) + ["--compile"] * args.compile
        if (method, kind, stored) not in alone:
            alone[method, kind, stored] = run_alone(words, work / f"alone_{method}_{kind}_{stored}")
        cwd = work / f"killed_{n}_{method}_{kind}_{stored}"
        outcome = run_killed(words, cwd, method, targets_for(method, args.each, dice), dice, KILLS[stored])
        run_dir = run_dir_in(cwd)
        if not outcome.exit_code and run_dir:
            outcome.differences += differences(alone[method, kind, stored], run_dir)
        kills = sum(outcome.kills.values())
        kills_by_part += outcome.kills
        survived, lost = (survived + kills, lost) if outcome.survived else (survived, lost + kills)
        where = ", ".join(f"{part} {outcome.kills[part]}" for part in PARTS if outcome.kills[part])
        print(
            f"{method} {kind} {stored}: {kills} kills ({where}): "
            f"{'identical' if outcome.survived else outcome.differences}   "
            f"so far {survived} survived, {lost} lost, {(time.monotonic() - began) / 60:.1f} min",
            flush=True,
        )
        if outcome.survived and not args.keep:
            shutil.rmtree(cwd)
    print(f"kills survived {survived}, lost {lost}; by part: {dict(kills_by_part)}")
    if not args.keep and not lost:
        shutil.rmtree(work)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
