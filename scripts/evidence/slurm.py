"""Runs of a grid as a SLURM job array: one task per run, numbered as in the grid."""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.evidence.grid import Cell

BATCH_SCRIPT = "scripts/slurm/cell.sbatch"


def job_name(grid: Path) -> str:
    """Name of the grid's jobs and of its folder of logs; grids in other folders have other ones."""
    return f"sweep-{grid.stem}-{hashlib.sha256(os.path.abspath(grid).encode()).hexdigest()[:8]}"


def log_file(grid: Path, number: int) -> Path:
    """Log of all attempts of a run; relative to the repository."""
    return Path("Experiments") / job_name(grid) / f"{number}.log"


def last_line(grid: Path, number: int) -> str:
    """Return the last line of a run's log, which names its error."""
    lines = log_file(grid, number).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no message"


def queue(grid: Path) -> dict[int, tuple[str, str]]:
    """Return number of a run -> ``queued`` or ``running``, and its job; empty for a grid that was not submitted here.

    Raises:
        ValueError: SLURM does not answer.
    """
    if not log_file(grid, 0).parent.is_dir():
        return {}
    words = ["squeue", "--noheader", "--array", "--me", f"--name={job_name(grid)}", "--format=%K %T %F"]
    lines = [line.split() for line in _run(words).splitlines()]
    return {int(n): ("running" if state in ("RUNNING", "COMPLETING") else "queued", job) for n, state, job in lines}


def stages(cells: Sequence[tuple[int, Cell]]) -> list[list[int]]:
    """Divide numbered cells into stages: each needs files of earlier stages only, as far as these are among `cells`."""
    stage_of: dict[str, int] = {}
    divided: list[list[int]] = []
    for number, cell in cells:  # a cell stands after those that it needs
        stage = 1 + max((stage_of[name] for name, _ in cell.needs if name in stage_of), default=-1)
        stage_of[cell.name] = stage
        divided += [[] for _ in range(stage + 1 - len(divided))]
        divided[stage].append(number)
    return divided


def submit(
    grid: Path,
    cells: Sequence[tuple[int, Cell]],
    queued: Mapping[str, str],
    arguments: Sequence[str],
    at_once: int | None,
    options: Sequence[str],
) -> list[tuple[str, list[int]]]:
    """Submit numbered cells, an array per stage; later ones start when the earlier ones have ended, in whatever way.

    Args:
        queued: name of a cell that is queued or running -> its job, for which those that need its files wait.
        arguments: of sweep.py, besides the grid.
        at_once: runs at a time in each array; None: as many as SLURM allows.
        options: of sbatch.

    Returns:
        The number of each job, and of its cells.

    Raises:
        ValueError: SLURM refuses.
    """
    if not Path(BATCH_SCRIPT).is_file():
        raise ValueError(f"--slurm: there is no {BATCH_SCRIPT} here; run this from the repository")
    log_file(grid, 0).parent.mkdir(parents=True, exist_ok=True)
    jobs: list[tuple[str, list[int]]] = []
    needs = {number: [name for name, _ in cell.needs] for number, cell in cells}
    for numbers in stages(cells):
        after = [job for job, _ in jobs[-1:]]
        after += dict.fromkeys(queued[name] for number in numbers for name in needs[number] if name in queued)
        words = [
            "sbatch", "--parsable", f"--job-name={job_name(grid)}", f"--output={log_file(grid, 0).parent}/%a.log",
            f"--array={','.join(map(str, numbers))}{f'%{at_once}' if at_once else ''}",
            *([f"--dependency=afterany:{':'.join(after)}"] if after else []),
            *options, BATCH_SCRIPT, os.path.abspath(grid), *arguments,
        ]  # fmt: skip
        jobs.append((_run(words).strip().partition(";")[0], numbers))
    return jobs


def _run(words: Sequence[str]) -> str:
    if not shutil.which(words[0]):
        raise ValueError(f"{words[0]} is not on the PATH; run this on a machine of the cluster")
    ran = subprocess.run(words, capture_output=True, text=True)
    if ran.returncode:
        lines = ran.stderr.strip().splitlines()
        raise ValueError(f"{words[0]}: {lines[-1] if lines else f'exit code {ran.returncode}'}")
    return ran.stdout
