"""Read and write checkpoints: dicts of tensors and plain values, safe to load, written atomically."""

import logging
import pickle
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import check_fit, check_tensors, check_values
from utils.checkpoint.atomic import atomic_write
from utils.checkpoint.external import read_pickled, read_plain, read_safetensors
from utils.checkpoint.state import VERSION, Checkpoint, ExternalWeights
from utils.checkpoint.state_dicts import find_weights
from utils.checkpoint.validation import validate

log = logging.getLogger(__name__)


def save(path: Path, checkpoint: Checkpoint, previous: Path | None = None) -> None:
    """Write `checkpoint` to `path` atomically.

    Args:
        previous: new path of the old file.

    Raises:
        OSError: it cannot be written (e.g. a full disk); the old files are unchanged.
    """
    try:
        with atomic_write(path, previous) as file:
            torch.save(checkpoint.to_file(), file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise  # an unrelated RuntimeError, such as a killed data worker
        # On a full disk torch's writer raises a RuntimeError from the OSError.
        reason = cause.strerror or str(cause)
        raise OSError(f"{path} could not be written: {reason}; earlier checkpoints are intact") from error


def read(
    path: Path,
    trust: bool = False,
    weights_key: str | None = None,
    own: Callable[[], Mapping[str, Tensor]] | None = None,
) -> Checkpoint | ExternalWeights:
    """Read a checkpoint of this program, or the weights of another tool's file.

    Args:
        trust: unpickle a network in `path`, which runs code from the file.
        weights_key: key of the state dict to read, if another tool's file holds several.
        own: gives the state dict of the network that another tool's weights are for, as for ``find_weights``.

    Raises:
        ValueError: the file cannot be read, or holds more than tensors and plain values.
    """
    content = _read_content(path, trust)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights")
    if "version" in content and "options" in content:
        version = content["version"]
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"{path} was written by a newer version of this program: format {version}; this one reads up to "
                f"{VERSION}"
            )
        return Checkpoint.from_file(validate(content, path))
    return ExternalWeights(*find_weights(content, path, weights_key, own() if own else None))


def read_own(path: Path, trusted: bool, weights_key: str | None = None) -> Checkpoint | None:
    """Read a checkpoint of this program, which holds no code; None for another tool's file.

    Args:
        trusted: whether a later reading may run code from `path`, so that what cannot be read without is no error.

    Raises:
        ValueError: as ``read``.
    """
    try:
        content = read(path, weights_key=weights_key)
    except ValueError:
        if not trusted:
            raise
        return None
    return content if isinstance(content, Checkpoint) else None


UNREADABLE = {
    "TorchScript": "save the network's state_dict() by torch.save",
    "NumPy": "weights are read from files of torch.save and safetensors",
}


def _format_of(path: Path) -> str:
    """Recognize a file by its content: ``torch``, ``safetensors``, ``TorchScript``, ``NumPy``, ``pickle`` or ``""``."""
    with path.open("rb") as file:
        head = file.read(9)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith("/constants.pkl") for name in names):
            return "TorchScript"
        return "NumPy" if any(name.endswith(".npy") for name in names) else "torch"
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size:
        return "safetensors"
    return "pickle" if head[:1] == b"\x80" else ""


def _read_content(path: Path, trust: bool) -> Any:
    damaged = f"{path} cannot be read: it is truncated, damaged or no checkpoint"
    form = ""
    with suppress(OSError, zipfile.BadZipFile):  # is said below
        form = _format_of(path)
    if form in UNREADABLE:
        raise ValueError(f"{path} is a {form} archive: {UNREADABLE[form]}")
    if form == "safetensors" or (not form and path.suffix == ".safetensors"):
        return read_safetensors(path)
    try:
        _check_sums(path)
        return read_plain(path)
    except pickle.UnpicklingError:
        if not form:
            raise ValueError(damaged) from None
        if not trust:
            raise ValueError(
                f"{path} holds more than weights; if it is a pickled network from a source that you trust, pass "
                "--trust_checkpoint to run code from the file"
            ) from None
        log.warning("warning: running code from %s (--trust_checkpoint)", path)
        return _read_trusted(path)
    except Exception as error:  # torch.load raises many types on a file that is no checkpoint
        raise ValueError(one_line(f"{damaged} ({type(error).__name__}: {error})")) from None


def _check_sums(path: Path) -> None:
    """Verify the checksums written by torch.save; torch.load does not.

    Raises:
        ValueError: `path` is a damaged zip file.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"its checksums do not match (at {damaged})")


def _read_trusted(path: Path) -> Any:
    try:
        return read_pickled(path)
    except Exception as error:  # code from the file can raise anything
        raise ValueError(one_line(f"{path} cannot be read: {type(error).__name__}: {error}")) from None


def one_line(text: str, max_length: int = 300) -> str:
    return " ".join(text.split())[:max_length]


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `model`, converted to float32.

    Raises:
        ValueError: keys, shapes or values do not fit; names them.
    """
    check_fit(model.state_dict(), state, source)
    check_tensors(state, source)
    check_values(model, state, source)
    model.load_state_dict(state, strict=False)
