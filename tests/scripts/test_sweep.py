"""Grids of experiments, their launcher, the files of reports and the page made from them."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from pruner import PRUNERS
from scripts import results
from scripts.evidence import runs, tables
from scripts.evidence.grid import Cell, expand_grid
from scripts.evidence.grid_file import parse_grid, read_grid
from scripts.evidence.launcher import Job, Launcher, collect, make_slots
from scripts.evidence.reports import add_report, finished_runs, read_experiment
from scripts.sweep import main
from utils.config.cli import parse

ROOT = Path(__file__).resolve().parents[2]
GRID = {
    "values": {"net": "lenet5"},
    "experiments": {
        "one": {
            "flags": "--dataset digits --arch {net} --method none --epochs 1 --seed {seed}",
            "keep": "log/model_arch.txt",
            "axes": {"seed": [0, 1], "size": {"small": "--batch_size 64", "large": "--batch_size 512"}},
        }
    },
}
EVIDENCE = expand_grid(read_grid(results.GRID))
REPORTS = finished_runs(EVIDENCE, results.RESULTS)


def sweep(cwd, grid, *words, **more):
    cwd.mkdir(exist_ok=True)
    (cwd / "grid.yaml").write_text(yaml.safe_dump(grid, sort_keys=False))
    command = [sys.executable, ROOT / "scripts" / "sweep.py", "grid.yaml", "--results", "results", *words]
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, check=False, **more)


def test_the_first_axis_is_the_outermost_and_names_add_flags():
    cells = expand_grid(parse_grid(GRID))
    assert [cell.axes for cell in cells] == [
        {"seed": "0", "size": "small"}, {"seed": "0", "size": "large"},
        {"seed": "1", "size": "small"}, {"seed": "1", "size": "large"},
    ]  # fmt: skip
    assert cells[3].recipe.endswith("--arch lenet5 --method none --epochs 1 --seed 1 --batch_size 512")
    assert cells[0].name == "one/seed=0,size=small"


def test_values_nest_an_experiment_overrides_them_and_paths_do_not_change_the_recipe():
    content = {
        "places": {"here": "as/it/came"},
        "values": {"a": "{b} {here}", "b": "x"},
        "experiments": {"e": {"flags": "--note '{a}'"}, "f": {"flags": "--note '{a}'", "values": {"b": "y"}}},
    }
    grid = parse_grid(content)
    e, f = expand_grid(grid, {"here": "/mine"})
    assert (e.flags, f.flags) == (["--note", "x /mine"], ["--note", "y /mine"])
    assert (e.recipe, e.name) == ("main.py --note 'x as/it/came'", "e/run")
    assert e.recipe == expand_grid(grid)[0].recipe


@pytest.mark.parametrize(
    ("grid", "words", "message"),
    [
        (GRID, ["--only", "two"], "no run has this name; experiments are one"),
        (GRID, ["--only", "one/seed=0"], "no run has this name; experiments are one"),
        (GRID, ["--set", "net"], "PLACE=PATH"),
        (GRID, ["--set", "net=resnet20"], "no place net"),
        (GRID, ["--jobs", "0"], "1 or more"),
        ({"experiments": {"e": {"flags": "{ratio}"}}}, [], "e: undefined name 'ratio'"),
        ({"values": {"a": "{b}", "b": "{a}"}, "experiments": {"e": {"flags": "{a}"}}}, [], "refers to itself"),
        ({"experiments": {"e": {}}}, [], "each with flags"),
        ({"experiments": {"e": {"flags": "", "axes": [1]}}}, [], "the axes have no names"),
        ({"places": {"results": "here"}, "experiments": {"e": {"flags": ""}}}, [], "place results another name"),
        ([], [], "grid.yaml: not a grid"),
        (
            {"experiments": {"e": {"flags": "--dataset digits --arch lenet5 --epoks 1"}}},
            [],
            "e/run: unrecognized",
        ),
        ({"experiments": {"e": {"flags": "--dataset digits --arch lenet5 --wd x"}}}, [], "e/run: --wd: 'x'"),
    ],
)
def test_a_wrong_command_is_one_line_and_runs_nothing(grid, words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(grid))
    with pytest.raises(SystemExit) as ended:
        main(["grid.yaml", "--results", "results", *words])
    (line,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, message in line) == (2, True), line
    assert [file.name for file in tmp_path.iterdir()] == ["grid.yaml"]


def test_only_selects_an_experiment_by_name_or_runs_by_pattern(tmp_path, capsys):
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    for only, n in (("one", 4), ("one/seed=0,*", 2), ("*size=large", 2)):
        assert main([str(tmp_path / "grid.yaml"), "--results", str(tmp_path), "--list", "--only", only]) == 0
        assert capsys.readouterr().out.count("to do") == n


@pytest.mark.slow
def test_runs_are_made_two_at_a_time_then_skipped_and_failures_named(tmp_path):
    grid = json.loads(json.dumps(GRID))
    grid["experiments"]["one"]["axes"]["size"]["wrong"] = "--base_model_path nothing.pth"
    first = sweep(tmp_path, grid, "--jobs", "2")
    assert first.returncode == 1, first.stderr
    assert "6 runs, 0 already done, 2 at a time" in first.stdout
    assert "[6/6]" in first.stdout
    assert first.stderr.count("failed: one/seed=") == 2
    assert "--base_model_path" in first.stderr
    file = tmp_path / "results" / "one.json"
    reports = json.loads(file.read_text())
    assert list(reports) == [f"seed={seed},size={size}" for seed in (0, 1) for size in ("large", "small")]
    report = reports["seed=0,size=large"]
    assert (report["seed"], report["iterations"]["finetune"]) == (0, 3)  # batches of 512 of 1,437 images
    assert "LeNet" in (tmp_path / "results" / "one" / "seed=0,size=large" / "model_arch.txt").read_text()
    written = file.stat().st_mtime_ns
    again = sweep(tmp_path, GRID)
    assert (again.returncode, again.stdout) == (0, "4 runs, 4 already done, 1 at a time\n")
    assert file.stat().st_mtime_ns == written
    grid["experiments"]["one"]["flags"] += " --wd 0.1"
    changed = sweep(tmp_path, grid)
    assert (changed.returncode, changed.stdout) == (2, "")
    assert "made with other flags" in changed.stderr
    assert "to redo the run, remove its entry" in changed.stderr


def test_a_run_without_a_report_has_failed_and_the_others_are_made(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    cells = [Cell("e", {"at": f"[{i}]"}, "main.py", [], "") for i in range(2)]
    monkeypatch.setattr(Launcher, "_start", start_empty_process)
    assert Launcher(tmp_path, [{}]).run(cells) == 1
    assert capsys.readouterr().err.count("the run wrote no report") == 2


@pytest.mark.parametrize("folder", ["results", "../my [results]"])
def test_a_run_that_names_kept_files_waits_for_their_run_wherever_the_results_are(
    folder, tmp_path, monkeypatch, capsys
):
    flags = "--directly_ft_weights '{results}/cut/seed={seed}/a.pth' --base_pr_model={results}/cut/seed=1/a.pth"
    seeds = {"seed": [0, 1]}
    content = {"experiments": {"cut": {"flags": "", "axes": seeds}, "tune": {"flags": flags, "axes": seeds}}}
    cut, _, tune, _ = cells = expand_grid(parse_grid(content), results=folder)
    assert (cut.needs, [name for name, _ in tune.needs]) == ((), ["cut/seed=0", "cut/seed=1"])
    assert tune.flags[1] == f"{folder}/cut/seed=0/a.pth"
    assert tune.recipe == expand_grid(parse_grid(content))[2].recipe  # reports name the folder alike
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(Launcher, "_start", start_empty_process)
    for seed in (0, 1):
        Launcher(Path(folder), [{}]).run(cells[2:])
        skipped = capsys.readouterr().err
        assert "skipped: tune/seed=0 needs cut/seed=" in skipped
        assert f"make it first, with --only cut/seed={seed}" in skipped
        (Path(folder) / "cut" / f"seed={seed}").mkdir(parents=True)
        (Path(folder) / "cut" / f"seed={seed}" / "a.pth").touch()
    Launcher(Path(folder), [{}]).run(cells[2:])
    assert "skipped:" not in capsys.readouterr().err


def test_a_run_does_not_start_from_a_base_that_has_not_finished(tmp_path, monkeypatch, capsys):
    flags = "--base_model_path 'Experiments/base,run_SERVER*/weights/checkpoint_best.pth'"
    content = {"experiments": {"base": {"flags": ""}, "cut": {"flags": flags}}}
    cells = expand_grid(parse_grid(content))
    run_dir = tmp_path / "Experiments" / "base,run_SERVER-20260101-000000"
    for name in ("weights", "log"):
        (run_dir / name).mkdir(parents=True)
    (run_dir / "weights" / "checkpoint_best.pth").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Launcher, "_start", start_empty_process)
    assert Launcher(tmp_path, [{}]).run(cells[1:]) == 1
    assert "skipped: cut/run needs base/run, which has not finished" in capsys.readouterr().err
    (run_dir / "log" / "report.json").touch()
    Launcher(tmp_path, [{}]).run(cells[1:])
    assert "skipped:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("base", "recorded"),
    [("/elsewhere/a.pth", "a.pth"), ("../mine/a.pth", "a.pth"), ("results/cut/a.pth", "results/cut/a.pth")],
)
def test_a_report_does_not_show_where_a_machine_has_its_files(base, recorded, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = Cell("e", {}, "main.py", [], "")
    log = tmp_path / "Experiments" / f"{cell.project}_SERVER-1" / "log"
    log.mkdir(parents=True)
    (log / "report.json").write_text(json.dumps(REPORTS["full/seed=0,epochs=120,method=L1"] | {"base_model": base}))
    assert collect(cell, tmp_path)["base_model"] == recorded


def start_empty_process(self, cell):
    """Start a process that ends at once with exit code 0, in place of a run."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    self.jobs.append(Job(cell, self.free_slots.pop(0), process, open(os.devnull), time.monotonic()))  # noqa: SIM115


def test_reports_are_sorted_by_run_and_the_order_of_adding_leaves_no_trace(tmp_path):
    cells = [Cell("e", {"seed": str(seed)}, "main.py", [], f"main.py --seed {seed}") for seed in (2, 0, 1)]
    for name, ordered in (("one", cells), ("other", cells[::-1])):
        (tmp_path / name).mkdir()
        for cell in ordered:
            add_report(cell, {"recipe": cell.recipe, "acc1_best": 0.5}, tmp_path / name)
    assert list(json.loads((tmp_path / "one" / "e.json").read_text())) == ["seed=0", "seed=1", "seed=2"]
    assert (tmp_path / "one" / "e.json").read_bytes() == (tmp_path / "other" / "e.json").read_bytes()
    assert list(finished_runs(cells, tmp_path / "one")) == ["e/seed=2", "e/seed=0", "e/seed=1"]


ADD_MANY = """
import sys
from pathlib import Path
from scripts.evidence.grid import Cell
from scripts.evidence.reports import add_report
for i in range(40):
    cell = Cell("e", {"seed": f"{sys.argv[1]}{i}"}, "main.py", [], "")
    add_report(cell, {"recipe": ""}, Path(sys.argv[2]))
"""


def test_two_sweeps_at_once_lose_no_report(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", ADD_MANY, name, str(tmp_path)], cwd=ROOT) for name in ("a", "b")]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    assert len(json.loads((tmp_path / "e.json").read_text())) == 80


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("one/seed=0,size=small.json", "{}", "has a file per run, the layout of an older version: move it away"),
        ("one.json", "{", "cannot be read"),
        ("one.json", "[]", "is not an object of run -> report"),
        ("one.json", '{"seed=0,size=small": {"recipe": "main.py"}}', "to redo the run, remove its entry"),
    ],
)
def test_results_that_cannot_be_used_are_refused_in_one_line(file, content, message, tmp_path, capsys):
    (tmp_path / "results" / "one").mkdir(parents=True)
    (tmp_path / "results" / file).write_text(content)
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(GRID))
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "grid.yaml"), "--results", str(tmp_path / "results")])
    (line,) = capsys.readouterr().err.splitlines()
    assert (ended.value.code, message in line) == (2, True), line


def test_a_stopped_sweep_stops_its_run_and_resumes_it(tmp_path):
    flags = "--dataset digits --arch lenet5 --method none --epochs 20 --batch_size 128 --seed 0"
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump({"experiments": {"e": {"flags": flags}}}))
    command = [sys.executable, ROOT / "scripts" / "sweep.py", "grid.yaml", "--results", "results"]
    running = subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        until = time.monotonic() + 60
        while not list(tmp_path.glob("Experiments/*/weights/checkpoint.pth")) and time.monotonic() < until:
            time.sleep(0.1)
        running.send_signal(signal.SIGTERM)
        out, _ = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 143
    assert "exit code 143" in out
    assert not list(tmp_path.glob("results/**/*.json"))
    listed = subprocess.run([*command, "--list"], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert re.match(" *0  to do ", listed.stdout)
    again = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
    assert again.returncode == 0, again.stderr
    (run_dir,) = (tmp_path / "Experiments").iterdir()
    assert "resumed from" in (run_dir / "log" / "log.txt").read_text()


@pytest.mark.parametrize(
    ("visible", "jobs", "expected"),
    [
        ("2,5", None, [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "5"}]),
        ("2", 2, [{"CUDA_VISIBLE_DEVICES": "2"}] * 2),
        ("", 2, [{"OMP_NUM_THREADS": "3"}] * 2),
        ("", None, [{"OMP_NUM_THREADS": "6"}]),
    ],
)
def test_every_gpu_gets_a_run_or_the_cores_are_shared(visible, jobs, expected, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(6))
    assert make_slots(jobs) == expected


STEPS = {
    "lambda": {391}, "length": {100, 2500}, "length-10000": {10000}, "figure1": {1251}, "full-cut": {110001},
    "full-figure1": {15001},
}  # fmt: skip


@pytest.mark.parametrize("cell", [cell for cell in EVIDENCE if "--method" in cell.flags], ids=lambda cell: cell.name)
def test_each_prune_phase_of_the_evidence_has_the_steps_that_the_page_states(cell):
    flags = ["GReg-1" if flag == "Torch-Pruning" else flag for flag in cell.flags]  # it counts as GReg-1 does
    options, _ = parse([*flags, "--project_name", cell.project])
    schedule = PRUNERS[options.method].make_schedule(options, SimpleNamespace(pruned={"layer": 1}))
    steps = schedule.cut_after_step + 1 if schedule else 0
    assert steps in (STEPS.get(cell.experiment, {626}) if schedule else {0})
    report = read_experiment(results.RESULTS, cell.experiment).get(cell.key)
    if report and cell.experiment != "fixreg-group":  # its gaps end growth early
        assert steps == sum(n for key, n in report["iterations"].items() if key != "finetune")
    if "epochs" in cell.axes:
        assert options.epochs == int(cell.axes["epochs"])
    elif options.epochs and options.method != "none":  # so many steps of fine-tuning; a base is trained by its own
        method = cell.axes.get("method")
        if cell.experiment == "length-10000":  # L1 with the FLOPs of GReg-1
            tuned = {"GReg-1": 626, "L1-longer": 108611}[method]
        else:
            tuned = 1252 if method == "L1-longer" else 626
        assert options.epochs * -(-options.train_images // options.batch_size) == tuned


def test_the_page_follows_from_the_reports(tmp_path):
    """What is committed is what the script writes."""
    for file in results.RESULTS.glob("*.json"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    results.write_page(tmp_path, tmp_path / "RESULTS.md", tmp_path)
    assert (tmp_path / "RESULTS.md").read_text() == (ROOT / "RESULTS.md").read_text()
    names = {table.name for table in results.RESULTS.glob("*.csv")}
    assert names == {table.name for table in tmp_path.glob("*.csv")}
    for name in names:
        assert (tmp_path / name).read_text() == (results.RESULTS / name).read_text(), name
    assert {file.name for file in tmp_path.glob("*.png")} <= {file.name for file in (ROOT / "docs" / "img").iterdir()}


@pytest.mark.parametrize("missing", sorted({cell.experiment for cell in EVIDENCE}))
def test_every_table_can_be_made_without_an_experiment(missing):
    reports = {name: report for name, report in REPORTS.items() if not name.startswith(f"{missing}/")}
    assert all(rows[0] for rows in tables.all_tables(runs.runs_by_experiment(EVIDENCE, reports)).values())


def test_every_report_belongs_to_a_run_of_the_grid():
    names = {f"{file.stem}/{key}" for file in results.RESULTS.glob("*.json") for key in json.loads(file.read_text())}
    assert names == set(REPORTS)


@pytest.mark.parametrize("cell", [cell for cell in EVIDENCE if cell.name in REPORTS], ids=lambda cell: cell.name)
def test_each_report_is_of_the_run_whose_name_it_has(cell):
    report, axes = REPORTS[cell.name], cell.axes
    assert str(report["seed"]) == axes.get("seed", "0")
    if "full-cut" in " ".join(cell.flags):  # starts from a kept cut network
        assert report["base_model"] == f"results/full-cut/method={axes['method']}/checkpoint_just_finished_prune.pth"
    elif "--directly_ft_weights" in cell.flags:  # has no method of its own
        cut_as = [f"{axis}={value}" for axis, value in axes.items() if axis != "lr"]
        assert all(re.search(re.escape(named) + "[,_]", report["base_model"]) for named in cut_as)
    elif "method" in axes:
        assert axes["method"].removesuffix("-longer").removesuffix("-0.68").replace("scratch", "L1") == report["method"]
    if "ratio" in axes and report["stage_pr"]:
        assert report["stage_pr"].startswith(f"[0,{axes['ratio']},")


def test_seeds_become_mean_and_deviation_and_what_is_missing_is_a_dash():
    def report(best, seed):
        return {"method": "L1", "seed": seed, "acc1_best": best, "acc1_last": None}

    table = tables.Table(("e",), tables.FINETUNED)
    runs = [({"seed": str(seed), "ratio": "0.5"}, report(best, seed)) for seed, best in enumerate((80.0, 82.0))]
    rows = tables.make_rows(table, {"e": [*runs, ({"seed": "0", "ratio": "0.9"}, report(70.0, 0))]})
    assert rows == [
        ["ratio", "seeds", "best epoch (on test)"],
        ["0.5", "2", "81.00 ± 1.41"],
        ["0.9", "1", "70.00"],
    ]


def test_an_axis_that_an_experiment_does_not_have_is_shown_as_its_reports_have_it():
    def run(method, penalize, axes=()):
        report = {"method": method, "penalize": penalize, "seed": 0, "acc1_best": 80.0, "acc1_last": None}
        return {"seed": "0"} | dict(axes), report

    runs = {
        "plain": [run("L1", None), run("GReg-1", "filter")],
        "axis": [run("GReg-1", "group", {"penalize": "group"})],
    }
    _, *rows = tables.make_rows(tables.Table(("plain", "axis"), tables.FINETUNED), runs)
    assert {tuple(row[:2]) for row in rows} == {("L1", "–"), ("GReg-1", "filter"), ("GReg-1", "group")}


def test_a_cell_names_its_report_and_its_run_after_its_axes():
    cell = Cell("schedule", {"ratio": "0.5", "method": "L1"}, "main.py", [], "")
    assert (cell.key, cell.name) == ("ratio=0.5,method=L1", "schedule/ratio=0.5,method=L1")
    assert cell.project == "schedule,ratio=0.5,method=L1"


def test_gains_are_taken_seed_by_seed():
    accuracies = {("L1", 0): 80.0, ("L1", 1): 82.0, ("L1-longer", 1): 84.0, ("GReg-1", 1): 85.0}
    runs = [
        ({"ratio": "0.5", "method": method, "seed": str(seed)}, {"seed": seed, "acc1_best": best})
        for (method, seed), best in accuracies.items()
    ]
    assert tables.gain_rows(runs)[1:] == [
        ["0.5", "L1-longer", "1", "+2.00", "–"],
        ["0.5", "GReg-1", "1", "+3.00", "+1.00"],
    ]


def test_learning_rates_are_columns_and_include_that_of_the_schedule():
    def run(rate, best, seed=0):
        axes = {"ratio": "0.9", "method": "L1", "seed": str(seed)}
        return axes | ({"lr": rate} if rate else {}), {"seed": seed, "acc1_best": best}

    reports = {"lr": [run("0.1", 36.0), run("0.001", 33.0)], "schedule": [run(None, 42.0), run(None, 50.0, seed=1)]}
    assert tables.rate_rows(reports) == [
        ["ratio", "method", "from 0.001", "from 0.01", "from 0.1", "seeds"],
        ["0.9", "L1", "33.00", "42.00", "36.00", "1, 1, 1"],
    ]


def test_steps_before_the_cut_count_when_the_cut_network_is_fine_tuned_again():
    def run(axes, best, **iterations):
        report = {"method": "GReg-1", "seed": 0, "speedup": 10.0, "acc1_best": best, "acc1_last": best}
        return {"seed": "0", "ratio": "0.9"} | axes, report | {"iterations": iterations}

    greg1, l1 = {"method": "GReg-1"}, {"method": "L1"}
    reports = {
        "schedule": [
            run(greg1, 58.0, update=400, stabilise=200, finetune=600),
            run(l1, 42.0, finetune=600),
            run({"method": "L1-longer"}, 49.0, finetune=1200),
            run(l1 | {"ratio": "0.95"}, 41.0, finetune=600),  # run at one length only
        ],
        "length": [run({"steps": "2500"}, 63.0, update=1600, stabilise=900, finetune=600)],
        "length-10000": [],
        "same-flops": [run(l1, 66.0, finetune=6600)],
        "tuned-longer": [
            run(greg1, 70.0, finetune=3600),
            run(greg1 | {"seed": "1"}, 71.0, finetune=3600),  # the report of its cut is missing
        ],
    }
    reports = {experiment: [] for experiment in runs.REFINETUNED} | reports
    assert [row[:3] + row[4:6] for row in tables.length_rows(runs.select_by_length(reports))[1:]] == [
        ["L1", "0", "600", "60", "42.00"],
        ["L1", "0", "1200", "120", "49.00"],
        ["L1", "0", "6600", "660", "66.00"],
        ["GReg-1", "600", "600", "660", "58.00"],
        ["GReg-1", "600", "3600", "960", "70.00"],
        ["GReg-1", "2500", "600", "2560", "63.00"],
    ]


def test_the_lead_at_equal_length_is_taken_from_the_line_through_the_lengths_of_l1():
    def run(method, best, seed=0, **iterations):
        report = {"method": method, "seed": seed, "speedup": 10.0, "acc1_best": best, "iterations": iterations}
        return {"seed": str(seed), "method": method}, report

    selected = runs.select_full({
        "full-cut": [run("L1", None), run("GReg-1", None, update=500)],
        "full": [run("L1", 59.0, finetune=100), run("GReg-1", 66.0, finetune=500), run("GReg-1", 70.0, finetune=9600)],
        "full-seeds": [run("L1", 61.0, seed=1, finetune=100)],
        "full-longer": [run("L1", 80.0, finetune=10000)],
        "full-longest": [],
        "full-scratch": [],
    })  # fmt: skip
    # L1 has 60 at 100 steps and 80 at 10,000, so 70 at 1,000; 10,100 steps are 1 % beyond the end
    by_steps = runs.lead_over_curve(selected, "0.9", runs.total_steps)
    assert by_steps == {(500, 500): pytest.approx(-4.0), (500, 9600): pytest.approx(-10.0)}
    # 550 and 1,460 steps of the uncut network; L1's line reaches from 10 to 1,000 of them
    by_flops = runs.lead_over_curve(selected, "0.9", runs.dense_equivalent_steps)
    assert by_flops == {(500, 500): pytest.approx(66 - 60 - 20 * math.log(55, 100)), (500, 9600): None}


def test_the_summary_pairs_seeds_and_has_a_dash_for_what_was_not_run():
    def run(method, best, ratio="0.9", seed=0):
        report = {"seed": seed, "acc1_best": best, "acc1_before_cut_bn": None, "acc1_after_cut_bn": None}
        return {"method": method, "ratio": ratio, "seed": str(seed)}, report | {"l1_comparison": {}}

    schedule = [run("L1", 40.0), run("L1", 44.0, seed=1), run("L1-longer", 50.0), run("GReg-1", 58.0)]
    summary = tables.summary_rows(
        {"schedule": schedule, "same-flops": [run("L1", 68.0)], "schedule56": [], "same-flops56": []}
    )
    assert [row[1:4] for row in summary[1:4]] == [["–", "–", "+18.0"], ["–", "–", "+8.0"], ["–", "–", "-10.0"]]
    assert len(summary) <= 9
