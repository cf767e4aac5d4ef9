"""What results/ shows is what its archived runs say: each report of theirs on the pages, drawn again."""

import re
import shlex
from itertools import chain
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_run import rows_of
from test_docs import COMMANDS, ROOT, of_results

from dials_mpi.report.__main__ import main
from dials_mpi.storage.runfile import RunFile

RUNS = ROOT / "results" / "runs"
REPORTS = [
    shlex.split(command.line)[3:]
    for command in COMMANDS.values()
    if command.program == "report" and of_results(command)
]


def expanded(words):
    """The words of a command line, patterns as a shell in the checkout makes names of them."""
    return list(chain.from_iterable(sorted(map(str, ROOT.glob(w))) if "*" in w else [w] for w in words))


def folder_of(words):
    return words[words.index("--out") + 1]


def same(one, other):
    """Two cells of a table; numbers to the digits that are written."""
    try:
        return bool(np.isclose(float(one), float(other), rtol=2e-5))
    except ValueError:
        return one == other


@pytest.mark.parametrize("words", REPORTS, ids=folder_of)
def test_the_tables_of_the_results_are_those_of_their_runs(words, tmp_path, capsys, tables_alone):
    committed = ROOT / folder_of(words)
    words = expanded(words)
    words[words.index("--out") + 1] = str(tmp_path)
    with pytest.raises(SystemExit, match="0"):
        main(words)
    tables = {file.name for file in tmp_path.glob("*.csv")}
    finals = "finals.csv" if "--statistic" in words else "returns.csv"
    assert tables == {file.name for file in committed.glob("*.csv")} and finals in tables
    for name in tables:
        new, old = (rows_of(folder / name) for folder in (tmp_path, committed))
        assert len(new) == len(old) and [list(row) for row in new] == [list(row) for row in old], name
        assert all(same(a[key], b[key]) for a, b in zip(new, old, strict=True) for key in a), name
    pictures = {file.name for file in tmp_path.glob("*.png")}
    assert {file.name for file in committed.glob("*.png")} <= pictures


def test_every_archived_run_is_finished_reported_and_small():
    runs = {path.parent for path in RUNS.rglob("run.h5")}
    reported = {Path(word) for words in REPORTS for word in expanded(words) if word.startswith(str(RUNS))}
    assert runs and runs == reported
    for directory in runs:
        run = RunFile.open(directory)
        assert run.finished() and run.archived(), directory
        with h5py.File(run.path) as file:
            agents = file["evaluation/returns"].shape[-1]
        assert run.path.stat().st_size < max(500_000, 1_500 * agents), directory
        assert re.fullmatch(r"[0-9a-f]{40}", run.attributes()["git_commit"]), directory
