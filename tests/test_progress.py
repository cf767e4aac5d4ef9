"""What is shown at a terminal, and what where there only seems to be one."""

from __future__ import annotations

from conftest import SMALL, in_terminal

ESCAPE = b"\x1b["


def test_a_terminal_shows_a_bar_with_the_time_to_go(tmp_path):
    shown, stderr = in_terminal("-m", "dials_mpi.train", *SMALL, "--output", str(tmp_path / "run"))
    assert stderr == b""
    assert ESCAPE in shown and b"ETA" in shown and b"100%" in shown


def test_under_a_launcher_that_gives_its_ranks_a_terminal_there_are_plain_lines(tmp_path):
    launcher = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}
    program = ("-m", "dials_mpi.train", *SMALL, "--output", str(tmp_path / "run"))
    shown, stderr = in_terminal(*program, **launcher)
    assert stderr == b""
    assert ESCAPE not in shown
    assert b"256 of 256 steps" in shown and b"ETA" in shown
