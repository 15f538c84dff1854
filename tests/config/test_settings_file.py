"""Settings from files are read as typed or refused in one line, without running code or blocking."""

import json
import os
import time

import pytest
import yaml
from helpers import one_line_refusal, run_program
from hypothesis import given
from hypothesis import strategies as st

from utils.config.settings_file import read_settings_file

ALIASES = "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)
REFUSED = {
    "aliases ten deep": (ALIASES, "aliases"),
    "one alias": ("lr: &x 0.1\nwd: *x\n", "aliases"),
    "a merge key": ("a: &x {lr: 1}\n<<: *x\n", "aliases"),
    "a key twice": ("lr: 0.1\nepochs: 3\nlr: 0.2\n", "'lr' is repeated"),
    "a JSON key twice": ('{"lr": 0.1, "lr": 0.2}', "'lr' is repeated"),
    "a list": ("- lr\n", "key: value"),
    "a number": ("3", "key: value"),
    "nested brackets": ("lr_ft: " + "[" * 5000, "nested too deep"),
    "nested JSON brackets": ('{"lr_ft": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deep"),
    "open brackets": ("lr_ft: [1, 2", "not a YAML file"),
    "half a JSON file": ('{"lr": 0.1,', "not JSON"),
    "a key that is a list": ("[1, 2]: 3\n", "key is not a word"),
    "two documents": ("lr: 1\n---\nlr: 2\n", "not a YAML file"),
    "Latin-1": (b"note: caf\xe9\n", "not a text file"),
    "a null character": (b"note: a\0b\n", "not a YAML file"),
    "two megabytes": ("note: " + "x" * 2_000_000, "too many"),
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("flag", ["--config", "--params_json"])
def test_a_file_that_is_not_settings_is_refused_in_one_line_at_once(name, flag, tmp_path):
    content, message = REFUSED[name]
    (tmp_path / "settings").write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.perf_counter()
    ran = run_program(tmp_path, "--dataset", "digits", flag, "settings")
    assert time.perf_counter() - began < 5
    (line,) = ran.err.splitlines()
    assert (ran.code, ran.out) == (2, "")
    assert line.startswith(f"main.py: error: {flag} settings: ")
    assert message in line


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["named pipe", "directory"])
@pytest.mark.parametrize("flag", ["--config", "--params_json", "--base_model_path", "--resume_path"])
def test_paths_that_are_no_regular_file_are_refused_at_once(make, flag, tmp_path):
    make(tmp_path / "thing")
    ran = run_program(tmp_path, "--dataset", "digits", "--arch", "resnet20", flag, "thing")
    (line,) = ran.err.splitlines()
    assert ran.code == 2
    assert flag in line
    assert "thing" in line


@pytest.mark.parametrize(
    "flag", ["config", "params_json", "base_model_path", "resume_path", "base_pr_model", "directly_ft_weights", "data_path"]
)  # fmt: skip
def test_an_empty_path_is_refused(flag, tmp_path):
    ran = run_program(tmp_path, "--dataset", "digits", "--arch", "resnet20", "--method", "none", f"--{flag}", "")
    assert ran.code == 2
    assert ran.err == f"main.py: error: --{flag}: the path is empty\n"


VALUES = {
    "lr": ("0.1", "0.1"), "epochs": ("3", "3"), "stage_pr": ("[0, 0.5, 0]", "[0,0.5,0]"), "debug": ("true", "true"),
    "lr_ft": ("{0: 0.1, 30: 0.01}", "{0:0.1,30:0.01}"), "note": ("5:06", "5:06"), "seed": ("null", None),
}  # fmt: skip


def test_yaml_values_are_the_text_as_typed(tmp_path):
    (tmp_path / "a.yaml").write_text("".join(f"{key}: {text}\n" for key, (text, _) in VALUES.items()))
    assert read_settings_file(tmp_path / "a.yaml") == {key: typed for key, (_, typed) in VALUES.items() if typed}


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_json_values_are_the_same_text_whatever_the_indentation(indent, tmp_path):
    values = {"lr": 0.1, "epochs": 3, "stage_pr": [0, 0.5, 0], "debug": True, "lr_ft": {"0": 0.1, "30": 0.01},
              "note": "5:06", "seed": None}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(values, indent=indent))
    assert read_settings_file(tmp_path / "a.json") == {key: typed for key, (_, typed) in VALUES.items() if typed}


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_content_is_read_or_refused_in_one_line(tmp_path_factory, content):
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode(errors="surrogatepass"))
    try:
        assert all(isinstance(value, str) for value in read_settings_file(file).values())
    except ValueError:
        assert one_line_refusal(read_settings_file, file)


@given(st.dictionaries(st.from_regex("[a-z_]{1,8}", fullmatch=True), st.text(min_size=1, max_size=20), max_size=4))
def test_written_yaml_is_read_back(tmp_path_factory, values):
    values = {key: value for key, value in values.items() if value not in ("null", "~")}
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(yaml.safe_dump(values))
    assert read_settings_file(file) == values
