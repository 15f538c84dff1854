"""The seed's commands, the scripts of the paper's tables, and their plans."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import main
from scripts.paper.extract_seed_commands import commands
from scripts.paper.make_paper_scripts import rows, script

ROOT = Path(__file__).resolve().parents[2]

SEED = (ROOT / "tests" / "golden" / "seed_commands.txt").read_text().splitlines()
GOLDEN = json.loads((ROOT / "tests" / "golden" / "costs.json").read_text())
SEED_README = ROOT.parent / "shared" / "seed-readme.md"


def plan_of(words, capsys):
    assert main.main([*words, "--plan=json"]) == 0
    return json.loads(capsys.readouterr().out)


def golden_row(plan, words):
    """Return the golden row of the same network, group kind and ratios; None for plans that prune nothing."""
    ratios = words[words.index("--stage_pr") + 1].replace(" ", "")
    skip = words[words.index("--skip_layers") + 1] if "--skip_layers" in words else "[]"
    wanted = (plan["arch"], plan["dataset"], plan["wg"], ratios, skip)
    for row in GOLDEN:
        if wanted == (
            row["arch"],
            row["dataset"],
            row["wg"],
            row["stage_pr"],
            f"[{','.join(row.get('skip_layers', []))}]",
        ):
            return row
    return None


def compare_with_golden(plan, words):
    row = golden_row(plan, words)
    if row is None:
        assert plan["params1"] == plan["params0"], "a plan that prunes something has no golden row"
        return
    for key in ("params0", "flops0", "params1", "flops1", "widths", "prunable_weights", "pruned_weights"):
        if key in row:
            assert plan[key] == row[key]
    if "speedup" in row:
        assert round(plan["speedup"], 2) == row["speedup"]


def words_of(line):
    """Return the arguments of a shell line that runs main.py, as bash passes them where no file matches."""
    words = shlex.split(line)
    return words[words.index("main.py") + 1 :]


@pytest.mark.parametrize("line", SEED, ids=[words_of(line)[words_of(line).index("--project") + 1] for line in SEED])
def test_a_seed_command_plans_the_golden_costs(line, capsys):
    words = words_of(line)
    compare_with_golden(plan_of(words, capsys), words)


def test_the_committed_commands_are_those_of_the_seed_readme():
    if not SEED_README.is_file():
        pytest.skip("../shared/seed-readme.md is not here")
    assert commands(SEED_README.read_text()) == SEED


@pytest.mark.parametrize("row", rows(), ids=lambda row: row["name"])
def test_a_paper_script_is_up_to_date_and_plans_the_published_speedup(row, capsys):
    text = (ROOT / "scripts" / "paper" / f"{row['name']}.sh").read_text()
    assert text == script(row)
    line = text.splitlines()[-1]
    assert line.endswith(' "$@"')
    words = words_of(line.removesuffix(' "$@"'))
    plan = plan_of(words, capsys)
    compare_with_golden(plan, words)
    printed = re.search(r"speedup ([\d.]+)x", row["published"])
    if printed:  # the paper's older counter prints up to 3 % less at high ratios
        assert plan["speedup"] == pytest.approx(float(printed[1]), rel=0.03)


def test_the_table_1_scripts_cover_every_golden_ratio(capsys):
    ratios = {row["flags"]["--stage_pr"] for row in rows()}
    assert {row["stage_pr"] for row in GOLDEN if row["wg"] != "channel"} <= ratios


def test_a_script_runs_and_passes_its_flags_on():
    done = subprocess.run(
        ["bash", "scripts/paper/table1_resnet56_pr0.5_GReg-1.sh", "--plan=json", "--epochs", "7"],
        cwd=ROOT, capture_output=True, text=True, env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["iterations"]["finetune"] == 7 * 391
    assert round(plan["speedup"], 2) == 1.99


def test_visible_devices_without_a_gpu_is_one_line(capsys, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert main.main([*words_of(SEED[0]), "--plan=json"]) == 0
    err = capsys.readouterr().err.splitlines()
    assert [line for line in err if "CUDA_VISIBLE_DEVICES=0,1" in line] == err


@pytest.mark.parametrize("file", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "scripts").rglob("*.sh")), *sorted((ROOT / "docs").glob("*.md"))], ids=lambda file: file.name)  # fmt: skip
def test_brackets_are_quoted_where_a_shell_would_expand_them(file):
    assert not re.findall(r"--(?:stage_pr|skip_layers)[ =]\[.*", file.read_text())
