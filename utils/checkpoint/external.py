"""Read weights of other tools: plain torch files, safetensors, and pickled networks in trusted files."""

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
    """Stand-in for a value that is not needed: accepts and drops any pickled state."""

    def __new__(cls, *args: Any) -> "_Ignored":
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


def _plain_dict(*args: Any) -> dict:
    """Stand-in for defaultdict; entries are set afterwards."""
    return {}


# Values that training scripts save beside weights: settings, paths, times, and numpy numbers (named as in both major
# versions). Stand-ins replace them all, so that none of their code runs: numpy's constructors do not validate pickled
# arguments.
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
    """Read tensors and plain values saved by torch.save, without running code; drop values of HARMLESS types.

    Raises:
        pickle.UnpicklingError: it holds other types.
    """
    with torch.serialization.safe_globals(HARMLESS), warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # on old formats of files and tensors
        return torch.load(file, map_location="cpu", weights_only=True)  # of a path it would go by the suffix


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ValueError: not a safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


class _Unpickler(pickle.Unpickler):
    """Unpickler that replaces missing classes with an empty module.

    A pickled network is its class's name and its ``__dict__``: a stand-in holds its parameters, but cannot run.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return type(name, (nn.Module,), {"__module__": module})


def read_pickled(path: Path) -> Any:
    """Unpickle `path`. This runs code from the file: use it on trusted files only."""
    pickle_module = types.SimpleNamespace(Unpickler=_Unpickler, load=lambda file, **kw: _Unpickler(file, **kw).load())
    pickle_module.__name__ = "pickle"
    content = torch.load(path, map_location="cpu", weights_only=False, pickle_module=pickle_module)
    return content.state_dict() if isinstance(content, nn.Module) else content
