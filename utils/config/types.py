"""Parsers of flag values: text -> value, or ValueError with the reason."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation

from model import CIFAR_MODELS, TORCHVISION_MODELS, check_foreign, is_timm, runs_file
from model.pretrained import DEFAULT
from pruner.ratios import RANKS


def integer(low: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise ValueError(f"'{text}' is not a whole number") from None
        if not low <= value < 2**63:
            raise ValueError(f"{value} is not a whole number from {low}")
        return value

    return parse


def number(low: float, *, above: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise ValueError(f"'{text}' is not a number") from None
        # Beyond float32 a tensor could not hold it.
        if not math.isfinite(value) or abs(value) > 3.4e38 or value < low or (above and value == low):
            raise ValueError(f"{text} is not a number {'above' if above else 'from'} {low:g}")
        return value

    return parse


def share(text: str) -> float:
    """A fraction in [0, 1)."""
    value = number(0)(text)
    if value >= 1:
        raise ValueError(f"{text} is not a fraction from 0 to less than 1")
    return value


def decimal(low: float | None, *, above: bool = False) -> Callable[[str], Decimal]:
    """A number, exact in decimal."""

    def parse(text: str) -> Decimal:
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise ValueError(f"'{text}' is not a number") from None
        # Bounds on the exponent keep the number of updates representable.
        exponent = value.as_tuple().exponent  # a letter for inf and nan
        if not isinstance(exponent, int) or abs(value.adjusted()) > 30 or exponent < -50:
            raise ValueError(f"'{text}' is out of range")
        if low is not None and (value < low or (above and value == low)):
            raise ValueError(f"{text} is not a number {'above' if above else 'from'} {low:g}")
        return value

    return parse


def nearest(text: str, known: Iterable[str]) -> str:
    """``; did you mean 'resnet20'?``, or empty without a close match."""
    by_lower = {name.lower(): name for name in known}
    near = difflib.get_close_matches(text.lower(), by_lower, 1)
    return f"; did you mean '{by_lower[near[0]]}'?" if near else ""


@contextmanager
def error_prefix(flag: str) -> Iterator[None]:
    """Prefix errors raised within by `flag`, unless they begin with one.

    An ``ArgumentError`` gets the flag of its argument.
    """
    try:
        yield
    except ValueError as error:
        if str(error).startswith("--"):
            raise
        raise ValueError(f"--{getattr(error, 'argument', flag)}: {error}") from None


class one_of:  # noqa: N801 - a parser, as the functions here are
    """One of `choices`.

    Args:
        empty: value of the empty text.
        aliases: other text, in lower case -> choice.
    """

    def __init__(self, *choices: str, empty: str = "", aliases: Mapping[str, str] | None = None):
        self.choices, self._empty, self._aliases = choices, empty, aliases or {}

    def __call__(self, text: str) -> str:
        text = self._aliases.get(text.lower(), text) or self._empty
        if text not in self.choices:
            raise ValueError(f"'{text}' is not one of {', '.join(self.choices)}{nearest(text, self.choices)}")
        return text


def ranking(text: str) -> str:
    """A ranking of ``--speedup``; a number is the original's ``--rank`` of a machine, without effect."""
    return RANKS[0] if re.fullmatch(r"-?[0-9]+", text) else one_of(*RANKS)(text)


_ARCHS = (*CIFAR_MODELS, *TORCHVISION_MODELS)


def arch(text: str) -> str:
    if is_timm(text) or runs_file(text):
        check_foreign(text)
    elif text not in CIFAR_MODELS and text not in TORCHVISION_MODELS:
        choices = f"{', '.join(CIFAR_MODELS)}, torchvision's, timm/NAME or FILE.py:FUNCTION"
        raise ValueError(f"unknown network '{text}'; choose from {choices}{nearest(text, _ARCHS)}")
    return text


def file_name(text: str) -> str:
    """A name without directory separators."""
    if "/" in text or "\\" in text or "\0" in text:
        raise ValueError(f"'{text}' is a path, not a name")
    return text


def path(text: str) -> str:
    """A path; empty ones (an unset shell variable) are refused.

    Raises:
        ValueError: `text` is empty or has a null character.
    """
    if not text or "\0" in text:
        raise ValueError("the path is empty" if not text else "a path cannot have a null character")
    return text


class SaveInterval(str):
    """Interval of checkpoints, as typed: ``500`` steps, ``10m`` minutes.

    Attributes:
        steps, seconds: one of them; the other is None.

    Raises:
        ValueError: not a positive number of either.
    """

    steps: int | None
    seconds: float | None

    def __new__(cls, text: str) -> "SaveInterval":
        interval = super().__new__(cls, text)
        in_minutes = text.endswith("m")
        interval.seconds = 60 * number(0, above=True)(text[:-1]) if in_minutes else None
        interval.steps = None if in_minutes else integer(1)(text)
        return interval


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"'{text}' is neither true nor false")
    return text.lower() == "true"


def pretrained(text: str) -> str | None:
    """Name of torchvision's weights; ``true`` (the flag alone) means the paper's."""
    return {"true": DEFAULT, "false": None}.get(text.lower(), text)
