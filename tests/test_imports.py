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
    """Return full names of our modules that `file` imports; ``from package import name`` as ``package.name``."""
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return {name for name in names if name.split(".")[0] in (*PACKAGES, "main")}


# The rooms from the lowest to the highest: each imports itself, those named, and of utils those above it in this list.
LIBRARIES = {"model": (), "data": (), "pruner": ()}
ROOMS = ("config", "dist", "checkpoint", "reporting", "engine", "pipeline")


def room_of(module: str) -> str:
    first, *rest = module.split(".")
    return rest[0] if first == "utils" and rest else first


def test_imports_of_reads_relative_and_absolute_imports():
    assert {"pruner.greg.GReg1", "pruner.l1.L1"} <= imports_of(ROOT / "pruner" / "__init__.py")
    assert "utils.reporting.console.show" in imports_of(ROOT / "main.py")


def test_every_file_of_utils_is_in_a_room():
    assert {path.name for path in (ROOT / "utils").iterdir() if path.is_dir()} - {"__pycache__"} == set(ROOMS)
    assert [path.name for path in (ROOT / "utils").glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", [*LIBRARIES, *ROOMS])
def test_a_room_imports_only_rooms_below_it(room):
    below = {room} if room in LIBRARIES else {*LIBRARIES, *ROOMS[: ROOMS.index(room) + 1]}
    files = [file for file in SOURCES if room_of(name_of(file)) == room]
    assert files
    used = {name_of(file): {room_of(name) for name in imports_of(file)} - below for file in files}
    assert not {name: above for name, above in used.items() if above}


@pytest.mark.parametrize("package", LIBRARIES)
def test_the_init_of_a_library_only_re_exports(package):
    body = ast.parse((ROOT / package / "__init__.py").read_text()).body
    kinds = (ast.Expr, ast.ImportFrom, ast.Assign, ast.AnnAssign)  # PRUNERS, the registry, is an annotated assignment
    assert all(isinstance(node, kinds) for node in body)


def test_the_engine_knows_no_particular_pruner():
    particular = ("pruner.greg", "pruner.regularized", "pruner.l1", "pruner.oracle", "pruner.fixreg", "pruner.PRUNERS")
    files = [file for file in SOURCES if room_of(name_of(file)) == "engine"]
    assert not {name for file in files for name in imports_of(file) if name.startswith(particular)}


def test_no_module_imports_main():
    assert not {name_of(file) for file in SOURCES for name in imports_of(file) if name.split(".")[0] == "main"}


@pytest.mark.parametrize("file", SOURCES, ids=name_of)
def test_tensors_go_to_a_device_that_is_passed(file):
    assert ".cuda(" not in file.read_text()


def test_networks_are_never_pickled_or_read_with_their_code_but_in_one_place():
    loads = {name_of(file) for file in SOURCES if "weights_only=False" in file.read_text()}
    assert loads <= {"utils.checkpoint.external"}


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
