"""Comparison of finished runs: differing settings, means over seeds, and files that are not reports."""

import csv
import io
import json
import statistics
from pathlib import Path

import pytest
from helpers import ROOT

from scripts import compare

EXPERIMENTS = {file.stem: json.loads(file.read_text()) for file in sorted((ROOT / "results").glob("*.json"))}
BEST = "best epoch (on the test set)"


@pytest.fixture
def run(tmp_path):
    """Return a function that makes a run directory with a report; `values` replace those of a valid report."""
    valid = next(iter(EXPERIMENTS["schedule"].values()))

    def make(name: str, **values):
        report = (
            valid | values | {"run_dir": f"Experiments/{name}_SERVER-20260101-0000{len(list(tmp_path.iterdir())):02}"}
        )
        (tmp_path / name / "log").mkdir(parents=True)
        (tmp_path / name / "log" / "report.json").write_text(json.dumps(report))
        return str(tmp_path / name)

    return make


def table_of(capsys, *words):
    assert compare.main(list(words)) == 0
    return capsys.readouterr().out.splitlines()


def test_titles_name_exactly_the_differing_settings(run, capsys):
    runs = [run("a", method="L1", stage_pr="[0,0.5,0]", seed=0), run("b", method="L1", stage_pr="[0,0.9,0]", seed=0)]
    head = table_of(capsys, *runs)
    assert head[0].split() == ["L1", "L1"]
    assert head[1].split() == ["stage_pr=[0,0.5,0]", "stage_pr=[0,0.9,0]"]
    assert "seed=" not in "".join(head)


def test_the_row_of_the_best_epoch_says_on_which_images_it_was_chosen(run, capsys):
    one, two = run("a", val_acc1_best=None), run("b", val_acc1_best=70.0)
    for runs, words in (
        ([one], "(on the test set)"),
        ([two], "(on held-out images)"),
        ([one, two], " or the test set)"),
    ):
        assert any("best epoch" in line and words in line for line in table_of(capsys, *runs))


def test_a_run_that_may_not_be_read_is_named(run, capsys, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    path = run("a")
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(SystemExit):
        compare.main([path])
    assert "Permission denied" in capsys.readouterr().err


def test_a_method_without_a_penalty_does_not_differ_in_what_is_penalized(run, capsys):
    runs = [run("a", method="L1", penalize=None), run("b", method="GReg-1", penalize="filter")]
    assert "penalize" not in "".join(table_of(capsys, *runs))
    head = table_of(capsys, *runs, run("c", method="GReg-1", penalize="group"))
    assert head[0].split() == ["L1", "GReg-1", "GReg-1"]
    assert head[1].split() == ["penalize=filter", "penalize=group"]


def test_runs_with_the_same_settings_are_distinguished_by_start_time(run, capsys):
    head = table_of(capsys, run("a"), run("b"))
    assert head[1].split() == ["20260101-000000", "20260101-000001"]


def test_means_are_over_seeds_with_the_sample_deviation(run, capsys):
    accuracies = [80.0, 81.0, 83.0]
    runs = [run(f"r{seed}", method="L1", seed=seed, acc1_best=best) for seed, best in enumerate(accuracies)]
    runs.append(run("other", method="GReg-1", seed=0, acc1_best=90.0))
    lines = table_of(capsys, "--mean", *runs)
    (row,) = [line for line in lines if BEST in line]
    assert row.split(")")[1].split() == ["81.33", "±", f"{statistics.stdev(accuracies):.2f}", "90.00"]
    assert "0, 1, 2" in "\n".join(lines)


def test_runs_that_differ_in_any_setting_have_no_mean_in_common(run, capsys):
    settings = [{}, {"speedup": 1.9}, {"speedup": 1.9, "pick_pruned": "max"}, {"speedup": 1.9, "pick_pruned": "max"}]
    runs = [run(f"r{i}", method="L1", seed=i, settings=more | {"seed": i}) for i, more in enumerate(settings)]
    lines = table_of(capsys, "--mean", *runs)
    assert lines[0].split() == ["L1", "L1", "L1"]
    assert "pick_pruned=default  pick_pruned=default  pick_pruned=max" in "  ".join(lines[1].split())
    assert "speedup=default  speedup=1.9  speedup=1.9" in "  ".join(lines[2].split())


def test_settings_of_one_method_are_not_compared_with_those_of_another(run, capsys):
    runs = [run("a", method="L1", settings={}), run("b", method="GReg-1", settings={"prune_steps": 600})]
    assert "prune_steps" not in "".join(table_of(capsys, *runs))


def test_a_seed_that_a_mean_has_twice_is_named(run, capsys):
    assert compare.main(["--mean", run("a"), run("b")]) == 0
    assert "2 runs, but 1 seeds" in capsys.readouterr().err


def test_csv_has_a_row_per_run_in_full_precision(run, capsys):
    compare.main(["--csv", run("a", acc1_best=81.23456789, seed=1), run("b", acc1_best=70.0, seed=2)])
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [(row["acc1_best"], row["seed"]) for row in rows] == [("81.23456789", "1"), ("70.0", "2")]


def test_plain_training_has_no_speedup_and_no_cut(run, capsys):
    lines = table_of(
        capsys, run("base", method="none", pruned={}, acc1_before_cut=None, acc1_after_cut=None), run("cut")
    )
    for title in ("speedup", "seconds: cut"):
        (row,) = [line for line in lines if line.strip().startswith(title)]
        assert " - " in row


def test_unfinished_runs_are_skipped_with_a_notice(run, tmp_path, capsys):
    (tmp_path / "unfinished").mkdir()
    assert compare.main([run("a"), str(tmp_path / "unfinished")]) == 0
    assert "unfinished has not finished" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        compare.main([str(tmp_path / "unfinished")])
    assert stop.value.code == 2


@pytest.mark.parametrize("content", ["", "[]", "{}", "null", "{" * 5000, '{"method": 3}', "\xff"])
def test_an_invalid_report_is_refused_in_one_line_by_name(content, tmp_path, capsys):
    file = tmp_path / "broken.json"
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(SystemExit) as stop:
        compare.main([str(file)])
    (line,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert "broken.json" in line


def test_every_report_of_the_evidence_is_read(tmp_path, capsys):
    reports = [report for experiment in EXPERIMENTS.values() for report in experiment.values()]
    files = [tmp_path / f"{i}.json" for i in range(len(reports))]
    for file, report in zip(files, reports, strict=True):
        file.write_text(json.dumps(report))
    assert compare.main(["--mean", *map(str, files)]) == 0
    assert len(files) >= 198
