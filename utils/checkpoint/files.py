"""Checkpoints: plain dicts of tensors and plain values, safe to load, never half written."""

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
from utils.checkpoint.state_dicts import find_weights
from utils.checkpoint.validation import validated

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
        with atomic_write(path, previous) as file:
            torch.save({"version": VERSION, **content}, file)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise  # a RuntimeError of something else, such as a data worker that was killed meanwhile
        # Where the disk is full, torch's writer raises a RuntimeError upon the system's error.
        reason = cause.strerror or str(cause)
        raise OSError(f"{path} could not be written: {reason}; what was saved before is intact") from error


def random_state() -> dict[str, Any]:
    """State of the generators that dropout and initialisation draw from, in this process."""
    return {"torch": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def restore_random_state(state: dict[str, Any]) -> None:
    """Draw from now on what would have been drawn when ``random_state`` gave `state`."""
    torch.set_rng_state(state["torch"])
    for device, of_device in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(of_device, device)


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
        version = found["version"]
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"{path} was written by a newer version of this program (format {version}; this one reads up to "
                f"{VERSION})"
            )
        return validated(found, path)
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


def identity(saved: dict[str, Any]) -> dict[str, Any] | None:
    """``run_id``, ``fingerprint`` of the data and ``class_names`` of a run's checkpoint; None: of an older version."""
    return saved.get("identity")


def is_pruned(saved: dict[str, Any]) -> bool:
    return bool(saved.get("kept") or saved.get("masks"))


def kept_by(saved: dict[str, Any], source: str) -> tuple[str, str, dict[str, Tensor]]:
    """Network, kind of group, and what was kept of each layer that lost any, (groups,) bool, of a pruned checkpoint.

    Raises:
        ValueError: nothing is pruned there.
    """
    if not is_pruned(saved):
        raise ValueError(f"{source} holds no pruned network of this program")
    return saved["options"]["arch"], saved["options"]["wg"], kept_so_far(saved)


def kept_so_far(saved: dict[str, Any]) -> dict[str, Tensor]:
    """What a run keeps of each layer that loses groups, (groups,) bool: as cut or, before the cut, as L1 has counted.

    Args:
        saved: a run's checkpoint; empty for a run that begins.
    """
    if not saved:
        return {}
    if is_pruned(saved):
        return saved["kept"] or {name: mask.flatten() for name, mask in saved["masks"].items()}
    return saved["pruner"].get("l1_picks", {})


def fill(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load `state` into `model`, converted to float32.

    Raises:
        ValueError: keys, shapes or values are wrong; names them.
    """
    check_fit(model.state_dict(), state, source)
    check_tensors(state, source)
    model.load_state_dict(state, strict=False)
