"""Weights that other programs wrote: safetensors, and pickled networks where the user trusts the file."""

import pickle
import types
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Raises:
    ValueError: not a safetensors file.
    """
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} cannot be read as safetensors: {error}") from None


class _Unpickler(pickle.Unpickler):
    """Finds classes as pickle does; for those that are not there, a bare module stands in.

    A pickled network is its class's name and its ``__dict__``: parameters can be read from a stand-in, though
    it cannot run.
    """

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return type(name, (nn.Module,), {"__module__": module})


def read_pickled(path: Path) -> Any:
    """Whatever `path` holds. This runs code from the file: only for files the user trusts."""
    lookalike = types.SimpleNamespace(Unpickler=_Unpickler, load=lambda file, **kw: _Unpickler(file, **kw).load())
    lookalike.__name__ = "pickle"
    found = torch.load(path, map_location="cpu", weights_only=False, pickle_module=lookalike)
    if isinstance(found, dict) and isinstance(found.get("model"), nn.Module):
        return found["model"].state_dict()  # the original program's form: the whole network under "model"
    return found.state_dict() if isinstance(found, nn.Module) else found
