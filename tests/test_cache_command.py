"""The command ``cache``: what is there, and what stays when it is cleaned."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dials_mpi.cache import main
from dials_mpi.core import cache
from dials_mpi.core.cache_content import clean, content
from dials_mpi.core.jit import code_folder
from dials_mpi.domains.traffic.network import Network


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A cache with files of several kinds, 100 kB each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    own = tmp_path / "dials_mpi"
    for name in (code_folder().name, "kernels-old", "networks/a", "networks/b", "platoons", "mine"):
        (own / name).mkdir(parents=True)
        (own / name / "file").write_bytes(bytes(100_000))
    (own / "kernels-old" / "second").write_bytes(bytes(100_000))
    return own


def names(place):
    return {str(path.parent.relative_to(place)) for path in place.rglob("file")}


@pytest.mark.quick
def test_the_sizes_are_those_of_the_files(place, in_process):
    said = in_process(main)()
    lines = [line.split("│")[1:4] for line in said.stdout.splitlines() if line.startswith("│")]
    assert {about.strip(): (int(files), size.strip()) for about, files, size in lines} == {
        "machine code of the inner loops, of this version": (1, "0.1"),
        "machine code of the inner loops, of other versions": (2, "0.2"),
        "road networks of grids": (2, "0.2"),
        "recorded platoons of grids": (1, "0.1"),
        "others": (1, "0.1"),
        "all": (7, "0.7"),
    }
    assert str(place) in said.stdout and names(place) >= {"networks/a", "mine"}


def test_cleaning_removes_what_it_says(place, in_process):
    said = in_process(main)("--clean", "old")
    assert said.code == 0 and "0.2 MB removed" in said.stdout
    assert names(place) == {code_folder().name, "networks/a", "networks/b", "platoons", "mine"}
    said = in_process(main)("--clean")
    assert said.code == 0 and names(place) == {"mine"}  # which this package has not made
    assert not (place / "networks").exists()


HOLDER = """
import sys
from pathlib import Path
from dials_mpi.core import cache
cache.hold(Path(sys.argv[1]))
cache.hold(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_what_another_process_reads_in_place_stays_until_it_ends(place, in_process):
    command = [sys.executable, "-c", HOLDER, str(place / "networks" / "a")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        said = in_process(main)("--clean")
        assert "1 road networks or demands stay" in said.stdout and names(place) == {"networks/a", "mine"}
        other.communicate("\n")
    in_process(main)("--clean")
    assert names(place) == {"mine"}


def test_a_road_network_that_this_process_uses_stays(tmp_path, monkeypatch, in_process):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    files = Network(2, 2, 1, 100, 10).files()
    assert "1 road networks or demands stay" in in_process(main)("--clean").stdout
    assert all(file.is_file() for file in files)


def test_what_belongs_to_another_user_stays(place, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    done = clean(content(place))
    assert (done.removed, done.of_others) == (0, 5) and "platoons" in names(place)


def test_an_empty_cache_and_none(tmp_path, monkeypatch, in_process):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "It is empty." in in_process(main)().stdout
    assert in_process(main)("--clean").code == 0
    monkeypatch.setattr(cache, "folder", lambda _: None)
    said = in_process(main)()
    assert said.code == 2 and "set XDG_CACHE_HOME" in said.stderr
