"""One rank goes wrong: every rank ends within seconds, with a non-zero exit code and the reason visible."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SMALL, Finished, in_terminal, launch

END_WITHIN = 5.0  # seconds

DRIVER = """
import os, signal, sys, time
from pathlib import Path

from dials_mpi import train
from dials_mpi.learners import Learners
from dials_mpi.system import System

method, call, rank, action, stamp = sys.argv[1:6]
place = {"collect": System, "evaluate": System, "fit": Learners, "train": Learners, "finish": System}[method]
right, calls = getattr(place, method), []

def wrong(self, *arguments, **named):
    calls.append(method)
    if me.rank == int(rank) and len(calls) == int(call):
        Path(stamp).write_text(repr(time.time()))
        exec(action)
    if BUSY and me.rank == BUSY:
        while True:
            pass
    return right(self, *arguments, **named)

BUSY = int(os.environ.get("BUSY_RANK", 0))
setattr(place, method, wrong)
connect = train.mpi.connect

def remember():
    global me
    me = connect()
    return me

train.mpi.connect = remember
train.main(sys.argv[6:])
"""

RAISE = "raise ValueError('the shelf fell over')"
LEAVE = "sys.exit(3)"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"


def fail(
    tmp_path: Path,
    method: str,
    rank: int,
    action: str,
    ranks: int | None = 3,
    call: int = 1,
    busy: int = 0,
    settings: tuple[str, ...] = SMALL,
) -> Finished:
    """A run in which ``rank`` does ``action`` at the given call of a method; it must end soon after."""
    driver, stamp = tmp_path / "driver.py", tmp_path / "stamp"
    driver.write_text(DRIVER)
    arguments = [
        method,
        str(call),
        str(rank),
        action,
        str(stamp),
        *settings,
        "--output",
        str(tmp_path / "out"),
    ]
    result = launch(str(driver), *arguments, ranks=ranks, environment={"BUSY_RANK": str(busy)})
    assert result.ended - float(stamp.read_text()) < END_WITHIN
    assert result.code != 0
    assert result.left_over == []
    return result


@pytest.mark.parametrize(
    ("method", "rank", "call"),
    [
        ("collect", 0, 2),
        ("fit", 1, 2),
        ("train", 2, 1),
        ("evaluate", 0, 2),
        ("evaluate", 1, 3),
        ("finish", 0, 1),
    ],
)
def test_an_exception_on_one_rank_ends_all(tmp_path, method, rank, call):
    result = fail(tmp_path, method, rank, RAISE, call=call)
    assert result.code == 1
    assert f"rank {rank} of 3" in result.ours()[0]
    assert len(result.ours()) == 1
    assert "Traceback (most recent call last):" in result.stderr
    assert "ValueError: the shelf fell over" in result.stderr


def test_an_exception_reaches_a_rank_that_computes(tmp_path):
    result = fail(tmp_path, "train", 1, RAISE, busy=2)
    assert "ValueError: the shelf fell over" in result.stderr


def test_five_ranks_end_with_the_fourth(tmp_path):
    result = fail(tmp_path, "train", 3, RAISE, ranks=5, call=2)
    assert "rank 3 of 5" in result.ours()[0] and "ValueError" in result.stderr


def test_training_on_the_global_simulator_ends_too(tmp_path):
    result = fail(tmp_path, "train", 0, RAISE, settings=(*SMALL, "mode=global"))
    assert "rank 0 of 3" in result.ours()[0] and "ValueError" in result.stderr


@pytest.mark.parametrize("ranks", [None, 1])
def test_a_single_rank_crashes_with_its_traceback(tmp_path, ranks):
    result = fail(tmp_path, "train", 0, RAISE, ranks=ranks)
    assert result.code == 1
    assert "rank 0 of 1" in result.ours()[0] and "ValueError: the shelf fell over" in result.stderr


@pytest.mark.parametrize(("method", "rank"), [("collect", 0), ("train", 2)])
def test_an_exit_of_one_rank_ends_all(tmp_path, method, rank):
    result = fail(tmp_path, method, rank, LEAVE)
    assert result.code == 3
    assert result.ours() == [f"dials_mpi: rank {rank} of 3 exits with 3"]


def test_an_exit_shows_its_message(tmp_path):
    result = fail(tmp_path, "train", 1, "sys.exit('no room on the shelf')")
    assert result.code == 1
    assert result.ours() == ["dials_mpi: rank 1 of 3 exits with 1: no room on the shelf"]


def test_an_exit_with_code_0_amid_the_run_is_a_fault_as_well(tmp_path):
    result = fail(tmp_path, "train", 1, "sys.exit()")
    assert result.code == 1
    assert "rank 1 of 3" in result.ours()[0]


@pytest.mark.parametrize(("method", "rank"), [("evaluate", 0), ("train", 2)])
def test_a_killed_rank_ends_all(tmp_path, method, rank):
    result = fail(tmp_path, method, rank, KILL, call=2)
    assert "signal 9" in result.stdout + result.stderr or "Killed" in result.stdout + result.stderr


def test_a_crash_gives_the_terminal_back(tmp_path):
    """The progress bar hides the cursor; after a crash it is visible again."""
    driver = tmp_path / "driver.py"
    driver.write_text(DRIVER)
    arguments = ["train", "1", "0", RAISE, str(tmp_path / "stamp"), *SMALL, "--output", str(tmp_path / "out")]
    shown, stderr = in_terminal(str(driver), *arguments)
    assert b"the shelf fell over" in stderr
    hidden, visible = shown.rfind(b"\x1b[?25l"), shown.rfind(b"\x1b[?25h")
    assert hidden >= 0, "no bar was shown"
    assert visible > hidden
