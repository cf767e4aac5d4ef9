"""Runs on several kinds of processor: what is recorded, and what is said, since these round differently."""

import platform
from pathlib import Path

import h5py
import pytest
from conftest import SMALL, launch, train

from dials_mpi.compiled import processor
from dials_mpi.provenance import roundings
from dials_mpi.storage.runfile import RunFile

OLDER = "haswell"
AS_OLDER = f"""
import os
from dials_mpi.ranks import RANK_VARIABLES
if "2" in map(os.environ.get, RANK_VARIABLES):
    os.environ["NUMBA_CPU_NAME"] = "{OLDER}"
from dials_mpi.train import main
main()
"""
"""The training program, whose rank 2 compiles as if on another processor."""


def processors_of(directory):
    with h5py.File(directory / "run.h5") as file:
        return [list(file[f"config/{k}"].attrs["processors"]) for k in range(len(file["config"]))]


def test_ranks_and_sessions_on_one_kind_need_no_word(tmp_path):
    output = ("--output", str(tmp_path))
    first = train(*SMALL, *output, ranks=3)
    then = train(*SMALL, *output, "--resume", "total_steps=384")
    assert (first.code, then.code) == (0, 0), first.stderr + then.stderr
    assert "round differently" not in first.stdout + then.stdout
    assert processors_of(tmp_path) == [[processor()] * 3, [processor()]]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other kind is one of x86_64")
def test_several_kinds_are_recorded_and_said(tmp_path):
    output = ("--output", str(tmp_path))
    first = launch("-c", AS_OLDER, *SMALL, *output, ranks=3)
    assert first.code == 0, first.stderr
    mine, other = processor(), " ".join([OLDER, *processor().split()[1:]])
    assert f"several kinds of processor (2 on {mine}, 1 on {other}), which round differently" in first.stdout
    then = train(*SMALL, *output, "--resume", "total_steps=384")
    assert then.code == 0, then.stderr
    assert f"this session runs on {mine}, those before ran on {mine} and {other}: they round" in then.stdout
    assert processors_of(tmp_path) == [[mine, mine, other], [mine]]


def test_what_is_said():
    assert roundings(["a", "a"], []) == roundings(["a", "a"], ["a"]) == []
    mixed, changed = roundings(["a", "b", "a"], ["a"])
    assert "(2 on a, 1 on b)" in mixed and "depend on which rank holds which region" in mixed
    assert "runs on a and b, those before ran on a:" in changed
    assert len(roundings(["a", "b"], ["b", "a"])) == 1, "as before, but mixed"


def test_a_run_of_before_this_was_noted_tells_none():
    archived = Path(__file__).parent.parent / "results" / "runs" / "warehouse-4-gs-seed0"
    assert RunFile.open(archived).processors() == []
