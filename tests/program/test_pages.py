"""The pages: every command on them is run, with tiny counts; links, flags and lengths are checked."""

import contextlib
import glob
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from helpers import ROOT, run_program, write_image_folder, write_npz_set

import pruner
from scripts.make_flags_page import PAGE, flags_page
from scripts.sweep import build_parser as sweep_parser
from utils.config.cli import parse

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TINY = {
    "--epochs": "1", "--batch_size": "4", "--batch_size_prune": "4", "--prune_steps": "12", "--plot_interval": "4",
    "--lr_ft": "0:0.001",
}  # fmt: skip

# Commands that no test of this file runs, each with the reason.
NOT_RUN = {
    r"make (demo|test|test-slow|check|lint)\b": "they call the tests or take minutes; CI runs make test",
    r"bash scripts/demo\.sh": "test_scripts runs it",
    r"python scripts/(sweep|results|benchmark|checks/kill_test)\.py": "tests/scripts runs them",
    r"(pip|pre-commit) install|source ": "they change the environment",
    r"\.venv/bin/(ruff|python -m pytest)": "CI runs them",
}


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.M | re.S)


def commands(page: Path) -> list[str]:
    """Return the commands of the bash blocks, one line each, without comments."""
    text = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    lines = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    return [line for line in lines if line and not any(re.match(pattern, line) for pattern in NOT_RUN)]


def run(line: str, cwd: Path) -> None:
    """Run one command of a page in `cwd`; ``main.py`` and scripts in this process, with tiny counts."""
    line = re.sub(r"^sbatch .*?train\.sbatch ", "python main.py ", line)
    words = shlex.split(re.sub(r"^(CUDA_VISIBLE_DEVICES=\S+ python|torchrun .*?(?=main\.py))", "python ", line))
    if words[0] == "bash":
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(["bash", ROOT / words[1], *words[2:]], check=True, env=os.environ | {"PATH": path})
        return
    assert words[0] == "python", f"no test runs this command: {line}"
    words = [TINY.get(before, word) for before, word in pairwise(words[1:])]
    words = [match for word in words for match in (sorted(glob.glob(word, root_dir=cwd)) or [word])]
    if line.split("main.py")[0] == line:
        run_script(line.split()[1], words, cwd)
    elif "/data" in words:  # as of a cluster: no such images here
        parse(words)
    else:
        ran = run_program(cwd, "--workers", "0", *words)
        assert ran.code == 0, (line, ran.err)


def run_script(script: str, words: list[str], cwd: Path) -> None:
    with contextlib.chdir(cwd), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / script), run_name="__main__")
    assert ended.value.code == 0, (script, words)


@pytest.fixture
def home(tmp_path):
    """A directory with what the pages take for granted."""
    write_image_folder(tmp_path / "my_images", train=4)
    write_npz_set(tmp_path / "my_arrays", train=16, test=8, size=16, channels=3, classes=4)
    settings = {"dataset": "digits", "arch": "resnet20", "method": "L1", "stage_pr": [0, 0.5, 0.5, 0.5, 0]}
    (tmp_path / "my_settings.yaml").write_text(yaml.safe_dump(settings | {"allow_untrained": True}))
    return tmp_path


@pytest.mark.parametrize(
    "page", [page for page in PAGES if commands(page) or blocks(page, "python")], ids=lambda page: page.name
)
def test_every_command_of_a_page_runs(page, home):
    for line in commands(page):
        run(line, home)
    for made in home.glob("Experiments/my_pruned*/weights/pruned_model.pth"):
        shutil.copy(made, home)
    for block in blocks(page, "python"):
        with contextlib.chdir(home), pytest.MonkeyPatch.context() as patch:
            patch.setitem(sys.modules, "growing_regularization", pruner)  # as it is called when it is installed
            exec(compile(block, page.name, "exec"), {})


@pytest.mark.parametrize("page", [*PAGES, ROOT / "RESULTS.md", ROOT / "BENCHMARKS.md"], ids=lambda page: page.name)
def test_links_pictures_and_paths_of_a_page_exist(page):
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    for link in links:
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)", target.read_text(), re.M)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], link
    for path in re.findall(r"`((?:main|model|data|pruner|utils|scripts|tests|docs)/[\w/.]+)`", text):
        assert (ROOT / path).exists(), path


def test_flags_named_on_a_page_exist():
    known = set(re.findall(r"--[\w-]+", flags_page())) | set(sweep_parser()._option_string_actions)
    for page in PAGES:
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
        named = set(re.findall(r"`(--[\w-]+)", prose))
        assert named <= known | {"--no-channels_last", "--mean", "--latency"}, page


def test_the_page_of_flags_is_up_to_date():
    assert PAGE.read_text() == flags_page(), "run python scripts/make_flags_page.py"


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
