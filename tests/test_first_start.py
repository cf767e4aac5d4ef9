"""What a first start says: once for each kind of work, with its time; nothing if the cache has everything."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

from dials_mpi.core import first_start
from dials_mpi.core.first_start import Work, announced, making

PROGRAM = """
from dials_mpi.core.output import command_line
from dials_mpi.core.jit import compiled
from dials_mpi.domains.traffic.network import Network

def twice(number):
    return 2 * number

def thrice(number):
    return number + inner(number)

inner = compiled(twice)

@command_line
def main():
    Network(1, 1, 1, 100.0, 10.0).files()
    print(inner(2.0), compiled(thrice)(2))
    raise SystemExit(0)

main()
"""


@pytest.fixture
def program(tmp_path):
    """A command that builds a road network and compiles two functions; its cache is empty at first."""
    (tmp_path / "program.py").write_text(PROGRAM)
    return {
        "args": [sys.executable, "program.py"],
        "cwd": tmp_path,
        "env": {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    }


def test_a_first_start_says_what_it_does_and_a_second_one_nothing(program):
    first, second = (subprocess.run(**program, capture_output=True, text=True, timeout=60) for _ in range(2))
    assert first.returncode == second.returncode == 0 and first.stdout == second.stdout
    said = [re.sub(r"\d+\.\d s", "T", line) for line in first.stderr.splitlines()]
    assert said == [
        "dials_mpi: first start: building the road network took T",
        "dials_mpi: first start: compiling the inner loops ...",
        "dials_mpi: first start: compiling the inner loops took T",
    ]
    assert second.stderr == ""


def test_other_ranks_say_nothing(program):
    program["env"]["PMI_RANK"], program["env"]["PMI_SIZE"] = "1", "2"
    assert subprocess.run(**program, capture_output=True, text=True, timeout=60).stderr == ""


def test_at_a_terminal_the_line_is_removed_when_the_work_is_done(program):
    ours, theirs = pty.openpty()
    subprocess.run(**program, stdout=subprocess.PIPE, stderr=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    removed = re.sub(r"[^\n]*\r\x1b\[K", "", shown.replace("\r\n", "\n"))
    assert "compiling the inner loops ...\r\x1b[K" in shown and "..." not in removed
    lines = [re.sub(r"\d+\.\d s", "T", line) for line in removed.splitlines()]
    assert [line.rpartition(": ")[2] for line in lines] == [
        "building the road network took T",
        "compiling the inner loops took T",
    ]


@pytest.fixture
def heard(monkeypatch):
    """The texts that are said, and a clock that goes on by a second with each look."""
    texts, times = [], iter(range(100))
    monkeypatch.setattr(first_start, "_is_announced", lambda: bool(first_start._listeners))
    monkeypatch.setattr(first_start, "_write", texts.append)
    monkeypatch.setattr(first_start.time, "monotonic", lambda: next(times))
    return texts


@pytest.mark.quick
def test_what_was_compiled_before_is_not_said_later(heard):
    first_start.compiling.begin()
    first_start.compiling.pause()
    with announced():
        pass
    assert heard == []


@pytest.mark.quick
def test_pieces_count_together_and_those_inside_others_not_twice(heard):
    with announced():
        work = Work("working")
        work.end()  # there was none
        for _ in range(2):
            work.begin()
            work.begin()
            work.pause()
            work.pause()
        work.end()
        work.end()
    assert heard == ["dials_mpi: first start: working ...\n", "dials_mpi: first start: working took 2.0 s\n"]


def test_only_a_program_that_is_watched_says_it(heard):
    with making("nothing"):
        pass
    assert heard == []
    with announced(), making("something", brief=True):
        pass
    assert heard == ["dials_mpi: first start: something took 1.0 s\n"]
    with announced(), pytest.raises(OSError), making("something"):
        raise OSError
    assert heard[1:] == ["dials_mpi: first start: something ...\n"]
