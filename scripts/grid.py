"""Grids of experiments: a YAML file becomes runs, each with a name, its flags and a place for its report.

places:                       # where things lie; sweep.py --set NAME=PATH says where on this machine
  images: my_arrays
values:                       # parts of flags, for {names} in them; an experiment may have its own
  tune: --epochs 2 --lr_ft 0:0.01,1:0.001
experiments:
  schedule:                   # one run for each combination of the axes, the first axis outermost
    flags: --dataset npz --data_path {images} --stage_pr [0,{ratio},{ratio},{ratio},0] --seed {seed} {tune}
    keep: log/mag_*.npz       # more files of each run to take to the results
    later: true               # for later: results.py counts these runs only once they have reports
    program: main.py          # the default
    axes:
      seed: [0, 1, 2]
      ratio: [0.5, 0.9]       # a list: what stands for {ratio}
      method:                 # names: the flags that each one adds
        L1: --method L1
        GReg-1: --method GReg-1 --lr_prune 0.01
"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Cell:
    """One run of a grid.

    Attributes:
        axes: axis -> its value or name here.
        program: what runs it, relative to the repository.
        flags: of the program, complete but for how the run is named and resumed.
        recipe: program and flags as the grid has them, with its own places: the same on every machine.
        keep: pattern of files of the run's directory that go to the results beside its report; empty: none.
        later: whether the run is for later, and so not missing while it has no report.
    """

    experiment: str
    axes: dict[str, str]
    program: str
    flags: list[str]
    recipe: str
    keep: str = ""
    later: bool = False

    @property
    def name(self) -> str:
        """``schedule/seed=0,ratio=0.5,method=L1``: of the result's file, without its ending."""
        return f"{self.experiment}/{','.join(f'{axis}={value}' for axis, value in self.axes.items()) or 'run'}"

    @property
    def project(self) -> str:
        return self.name.replace("/", ",")

    def file(self, results: Path) -> Path:
        return results / f"{self.name}.json"

    def report(self, results: Path) -> dict[str, Any] | None:
        """What has been found; None if it has not been run.

        Raises:
            ValueError: the report there is of other flags.
        """
        file = self.file(results)
        if not file.exists():
            return None
        report = json.loads(file.read_text())
        if report.get("recipe") != self.recipe:
            raise ValueError(f"{file} was made with other flags than the grid has now; move it away to run it anew")
        return report


def read_grid(file: Path) -> dict[str, Any]:
    """Raises:
    ValueError: this is no grid.
    """
    try:
        grid = yaml.safe_load(file.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    experiments = grid.get("experiments") if isinstance(grid, dict) else None
    if not isinstance(experiments, dict) or not all(isinstance(e, dict) and "flags" in e for e in experiments.values()):
        raise ValueError(f"{file} is no grid: it needs experiments, each with flags")
    wrong = [name for name, e in experiments.items() if not isinstance(e.get("axes") or {}, dict)]
    if wrong:
        raise ValueError(f"{file}: the axes of {wrong[0]} have no names")
    return grid


def cells_of(grid: dict[str, Any], places: dict[str, str] | None = None) -> list[Cell]:
    """Every run of `grid`, in order.

    Args:
        places: where things lie on this machine; others lie where the grid says.

    Raises:
        ValueError: a place that the grid does not have, or a name in braces that nothing stands for.
    """
    own = as_text(grid.get("places"))
    unknown = [name for name in places or {} if name not in own]
    if unknown:
        raise ValueError(f"the grid has no place {unknown[0]}; it has {', '.join(own) or 'none'}")
    values, found = as_text(grid.get("values")), []
    for name, experiment in grid["experiments"].items():
        found += cells_of_one(name, experiment, values, own, own | (places or {}))
    return found


def cells_of_one(
    name: str, experiment: dict[str, Any], values: dict[str, str], own: dict[str, str], here: dict[str, str]
) -> Iterator[Cell]:
    values = values | as_text(experiment.get("values"))
    axes = {axis: as_names(choices) for axis, choices in (experiment.get("axes") or {}).items()}
    program, keep = experiment.get("program", "main.py"), experiment.get("keep", "")
    later = experiment.get("later", False)
    for chosen in product(*axes.values()):
        at = dict(zip(axes, chosen, strict=True))
        text = " ".join(filter(None, [experiment["flags"], *(axes[axis][value] for axis, value in at.items())]))
        recipe, flags = (fill(text, values | places | at, name) for places in (own, here))
        yield Cell(name, at, program, shlex.split(flags), f"{program} {recipe}", keep, later)


def as_text(values: dict[str, Any] | None) -> dict[str, str]:
    return {str(name): str(value) for name, value in (values or {}).items()}


def as_names(choices: list | dict) -> dict[str, str]:
    """Name -> flags that it adds; a list's members add none."""
    return as_text(choices) if isinstance(choices, dict) else {str(choice): "" for choice in choices}


def fill(text: str, values: dict[str, str], where: str) -> str:
    """`text` with its {names} replaced, to the depth that values name values.

    Raises:
        ValueError: nothing stands for a name, or it stands for itself.
    """
    for _ in range(len(values) + 1):
        if "{" not in text:
            return text
        try:
            text = text.format(**values)
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"{where}: nothing stands for {error} in: {text}") from None
    raise ValueError(f"{where}: a value names itself: {text[:200]}")
