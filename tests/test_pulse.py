"""Silent ranks: on a clock of the test's own."""

from __future__ import annotations

import pytest

from dials_mpi.parallel import heartbeat as module
from dials_mpi.parallel.heartbeat import Heartbeat

HOSTS = ["alpha", "beta", "gamma"]


class Clock:
    """Time as the test wants it, and the messages between ranks."""

    def __init__(self) -> None:
        self.now, self.sent, self.arrived = 100.0, [], []

    def monotonic(self) -> float:
        return self.now

    def got(self):
        arrived, self.arrived = self.arrived, []
        return arrived


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    return clock


def pulse(clock, rank=0, silence=10.0, hosts=HOSTS):
    return Heartbeat(rank, hosts, silence, clock.sent.append, clock.got)


def wait(clock, own, seconds, signs=()):
    """Wait for so long, looking all the while; the ranks ``signs`` give one each second."""
    for _ in range(round(seconds * 20)):
        clock.now += 0.05
        if round(clock.now * 20) % 20 == 0:
            clock.arrived += signs
        own.beat()
        own.look()


@pytest.mark.parametrize(("rank", "watcher"), [(0, 1), (1, 0), (2, 0)])
def test_each_rank_gives_ten_signs_in_the_time_of_silence(clock, rank, watcher):
    wait(clock, pulse(clock, rank), 30)
    assert set(clock.sent) == {watcher}
    assert 29 <= len(clock.sent) <= 31


@pytest.mark.quick
def test_a_silent_rank_is_named_once_with_its_machine(clock, capsys):
    root = pulse(clock)
    wait(clock, root, 9.5, signs=[1])
    assert capsys.readouterr().err == ""
    wait(clock, root, 30, signs=[1])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].startswith(
        "dials_mpi: rank 0: rank 2 on gamma has given no sign of life"
    )


def test_a_rank_that_comes_back_is_said_to(clock, capsys):
    root = pulse(clock)
    wait(clock, root, 12, signs=[1])
    wait(clock, root, 2, signs=[1, 2])
    wait(clock, root, 12, signs=[1])
    said = capsys.readouterr().err.splitlines()
    assert [("no sign" in line, "again" in line) for line in said] == [
        (True, False),
        (False, True),
        (True, False),
    ]


def test_rank_1_watches_root(clock, capsys):
    wait(clock, pulse(clock, rank=1), 12, signs=[2])
    assert "rank 0 on alpha" in capsys.readouterr().err


def test_others_watch_nobody(clock, capsys):
    wait(clock, pulse(clock, rank=2), 30)
    assert capsys.readouterr().err == ""


def test_who_was_busy_itself_hears_the_others_first(clock, capsys):
    """Root evaluated for minutes; the signs that came meanwhile are seen only now."""
    root = pulse(clock)
    clock.now += 500
    clock.arrived = [1, 2]
    wait(clock, root, 5, signs=[1, 2])
    assert capsys.readouterr().err == ""
    clock.now += 500
    clock.arrived = [1]
    wait(clock, root, 5, signs=[1])
    assert "rank 2 on gamma" in capsys.readouterr().err


@pytest.mark.parametrize("how", [{"silence": 0.0}, {"hosts": ["alone"]}])
def test_no_signs_where_they_are_not_wanted_or_nobody_is_there(clock, capsys, how):
    wait(clock, pulse(clock, **how), 100)
    assert clock.sent == [] and capsys.readouterr().err == ""
