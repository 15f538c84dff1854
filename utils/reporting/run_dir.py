"""Run directory: log, scalars, checkpoints and report."""

import csv
import fcntl
import io
import json
import logging
import math
import os
import platform
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import torch
import yaml
from torch import Tensor, nn

from data import Data
from model import runs_file
from pruner import Hooks
from utils.checkpoint import files
from utils.checkpoint.atomic import locked, write_text
from utils.checkpoint.paths import LATEST, PARAMS, PREVIOUS, REPORT, REPORT_BEFORE, folder_of_runs, project_of
from utils.checkpoint.record import TESTED, Record
from utils.checkpoint.state import Checkpoint, random_state
from utils.config.options import RUN_ID, Options, to_plain
from utils.dist.process_group import all_gather
from utils.dist.signals import StopSignal
from utils.reporting.console import LogFile, optional, show
from utils.reporting.scalars import Scalars
from utils.reporting.snapshots import Observer


def how_to_resume(run_dir: Path, arch: str) -> str:
    """Return the command that resumes the run of a directory, as the end of a message."""
    if (run_dir / "weights" / f"{LATEST}.pth").exists():
        own = f" --arch {shlex.quote(arch)}" if runs_file(arch) else ""
        return f"; resume with: python main.py --resume_path {shlex.quote(str(run_dir))}{own}"
    return "; no checkpoint yet: repeat the command to start again"


class Run:
    """A run without a directory: it keeps a record and writes nothing. Used by the Oracle's candidates and by all ranks
    except 0.

    Attributes:
        kept, masks: set by the cut; saved in every later checkpoint.
        record: metrics and counters.
        checkpoint: the state to resume from; None in a new run and once restored.
        resumed_in: phase of the checkpoint; None in a new run.
        stop: receives signals.
    """

    path: Path | None = None

    def __init__(self, options: Options, stop: StopSignal | None = None, checkpoint: Checkpoint | None = None):
        self.options, self.stop, self.checkpoint = options, stop or StopSignal(), checkpoint
        self.resumed_in = checkpoint.phase if checkpoint else None
        self.kept: dict[str, Tensor] = {}
        self.masks: dict[str, Tensor] = {}
        self.record = Record()
        if checkpoint:
            self.record.load_state_dict(checkpoint.record)

    def log_line(self, text: str) -> None:
        """Print a line on the screen and in the log."""

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        """Log scalars for TensorBoard, under ``phase/name``."""

    def take_checkpoint(self, phase: str) -> Checkpoint | None:
        """Return the state to resume from, if it is of `phase`, and drop the run's reference."""
        if self.checkpoint is None or self.checkpoint.phase != phase:
            return None
        taken, self.checkpoint = self.checkpoint, None
        return taken

    def log_test(self, phase: str, step: int, test: dict[str, float], **more: Any) -> None:
        """Record a test of the network as a row of ``log/accuracy.csv``."""
        self.record.add_test(phase, step, test, **more)

    def set_pruned(self, kept: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
        """Mark the network as pruned: checkpoints hold `kept` and `masks` from now on."""
        self.kept, self.masks = kept, masks

    def save(
        self,
        *names: str,
        phase: str,
        step: int,
        model: nn.Module,
        epoch: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        hooks: Hooks | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        """Write a checkpoint under each of `names`; also keep the previous ``checkpoint``.

        All ranks call this together; only rank 0 writes.

        Args:
            step, epoch: steps and whole epochs made in `phase`.
            observers: of the prune phase; their state is saved under their type names.

        Raises:
            OSError: it cannot be written; earlier checkpoints are intact.
        """
        if names:
            all_gather(random_state())

    @property
    def how_to_resume(self) -> str:
        """Return the command that resumes the run, as the end of a message."""
        return ""

    def save_pruned(self, model: nn.Module) -> None:
        """Write ``pruned_model.pth``, the network without a run's state, if it is pruned."""

    def finish(self, report: dict[str, Any]) -> None:
        """Finish the run."""

    def close(self) -> None:
        """Close files and locks."""


class RunDir(Run):
    """``Experiments/<name>_SERVER<$SERVER>-<time>/`` with ``weights/`` and ``log/``.

    Args:
        data: its spec, fingerprint and class names are saved in checkpoints.
        checkpoint, path, run_id: of a run to resume; without `path` a new directory is made.
        refuse_duplicate: called before a new directory is made, under a lock that excludes other processes.

    Attributes:
        run_id: written to ``params.yaml``, checkpoints and report; identifies files of another run.

    Raises:
        ValueError: the directory cannot be written, or another process is writing it.
    """

    path: Path

    def __init__(
        self,
        options: Options,
        data: Data,
        model: nn.Module,
        stop: StopSignal | None = None,
        checkpoint: Checkpoint | None = None,
        path: Path | None = None,
        run_id: str | None = None,
        refuse_duplicate: Callable[[], None] | None = None,
    ):
        super().__init__(options, stop, checkpoint)
        self.run_id, self._data = run_id or secrets.token_hex(8), data
        if path:
            self._open(path)
        else:
            with locked(_create_parent(options)):
                if refuse_duplicate:
                    refuse_duplicate()
                self._open(_create_run_dir(options))
            with optional("model_arch.txt"):
                self.log_file("model_arch.txt").write_text(f"{model}\n")
        logging.getLogger().addHandler(self._log_file)
        self._scalars = Scalars(self.path / "log")

    def _open(self, path: Path) -> None:
        """Lock the directory; write run id and settings; the run is unfinished from here on."""
        self.path = path
        try:
            for name in ("weights", "log"):
                (path / name).mkdir(exist_ok=True)
            self._lock = lock(path)
            # Of a finished run that epochs were added to. Before the settings, whose epochs would fit it.
            with suppress(FileNotFoundError):
                (path / REPORT).replace(path / REPORT_BEFORE)
            params = {RUN_ID: self.run_id} | to_plain(self.options)
            write_text(path / PARAMS, yaml.safe_dump(params, sort_keys=False))
            self._log_file = LogFile(self.log_file("log.txt"))
        except OSError as error:
            raise ValueError(f"cannot write the run directory {path}: {error.strerror}") from None

    def log_line(self, text: str) -> None:
        show(text)

    @property
    def how_to_resume(self) -> str:
        return how_to_resume(self.path, self.options.arch)

    def weights(self, name: str) -> Path:
        return self.path / "weights" / f"{name}.pth"

    def log_file(self, name: str) -> Path:
        return self.path / "log" / name

    def scalars(self, phase: str, step: int, values: dict[str, float]) -> None:
        self._scalars.add(phase, step, values)

    def log_test(self, phase: str, step: int, test: dict[str, float], **more: Any) -> None:
        super().log_test(phase, step, test, **more)
        if phase not in ("prune", "finetune"):  # the phases log these scalars themselves
            self.scalars(phase.replace(" ", "_"), step, {f"test_{key}": value for key, value in test.items()})
        lines = io.StringIO()
        table = csv.DictWriter(lines, TESTED, lineterminator="\n")
        table.writeheader()
        table.writerows(self.record.tests)
        with optional("accuracy.csv"):
            write_text(self.log_file("accuracy.csv"), lines.getvalue())

    def save(
        self,
        *names: str,
        phase: str,
        step: int,
        model: nn.Module,
        epoch: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        hooks: Hooks | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        if not names:
            return
        metrics = self.record.finetuning
        checkpoint = replace(
            self._network(model),
            phase=phase,
            step=step,
            epoch=epoch,
            optimizer=optimizer.state_dict() if optimizer else {},
            pruner=hooks.state_dict() if hooks else {},
            rng=all_gather(random_state()),  # one per process
            best={"acc1": metrics.best, "epoch": metrics.best_epoch},
            record=self.record.state_dict(),
            identity={
                RUN_ID: self.run_id,
                "fingerprint": self._data.fingerprint,
                "class_names": list(self._data.class_names),
            },
            observers={type(observer).__name__: observer.state_dict() for observer in observers},
        )
        for name in names:
            files.save(self.weights(name), checkpoint, self.weights(PREVIOUS) if name == LATEST else None)

    def save_pruned(self, model: nn.Module) -> None:
        if self.kept or self.masks:
            files.save(self.weights("pruned_model"), self._network(model))

    def _network(self, model: nn.Module) -> Checkpoint:
        data = asdict(self._data.spec) | {"class_names": list(self._data.class_names)}
        return Checkpoint(to_plain(self.options), data, self.kept, self.masks, model.state_dict())

    def finish(self, report: dict[str, Any]) -> None:
        """Write the report, which marks the run as finished."""
        for file in self.path.glob("log/*.rows"):
            with suppress(OSError):
                file.unlink()
        report = {RUN_ID: self.run_id} | report
        write_text(self.path / REPORT, json.dumps(_replace_non_finite(report), indent=1, allow_nan=False) + "\n")

    def close(self) -> None:
        self._scalars.close()
        self._lock.close()


def lock(path: Path) -> TextIO:
    """Lock the run at `path` against other processes; released when this process ends.

    Raises:
        ValueError: another process holds the lock.
    """
    file = open(path / "log" / "lock", "a+")  # noqa: SIM115 - held open until the process ends
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise ValueError(f"{path} is being written by another process ({owner}); wait for it or stop it") from None
    except OSError:  # a file system without locks
        pass
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return file


def _replace_non_finite(value: Any) -> Any:
    """Replace non-finite numbers by null, for JSON."""
    if isinstance(value, dict):
        return {key: _replace_non_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_non_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _create_parent(options: Options) -> Path:
    """Return the folder of runs; create it if missing."""
    parent = folder_of_runs(options)
    try:
        parent.mkdir(exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder of runs {parent}: {error.strerror}") from None
    return parent


def _create_run_dir(options: Options) -> Path:
    """Create a new run directory; if its name is taken, retry a second later."""
    while True:
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        name = f"{project_of(options)}_SERVER{os.environ.get('SERVER', '')}-{stamp}"
        path = folder_of_runs(options) / name
        try:
            path.mkdir()
            return path
        except FileExistsError:
            time.sleep(1)
        except OSError as error:
            raise ValueError(f"cannot make the run directory {path}: {error.strerror}") from None
