"""The checks on two hosts and on a SLURM cluster, where this machine can make them."""

import os
import shutil
import subprocess

import pytest
from helpers import ROOT

PROGRAMS = {"two_hosts.sh": ("ip",), "slurm.sh": ("slurmctld", "slurmd", "munged", "sbatch")}


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("check", PROGRAMS)
def test_a_check_finds_no_fault(check):
    lacking = [program for program in PROGRAMS[check] if not shutil.which(program)]
    if os.getuid() or lacking:
        pytest.skip(f"{check} needs root and {', '.join(lacking) or 'no more'}")
    ran = subprocess.run(["bash", ROOT / "scripts" / "checks" / check], text=True, capture_output=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]


@pytest.mark.skipif(os.getuid() != 0, reason="without root they end earlier")
@pytest.mark.parametrize(("check", "package"), [("two_hosts.sh", "iproute2"), ("slurm.sh", "slurmctld")])
def test_a_check_says_what_it_lacks(check, package, tmp_path):
    for name in ("bash", "dirname", "id"):
        (tmp_path / name).symlink_to(shutil.which(name))
    ran = subprocess.run(
        ["bash", ROOT / "scripts" / "checks" / check],
        env={"PATH": str(tmp_path)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert ran.returncode == 2
    (line,) = ran.stderr.splitlines()
    assert f"apt-get install {package}" in line
