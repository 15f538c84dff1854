"""Load the images of a run, and check that they are those of the resumed run or of the base network."""

from dataclasses import asdict
from itertools import zip_longest

import torch

from data import Data, DataSource
from utils.checkpoint.state import Checkpoint
from utils.config.options import Options
from utils.config.types import error_prefix
from utils.dist.process_group import shard
from utils.pipeline.base_model import BaseModel


def load_data(source: DataSource, options: Options, device: torch.device) -> Data:
    with error_prefix("data_path"):
        return source.load(options.seed, options.workers, device, options.val_fraction, shard(), options.train_images)


def check_same_data(data: Data, checkpoint: Checkpoint) -> list[str]:
    """Check that the data are those of a resumed run.

    Returns:
        A notice if the checkpoint of an older version has no fingerprint.

    Raises:
        ValueError: they differ.
    """
    n_train, n_test = checkpoint.record["images"]
    if (n_train, n_test) != data.sizes:
        raise ValueError(
            f"--data_path: the run has {n_train} training and {n_test} test images; these data have "
            f"{data.sizes[0]} and {data.sizes[1]}"
        )
    identity = checkpoint.identity
    if identity is None:
        return [
            "the checkpoint is of an older version without a fingerprint: cannot verify that the images are the same"
        ]
    if list(identity["class_names"]) != list(data.class_names):
        stored, actual = ([*names][:5] for names in (identity["class_names"], data.class_names))
        raise ValueError(f"--data_path: the run has classes {stored}, these data have {actual}")
    if identity["fingerprint"] != data.fingerprint:
        raise ValueError(
            f"--data_path: these are not the images of the run: the fingerprint is {data.fingerprint}, was "
            f"{identity['fingerprint']}"
        )
    return []


def check_trained_on(base: BaseModel, data: Data) -> list[str]:
    """Check that a new run or ``--evaluate`` uses a network on the classes that it was trained on.

    Returns:
        A notice if its images were normalized otherwise.

    Raises:
        ValueError: their names or order differ.
    """
    names, spec = [*base.data.get("class_names", ())], asdict(data.spec)
    if names and data.class_names and names != [*data.class_names]:
        pairs = enumerate(zip_longest(names, data.class_names))
        i, (there, here) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"--data_path: {base.source} was trained on other classes: class {i} is {there!r} there, and {here!r} in "
            "these data"
        )
    others = [key for key in ("mean", "std") if key in base.data and [*base.data[key]] != [*spec[key]]]
    return [
        f"{base.source} was trained on images of {key} {tuple(base.data[key])}; these are normalized by {spec[key]}"
        for key in others
    ]
