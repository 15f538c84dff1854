"""Complete the settings of ``--evaluate`` from the evaluated file."""

from data import DATASETS
from utils.checkpoint import files
from utils.config.options import from_plain
from utils.config.paths import find_one
from utils.config.types import error_prefix

FROM_FILE = ("arch", "dataset", "not_use_bn")


def with_settings_of_file(given: dict[str, str]) -> dict[str, str]:
    """Complete missing settings of ``--evaluate`` from the file ``--base_model_path``.

    The location of the images is taken from the command only.

    Raises:
        ValueError: other weights are named, the file does not exist or lacks a missing setting, or ``--data_path`` is
            missing.
    """
    if given.get("evaluate", "").lower() != "true":
        return given
    for flag in ("directly_ft_weights", "pretrained"):
        if given.get(flag, "false").lower() != "false":
            raise ValueError(f"--evaluate tests the network of --base_model_path FILE: remove --{flag}")
    if not given.get("base_model_path"):
        raise ValueError("--evaluate needs --base_model_path FILE")
    with error_prefix("base_model_path"):
        path = find_one(given["base_model_path"])
        trusted = given.get("trust_checkpoint", "").lower() == "true"
        own = files.read_own(path, trusted, given.get("weights_key"))
    stored = from_plain(own.options) if own else {}
    if not stored and "arch" not in given:
        raise ValueError(f"--arch is required: {path} was not written by this program and does not store it")
    given = {name: stored[name] for name in FROM_FILE if name in stored} | given
    dataset = given.get("dataset")
    if dataset in DATASETS and DATASETS[dataset].is_folder and "data_path" not in given:
        raise ValueError(f"--data_path is required: the folder of images (--dataset {dataset}) to evaluate {path} on")
    return given
