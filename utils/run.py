"""The run directory: its log, scalars, checkpoints and report. Nothing is written before one is opened."""

import json
import logging
import math
import os
import sys
import time
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from tensorboardX import SummaryWriter
from torch import Tensor, nn
from tqdm import tqdm

from data import DataSpec
from pruner import Pruner
from utils import checkpoint
from utils.options import Options, to_plain

SHOW = 25  # a log level: progress and tables, on the screen always
logging.addLevelName(SHOW, "SHOW")
log = logging.getLogger("pruning")


class _Screen(logging.Handler):
    """Lines on the screen that leave a progress bar whole; warnings go to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        bad = record.levelno >= logging.WARNING
        tqdm.write(self.format(record), file=sys.stderr if bad else sys.stdout)
        sys.stdout.flush()


def open_log(every_line: bool) -> None:
    """Send the program's log to the screen; `every_line`: not only progress, tables and warnings."""
    close_log()
    screen = _Screen(logging.INFO if every_line else SHOW)
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(screen)


def close_log() -> None:
    """Take away what ``open_log`` and ``RunDir`` have added to the log."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _Screen) or getattr(handler, "of_run", False):
            root.removeHandler(handler)
            handler.close()


class Unrecorded:
    """Stands in for a ``RunDir`` where training leaves nothing behind."""

    def __init__(self, options: Options):
        self.options = options

    def say(self, text: str) -> None: ...

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None: ...

    def save(self, *names: str, **content: Any) -> None: ...

    def save_pruned(self, model: nn.Module) -> None: ...


class RunDir:
    """``Experiments/<name>_SERVER<$SERVER>-<time>/`` with ``weights/`` and ``log/``.

    Attributes:
        path: the directory.
        kept, masks: of the cut, once it is made; every later checkpoint holds them.
    """

    def __init__(self, options: Options, spec: DataSpec, model: nn.Module):
        self.options, self._spec = options, spec
        self.kept: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        self.path = _create(options)
        (self.path / "weights").mkdir()
        (self.path / "log").mkdir()
        handler = logging.FileHandler(self.path / "log" / "log.txt")
        handler.of_run = True
        handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%Y-%m-%d %H:%M:%S"))
        logging.getLogger().addHandler(handler)
        (self.path / "log" / "params.yaml").write_text(yaml.safe_dump(to_plain(options), sort_keys=False))
        (self.path / "log" / "model_arch.txt").write_text(f"{model}\n")
        self._scalars = SummaryWriter(str(self.path / "log"))

    def say(self, text: str) -> None:
        """A line for the reader, on the screen and in the log."""
        log.log(SHOW, text)

    def cut_made(self, kept: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
        """From now on checkpoints hold the pruned network."""
        self.kept, self.masks = kept, masks

    def weights(self, name: str) -> Path:
        return self.path / "weights" / f"{name}.pth"

    def log_file(self, name: str) -> Path:
        return self.path / "log" / name

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        """For TensorBoard, under ``phase/name``."""
        for name, value in values.items():
            self._scalars.add_scalar(f"{phase}/{name}", value, step)

    def save(
        self,
        *names: str,
        phase: str,
        step: int,
        model: nn.Module,
        epoch: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        pruner: Pruner | None = None,
        best: dict[str, Any] | None = None,
    ) -> None:
        """A checkpoint under each of `names`.

        Args:
            step, epoch: how many have been made in `phase`.
            best: accuracies so far.
        """
        if not names:
            return
        content = self._network(model) | {
            "phase": phase,
            "step": step,
            "epoch": epoch,
            "optimizer": optimizer.state_dict() if optimizer else {},
            "pruner": pruner.state_dict() if pruner else {},
            "rng": checkpoint.random_state(),
            "best": best or {},
        }
        for name in names:
            checkpoint.save(self.weights(name), content)

    def save_pruned(self, model: nn.Module) -> None:
        """``pruned_model.pth``: the network alone, where it is a pruned one."""
        if self.kept or self.masks:
            checkpoint.save(self.weights("pruned_model"), self._network(model))

    def _network(self, model: nn.Module) -> dict[str, Any]:
        return {
            "options": to_plain(self.options),
            "data": asdict(self._spec),
            "kept": self.kept,
            "masks": self.masks,
            "model": model.state_dict(),
        }

    def write_report(self, report: dict[str, Any]) -> None:
        self.log_file("report.json").write_text(json.dumps(_finite(report), indent=1, allow_nan=False) + "\n")
        self._scalars.close()


def _finite(value: Any) -> Any:
    """`value` with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _create(options: Options) -> Path:
    """A directory that was not there before: a second later if the name is taken."""
    name = options.project_name or "__".join((options.method, options.arch, options.dataset))
    parent = Path("Debug_Dir" if options.debug else "Experiments")
    try:
        parent.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"the folder of runs {parent} cannot be made: {error.strerror}") from None
    while True:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        path = parent / f"{name}_SERVER{os.environ.get('SERVER', '')}-{stamp}"
        try:
            path.mkdir()
            return path
        except FileExistsError:
            time.sleep(1)
        except OSError as error:
            raise ValueError(f"the run's directory {path} cannot be made: {error.strerror}") from None
