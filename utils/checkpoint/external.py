"""Weights of other tools: plain torch files, safetensors, and pickled networks in trusted files."""

import pickle
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


class _Ignored:
    """Stands in for a value that is not needed: takes and drops whatever its pickle says."""

    def __new__(cls, *args: Any) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*args: Any) -> dict:
    """Stands in for defaultdict; entries are set afterwards."""
    return {}


# Values that training scripts keep beside weights: settings, paths, times, and numbers of numpy (under its names of
# both major versions). None of their own code is called: stand-ins take their places, also of numpy's, whose
# constructors do not check what a pickle gives them.
HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *(
        (_Ignored, name)
        for name in (
            "argparse.Namespace", "types.SimpleNamespace",
            "builtins.int", "builtins.float", "builtins.str", "builtins.bool", "builtins.list", "builtins.dict",
            "builtins.tuple", "builtins.frozenset", "builtins.range", "builtins.slice",
            "datetime.date", "datetime.time", "datetime.datetime", "datetime.timedelta", "datetime.timezone",
            "decimal.Decimal", "fractions.Fraction",
            *(f"{module}.{kind}" for module in ("pathlib", "pathlib._local")
              for kind in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")),
            *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
            "numpy.dtype", "numpy.ndarray",
        )
    ),
    (_plain_dict, "collections.defaultdict"),
]  # fmt: skip


def read_plain(path: Path) -> Any:
    """Read tensors and plain values saved by torch.save, without running code. Values of HARMLESS types are dropped.

    Raises:
        pickle.UnpicklingError: it holds more than these.
    """
    with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on old forms of files and tensors: what can be used is decided here
        return torch.load(path, map_location="cpu", weights_only=True)


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises:
    ValueError: not a safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


class _Unpickler(pickle.Unpickler):
    """Unpickler that replaces missing classes by a bare module.

    A pickled network is its class's name and its ``__dict__``: parameters can be read from a stand-in, though
    it cannot run.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return type(name, (nn.Module,), {"__module__": module})


def read_pickled(path: Path) -> Any:
    """Unpickle `path`. This runs code from the file: only for trusted files."""
    lookalike = types.SimpleNamespace(Unpickler=_Unpickler, load=lambda file, **kw: _Unpickler(file, **kw).load())
    lookalike.__name__ = "pickle"
    found = torch.load(path, map_location="cpu", weights_only=False, pickle_module=lookalike)
    return found.state_dict() if isinstance(found, nn.Module) else found
