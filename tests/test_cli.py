"""Paths on command lines: ~ is the home folder in every form; printed command lines can be pasted."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from conftest import SMALL, launch, train

from dials_mpi.cli import Parser
from dials_mpi.core.shell import command

NAMES = ["plain", "two words", "it's", '"$HOME"', "a;b|c&d>e", "*", "~", "~/x", "-n", "=", "é", "\\", "#"]
ODD = ["two\nlines", "\x1b[31mred", "byte \udcff", "tab\tand 'quote'\n", "\x0177", "\\\n"]


def parsed(*words):
    parser = Parser("none", "", "")
    parser.add_argument("words", nargs="*")
    parser.add_argument("--output")
    return parser.parse_intermixed_args(words)


@pytest.mark.quick
def test_a_tilde_is_the_home_folder_in_options_and_arguments(monkeypatch):
    monkeypatch.setenv("HOME", "/home/of mine")
    given = parsed("~/run", "~", "key=~/x", "a~b", "--output=~/x")
    assert given.words == ["/home/of mine/run", "/home/of mine", "key=~/x", "a~b"]
    assert given.output == "/home/of mine/x"
    assert parsed("--output", "~/x").output == "/home/of mine/x"
    assert parsed("--output=./~/x", "./~").output == "./~/x"
    assert parsed("--output=a=~/x").output == "a=~/x"


def test_no_folder_is_named_tilde(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    environment = {"HOME": str(home)}
    done = train(*SMALL, "total_steps=128", "--output=~/x", cwd=tmp_path, environment=environment)
    assert done.code == 0, done.stderr
    assert (home / "x" / "run.h5").is_file() and not (tmp_path / "~").exists()
    report = ("-m", "dials_mpi.archive", "~/x", "--out=~/copies")
    done = launch(*report, cwd=tmp_path, environment=environment)
    assert done.code == 0 and (home / "copies" / "x" / "run.h5").is_file(), done.stderr


@pytest.mark.parametrize(
    ("shell", "name"), [*(("sh", name) for name in NAMES), *(("bash", name) for name in NAMES + ODD)]
)
def test_a_shell_reads_the_paths_of_a_printed_command(shell, name):
    """ODD names need $'...', which bash, zsh and ksh support."""
    line = command("evaluate", name)
    assert line.isprintable()
    script = f'python() {{ printf "%s\\0" "$@"; }}; {line}'
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, env={"HOME": "/none", "PATH": os.defpath}
    )
    assert done.returncode == 0, done.stderr
    *_, got = done.stdout.removesuffix(b"\0").split(b"\0")
    assert os.path.normpath(os.fsdecode(got)) == os.path.normpath(name)
    assert not got.startswith((b"-", b"~"))


def test_the_printed_command_can_be_pasted(tmp_path):
    name = "it's [b]my[/b] $run; 1"
    first, again = (train(*SMALL, "--output", name, "--resume", cwd=tmp_path) for _ in range(2))
    assert (first.code, again.code) == (0, 0), first.stderr
    last = first.stdout.splitlines()[-1].removeprefix("Evaluate again: ")
    assert again.stdout.splitlines()[-1].endswith(f" is finished: {last}")
    assert shlex.split(last) == ["python", "-m", "dials_mpi.evaluate", name]
    assert Path(tmp_path / name / "run.h5").is_file()
