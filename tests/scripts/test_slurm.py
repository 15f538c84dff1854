"""Grids on SLURM, with stand-ins for its commands; scripts/checks/slurm.sh runs the real ones."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from helpers import ROOT

from scripts.evidence import slurm
from scripts.evidence.grid import expand_grid
from scripts.evidence.grid_file import parse_grid
from scripts.sweep import main

DIGITS = "--dataset digits --arch lenet5 --device cpu"
BASE = "Experiments/base,seed={seed}_SERVER*/weights/checkpoint.pth"
GRID = {
    "experiments": {
        "base": {"flags": f"{DIGITS} --method none --epochs 1 --seed {{seed}}", "axes": {"seed": [0, 1]}},
        "cut": {
            "flags": f"{DIGITS} --method L1 --base_model_path {BASE}",
            "axes": {"seed": [0, 1]},
        },
        "apart": {"flags": f"{DIGITS} --method none --epochs 1 --seed 9"},
    }
}
COMMAND = """#!/bin/bash
printf '%s\\n' "$(printf '%q ' "$@")" >> $LOG
{answer}
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Stand-ins for sbatch and squeue beside the batch scripts; return a function that gives the calls of sbatch."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "scripts" / "slurm", tmp_path / "scripts" / "slurm")
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID, sort_keys=False))
    (tmp_path / "bin").mkdir()
    answers = {"sbatch": f"echo $((100 + $(wc -l < {tmp_path}/sbatch.txt)))", "squeue": f"cat {tmp_path}/queue.txt"}
    for name, answer in answers.items():
        text = COMMAND.replace("$LOG", str(tmp_path / f"{name}.txt")).replace("{answer}", answer)
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "queue.txt").touch()
    slurm.log_file(tmp_path / "grid.yaml", 0).parent.mkdir(parents=True)  # something was submitted before
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    def calls() -> list[str]:
        log = tmp_path / "sbatch.txt"
        return log.read_text().splitlines() if log.exists() else []

    return calls


def test_runs_are_an_array_and_those_that_need_them_a_later_one(cluster, tmp_path, capsys):
    assert main(["grid.yaml", "--results", "results", "--jobs", "2", "--slurm", "--time=1:00", "--gpus=1"]) == 0
    first, second = cluster()
    assert "--array=0\\,1\\,4%2" in first
    assert "--dependency" not in first
    assert "--array=2\\,3%2" in second
    assert "--dependency=afterany:101" in second
    for call in (first, second):
        assert "--job-name=sweep-grid-" in call
        assert (
            f"--time=1:00 --gpus=1 scripts/slurm/cell.sbatch {tmp_path}/grid.yaml --results={tmp_path}/results" in call
        )
    assert "5 runs submitted, 0 already queued or running" in capsys.readouterr().out


def test_what_is_queued_or_running_is_not_submitted_again(cluster, tmp_path, capsys):
    (tmp_path / "queue.txt").write_text("0 RUNNING 71\n1 PENDING 71\n2 PENDING 72\n3 PENDING 72\n")
    assert main(["grid.yaml", "--results", "results", "--slurm"]) == 0
    (only,) = cluster()
    assert "--array=4 " in only
    assert "1 runs submitted, 4 already queued or running" in capsys.readouterr().out


def test_runs_wait_for_those_that_an_earlier_submission_queued(cluster, tmp_path):
    """Whether these are selected again or not."""
    for words in ((), ("--only", "cut")):
        (tmp_path / "queue.txt").write_text("0 RUNNING 71\n1 PENDING 72\n4 PENDING 73\n")
        (tmp_path / "sbatch.txt").unlink(missing_ok=True)
        assert main(["grid.yaml", "--results", "results", *words, "--slurm"]) == 0
        (only,) = cluster()
        assert "--array=2\\,3 --dependency=afterany:71:72 " in only


def test_a_grid_of_the_same_name_in_another_folder_is_another_grid(cluster, tmp_path, capsys):
    (tmp_path / "queue.txt").write_text("0 RUNNING 71\n1 PENDING 71\n2 PENDING 72\n3 PENDING 72\n")
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "grid.yaml", tmp_path / "other")
    assert main(["other/grid.yaml", "--results", "results", "--slurm"]) == 0
    assert "5 runs submitted, 0 already queued or running" in capsys.readouterr().out
    assert len({call.partition("--job-name=")[2].split()[0] for call in cluster()}) == 1
    assert slurm.job_name(Path("other/grid.yaml")) != slurm.job_name(Path("grid.yaml"))


def test_the_list_shows_the_state_of_each_run(cluster, tmp_path, capsys):
    (tmp_path / "queue.txt").write_text("1 RUNNING 71\n2 PENDING 72\n")
    log = tmp_path / slurm.log_file(tmp_path / "grid.yaml", 3)
    log.write_text("start\nfailed: main.py: error: the disk is full\n")
    cells = expand_grid(parse_grid(GRID))
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "base.json").write_text(json.dumps({"seed=0": {"recipe": cells[0].recipe}}))
    assert main(["grid.yaml", "--results", "results", "--list"]) == 0
    out = capsys.readouterr().out
    states = [line[6:13].strip() for line in out.splitlines() if line[:4].strip().isdigit()]
    assert states == ["done", "running", "queued", "failed", "to do"]
    assert "failed: main.py: error: the disk is full" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--cell", "5"), "0 to 4"), (("--cell", "-1"), "0 to 4"), (("--cell", "0", "--only", "base"), "alone"),
        (("--cell", "0", "--slurm"), "alone"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_refused(cluster, capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(["grid.yaml", "--results", "results", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, message in line) == (2, True), line


@pytest.mark.parametrize("where", ["no SLURM", "no batch script", "SLURM refuses"])
def test_what_prevents_a_submission_is_one_line(cluster, tmp_path, monkeypatch, capsys, where):
    if where == "no SLURM":
        monkeypatch.setenv("PATH", "/nowhere")
    elif where == "no batch script":
        shutil.rmtree(tmp_path / "scripts")
    else:
        (tmp_path / "bin" / "sbatch").write_text("#!/bin/bash\necho 'sbatch: error: invalid partition' >&2; exit 1\n")
    with pytest.raises(SystemExit) as ended:
        main(["grid.yaml", "--results", "results", "--slurm"])
    (line,) = capsys.readouterr().err.splitlines()
    expected = {
        "no SLURM": "not on the PATH",
        "no batch script": "from the repository",
        "SLURM refuses": "invalid partition",
    }
    assert (ended.value.code, expected[where] in line) == (2, True), line


def test_one_run_of_a_grid_is_made_by_its_number(cluster, tmp_path, capsys):
    assert main(["grid.yaml", "--results", "results", "--cell", "4"]) == 0
    assert list(json.loads((tmp_path / "results" / "apart.json").read_text())) == ["run"]
    assert main(["grid.yaml", "--results", "results", "--cell", "4"]) == 0
    assert "1 already done" in capsys.readouterr().out
    assert main(["grid.yaml", "--results", "results", "--cell", "2"]) == 1  # its base was not made


SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
largest=0
for ((i = 0; i < SLURM_NTASKS; i++)); do
    SLURM_PROCID=$i SLURM_LOCALID=$i "$@" &
done
for job in $(jobs -p); do
    wait "$job"
    code=$?
    ((code > largest)) && largest=$code
done
exit "$largest"
"""


@pytest.mark.parametrize(
    ("codes", "code", "requeued"),
    [
        ("0 0", 0, False), ("2 2", 2, False), ("2 143", 2, False), ("143 1 75", 1, False), ("137 143", 137, False),
        ("143 143", 143, True), ("75 143", 143, True), ("0 75", 75, True),
    ],
)  # fmt: skip
def test_an_error_of_one_process_ends_the_job_whatever_becomes_of_the_others(codes, code, requeued, tmp_path):
    shutil.copytree(ROOT / "scripts" / "slurm", tmp_path / "scripts" / "slurm")
    (tmp_path / "bin").mkdir()
    python = f"""#!/bin/bash
[[ "$*" == "main.py a b --resume_path auto" ]] || exit 99
codes=({codes})
exit ${{codes[$RANK]}}
"""
    scontrol = f'#!/bin/bash\n[[ $1 == show ]] && echo localhost || echo "$@" > {tmp_path}/called\n'
    for name, text in (("srun", SRUN), ("python", python), ("scontrol", scontrol), ("sleep", "#!/bin/bash\n")):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    more = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_NTASKS": str(len(codes.split()))}
    ran = subprocess.run(
        ["bash", "scripts/slurm/train.sbatch", "a", "b"], cwd=tmp_path, check=False,
        env=os.environ | more | {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "localhost"},
    )  # fmt: skip
    assert (ran.returncode, (tmp_path / "called").exists()) == (code, requeued)
    assert not list(tmp_path.glob(".final*"))


@pytest.mark.parametrize(
    ("code", "cancelled", "requeued"),
    [
        (0, "", False),
        (2, "", False),
        (1, "", False),
        (137, "", False),
        (143, "", True),
        (75, "", True),
        (143, "yes", False),
    ],
)
def test_a_job_is_queued_again_where_its_run_was_stopped(tmp_path, code, cancelled, requeued):
    (tmp_path / "scontrol").write_text(f'#!/bin/bash\necho "$@" > {tmp_path}/called\n')
    (tmp_path / "scontrol").chmod(0o755)
    (tmp_path / "sleep").write_text("#!/bin/bash\n")
    (tmp_path / "sleep").chmod(0o755)
    text = f"source {ROOT}/scripts/slurm/requeue.sh; cancelled={cancelled}; SLURM_JOB_ID=7; end_with {code}"
    ran = subprocess.run(
        ["bash", "-c", text], env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}, check=False
    )
    assert ran.returncode == code
    assert (tmp_path / "called").exists() == requeued
    if requeued:
        assert (tmp_path / "called").read_text() == "requeue 7\n"
