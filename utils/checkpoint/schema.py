"""Structural validation of plain values from a file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Keys:
    """A dict with these keys, each with its own schema; other keys are allowed."""

    required: dict[str, Any]
    optional: dict[str, Any] | None = None


def mismatch(value: Any, schema: Any, path: str) -> str | None:
    """Return the path of the first part of `value` that does not match `schema`; None if all match.

    Args:
        schema: a type; a tuple of alternatives, which may include None; ``[schema]`` for a list or tuple;
            ``{type: schema}`` for a dict of any size; ``Keys``; or a predicate.
    """
    if schema is None:
        return None if value is None else path
    if isinstance(schema, tuple):
        return None if any(mismatch(value, option, path) is None for option in schema) else path
    if isinstance(schema, list):
        return _first_wrong(
            value, path, list | tuple, lambda: ((v, schema[0], f"{path}[{i}]") for i, v in enumerate(value))
        )
    if isinstance(schema, Keys):
        known = schema.required | (schema.optional or {})
        missing = [key for key in schema.required if not isinstance(value, dict) or key not in value]
        if missing and isinstance(value, dict):
            return f"{path}.{missing[0]}"
        return _first_wrong(
            value, path, dict, lambda: ((value[k], s, f"{path}.{k}") for k, s in known.items() if k in value)
        )
    if isinstance(schema, dict):
        ((key_type, value_schema),) = schema.items()
        if isinstance(value, dict) and not all(type(key) is key_type for key in value):
            return path
        return _first_wrong(value, path, dict, lambda: ((v, value_schema, f"{path}.{k}") for k, v in value.items()))
    accepted = type(value) is schema if isinstance(schema, type) else schema(value)
    return None if accepted else path


def _first_wrong(value: Any, path: str, container: Any, parts: Callable[[], Any]) -> str | None:
    if not isinstance(value, container):
        return path
    return next((wrong for part in parts() if (wrong := mismatch(*part)) is not None), None)
