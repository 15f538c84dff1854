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

Flags that name the run directory of another run, ``Experiments/schedule,seed=0,ratio=0.5,method=L1_SERVER*/…``, make a
run depend on that one. Everything stands for the text that is typed, whatever YAML would make of it.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from utils.checkpoint.validation import read_report

EXPERIMENT_KEYS = ("flags", "axes", "values", "program", "keep", "later")
LONGEST = 100_000  # characters of a run's flags; more is a mistake, and no system starts it
_NAME = re.compile(r"\{([^{}]*)\}")
_RUN_DIR = re.compile(r"(?:--[\w-]+=)?((?:.*/)?Experiments/([^/]+)/.*)", re.DOTALL)


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
        places: those that its flags name -> where they are on this machine.
        needs: (name of another run, pattern of the files of that run) for each pattern in its flags.
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
    def name(self) -> str:
        """``schedule/seed=0,ratio=0.5,method=L1``: of the result's file, without its ending."""
        return f"{self.experiment}/{','.join(f'{axis}={value}' for axis, value in self.axes.items()) or 'run'}"

    @property
    def project(self) -> str:
        return self.name.replace("/", ",")

    def file(self, results: Path) -> Path:
        return results / f"{self.name}.json"

    def report(self, results: Path) -> dict[str, Any] | None:
        """The run's report in `results`; None if there is none.

        Raises:
            ValueError: it cannot be read, or is of other flags.
        """
        file = self.file(results)
        if not file.exists():
            return None
        try:
            report = read_report(file)
        except ValueError as error:
            raise ValueError(f"{error}; move it away to run it anew") from None
        if report.get("recipe") != self.recipe:
            raise ValueError(f"{file} was made with other flags than the grid has now; move it away to run it anew")
        return report


class GridLoader(yaml.SafeLoader):
    """YAML without types (0:0.01 is not a number of seconds, nor `yes` a truth value), whose keys are unique."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012 - as PyYAML has it

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if key.value in keys:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            keys |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return node


def read_grid(file: Path) -> dict[str, Any]:
    """Read a grid's file; ``cells_of`` checks what it holds.

    Raises:
        ValueError: this is no grid.
    """
    if file.exists() and not file.is_file():
        raise ValueError(f"{file} is not a regular file")
    try:
        grid = yaml.load(file.read_text(encoding="utf-8"), Loader=GridLoader)
    except (OSError, ValueError, AttributeError, yaml.YAMLError, RecursionError) as error:
        # The two in the middle: an explicit tag, such as !!int, before what it does not fit.
        raise ValueError(f"{file} cannot be read: {error}") from None
    if not isinstance(grid, dict) or not isinstance(grid.get("experiments"), dict) or not grid["experiments"]:
        raise ValueError(f"{file} is no grid: it needs experiments, each with flags")
    return grid


def cells_of(grid: dict[str, Any], places: dict[str, str] | None = None) -> list[Cell]:
    """Every run of `grid`, in order.

    Args:
        places: where things lie on this machine; others lie where the grid says.

    Raises:
        ValueError: a part of the grid has another form, a place that it does not have, or a name in braces that
            nothing stands for.
    """
    own = as_text(grid.get("places"), "places")
    unknown = [name for name in places or {} if name not in own]
    if unknown:
        raise ValueError(f"the grid has no place {unknown[0]}; it has {', '.join(own) or 'none'}")
    values = as_text(grid.get("values"), "values")
    cells: list[Cell] = []
    for name, experiment in grid["experiments"].items():
        refuse_other_form(name, experiment)
        cells += cells_of_one(name, experiment, values, own, own | (places or {}))
    return [replace(cell, needs=tuple(needs_of(cell, cells))) for cell in cells]


def refuse_other_form(name: str, experiment: Any) -> None:
    """Raises:
    ValueError: this is no experiment; says what is wrong with it.
    """
    if not isinstance(experiment, dict) or "flags" not in experiment:
        raise ValueError(f"{name} is no experiment: a grid needs experiments, each with flags")
    unknown = [key for key in experiment if key not in EXPERIMENT_KEYS]
    if unknown:
        raise ValueError(f"{name}: unknown key {unknown[0]!r}; an experiment has {', '.join(EXPERIMENT_KEYS)}")
    as_text({key: experiment[key] for key in ("flags", "program", "keep") if key in experiment}, name)
    if not isinstance(experiment.get("axes") or {}, dict):
        raise ValueError(f"{name}: its axes have no names")


def cells_of_one(
    name: str, experiment: dict[str, Any], values: dict[str, str], own: dict[str, str], here: dict[str, str]
) -> Iterator[Cell]:
    values = values | as_text(experiment.get("values"), f"{name}: values")
    axes = {axis: as_names(choices, f"{name}: axis {axis}") for axis, choices in (experiment.get("axes") or {}).items()}
    program, keep = str(experiment.get("program") or "main.py"), str(experiment.get("keep") or "")
    later = str(experiment.get("later", "false")).lower() == "true"
    for chosen in product(*axes.values()):
        at = dict(zip(axes, chosen, strict=True))
        text = " ".join(filter(None, [str(experiment["flags"]), *(axes[axis][value] for axis, value in at.items())]))
        # Places come last, into single words: a path may have blanks and braces.
        text = fill(text, {k: v for k, v in values.items() if k not in own} | at, own.keys() - at, name)
        used = {place: here[place] for place in _NAME.findall(text)}
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise ValueError(f"{name}: {error} in: {text}") from None
        yield Cell(
            name, at, program, [put(word, here) for word in words], f"{program} {put(text, own)}", keep, later, used
        )


def as_text(values: Any, where: str) -> dict[str, str]:
    """Names and their text.

    Raises:
        ValueError: `values` is another thing.
    """
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{where}: give lines of NAME: TEXT, not a {type(values).__name__}")
    for name, value in values.items():
        if value is None or isinstance(value, list | dict | tuple | set):
            raise ValueError(
                f"{where}: {name} is not a text, but {'empty' if value is None else f'a {type(value).__name__}'}"
            )
    return {str(name): str(value) for name, value in values.items()}


def as_names(choices: Any, where: str) -> dict[str, str]:
    """Name -> flags that it adds; a list's members add none.

    Raises:
        ValueError: neither names nor a list, or nothing in it.
    """
    if isinstance(choices, list):
        names = as_text(dict(enumerate(choices)), where).values()
        choices = dict.fromkeys(names, "")
    if not choices:
        raise ValueError(f"{where} has no values")
    return as_text(choices, where)


def fill(text: str, values: dict[str, str], places: set[str], where: str) -> str:
    """`text` with its {names} replaced, to the depth that values name values; those of places stay.

    Raises:
        ValueError: nothing stands for a name, or it stands for itself.
    """
    for _ in range(len(values) + 1):
        names = [name for name in _NAME.findall(text) if name not in places]
        unknown = [name for name in names if name not in values]
        if unknown or len(text) > LONGEST:
            why = f"nothing stands for {unknown[0]!r}" if unknown else f"more than {LONGEST:,} characters"
            raise ValueError(f"{where}: {why} in: {text[:200]}")
        if not names:
            break
        text = _NAME.sub(lambda found: found[0] if found[1] in places else values[found[1]], text)
    else:
        raise ValueError(f"{where}: a value names itself: {text[:200]}")
    if re.search(r"[{}]", _NAME.sub("", text)):
        raise ValueError(f"{where}: a brace without its other half in: {text[:200]}")
    return text


def put(text: str, places: dict[str, str]) -> str:
    """`text` with the {names} of places replaced."""
    return _NAME.sub(lambda found: places[found[1]], text)


def needs_of(cell: Cell, cells: list[Cell]) -> Iterator[tuple[str, str]]:
    """Name and files of each other run whose directory the flags of `cell` name."""
    for file, directory in (found.groups() for found in map(_RUN_DIR.fullmatch, cell.flags) if found):
        for other in cells:
            # Stands for every name that main.py may give: Experiments/<project>_SERVER<$SERVER>-<time>.
            if other.name != cell.name and fnmatchcase(f"{other.project}_SERVER-00000000-000000", directory):
                yield other.name, file
