"""Shared by the tests of bad input: a worker that runs the programs, checks of refusals, runs to damage.

Starting a process takes a second, so a worker plays the programs' main() for one case after the other. It is
a process of its own, this file as a script, for a damaged HDF5 file can hang or kill the one that reads it.
Beside the sentence of each case, the tests compare the tree of files before and after it.

A test file takes the fixtures ``worker``, ``originals`` and ``tmp_path`` by giving them these names.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import preload
import pytest
from conftest import LAUNCHER_PREFIXES, SMALL, without_first_start

from dials_mpi import domains
from dials_mpi.config import load
from dials_mpi.config import schema as config_module
from dials_mpi.core import logging as logs
from dials_mpi.core import provenance
from dials_mpi.core.errors import BadInput
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.run import resume, state
from dials_mpi.settings import fields as settings
from dials_mpi.settings.yaml_text import LARGEST_FILE
from dials_mpi.storage import checksum, probe
from dials_mpi.storage.checkpoint import Checkpoint
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import RunFile

LIMIT = 60
"""Time limit in seconds for an answer of the worker; most take 0.05 s."""

WORDS = (*SMALL, "total_steps=384", "checkpoint_keep=9")
"""A run of three segments that keeps the checkpoints 128, 256 and 384."""

RESUME = [*WORDS, "--resume", "--output", "run"]

KINDS = ("policy", "predictor")
"""Kinds of networks, in run files and checkpoints."""

ODD = "two\nlines \x1b[31m \udcff"
"""A valid file name that cannot be printed: a line break, an escape code, a byte that is not UTF-8."""


# The worker ----------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """A program's exit code and output."""

    code: int | None
    stdout: str
    stderr: str


class Worker:
    """A process that runs the programs; it is killed and restarted if it does not answer."""

    process: subprocess.Popen | None = None

    def main(self, program: str, arguments: Sequence[str], folder: Path) -> Said:
        """Run a program's command line in a folder."""
        return Said(*self._ask("main", program, list(arguments), str(folder)))

    def start(self, folder: Path, session: bool = False) -> dict[str, Any]:
        """What --resume finds in a run's folder; session: also start a session and write its records."""
        return self._ask("start", str(folder), session)

    def read(self, folder: Path) -> str:
        """The report's message about a run that it cannot read; otherwise empty."""
        return self._ask("read", str(folder))

    def stop(self) -> int | None:
        """End the process; returns its exit code, None if it did not end by itself."""
        process, self.process = self.process, None
        if process is None:
            return None
        with suppress(BrokenPipeError):
            process.stdin.close()  # a working worker ends now
        try:
            return process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return None

    def _ask(self, *request: object) -> Any:
        if self.process is None:
            self.process = self._started()
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        answer = ""
        if select.select([self.process.stdout], [], [], LIMIT)[0]:
            answer = self.process.stdout.readline()
        if not answer:
            code = self.stop()
            end = f"no answer in {LIMIT} s" if code is None else f"the process ended with {code}"
            pytest.fail(f"{end}: {request}", pytrace=False)
        return json.loads(answer)

    @staticmethod
    def _started() -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, __file__],
            env={k: v for k, v in os.environ.items() if not k.startswith((*LAUNCHER_PREFIXES, "SLURM_"))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def serve() -> None:
    """The worker's loop: one line of output for each line of input."""
    answers = os.fdopen(os.dup(1), "w")
    calls = {"main": play, "start": find_start, "read": read_for_the_report}
    # These take most of the time of a case and give the same in all cases: git, types of fields, PyYAML.
    provenance.git_commit = functools.cache(provenance.git_commit)
    checksum.readable = readable
    settings.get_type_hints = functools.cache(settings.get_type_hints)
    parse = config_module.parse
    known = functools.cache(parse)
    config_module.parse = lambda text, *source: (known if isinstance(text, str) else parse)(text, *source)
    Communicator.abort = lambda comm, code: sys.exit(code)  # a crash must fail its own case only
    for line in sys.stdin:
        call, *arguments = json.loads(line)
        with overheard() as said:
            answer = calls[call](*arguments)
        release()
        answers.write(json.dumps([answer, *said] if call == "main" else answer) + "\n")
        answers.flush()


def readable(path: Path) -> bool:
    """As ``checksum.readable``, in a forked process: a new one would load h5py for each of many files."""
    content = checksum.without_writer_mark(path)
    if b"dials_mpi sha256 " not in content:
        return False
    child = os.fork()
    if not child:
        code = 1
        with suppress(BaseException):
            probe.read_all(content)
            code = 0
        os._exit(code)
    limit = time.monotonic() + 5  # with some damaged files the HDF5 library never ends
    while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < limit:
        time.sleep(0.005)
    if ended == (0, 0):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return ended[0] == child and ended[1] == 0


def play(program: str, arguments: list[str], folder: str) -> int:
    """Run a program; returns its exit code."""
    if program == "train":
        from dials_mpi.train import main
    elif program == "evaluate":
        from dials_mpi.evaluate import main
    elif program == "watch":
        from dials_mpi.watch.__main__ import main
    elif program == "study":
        from dials_mpi.study.__main__ import main
    else:
        from dials_mpi.report.__main__ import main
    os.chdir(folder)
    try:
        main(arguments)
    except SystemExit as leaving:
        return leaving.code
    except BaseException:
        traceback.print_exc()
    return 1


def find_start(folder: str, session: bool) -> dict[str, Any]:
    """Where --resume would start, with a digest of all that it would load; or why it refuses."""
    config, domain, entries = system()
    try:
        start = resume.find(config, domain, folder, True)
        if session:
            write_a_session(start)
        digest = hashlib.sha256(repr(start.progress).encode())
        if start.checkpoint:
            checkpoint = Checkpoint(start.checkpoint)
            for entry in entries:
                if not entry.optional or checkpoint.has(entry.name):
                    digest.update(checkpoint.whole(entry.name))
    except BadInput as refusal:
        return {"refused": str(refusal)}
    except Exception:
        return {"crash": traceback.format_exc()}
    return {
        "checkpoint": start.checkpoint and start.checkpoint.name,
        "damaged": [path.name for path in start.damaged],
        "state": digest.hexdigest(),
    }


@functools.cache
def system() -> tuple[Any, Any, list[state.Entry]]:
    """Configuration and domain of the runs, and the entries of their checkpoints."""
    config = load(None, WORDS)
    domain = domains.create(config.domain, config.domain_section)
    return config, domain, [entry for entry in state.entries(config, domain) if entry.kept(1)]


def write_a_session(start: Any) -> None:
    """Write the records of a session to the run file: of its start, its segments and its end."""
    resume.begin(start, provenance.versions(), 1)
    run = RunFile(start.directory, {})
    run.write({"placement/rank": [0] * 4}, hosts=["here"], ranks=1)
    run.commit()
    run.append({"evaluation/env_steps": 1, "evaluation/returns": np.zeros((3, 4))})
    run.append({"timing/env_steps": 1, "timing/train": np.zeros((1, 2))})
    run.write({"memory/peak_rss": [1.0], "policy/parameters": np.zeros((4, 5), np.float32)}, finished=True)
    run.commit()
    run.last_row("evaluation")


def read_for_the_report(folder: str) -> str:
    from dials_mpi.report import read_run

    try:
        read_run(folder)
    except BadInput as refusal:
        return str(refusal)
    except Exception:
        return traceback.format_exc()
    return ""


@contextmanager
def overheard() -> Iterator[list[str]]:
    """The text on stdout and stderr, also of C libraries; filled in at the end of the block."""
    said: list[str] = []
    kept = os.dup(1), os.dup(2), sys.stdout, sys.stderr
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        try:
            yield said
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for file in (out, err):
                file.seek(0)
                said.append(file.read().decode())
            os.dup2(kept[0], 1)
            os.dup2(kept[1], 2)
            os.close(kept[0])
            os.close(kept[1])
            sys.stdout, sys.stderr = kept[2:]


def release() -> None:
    """Release what the system releases at the end of a process: log files, and locks of run directories."""
    for handler in list(logs.LOG.handlers):
        logs.LOG.removeHandler(handler)
        handler.close()
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink() and ".lock" in os.readlink(entry):
            os.close(int(entry.name))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    preload.running()  # after which no answer has to wait for the compiler
    worker = Worker()
    yield worker
    worker.stop()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Removed after the test: a thousand copies of a run take a gigabyte."""
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        yield Path(folder)


# Checks of refusals --------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, object]:
    """All files in a folder, each with a digest of its content, without the lock file of a run."""
    found = {}
    for path in folder.rglob("*"):
        if path.name != ".lock":
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(folder))] = content, path.lstat().st_mtime_ns * path.is_file()
    return found


def one_sentence(stderr: str, mentions: Sequence[str] = (), longest: int = 1000) -> str:
    """The single line of a refusal, without the prefix."""
    stderr = without_first_start(stderr)
    assert stderr.startswith("dials_mpi: ") and stderr.endswith("\n"), stderr
    line = stderr.removeprefix("dials_mpi: ").removesuffix("\n")
    assert line.isprintable() and 20 < len(line) < longest, stderr
    assert "Traceback" not in line and not line.startswith("[")
    for text in mentions:
        assert text in line, (text, line)
    return line


def refused(
    worker: Worker,
    folder: Path,
    program: str,
    arguments: Sequence[str],
    mentions: Sequence[str] = (),
    longest: int = 1000,
) -> str:
    """Run a program that must refuse its input and write nothing; returns its sentence."""
    before = tree(folder)
    said = worker.main(program, arguments, folder)
    assert said.code == 2, said
    assert said.stdout == ""
    assert tree(folder) == before
    return one_sentence(said.stderr, mentions, longest)


def refused_or_done(worker: Worker, folder: Path, program: str, arguments: Sequence[str]) -> Said:
    """Run a program that may accept its input or refuse it."""
    before = tree(folder)
    said = worker.main(program, arguments, folder)
    if said.code == 0:
        assert said.stderr == ""
    else:
        assert (said.code, said.stdout) == (2, ""), said
        one_sentence(said.stderr)
        assert tree(folder) == before
    return said


def table(cases: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Parametrizes a test with ``name``."""
    return pytest.mark.parametrize("name", cases)


# Files to give to a program ------------------------------------------------------------------------------


FILES: dict[str, bytes] = {
    "a file": b"here already",
    "good.yaml": b"seed: 1\n",
    "latin1.yaml": "mode: dials # café\n".encode("latin-1"),
    "utf16.yaml": "seed: 1\n".encode("utf-16"),
    "large.yaml": b"seed: 1\n#" + b"x" * LARGEST_FILE,
    "binary.yaml": bytes(range(256)),
    "run.yaml": b"\x89HDF\r\n\x1a\n" + bytes(500),
    "list.yaml": b"- seed: 1\n",
    "open.yaml": b"warehouse: {grid: [2, 2\n",
    "misspelt.yaml": b"checkpoint_evry: 3\n",
    "twice.yaml": b"seed: 1\nseed: 1\n",
    "bomb.yaml": b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "tagged.yaml": b"seed: !!python/name:os.system\n",
    "two.yaml": b"seed: 1\n---\nseed: 2\n",
    "deep.yaml": b"seed: " + b"[" * 9999,
    "traffic.yaml": b"domain: warehouse\ntraffic: {grid: [2, 2]}\n",
    "section.yaml": b"checkpoint: {every: 3}\n",
    "odd.yaml": b"ppo: {minibatch_size: 24}\n",
}


def with_files(folder: Path) -> Path:
    """The folder with the files of the table in it."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "loop.yaml").symlink_to("loop.yaml")
    return folder


# Runs to copy, and to damage -----------------------------------------------------------------------------


class Originals(NamedTuple):
    """Runs to copy. finished; killed: the same without its end; foreign: with another configuration."""

    finished: Path
    killed: Path
    foreign: Mapping[str, Path]
    parameters: np.ndarray
    starts: Mapping[str, Any]

    def copy(self, folder: Path, finished: bool = False, name: str = "run") -> Path:
        """Copy one of the runs to ``folder/run``."""
        return shutil.copytree(self.finished if finished else self.killed, folder / name)


OTHERS = {
    "another seed": ["seed=1"],
    "other networks": ["policy.hidden=[8,8]"],
    "a longer run": ["total_steps=512"],
}


@pytest.fixture(scope="module")
def originals(worker, tmp_path_factory) -> Originals:
    folder = tmp_path_factory.mktemp("originals")
    for name, words in {"finished": [], **OTHERS}.items():
        said = worker.main("train", [*WORDS, *words, "--output", name], folder)
        assert (said.code, said.stderr) == (0, ""), said
        (folder / name / ".lock").unlink()
    killed = shutil.copytree(folder / "finished", folder / "killed")
    with rewriting(killed / "run.h5") as file:
        file.attrs["finished"] = False
        for group in ("policy", "predictor", "reference"):
            del file[group]
    parameters = RunFile.open(folder / "finished").read("policy/parameters")
    copy = shutil.copytree(killed, folder / "copy")
    starts = {}
    for steps in (384, 256, 128):
        starts[f"checkpoint-{steps}.h5"] = worker.start(copy)
        assert starts[f"checkpoint-{steps}.h5"]["checkpoint"] == f"checkpoint-{steps}.h5"
        (copy / f"checkpoint-{steps}.h5").unlink()
    foreign = {name: folder / name for name in OTHERS}
    return Originals(folder / "finished", killed, foreign, parameters, starts)


def replaced(content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A change that replaces the bytes of a file."""

    def change(path: Path) -> None:
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return change


def cut(share: float) -> Callable[[Path], None]:
    return replaced(lambda data: data[: int(share * len(data))])


def edited(edit: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """A change to the content of an HDF5 file, with a valid checksum."""

    def change(path: Path) -> None:
        with rewriting(path) as file:
            edit(file)

    return change


def attribute(name: str, value: Any) -> Callable[[Path], None]:
    return edited(lambda file: file.attrs.__setitem__(name, value))


def dataset(name: str, value: Any = None, **how: Any) -> Callable[[Path], None]:
    """A change or removal of a dataset."""

    def edit(file: h5py.File) -> None:
        if name in file:
            del file[name]
        if value is not None or how:
            file.create_dataset(name, data=value, **how)

    return edited(edit)


NOISE = np.random.default_rng(0).bytes(100_000)


if __name__ == "__main__":
    serve()
