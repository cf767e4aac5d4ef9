"""A run that is killed at random moments and resumed, again and again, ends like an undisturbed one."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from conftest import SMALL, Program, content, launch, train

from dials_mpi.storage.checkpoint import Checkpoint, present
from dials_mpi.storage.runfile import RunFile

DOMAINS = {
    "warehouse": (
        "warehouse.grid=[2,2]",
        "warehouse.horizon=20",
        "total_steps=6144",
        "segment_every=512",
        "evaluate_every=1024",
        "retrain_every=2048",
        "dataset_size=400",
        "evaluation_episodes=8",
        "influence.hidden=[8,8]",
        "influence.epochs=20",
        "policy.hidden=[16,8]",
    ),
    "traffic": (
        "domain=traffic",
        "traffic.grid=[2,2]",
        "traffic.horizon=60",
        "total_steps=1536",
        "segment_every=128",
        "evaluate_every=256",
        "retrain_every=512",
        "dataset_size=240",
        "evaluation_episodes=5",
        "envs_per_region=8",
        "ppo.rollout_steps=16",
        "policy.architecture=fnn",
        "policy.hidden=[16,8]",
        "influence.architecture=fnn",
        "influence.hidden=[8,8]",
        "influence.epochs=2",
    ),
}
"""Four agents, 12 segments of 0.1 to 0.3 s: every second is evaluated, every fourth begins with a refit."""

MOST_RANKS = 5
STOPPED = 75

MEASURED = ("timing", "events", "memory", "placement", "config", "evaluation/wall_time")
MEASURED_YET_EQUAL = ("timing/env_steps", "events/env_steps")
"""What depends on the clock, the ranks and the number of sessions, and what in these groups does not."""


# The files of a run --------------------------------------------------------------------------------------


def results(directory: Path) -> dict[str, np.ndarray]:
    """What must not depend on when, where and in how many sessions the run was done."""
    every = content(directory / "run.h5")
    return {
        name: values
        for name, values in every.items()
        if name in MEASURED_YET_EQUAL or not name.startswith(MEASURED)
    }


def assert_same(one: Path, other: Path) -> None:
    """Two finished runs have the same results and the same last checkpoint."""
    last, others_last = (present(directory)[0] for directory in (one, other))
    assert last.name == others_last.name
    for ours, theirs in ((results(one), results(other)), (content(last), content(others_last))):
        assert ours.keys() == theirs.keys() and len(ours) > 10
        for name in ours.keys() - {"config", "unrecorded", "rank"}:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    ours, theirs = (asdict(Checkpoint(file).progress) for file in (last, others_last))
    for name in ours.keys() - {"wall_time", "ranks", "seconds"}:
        np.testing.assert_equal(ours[name], theirs[name], err_msg=name)


def require_end(directory: Path, unbroken: Path) -> None:
    """The run is finished, is what it would have been without a break, and has left nothing lying about."""
    assert finished(directory)
    with h5py.File(directory / "run.h5") as file:
        assert (np.diff(file["evaluation/wall_time"][:]) > 0).all()
    assert_same(directory, unbroken)
    litter = [path.name for path in directory.iterdir() if path.suffix not in (".h5", ".txt")]
    assert set(litter) <= {".lock", "datasets"} and not list(directory.glob(".*.h5*"))
    assert len(present(directory)) <= 3  # the newest two and the best


def require_whole(directory: Path) -> None:
    """Every file is whole, whatever happened to the process that wrote it."""
    for file in directory.glob("*.h5"):
        assert content(file)
    for path in present(directory):
        assert Checkpoint(path).progress.segments
    assert not list(directory.glob("*.damaged"))


def finished(directory: Path) -> bool:
    """Whether the run file says so."""
    file = directory / "run.h5"
    return file.exists() and bool(attributes(file)["finished"])


def attributes(file: Path, name: str = "/") -> dict[str, object]:
    """The attributes of an HDF5 file, or of something in it."""
    with h5py.File(file) as opened:
        return dict(opened[name].attrs)


def newest(directory: Path) -> int:
    """Steps of the newest checkpoint; 0 without any."""
    return next((Checkpoint(path).progress.env_steps for path in present(directory)), 0)


# Blows ---------------------------------------------------------------------------------------------------


class Blow(NamedTuple):
    """What was done to whom of how many ranks, in which phase; exit code, seconds until all had ended."""

    ranks: int
    harm: str
    victim: str
    phase: str
    code: int
    seconds: float


HARMS = {  # the signals that are sent, and how often it is this
    "KILL": ([signal.SIGKILL], 0.6),
    "STOP+KILL": ([signal.SIGSTOP, signal.SIGKILL], 0.1),
    "TERM": ([signal.SIGTERM], 0.1),
    "INT": ([signal.SIGINT], 0.1),
    "USR1": ([signal.SIGUSR1], 0.1),
}
KINDLY = ("TERM", "INT", "USR1")


def ranks_of(program: Program) -> dict[str, int]:
    """The process of each rank that there is, by its number."""
    found = {}
    for pid in program.processes():
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            program = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")[0]
            if Path(program).name.startswith("python"):  # not SUMO or its tools
                own = [line for line in environment if re.match("(PMI|OMPI_COMM_WORLD)_RANK=", line)]
                found.update({line.partition("=")[2]: pid for line in own})
    return found


class Session:
    """``--resume`` of a run in a process of its own, and what it has logged so far."""

    def __init__(self, directory: Path, *settings: str, ranks: int) -> None:
        self.directory = directory
        self.before = {file: len(file.read_bytes()) for file in directory.glob("log*.txt")}
        where = ("--resume", "--log-ranks", "--output", str(directory))
        self.program = Program("-m", "dials_mpi.train", *settings, *where, ranks=ranks)

    def news(self, name: str = "log.txt") -> list[str]:
        """What this session has added to a log."""
        file = self.directory / name
        text = file.read_bytes()[self.before.get(file, 0) :] if file.exists() else b""
        return text.decode().splitlines()

    def wait_for(self, there: Callable[[], object], seconds: float = 60) -> None:
        """Until something is there, or the session has ended."""
        limit = time.monotonic() + seconds
        while not there() and self.program.running():
            assert time.monotonic() < limit, f"still waiting after {seconds} s: {self.news()[-3:]}"
            time.sleep(0.002)

    def phase(self) -> str:
        """What the run is at, as its logs and unfinished files show."""
        for partial in self.directory.glob(".*.partial"):
            return "write run.h5" if "run.h5" in partial.name else "write checkpoint"
        lines = self.news()
        if not lines:
            return "start up"
        phases = {
            "collecting": "collect",
            "fitt": "fit",  # fitting the predictors, and on a single rank: fitted this one
            "train": "train",
            "cross-entropy of the": "train",
            " steps | return": "segment's end",
            "checkpoint at": "segment's end",
            "Results": "way out",
        }
        found = next((phase for sign, phase in phases.items() if sign in lines[-1]), "restore")
        done = re.search(r"up to ([\d,]+) steps", lines[-1])
        if found == "train" and done:
            trained = f"trained regions .* up to {done[1].replace(',', '')} steps"
            workers = [self.news(file.name) for file in self.directory.glob("log-*.txt")]
            if any(re.search(trained, own[-1]) for own in workers if own):
                return "gather, evaluate"
        return found


def strike(
    directory: Path, settings: tuple[str, ...], most_ranks: int, rng: np.random.Generator
) -> Blow | None:
    """Resume a run and kill a rank or the launcher at some moment; None: it came to its end."""
    before, ranks = newest(directory), int(rng.integers(1, most_ranks + 1))
    harm = str(rng.choice(list(HARMS), p=[share for _, share in HARMS.values()]))
    # Also with checkpoints only now and then: more of the run file is dropped and comes again.
    session = Session(directory, *settings, f"checkpoint_every={rng.integers(1, 3)}", ranks=ranks)
    program = session.program
    # A moment amid the start, or soon after the n-th line of the log: so short phases get their share.
    lines = int(rng.integers(-3, 17))
    if lines > 0:
        session.wait_for(lambda: len(session.news()) >= lines)
        time.sleep(rng.uniform(0, 0.12))
    else:
        time.sleep(rng.uniform(0, 2.5))
    everyone = {"mpirun": program.process.pid, **ranks_of(program)}
    victim = str(rng.choice(["mpirun", "0", str(rng.integers(ranks))], p=[0.1, 0.3, 0.6]))
    victim = victim if victim in everyone else "mpirun"
    phase, ended_before, begun = session.phase(), not program.running(), time.monotonic()
    for k, number in enumerate(HARMS[harm][0]):
        time.sleep(0.3 * k)
        with suppress(ProcessLookupError):
            os.kill(everyone[victim], number)
    result = program.wait(timeout=30)
    blow = Blow(ranks, harm, victim, phase, result.code, time.monotonic() - begun)

    assert result.left_over == [], blow
    require_whole(directory)
    assert newest(directory) >= before
    log = "\n".join(session.news())
    if before and "ranks on" in log:  # it was resumed, and did not start again
        assert f"going on from {before:,} steps" in log
    if result.code == 0:
        assert finished(directory)
        return None
    assert not ended_before and (harm == "USR1" or blow.seconds < 5), (blow, result.stderr)
    if phase != "start up" and not finished(directory):
        # (A rank may notice that another was killed, and say so, before the launcher ends it.)
        assert (result.code == STOPPED) == (harm in KINDLY), (blow, result.stderr)
        assert harm not in KINDLY or "Traceback" not in result.stderr, (blow, result.stderr)
    return blow


def table(blows: list[Blow]) -> str:
    """How many blows there were of each kind."""
    lines = [f"{len(blows)} blows, at most {max(blow.seconds for blow in blows):.1f} s until all had ended"]
    for column in ("phase", "harm", "victim", "ranks", "code"):
        counts = Counter(getattr(blow, column) for blow in blows).most_common()
        lines.append(f"{column}: " + ", ".join(f"{value} {count}" for value, count in counts))
    return "\n".join(lines)


# Tests ---------------------------------------------------------------------------------------------------


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("domain", "steps", "blows", "most_ranks", "seed"),
    [
        ("warehouse", 6144, 4, 3, 1),
        pytest.param("traffic", 1536, 3, 3, 2, marks=pytest.mark.slow),
        pytest.param("warehouse", 15360, 45, 5, 3, marks=pytest.mark.slow),
        pytest.param("traffic", 3840, 35, 5, 4, marks=pytest.mark.slow),
    ],
)
def test_a_run_survives_blows_at_random_moments(trained, tmp_path, domain, steps, blows, most_ranks, seed):
    settings, rng = (*DOMAINS[domain], f"total_steps={steps}"), np.random.default_rng(seed)
    seen, lives = [], 0
    while len(seen) < blows:  # a run that comes to its end too early is followed by another one
        lives += 1
        out = tmp_path / str(lives)
        while len(seen) < blows and (blow := strike(out, settings, most_ranks, rng)):
            seen.append(blow)
            print(f"{len(seen):3} {newest(out):6,} steps", *blow[:-1], f"{blow.seconds:.2f} s", flush=True)
        if not finished(out):
            (out / ".checkpoint-1.h5.partial").write_bytes(b"of a process that was killed")
        # The last segment ends with a checkpoint, even where none is due.
        result = train(*settings, "checkpoint_every=100", "--resume", "--output", str(out), ranks=2)
        assert (result.code, result.stderr) == (0, "")
        require_end(out, trained(*settings))
    print(f"{domain}, {lives} runs of {steps:,} steps: {table(seen)}")


@pytest.mark.parametrize(
    ("domain", "first", "then", "harm"),
    [
        ("warehouse", 5, 1, signal.SIGUSR1),
        ("traffic", 1, 5, signal.SIGKILL),
        pytest.param("warehouse", 1, 5, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("traffic", 5, 1, signal.SIGUSR1, marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_with_another_number_of_ranks(trained, tmp_path, domain, first, then, harm):
    settings, out = DOMAINS[domain], tmp_path / "out"
    unbroken, session = trained(*settings), Session(out, *settings, ranks=first)
    session.wait_for(lambda: len(present(out)) > 1)
    os.kill(ranks_of(session.program)["0"], harm)
    code = session.program.wait().code
    assert code == STOPPED if harm == signal.SIGUSR1 else code not in (0, STOPPED)
    steps = newest(out)
    assert 0 < steps < newest(unbroken)
    result = train(*settings, "--resume", "--output", str(out), ranks=then)
    assert (result.code, result.stderr) == (0, "")
    assert f"going on from {steps:,} steps" in result.stdout
    require_end(out, unbroken)
    assert [attributes(out / "run.h5", f"config/{k}")["ranks"] for k in range(2)] == [first, then]


@pytest.mark.parametrize(("silent", "reporter"), [("2", "0"), ("0", "1")])
def test_a_rank_that_hangs_is_named_and_may_come_back(tmp_path, silent, reporter):
    out = tmp_path / "out"
    session = Session(out, *DOMAINS["warehouse"], "silence=2", ranks=3)
    session.wait_for(lambda: present(out))
    process = ranks_of(session.program)[silent]
    os.kill(process, signal.SIGSTOP)
    time.sleep(4.5)
    assert session.program.running()
    os.kill(process, signal.SIGCONT)
    result = session.program.wait()
    assert result.code == 0
    host = os.uname().nodename
    hangs, back = [line for line in result.ours() if f" rank {silent} on {host} " in line]
    assert hangs.startswith(f"dials_mpi: rank {reporter}: ") and "no heartbeat for " in hangs
    assert back.startswith(f"dials_mpi: rank {reporter}: ") and "heartbeats again" in back
    if reporter == "0":
        assert "no heartbeat" in (out / "log.txt").read_text()


IN_A_THREAD = """
import sys, threading
from importlib import import_module
def call():
    try:
        import_module(sys.argv[1]).main(sys.argv[2:])
    except SystemExit as leaving:
        codes.append(leaving.code)
codes = []
thread = threading.Thread(target=call)
thread.start()
thread.join()
sys.exit(codes[0] if codes else 99)
"""


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_run_in_a_thread_heeds_no_signals_and_says_so(tmp_path, ranks):
    """Only the main thread may say what signals do."""
    arguments = (*SMALL, "--output", str(tmp_path / "run"))
    done = launch("-c", IN_A_THREAD, "dials_mpi.train", *arguments, ranks=ranks, preloaded=True)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.count("not the main thread") == 1 and RunFile.open(tmp_path / "run").finished()
    assert "not the main thread" not in train(*arguments, "--resume", "total_steps=384", ranks=ranks).stdout


def test_a_study_in_a_thread(tmp_path):
    settings = ", ".join(word.replace("=", ": ", 1) for word in SMALL)
    (tmp_path / "base.yaml").write_text("domain: warehouse\n")
    (tmp_path / "tiny.yaml").write_text(
        f"systems: {{four: {{config: base.yaml, seeds: 1, settings: {{{settings}}}}}}}\n"
        "methods: {untrained: {mode: untrained}}\n"
    )
    words = (str(tmp_path / "tiny.yaml"), "--output", str(tmp_path / "out"), "--ranks", "1")
    done = launch("-c", IN_A_THREAD, "dials_mpi.study.__main__", *words, preloaded=True)
    assert (done.code, done.stderr) == (0, "")
    assert "end: 1 finished" in done.stdout


def test_a_directory_has_one_run_at_a_time(trained, tmp_path):
    settings, out = DOMAINS["warehouse"], tmp_path / "out"
    session = Session(out, *settings, ranks=2)
    session.wait_for(lambda: present(out))
    root = ranks_of(session.program)["0"]
    os.kill(root, signal.SIGSTOP)  # one that hangs still holds it
    before = content(out / "run.h5").keys()
    for ranks in (None, 3):
        second = train(*settings, "--resume", "--output", str(out), ranks=ranks)
        assert second.code == 2 and len(second.ours()) == 1
        assert f"process {root} on {os.uname().nodename} since " in second.stderr
        assert "another run is active in " in second.stderr and "--output" in second.stderr
    os.kill(root, signal.SIGCONT)
    session.wait_for(lambda: len(present(out)) > 1)  # it has not been disturbed
    assert session.program.running() and before <= content(out / "run.h5").keys()
    os.kill(root, signal.SIGKILL)  # whoever is killed holds nothing
    assert session.program.wait().code != 0
    result = train(*settings, "--resume", "--output", str(out), ranks=2)
    assert (result.code, result.stderr) == (0, "")
    require_end(out, trained(*settings))
