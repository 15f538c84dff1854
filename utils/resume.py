"""``--resume_path``: which run a command goes on with, and from which checkpoint."""

import glob
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data import describe
from utils import checkpoint
from utils.evaluation import with_settings_of_file
from utils.options import Options, build, differences, from_plain, notices_on, read, read_settings
from utils.parsers import about
from utils.run import LATEST, PARAMS, PREVIOUS, REPORT, folder_of_runs, project_of

DECIDED = ("seed", "amp", "channels_last", "cuda_graph")  # by the program where nobody asked: once for a run


@dataclass(frozen=True)
class Found:
    """A run to go on with.

    Attributes:
        path: its directory; None: a new one, since the checkpoint lies outside of any.
        file, saved: the checkpoint; without one the run starts over, in its directory.
        report: of a run that has nothing left to do.
        notices: on checkpoints that could not be read.
    """

    path: Path | None
    file: Path | None = None
    saved: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] | None = None
    notices: list[str] = field(default_factory=list)


def settings(argv: Sequence[str]) -> tuple[Options, list[str], Found | None]:
    """Options, notices, and the run that ``--resume_path`` finds.

    With a path, the settings of that run are the defaults. With ``auto`` the command is that of a start. The options
    are those of the run: ``--resume_path`` is not among them, so that they can be given to another.

    Raises:
        ValueError: the command is wrong, there is nothing to go on with there, or settings differ that change the
            result; names them.
    """
    given, typed = read(argv)
    given = with_settings_of_file(given)
    wanted = given.get("resume_path")
    if not wanted:
        options = build(given)
        return options, notices_on(options, typed), None
    if wanted == "auto":
        options, found = _auto(given)
    else:
        with about("resume_path"):
            options, found = _named(given, wanted)
    notices = notices_on(options, typed) + (found.notices if found else [])
    return replace(options, resume_path=None), notices, found


def _auto(given: dict[str, str]) -> tuple[Options, Found | None]:
    options = build(given)
    name = re.compile(re.escape(project_of(options)) + r"_SERVER.*-[0-9]{8}-[0-9]{6}")
    runs = [path.parent.parent for path in folder_of_runs(options).glob(f"*/{PARAMS}")]
    runs = sorted((run for run in runs if name.fullmatch(run.name)), key=lambda run: run.name[-15:], reverse=True)
    differing = {}
    for run in runs:
        stored = read_settings(run / PARAMS)
        same = build({name: stored[name] for name in DECIDED if name in stored} | _typed(given))
        differing[run] = differences(same, build(stored))
        if not differing[run]:
            return same, _open(run, same, stored)
    if runs:
        raise ValueError(
            f"--resume_path auto: {runs[0]} was made with other settings: {', '.join(differing[runs[0]])}; "
            "give another --project_name for another run"
        )
    return options, None


def _named(given: dict[str, str], wanted: str) -> tuple[Options, Found]:
    path = _one(wanted)
    if path.is_dir():
        if not (path / PARAMS).is_file():
            raise ValueError(f"{path} is no run's directory: it has no {PARAMS}")
        stored = read_settings(path / PARAMS)
        options = _unchanged(given, stored, path)
        return options, _open(path, options, stored)
    saved = _state(path)
    run = path.parent.parent
    inside = (run / PARAMS).is_file()
    stored = read_settings(run / PARAMS) if inside else from_plain(saved["options"])
    options = _unchanged(given, stored, path)
    report = _report(run, options, stored) if inside else None
    return options, Found(run if inside else None, path, saved, report)


def _one(pattern: str) -> Path:
    if Path(pattern).exists():
        return Path(pattern)
    found = sorted(glob.glob(pattern))
    if len(found) != 1:
        raise ValueError(
            f"{pattern} matches {len(found)} files or directories, not one{': ' if found else ''}" + ", ".join(found)
        )
    return Path(found[0])


def _unchanged(given: dict[str, str], stored: dict[str, str], path: Path) -> Options:
    options = build(stored | _typed(given))
    differing = differences(options, build(stored))
    if differing:
        raise ValueError(f"{path}: a run cannot go on with other settings: {', '.join(differing)}")
    return options


def _open(run: Path, options: Options, stored: dict[str, str]) -> Found:
    """The run's newest checkpoint that can be read."""
    files = [run / "weights" / f"{name}.pth" for name in (LATEST, PREVIOUS)]
    files = [file for file in files if file.exists()]
    wrong = []
    for file in files:
        try:
            found = Found(run, file, _state(file), _report(run, options, stored))
        except ValueError as error:
            wrong.append(str(error))
            continue
        return replace(found, notices=[f"{text}; going on from {file.name}" for text in wrong])
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}; without these files the run would start over")
    return Found(run)


def _state(file: Path) -> dict[str, Any]:
    saved = checkpoint.read(file)
    if "phase" not in saved:
        raise ValueError(f"{file} holds a network, not the state of a run; see --directly_ft_weights")
    if "record" not in saved:
        raise ValueError(f"{file} is of an older version of this program and cannot be gone on with")
    if saved["phase"] == "prune" and not saved["pruner"]:
        raise ValueError(
            f"{file} is from before the first step; give it to --base_model_path to start from its weights"
        )
    return saved


def _typed(given: dict[str, str]) -> dict[str, str]:
    """What was asked for; ``auto`` leaves it to the run as it began."""
    return {name: value for name, value in given.items() if value != "auto" or name not in DECIDED}


def _report(run: Path, options: Options, stored: dict[str, str]) -> dict[str, Any] | None:
    """The report of a run that has nothing left to do; epochs may have been added."""
    if not (run / REPORT).is_file() or options.epochs > int(stored["epochs"]):
        return None
    report = json.loads((run / REPORT).read_text())
    if options.data_path != stored["data_path"]:  # they may have moved; other images are another run
        with about("data_path"):
            name = describe(options.dataset, options.data_path).name
        if name != report["data_name"]:
            raise ValueError(f"{run} has finished on {report['data_name']}, not on {name}")
    return report
