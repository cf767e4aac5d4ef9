"""Heartbeats and silent ranks, with a clock of the test's own."""

from __future__ import annotations

import pytest

from dials_mpi.parallel import heartbeat as module
from dials_mpi.parallel.heartbeat import Heartbeat

HOSTS = ["alpha", "beta", "gamma"]


class Clock:
    """A clock that the test sets, and the heartbeats between ranks."""

    def __init__(self) -> None:
        self.now, self.sent, self.arrived = 100.0, [], []

    def monotonic(self) -> float:
        return self.now

    def received(self):
        arrived, self.arrived = self.arrived, []
        return arrived


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


def heartbeat(clock, rank=0, silence=10.0, hosts=HOSTS):
    return Heartbeat(rank, hosts, silence, clock.sent.append, clock.received)


def wait(clock, own, seconds, ranks=()):
    """Wait for so many seconds, checking all the time; each of ``ranks`` sends a heartbeat each second."""
    for _ in range(round(seconds * 20)):
        clock.now += 0.05
        if round(clock.now * 20) % 20 == 0:
            clock.arrived += ranks
        own.beat()
        own.check()


@pytest.mark.parametrize(("rank", "watcher"), [(0, 1), (1, 0), (2, 0)])
def test_each_rank_sends_ten_heartbeats_in_the_time_of_silence(clock, rank, watcher):
    wait(clock, heartbeat(clock, rank), 30)
    assert set(clock.sent) == {watcher}
    assert 29 <= len(clock.sent) <= 31


@pytest.mark.quick
def test_a_silent_rank_is_reported_once_with_its_machine(clock, capsys):
    root = heartbeat(clock)
    wait(clock, root, 9.5, ranks=[1])
    assert capsys.readouterr().err == ""
    wait(clock, root, 30, ranks=[1])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(
        "dials_mpi: rank 0: rank 2 on gamma has sent no heartbeat for"
    )


def test_a_rank_that_sends_again_is_reported(clock, capsys):
    root = heartbeat(clock)
    wait(clock, root, 12, ranks=[1])
    wait(clock, root, 2, ranks=[1, 2])
    wait(clock, root, 12, ranks=[1])
    said = capsys.readouterr().err.splitlines()
    assert [("no heartbeat" in line, "heartbeats again" in line) for line in said] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_rank_1_watches_root(clock, capsys):
    wait(clock, heartbeat(clock, rank=1), 12, ranks=[2])
    assert "rank 0 on alpha" in capsys.readouterr().err


def test_other_ranks_watch_none(clock, capsys):
    wait(clock, heartbeat(clock, rank=2), 30)
    assert capsys.readouterr().err == ""


def test_a_rank_that_was_busy_receives_the_others_heartbeats_first(clock, capsys):
    """Root evaluated for minutes; heartbeats that arrived meanwhile are received only now."""
    root = heartbeat(clock)
    clock.now += 500
    clock.arrived = [1, 2]
    wait(clock, root, 5, ranks=[1, 2])
    assert capsys.readouterr().err == ""
    clock.now += 500
    clock.arrived = [1]
    wait(clock, root, 5, ranks=[1])
    assert "rank 2 on gamma" in capsys.readouterr().err


@pytest.mark.parametrize("how", [{"silence": 0.0}, {"hosts": ["alone"]}])
def test_no_heartbeats_where_they_are_switched_off_or_there_is_one_rank(clock, capsys, how):
    wait(clock, heartbeat(clock, **how), 100)
    assert clock.sent == [] and capsys.readouterr().err == ""
