"""What several test files need: tiny sets of images on disk, and the program run as from a command line."""

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

# A prune phase of a few steps: GReg-1 makes 3 updates and 2 steps more, GReg-2 2 to pick, 2 to push, 2 more; FixReg
# takes as many as GReg-1.
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
    """``SHORT_GREG`` for the methods that have a prune phase."""
    return SHORT_GREG if PRUNERS[method].has_prune_phase else ()


def one_line_refusal(call, *args) -> str:
    """What the ValueError of ``call(*args)`` says, which is one line."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - callers look at what it says
        call(*args)
    (line,) = str(caught.value).splitlines()
    return line


@dataclass
class Ran:
    """One call of the program: what it returned, printed and wrote."""

    code: int
    out: str
    err: str
    cwd: Path

    @property
    def run_dir(self) -> Path:
        (found,) = (self.cwd / "Experiments").iterdir()
        return found

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
    """``python main.py WORDS…`` in `cwd`, without the price of a new process."""
    cwd.mkdir(parents=True, exist_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main.main([str(word) for word in words])
    return Ran(code, out.getvalue(), err.getvalue(), cwd)


def write_npz_set(
    folder: Path, train: int = 40, test: int = 24, size: int = 16, channels: int = 1, classes: int = 6
) -> Path:
    """Noise, brighter from class to class."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, n in (("train", train), ("test", test)):
        labels = np.arange(n) % classes
        images = rng.integers(0, 80, (n, size, size, channels)) + 25 * labels[:, None, None, None]
        np.savez(folder / f"{name}.npz", images=images.astype(np.uint8), labels=labels)
    return folder


def write_jpegs(folder: Path, n: int, size: int, seed: int = 0) -> list[Path]:
    """Files img0.JPEG, img1.JPEG, …, each of one colour of its own, with a gradient that a flip would turn."""
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
    """``train/`` and ``val/`` with a folder of JPEG files per class."""
    for i, name in enumerate(classes):
        write_jpegs(root / "train" / name, train, 240, seed=i)
        write_jpegs(root / "val" / name, val, 260, seed=10 + i)
    return root
