"""Each script answers --help, and a flag that it does not know, and does nothing else."""

import subprocess
import sys

import pytest
from helpers import ROOT

PROGRAMS = sorted(
    file for file in (ROOT / "scripts").rglob("*.py") if '\nif __name__ == "__main__":' in file.read_text()
)


def state():
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    return changed.stdout


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda file: str(file.relative_to(ROOT / "scripts")))
def test_help_is_all_that_a_script_does_when_asked_for_it(program, tmp_path):
    before = state()
    ran = subprocess.run([sys.executable, program, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("usage: ")
    wrong = subprocess.run([sys.executable, program, "--no_such_flag"], cwd=tmp_path, capture_output=True, timeout=120)
    assert wrong.returncode == 2
    assert b"Traceback" not in wrong.stderr
    assert [*tmp_path.iterdir()] == []
    assert state() == before


@pytest.mark.parametrize("program", ["imagenette.sh", "cifar10_jpeg.sh"])
def test_a_shell_script_prints_its_head_instead_of_taking_a_flag_for_a_folder(program, tmp_path):
    ran = subprocess.run(["bash", ROOT / "scripts" / program, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 2
    assert f"scripts/{program} IMAGES" in ran.stderr
