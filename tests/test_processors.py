"""Runs on several kinds of processor: what is recorded and said, since these may round differently."""

from pathlib import Path

import h5py
from conftest import SMALL, launch, train

from dials_mpi.core.jit import processor
from dials_mpi.core.provenance import roundings
from dials_mpi.storage.runfile import RunFile

OTHER = "another avx2"
RANK_2_ON_ANOTHER = f"""
import os
from dials_mpi import system
from dials_mpi.parallel.communicator import RANK_VARIABLES
from dials_mpi.train import main
if "2" in map(os.environ.get, RANK_VARIABLES):
    system.processor = lambda: "{OTHER}"
main()
"""


def processors_of(directory):
    with h5py.File(directory / "run.h5") as file:
        return [list(file[f"config/{k}"].attrs["processors"]) for k in range(len(file["config"]))]


def test_ranks_and_sessions_on_one_kind_need_no_word(tmp_path):
    output = ("--output", str(tmp_path))
    first = train(*SMALL, *output, ranks=3)
    then = train(*SMALL, *output, "--resume", "total_steps=384")
    assert (first.code, then.code) == (0, 0), first.stderr + then.stderr
    assert "round" not in first.stdout + then.stdout
    assert processors_of(tmp_path) == [[processor()] * 3, [processor()]]


def test_several_kinds_are_recorded_and_said(tmp_path):
    output = ("--output", str(tmp_path))
    first = launch("-c", RANK_2_ON_ANOTHER, *SMALL, *output, ranks=3)
    assert first.code == 0, first.stderr
    mine = processor()
    assert f"several kinds of processor (2 on {mine}, 1 on {OTHER}), which may round" in first.stdout
    then = train(*SMALL, *output, "--resume", "total_steps=384")
    assert then.code == 0, then.stderr
    assert f"runs on {mine}, those before ran on {mine} and {OTHER}: they may round" in then.stdout
    assert processors_of(tmp_path) == [[mine, mine, OTHER], [mine]]


def test_the_kind_is_what_code_is_made_for():
    shown = "from dials_mpi.core.jit import processor; print(processor())"
    mine, other = (launch("-c", shown, environment=given).stdout for given in ({}, {"NUMBA_CPU_NAME": "x"}))
    assert mine.strip() == processor() and other.split() == ["x", *mine.split()[1:]]


def test_what_is_said():
    assert roundings(["a", "a"], []) == roundings(["a", "a"], ["a"]) == []
    mixed, changed = roundings(["a", "b", "a"], ["a"])
    assert "(2 on a, 1 on b)" in mixed and "may depend on which rank holds which region" in mixed
    assert "runs on a and b, those before ran on a:" in changed
    assert len(roundings(["a", "b"], ["b", "a"])) == 1, "as before, but mixed"


def test_a_run_of_before_this_was_noted_tells_none():
    archived = Path(__file__).parent.parent / "results" / "runs" / "warehouse-4-gs-seed0"
    assert RunFile.open(archived).processors() == []
