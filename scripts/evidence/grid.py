"""Grids of experiments: a YAML file expands to runs, each with a name and its flags.

places:                       # paths that differ between machines; override with sweep.py --set NAME=PATH
  images: my_arrays
values:                       # parts of flags, used as {name}; an experiment may have its own
  tune: --epochs 2 --lr_ft 0:0.01,1:0.001
experiments:
  schedule:                   # one run for each combination of the axes, the first axis outermost
    flags: --dataset npz --data_path {images} --stage_pr [0,{ratio},{ratio},{ratio},0] --seed {seed} {tune}
    keep: log/mag_*.npz       # more files of each run to copy to the results
    later: true               # optional: results.py does not count these runs as missing
    program: main.py          # the default
    axes:
      seed: [0, 1, 2]
      ratio: [0.5, 0.9]       # a list: the values of {ratio}
      method:                 # a mapping: name -> flags to append
        L1: --method L1
        GReg-1: --method GReg-1 --lr_prune 0.01

A flag that names the run directory of another run, ``Experiments/schedule,seed=0,ratio=0.5,method=L1_SERVER*/…``, or
its kept files, ``{results}/schedule/seed=0,ratio=0.5,method=L1/…``, makes a run depend on that one. {results} is the
folder of --results. Every scalar is text as written: YAML's types do not apply.
"""

import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product

from scripts.evidence.grid_file import Experiment, Grid

MAX_LENGTH = 100_000  # characters of a run's flags: no system starts a longer command
RESULTS = "results"  # the folder of reports in braces, and as reports name it
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_FLAG = re.compile(r"--[\w-]+=")
_RUN_DIR = re.compile(r"(?:.*/)?Experiments/([^/]+)/.*", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        axes: axis -> its value or name in this run.
        program: the script that is run, relative to the repository.
        flags: all flags of the program, without those that name and resume the run.
        recipe: program and flags with the grid's own places: the same on every machine.
        keep: pattern of files in the run directory that are copied to the results; empty: none.
        later: whether the run is optional, so that a missing report is not counted.
        places: the places that its flags use -> their paths on this machine.
        needs: (name of another run, pattern of its files) for each of its input files.
    """

    experiment: str
    axes: dict[str, str]
    program: str
    flags: list[str]
    recipe: str
    keep: str = ""
    later: bool = False
    places: dict[str, str] = field(default_factory=dict)
    needs: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """``seed=0,ratio=0.5,method=L1``: the run's key in its experiment's file of reports."""
        return ",".join(f"{axis}={value}" for axis, value in self.axes.items()) or "run"

    @property
    def name(self) -> str:
        """``schedule/seed=0,ratio=0.5,method=L1``"""
        return f"{self.experiment}/{self.key}"

    @property
    def project(self) -> str:
        """The run's ``--project_name``."""
        return self.name.replace("/", ",")


def expand_grid(grid: Grid, paths: dict[str, str] | None = None, results: str = RESULTS) -> list[Cell]:
    """Return every run of `grid`, in order.

    Args:
        paths: place -> path on this machine; the default is the grid's own.
        results: the folder of reports and kept files.

    Raises:
        ValueError: the grid has no such place, or uses an undefined name in braces.
    """
    if RESULTS in grid.places:
        raise ValueError(f"{{{RESULTS}}} is the folder of --results; give the place {RESULTS} another name")
    paths = paths or {}
    for name in paths:
        if name not in grid.places:
            raise ValueError(f"the grid has no place {name}; it has {', '.join(grid.places) or 'none'}")
    paths = grid.places | paths | {RESULTS: results}
    cells = [cell for experiment in grid.experiments for cell in expand_experiment(experiment, grid, paths)]
    return [replace(cell, needs=tuple(inputs_of(cell, cells, results))) for cell in cells]


def expand_experiment(experiment: Experiment, grid: Grid, paths: dict[str, str]) -> Iterator[Cell]:
    """Yield a cell for each combination of the experiment's axes."""
    values, places = grid.values | experiment.values, grid.places | {RESULTS: RESULTS}
    for combination in product(*experiment.axes.values()):
        chosen = dict(zip(experiment.axes, combination, strict=True))
        parts = [experiment.flags, *(experiment.axes[axis][value] for axis, value in chosen.items())]
        text = substitute(" ".join(filter(None, parts)), values | chosen, places, experiment.name)
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"{experiment.name}: {error} in: {text}") from None
        yield Cell(
            experiment.name,
            chosen,
            experiment.program,
            [insert_paths(word, paths) for word in words],  # after the split: a path may contain blanks and braces
            f"{experiment.program} {insert_paths(text, places)}",
            experiment.keep,
            experiment.later,
            {place: paths[place] for place in _PLACEHOLDER.findall(text) if place in grid.places},
        )


def substitute(text: str, values: dict[str, str], places: Collection[str], where: str) -> str:
    """Replace each {name} in `text` by its value, and the names in that value likewise; `places` stay.

    Raises:
        ValueError: a name is undefined or defined by itself.
    """
    for _ in range(len(values) + 1):
        names = [name for name in _PLACEHOLDER.findall(text) if name in values or name not in places]
        undefined = [name for name in names if name not in values]
        if undefined:
            raise ValueError(f"{where}: undefined name {undefined[0]!r} in: {text[:200]}")
        if not names:
            break
        text = _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), text)
        if len(text) > MAX_LENGTH:
            raise ValueError(f"{where}: flags of more than {MAX_LENGTH:,} characters: {text[:200]}")
    else:
        raise ValueError(f"{where}: a value refers to itself: {text[:200]}")
    if re.search(r"[{}]", _PLACEHOLDER.sub("", text)):
        raise ValueError(f"{where}: unbalanced brace in: {text[:200]}")
    return text


def insert_paths(text: str, paths: dict[str, str]) -> str:
    """Replace each {place} in `text` by its path."""
    return _PLACEHOLDER.sub(lambda match: paths[match[1]], text)


def inputs_of(cell: Cell, cells: list[Cell], results: str) -> Iterator[tuple[str, str]]:
    """Yield (name, pattern of files) of every other run whose directory or kept files the flags of `cell` name."""
    for path in [_FLAG.sub("", word, count=1) for word in cell.flags]:
        directory = _RUN_DIR.fullmatch(path)
        for other in cells:
            # Any name that main.py may choose: Experiments/<project>_SERVER<$SERVER>-<time>.
            of_run = directory and fnmatchcase(f"{other.project}_SERVER-00000000-000000", directory[1])
            if other.name != cell.name and (of_run or path.startswith(f"{results}/{other.name}/")):
                yield other.name, path
