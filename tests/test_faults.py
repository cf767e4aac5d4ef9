"""One rank goes wrong: every rank ends within seconds, with a non-zero exit code and the reason visible.

Whatever it was, the files are whole, nothing is left that keeps the next start from working, and ``--resume``
brings the run to the end that it would have had.
"""

from __future__ import annotations

import errno
import os
from itertools import product
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL, Finished, content, in_terminal, launch, train

from dials_mpi.storage.checkpoint import Checkpoint, present

END_WITHIN = 5.0  # seconds

PLACES = {
    "collect": "dials_mpi.run.system:System.collect",
    "scatter": "dials_mpi.parallel.communicator:Communicator.scatter",
    "fit": "dials_mpi.algorithm.learners:Learners.fit",
    "train": "dials_mpi.algorithm.learners:Learners.train",
    "gather": "dials_mpi.run.system:System._gather",
    "evaluate": "dials_mpi.run.system:System.evaluate",
    "play ahead": "dials_mpi.run.system:System.play_ahead",
    "examine": "dials_mpi.algorithm.evaluation:Evaluator.trained",
    "commit": "dials_mpi.storage.runfile:RunFile.commit",  # rows come into run.h5
    "checkpoint": "dials_mpi.storage.checkpoint:writing",
    "part": "dials_mpi.storage.checkpoint:writing_part",
    # States travel to root while a checkpoint is written.
    "bring": "dials_mpi.run.state_exchange:StateExchange.gather",
    # The data is written, but the temporary file has not yet replaced the old one.
    "settle": "dials_mpi.storage.files:DeferredErrorFile.settle",
    "finish": "dials_mpi.run.system:System.finish",
    "lock_directory": "dials_mpi.storage.files:lock_directory",
    "open": "dials_mpi.storage.files:DeferredErrorFile",
    "write": "dials_mpi.storage.files:DeferredErrorFile.write",
    "fsync": "os:fsync",
    "local step": "dials_mpi.domains.warehouse.simulators:WarehouseLocalSimulator.step",
    "global step": "dials_mpi.domains.warehouse.simulators:WarehouseGlobalSimulator.step",
    "update": "dials_mpi.learning.ppo:PPO.update",
    "predictor": "dials_mpi.learning.influence:Predictor.fit",
}
"""What can go wrong: a function of the program, which one rank does not do as it should."""

DRIVER = """
import errno, importlib, os, resource, signal, subprocess, sys, time
from pathlib import Path

import numpy as np

from dials_mpi import train

place, call, rank, action, stamp = sys.argv[1:6]
module, _, path = place.partition(":")
*classes, name = path.split(".")
owner = importlib.import_module(module)
for each in classes:
    owner = getattr(owner, each)
right, calls, me = getattr(owner, name), 0, None

def wrong(*arguments, **named):
    global calls
    if me is None:
        return right(*arguments, **named)
    if me.rank == int(rank):
        calls += 1
        if calls == int(call):
            Path(stamp).write_text(repr(time.time()))
            scope = {**globals(), "go_on": lambda: right(*arguments, **named), "arguments": arguments}
            exec(action, scope)
            if "result" in scope:
                return scope["result"]
    if BUSY and me.rank == BUSY:
        while True:
            pass
    return right(*arguments, **named)

BUSY = int(os.environ.get("DIALS_MPI_TEST_BUSY", 0))
setattr(owner, name, wrong)
connect = train.launch.connect

def remember():
    global me
    me = connect()
    return me

train.launch.connect = remember
train.main(sys.argv[6:])
"""

RAISE = "raise ValueError('the shelf fell over')"
LEAVE = "sys.exit(3)"
KILL = "os.kill(os.getpid(), signal.SIGKILL)"
ACTIONS = {
    "raise": RAISE,
    "vanish": "os._exit(3)",
    "kill": KILL,
    "hang, kill": """
subprocess.Popen(["sh", "-c", f"sleep 0.5; kill -9 {os.getpid()}"])
os.kill(os.getpid(), signal.SIGSTOP)
""",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "small": "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))",  # no larger file
    "full": "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))",
    "read-only": """
Path(sys.argv[sys.argv.index("--output") + 1]).chmod(0o555)
os.geteuid() or os.seteuid(65534)  # root may write anywhere
""",
    "NaN reward": "result = go_on(); result.rewards[-1, 0] = np.nan",
    "NaN weight": "arguments[0].policy.network.vector[5] = np.nan",
    "NaN weight at the end": "result = go_on(); arguments[0].policy.network.vector[5] = np.nan",
    "NaN predictor": "arguments[0].network.vector[5] = np.nan",
}


def drive(
    tmp_path: Path,
    place: str,
    rank: int,
    action: str,
    *more: str,
    ranks: int | None = 3,
    call: int = 1,
    busy: int = 0,
    settings: tuple[str, ...] = SMALL,
    preloaded: bool = False,
) -> Finished:
    """A run in which ``rank`` does ``action`` at the given call of a function; all ranks must end soon.

    preloaded: after an abort the exit code may be that of a kill then.
    """
    driver, stamp = tmp_path / "driver.py", tmp_path / "stamp"
    driver.write_text(DRIVER)
    how = (PLACES[place], str(call), str(rank), action, str(stamp))
    where = ("--output", str(tmp_path / "out"), *more)
    how_started = {"environment": {"DIALS_MPI_TEST_BUSY": str(busy)}, "preloaded": preloaded}
    result = launch(str(driver), *how, *settings, *where, ranks=ranks, **how_started)
    assert stamp.exists(), f"it never came to this: {result}"
    assert result.ended - float(stamp.read_text()) < END_WITHIN
    assert result.left_over == []
    return result


def fail(tmp_path: Path, *how: object, **further: object) -> Finished:
    """As ``drive``; the exit code is not 0."""
    result = drive(tmp_path, *how, **further)
    assert result.code != 0
    return result


def require_good_end(
    out: Path, unbroken: Path | None, settings: tuple[str, ...] = SMALL, checkpoint: int = 128
) -> None:
    """The files of a run that a fault has ended are whole; resumed, it is what it would have been.

    checkpoint: steps of the newest one at least, which the fault must have left.
    """
    steps = [Checkpoint(path).progress.env_steps for path in present(out)]
    assert max(steps, default=0) >= checkpoint
    assert all(content(file) for file in out.glob("*.h5"))
    result = train(*settings, "--output", str(out), "--resume")
    assert (result.code, result.stderr) == (0, "")
    assert not steps or f"going on from {steps[0]:,} steps" in result.stdout
    assert not [path for path in out.iterdir() if path.suffix in (".partial", ".damaged")]
    if unbroken:
        ours, theirs = (content(directory / "run.h5") for directory in (out, unbroken))
        for name in theirs.keys() - {"evaluation/wall_time"}:
            if not name.startswith(("timing", "events", "memory", "placement", "config")):
                np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)


@pytest.mark.parametrize(
    ("method", "rank", "call"),
    [
        ("collect", 0, 2),
        ("fit", 1, 2),
        ("train", 2, 1),
        ("evaluate", 0, 1),
        ("evaluate", 1, 2),
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
    how = (PLACES["train"], "1", "0", RAISE, str(tmp_path / "stamp"))
    shown, stderr = in_terminal(str(driver), *how, *SMALL, "--output", str(tmp_path / "out"))
    assert b"the shelf fell over" in stderr
    hidden, visible = shown.rfind(b"\x1b[?25l"), shown.rfind(b"\x1b[?25h")
    assert hidden >= 0, "no bar was shown"
    assert visible > hidden


# The next start ------------------------------------------------------------------------------------------

ANYWHERE = {
    "collect": 2,
    "scatter": 2,
    "fit": 3,  # two of each refit
    "train": 2,
    "gather": 5,
    "evaluate": 2,
    "bring": 2,
}
ON_ROOT = {"commit": 5, "checkpoint": 2, "settle": 8, "finish": 1}
"""The call of each function that comes after the first checkpoint."""

DEFAULT = [
    ("scatter", 1, "vanish"),
    ("collect", 0, "hang, kill"),
    ("gather", 1, "kill"),
    ("train", 1, "hang, kill"),
    ("bring", 1, "raise"),
    ("settle", 0, "kill"),
]
FAULTS = ("raise", "vanish", "kill", "hang, kill")
EVERY = [*product(ANYWHERE, (0, 1), FAULTS), *product(ON_ROOT, (0,), FAULTS)]


@pytest.mark.parametrize(
    ("place", "rank", "action"),
    [*DEFAULT, *(pytest.param(*how, marks=pytest.mark.slow) for how in EVERY if how not in DEFAULT)],
)
def test_a_run_goes_on_after_any_fault(trained, tmp_path, place, rank, action):
    call = {**ANYWHERE, **ON_ROOT}[place]
    result = fail(tmp_path, place, rank, ACTIONS[action], ranks=2, call=call, preloaded=True)
    assert result.code not in (2, 75)
    assert ("ValueError: the shelf fell over" in result.stderr) == (action == "raise")
    # A worker comes to the next collecting while root is still writing.
    checkpoint = 0 if (place, rank) == ("collect", 1) else 128
    require_good_end(tmp_path / "out", trained(*SMALL), checkpoint=checkpoint)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "rank"), [("part", 2), ("checkpoint", 0)])
def test_a_run_goes_on_after_a_kill_amid_the_files_of_a_checkpoint(trained, tmp_path, place, rank):
    """One of two ranks has not written its part, or root not the file that refers to both."""
    words = (*SMALL, "checkpoint_writers=2")
    result = fail(tmp_path, place, rank, ACTIONS["kill"], ranks=3, call=2, settings=words, preloaded=True)
    assert result.code not in (2, 75)
    parts = {path.name for path in (tmp_path / "out").glob("checkpoint-256*")}
    assert parts <= {"checkpoint-256-part0.h5", "checkpoint-256-part1.h5"}
    assert "checkpoint-256-part1.h5" in parts or place == "part"
    require_good_end(tmp_path / "out", trained(*SMALL), settings=words)


@pytest.mark.parametrize(
    "call", [120, *(pytest.param(k, marks=pytest.mark.slow) for k in range(10, 190, 20))]
)
def test_a_signal_amid_the_writing_of_a_file_stops_the_run_as_anywhere_else(trained, tmp_path, call):
    """Raised inside the HDF5 library, an exception gets lost, or ends the process in a segmentation fault."""
    result = fail(tmp_path, "write", 0, ACTIONS["SIGTERM"], ranks=2, call=call)
    assert result.code == 75 and "Traceback" not in result.stderr
    assert len(result.ours()) == 1 and "SIGTERM" in result.stderr and "--resume" in result.stderr
    require_good_end(tmp_path / "out", trained(*SMALL), checkpoint=0)


TRACI = (
    *SMALL[2:],
    "domain=traffic",
    "traffic.grid=[2,2]",
    "traffic.horizon=50",
    "traffic.sumo=traci",
    "policy.architecture=fnn",
    "influence.architecture=fnn",
)


@pytest.mark.parametrize(
    ("place", "rank", "action"),
    [
        ("update", 1, "kill"),  # SUMO is there, and waits for the next step
        pytest.param("collect", 0, "hang, kill", marks=pytest.mark.slow),
        pytest.param("update", 1, "hang, kill", marks=pytest.mark.slow),
        pytest.param("bring", 1, "vanish", marks=pytest.mark.slow),
    ],
)
def test_sumo_does_not_outlive_a_rank_that_is_killed(tmp_path, place, rank, action):
    """With traci it is a process of its own, which inherits the mark by which ``drive`` finds those left."""
    call = {"update": 6, **ANYWHERE}[place]
    result = fail(tmp_path, place, rank, ACTIONS[action], ranks=2, call=call, settings=TRACI, preloaded=True)
    assert result.code not in (2, 75)
    require_good_end(tmp_path / "out", None, settings=TRACI)


# The disk takes no more ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "call", "disk", "file", "why"),
    [
        ("train", 2, "small", "run.h5", errno.EFBIG),
        ("checkpoint", 2, "small", "checkpoint-256.h5", errno.EFBIG),
        ("fsync", 17, "full", "checkpoint-256.h5", errno.ENOSPC),
        ("train", 2, "read-only", "run.h5", errno.EACCES),
        pytest.param("finish", 1, "small", "run.h5", errno.EFBIG, marks=pytest.mark.slow),
        pytest.param("fsync", 15, "full", "run.h5", errno.ENOSPC, marks=pytest.mark.slow),
        pytest.param("checkpoint", 2, "read-only", "checkpoint-256.h5", errno.EACCES, marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_takes_no_more_is_told_in_one_line(trained, tmp_path, place, call, disk, file, why):
    out = tmp_path / "out"
    result = fail(tmp_path, place, 0, ACTIONS[disk], ranks=2, call=call)
    assert result.code == 1 and "Traceback" not in result.stderr
    (line,) = result.ours()
    assert f"{out / file} cannot be written ({os.strerror(why)}), its earlier content is intact" in line
    out.chmod(0o755)
    require_good_end(out, trained(*SMALL))


@pytest.mark.parametrize("disk", ["small", pytest.param("read-only", marks=pytest.mark.slow)])
def test_a_disk_that_takes_nothing_at_the_start_is_bad_input(trained, tmp_path, disk):
    out = tmp_path / "out"
    fail(tmp_path, "train", 0, KILL, ranks=None, call=2)
    before = {file.name: file.read_bytes() for file in out.glob("*.h5")}
    result = fail(tmp_path, "lock_directory", 0, ACTIONS[disk], "--resume", ranks=2)
    out.chmod(0o755)
    assert result.code == 2 and "Traceback" not in result.stderr
    assert len(result.ours()) == 1 and "cannot be written" in result.stderr
    assert {file.name: file.read_bytes() for file in out.glob("*.h5")} == before
    require_good_end(out, trained(*SMALL))


# Numbers that are none -----------------------------------------------------------------------------------

MEMORY = {"observations", "actions", "rewards", "done", "values", "policy/parameters", "policy/first_moment"}
DATASET = {"inputs", "sources", "predictor/parameters", "predictor/second_moment"}


@pytest.mark.parametrize(
    ("place", "rank", "call", "action", "owner", "segment", "what", "broken", "led_there"),
    [
        ("local step", 1, 10, "NaN reward", "agent 3", 1, "reward", "rewards", MEMORY),
        (
            "update",
            1,
            8,
            "NaN weight at the end",
            "agent 2",
            1,
            "policy/parameters",
            "policy/parameters",
            MEMORY,
        ),
        pytest.param(
            *("update", 1, 8, "NaN weight", "agent 2", 1, "policy_loss", "policy/parameters", MEMORY),
            marks=pytest.mark.slow,
        ),
        (
            "predictor",
            1,
            7,
            "NaN predictor",
            "region 1",
            1,
            "cross-entropy before the fit",
            "predictor/parameters",
            DATASET,
        ),
        ("global step", 0, 90, "NaN reward", "agent 3", 1, "return in the evaluation", "return", {"return"}),
    ],
)
def test_a_number_that_is_not_finite_is_named_and_dumped(
    trained, tmp_path, place, rank, call, action, owner, segment, what, broken, led_there
):
    out, file = tmp_path / "out", f"dump-{owner.replace(' ', '')}-segment{segment}.h5"
    result = fail(tmp_path, place, rank, ACTIONS[action], ranks=2, call=call)
    assert result.code == 1 and len(result.ours()) == 1 and f"rank {rank} of 2" in result.ours()[0]
    message = f"{what} of {owner} is not finite in segment {segment}"
    assert f"{message}; what led there is in {out / file}" in result.stderr
    dump = content(out / file)
    assert dump.keys() >= led_there and not np.isfinite(dump[broken]).all()
    with h5py.File(out / file) as opened:
        assert opened.attrs["reason"].endswith(message)
    require_good_end(out, trained(*SMALL))


def test_numba_that_is_told_not_to_compile_compiles_all_the_same(trained, tmp_path):
    """NUMBA_DISABLE_JIT=1, a help with other programs: the inner loops do not exist as plain Python."""
    result = train(*SMALL, "--output", str(tmp_path), environment={"NUMBA_DISABLE_JIT": "1"})
    assert (result.code, result.stderr) == (0, "")
    for name, array in content(trained(*SMALL) / "run.h5").items():
        if name.startswith(("policy/parameters", "predictor/parameters", "evaluation/returns")):
            np.testing.assert_array_equal(array, content(tmp_path / "run.h5")[name], strict=True)


def test_a_signal_while_the_inner_loops_are_compiled_comes_after_it():
    """The compiler calls back into Python, and an exception there is lost: the run would go on."""
    script = """
import os, signal
from dials_mpi.core import errors, signals
from dials_mpi.run import warm_up as module

class Communicator:
    host, rank = "here", 0

def warm_up(config, domain):
    os.kill(os.getpid(), signal.SIGINT)
    print("compiled")

signals.install_handlers()
module.warm_up = warm_up
try:
    module.warm_up_together(Communicator(), ["here"], None, None)
except errors.StopAtOnce as stop:
    print(stop)
"""
    assert launch("-c", script).stdout.split() == ["compiled", "SIGINT"]


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_signal_that_compiled_code_makes_an_error_of_is_still_a_signal(ranks):
    """Where it comes amid a call, Python finds a result and an exception, and makes another of it."""
    script = """
from dials_mpi.core.errors import StopAtOnce
from dials_mpi.parallel.launch import run

def program(ranks):
    if ranks.rank < ranks.size - 1:
        ranks.broadcast(None)
    try:
        raise StopAtOnce("SIGTERM")
    except StopAtOnce as stop:
        raise SystemError("<a function> returned a result with an exception set") from stop

run(program)
"""
    result = launch("-c", script, ranks=ranks)
    assert result.code == 75
    assert result.ours() == [
        "dials_mpi: SIGTERM: the run ends, its last checkpoint is kept, continue with resume=True"
    ]
    assert "Traceback" not in result.stderr
