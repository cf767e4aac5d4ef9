"""Start programs as a user does, with and without mpirun, each with a timeout; shared fixtures."""

from __future__ import annotations

import gc
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import preload
import pytest
from hypothesis import settings as hypothesis_settings

from dials_mpi.core import first_start

MARK = "DIALS_MPI_TEST"
LAUNCHER_PREFIXES = ("PMI_", "PMIX_", "OMPI_COMM_WORLD_", "MPI_LOCAL", "SLURM_STEP", "FLUX_", "JSM_", "PALS_")

SMALL = (
    "warehouse.grid=[2,2]",
    "warehouse.horizon=20",
    "total_steps=256",
    "evaluate_every=128",
    "retrain_every=128",
    "dataset_size=100",
    "evaluation_episodes=3",
    "influence.epochs=3",
    "influence.hidden=[8,8]",
    "policy.hidden=[16,8]",
)
"""A run of four agents in less than a second: 2 segments, a refit before each."""


FIRST = (
    "schedule",  # compiles the inner loops, while the other worker has tests that need none
    *("city_global", "city_survey", "city_tiles", "city_scenario", "config"),
    *(
        "docs",
        "faults",
        "checkpoint",
        "survive",
        "traffic_runs",
        "regions",
        "study",
        "bad_properties",
        "bench",
    ),
    *(
        "sb3",
        "datasets",
        "bad_files",
        "bad_input",
        "traffic_local",
        "progress",
        "traffic",
        "sinks",
        "touched",
    ),
)
"""Test files that come first: the longest, so that several workers end at the same time."""

VARIANTS = Path(__file__).with_name("slow_variants.txt")

hypothesis_settings.register_profile("any machine", deadline=None)
hypothesis_settings.load_profile("any machine")  # how long an example takes is a matter of the machine's load


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest-xdist keep our order of the files."""
    config.option.loadscopereorder = False


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of VARIANTS as slow, and put the files in their order."""
    names = {line for line in VARIANTS.read_text().splitlines() if not line.startswith("#")}
    found = {f"{item.path.name}::{item.name}": item for item in items}
    for name in names & found.keys():
        found[name].add_marker(pytest.mark.slow)
    files = {item.path.name for item in items}
    if files >= {path.name for path in VARIANTS.parent.glob("test_*.py")} and names - found.keys():
        raise pytest.UsageError(
            f"{VARIANTS.name} names tests that do not exist: {sorted(names - found.keys())}"
        )
    gc.collect()
    gc.freeze()  # the collector need not look at what will stay
    places = {f"test_{name}.py": place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@dataclass(frozen=True)
class Finished:
    """A program that has ended: exit code, output, time of its end, processes that still run."""

    code: int
    stdout: str
    stderr: str
    ended: float
    left_over: list[int]

    def ours(self) -> list[str]:
        """The lines of stderr, without what the launcher or the MPI library adds."""
        return [line for line in self.stderr.splitlines() if line.startswith("dials_mpi:")]


def mpirun() -> str:
    """The mpirun of this Python environment, or else the one on the path."""
    beside = Path(sys.executable).parent / "mpirun"
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    assert found, "no mpirun: install the extra mpich or openmpi, or load an MPI module"
    return found


class Said(NamedTuple):
    """What a command said and how it ended."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str]) -> Callable[..., Callable[..., Said]]:
    """in_process(main): calls a command here; an exception that it should have caught fails the test."""

    def command(main: Callable[[list[str]], object]) -> Callable[..., Said]:
        def call(*arguments: object) -> Said:
            capsys.readouterr()
            with pytest.raises(SystemExit) as leaving:
                main([str(argument) for argument in arguments])
            return Said(leaving.value.code, *capsys.readouterr())

        return call

    return command


def without_first_start(stderr: str) -> str:
    """The text without what a first start says: it depends on what earlier tests have left in the cache.

    A study names the run in it.
    """
    return re.sub(r"^dials_mpi: (\S+: )?first start: .*\n", "", stderr, flags=re.MULTILINE)


class Program:
    """A running Python program: a single process (ranks=None) or under mpirun."""

    def __init__(
        self,
        *arguments: str,
        ranks: int | None = None,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        preloaded: bool = False,
    ) -> None:
        """preloaded: the program is started by preload.py where it can be."""
        self.mark = uuid.uuid4().hex
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_PREFIXES)}
        launcher = [] if ranks is None else [mpirun(), "-n", str(ranks)]
        variables = {**inherited, **(environment or {}), MARK: self.mark}
        client = preload.command(arguments, variables) if preloaded else None
        self.process = subprocess.Popen(
            [*launcher, *(client or [sys.executable, *arguments])],
            cwd=cwd,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def running(self) -> bool:
        """Whether the program has not ended yet."""
        return self.process.poll() is None

    def wait(self, timeout: float = 120) -> Finished:
        """Wait for its end; after the timeout all its processes are killed and the test fails."""
        try:
            stdout, stderr = self.process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            stdout, stderr = self.process.communicate()
            pytest.fail(f"not ended after {timeout} s\nstdout: {stdout}\nstderr: {stderr}", pytrace=False)
        ended = time.time()
        grace = time.monotonic() + 2  # the launcher may end shortly before the ranks that it killed
        while (left_over := self.processes()) and time.monotonic() < grace:
            time.sleep(0.02)
        self.kill()
        return Finished(self.process.returncode, stdout, without_first_start(stderr), ended, left_over)

    def processes(self) -> list[int]:
        """All running processes of the job: the mark is in the environment that they were started with, or,
        if they are preloaded, in their name."""
        sought, found = f"{MARK}={self.mark}".encode(), []
        named = f"{preload.short_name(self.mark)}\n"
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
                if sought in environment or (entry / "comm").read_text() == named:
                    found.append(int(entry.name))
            except OSError:
                continue
        return found

    def kill(self) -> None:
        """Kill the process group and all processes of the job outside it."""
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def launch(*arguments: str, timeout: float = 120, **how: object) -> Finished:
    """Run a Python program to its end; ``how`` as for Program. The package's modules are preloaded."""
    how.setdefault("preloaded", arguments[0] == "-m" and arguments[1].startswith("dials_mpi"))
    return Program(*arguments, **how).wait(timeout)


def in_terminal(*arguments: str, timeout: float = 120, **environment: str) -> tuple[bytes, bytes]:
    """Run a Python program as a single process at a terminal; returns the terminal's output, and stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm", **environment},
    ) as process:
        os.close(theirs)
        shown, limit = b"", time.monotonic() + timeout
        while time.monotonic() < limit:
            if not select.select([ours], [], [], 1)[0]:
                continue
            try:
                part = os.read(ours, 4096)
            except OSError:  # the other side is closed
                break
            if not part:
                break
            shown += part
        process.kill()
        stderr = process.stderr.read()
    os.close(ours)
    return shown, without_first_start(stderr.decode()).encode()


def train(*arguments: str, **how: object) -> Finished:
    """Run the training program to its end."""
    return launch("-m", "dials_mpi.train", *arguments, **how)


def content(file: Path) -> dict[str, np.ndarray]:
    """All datasets of an HDF5 file; reading them shows that none is damaged."""
    found = {}

    def read(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(file) as opened:
        opened.visititems(read)
    return found


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    """Independent random streams, equal at every call."""
    return [np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(count)]


@pytest.fixture(scope="session", autouse=True)
def cache_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Machine code and road networks are made once for all tests, in a cache for this session.

    The workers of pytest-xdist share it: their temporary folders have the same parent.
    """
    own = tmp_path_factory.getbasetemp()
    cache = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "cache"
    cache.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(first_start, "_is_announced", lambda: False)  # in this process
        yield
        if names := preload.left_behind():
            warnings.warn(f"tests left {names} set: add them to preload.NOT_COMPARED", stacklevel=1)


@pytest.fixture
def preloaded_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process starts with ``sys.executable`` is preloaded."""
    monkeypatch.setattr(sys, "executable", str(preload.running().python))


@pytest.fixture
def tables_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report whose pictures are empty files: drawing them takes most of its time."""

    def begin(stem: Path, *_: object) -> list[Path]:
        files = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
        for file in files:
            file.touch()
        return files

    monkeypatch.setattr("dials_mpi.report.save_picture", begin)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """trained(*settings, ranks=None): the directory of a finished run; equal calls share one run."""
    finished: dict[tuple, Path] = {}

    def run(*settings: str, ranks: int | None = None) -> Path:
        key = (settings, ranks)
        if key not in finished:
            directory = tmp_path_factory.mktemp("run") / "out"
            result = train(*settings, "--output", str(directory), ranks=ranks, timeout=120)
            assert (result.code, result.stderr) == (0, "")
            finished[key] = directory
        return finished[key]

    return run
