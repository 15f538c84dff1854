"""Resolve ``--resume_path`` to a run directory and a checkpoint, and verify that both are of one run."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data import DataSource
from model import runs_file
from utils.checkpoint import files
from utils.checkpoint.evaluated_file import with_settings_of_file
from utils.checkpoint.paths import LATEST, PARAMS, PREVIOUS, REPORT, folder_of_runs, project_of
from utils.checkpoint.state import Checkpoint
from utils.checkpoint.validation import read_report
from utils.config.cli import build, read
from utils.config.lr_schedule import learning_rates, lr_at, uses_adam
from utils.config.notices import notices_on
from utils.config.options import RUN_ID, Options, differences, from_plain, stored_defaults
from utils.config.paths import find_one
from utils.config.settings_file import read_settings_file
from utils.config.types import error_prefix
from utils.config.types import path as path_of

DECIDED = ("seed", "amp", "channels_last", "compile", "cuda_graph")  # once per run, if not given
BASE_FLAGS = ("base_model_path", "base_pr_model", "directly_ft_weights")  # settings that name a base network


@dataclass(frozen=True)
class StoredRun:
    """A run directory's own ``log/params.yaml``.

    Attributes:
        settings: as text, without those that a file must not set.
        run_id: None: written by an older version.
    """

    path: Path
    settings: dict[str, str]
    run_id: str | None

    @property
    def inherited(self) -> dict[str, str]:
        """Settings that a command inherits from the run unless it gives them."""
        names = DECIDED if self.run_id else (*DECIDED, "lr_ft")
        return {name: self.settings[name] for name in names if name in self.settings}

    @classmethod
    def read(cls, path: Path) -> "StoredRun":
        """Read the run directory `path`.

        Raises:
            ValueError: the file is missing or cannot be read; names it.
        """
        file = path / PARAMS
        if not file.is_file():
            raise ValueError(f"{path} is not a run directory: it has no {PARAMS}")
        try:
            content = read_settings_file(file)
            settings = {key: value for key, value in content.items() if key in stored_defaults()}
            settings |= {} if RUN_ID in content else legacy_lr_schedule(settings)
            build(settings)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        return cls(path, settings, content.get(RUN_ID))


@dataclass(frozen=True)
class ResumePoint:
    """A run to resume.

    Attributes:
        path: its directory; None: create one, since the checkpoint is not in a run directory.
        run_id: None: written by an older version.
        file, checkpoint: the state to resume from; None: the run restarts in its directory.
        report: of a finished run.
        notices: on unreadable checkpoints and on skipped comparisons.
    """

    path: Path | None
    run_id: str | None = None
    file: Path | None = None
    checkpoint: Checkpoint | None = None
    report: dict[str, Any] | None = None
    notices: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Command:
    """A command line, resolved.

    Attributes:
        options: of the run, without ``--resume_path``.
        notices: on flags that have no effect, and those of `resume`.
        resume: the run to resume; None: a new one.
        refuse_duplicate: raises ValueError if another process has just started the same run; None: duplicates
            are allowed.
    """

    options: Options
    notices: list[str]
    resume: ResumePoint | None = None
    refuse_duplicate: Callable[[], None] | None = None


def resolve(argv: Sequence[str]) -> Command:
    """Resolve a command line to options and, with ``--resume_path``, to the run that it resumes.

    With a path, the settings of that run are the defaults. With ``auto``, the command gives all settings, as for a new
    run.

    Raises:
        ValueError: the command is wrong, there is nothing to resume, or settings that affect the result differ; names
            them.
    """
    given, explicit = read(argv)
    resume_path = given.get("resume_path")
    if resume_path is not None and given.get("evaluate", "").lower() == "true":
        raise ValueError("--evaluate excludes --resume_path: to evaluate a file, pass --base_model_path FILE")
    explicit_arch = given.get("arch")
    given = with_settings_of_file(given)
    if explicit_arch is None and runs_file(given.get("arch", "")):
        raise ValueError(_arch_required(given["arch"]))
    if resume_path is None:
        options = build(given)
        return Command(options, notices_on(options, explicit))
    notices: list[str] = []
    with error_prefix("resume_path"):
        auto = path_of(resume_path) == "auto"
        options, resume = _resolve_auto(given, notices) if auto else _resolve_path(given, resume_path)
    if runs_file(options.arch) and explicit_arch is None:
        raise ValueError(_arch_required(options.arch))
    notices += notices_on(options, explicit) + (resume.notices if resume else [])
    if resume and resume.checkpoint:
        notices += _rate_notices(options, resume.checkpoint)

    def refuse_duplicate() -> None:
        _, point = _resolve_auto(given, [])
        if point:
            raise ValueError(f"--resume_path auto: another process has just started this run, in {point.path}")

    return Command(replace(options, resume_path=None), notices, resume, refuse_duplicate if auto else None)


def _rate_notices(options: Options, checkpoint: Checkpoint) -> list[str]:
    """Return a notice if added epochs change the rates that plain training derives from their number."""
    before = checkpoint.options["epochs"]
    if options.epochs <= before or options.method != "none" or options.lr_ft or options.directly_ft_weights:
        return []
    rate = lr_at(learning_rates(options), before)
    return [
        f"--epochs {options.epochs} (was {before}): plain training divides --lr at half and at three quarters of them; "
        f"the rate from epoch {before} on is {rate:g}"
    ]


def _arch_required(arch: str) -> str:
    return f"--arch {arch} is required: it runs code from a file, which stored settings must not do"


def _resolve_auto(given: dict[str, str], notices: list[str]) -> tuple[Options, ResumePoint | None]:
    options = build(given)
    name = re.compile(re.escape(project_of(options)) + r"_SERVER.*-[0-9]{8}-[0-9]{6}")
    paths = [path.parent.parent for path in folder_of_runs(options).glob(f"*/{PARAMS}")]
    paths = sorted(
        (path for path in paths if name.fullmatch(path.name)), key=lambda path: path.name[-15:], reverse=True
    )
    same, differing = [], {}
    for path in paths:
        try:
            run = StoredRun.read(path)
            options_here = build(run.inherited | _explicit(given))
            differing[path] = differences(options_here, build(run.settings))
        except ValueError as error:
            notices.append(f"{error}; this run is skipped")
            continue
        if not differing[path]:
            same.append((run, options_here))
    if same:  # unfinished runs first, then the newest
        run, options = min(same, key=lambda run_and_options: (run_and_options[0].path / REPORT).is_file())
        return options, _read_newest(run, options)
    if differing:
        newest = next(iter(differing))
        raise ValueError(
            f"--resume_path auto: {newest} has other settings: {', '.join(differing[newest])}; "
            "pass another --project_name for a new run"
        )
    return options, None


def _resolve_path(given: dict[str, str], resume_path: str) -> tuple[Options, ResumePoint]:
    path = find_one(resume_path, directories=True)
    if path.is_dir():
        run = StoredRun.read(path)
        options = _build_unchanged(given, run.settings, path)
        point = _read_newest(run, options)
        if not point.file:
            _refuse_stored_bases(given, run)
        return options, point
    checkpoint = _read_state(path)
    if (path.parent.parent / PARAMS).is_file():
        run = StoredRun.read(path.parent.parent)
        options = _build_unchanged(given, run.settings, path)
        return options, _verify(run, path, checkpoint, options)
    return _build_unchanged(given, _own_settings(checkpoint), path), ResumePoint(None, None, path, checkpoint)


def _refuse_stored_bases(given: dict[str, str], run: StoredRun) -> None:
    """Refuse to restart from a base network named only by stored settings."""
    for name in BASE_FLAGS:
        if run.settings.get(name) and not given.get(name):
            raise ValueError(
                f"{run.path} has no checkpoint yet and starts from the file of --{name}: repeat the command that began "
                f"it with --resume_path auto (or add --{name} {run.settings[name]})"
            )


def _build_unchanged(given: dict[str, str], stored: dict[str, str], path: Path) -> Options:
    options = build(stored | _explicit(given))
    differing = differences(options, build(stored))
    if differing:
        raise ValueError(f"{path}: a run cannot be resumed with other settings: {', '.join(differing)}")
    return options


def _read_newest(run: StoredRun, options: Options) -> ResumePoint:
    """Read the run's newest readable checkpoint.

    Raises:
        ValueError: no checkpoint can be read, or it is of another run.
    """
    paths = [run.path / "weights" / f"{name}.pth" for name in (LATEST, PREVIOUS)]
    paths = [file for file in paths if file.exists()]
    unreadable = []
    for file in paths:
        try:
            checkpoint = _read_state(file)
        except ValueError as error:
            unreadable.append(str(error))
            continue
        point = _verify(run, file, checkpoint, options)
        return replace(point, notices=point.notices + [f"{text}; resuming from {file.name}" for text in unreadable])
    if unreadable:
        raise ValueError(f"{'; '.join(unreadable)}; delete these files to restart the run")
    return ResumePoint(run.path, run.run_id)


def _verify(run: StoredRun, file: Path, checkpoint: Checkpoint, options: Options) -> ResumePoint:
    """Verify that the checkpoint is of the run.

    Raises:
        ValueError: the checkpoint is of another run, or its settings differ from ``params.yaml``.
    """
    identity, notices = checkpoint.identity, []
    if run.run_id and identity and run.run_id != identity["run_id"]:
        raise ValueError(
            f"{file} is of another run: its id is {identity['run_id']}, that of {run.path} is {run.run_id}"
        )
    if not (run.run_id and identity):
        notices = [f"{file} was written by an older version without a run id: cannot verify that it is of this run"]
    differing = differences(build(run.settings), build(_own_settings(checkpoint)))
    if differing:
        raise ValueError(f"{run.path / PARAMS} differs from the settings of {file}: {', '.join(differing)}")
    return ResumePoint(run.path, run.run_id, file, checkpoint, _report(run, options), notices)


def _own_settings(checkpoint: Checkpoint) -> dict[str, str]:
    stored = from_plain(checkpoint.options)
    return stored if checkpoint.identity else stored | legacy_lr_schedule(stored)


def legacy_lr_schedule(stored: dict[str, str]) -> dict[str, str]:
    """Return the learning rates that an older version used where the settings do not give them.

    Plain training divided ``--lr`` by 10 every 30 epochs; a LeNet kept ``--lr``.
    """
    options = build(stored)
    if options.lr_ft or not (options.method == "none" or uses_adam(options)):
        return {}
    starts = range(0, min(options.epochs, 9000), 30) if options.method == "none" else range(1)  # 0 beyond
    return {"lr_ft": ",".join(f"{start}:{options.lr * 0.1 ** (start // 30)!r}" for start in starts or range(1))}


def _read_state(file: Path) -> Checkpoint:
    checkpoint = files.read(file)
    if not isinstance(checkpoint, Checkpoint) or checkpoint.phase is None:
        raise ValueError(f"{file} holds a network, not the state of a run; see --directly_ft_weights")
    if checkpoint.version < 2:
        raise ValueError(f"{file} was written by an older version and cannot be resumed; use it as --base_model_path")
    if checkpoint.phase == "prune" and not checkpoint.pruner:
        raise ValueError(
            f"{file} was written before the first step: pass it to --base_model_path to start from its weights"
        )
    return checkpoint


def _explicit(given: dict[str, str]) -> dict[str, str]:
    """Return the given settings, without those given as ``auto``, which the run has decided."""
    return {name: value for name, value in given.items() if value != "auto" or name not in DECIDED}


def _report(run: StoredRun, options: Options) -> dict[str, Any] | None:
    """Read the report of a finished run; None if unfinished or if epochs were added."""
    file = run.path / REPORT
    if not file.is_file() or options.epochs > int(run.settings["epochs"]):
        return None
    report = read_report(file)
    if run.run_id and report.get(RUN_ID, run.run_id) != run.run_id:
        raise ValueError(f"{file} is of another run: its id is {report[RUN_ID]}, that of {run.path} is {run.run_id}")
    if options.data_path != run.settings["data_path"]:  # moved data are allowed, other data are not
        with error_prefix("data_path"):
            name = DataSource(options.dataset, options.data_path).spec.name
        if name != report["data_name"]:
            raise ValueError(f"{run.path} was trained on {report['data_name']}, not on {name}")
    return report
