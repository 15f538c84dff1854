"""Settings from a YAML or JSON file, as command-line text."""

import json
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from utils.config.paths import regular_file

LARGEST = 1_000_000  # bytes; far above a file with every flag


class _Loader(yaml.BaseLoader):
    """The base loader without aliases and without repeated keys.

    Values stay text: YAML 1.1 reads 5:0.6 as a sexagesimal number. Aliases can expand a few lines to gigabytes, and
    of repeated keys YAML silently keeps the last.
    """

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not read", problem_mark=self.peek_event().start_mark
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key, (key_node, _) in zip(keys, node.value, strict=True):
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem="a key is not a word", problem_mark=key_node.start_mark)
        _refuse_repeated(keys)
        return super().construct_mapping(node, deep)


def _refuse_repeated(keys: list[str]) -> None:
    repeated = [key for key, count in Counter(keys).items() if count > 1]
    if repeated:
        raise ValueError(f"the key '{repeated[0]}' is repeated")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated([key for key, _ in pairs])
    return dict(pairs)


def read_settings_file(path: str | Path) -> dict[str, str]:
    """Read key -> text for every key that has a value.

    Raises:
        ValueError: the file cannot be read, or is not a mapping; does not name the file.
    """
    try:
        content = regular_file(path).read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None
    if len(content) > LARGEST:
        raise ValueError(f"{len(content):,} bytes are too many for a settings file")
    try:
        settings = _parse(content.decode())
        if not isinstance(settings, dict | None):
            raise ValueError("not a list of 'key: value'")
        typed = {key: _as_typed(value) for key, value in (settings or {}).items()}
    except UnicodeDecodeError as error:
        raise ValueError(f"not a text file: {error}") from None
    except RecursionError:
        raise ValueError("brackets are nested too deep") from None
    return {key: text for key, text in typed.items() if text not in ("", "null", "~")}


def _parse(text: str) -> Any:
    """Parse JSON, else YAML; scalars stay text."""
    try:  # JSON may be indented by tabs, which YAML refuses
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        as_json = error
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        if text.lstrip().startswith("{"):
            raise ValueError(f"not JSON: {as_json}") from None
        raise ValueError(f"not a YAML file: {' '.join(str(error).split())}") from None


def _as_typed(value: Any) -> str:
    """Format a value as on the command line: lists in brackets, mappings as {0:0.1,30:0.01}."""
    if isinstance(value, list):
        return f"[{','.join(_as_typed(item).strip('{}') for item in value)}]"
    if isinstance(value, dict):
        # YAML reads {0:0.1,30:0.01}, without blanks, as keys without values.
        entries = ((key, _as_typed(item)) for key, item in value.items())
        return "{" + ",".join(f"{key}:{text}" if text else key for key, text in entries) + "}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
