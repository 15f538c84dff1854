"""Checkpoints: plain dicts of tensors and plain values, safe to load, never half written."""

import glob
import logging
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model import check_fit, check_tensors
from utils.files import replacing
from utils.foreign import read_pickled, read_plain, read_safetensors
from utils.weights import find_weights

log = logging.getLogger(__name__)
VERSION = 2  # 1 lacked what a run had measured so far, and cannot be gone on with


def save(path: Path, content: dict[str, Any], previous: Path | None = None) -> None:
    """A checkpoint at `path`: the old file or the new one, whenever the run is killed.

    Args:
        previous: where the file that was there goes, once the new one is on the disk.

    Raises:
        OSError: it cannot be written (a full disk, say); the old files are as they were.
    """
    try:
        with replacing(path, previous) as file:
            torch.save({"version": VERSION, **content}, file)
    except (OSError, RuntimeError) as error:  # torch's writer says RuntimeError where the disk is full
        reason = error.strerror if isinstance(error, OSError) else _reason(error)
        raise OSError(f"{path} could not be written: {reason}; what was saved before is intact") from error


def _reason(error: RuntimeError) -> str:
    """What the system had said before torch's writer stumbled over it."""
    cause = error.__context__
    return cause.strerror if isinstance(cause, OSError) and cause.strerror else one_line(str(error), 100)


def random_state() -> dict[str, Any]:
    """State of the generators that dropout and initialisation draw from, in this process."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Draw from now on what would have been drawn when ``random_state`` gave `state`."""
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)


def find_one(pattern: str) -> Path:
    """The one file that `pattern` names.

    Raises:
        ValueError: it names none or several.
    """
    if Path(pattern).is_file():
        return Path(pattern)
    found = sorted(glob.glob(os.path.expanduser(pattern)))
    files = [name for name in found if Path(name).is_file()]
    if not files:
        raise ValueError(f"no file {pattern}")
    if len(files) > 1:
        raise ValueError(f"{pattern} matches {len(files)} files, not one: {', '.join(files)}")
    return Path(files[0])


def read(path: Path, trust: bool = False, weights_key: str | None = None) -> dict[str, Any]:
    """One of our checkpoints, or ``{"model": state dict, "notices": …}`` of another tool's file of weights.

    Args:
        trust: run the code that a pickled network needs, if `path` holds one.
        weights_key: of another tool's file that holds several state dicts, the one to take.

    Raises:
        ValueError: the file cannot be read, or holds more than tensors and plain values.
    """
    if path.suffix == ".safetensors":
        found = read_safetensors(path)
    else:
        try:
            _check_sums(path)
            found = read_plain(path)
        except pickle.UnpicklingError:
            if not trust:
                raise ValueError(
                    f"{path} is not a file of weights alone; if it holds a pickled network and you trust where it "
                    "comes from, --trust_checkpoint reads it, running code from the file"
                ) from None
            log.warning("warning: running code from %s, as --trust_checkpoint asks", path)
            found = _pickled(path)
        except Exception as error:  # torch.load fails in many ways on what is no checkpoint
            what = f"{path} cannot be read: it is cut short, damaged or no checkpoint"
            raise ValueError(one_line(f"{what} ({type(error).__name__}: {error})")) from None
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}, not weights")
    if "version" in found and "options" in found:
        if found["version"] > VERSION:
            raise ValueError(
                f"{path} was written by a newer version of this program (format {found['version']}, this one reads "
                f"up to {VERSION})"
            )
        return found
    state, notices = find_weights(found, path, weights_key)
    return {"model": state, "notices": notices}


def _check_sums(path: Path) -> None:
    """torch.load does not compare the check sums that torch.save has written.

    Raises:
        ValueError: `path` is a zip file, as checkpoints are, and damaged.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged:
        raise ValueError(f"its check sums do not agree (at {damaged})")


def _pickled(path: Path) -> Any:
    try:
        return read_pickled(path)
    except Exception as error:  # code from a file can fail in any way
        raise ValueError(one_line(f"{path} cannot be read: {type(error).__name__}: {error}")) from None


def one_line(text: str, most: int = 300) -> str:
    return " ".join(text.split())[:most]


def is_pruned(saved: dict[str, Any]) -> bool:
    return bool(saved.get("kept") or saved.get("masks"))


def kept_by(saved: dict[str, Any], source: str) -> tuple[str, str, dict[str, Tensor]]:
    """Network, kind of group, and what was kept of each layer that lost any, (groups,) bool, of a pruned checkpoint.

    Raises:
        ValueError: nothing is pruned there.
    """
    if not is_pruned(saved):
        raise ValueError(f"{source} holds no pruned network of this program")
    kept = saved["kept"] or {name: mask.flatten() for name, mask in saved["masks"].items()}
    return saved["options"]["arch"], saved["options"]["wg"], kept


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `model`, converted to float32.

    Raises:
        ValueError: keys, shapes or values are wrong; names them.
    """
    check_fit(model.state_dict(), state, source)
    check_tensors(state, source)
    model.load_state_dict(state, strict=False)
