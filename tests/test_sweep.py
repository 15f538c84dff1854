"""The grid, its runner and the page made of its reports."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from scripts import results
from scripts.sweep import Cell, cells_of
from utils.options import parse

ROOT = Path(__file__).resolve().parent.parent
GRID = {
    "values": {"net": "lenet5"},
    "experiments": {
        "one": {
            "flags": "--dataset digits --arch {net} --method none --epochs 1 --seed {seed}",
            "axes": {"seed": [0, 1], "size": {"small": "--batch_size 64", "large": "--batch_size 512"}},
        }
    },
}


def sweep(cwd, grid, *words, **more):
    cwd.mkdir(exist_ok=True)
    (cwd / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    command = [sys.executable, ROOT / "scripts" / "sweep.py", "grid.yaml", "--results", "results", *words]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False, **more)


def test_the_first_axis_is_the_outermost_and_names_add_flags():
    cells = cells_of(GRID)
    assert [cell.axes for cell in cells] == [
        {"seed": "0", "size": "small"}, {"seed": "0", "size": "large"},
        {"seed": "1", "size": "small"}, {"seed": "1", "size": "large"},
    ]  # fmt: skip
    assert shlex.join(cells[3].flags).endswith("--arch lenet5 --method none --epochs 1 --seed 1 --batch_size 512")
    assert cells[0].name == "one/seed=0,size=small"


def test_values_may_name_values_and_given_ones_win():
    grid = {"values": {"a": "{b} {b}", "b": "x"}, "experiments": {"e": {"flags": "--note '{a}'"}}}
    assert cells_of(grid)[0].flags == ["--note", "x x"]
    assert cells_of(grid, {"b": "y"})[0].flags == ["--note", "y y"]
    assert cells_of(grid)[0].name == "e/run"


def test_a_name_that_nothing_stands_for_is_said():
    with pytest.raises(ValueError, match=r"e: nothing stands for 'ratio'"):
        cells_of({"experiments": {"e": {"flags": "{ratio}"}}})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "two"], "no run has this in its name"),
        (["--set", "net"], "NAME=VALUE"),
        (["--jobs", "0"], "1 or more"),
    ],
)
def test_a_wrong_command_is_one_line_and_runs_nothing(words, said, tmp_path):
    ran = sweep(tmp_path / "run", GRID, *words)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr.splitlines()[-1]
    assert [file.name for file in (tmp_path / "run").iterdir()] == ["grid.yaml"]


def test_runs_are_made_two_at_a_time_then_skipped_and_failures_named(tmp_path):
    grid = json.loads(json.dumps(GRID))
    grid["experiments"]["one"]["axes"]["size"]["wrong"] = "--batch_size nothing"
    first = sweep(tmp_path, grid, "--jobs", "2")
    assert first.returncode == 1, first.stderr
    assert "6 runs, 0 done before, 2 at a time" in first.stdout
    assert "[6/6]" in first.stdout
    assert first.stderr.count("failed: one/seed=") == 2
    assert "--batch_size" in first.stderr
    reports = sorted((tmp_path / "results" / "one").iterdir())
    assert [file.stem for file in reports] == [f"seed={s},size={n}" for s in (0, 1) for n in ("large", "small")]
    report = json.loads(reports[0].read_text())
    assert (report["seed"], report["iterations"]["finetune"]) == (0, 3)  # batches of 512 of 1,437 images
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")}
    again = sweep(tmp_path, GRID)
    assert (again.returncode, again.stdout) == (0, "4 runs, 4 done before, 1 at a time\n")
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.json")} == written


def test_a_sweep_that_is_stopped_stops_its_run_and_goes_on_with_it(tmp_path):
    grid = {"experiments": {"e": {"flags": "--dataset digits --arch lenet5 --method none --epochs 400 --seed 0"}}}
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    command = [sys.executable, ROOT / "scripts" / "sweep.py", "grid.yaml", "--results", "results"]
    running = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until = time.monotonic() + 60
    while not list(tmp_path.glob("Experiments/*/weights/checkpoint.pth")) and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(running.pid, signal.SIGTERM)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 143
    assert "exit code 143" in out
    assert not list(tmp_path.glob("results/**/*.json"))
    again = subprocess.run([*command, "--list"], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert again.stdout.startswith("to do")


def test_each_run_of_the_evidence_is_a_command_that_parses():
    for cell in cells_of(yaml.safe_load(results.GRID.read_text())):
        if cell.program == "main.py":
            options, _ = parse([*cell.flags, "--project_name", cell.project])
            assert options.method != "none" or cell.experiment == "base"


def test_the_page_follows_from_the_reports(tmp_path):
    """What is committed is what the script writes."""
    for file in results.RESULTS.rglob("*.json"):
        target = tmp_path / file.relative_to(results.RESULTS)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    results.write(tmp_path, tmp_path / "RESULTS.md")
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "RESULTS.md").read_text()
    for table in tmp_path.glob("*.csv"):
        assert table.read_text() == (results.RESULTS / table.name).read_text(), table.name


def test_seeds_become_mean_and_deviation_and_what_is_missing_is_a_dash():
    def report(best):
        return {"method": "L1", "acc1_best": best, "acc1_last": None}

    table = results.Table(("e",), results.TUNED)
    runs = [({"seed": str(seed), "ratio": "0.5"}, report(best)) for seed, best in enumerate((80.0, 82.0))]
    rows = results.rows_of(table, {"e": [*runs, ({"seed": "0", "ratio": "0.9"}, report(70.0))]})
    assert rows == [
        ["ratio", "seeds", "best epoch (on test)"],
        ["0.5", "2", "81.00 ± 1.41"],
        ["0.9", "1", "70.00"],
    ]


def test_a_cell_names_its_report_and_its_run_after_its_axes(tmp_path):
    cell = Cell("schedule", {"ratio": "0.5", "method": "L1"}, "main.py", [])
    assert cell.report(tmp_path) == tmp_path / "schedule" / "ratio=0.5,method=L1.json"
    assert cell.project == "schedule,ratio=0.5,method=L1"
