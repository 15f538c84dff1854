"""Networks from elsewhere: timm's by name (``timm/NAME``), and a user's own (``path/to/file.py:function``)."""

import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from .forward import one_line

TIMM = "timm/"
_FUNCTION = re.compile(r"(.+\.py):([A-Za-z_]\w*)")


@dataclass(frozen=True)
class Preprocessing:
    """Image size in pixels, and mean and std per channel, that a network was made for."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


def is_timm(arch: str) -> bool:
    return arch.startswith(TIMM)


def runs_file(arch: str) -> bool:
    """Whether building `arch` runs code from a file of the user's."""
    return _FUNCTION.fullmatch(arch) is not None


def check_foreign(arch: str) -> None:
    """Check that a foreign network can be named.

    Raises:
        ValueError: timm is not installed or has no such network, or there is no such file.
    """
    if is_timm(arch):
        timm = _timm()
        name = arch.removeprefix(TIMM)
        if not timm.is_model(name):
            near = timm.list_models(f"*{name.split('_')[0]}*")[:3]
            raise ValueError(f"timm has no network {name}" + (f"; it has {', '.join(near)}, …" if near else ""))
        try:
            timm.get_pretrained_cfg(name)
        except RuntimeError as error:  # no weights of this name
            raise ValueError(f"timm: {one_line(error)}") from None
    elif not Path(_parts(arch)[0]).is_file():
        raise ValueError(f"no file {_parts(arch)[0]} with the network {_parts(arch)[1]}")


def build_foreign(arch: str, num_classes: int, in_channels: int) -> nn.Module:
    """Build a network of timm, or call a function of a file with ``num_classes``.

    Raises:
        ValueError: it cannot be built; names the reason.
    """
    if is_timm(arch):
        try:
            return _timm().create_model(arch.removeprefix(TIMM), num_classes=num_classes, in_chans=in_channels)
        except Exception as error:  # networks of 3 channels alone, and whatever else they raise
            shown = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(f"{arch} cannot be built for {in_channels} channels ({shown})") from error
    file, name = _parts(arch)
    function = getattr(_run(file), name, None)
    if not callable(function):
        raise ValueError(f"{file} has no function {name}")
    try:
        with _importing_beside(file):
            model = function(num_classes=num_classes)
    except Exception as error:  # whatever the function raises
        shown = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"{name} cannot be called with num_classes={num_classes} ({shown})") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{arch} returns a {type(model).__name__}, not an nn.Module")
    return model


def preprocessing_of(arch: str) -> Preprocessing | None:
    """Return what images a network of timm was made for; None for others."""
    if not is_timm(arch):
        return None
    config = _config(arch)
    return Preprocessing(config["input_size"][-1], tuple(config["mean"]), tuple(config["std"]))


def pretrained_foreign(arch: str, in_channels: int) -> tuple[dict[str, Tensor], int]:
    """Return timm's trained weights and their number of classes.

    Raises:
        ValueError: they cannot be had.
    """
    name = arch.removeprefix(TIMM)
    try:
        model = _timm().create_model(name, pretrained=True, in_chans=in_channels)
    except Exception as error:  # its hub raises errors of many libraries
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"timm's weights of {name} could not be loaded ({type(error).__name__}: {reason})") from None
    return model.state_dict(), model.num_classes


def _parts(arch: str) -> tuple[str, str]:
    match = _FUNCTION.fullmatch(arch)
    assert match is not None, f"{arch} names no function of a file"
    return match[1], match[2]


def _run(file: str) -> ModuleType:
    """Import a file once."""
    path = Path(file).resolve()
    name = f"network_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with _importing_beside(file):
            spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{file} cannot be imported ({type(error).__name__}: {one_line(error)})") from error
    return module


@contextmanager
def _importing_beside(file: str) -> Iterator[None]:
    """Find imports beside `file`, too."""
    folder = str(Path(file).resolve().parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def _timm() -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError("timm is not installed: pip install timm") from error
    return timm


def _config(arch: str) -> dict[str, Any]:
    from timm.data import resolve_data_config

    config = _timm().get_pretrained_cfg(arch.removeprefix(TIMM))
    return resolve_data_config(pretrained_cfg=config.to_dict() if config else None)
