import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

PACKAGES = ("model", "data", "pruner", "utils")
SOURCES = sorted([ROOT / "main.py", *(file for name in PACKAGES for file in (ROOT / name).rglob("*.py"))])


def name_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> set[str]:
    """Full names of our own modules that `file` imports, ``from package import name`` as ``package.name``."""
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in (*PACKAGES, "main")}


def imported_by(package: str) -> dict[str, set[str]]:
    files = [file for file in SOURCES if name_of(file).split(".")[0] == package]
    assert files
    return {name_of(file): {name.split(".")[0] for name in imports_of(file)} for file in files}


def test_the_reader_of_imports_sees_relative_and_absolute_ones(tmp_path):
    assert {"pruner.greg.GReg1", "pruner.l1.L1"} <= imports_of(ROOT / "pruner" / "__init__.py")
    assert "data.Data" in imports_of(ROOT / "main.py")


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("model", {"model"}),
        ("data", {"data"}),
        ("pruner", {"pruner", "model"}),
        ("utils", {"utils", "pruner", "model", "data"}),
    ],
)
def test_packages_import_only_those_below_them(package, allowed):
    outside = {name: used - allowed for name, used in imported_by(package).items() if used - allowed}
    assert not outside


@pytest.mark.parametrize("module", ["training", "progress", "learning_rate"])
def test_training_knows_no_particular_pruner(module):
    used = imports_of(ROOT / "utils" / f"{module}.py")
    particular = ("pruner.greg", "pruner.l1", "pruner.oracle", "pruner.GReg1", "pruner.GReg2", "pruner.L1")
    assert not {name for name in used if name.startswith(particular)}


@pytest.mark.parametrize("module", ["greg", "l1", "groups", "plan", "schedule", "short_schedule"])
def test_the_method_knows_nothing_of_the_training_loop(module):
    assert not {name for name in imports_of(ROOT / "pruner" / f"{module}.py") if name.startswith(("utils", "data"))}


def test_nobody_imports_the_program():
    assert not {name_of(file) for file in SOURCES for name in imports_of(file) if name.split(".")[0] == "main"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_tensors_go_to_a_device_that_is_passed(file):
    assert ".cuda(" not in file.read_text()


def test_networks_are_never_pickled_or_read_with_their_code_but_in_one_place():
    loads = {name_of(file) for file in SOURCES if "weights_only=False" in file.read_text()}
    assert loads <= {"utils.foreign"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_a_module_does_nothing_when_it_is_imported(file):
    doing = [
        ast.unparse(node)
        for node in ast.parse(file.read_text()).body
        if (isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant))
        or isinstance(node, ast.For | ast.While | ast.With | ast.Try)
    ]
    doing = [text for text in doing if not text.startswith("logging.addLevelName(")]  # a name, no more
    assert not doing


def test_importing_everything_writes_nothing_and_prints_nothing(tmp_path):
    modules = ", ".join(name_of(file) for file in SOURCES)
    ran = subprocess.run(
        [sys.executable, "-B", "-W", "error", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {modules}"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert not list(tmp_path.iterdir())
