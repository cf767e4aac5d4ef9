"""What is shown at a terminal, and what where there only seems to be one."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from conftest import SMALL, in_terminal, launch, train, without_first_start
from rich.console import Console

from dials_mpi.algorithm.evaluation import Evaluation
from dials_mpi.config import load
from dials_mpi.domains.city.statistics import STATISTICS as CITY_STATISTICS
from dials_mpi.run.sinks import console
from dials_mpi.run.sinks.base import Session
from dials_mpi.run.sinks.console import ConsoleSink
from dials_mpi.storage.runfile import RunFile

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


@pytest.mark.quick
def test_what_was_done_once_is_in_no_rate(tmp_path, capsys):
    """An evaluation at 10 s, a fit and 128 steps up to 110 s, then 128 steps in 20 s: 20 s are left."""
    console = ConsoleSink()
    console.session(Session(tmp_path, load(None, [*SMALL, "total_steps=384"]), region_of=range(4)))
    result = Evaluation(np.zeros((3, 4)), {}, None)
    for steps, seconds in ((0, 10), (128, 110), (256, 130)):
        console.evaluation(steps, float(seconds), result)
    first, second, third = capsys.readouterr().out.splitlines()
    assert "ETA" not in first
    assert f"{4 * 128 / 100:,.0f} agent-steps/s | ETA 0:03:20" in second
    assert f"{4 * 128 / 20:,.0f} agent-steps/s | ETA 0:00:20" in third


def test_the_time_to_go_has_the_refits_to_come(tmp_path, capsys):
    """Refits of 90 s before each 256 steps, and 10 s for 128 steps: a refit and 640 steps are left."""
    console = ConsoleSink()
    settings = ["total_steps=768", "retrain_every=256", "evaluate_every=128"]
    console.session(Session(tmp_path, load(None, [*SMALL, *settings]), region_of=range(4)))
    result, losses = Evaluation(np.zeros((3, 4)), {}, None), np.ones((4, 3))
    console.evaluation(0, 5.0, result)
    for steps, fitted, evaluated in ((128, 95.0, 105.0), (256, None, 115.0), (384, 205.0, 215.0)):
        if fitted:
            console.fit(steps - 128, fitted, ("before", "after", "constant"), losses)
        console.evaluation(steps, evaluated, result)
    first, second, third = (line for line in capsys.readouterr().out.splitlines() if "ETA" in line)
    assert "51 agent-steps/s | ETA 0:03:50" in first  # two refits, 50 s of training
    assert "51 agent-steps/s | ETA 0:03:40" in second
    assert "51 agent-steps/s | ETA 0:02:00" in third


@pytest.mark.parametrize("columns", ["0", "1", "19"])
def test_a_terminal_without_columns_hides_nothing(tmp_path, columns):
    """COLUMNS=0 left all output out."""
    arguments = (*SMALL, "total_steps=128", "--output", str(tmp_path / "run"))
    narrow = train(*arguments, environment={"COLUMNS": columns})
    assert (narrow.code, narrow.stderr) == (0, "")
    assert "128 of 128 steps" in narrow.stdout and "standard error" in narrow.stdout
    page = ("-m", "dials_mpi.report", str(tmp_path / "run"), "--html", str(tmp_path / "page.html"))
    shown, again = launch(*page), launch(*page, environment={"COLUMNS": columns})
    assert again.code == 0 and again.stdout == shown.stdout


@pytest.mark.parametrize("log", ["a full disk", "a reader that has gone"])
def test_a_run_goes_on_when_nobody_takes_what_it_says(tmp_path, log):
    command = [sys.executable, "-m", "dials_mpi.train", *SMALL, "--output", str(tmp_path / "run")]
    if log == "a full disk":
        with open("/dev/full", "w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120)
    else:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
            done.stdout.close()
            done.stderr, stderr = done.stderr.read(), done.stderr
            stderr.close()
    assert (done.returncode, without_first_start(done.stderr.decode())) == (0, "")
    assert RunFile.open(tmp_path / "run").finished()
    assert "256 of 256 steps" in (tmp_path / "run" / "log.txt").read_text()


def test_tables_of_many_statistics_fit_into_80_columns():
    """Each name and unit is readable: rich would cut off what does not fit."""
    values = {statistic.name: np.array([12345.6, 12345.6]) for statistic in CITY_STATISTICS}
    results = {"longest-queue": Evaluation(np.zeros((2, 3)), values)}
    shown = io.StringIO()
    for first in range(0, len(CITY_STATISTICS), console.COLUMNS):
        part = CITY_STATISTICS[first : first + console.COLUMNS]
        Console(file=shown, width=80).print(console._statistics(results, part))
    text = shown.getvalue()
    assert "…" not in text and text.count("12345.6") == len(CITY_STATISTICS)
    assert all(word in text for word in ("throughput", "undeparted", "per vehicle"))
