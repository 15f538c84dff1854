"""A run resumes only its own state; no stored value makes the program read or run another file."""

import copy
import json
import os
import pickle
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import ROOT, SHORT_GREG, run_program, write_image_folder, write_npz_set

from utils.checkpoint.validation import LATER, validate
from utils.config.options import stored_defaults
from utils.engine import train

LENET = ["--arch", "lenet5_mini", "--seed", "3", "--batch_size", "16", "--allow_untrained", "--device", "cpu"]


class Killed(BaseException):
    """Stand-in for SIGKILL."""


def killed_at(step, cwd, words, monkeypatch):
    """Kill a run before its training step `step`; return its run directory."""
    made, train_step = [], train.train_step

    def counted(*args, **kwargs):
        made.append(1)
        if len(made) == step:
            raise Killed
        return train_step(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(train, "train_step", counted)
        with pytest.raises(Killed):
            run_program(cwd, *words)
    return max((cwd / "Experiments").iterdir(), key=lambda path: path.name[-15:])


def words_for(images, *more, method="GReg-1"):
    ratios = ["--stage_pr", "[1:0.5]"] if method != "none" else []
    greg = SHORT_GREG if method.startswith("GReg") else ()
    return [*LENET, "--dataset", "npz", "--data_path", images, "--method", method, "--epochs", "2", "--lr_ft", "0:0.01",
            "--save_interval", "1", *ratios, *greg, *more]  # fmt: skip


@pytest.fixture
def images(tmp_path):
    return write_npz_set(tmp_path / "images", size=32)


@pytest.fixture
def run_dir(images, tmp_path, monkeypatch):
    """Return the directory of a run killed in its prune phase."""
    return killed_at(4, tmp_path / "cwd", words_for(images), monkeypatch)


def bytes_of(folder: Path) -> dict:
    return {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(run_dir: Path, *words: object) -> str:
    """Return the error line of a refused resume; check that nothing is written."""
    before = bytes_of(run_dir.parents[1])
    ran = run_program(run_dir.parents[1], *words)
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert bytes_of(run_dir.parents[1]) == before
    (line,) = ran.err.splitlines()
    return line


def edit_params(run_dir: Path, **values: object) -> None:
    file = run_dir / "log" / "params.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))


def edit_checkpoint(run_dir: Path, change) -> None:
    for file in run_dir.glob("weights/*.pth"):
        saved = torch.load(file, weights_only=True)
        change(saved)
        torch.save(saved, file)


# trust


class Evil:
    """Create a directory when unpickled."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def evil(tmp_path):
    mark, file = tmp_path / "code has run", tmp_path / "evil.pth"
    torch.save({"model": Evil(mark)}, file, pickle_module=pickle)
    return mark, file


@pytest.mark.parametrize("name", ["base_model_path", "base_pr_model", "directly_ft_weights"])
@pytest.mark.parametrize("how", ["directory", "checkpoint", "moved", "plan", "evaluate"])
def test_stored_settings_run_no_code_and_read_no_file(name, how, run_dir, evil, tmp_path):
    mark, file = evil
    forged = {"trust_checkpoint": True, name: str(file)}
    if name != "base_model_path":
        forged["stage_pr"] = ""
    edit_params(run_dir, **forged, **({"evaluate": True} if how == "evaluate" else {}))
    edit_checkpoint(run_dir, lambda saved: saved["options"].update(forged))
    path = run_dir / "weights" / "checkpoint.pth" if how in ("checkpoint", "moved") else run_dir
    if how == "moved":
        path = Path(shutil.copy(path, tmp_path / "moved.pth"))
    ran = run_program(tmp_path / "cwd", "--resume_path", path, *(["--plan"] if how == "plan" else []))
    assert not mark.exists()
    assert "evil" not in ran.err
    if name == "directly_ft_weights":  # these runs have no prune phase, but this one is in it
        assert ran.code == 2
        assert "invalid phase" in ran.err
    else:
        assert ran.code == 0, ran.err  # its own checkpoint is complete


@pytest.mark.parametrize("name", ["base_model_path", "base_pr_model", "directly_ft_weights"])
def test_a_run_without_a_checkpoint_reads_no_base_named_only_by_stored_settings(name, run_dir, evil):
    mark, file = evil
    shutil.rmtree(run_dir / "weights")
    edit_params(run_dir, trust_checkpoint=True, **{name: str(file)})
    line = refused(run_dir, "--resume_path", run_dir)
    assert f"--{name}" in line
    assert "no checkpoint yet" in line
    assert not mark.exists()


def test_trust_is_not_stored(images, tmp_path):
    ran = run_program(tmp_path / "cwd", *words_for(images, method="none"), "--trust_checkpoint")
    assert "trust_checkpoint" not in (ran.run_dir / "log" / "params.yaml").read_text()
    assert "trust_checkpoint" not in json.dumps(ran.report)
    assert "trust_checkpoint" not in ran.load("checkpoint")["options"]


@pytest.mark.parametrize("source", ["flag", "config"])
def test_trust_is_taken_from_the_command_and_its_config(source, images, evil, tmp_path):
    mark, file = evil
    (tmp_path / "trust.yaml").write_text("trust_checkpoint: true\n")
    trust = ["--trust_checkpoint"] if source == "flag" else ["--config", tmp_path / "trust.yaml"]
    words = words_for(images, "--base_model_path", file, method="none")
    assert run_program(tmp_path / "cwd", *words).code == 2
    assert not mark.exists()
    run_program(tmp_path / "cwd", *words, *trust)
    assert mark.exists()


# identity: settings


EDITED = {
    "lr_prune": 0.5, "stage_pr": "[1:0.25]", "seed": 4, "batch_size": 8, "method": "GReg-2", "epochs": 0, "wd": 0.5,
    "lr_ft": "0:0.5", "momentum": 0.1, "reg_upper_limit": "2.0", "wg": "channel", "val_fraction": 0.2, "amp": "none",
    "arch": "lenet5", "update_reg_interval": 2, "pick_pruned": "max", "train_images": 20,
}  # fmt: skip


@pytest.mark.parametrize("name", EDITED)
@pytest.mark.parametrize("where", ["params", "checkpoint"])
def test_settings_edited_in_one_of_two_files_are_named(name, where, run_dir):
    saved = yaml.safe_load((run_dir / "log" / "params.yaml").read_text())
    if saved[name] == EDITED[name]:
        pytest.skip("this machine's own choice")
    if where == "params":
        edit_params(run_dir, **{name: EDITED[name]})
    else:
        edit_checkpoint(run_dir, lambda saved: saved["options"].update({name: EDITED[name]}))
        if name == "epochs":  # epochs may be added in params.yaml
            return
    line = refused(run_dir, "--resume_path", run_dir)
    assert f"--{name}" in line or "params.yaml" in line or "damaged" in line


def test_settings_that_do_not_affect_results_may_differ(run_dir):
    edit_params(run_dir, workers=1, note="x", print_interval=3, last_n_epoch=2)
    assert run_program(run_dir.parents[1], "--resume_path", run_dir).code == 0


# identity: checkpoints


@pytest.mark.parametrize("other", ["same settings", "another seed", "another method"])
@pytest.mark.parametrize("path", ["directory", "checkpoint"])
def test_a_checkpoint_of_another_run_is_refused(other, path, run_dir, images, tmp_path, monkeypatch):
    more = {"same settings": [], "another seed": ["--seed", "4"], "another method": ["--method", "GReg-2"]}[other]
    foreign = killed_at(4, tmp_path / "other", words_for(images, *more), monkeypatch)
    shutil.copy(foreign / "weights" / "checkpoint.pth", run_dir / "weights" / "checkpoint.pth")
    wanted = run_dir if path == "directory" else run_dir / "weights" / "checkpoint.pth"
    assert "is of another run" in refused(run_dir, "--resume_path", wanted)


def test_a_report_of_another_run_is_refused(images, tmp_path):
    one = run_program(tmp_path / "one", *words_for(images, method="L1"))
    other = run_program(tmp_path / "other", *words_for(images, method="L1"))
    shutil.copy(other.run_dir / "log" / "report.json", one.run_dir / "log" / "report.json")
    assert "is of another run" in refused(one.run_dir, "--resume_path", one.run_dir)


def test_an_older_checkpoint_without_the_new_keys_resumes_with_a_notice(run_dir):
    edit_checkpoint(run_dir, lambda saved: saved.pop("identity"))
    file = run_dir / "log" / "params.yaml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "run_id" not in line))
    ran = run_program(run_dir.parents[1], "--resume_path", run_dir)
    assert ran.code == 0
    assert "older version" in ran.err


def test_checkpoints_may_lack_the_settings_of_later_versions_and_no_others(run_dir):
    of_0_3 = json.loads((ROOT / "tests" / "golden" / "settings_0.3.json").read_text())
    assert set(stored_defaults()) - set(of_0_3) <= set(LATER)
    saved = torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)
    for name in stored_defaults():
        older = saved | {"options": {key: value for key, value in saved["options"].items() if key != name}}
        with nullcontext() if name in LATER else pytest.raises(ValueError, match=rf"options\.{name}"):
            validate(older, "a file")


def test_an_older_run_of_plain_training_keeps_its_learning_rates(images, tmp_path, monkeypatch):
    words = [word for word in words_for(images, method="none") if word not in ("--lr_ft", "0:0.01")]
    run_dir = killed_at(4, tmp_path / "cwd", words, monkeypatch)
    edit_checkpoint(run_dir, lambda saved: saved.pop("identity"))
    file = run_dir / "log" / "params.yaml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "run_id" not in line))
    ran = run_program(tmp_path / "cwd", *words, "--resume_path", "auto")
    assert ran.code == 0
    rates = [row["lr"] for row in ran.load("checkpoint")["record"]["tests"]]
    assert rates == [0.1, 0.1]  # today's default would lower the second


# identity: data


def other_pixels(images):
    with np.load(images / "train.npz") as arrays:
        np.savez(images / "train.npz", images=arrays["images"][::-1], labels=arrays["labels"])


def other_labels(images):
    with np.load(images / "train.npz") as arrays:
        np.savez(images / "train.npz", images=arrays["images"], labels=arrays["labels"][::-1])


def other_test(images):
    with np.load(images / "test.npz") as arrays:
        np.savez(images / "test.npz", images=arrays["images"] // 2, labels=arrays["labels"])


@pytest.mark.parametrize("change", [other_pixels, other_labels, other_test])
def test_other_images_of_the_same_number_are_refused(change, run_dir, images):
    change(images)
    assert "--data_path: these are not the images" in refused(run_dir, "--resume_path", run_dir)


def test_a_class_folder_renamed_between_kill_and_resume_is_named(tmp_path, monkeypatch):
    folder = write_image_folder(tmp_path / "pets", train=4)
    words = ["--dataset", "folder", "--data_path", folder, "--arch", "squeezenet1_1", "--method", "none", "--seed", "1",
             "--epochs", "2", "--batch_size", "4", "--workers", "0", "--save_interval", "1"]  # fmt: skip
    run_dir = killed_at(3, tmp_path / "cwd", words, monkeypatch)
    for part in ("train", "val"):
        (folder / part / "dog").rename(folder / part / "wolf")
    line = refused(run_dir, "--resume_path", run_dir)
    assert "dog" in line
    assert "wolf" in line


def test_moved_data_are_accepted(run_dir, images, tmp_path):
    images.rename(tmp_path / "moved")
    assert run_program(run_dir.parents[1], "--resume_path", run_dir, "--data_path", tmp_path / "moved").code == 0


# auto


def test_auto_prefers_an_unfinished_run_to_a_later_finished_one(images, tmp_path, monkeypatch):
    cwd, words = tmp_path / "cwd", words_for(images, "--project_name", "x", method="L1")
    unfinished = killed_at(4, cwd, words, monkeypatch)
    finished = run_program(tmp_path / "other", *words).run_dir
    shutil.move(finished, cwd / "Experiments" / "x_SERVER-20990101-000000")
    ran = run_program(cwd, *words, "--resume_path", "auto")
    assert ran.code == 0
    assert (unfinished / "log" / "report.json").exists()


@pytest.mark.parametrize("content", ["", "a: [", "method: odd\n", "- x", "lr: &x 1\nwd: *x\n"])
def test_a_broken_run_of_the_same_name_does_not_block_auto(content, images, tmp_path):
    cwd, words = tmp_path / "cwd", [*words_for(images, "--project_name", "x", method="L1"), "--resume_path", "auto"]
    broken = cwd / "Experiments" / "x_SERVER-20990101-000000" / "log"
    broken.mkdir(parents=True)
    (broken / "params.yaml").write_text(content)
    ran = run_program(cwd, *words)
    assert ran.code == 0
    assert "this run is skipped" in ran.err
    assert len(list((cwd / "Experiments").iterdir())) == 2


def test_simultaneous_auto_commands_make_one_run(images, tmp_path):
    words = [*words_for(images, method="L1"), "--resume_path", "auto"]
    command = [sys.executable, str(ROOT / "main.py"), *map(str, words)]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    processes = [subprocess.Popen(command, cwd=tmp_path, **pipes) for _ in range(3)]
    errors = [process.communicate()[1] for process in processes]
    assert len(list((tmp_path / "Experiments").iterdir())) == 1
    assert {process.returncode for process in processes} <= {0, 2}
    assert [process.returncode for process in processes].count(0) >= 1
    for process, error in zip(processes, errors, strict=True):
        if process.returncode:
            assert "another process" in error


# mutated checkpoints


def parts(value, path=()):
    """Yield paths of all parts of a checkpoint; of lists only the first item, of dicts of tensors the first three."""
    yield path
    if isinstance(value, dict):
        items = list(value.items())
        for key, item in items[:3] if len(path) > 1 or path == ("model",) else items:
            yield from parts(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from parts(value[0], (*path, 0))


def mutated(saved, path, new):
    saved = copy.deepcopy(saved)
    if not path:
        return new
    inner = saved
    for key in path[:-1]:
        inner = inner[key]
    if new is parts:  # delete the entry
        del inner[path[-1]]
    else:
        inner[path[-1]] = new
    return saved


NEW = [parts, None, "text", -1, 1.5, float("nan"), [], {}, {"a": 1}, torch.ones(3), torch.full((2,), float("nan")),
       torch.ones(1, dtype=torch.int32), torch.ones(2, dtype=torch.complex64), torch.eye(2).to_sparse()]  # fmt: skip


@pytest.mark.parametrize("step", [4, 8])
def test_every_mutation_of_a_checkpoint_is_read_or_refused_in_one_line(step, images, tmp_path, monkeypatch):
    run_dir = killed_at(step, tmp_path / "cwd", words_for(images), monkeypatch)
    saved = torch.load(run_dir / "weights" / "checkpoint.pth", weights_only=True)
    file, rng, tried, read = tmp_path / "mutated.pth", np.random.default_rng(step), 0, 0
    monkeypatch.setattr(train, "train_step", lambda *args, **kwargs: (_ for _ in ()).throw(Killed()))
    for path in parts(saved):
        for new in [parts, *(NEW[i] for i in rng.choice(range(1, len(NEW)), 3, replace=False))]:
            if not path and new is parts:
                continue
            torch.save(mutated(saved, path, new), file)
            cwd = tmp_path / f"m{tried}"
            tried += 1
            try:
                ran = run_program(cwd, "--resume_path", file)
            except Killed:
                read += 1
            else:
                assert ran.code == 2, (path, new, ran.err)
                lines = [line for line in ran.err.splitlines() if "notice" not in line]
                assert len(lines) == 1, (path, new, ran.err)
                assert not list(cwd.iterdir()), (path, new, lines)
            shutil.rmtree(cwd)
    assert tried > 200
    assert read < tried / 2
