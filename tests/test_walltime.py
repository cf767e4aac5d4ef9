"""How much time is left, and what fits into it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from conftest import SMALL, train

from dials_mpi.config import Config, load
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput
from dials_mpi.run.session import SessionStart, require_time
from dials_mpi.run.walltime import Deadline, Pace, deadline_of, scheduler_end, seconds, work
from dials_mpi.storage.progress import Progress


@pytest.mark.quick
@pytest.mark.parametrize(
    ("text", "expected"),
    [("3:50:00", 13800), ("0:00:01", 1), ("100:00:00", 360_000), ("1-00:00:00", 86_400), (" 0:10:05 ", 605)],
)
def test_a_walltime_is_hours_minutes_and_seconds(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "3", "3:50", "3:50:00:00", "3:60:00", "3:00:60", "-1:00:00", "1h", "0:00:00", "٣:50:00", "1-3:0:0"],
)
def test_another_walltime_is_refused_with_an_example(text):
    with pytest.raises(BadInput, match="such as 3:50:00"):
        seconds(text)


# The scheduler ---------------------------------------------------------------------------------------------


def squeue(folder, script: str, monkeypatch) -> None:
    """A squeue of the test's own on the path."""
    (folder / "squeue").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_without_a_job_there_is_no_end():
    assert scheduler_end({}) is None


def test_the_end_that_the_environment_tells():
    assert scheduler_end({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": "1790000000"}) == 1_790_000_000


def test_the_end_that_squeue_tells(tmp_path, monkeypatch):
    """SLURM before 23.02 sets no SLURM_JOB_END_TIME; squeue answers in local time."""
    end = datetime.now().replace(microsecond=0) + timedelta(hours=2)
    squeue(tmp_path, f'echo "$@" > {tmp_path}/asked; echo {end.isoformat()}', monkeypatch)
    assert scheduler_end({"SLURM_JOB_ID": "4711"}) == end.timestamp()
    assert "4711" in (tmp_path / "asked").read_text()
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    deadline, notes = deadline_of(None, time.monotonic())
    assert deadline.left() == pytest.approx(7200, abs=5)
    assert "ends in" in notes[0]
    deadline, notes = deadline_of("0:01:00", time.monotonic() - 20)
    assert deadline.left() == pytest.approx(40, abs=1) and notes == ()


def test_a_task_of_an_array_is_asked_for_by_its_own_name(tmp_path, monkeypatch):
    """The plain number of the last task is that of the array, and squeue would answer for every task."""
    squeue(tmp_path, f'echo "$@" > {tmp_path}/asked; echo 2030-01-01T00:00:00', monkeypatch)
    job = {"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    assert scheduler_end(job) == datetime(2030, 1, 1).timestamp()
    assert "7_3" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize("script", ["exit 3", "echo", "echo soon", "exit 127"])
def test_a_scheduler_that_does_not_tell_is_no_reason_to_fail_but_said(tmp_path, monkeypatch, script):
    squeue(tmp_path, script, monkeypatch)
    with pytest.raises(LookupError, match="squeue"):
        scheduler_end({"SLURM_JOB_ID": "1"})
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    deadline, notes = deadline_of(None, time.monotonic())
    assert deadline.left() == float("inf") and "give the argument walltime" in notes[0]


def test_a_job_without_a_limit_has_no_end(tmp_path, monkeypatch):
    squeue(tmp_path, "echo N/A", monkeypatch)
    assert scheduler_end({"SLURM_JOB_ID": "1"}) is None


# What fits -------------------------------------------------------------------------------------------------


def test_the_longest_of_late_counts():
    pace = Pace({"train": 100.0})
    for spent in (1, 3, 2):
        with pace("train"):
            time.sleep(spent / 100)
    assert 0.03 <= pace.known()["train"] < 1
    assert Pace(pace.known()).known() == pace.known()


def test_one_slow_segment_keeps_no_later_session_out():
    """Between sessions the middle time counts, of two the shorter; within one the longest."""
    pace = Pace()
    for spent, usual in ((40.0, 40.0), (0.3, 0.3), (0.5, 0.5), (0.6, 0.5)):
        pace.note("train", spent)
        assert pace.usual() == {"train": usual}
    assert pace.known() == {"train": 0.6}


def test_work_is_the_sum_of_its_kinds():
    assert Pace({"train": 2.0, "evaluate": 3.0}).takes(["train", "evaluate", "evaluate", "unknown"]) == 8


def test_the_end_may_be_given_as_a_moment():
    deadline, notes = deadline_of(f"@{int(time.time()) + 100}", time.monotonic() - 50)
    assert deadline.left() == pytest.approx(100, abs=2) and notes == ()
    for text in ("@", "@x", "@-5", "@1e9"):
        with pytest.raises(BadInput, match="such as 3:50:00"):
            deadline_of(text, time.monotonic())


def test_a_job_whose_end_is_over_begins_nothing(monkeypatch):
    """As in a terminal that was opened in an allocation of yesterday."""
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1000000000")
    deadline, _ = deadline_of(None, time.monotonic())
    with pytest.raises(BadInput, match="give more with the argument walltime"):
        require_time(SessionStart(Config(), "somewhere"), deadline, 3)


def test_a_segment_is_made_of_the_work_that_it_has():
    config = load(None, ["evaluate_every=200_000", "segment_every=100_000", "retrain_every=2_000_000"])
    first, second = segments(config)[:2]
    for ranks in (1, 3):
        assert work(config, first, second, ranks, first=True) == ["collect", "fit", "train", "checkpoint"]
        assert work(config, second, None, ranks, first=False) == ["train", "evaluate", "checkpoint"]


OVERLAPPED = (
    "schedule=overlapped",
    "evaluate_every=200_000",
    "segment_every=100_000",
    "retrain_every=200_000",
)


def test_what_is_played_ahead_takes_time_only_beside_the_training():
    config = load(None, OVERLAPPED)
    first, second, third = segments(config)[:3]
    assert (first.refit, second.refit, third.refit) == (True, False, True)
    ahead = (["train"], ["collect"])
    assert work(config, second, third, 3, first=False) == [ahead, "checkpoint"]
    assert work(config, first, second, 3, first=True) == [
        "collect",
        "fit",
        (["train"], ["evaluate"]),
        "checkpoint",
    ]
    assert work(config, third, None, 3, first=False)[0] == "fit", "collected before"
    pace = Pace({"train": 5.0, "collect": 7.0, "checkpoint": 1.0})
    assert pace.takes([ahead, "checkpoint"]) == 8
    assert pace.takes(work(config, second, third, 1, first=False)) == 13, "a single rank does it in sequence"
    everywhere = load(None, [*OVERLAPPED, "mode=global"])
    assert work(everywhere, replace(first, refit=False), second, 3, first=True) == [
        "train",
        "evaluate",
        "checkpoint",
    ]


@pytest.mark.quick
@pytest.mark.parametrize(("left", "fits"), [(200, True), (120, False)])
def test_a_segment_that_does_not_fit_is_refused_before_it_begins(left, fits):
    known = {"collect": 10.0, "fit": 30.0, "train": 50.0, "evaluate": 5.0, "checkpoint": 5.0}
    start = SessionStart(Config(), "somewhere", Progress(ranks=3, seconds=known))
    deadline = Deadline(time.monotonic() + left)
    if fits:
        require_time(start, deadline, 3)
    else:
        with pytest.raises(BadInput, match=r"about 100 s on 3 ranks, and there are 1[12]\d s left"):
            require_time(start, deadline, 3)
    require_time(start, deadline, 5)  # how long it takes on 5 is not known


def test_a_run_stops_in_time_and_goes_on_to_the_same_end(trained, tmp_path):
    """The walltime leaves room for some segments and not for all."""
    from test_ranks import differing, results

    settings = (*SMALL, "total_steps=6400")
    how = ("--output", str(tmp_path / "out"), "--resume")
    begun = time.monotonic()
    first = train(*settings, *how, "--walltime", "0:00:06", ranks=3)
    took = time.monotonic() - begun
    assert (first.code, first.stderr) == (75, "")
    assert (
        "stopped at" in first.stdout and took < 20
    )  # three seconds of work, and the start and end on a busy machine
    assert "the time limit leaves no room for another segment\n" in first.stdout
    rest = train(*settings, *how, ranks=2)
    assert (rest.code, rest.stderr) == (0, "")
    assert differing(results(trained(*settings)), results(tmp_path / "out")) == []
