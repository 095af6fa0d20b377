"""The structure of the project: five modules at the root, one package per stage, imports only from later to earlier ones."""

import ast
import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from support import PROJECT

RANKS = (
    {"train", "evaluate", "gradcam"},
    {"training", "comparison"},
    {"evaluation", "explanation"},
    {"data", "models"},
    {"images", "architectures"},
    {"common"},
)
"""From the top down: a module imports only from rows below its own."""
ROOT_MODULES = {"train.py", "evaluate.py", "gradcam.py", "data.py", "models.py"}
RANK_OF = {name: rank for rank, names in enumerate(RANKS) for name in names}
MODULES = sorted(
    path
    for path in PROJECT.rglob("*.py")
    if path.relative_to(PROJECT).parts[0] in RANK_OF or (path.parent == PROJECT and path.stem in RANK_OF)
)


def imported(path: Path) -> set[str]:
    """First parts of the names of the project's modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or ".").split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_imports_only_step_down(path):
    own = path.relative_to(PROJECT).parts[0].removesuffix(".py")
    allowed = {name for name, rank in RANK_OF.items() if rank > RANK_OF[own]} | {own}
    assert imported(path) & (RANK_OF.keys() | {"benchmarks", "tests"}) <= allowed


def requirements(name: str) -> dict[str, str]:
    """Packages of a requirements file (and of those that it names), with what is asked of their versions."""
    found = {}
    for line in (PROJECT / name).read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r "):
            found |= requirements(line.removeprefix("-r "))
        elif line:
            package, wanted = re.fullmatch(r"([\w.-]+)([<>=!~].*|)", line).groups()
            found[re.sub(r"[-_.]+", "-", package).lower()] = wanted
    return found


@pytest.mark.parametrize(
    ("folders", "file"), [(RANK_OF, "requirements.txt"), (("tests", "benchmarks"), "requirements-dev.txt")]
)
def test_every_imported_package_is_listed(folders, file):
    paths = [
        path for path in PROJECT.rglob("*.py") if path.relative_to(PROJECT).parts[0].removesuffix(".py") in folders
    ]
    names = (
        set().union(*map(imported, paths))
        - sys.stdlib_module_names
        - RANK_OF.keys()
        - {"benchmarks", "support", "processes"}
    )
    distributions = packages_distributions()
    listed = requirements(file).keys() | requirements("requirements-optional.txt").keys()
    unlisted = [
        name for name in names if not {d.replace("_", "-").lower() for d in distributions.get(name, [name])} & listed
    ]
    assert len(paths) > 9 and not unlisted


def test_constraints_pin_what_is_required():
    """Exact versions without local suffixes, which no index resolves."""
    pinned = requirements("constraints.txt")
    assert requirements("requirements-dev.txt").keys() <= pinned.keys()
    assert all(re.fullmatch(r"==[\w.]+", version) for version in pinned.values())


def test_the_root_holds_five_modules():
    assert {path.name for path in PROJECT.glob("*.py")} == ROOT_MODULES


def test_every_module_has_a_rank():
    packages = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    assert packages <= RANK_OF.keys() | {"benchmarks"}
    assert len(MODULES) > 50


DRAWING = {"common.plotting", "explanation.overlays"}
"""Modules that figures are drawn with, which know no more than they do."""
DRAWN = [*PROJECT.rglob("figures.py"), PROJECT / "explanation/overlays.py", PROJECT / "explanation/grids.py"]


@pytest.mark.parametrize("path", sorted(DRAWN), ids=lambda path: f"{path.parent.name}.{path.stem}")
def test_figures_know_no_torch(path):
    tree = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} - DRAWING
    known = {"collections", "dataclasses", "math", "matplotlib", "numpy", "re", "textwrap"}
    assert {name.split(".")[0] for name in names} <= known


SOURCES = sorted(path for folder in (*RANK_OF, "benchmarks", "tests") for path in (PROJECT / folder).rglob("*.py"))
SOURCES += sorted(PROJECT.glob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PROJECT).as_posix())
def test_files_and_functions_are_short(path):
    """At most 350 lines a file (500 of tests), 60 a function, and 7 parameters; keys of a config are not counted."""
    text, name = path.read_text(), path.relative_to(PROJECT).as_posix()
    faults = (
        [f"{name}: {len(text.splitlines())} lines"]
        if len(text.splitlines()) > (500 if name[:5] == "tests" else 350)
        else []
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            given = node.args
            names = [arg.arg for arg in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len(names) - ("self" in names) - ("cls" in names)
            if (
                name.startswith("architectures/") and node.name == "__init__"
            ):  # its keywords are the keys of model.kwargs
                count = len(given.args) - 1
            lines = node.end_lineno - node.lineno + 1
            faults += [f"{name}: {node.name} has {lines} lines"] if lines > 60 else []
            faults += [f"{name}: {node.name} has {count} parameters"] if count > 7 else []
    assert not faults


def test_the_root_holds_no_more_than_it_says():
    """Besides the modules and packages there are only texts, configs, and files for installation and tests."""
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True).stdout.split()
    if not tracked:
        pytest.skip("no checkout of git")
    known = {
        ".ci",
        ".github",
        ".gitignore",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "configs",
    }
    known |= {"constraints.txt", "docs", "outputs", "pyproject.toml", "tests", "benchmarks", *ROOT_MODULES}
    root = {name.partition("/")[0] for name in tracked if not name.startswith("requirements")}
    assert root - known == {name for name in RANK_OF if (PROJECT / name).is_dir()}
