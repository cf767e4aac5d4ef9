"""The quick tier, ``pytest -m quick``, tests every package: each has a marked test that uses it directly."""

from __future__ import annotations

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

import dials_mpi

PACKAGE = Path(dials_mpi.__file__).parent
TESTS = Path(__file__).parent
PARTS = {
    *(
        ".".join(("dials_mpi", *folder.parent.relative_to(PACKAGE).parts))
        for folder in PACKAGE.rglob("__init__.py")
    ),
    *(f"dials_mpi.{file.stem}" for file in PACKAGE.glob("[a-z]*.py")),
} - {"dials_mpi"}
"""All packages, and the modules beside them."""


def is_quick(node: ast.stmt) -> bool:
    """Whether a function, or one of its parameters, has the marker."""
    return any("pytest.mark.quick" in ast.unparse(mark) for mark in getattr(node, "decorator_list", ()))


def names_in(node: ast.AST) -> set[str]:
    """All names in a piece of code; also parameters, which may be fixtures, and modules in strings."""
    names = {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}
    names |= {found.arg for found in ast.walk(node) if isinstance(found, ast.arg)}
    names |= {found.module for found in ast.walk(node) if isinstance(found, ast.ImportFrom) and found.module}
    texts = [found.value for found in ast.walk(node) if isinstance(found, ast.Constant)]
    return names.union(*(re.findall(r"dials_mpi(?:\.\w+)+", text) for text in texts if isinstance(text, str)))


def defined(node: ast.stmt) -> dict[str, set[str]]:
    """The names that a statement of a module defines -> the names that each of them uses."""
    if isinstance(node, ast.ImportFrom):
        return {
            alias.asname or alias.name: {node.module, f"{node.module}.{alias.name}"} for alias in node.names
        }
    if isinstance(node, ast.Import):
        return {(alias.asname or alias.name).split(".")[0]: {alias.name} for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name: names_in(node)}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id: names_in(node) for target in targets if isinstance(target, ast.Name)}


def used_by_quick_tests(file: Path) -> set[str]:
    """The package's modules that a file's quick tests use, also through helpers in it and in conftest."""
    body = ast.parse(file.read_text()).body
    uses: dict[str, set[str]] = defaultdict(set)
    for node in [*ast.parse((TESTS / "conftest.py").read_text()).body, *body]:
        for name, names in defined(node).items():
            uses[name] |= names
    reached: set[str] = set()
    new = {node.name for node in body if is_quick(node)}
    while new:
        reached |= new
        new = set().union(*(uses[name] for name in new)) - reached
    return {name for name in reached if name and name.startswith("dials_mpi.")}


@functools.cache
def used() -> set[str]:
    """What the quick tests of all files use."""
    files = (file for file in TESTS.glob("test_*.py") if file != Path(__file__))
    return set().union(*map(used_by_quick_tests, files))


@pytest.mark.quick
@pytest.mark.parametrize("part", sorted(PARTS))
def test_a_quick_test_uses_the_package(part):
    assert [name for name in used() if f"{name}.".startswith(f"{part}.")] != []


@pytest.mark.quick
def test_only_what_marked_tests_use_counts(tmp_path):
    file = tmp_path / "test_x.py"
    file.write_text(
        "from dials_mpi import study\n"
        "from dials_mpi.report import runs as other\n"
        "def helper():\n    study.run()\n"
        "@pytest.mark.quick\ndef test_marked():\n    helper()\n"
        "def test_unmarked():\n    other.read()\n"
        "@pytest.mark.quick\ndef test_program(trained):\n    launch('-m', 'dials_mpi.fidelity')\n"
    )
    expected = {"dials_mpi.study", "dials_mpi.fidelity", "dials_mpi.train"}
    assert used_by_quick_tests(file) == expected
