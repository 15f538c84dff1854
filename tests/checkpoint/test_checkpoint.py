import errno
import os
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import SHARED, one_line_refusal
from hypothesis import example, given
from hypothesis import strategies as st
from torch import nn

from model import build_model
from utils.checkpoint import files
from utils.checkpoint.state import VERSION, Checkpoint
from utils.config.paths import find_one


def small_net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))


@pytest.fixture
def file(tmp_path):
    return tmp_path / "checkpoint.pth"


# writing


def content(value: float) -> Checkpoint:
    """Return a minimal checkpoint of a network without a run's state."""
    data = {"classes": 10, "channels": 1, "size": 32}
    model = {"w.weight": torch.full((1, 1), value)}
    return Checkpoint({"arch": "resnet20", "not_use_bn": False}, data, {}, {}, model)


def stored(file) -> float:
    return files.read(file).model["w.weight"].item()


def test_a_saved_checkpoint_is_read_back_with_its_version(file):
    files.save(file, content(3.0))
    checkpoint = files.read(file)
    assert checkpoint == replace(content(3.0), version=VERSION, model=checkpoint.model)
    assert stored(file) == 3.0


def test_a_save_that_fails_leaves_the_old_file(file):
    files.save(file, content(1.0))
    with pytest.raises(Exception, match="pickle"):
        files.save(file, replace(content(0.0), data={"bad": lambda: None}))
    assert stored(file) == 1.0


def test_a_failed_flush_leaves_the_old_file(file, monkeypatch):
    def broken(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    files.save(file, content(1.0))
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match=r"No space .* intact"):
        files.save(file, content(0.0))
    assert stored(file) == 1.0
    assert list(file.parent.iterdir()) == [file]


def test_a_save_leaves_no_temporary_file(file):
    for _ in range(2):
        files.save(file, content(1.0))
    assert list(file.parent.iterdir()) == [file]


# finding


def test_a_path_names_itself_even_with_characters_of_a_pattern(tmp_path):
    odd = tmp_path / "run[1]*.pth"
    odd.touch()
    (tmp_path / "run1x.pth").touch()
    assert find_one(str(odd)) == odd


def test_a_pattern_that_matches_one_file_names_it(tmp_path):
    for run in ("a_resnet56", "b_vgg19"):
        (tmp_path / run / "weights").mkdir(parents=True)
        (tmp_path / run / "weights" / "best.pth").touch()
    path = find_one(str(tmp_path / "*resnet56*" / "weights" / "best.pth"))
    assert path == tmp_path / "a_resnet56" / "weights" / "best.pth"


def test_a_pattern_that_matches_nothing_is_refused(tmp_path):
    assert str(tmp_path / "*.pth") in one_line_refusal(find_one, str(tmp_path / "*.pth"))


def test_a_pattern_that_matches_two_files_is_refused_and_both_are_named(tmp_path):
    for name in ("a.pth", "b.pth"):
        (tmp_path / name).touch()
    line = one_line_refusal(find_one, str(tmp_path / "*.pth"))
    assert "2 files" in line
    assert "a.pth" in line
    assert "b.pth" in line


def test_folders_do_not_count_as_files(tmp_path):
    (tmp_path / "x.pth").mkdir()
    assert "is a directory" in one_line_refusal(find_one, str(tmp_path / "*.pth"))
    assert "is a directory" in one_line_refusal(find_one, str(tmp_path / "x.pth"))


def test_a_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.pth").touch()
    assert find_one("~/a.pth") == tmp_path / "a.pth"


# files of other tools


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best_prec1": 93.4},
        lambda state: {"model": state},
        lambda state: {f"module.{key}": value for key, value in state.items()},
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "module.", "state_dict with module."],
)
def test_wrapped_weights_of_other_tools_are_read(wrap, file):
    net, other = small_net(), small_net()
    torch.save(wrap(net.state_dict()), file)
    files.load_weights(other, files.read(file).model, "file")
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())


def test_a_pickled_network_is_refused_in_one_line_and_its_code_is_not_run(file, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "was run"),)

    torch.save({"model": Evil()}, file)
    line = one_line_refusal(files.read, file)
    assert str(file) in line
    assert "trust" in line
    assert not (tmp_path / "was run").exists()
    torch.save(small_net(), file)
    assert str(file) in one_line_refusal(files.read, file)


@pytest.mark.parametrize("content", [[1, 2], torch.ones(2), 5, {}, {"a": 1}, {"state_dict": {"epoch": 3}}])
def test_a_file_without_weights_is_refused(content, file):
    torch.save(content, file)
    assert str(file) in one_line_refusal(files.read, file)


def test_an_empty_file_is_refused(file):
    file.touch()
    assert str(file) in one_line_refusal(files.read, file)


def test_a_truncated_checkpoint_is_refused(file):
    files.save(file, replace(content(1.0), model=small_net().state_dict()))
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in one_line_refusal(files.read, file)


def test_a_zip_file_of_something_else_is_refused(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert str(file) in one_line_refusal(files.read, file)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(content=st.binary(max_size=60) | st.binary(max_size=20).map(lambda tail: b"\x80\x02" + tail))
@example(content=b"a text file\n")
@example(content=pickle.dumps({"a": [1, 2, 3]}))
@example(content=b"\x80\x02}.")
@example(content=b".")
@example(content=b"0")
@example(content=b"K\x01t.")
def test_any_other_bytes_are_refused_in_one_line(content, tmp_path_factory):
    file = tmp_path_factory.getbasetemp() / "garbage.pth"
    file.write_bytes(content)
    assert str(file) in one_line_refusal(files.read, file)


# loading weights into a network


def test_missing_unexpected_and_misshapen_keys_are_named():
    net = small_net()
    state = dict(net.state_dict())
    del state["0.bias"]
    state["9.weight"] = torch.ones(1)
    state["3.weight"] = torch.ones(5, 2)
    line = one_line_refusal(files.load_weights, net, state, "some.pth")
    assert line.startswith("some.pth")
    assert "missing 0.bias" in line
    assert "unexpected 9.weight" in line
    assert "3.weight (5, 2) for (3, 2)" in line


def test_a_long_list_of_wrong_keys_is_truncated():
    net = build_model("resnet20", 10, 3, 32)
    line = one_line_refusal(files.load_weights, net, {}, "empty.pth")
    assert "conv1.weight" in line
    assert "more" in line
    assert len(line) < 300


def test_refused_weights_leave_the_network_unchanged():
    net = small_net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = {key: torch.zeros_like(value) for key, value in before.items() if key != "0.bias"}
    one_line_refusal(files.load_weights, net, state, "x")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_num_batches_tracked_may_be_missing():
    net, other = small_net(), small_net()
    state = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
    files.load_weights(other, state, "old.pth")
    assert torch.equal(other[0].weight, net[0].weight)


@pytest.mark.skipif(not (SHARED / "data").is_dir(), reason=f"{SHARED / 'data'} is not here")
@pytest.mark.parametrize(
    ("arch", "name"), [("resnet20", "resnet20-cifar10-12fca82f.th"), ("resnet56", "resnet56-cifar10-4bfd9763.th")]
)
def test_public_cifar_checkpoints_load_unchanged(arch, name):
    net = build_model(arch, 10, 3, 32)
    state = files.read(Path(SHARED / "data" / name)).model
    files.load_weights(net, state, name)
    assert torch.equal(net.conv1.weight, state["conv1.weight"])
    assert torch.equal(net.linear.bias, state["linear.bias"])
    assert net.bn1.running_var.ne(1).any()
