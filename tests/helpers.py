"""Shared helpers: small sets of images on disk, and runs of the command line."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import main
from pruner import PRUNERS

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

# A short prune phase: GReg-1 makes 3 updates and 2 steps of stabilization; GReg-2 makes 2 updates before selection, 2
# after it and 2 steps of stabilization; FixReg makes as many steps as GReg-1.
SHORT_GREG = (
    *("--update_reg_interval", "1", "--stabilize_reg_interval", "2", "--reg_granularity_prune", "0.5"),
    *("--reg_granularity_pick", "0.005", "--batch_size_prune", "8", "--print_interval", "1"),
)
PRUNE_STEPS = {
    "none": {},
    "L1": {},
    "GReg-1": {"update": 3, "stabilise": 2},
    "GReg-2": {"update": 4, "stabilise": 2},
    "FixReg": {"update": 3, "stabilise": 2},
}


def short_phase(method: str) -> tuple[str, ...]:
    """Return ``SHORT_GREG`` for methods with a prune phase."""
    return SHORT_GREG if PRUNERS[method].has_prune_phase else ()


def one_line_refusal(call, *args) -> str:
    """Return the one-line message of the ValueError raised by ``call(*args)``."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers check the message
        call(*args)
    (line,) = str(caught.value).splitlines()
    return line


@dataclass
class Ran:
    """Exit code, output and files of one call of the program."""

    code: int
    out: str
    err: str
    cwd: Path

    @property
    def run_dir(self) -> Path:
        (path,) = (self.cwd / "Experiments").iterdir()
        return path

    @property
    def report(self) -> dict:
        return json.loads((self.run_dir / "log" / "report.json").read_text())

    def weights(self, name: str) -> Path:
        return self.run_dir / "weights" / f"{name}.pth"

    def load(self, name: str) -> dict:
        return torch.load(self.weights(name), weights_only=True)

    @property
    def log(self) -> str:
        return (self.run_dir / "log" / "log.txt").read_text()


def run_program(cwd: Path, *words: object) -> Ran:
    """Run ``python main.py WORDS…`` in `cwd`, in this process."""
    cwd.mkdir(parents=True, exist_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.main([str(word) for word in words])
    return Ran(code, out.getvalue(), err.getvalue(), cwd)


def write_npz_set(
    folder: Path, train: int = 40, test: int = 24, size: int = 16, channels: int = 1, classes: int = 6
) -> Path:
    """Write train.npz and test.npz of noise whose brightness grows with the class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", train), ("test", test)):
        labels = np.arange(n) % classes
        images = rng.integers(0, 80, (n, size, size, channels)) + 25 * labels[:, None, None, None]
        np.savez(folder / f"{name}.npz", images=images.astype(np.uint8), labels=labels)
    return folder


def write_jpegs(folder: Path, n: int, size: int, seed: int = 0) -> list[Path]:
    """Write img0.JPEG, img1.JPEG, …, each of its own color, with a horizontal gradient that shows flips."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    files = []
    for i in range(n):
        ramp = np.linspace(0, 100, size)[None, :, None]
        pixels = (rng.integers(0, 155, 3) + ramp + np.zeros((size, 1, 1))).astype(np.uint8)
        files.append(folder / f"img{i}.JPEG")
        Image.fromarray(pixels).save(files[-1], quality=95)
    return files


def write_image_folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), train: int = 3, val: int = 2) -> Path:
    """Write ``train/`` and ``val/`` with a folder of JPEG files per class."""
    for i, name in enumerate(classes):
        write_jpegs(root / "train" / name, train, 240, seed=i)
        write_jpegs(root / "val" / name, val, 260, seed=10 + i)
    return root
