"""Complete the settings of ``--evaluate`` from the file that is evaluated."""

from pathlib import Path

from data import DATASETS
from utils.checkpoint import files
from utils.checkpoint.state import Checkpoint
from utils.config.options import from_plain
from utils.config.paths import find_one
from utils.config.types import error_prefix

OF_THE_FILE = ("arch", "dataset", "not_use_bn")


def with_settings_of_file(given: dict[str, str]) -> dict[str, str]:
    """Complete missing settings of ``--evaluate`` from the file ``--base_model_path``.

    Where the images are comes from the command alone.

    Raises:
        ValueError: there is no file, it does not say what was left out, or nothing says where the images are.
    """
    if given.get("evaluate", "").lower() != "true":
        return given
    if not given.get("base_model_path"):
        raise ValueError("--evaluate needs --base_model_path FILE")
    with error_prefix("base_model_path"):
        path = find_one(given["base_model_path"])
        trusted = given.get("trust_checkpoint", "").lower() == "true"
        ours = _options_in(path, trusted, given.get("weights_key"))
    if not ours and "arch" not in given:
        raise ValueError(f"--arch is required: {path} was not written by this program and does not name its network")
    given = {name: ours[name] for name in OF_THE_FILE if name in ours} | given
    dataset = given.get("dataset")
    if dataset in DATASETS and DATASETS[dataset].is_folder and "data_path" not in given:
        raise ValueError(f"--data_path is required: the folder of images (--dataset {dataset}) to evaluate {path} on")
    return given


def _options_in(path: Path, trusted: bool, weights_key: str | None) -> dict[str, str]:
    """Options of a checkpoint of this program, as text; empty for another tool's file."""
    try:
        content = files.read(path, weights_key=weights_key)
    except ValueError:
        if not trusted:
            raise
        return {}  # not one of ours: those need no trust
    return from_plain(content.options) if isinstance(content, Checkpoint) else {}
