"""Resolve ``--resume_path`` to a run directory and a checkpoint, and verify that they are of one run."""

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
from utils.config.lr_schedule import uses_adam
from utils.config.notices import notices_on
from utils.config.options import RUN_ID, Options, differences, from_plain, stored_defaults
from utils.config.paths import find_one
from utils.config.settings_file import read_settings_file
from utils.config.types import error_prefix
from utils.config.types import path as path_of

DECIDED = ("seed", "amp", "channels_last", "cuda_graph")  # by the program where not given: once for a run
BASES = ("base_model_path", "base_pr_model", "directly_ft_weights")  # settings that name files to start from


@dataclass(frozen=True)
class StoredRun:
    """A run directory's own ``log/params.yaml``.

    Attributes:
        settings: as text; those that no file may decide are left out.
        run_id: the run's; None: written by an older version.
    """

    path: Path
    settings: dict[str, str]
    run_id: str | None

    @property
    def inherited(self) -> dict[str, str]:
        """Settings that a command inherits from the run unless given."""
        names = DECIDED if self.run_id else (*DECIDED, "lr_ft")
        return {name: self.settings[name] for name in names if name in self.settings}

    @classmethod
    def read(cls, path: Path) -> "StoredRun":
        """Raises:
        ValueError: there is no such file, or it cannot be read; names it.
        """
        file = path / PARAMS
        if not file.is_file():
            raise ValueError(f"{path} is not a run directory: it has no {PARAMS}")
        try:
            found = read_settings_file(file)
            settings = {key: value for key, value in found.items() if key in stored_defaults()}
            settings |= {} if RUN_ID in found else former_schedule(settings)
            build(settings)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        return cls(path, settings, found.get(RUN_ID))


@dataclass(frozen=True)
class ResumePoint:
    """A run to resume.

    Attributes:
        path: its directory; None: a new one, since the checkpoint lies outside of any.
        run_id: the run's, where it has one.
        file, checkpoint: the state to resume from; without one the run starts over, in its directory.
        report: of a run that has nothing left to do.
        notices: on checkpoints that could not be read, and on what could not be compared.
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
        options: of the run; ``--resume_path`` is not among them.
        notices: flags that have no effect, and what could not be compared.
        resume: the run to resume; None: a new one.
        refuse_duplicate: raises ValueError where another process has just begun this very run; None where the
            command may begin it twice.
    """

    options: Options
    notices: list[str]
    resume: ResumePoint | None = None
    refuse_duplicate: Callable[[], None] | None = None


def resolve(argv: Sequence[str]) -> Command:
    """Resolve a command line to options and, with ``--resume_path``, to the run that it resumes.

    With a path, the settings of that run are the defaults. With ``auto`` the command is that of a start.

    Raises:
        ValueError: the command is wrong, there is nothing to resume there, or settings differ that change the
            result; names them.
    """
    given, typed = read(argv)
    wanted = given.get("resume_path")
    if wanted is not None and given.get("evaluate", "").lower() == "true":
        raise ValueError("--evaluate and --resume_path are two things to do; --evaluate takes --base_model_path FILE")
    own_arch = given.get("arch")
    given = with_settings_of_file(given)
    if own_arch is None and runs_file(given.get("arch", "")):
        raise ValueError(_code_is_named(given["arch"]))
    if wanted is None:
        options = build(given)
        return Command(options, notices_on(options, typed))
    notices: list[str] = []
    with error_prefix("resume_path"):
        auto = path_of(wanted) == "auto"
        options, resume = _auto(given, notices) if auto else _named(given, wanted)
    if runs_file(options.arch) and own_arch is None:
        raise ValueError(_code_is_named(options.arch))
    notices += notices_on(options, typed) + (resume.notices if resume else [])

    def refuse_duplicate() -> None:
        _, found = _auto(given, [])
        if found:
            raise ValueError(f"--resume_path auto: another process has just begun this run, in {found.path}")

    return Command(replace(options, resume_path=None), notices, resume, refuse_duplicate if auto else None)


def _code_is_named(arch: str) -> str:
    return f"--arch {arch} is required: it runs code from a file, which no stored setting may do"


def _auto(given: dict[str, str], notices: list[str]) -> tuple[Options, ResumePoint | None]:
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
            wanted = build(run.inherited | _typed(given))
            differing[path] = differences(wanted, build(run.settings))
        except ValueError as error:
            notices.append(f"{error}; this run is skipped")
            continue
        if not differing[path]:
            same.append((run, wanted))
    if same:  # an unfinished run comes first, however old it is
        run, wanted = min(same, key=lambda run_and_options: (run_and_options[0].path / REPORT).is_file())
        return wanted, _open(run, wanted)
    if differing:
        newest = next(iter(differing))
        raise ValueError(
            f"--resume_path auto: {newest} was made with other settings: {', '.join(differing[newest])}; "
            "give another --project_name for another run"
        )
    return options, None


def _named(given: dict[str, str], wanted: str) -> tuple[Options, ResumePoint]:
    path = find_one(wanted, directories=True)
    if path.is_dir():
        run = StoredRun.read(path)
        options = _unchanged(given, run.settings, path)
        found = _open(run, options)
        if not found.file:
            _refuse_stored_bases(given, run)
        return options, found
    checkpoint = _state(path)
    if (path.parent.parent / PARAMS).is_file():
        run = StoredRun.read(path.parent.parent)
        options = _unchanged(given, run.settings, path)
        return options, _verified(run, path, checkpoint, options)
    return _unchanged(given, _own_settings(checkpoint), path), ResumePoint(None, None, path, checkpoint)


def _refuse_stored_bases(given: dict[str, str], run: StoredRun) -> None:
    """Refuse to start over from files that the stored settings name: the command must name them."""
    for name in BASES:
        if run.settings.get(name) and not given.get(name):
            raise ValueError(
                f"{run.path} has no checkpoint yet and starts from the file of --{name}: repeat the command that began "
                f"it, with --resume_path auto (or add --{name} {run.settings[name]})"
            )


def _unchanged(given: dict[str, str], stored: dict[str, str], path: Path) -> Options:
    options = build(stored | _typed(given))
    differing = differences(options, build(stored))
    if differing:
        raise ValueError(f"{path}: a run cannot be resumed with other settings: {', '.join(differing)}")
    return options


def _open(run: StoredRun, options: Options) -> ResumePoint:
    """Read the run's newest readable checkpoint.

    Raises:
        ValueError: none of those that are there can be read, or it is not this run's own.
    """
    paths = [run.path / "weights" / f"{name}.pth" for name in (LATEST, PREVIOUS)]
    paths = [file for file in paths if file.exists()]
    unreadable = []
    for file in paths:
        try:
            checkpoint = _state(file)
        except ValueError as error:
            unreadable.append(str(error))
            continue
        point = _verified(run, file, checkpoint, options)
        return replace(point, notices=point.notices + [f"{text}; resuming from {file.name}" for text in unreadable])
    if unreadable:
        raise ValueError(f"{'; '.join(unreadable)}; without these files the run would start over")
    return ResumePoint(run.path, run.run_id)


def _verified(run: StoredRun, file: Path, checkpoint: Checkpoint, options: Options) -> ResumePoint:
    """Compare the run and its checkpoint.

    Raises:
        ValueError: the checkpoint is of another run, or was made with other settings than ``params.yaml`` has.
    """
    identity, notices = checkpoint.identity, []
    if run.run_id and identity and run.run_id != identity["run_id"]:
        raise ValueError(
            f"{file} is of another run: its id is {identity['run_id']}, that of {run.path} is {run.run_id}"
        )
    if not (run.run_id and identity):
        notices = [f"{file} was written by an older version: whether it is this run's own cannot be compared"]
    differing = differences(build(run.settings), build(_own_settings(checkpoint)))
    if differing:
        raise ValueError(f"{run.path / PARAMS} is not what {file} was made with: {', '.join(differing)}")
    return ResumePoint(run.path, run.run_id, file, checkpoint, _report(run, options), notices)


def _own_settings(checkpoint: Checkpoint) -> dict[str, str]:
    stored = from_plain(checkpoint.options)
    return stored if checkpoint.identity else stored | former_schedule(stored)


def former_schedule(stored: dict[str, str]) -> dict[str, str]:
    """Learning rates of a run of an older version, where its settings do not name them.

    Plain training divided ``--lr`` by 10 every 30 epochs, and a LeNet kept ``--lr``.
    """
    options = build(stored)
    if options.lr_ft or not (options.method == "none" or uses_adam(options)):
        return {}
    starts = range(0, min(options.epochs, 9000), 30) if options.method == "none" else range(1)  # then it is 0
    return {"lr_ft": ",".join(f"{start}:{options.lr * 0.1 ** (start // 30)!r}" for start in starts or range(1))}


def _state(file: Path) -> Checkpoint:
    checkpoint = files.read(file)
    if not isinstance(checkpoint, Checkpoint) or checkpoint.phase is None:
        raise ValueError(f"{file} holds a network, not the state of a run; see --directly_ft_weights")
    if checkpoint.version < 2:
        raise ValueError(f"{file} was written by an older version and cannot be resumed; use it as --base_model_path")
    if checkpoint.phase == "prune" and not checkpoint.pruner:
        raise ValueError(
            f"{file} is from before the first step; give it to --base_model_path to start from its weights"
        )
    return checkpoint


def _typed(given: dict[str, str]) -> dict[str, str]:
    """Settings of the command; under ``auto`` the seed may be the run's."""
    return {name: value for name, value in given.items() if value != "auto" or name not in DECIDED}


def _report(run: StoredRun, options: Options) -> dict[str, Any] | None:
    """Report of a finished run; None if epochs were added."""
    file = run.path / REPORT
    if not file.is_file() or options.epochs > int(run.settings["epochs"]):
        return None
    report = read_report(file)
    if run.run_id and report.get(RUN_ID, run.run_id) != run.run_id:
        raise ValueError(f"{file} is of another run: its id is {report[RUN_ID]}, that of {run.path} is {run.run_id}")
    if options.data_path != run.settings["data_path"]:  # they may have moved; other images are another run
        with error_prefix("data_path"):
            name = DataSource(options.dataset, options.data_path).spec.name
        if name != report["data_name"]:
            raise ValueError(f"{run.path} has finished on {report['data_name']}, not on {name}")
    return report
