"""Read the file of a grid and check its form, which grid.py describes."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from utils.config.paths import regular_file

EXPERIMENT_KEYS = ("flags", "axes", "values", "program", "keep", "later")
MAIN = "main.py"  # the default program


@dataclass(frozen=True)
class Experiment:
    """An entry of ``experiments``; `axes` maps axis -> value -> flags that it appends."""

    name: str
    flags: str
    axes: dict[str, dict[str, str]]
    values: dict[str, str]
    program: str
    keep: str
    later: bool


@dataclass(frozen=True)
class Grid:
    places: dict[str, str]
    values: dict[str, str]
    experiments: list[Experiment]


class GridLoader(yaml.SafeLoader):
    """YAML without types (0:0.01 is not a number of seconds, nor `yes` a truth value) and without duplicate keys."""

    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile("^<<$"))]}  # noqa: RUF012 - as PyYAML has it

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        keys = set()
        for key, _ in node.value:
            if key.value in keys:
                raise yaml.composer.ComposerError(None, None, f"duplicate key {key.value!r}", key.start_mark)
            keys |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return node


def read_grid(file: Path) -> Grid:
    """Read the file of a grid.

    Raises:
        ValueError: the file cannot be read or is not a grid.
    """
    try:
        content = yaml.load(regular_file(file).read_text(encoding="utf-8"), Loader=GridLoader)
    except (OSError, ValueError, AttributeError, yaml.YAMLError, RecursionError) as error:
        # ValueError and AttributeError: an explicit tag, such as !!int, before a value that it does not fit.
        raise ValueError(f"{file} cannot be read: {error}") from None
    try:
        return parse_grid(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def parse_grid(content: Any) -> Grid:
    """Check what the YAML of a grid holds.

    Raises:
        ValueError: this is not a grid.
    """
    if not isinstance(content, dict) or not isinstance(content.get("experiments"), dict) or not content["experiments"]:
        raise ValueError("not a grid: it needs experiments, each with flags")
    places, values = (text_values(content.get(key), key) for key in ("places", "values"))
    return Grid(places, values, [parse_experiment(str(name), entry) for name, entry in content["experiments"].items()])


def parse_experiment(name: str, entry: Any) -> Experiment:
    """Check an entry of ``experiments``.

    Raises:
        ValueError: this is not an experiment.
    """
    if not isinstance(entry, dict) or "flags" not in entry:
        raise ValueError(f"{name} is not an experiment: a grid needs experiments, each with flags")
    for key in entry:
        if key not in EXPERIMENT_KEYS:
            raise ValueError(f"{name}: unknown key {key!r}; an experiment has {', '.join(EXPERIMENT_KEYS)}")
    axes = entry.get("axes") or {}
    if not isinstance(axes, dict):
        raise ValueError(f"{name}: the axes have no names; give lines of AXIS: VALUES")
    text = text_values({key: entry[key] for key in ("flags", "program", "keep", "later") if key in entry}, name)
    return Experiment(
        name,
        text["flags"],
        {str(axis): axis_values(choices, f"{name}: axis {axis}") for axis, choices in axes.items()},
        text_values(entry.get("values"), f"{name}: values"),
        text.get("program") or MAIN,
        text.get("keep", ""),
        text.get("later", "").lower() == "true",
    )


def text_values(values: Any, where: str) -> dict[str, str]:
    """Return a mapping of names to text.

    Raises:
        ValueError: `values` is something else.
    """
    if values in (None, ""):
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{where}: give lines of NAME: TEXT, not a {type(values).__name__}")
    for name, value in values.items():
        if value is None or isinstance(value, list | dict | tuple | set):
            kind = "empty" if value is None else f"a {type(value).__name__}"
            raise ValueError(f"{where}: {name} must be text, but is {kind}")
    return {str(name): str(value) for name, value in values.items()}


def axis_values(choices: Any, where: str) -> dict[str, str]:
    """Return value -> flags that it appends; the values of a list append none.

    Raises:
        ValueError: `choices` is neither a mapping nor a list, or is empty.
    """
    if isinstance(choices, list):
        choices = dict.fromkeys(text_values(dict(enumerate(choices)), where).values(), "")
    if not choices:
        raise ValueError(f"{where} has no values")
    return text_values(choices, where)
