"""Read and write checkpoints: dicts of tensors and plain values, safe to load, written atomically."""

import logging
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import check_fit, check_tensors
from utils.checkpoint.atomic import atomic_write
from utils.checkpoint.external import read_pickled, read_plain, read_safetensors
from utils.checkpoint.state import VERSION, Checkpoint, ExternalWeights
from utils.checkpoint.state_dicts import find_weights
from utils.checkpoint.validation import validated

log = logging.getLogger(__name__)


def save(path: Path, checkpoint: Checkpoint, previous: Path | None = None) -> None:
    """Write `checkpoint` to `path` atomically.

    Args:
        previous: new path of the old file.

    Raises:
        OSError: it cannot be written (a full disk, say); the old files are as they were.
    """
    try:
        with atomic_write(path, previous) as file:
            torch.save(checkpoint.to_file(), file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise  # a RuntimeError of something else, such as a data worker that was killed meanwhile
        # Where the disk is full, torch's writer raises a RuntimeError upon the system's error.
        reason = cause.strerror or str(cause)
        raise OSError(f"{path} could not be written: {reason}; what was saved before is intact") from error


def read(path: Path, trust: bool = False, weights_key: str | None = None) -> Checkpoint | ExternalWeights:
    """Read a checkpoint of this program, or the weights of another tool's file.

    Args:
        trust: run the code that a pickled network needs, if `path` holds one.
        weights_key: of another tool's file that holds several state dicts, the one to take.

    Raises:
        ValueError: the file cannot be read, or holds more than tensors and plain values.
    """
    content = _content(path, trust)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, not weights")
    if "version" in content and "options" in content:
        version = content["version"]
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"{path} was written by a newer version of this program (format {version}; this one reads up to "
                f"{VERSION})"
            )
        return Checkpoint.from_file(validated(content, path))
    return ExternalWeights(*find_weights(content, path, weights_key))


def _content(path: Path, trust: bool) -> Any:
    if path.suffix == ".safetensors":
        return read_safetensors(path)
    try:
        _check_sums(path)
        return read_plain(path)
    except pickle.UnpicklingError:
        if not trust:
            raise ValueError(
                f"{path} is not a file of weights alone; if it holds a pickled network and you trust where it "
                "comes from, --trust_checkpoint reads it, running code from the file"
            ) from None
        log.warning("warning: running code from %s, as --trust_checkpoint asks", path)
        return _pickled(path)
    except Exception as error:  # torch.load fails in many ways on what is no checkpoint
        what = f"{path} cannot be read: it is cut short, damaged or no checkpoint"
        raise ValueError(one_line(f"{what} ({type(error).__name__}: {error})")) from None


def _check_sums(path: Path) -> None:
    """Verify the checksums that torch.save writes; torch.load does not.

    Raises:
        ValueError: `path` is a zip file, as checkpoints are, and damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"its checksums do not match (at {damaged})")


def _pickled(path: Path) -> Any:
    try:
        return read_pickled(path)
    except Exception as error:  # code from a file can fail in any way
        raise ValueError(one_line(f"{path} cannot be read: {type(error).__name__}: {error}")) from None


def one_line(text: str, most: int = 300) -> str:
    return " ".join(text.split())[:most]


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `model`, converted to float32.

    Raises:
        ValueError: keys, shapes or values are wrong; names them.
    """
    check_fit(model.state_dict(), state, source)
    check_tensors(state, source)
    model.load_state_dict(state, strict=False)
