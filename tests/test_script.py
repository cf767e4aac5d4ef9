"""The console script ``dials``, whose subcommands are the commands of ``python -m dials_mpi.NAME``."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest
from conftest import SMALL, launch
from test_house import COMMANDS, FILES, trees

import dials_mpi
from dials_mpi import __main__ as script

PYPROJECT = Path(dials_mpi.__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def dials(tmp_path):
    """The script as an installer writes it, in a folder that is not the working folder."""
    module, function = tomllib.loads(PYPROJECT.read_text())["project"]["scripts"]["dials"].split(":")
    file = tmp_path / "bin" / "dials"
    file.parent.mkdir()
    file.write_text(f"import sys\nfrom {module} import {function}\nsys.exit({function}())\n")
    return str(file)


def descriptions() -> dict[str, str]:
    """What each command's parser says of it, from its source."""
    calls = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.Call)]
    parsers = [call for call in calls if ast.unparse(call.func) == "Parser"]
    return {ast.literal_eval(call.args[0]): ast.literal_eval(call.args[1]) for call in parsers}


@pytest.mark.quick
def test_every_command_is_in_the_table():
    assert set(script.COMMANDS) == set(COMMANDS)
    assert descriptions() == script.COMMANDS
    assert {name for name in COMMANDS if f"dials_mpi.{name}.__main__" in FILES} == set(script.PACKAGES)


def test_help_names_every_command_and_loads_no_library(dials):
    done = launch("-X", "importtime", dials, "--help")
    assert done.code == 0
    for name, about in script.COMMANDS.items():
        assert f"  {name:<10}{about}\n" in done.stdout
    assert "numpy" not in done.stderr and "mpi4py" not in done.stderr
    assert launch("-m", "dials_mpi", "-h").stdout == done.stdout


@pytest.mark.quick
def test_version(dials):
    done = launch(dials, "--version")
    assert (done.code, done.stdout, done.stderr) == (0, f"dials_mpi {dials_mpi.__version__}\n", "")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "no command is given: give one of these"),
        (["trian", "seed=1"], "there is no command 'trian': the nearest is train"),
        (["x\ny"], "there is no command 'x\\ny': give one of train, evaluate, "),
        (["--train"], "there is no command '--train': the nearest is train"),
    ],
)
def test_what_is_no_command_is_refused_in_one_sentence(dials, words, reason):
    done = launch(dials, *words)
    assert (done.code, bool(done.stdout)) == (2, not words)  # without any word, the list of commands
    assert done.stderr.startswith(f"dials_mpi: {reason}") and done.stderr.count("\n") == 1


def test_root_alone_answers(dials):
    done = launch(dials, "--version", ranks=3)
    assert (done.code, done.stdout) == (0, f"dials_mpi {dials_mpi.__version__}\n")
    assert len(launch(dials, "nothing", ranks=3).ours()) == 1


def test_usage_names_the_program_as_it_was_started(dials):
    """All else is the same."""
    by_script, by_module = launch(dials, "archive", "--help"), launch("-m", "dials_mpi.archive", "--help")
    assert (by_script.code, by_module.code) == (0, 0)
    assert by_script.stdout.startswith("usage: dials archive [-h]")
    assert by_module.stdout.startswith("usage: python -m dials_mpi.archive [-h]")
    example = "  dials report results/runs/* --out figures "
    assert example in by_script.stdout and "python -m" not in by_script.stdout
    assert example.replace("dials report", "python -m dials_mpi.report") in by_module.stdout
    refused = launch(dials, "archive", "x")
    assert (refused.code, refused.stdout) == (2, "")
    assert refused.stderr.endswith("see dials archive --help\n")


def test_a_run_under_mpirun_is_the_same(dials, tmp_path):
    """The same numbers and files; the last line names the program as it was started."""
    words = (*SMALL, "total_steps=128", "--output")
    first = launch(dials, "train", *words, "script", ranks=3, cwd=tmp_path, timeout=600)
    other = launch("-m", "dials_mpi.train", *words, "module", ranks=3, cwd=tmp_path, timeout=600)
    assert (first.code, first.stderr, other.code) == (0, "", 0)
    assert "Evaluate again: dials evaluate script\n" in first.stdout
    assert "Evaluate again: python -m dials_mpi.evaluate module\n" in other.stdout
    first, other = (
        launch(dials, "evaluate", name, "--episodes", "2", cwd=tmp_path) for name in ("script", "module")
    )
    assert first.code == 0 and first.stdout == other.stdout


def test_a_domain_in_the_working_folder_is_found(dials, tmp_path):
    """As under python -m; but nothing there is taken for a library."""
    (tmp_path / "mine.py").write_text("Config = None\n")
    (tmp_path / "numpy.py").write_text("raise SystemExit('not the library')\n")
    words = ("domain=mine:Nothing", "--print-config")
    by_script = launch(dials, "train", *words, cwd=tmp_path)
    by_module = launch("-m", "dials_mpi.train", *words, cwd=tmp_path)
    assert "Nothing" in by_script.stderr and "not the library" not in by_script.stderr
    assert (by_script.code, by_script.stderr) == (by_module.code, by_module.stderr) and by_script.code == 2


def test_python_m_dials_mpi_is_the_same_program(tmp_path):
    done = launch("-m", "dials_mpi", "archive", "none", "--out", "x", cwd=tmp_path)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr == launch("-m", "dials_mpi.archive", "none", "--out", "x", cwd=tmp_path).stderr
