"""Paths of the files of a run."""

from pathlib import Path

from utils.config.options import Options

LATEST, PREVIOUS = "checkpoint", "checkpoint_previous"
PARAMS, REPORT = Path("log", "params.yaml"), Path("log", "report.json")
REPORT_BEFORE = Path("log", "report_before.json")  # of a finished run that epochs were added to


def folder_of_runs(options: Options) -> Path:
    return Path("Debug_Dir" if options.debug else "Experiments")


def project_of(options: Options) -> str:
    arch = options.arch.replace("/", "-").replace("\\", "-").replace(":", "-")  # in timm/NAME and FILE.py:FUNCTION
    return options.project_name or "__".join((options.method, arch, options.dataset))
