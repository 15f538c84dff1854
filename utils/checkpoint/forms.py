"""Structural validation of plain values from a file."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Keys:
    """A dict with these keys, each of its own form; other keys are allowed."""

    required: dict[str, Any]
    optional: dict[str, Any] | None = None


def mismatch(value: Any, form: Any, path: str) -> str | None:
    """Path of the first part of `value` that does not match `form`; None if all match.

    Args:
        form: a type; a tuple of alternatives (None among them for None); ``[form]`` for a list or tuple;
            ``{type: form}`` for a dict of any size; ``Keys``; or a function that says whether it accepts a value.
    """
    if form is None:
        return None if value is None else path
    if isinstance(form, tuple):
        return None if any(mismatch(value, one, path) is None for one in form) else path
    if isinstance(form, list):
        return _first(value, path, list | tuple, lambda: ((v, form[0], f"{path}[{i}]") for i, v in enumerate(value)))
    if isinstance(form, Keys):
        known = form.required | (form.optional or {})
        missing = [key for key in form.required if not isinstance(value, dict) or key not in value]
        if missing and isinstance(value, dict):
            return f"{path}.{missing[0]}"
        return _first(value, path, dict, lambda: ((value[k], f, f"{path}.{k}") for k, f in known.items() if k in value))
    if isinstance(form, dict):
        ((key_type, of_values),) = form.items()
        if isinstance(value, dict) and not all(type(key) is key_type for key in value):
            return path
        return _first(value, path, dict, lambda: ((v, of_values, f"{path}.{k}") for k, v in value.items()))
    accepted = type(value) is form if isinstance(form, type) else form(value)
    return None if accepted else path


def _first(value: Any, path: str, outer: Any, parts: Callable[[], Any]) -> str | None:
    if not isinstance(value, outer):
        return path
    return next((found for part in parts() if (found := mismatch(*part)) is not None), None)
