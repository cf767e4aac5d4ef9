"""Bad input to the whole programs: one sentence on stderr, exit code 2, no traceback, nothing written.

Starting a process takes a second, so a worker plays the programs' main() for one case after the other. It is
a process of its own, for a damaged HDF5 file can hang or kill the one that reads it. Beside the sentence of
each case, the tests compare the tree of files before and after it.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import yaml
from conftest import LAUNCHER_PREFIXES, SMALL, train
from hypothesis import HealthCheck, Phase, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_config import JUNK, KEYS, PLAIN, VALID, accepts_or_refuses

from dials_mpi import config as config_module
from dials_mpi import domains, logs, provenance, ranks, resume, settings, walltime
from dials_mpi.config import load
from dials_mpi.errors import BadInput
from dials_mpi.position import Position
from dials_mpi.storage.checkpoint import Checkpoint
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import RunFile
from dials_mpi.yaml_text import LARGEST_FILE

LIMIT = 20
"""Seconds for one answer of the worker; most take a twentieth of one."""

WORDS = (*SMALL, "total_steps=384", "checkpoint_keep=9")
"""A run of three segments that keeps the checkpoints 128, 256 and 384."""

ODD = "two\nlines \x1b[31m \udcff"
"""What a file system takes for a name and a line does not: a line break, a colour, a byte of no UTF-8."""


# The worker ----------------------------------------------------------------------------------------------


class Said(NamedTuple):
    """How a program ended and what it said."""

    code: int | None
    stdout: str
    stderr: str


class Worker:
    """The process that plays the programs; it is killed and started anew where it does not answer."""

    process: subprocess.Popen | None = None

    def main(self, program: str, arguments: Sequence[str], folder: Path) -> Said:
        """A program's command line, played in a folder."""
        return Said(*self._ask("main", program, list(arguments), str(folder)))

    def start(self, folder: Path, session: bool = False) -> dict[str, Any]:
        """What --resume finds in a run's folder; ``session``: and begins, and writes."""
        return self._ask("start", str(folder), session)

    def read(self, folder: Path) -> str:
        """What the report says of a run that it cannot read; else nothing."""
        return self._ask("read", str(folder))

    def stop(self) -> int | None:
        """End the process; its exit code, None if it had not ended by itself."""
        process, self.process = self.process, None
        if process is None:
            return None
        with suppress(BrokenPipeError):
            process.stdin.close()  # the end of a worker that is well
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
    """The worker's side: a line for every line."""
    answers = os.fdopen(os.dup(1), "w")
    calls = {"main": play, "start": find_start, "read": read_for_the_report}
    # What costs most of a case, and is the same in all of them: asking git, types of fields, and PyYAML.
    provenance.git_commit = functools.cache(provenance.git_commit)
    settings.get_type_hints = functools.cache(settings.get_type_hints)
    parse = config_module.parse
    known = functools.cache(parse)
    config_module.parse = lambda text, *source: (known if isinstance(text, str) else parse)(text, *source)
    ranks.Ranks.abort = lambda ranks, code: sys.exit(code)  # a crash is the end of its case, not of all
    for line in sys.stdin:
        call, *arguments = json.loads(line)
        with overheard() as said:
            answer = calls[call](*arguments)
        let_go()
        answers.write(json.dumps([answer, *said] if call == "main" else answer) + "\n")
        answers.flush()


def play(program: str, arguments: list[str], folder: str) -> int:
    """The exit code of a program."""
    if program == "train":
        from dials_mpi.train import main
    elif program == "evaluate":
        from dials_mpi.evaluate import main
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
    """Where --resume would start, with a digest of all that it would load there; or why it does not."""
    config, domain, layout = system()
    try:
        start = resume.find(config, domain, folder, True)
        if session:
            write_a_session(start)
        state = hashlib.sha256(repr(start.position).encode())
        if start.checkpoint:
            for row in Checkpoint(start.checkpoint).rows(layout, len(domain.regions)):
                state.update(row)
    except BadInput as refusal:
        return {"refused": str(refusal)}
    except Exception:
        return {"crash": traceback.format_exc()}
    return {
        "checkpoint": start.checkpoint and start.checkpoint.name,
        "damaged": [path.name for path in start.damaged],
        "state": state.hexdigest(),
    }


@functools.cache
def system() -> tuple[Any, Any, Mapping[str, int]]:
    """Configuration and domain of the runs, and the layout of their checkpoints."""
    from dials_mpi import joint, states

    config = load(None, WORDS)
    domain = domains.create(config.domain, config.domain_section)
    return config, domain, states.layout(joint.widths(joint.tables(config, domain)))


def write_a_session(start: Any) -> None:
    """What a session writes into the run file: at its beginning, with its segments, at its end."""
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
    """Everything on stdout and stderr, of libraries in C as well; filled in at the end."""
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


def let_go() -> None:
    """What a process lets go of at its end: its logs, and the locks on run directories."""
    for handler in list(logs.LOG.handlers):
        logs.LOG.removeHandler(handler)
        handler.close()
    for entry in Path("/proc/self/fd").iterdir():
        if entry.is_symlink() and ".lock" in os.readlink(entry):
            os.close(int(entry.name))


@pytest.fixture(scope="module")
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.stop()


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Gone after the test: a thousand copies of a run are a gigabyte."""
    with tempfile.TemporaryDirectory(prefix="bad-input-") as folder:
        yield Path(folder)


# What a refusal is ---------------------------------------------------------------------------------------


def tree(folder: Path) -> dict[str, object]:
    """All files in a folder, each with a digest of its content; a run's lock does not count."""
    found = {}
    for path in folder.rglob("*"):
        if path.name != ".lock":
            content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(folder))] = content, path.lstat().st_mtime_ns * path.is_file()
    return found


def one_sentence(stderr: str, mentions: Sequence[str] = (), longest: int = 1000) -> str:
    """The single line that a refusal is, without its beginning."""
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
    """The sentence of a program that refuses its input and writes nothing."""
    before = tree(folder)
    said = worker.main(program, arguments, folder)
    assert said.code == 2, said
    assert said.stdout == ""
    assert tree(folder) == before
    return one_sentence(said.stderr, mentions, longest)


def refused_or_done(worker: Worker, folder: Path, program: str, arguments: Sequence[str]) -> Said:
    """A program that may find its input good enough, or refuse it."""
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


# Command lines -------------------------------------------------------------------------------------------

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

COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    # overrides
    "no value": (["seed"], ["'seed'", "key=value"]),
    "unknown key": (["checkpoint_evry=3"], ["did you mean checkpoint_every?"]),
    "unknown section": (["checkpoint.every=3"], ["unknown key checkpoint.every"]),
    "another domain's": (["traffic.grid=[2,2]"], ["traffic is read only with domain=traffic"]),
    "segment_every, text": (["segment_every=often"], ["segment_every is 'often'", "whole number"]),
    "segment_every, part": (["segment_every=64.5"], ["segment_every is 64.5", "whole number"]),
    "segment_every, negative": (["segment_every=-128"], ["segment_every is -128", "from 0 to"]),
    "segment_every, below an update": (["segment_every=100"], ["segment_every is 100", "at least 128"]),
    "segment_every, no divisor": (["segment_every=192"], ["evaluate_every is 128", "segment_every=192"]),
    "segment_every, too many": (
        [
            "segment_every=128",
            *(f"{key}=128_000_000_000" for key in ("total_steps", "evaluate_every")),
            "retrain_every=128_000_000_000",
        ],
        ["segment_every is 128", "100000 segments", "at least 1280000"],
    ),
    "checkpoint_every, negative": (["checkpoint_every=-1"], ["checkpoint_every is -1", "from 0 to"]),
    "checkpoint_every, exponent": (["checkpoint_every=1e2"], ["checkpoint_every is '1e2'", "write 100"]),
    "checkpoint_every, truth": (["checkpoint_every=no"], ["checkpoint_every is false", "whole number"]),
    "checkpoint_minutes, clock": (["checkpoint_minutes='0:30'"], ["checkpoint_minutes", "a number from 0"]),
    "checkpoint_minutes, endless": (["checkpoint_minutes=.inf"], ["checkpoint_minutes is inf"]),
    "checkpoint_minutes, none": (["checkpoint_minutes="], ["checkpoint_minutes is empty"]),
    "checkpoints never": (
        ["checkpoint_every=0", "checkpoint_minutes=0"],
        ["checkpoint_every and checkpoint_minutes are both 0", "set one"],
    ),
    "checkpoint_keep, none": (["checkpoint_keep=0"], ["checkpoint_keep is 0", "from 1 to"]),
    "checkpoint_keep, list": (["checkpoint_keep=[2]"], ["checkpoint_keep is [2]", "whole number"]),
    "silence, negative": (["silence=-0.1"], ["silence is -0.1", "from 0 to"]),
    "silence, not a number": (["silence=.nan"], ["silence is nan"]),
    "silence, never": (["silence=never"], ["silence is 'never'", "a number"]),
    "silence, huge": (["silence=1" + "0" * 300], ["silence is 1000", "from 0 to"]),
    "no whole evaluations": (["total_steps=300"], ["total_steps is 300", "use 256 or 384"]),
    "a memory that is not filled": (["envs_per_region=12"], ["ppo.memory_size is 128", "use 96 or 192"]),
    "one bad among good": (["seed=1", "ppo.clip=2", "seed=2"], ["ppo.clip=2", "from 0 to 1"]),
    "bad twice, the last counts": (["seed=1", "seed=one"], ["seed is 'one'"]),
    "a line break": (["seed=1\nmode=dials"], ["seed=1\\nmode=dials"]),
    "no UTF-8": (["mode=\udcff"], ["mode="]),
    "NUL": (["mode=\0"], ["U+0000"]),
    "escape sequence": (["mode='\x1b[31m'"], ["U+001B"]),
    "very long key": (["x" * 100_000 + "=1"], ["unknown key", "x"]),
    "very long value": (["seed=" + "9" * 100_000], ["seed"]),
    "very deep value": (["seed=" + "[" * 9999], ["deep"]),
    "an option as setting": (["output=x"], ["unknown key output"]),
    # options
    "unknown option": (["--outputs=x", "--frob"], ["--frob", "--help"]),
    "unknown option on two lines": (["--frob\nnicate"], ["--help"]),
    "unknown option, no UTF-8": (["--\udcff\x1b[31m"], ["--help"]),
    "ambiguous option": (["--re", "--l\nx"], ["--help"]),
    "a value for a switch": (["--resume=yes"], ["--resume", "--help"]),
    "a value for a switch, odd": ([f"--resume={ODD}"], ["--resume", "--help"]),
    "no configuration": (["--config"], ["--config", "--help"]),
    "no directory": (["--output"], ["--output", "--help"]),
    "no walltime": (["--walltime"], ["--walltime", "--help"]),
    "walltime that looks like an option": (["--walltime", "-1:00:00"], ["--walltime", "--help"]),
    # configuration files
    "missing": (["--config", "none.yaml"], ["none.yaml", "No such file", "give the path"]),
    "missing, odd name": (["--config", ODD], ["cannot be read"]),
    "name too long": (["--config", "x" * 300], ["too long"]),
    "NUL in the name": (["--config", "good.yaml\0"], ["cannot be read"]),
    "no name": (["--config", ""], ["cannot be read"]),
    "a directory": (["--config", "."], ["directory", "give the path"]),
    "below a file": (["--config", "good.yaml/x"], ["good.yaml/x", "cannot be read"]),
    "a link to itself": (["--config", "loop.yaml"], ["loop.yaml", "cannot be read"]),
    "an endless device": (["--config", "/dev/zero"], ["/dev/zero", "larger than"]),
    "Latin-1": (["--config", "latin1.yaml"], ["latin1.yaml: byte 17", "UTF-8"]),
    "UTF-16": (["--config", "utf16.yaml"], ["utf16.yaml: byte 0", "UTF-8"]),
    "large": (["--config", "large.yaml"], ["large.yaml", "larger than"]),
    "binary": (["--config", "binary.yaml"], ["binary.yaml"]),
    "a run file": (["--config", "run.yaml"], ["run.yaml"]),
    "list": (["--config", "list.yaml"], ["list.yaml", "top level"]),
    "open bracket": (["--config", "open.yaml"], ["open.yaml, line 2"]),
    "misspelt": (["--config", "misspelt.yaml"], ["misspelt.yaml", "did you mean checkpoint_every?"]),
    "twice": (["--config", "twice.yaml"], ["twice.yaml, line 2", "twice"]),
    "alias bomb": (["--config", "bomb.yaml"], ["bomb.yaml, line 1", "aliases"]),
    "tag": (["--config", "tagged.yaml"], ["tagged.yaml, line 1", "tags"]),
    "two documents": (["--config", "two.yaml"], ["two.yaml, line 2"]),
    "deep": (["--config", "deep.yaml"], ["deep.yaml", "deep"]),
    "of another domain": (["--config", "traffic.yaml"], ["traffic.yaml", "domain=traffic"]),
    "a section that there is not": (["--config", "section.yaml"], ["section.yaml", "unknown key checkpoint"]),
    "a combination": (["--config", "odd.yaml"], ["odd.yaml with its overrides", "use 16 or 32"]),
    "two files, the last counts": (["--config", "good.yaml", "--config", "none.yaml"], ["none.yaml"]),
}


def with_files(folder: Path) -> Path:
    """The folder with the files of the table in it."""
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    (folder / "loop.yaml").symlink_to("loop.yaml")
    return folder


@table(COMMANDS)
def test_a_bad_command_line_starts_no_run(worker, tmp_path, name):
    arguments, mentions = COMMANDS[name]
    refused(worker, with_files(tmp_path), "train", [*SMALL, "--output", "out", *arguments], mentions)


@table(COMMANDS)
def test_a_bad_command_line_is_not_printed(worker, tmp_path, name):
    """--print-config goes another way."""
    arguments, mentions = COMMANDS[name]
    refused(worker, with_files(tmp_path), "train", ["--print-config", *SMALL, *arguments], mentions)


WALLTIMES = [
    *("", " ", "0", "50", "3:50", "1:30", "0:00:00", "0-0:00:00", "-1:00:00", "--1:00:00", "1:60:00"),
    *(
        "1:00:60",
        "1:0:0",
        "1::00",
        ":10:00",
        "1:00:",
        "1:00:00:00",
        "1-2-3:00:00",
        "1-:00:00",
        "-",
        "1.5:00:00",
    ),
    *("1:00:00.5", "1h", "3:50:00 h", "1e3:00:00", "0x1:00:00", "99999:00:00", "99999-0:00:00", "inf", "nan"),
    *(
        "none",
        "UNLIMITED",
        "1_0:00:00",
        "٣:50:00",
        "\uff11:00:00",
        "3;50;00",
        "3:50:00\n3",
        "\0",
        ODD,
        "9" * 9999,
    ),
]


@pytest.mark.parametrize("text", WALLTIMES)
def test_a_bad_walltime_starts_no_run(worker, tmp_path, text):
    arguments = [*SMALL, "--output", "out", f"--walltime={text}"]
    refused(worker, tmp_path, "train", arguments, ["--walltime is ", "3:50:00"])


OUTPUTS = {
    "a file": ["a file", "--output"],
    "a file/below": ["a file/below", "--output"],
    "a file/far/below": ["--output"],
    "loop.yaml": ["loop.yaml", "--output"],
    "loop.yaml/below": ["--output"],
    "x" * 300: ["too long", "--output"],
    "new/" + "x" * 300: ["too long", "--output"],
    "new/" * 3000: ["too long", "--output"],
    "nul\0": ["--output"],
    "new/nul\0": ["--output"],
    "/proc/here": ["/proc/here", "--output"],
    f"a file/{ODD}": ["--output"],
    f"new/{ODD}/" + "x" * 300: ["--output"],
}


@pytest.mark.parametrize("resumed", [[], ["--resume"]])
@pytest.mark.parametrize("output", OUTPUTS)
def test_an_output_that_cannot_be_a_directory(worker, tmp_path, output, resumed):
    arguments = [*SMALL, *resumed, "--output", output]
    longest = 500 + len(output)
    refused(worker, with_files(tmp_path), "train", arguments, OUTPUTS[output], longest)


# Runs that are there -------------------------------------------------------------------------------------


class Originals(NamedTuple):
    """Runs to copy. finished; killed: the same with its end cut off; foreign: by another configuration."""

    finished: Path
    killed: Path
    foreign: Mapping[str, Path]
    parameters: np.ndarray
    starts: Mapping[str, Any]

    def copy(self, folder: Path, finished: bool = False, name: str = "run") -> Path:
        """One of the runs, as ``folder/run``."""
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


RESUME = [*WORDS, "--resume", "--output", "run"]


def test_an_existing_run_wants_resume(worker, originals, tmp_path):
    originals.copy(tmp_path)
    mentions = ["there is a run in run already", "--resume", "--output"]
    refused(worker, tmp_path, "train", [*WORDS, "--output", "run"], mentions)
    refused(worker, tmp_path, "train", ["--output", "run"], mentions)


def test_checkpoints_without_a_run_file_are_no_run(worker, originals, tmp_path):
    (originals.copy(tmp_path) / "run.h5").unlink()
    for resumed in ([], ["--resume"]):
        arguments = [*WORDS, *resumed, "--output", "run"]
        refused(worker, tmp_path, "train", arguments, ["no run.h5 in run", "put it back"])


def test_a_run_file_that_is_a_directory(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    (run / "run.h5").unlink()
    (run / "run.h5").mkdir()
    for resumed in ([], ["--resume"]):
        refused(worker, tmp_path, "train", [*WORDS, *resumed, "--output", "run"], ["run"])
    for path in run.glob("checkpoint-*"):
        path.unlink()
    refused(worker, tmp_path, "train", [*WORDS, "--output", "run"], ["run.h5"])


def test_a_run_that_goes_on_elsewhere(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    with open(run / ".lock", "w+") as lock:
        for holder in ("process 7 on a machine\n", "two\nlines\x1b[31m\0", ""):
            lock.seek(0)
            lock.truncate()
            lock.write(holder)
            lock.flush()
            fcntl.flock(lock, fcntl.LOCK_EX)
            refused(worker, tmp_path, "train", RESUME, ["a run goes on in run", "--output"])


def test_a_session_too_short_for_a_segment(worker, originals, tmp_path):
    """What the last session took is known: the job would be queued again and again for nothing."""
    originals.copy(tmp_path)
    arguments = [*RESUME, "total_steps=512", "--walltime", "0:00:01"]
    refused(worker, tmp_path, "train", arguments, ["the next segment takes", "more time"])


CHANGES: dict[str, list[str]] = {
    "domain": ["domain=traffic"],
    "mode": ["mode=global"],
    "seed": ["seed=1"],
    "total_steps": ["total_steps=256"],
    "retrain_every": ["retrain_every=256"],
    "evaluate_every": ["evaluate_every=384", "retrain_every=384"],
    "segment_every": ["segment_every=128"],
    "evaluation_episodes": ["evaluation_episodes=4"],
    "dataset_size": ["dataset_size=120"],
    "envs_per_region": ["envs_per_region=8"],
    "warehouse.grid": ["warehouse.grid=[1,4]"],
    "warehouse.ring": ["warehouse.ring=false"],
    "warehouse.ring_policy": ["warehouse.ring_policy=oldest"],
    "warehouse.item_probability": ["warehouse.item_probability=0.03"],
    "warehouse.horizon": ["warehouse.horizon=25"],
    "policy.architecture": ["policy.architecture=fnn"],
    "policy.hidden": ["policy.hidden=[16,16]"],
    "policy.sequence_length": ["policy.sequence_length=4"],
    "ppo.rollout_steps": ["ppo.rollout_steps=4"],
    "ppo.memory_size": ["ppo.memory_size=64", "ppo.rollout_steps=4", "policy.sequence_length=4"],
    "ppo.minibatch_size": ["ppo.minibatch_size=64"],
    "ppo.epochs": ["ppo.epochs=2"],
    "ppo.learning_rate": ["ppo.learning_rate=1e-3"],
    "ppo.clip": ["ppo.clip=0.2"],
    "ppo.anneal": ["ppo.anneal=false"],
    "ppo.discount": ["ppo.discount=0.9"],
    "ppo.gae_lambda": ["ppo.gae_lambda=0.9"],
    "ppo.entropy_coefficient": ["ppo.entropy_coefficient=0.02"],
    "ppo.value_coefficient": ["ppo.value_coefficient=0.5"],
    "ppo.clip_value_loss": ["ppo.clip_value_loss=false"],
    "ppo.normalise_advantages": ["ppo.normalise_advantages=false"],
    "ppo.max_gradient_norm": ["ppo.max_gradient_norm=0.5"],
    "ppo.time_limit": ["ppo.time_limit=terminal"],
    "ppo.adam_epsilon": ["ppo.adam_epsilon=1e-7"],
    "influence.architecture": ["influence.architecture=fnn"],
    "influence.hidden": ["influence.hidden=[8,4]"],
    "influence.learning_rate": ["influence.learning_rate=1e-3"],
    "influence.batch_size": ["influence.batch_size=16"],
    "influence.epochs": ["influence.epochs=2"],
    "influence.held_out": ["influence.held_out=0.3"],
    "influence.adam_epsilon": ["influence.adam_epsilon=1e-7"],
}


@table(CHANGES)
def test_a_run_does_not_go_on_with_another_setting(worker, originals, tmp_path, name):
    originals.copy(tmp_path, finished=name < "o")  # whether the run is finished makes no difference
    words = [word for word in WORDS if name != "domain" or not word.startswith("warehouse.")]
    if name == "domain":
        words.append("dataset_size=600")
    arguments = [*words, *CHANGES[name], "--resume", "--output", "run"]
    line = refused(worker, tmp_path, "train", arguments, ["run/run.h5", f"{name} was ", " and is "])
    assert len(re.findall(" was ", line)) == min(5, len(CHANGES[name]) + (name == "domain") * 9)


def test_the_table_of_changes_is_complete():
    """A setting that bears on the results and may be changed on the way would spoil a run."""
    assert set(CHANGES) == set(load(None, WORDS).decisive())


ALLOWED = ["total_steps=512", "checkpoint_every=2", "checkpoint_minutes=5", "checkpoint_keep=1", "silence=0"]


def test_what_may_change_is_complete():
    free = set(settings.flat(load(None, WORDS))) - set(load(None, WORDS).decisive())
    assert free | {"total_steps"} == {word.partition("=")[0] for word in ALLOWED}


@pytest.mark.parametrize("word", ALLOWED)
def test_a_run_goes_on_with_what_may_change(worker, originals, tmp_path, word):
    originals.copy(tmp_path)
    said = worker.main("train", [*RESUME, word], tmp_path)
    assert (said.code, said.stderr) == (0, ""), said
    assert "going on from 384 steps (checkpoint-384.h5)" in said.stdout
    assert load(None, [*WORDS, word]).to_yaml() == RunFile.open(tmp_path / "run").configuration()


# Run files -----------------------------------------------------------------------------------------------


def replaced(content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A change that puts other bytes into a file."""

    def change(path: Path) -> None:
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return change


def cut(share: float) -> Callable[[Path], None]:
    return replaced(lambda data: data[: int(share * len(data))])


def edited(edit: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    """A change to the content of an HDF5 file, which is then as whole as the program's own."""

    def change(path: Path) -> None:
        with rewriting(path) as file:
            edit(file)

    return change


def attribute(name: str, value: Any) -> Callable[[Path], None]:
    return edited(lambda file: file.attrs.__setitem__(name, value))


def dataset(name: str, value: Any = None, **how: Any) -> Callable[[Path], None]:
    """A change of a dataset, or that it is not there."""

    def edit(file: h5py.File) -> None:
        if name in file:
            del file[name]
        if value is not None or how:
            file.create_dataset(name, data=value, **how)

    return edited(edit)


def group(name: str) -> Callable[[Path], None]:
    """A group in the place of a dataset."""

    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return edited(edit)


def another_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["results"] = np.arange(10)


def as_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").touch()


def as_dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


NOISE = np.random.default_rng(0).bytes(100_000)
ENORMOUS = {"shape": (10**9, 10**5), "dtype": np.float32, "chunks": (1, 10**5)}

DAMAGED: dict[str, Callable[[Path], None]] = {
    "empty": replaced(b""),
    "one byte": replaced(b"\x89"),
    "only a signature": replaced(b"\x89HDF\r\n\x1a\n"),
    "zeros": replaced(bytes(100_000)),
    "noise": replaced(NOISE),
    "a signature and noise": replaced(b"\x89HDF\r\n\x1a\n" + NOISE),
    "text": replaced(b"seed: 1\n" * 1000),
    "zipped": replaced(b"\x1f\x8b" + NOISE),
    "one byte too few": replaced(lambda data: data[:-1]),
    "first half zeros": replaced(lambda data: bytes(len(data) // 2) + data[len(data) // 2 :]),
    "second half zeros": replaced(lambda data: data[: len(data) // 2] + bytes(len(data) // 2)),
    "every tenth byte": replaced(
        lambda data: b"".join(data[i : i + 9] + b"\0" for i in range(0, len(data), 10))
    ),
    "moved by one byte": replaced(lambda data: b"\n" + data),
    "line ends changed": replaced(lambda data: data.replace(b"\r\n", b"\n")),
    "another HDF5 file": another_hdf5,
    **{f"cut at {share:.0%}": cut(share) for share in np.linspace(0.02, 0.98, 9)},
}
"""What can become of any file; no run file and no checkpoint is good after it."""

RUN_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    **{name: (change, "train evaluate report") for name, change in DAMAGED.items()},
    # attributes
    "no version": (edited(lambda file: file.attrs.__delitem__("format_version")), "train evaluate report"),
    "a newer version": (attribute("format_version", 2), "train evaluate report"),
    "a version far ahead": (attribute("format_version", 10**18), "train evaluate report"),
    "version text": (attribute("format_version", "new"), "train evaluate report"),
    "version list": (attribute("format_version", [1, 1]), "train evaluate report"),
    "version nan": (attribute("format_version", np.nan), "train evaluate report"),
    "version inf": (attribute("format_version", np.inf), "train evaluate report"),
    "version nothing": (attribute("format_version", h5py.Empty("i8")), "train evaluate report"),
    "finished list": (attribute("finished", [True, False]), ""),
    "finished text": (attribute("finished", "perhaps"), ""),
    "finished nothing": (attribute("finished", h5py.Empty("i8")), ""),
    "no attribute finished": (edited(lambda file: file.attrs.__delitem__("finished")), ""),
    "odd attributes": (attribute("extra", np.zeros(3, [("a", "i4"), ("b", "f8")])), ""),
    # the configuration
    "no configuration": (dataset("config"), "train evaluate report"),
    "configuration in no chain": (dataset("config", "seed: 1\n"), "train evaluate report"),
    "an empty chain": (edited(lambda file: file.__delitem__("config/0")), "train evaluate report"),
    "a chain of words": (dataset("config/last", "seed: 1\n"), "train evaluate report"),
    "configuration a number": (dataset("config/0", 3), "train evaluate report"),
    "configuration a list": (dataset("config/0", ["seed: 1\n", "mode: dials\n"]), "train evaluate report"),
    "configuration a group": (edited(lambda file: file.create_group("config/1")), "train evaluate report"),
    "configuration nothing": (
        dataset("config/0", h5py.Empty(h5py.string_dtype())),
        "train evaluate report",
    ),
    "configuration no text": (
        dataset("config/0", np.array(b"seed: \xff\xfe", h5py.string_dtype())),
        "train evaluate report",
    ),
    "configuration no YAML": (dataset("config/0", "seed: [1\n"), "train evaluate report"),
    "configuration YAML list": (dataset("config/0", "- seed\n"), "train evaluate report"),
    "configuration alias bomb": (
        dataset("config/0", FILES["bomb.yaml"].decode()),
        "train evaluate report",
    ),
    "configuration very deep": (dataset("config/0", "a: " + "[" * 9999), "train evaluate report"),
    "configuration unknown key": (dataset("config/0", "sead: 1\n"), "train evaluate report"),
    "configuration out of bounds": (dataset("config/0", "seed: -1\n"), "train evaluate report"),
    "configuration odd words": (dataset("config/0", "two lines\r\n: \u202e\x85"), "train evaluate report"),
    "configuration of another run": (dataset("config/0", "seed: 1\n"), "train evaluate"),
    "a second configuration": (dataset("config/7", "seed: 1\n"), "train evaluate"),
    # series that a session goes on from
    "a series too short": (
        edited(lambda file: file["evaluation/returns"].resize(3, axis=0)),
        "train",
    ),
    "a series that is gone": (dataset("training/entropy"), "train"),
    "a series of no rows": (edited(lambda file: file["timing/train"].resize(0, axis=0)), "train"),
    "a series that is one number": (dataset("evaluation/env_steps", 3), "train report"),
    "a series that is a group": (
        group("evaluation/returns"),
        "train report",
    ),
    "all series gone": (
        edited(lambda file: [file.__delitem__(name) for name in ("evaluation", "training", "timing")]),
        "train report",
    ),
    # networks that are evaluated
    "no policies": (dataset("policy/parameters"), "evaluate"),
    "policies of another width": (dataset("policy/parameters", np.zeros((4, 7), "f4")), "evaluate"),
    "too few policies": (dataset("policy/parameters", np.zeros((3, 2821), "f4")), "evaluate"),
    "policies a vector": (dataset("policy/parameters", np.zeros(2821, "f4")), "evaluate"),
    "policies a number": (dataset("policy/parameters", 1.0), "evaluate"),
    "policies of double precision": (dataset("policy/parameters", np.zeros((4, 2821))), "evaluate"),
    "policies of whole numbers": (dataset("policy/parameters", np.zeros((4, 2821), int)), "evaluate"),
    "policies of text": (dataset("policy/parameters", np.full((4, 2821), b"x")), "evaluate"),
    "policies nothing": (dataset("policy/parameters", h5py.Empty("f4")), "evaluate"),
    "policies a group": (group("policy/parameters"), "evaluate"),
    "policies enormous": (dataset("policy/parameters", **ENORMOUS), "evaluate"),
    "policies of NaN": (dataset("policy/parameters", np.full((4, 2821), np.nan, "f4")), ""),
    "no predictors": (dataset("predictor"), "evaluate"),
    "predictors of another width": (dataset("predictor/parameters", np.zeros((4, 7), "f4")), "evaluate"),
    "predictors of double precision": (dataset("predictor/parameters", np.zeros((4, 1344))), "evaluate"),
    # figures that are reported
    "no evaluation": (dataset("evaluation"), "train report"),
    "an evaluation without rows": (
        edited(lambda file: [series.resize(0, axis=0) for series in file["evaluation"].values()]),
        "train report",
    ),
    "steps of text": (dataset("evaluation/env_steps", [b"a", b"b", b"c", b"d"]), "train report"),
    "steps in two dimensions": (dataset("evaluation/env_steps", np.zeros((4, 4), int)), "train report"),
    "no times": (dataset("evaluation/wall_time"), "train report"),
    "times of text": (dataset("evaluation/wall_time", [b"a", b"b", b"c", b"d"]), "train report"),
    "no returns": (dataset("evaluation/returns"), "train report"),
    "returns a vector": (dataset("evaluation/returns", np.zeros(4)), "train report"),
    "returns a matrix": (dataset("evaluation/returns", np.zeros((4, 3))), "train report"),
    "returns of nobody": (dataset("evaluation/returns", np.zeros((4, 3, 0))), "train report"),
    "returns of no episode": (dataset("evaluation/returns", np.zeros((4, 0, 4))), "train report"),
    "returns of text": (dataset("evaluation/returns", np.full((4, 3, 4), b"x")), "train report"),
    "returns enormous": (
        dataset("evaluation/returns", shape=(10**9, 10**4, 4), dtype="f8", chunks=(1, 10**4, 4)),
        "train report",
    ),
    "too few returns": (
        dataset("evaluation/returns", np.zeros((2, 3, 4)), maxshape=(None, 3, 4)),
        "train report",
    ),
    "cross-entropy a vector": (dataset("evaluation/cross_entropy", np.zeros(4)), "train report"),
    "cross-entropy of text": (dataset("evaluation/cross_entropy", np.full((4, 4), b"x")), "train report"),
    "refreshes without steps": (dataset("influence/env_steps"), "train report"),
    "refreshes of one loss only": (dataset("influence/cross_entropy_after"), "train report"),
    "a loss that is a vector": (dataset("influence/cross_entropy_after", np.zeros(3)), "train report"),
    "memory of text": (dataset("memory/peak_rss", [b"much"]), "report"),
    "memory a group": (group("memory/peak_rss"), "report"),
    "a reference of text": (dataset("reference/random", [b"good"]), "report"),
    "a reference that is a group": (group("reference/random"), "report"),
}
"""What becomes of run.h5, and the programs that cannot do without what is broken; the others may go on."""

PROGRAMS = {
    "train": RESUME,
    "evaluate": ["run", "--episodes", "1"],
    "report": ["run", "--out", "figures"],
}


@pytest.mark.parametrize(
    ("name", "program"), [(name, program) for name in RUN_FILES for program in RUN_FILES[name][1].split()]
)
def test_a_broken_run_file_is_refused(worker, originals, tmp_path, name, program):
    run = originals.copy(tmp_path, finished=program != "train")
    RUN_FILES[name][0](run / "run.h5")
    refused(worker, tmp_path, program, PROGRAMS[program], ["run"])


@pytest.mark.parametrize("program", ["train", "evaluate"])
@pytest.mark.parametrize("name", [name for name, (_, needed_by) in RUN_FILES.items() if not needed_by])
def test_an_odd_run_file_is_refused_or_good_enough(worker, originals, tmp_path, name, program):
    run = originals.copy(tmp_path, finished=program != "train")
    RUN_FILES[name][0](run / "run.h5")
    refused_or_done(worker, tmp_path, program, PROGRAMS[program])


def test_a_version_that_is_newer_is_told(worker, originals, tmp_path):
    run = originals.copy(tmp_path, finished=True)
    attribute("format_version", 7)(run / "run.h5")
    for program, arguments in PROGRAMS.items():
        refused(worker, tmp_path, program, arguments, ["format version 7", "newer"])


# Checkpoints ---------------------------------------------------------------------------------------------

KINDS = {"policy": 2821, "predictor": 1344}

BROKEN_CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    **DAMAGED,
    "a directory": as_directory,
    "a dangling link": as_dangling_link,
    "the run file": lambda path: shutil.copy(path.parent / "run.h5", path),
    "an older one": lambda path: shutil.copy(path.parent / "checkpoint-256.h5", path),
    "a newer version": attribute("format_version", 2),
    "no configuration": dataset("config"),
    "configuration a number": dataset("config", 3),
    "configuration a list": dataset("config", ["seed: 1\n", "seed: 2\n"]),
    "configuration nothing": dataset("config", h5py.Empty(h5py.string_dtype())),
    "configuration no text": dataset("config", np.array(b"seed: \xff\xfe", h5py.string_dtype())),
    "configuration no YAML": dataset("config", "seed: [1\n"),
    "configuration unknown key": dataset("config", "sead: 1\n"),
    "configuration changed": dataset("config", "seed: 1\n"),
    "digest changed": attribute("config_digest", "0" * 64),
    **{
        f"no {kind}/{part}": dataset(f"{kind}/{part}")
        for kind in KINDS
        for part in ("parameters", "adam_steps")
    },
    **{f"no {kind}": dataset(kind) for kind in KINDS},
    "a group for numbers": group("policy/parameters"),
    "double precision": dataset("policy/parameters", np.zeros((4, 2821))),
    "whole numbers": dataset("policy/first_moment", np.zeros((4, 2821), int)),
    "numbers of text": dataset("policy/parameters", np.full((4, 2821), b"x")),
    "a vector": dataset("predictor/parameters", np.zeros(1344, "f4")),
    "a number": dataset("policy/adam_steps", np.float32(3)),
    "too few regions": dataset("policy/second_moment", np.zeros((3, 2821), "f4")),
    "too many regions": dataset("policy/second_moment", np.zeros((5, 2821), "f4")),
    "another width": dataset("predictor/second_moment", np.zeros((4, 1343), "f4")),
    "enormous": dataset("policy/parameters", **ENORMOUS),
    "nothing": dataset("policy/parameters", h5py.Empty("f4")),
}

JUNK_VALUES: dict[str, Any] = {
    "missing": None,
    "text": "three",
    "bytes": np.bytes_(b"[3]"),
    "list": [3, 3],
    "negative": -3,
    "part": 2.5,
    "nan": np.nan,
    "inf": np.inf,
    "huge": 10**18,
    "nothing": h5py.Empty("i8"),
}

HARMLESS = {
    *("wall_time negative", "wall_time part", "wall_time nan", "mean_return negative"),
    *("mean_return part", "mean_return nan", "mean_return inf", "mean_return huge"),
    *("ranks huge", "ranks negative", "ranks part", "ranks nan", "ranks inf", "ranks text", "ranks bytes"),
}
"""Attributes of a checkpoint that may be so, for no result comes from them."""

JSON_ATTRIBUTES = {
    "lengths": [
        '["evaluation/returns"]',
        '{"evaluation/returns": "4"}',
        '{"evaluation/returns": -1}',
        "{",
        "3",
    ],
    "seconds": ['["train"]', '{"train": "long"}', '{"train": [1]}', "{", "null"],
}


def goes_on_from(
    worker: Worker, originals: Originals, folder: Path, steps: int, aside: Sequence[str]
) -> None:
    """--resume says where it goes on from and what it sets aside, and ends as if nothing had happened."""
    contents = {name: digest for name, (digest, _) in tree(folder / "run").items()}
    said = worker.main("train", RESUME, folder)
    assert (said.code, said.stderr) == (0, ""), said
    assert f"going on from {steps} steps (checkpoint-{steps}.h5)\n" in said.stdout
    after = {name: digest for name, (digest, _) in tree(folder / "run").items()}
    for name in aside:
        assert f"{name} is " in said.stdout or f"{name}: " in said.stdout, said.stdout
        assert after[f"{name}.damaged"] == contents[name]
    assert {name for name in after if name.endswith(".damaged")} == {f"{name}.damaged" for name in aside}
    assert (RunFile.open(folder / "run").read("policy/parameters") == originals.parameters).all()


@table(BROKEN_CHECKPOINTS)
def test_the_older_checkpoint_takes_the_place_of_a_broken_one(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    BROKEN_CHECKPOINTS[name](run / "checkpoint-384.h5")
    expected = {**originals.starts["checkpoint-256.h5"], "damaged": ["checkpoint-384.h5"]}
    if name == "a dangling link":
        expected["damaged"] = expected["damaged"] if worker.start(run)["damaged"] else []
    assert worker.start(run) == expected


@table({f"{entry} {junk}": 0 for entry in Position.__dataclass_fields__ for junk in JUNK_VALUES})
def test_a_position_that_is_none_counts_as_broken(worker, originals, tmp_path, name):
    """Such a file was not damaged but made so; it must still not end in a traceback, now or later."""
    entry, _, junk = name.partition(" ")
    run = originals.copy(tmp_path)
    with rewriting(run / "checkpoint-384.h5") as file:
        del file.attrs[entry]
        if JUNK_VALUES[junk] is not None:
            file.attrs[entry] = JUNK_VALUES[junk]
    found = worker.start(run)
    if name not in HARMLESS or found.get("checkpoint") != "checkpoint-384.h5":
        assert found == {**originals.starts["checkpoint-256.h5"], "damaged": ["checkpoint-384.h5"]}


@pytest.mark.parametrize(
    ("entry", "text"), [(key, text) for key in JSON_ATTRIBUTES for text in JSON_ATTRIBUTES[key]]
)
def test_lengths_and_seconds_that_are_none_count_as_broken(worker, originals, tmp_path, entry, text):
    run = originals.copy(tmp_path)
    attribute(entry, np.bytes_(text))(run / "checkpoint-384.h5")
    expected = {**originals.starts["checkpoint-256.h5"], "damaged": ["checkpoint-384.h5"]}
    assert worker.start(run) == expected


@pytest.mark.parametrize(
    "name", ["empty", "noise", "cut at 50%", "a directory", "an older one", "a newer version"]
)
def test_a_run_ends_as_it_would_have_without_the_broken_checkpoint(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    BROKEN_CHECKPOINTS[name](run / "checkpoint-384.h5")
    if name == "a directory":
        contents = tree(run)
        said = worker.main("train", RESUME, tmp_path)
        assert (said.code, said.stderr) == (0, "") and "going on from 256 steps" in said.stdout
        assert "checkpoint-384.h5.damaged/inside" in tree(run) and len(tree(run)) > len(contents)
        return
    goes_on_from(worker, originals, tmp_path, 256, ["checkpoint-384.h5"])


def test_two_broken_checkpoints(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    cut(0.5)(run / "checkpoint-384.h5")
    replaced(NOISE)(run / "checkpoint-256.h5")
    goes_on_from(worker, originals, tmp_path, 128, ["checkpoint-384.h5", "checkpoint-256.h5"])


def test_a_checkpoint_under_another_name(worker, originals, tmp_path):
    """Named for more steps than it has, or than the run has; and for fewer."""
    run = originals.copy(tmp_path)
    for name in ("checkpoint-385.h5", "checkpoint-512.h5", "checkpoint-99999999999999999999.h5"):
        shutil.copy(run / "checkpoint-384.h5", run / name)
    found = worker.start(run)
    assert found["checkpoint"] == "checkpoint-384.h5" and len(found["damaged"]) == 3
    goes_on_from(worker, originals, tmp_path, 384, found["damaged"])
    for path in run.glob("*"):
        if path.name not in ("run.h5", "checkpoint-384.h5"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    edited(lambda file: file.attrs.__setitem__("finished", False))(run / "run.h5")
    (run / "checkpoint-384.h5").rename(run / "checkpoint-128.h5")
    refused(worker, tmp_path, "train", RESUME, ["none of the checkpoints in run", "checkpoint-128.h5"])


def test_names_that_are_no_checkpoints_are_left_alone(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    names = [
        "checkpoint-.h5",
        "checkpoint-x.h5",
        "checkpoint--1.h5",
        "checkpoint-1e9.h5",
        "checkpoint-384.h5.bak",
    ]
    names += ["checkpoint-384.h5.damaged", "checkpoint-512.h5~", "Checkpoint-512.h5", "checkpoint-512.hdf5"]
    for name in names:
        (run / name).write_bytes(NOISE[:100])
    assert worker.start(run) == originals.starts["checkpoint-384.h5"]
    (run / "checkpoint-384.h5.damaged").unlink()
    goes_on_from(worker, originals, tmp_path, 384, [])
    assert all((run / name).read_bytes() == NOISE[:100] for name in names if not name.endswith(".damaged"))


@table(OTHERS)
def test_a_checkpoint_of_another_run(worker, originals, tmp_path, name):
    """Whole, with steps that agree with its name, and not of this run."""
    run = originals.copy(tmp_path)
    shutil.copy(originals.foreign[name] / "checkpoint-384.h5", run / "checkpoint-384.h5")
    goes_on_from(worker, originals, tmp_path, 256, ["checkpoint-384.h5"])


@pytest.mark.parametrize("name", ["empty", "noise", "cut at 86%", "no policy/parameters", "a newer version"])
def test_without_a_good_checkpoint_a_run_does_not_go_on(worker, originals, tmp_path, name):
    """Neither from the beginning: what is there may be of use to its owner."""
    run = originals.copy(tmp_path)
    for path in run.glob("checkpoint-*.h5"):
        BROKEN_CHECKPOINTS[name](path)
    mentions = ["none of the checkpoints in run", "checkpoint-384.h5", "put back a good one", "--output"]
    refused(worker, tmp_path, "train", RESUME, mentions)


def test_a_damaged_checkpoint_whose_new_name_is_taken(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    as_directory(run / "checkpoint-384.h5")
    shutil.copytree(run / "checkpoint-384.h5", run / "checkpoint-384.h5.damaged")
    refused_or_done(worker, tmp_path, "train", RESUME)


EVALUATED = ["run", "--episodes", "1", "--checkpoint"]


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in BROKEN_CHECKPOINTS
        if not re.search("first|second half|_moment|adam|regions|width", name)
    ],
)
def test_a_broken_checkpoint_is_not_evaluated(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    BROKEN_CHECKPOINTS[name](run / "checkpoint-384.h5")
    refused(worker, tmp_path, "evaluate", [*EVALUATED, "384"], ["checkpoint"])


@table(OTHERS)
def test_a_checkpoint_of_another_run_is_not_evaluated(worker, originals, tmp_path, name):
    """Its figures would go by this run's name."""
    run = originals.copy(tmp_path)
    shutil.copy(originals.foreign[name] / "checkpoint-384.h5", run / "checkpoint-384.h5")
    refused(worker, tmp_path, "evaluate", [*EVALUATED, "384"], ["checkpoint-384.h5"])


# The evaluation and the report ---------------------------------------------------------------------------

EVALUATIONS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["nothing to evaluate"]),
    "no run": (["nowhere"], ["no run.h5 in nowhere"]),
    "no run, odd": ([ODD], ["no run.h5"]),
    "no run, too long": (["x" * 300], ["no run.h5"]),
    "NUL": (["nul\0"], ["no run.h5"]),
    "a file": (["good.yaml"], ["no run.h5 in good.yaml"]),
    "the run file itself": (["run/run.h5"], ["no run.h5 in run/run.h5"]),
    "a setting for a run": (["run", "seed=1"], ["seed=1"]),
    "two runs": (["run", f"{ODD}"], ["one argument too many"]),
    "a run and a configuration": (["run", "--config", "good.yaml"], ["run is given beside --config"]),
    "an odd run and a configuration": ([ODD, "--config", "good.yaml"], ["beside --config"]),
    "no such configuration": (["--config", "none.yaml"], ["none.yaml"]),
    "a broken configuration": (["--config", "bomb.yaml", "--policy", "random"], ["aliases"]),
    "a broken setting": (["checkpoint_keep=0", "--policy", "random"], ["checkpoint_keep is 0"]),
    "no policy": (["--config", "good.yaml"], ["--policy is not given"]),
    "trained without a run": (["--config", "good.yaml", "--policy", "trained"], ["directory of a run"]),
    "unknown policy": (["run", "--policy", "clever"], ["--policy is clever", "closest"]),
    "odd policy": (["run", "--policy", ODD], ["closest"]),
    "policy of another domain": (["run", "--policy", "max-pressure"], ["max-pressure", "closest"]),
    "no episodes": (["run", "--episodes", "0"], ["--episodes is 0"]),
    "negative episodes": (["run", "--episodes", "-3"], ["--episodes"]),
    "episodes of text": (["run", "--episodes", "many"], ["--episodes", "many"]),
    "odd episodes": (["run", "--episodes", ODD], ["--episodes"]),
    "half an episode": (["run", "--episodes", "1.5"], ["--episodes"]),
    "more episodes than ever": (["run", "--episodes", "1" + "0" * 30], ["--episodes"]),
    "endless episodes": (["run", "--episodes", "9" * 9999], ["--help"]),
    "no such checkpoint": (["run", "--checkpoint", "512"], ["no 512 checkpoint in run", "best, newest"]),
    "checkpoint by file": (["run", "--checkpoint", "run/checkpoint-384.h5"], ["best, newest"]),
    "checkpoint elsewhere": (["run", "--checkpoint", "../run/checkpoint-384"], ["best, newest"]),
    "checkpoint of text": (["run", "--checkpoint", "latest"], ["no latest checkpoint", "best, newest"]),
    "checkpoint -1": (["run", "--checkpoint", "-1"], ["no -1 checkpoint"]),
    "checkpoint of zeros": (["run", "--checkpoint", "0384"], ["no 0384 checkpoint"]),
    "odd checkpoint": (["run", "--checkpoint", ODD], ["best, newest"]),
    "checkpoint NUL": (["run", "--checkpoint", "3\x0084"], ["best, newest"]),
    "checkpoint for no run": (
        ["--config", "good.yaml", "--policy", "random", "--checkpoint", "best", "warehouse.grid=[2,2]"],
        ["--checkpoint"],
    ),
    "checkpoint for no training": (["run", "--policy", "random", "--checkpoint", "best"], ["--checkpoint"]),
    "figures below a file": (["run", "--episodes", "1", "--json", "good.yaml/x"], ["good.yaml/x", "--json"]),
    "figures nowhere": (["run", "--episodes", "1", "--json", "nowhere/x"], ["nowhere/x", "--json"]),
    "figures nowhere, odd": (["run", "--episodes", "1", "--json", f"nowhere/{ODD}"], ["--json"]),
    "figures into a directory": (["run", "--episodes", "1", "--json", "."], ["--json"]),
    "figures onto a full disk": (["run", "--episodes", "1", "--json", "/dev/full"], ["--json", "space"]),
    "figures NUL": (["run", "--episodes", "1", "--json", "nul\0"], ["--json"]),
    "unknown option": (["run", "--output", "x"], ["--output", "--help"]),
}


@table(EVALUATIONS)
def test_a_bad_evaluation(worker, originals, tmp_path, name):
    originals.copy(with_files(tmp_path), finished=True)
    arguments, mentions = EVALUATIONS[name]
    refused(worker, tmp_path, "evaluate", arguments, mentions)


def test_a_killed_run_without_checkpoints_has_nothing_to_evaluate(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    for path in run.glob("checkpoint-*"):
        path.unlink()
    for words in ([], ["--checkpoint", "newest"], ["--checkpoint", "best"]):
        refused(worker, tmp_path, "evaluate", ["run", *words], ["checkpoint in run"])


REPORTS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": ([], ["DIR", "--help"]),
    "nowhere to": (["run"], ["--out", "--help"]),
    "no run": (["nowhere", "--out", "figures"], ["no run.h5 in nowhere"]),
    "no run, odd": ([ODD, "--out", "figures"], ["no run.h5"]),
    "no run, too long": (["x" * 300, "--out", "figures"], ["no run.h5"]),
    "NUL": (["nul\0", "--out", "figures"], ["no run.h5"]),
    "a run twice": (["run", "run/.", "--out", "figures"], ["the same configuration"]),
    "a run under two names": (["run", ODD, "--out", "figures"], ["the same configuration"]),
    "onto a file": (["run", "--out", "good.yaml"], ["good.yaml", "cannot be written"]),
    "below a file": (["run", "--out", "good.yaml/x"], ["good.yaml/x", "cannot be written"]),
    "below a file, odd": (["run", "--out", f"good.yaml/{ODD}"], ["cannot be written"]),
    "a name too long": (["run", "--out", "x" * 300], ["cannot be written"]),
    "figures NUL": (["run", "--out", "nul\0"], ["cannot be written"]),
    "unknown option": (["run", "--out", "figures", "--\udcff\x1b[31m"], ["--help"]),
}


@table(REPORTS)
def test_a_bad_report(worker, originals, tmp_path, name):
    originals.copy(with_files(tmp_path), finished=True)
    if name == "a run under two names":
        originals.copy(tmp_path, finished=True, name=ODD)
    arguments, mentions = REPORTS[name]
    refused(worker, tmp_path, "report", arguments, mentions)


# Odd directories -----------------------------------------------------------------------------------------

ODD_RUNS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "a run that is there": ("train", lambda run: None, []),
    "another seed": ("train", lambda run: None, ["--resume", "seed=1"]),
    "damaged": ("train", lambda run: cut(0.5)(run / "run.h5"), ["--resume"]),
    "newer": ("train", lambda run: attribute("format_version", 9)(run / "run.h5"), ["--resume"]),
    "its configuration": ("train", lambda run: dataset("config/0", "a: [")(run / "run.h5"), ["--resume"]),
    "no run file": ("train", lambda run: (run / "run.h5").unlink(), ["--resume"]),
    "too few rows": ("train", lambda run: dataset("training")(run / "run.h5"), ["--resume"]),
    "no good checkpoint": (
        "train",
        lambda run: [cut(0.5)(path) for path in run.glob("checkpoint-*")],
        ["--resume"],
    ),
    "evaluate: damaged": ("evaluate", lambda run: cut(0.5)(run / "run.h5"), []),
    "evaluate: newer": ("evaluate", lambda run: attribute("format_version", 9)(run / "run.h5"), []),
    "evaluate: its configuration": ("evaluate", lambda run: dataset("config/0", "a: [")(run / "run.h5"), []),
    "evaluate: no policies": ("evaluate", lambda run: dataset("policy")(run / "run.h5"), []),
    "evaluate: others": (
        "evaluate",
        lambda run: dataset("policy/parameters", np.zeros((4, 3), "f4"))(run / "run.h5"),
        [],
    ),
    "evaluate: no checkpoint": ("evaluate", lambda run: None, ["--checkpoint", "7"]),
    "evaluate: a bad checkpoint": (
        "evaluate",
        lambda run: cut(0.5)(run / "checkpoint-256.h5"),
        ["--checkpoint", "256"],
    ),
    "evaluate: two": ("evaluate", lambda run: None, [ODD]),
    "report: damaged": ("report", lambda run: cut(0.5)(run / "run.h5"), ["--out", "figures"]),
    "report: nothing yet": (
        "report",
        lambda run: dataset("evaluation")(run / "run.h5"),
        ["--out", "figures"],
    ),
    "report: no times": (
        "report",
        lambda run: dataset("evaluation/wall_time")(run / "run.h5"),
        ["--out", "figures"],
    ),
}


@table(ODD_RUNS)
def test_an_odd_directory_stays_on_one_line(worker, originals, tmp_path, name):
    program, change, words = ODD_RUNS[name]
    change(originals.copy(tmp_path, finished=program != "train", name=ODD))
    arguments = [*WORDS, *words, "--output", ODD] if program == "train" else [ODD, *words]
    refused(worker, tmp_path, program, arguments)


def test_a_run_in_an_odd_directory_goes_on_and_ends(worker, originals, tmp_path):
    """It is strange, but nothing is wrong with it: a run of days must not end on its last line."""
    run = originals.copy(tmp_path, name=ODD)
    cut(0.5)(run / "checkpoint-384.h5")
    for _ in range(2):
        said = worker.main("train", [*WORDS, "--resume", "--output", ODD], tmp_path)
        assert (said.code, said.stderr) == (0, ""), said
    assert RunFile.open(run).attributes()["finished"]
    for program, words in (("evaluate", ["--episodes", "1"]), ("report", ["--out", "figures"])):
        said = worker.main(program, [ODD, *words], tmp_path)
        assert (said.code, said.stderr) == (0, ""), said


# With ranks ----------------------------------------------------------------------------------------------

RANKED: dict[str, tuple[Callable[[Path], None] | None, list[str], list[str]]] = {
    "a broken override": (None, [*WORDS, "checkpoint_keep=0"], ["checkpoint_keep is 0"]),
    "a broken walltime": (None, [*WORDS, "--walltime", "1h"], ["--walltime is '1h'"]),
    "too many ranks": (None, [*WORDS, "warehouse.grid=[1,1]"], ["3 ranks", "at most 2"]),
    "another setting": (lambda run: None, [*WORDS, "ppo.clip=0.2"], ["ppo.clip was 0.1 and is 0.2"]),
    "a broken run file": (lambda run: cut(0.5)(run / "run.h5"), [*WORDS], ["run.h5", "damaged"]),
    "no good checkpoint": (
        lambda run: [replaced(NOISE)(path) for path in run.glob("checkpoint-*")],
        [*WORDS],
        ["none of the checkpoints"],
    ),
}


@table(RANKED)
def test_root_alone_speaks_and_all_ranks_end(originals, tmp_path, name):
    change, words, mentions = RANKED[name]
    if change:
        change(originals.copy(tmp_path))
    before = tree(tmp_path)
    result = train(*words, "--resume", "--output", "run", ranks=3, cwd=tmp_path)
    assert (result.code, result.stdout) == (2, "")
    one_sentence(result.stderr, mentions)
    assert tree(tmp_path) == before and not result.left_over


def test_ranks_go_on_from_the_older_checkpoint(originals, tmp_path):
    cut(0.7)(originals.copy(tmp_path) / "checkpoint-384.h5")
    result = train(*RESUME, ranks=2, cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "")
    assert "checkpoint-384.h5 is not a checkpoint, or a damaged one" in result.stdout
    assert "going on from 256 steps (checkpoint-256.h5)" in result.stdout
    assert (RunFile.open(tmp_path / "run").read("policy/parameters") == originals.parameters).all()


# Anything at all: settings -------------------------------------------------------------------------------


def quick(examples: int) -> hypothesis_settings:
    """Without shrinking: where the worker hangs, every further try takes its limit."""
    return hypothesis_settings(
        deadline=None,
        max_examples=examples,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


VALUES = st.one_of(
    JUNK,
    st.integers(-10, 10**6).map(str),
    st.floats(allow_nan=True).map(str),
    st.sampled_from(
        ["true", "no", "[2,2]", "[8, 8]", "gru", "fnn", "dials", "global", "traffic", "1e-4", "0"]
    ),
    PLAIN.map(lambda value: yaml.safe_dump(value, default_flow_style=True)),
)
OVERRIDE = st.tuples(st.sampled_from([*KEYS, "traffic.grid", "ppo", "x"]) | st.text(max_size=8), VALUES)


@given(overrides=st.lists(OVERRIDE, min_size=1, max_size=6))
@quick(200)
def test_no_overrides_raise_anything_else(overrides):
    accepts_or_refuses(load, None, [f"{key}={value}" for key, value in overrides])


@pytest.fixture(scope="module")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@given(
    content=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
@example(content=b"\xef\xbb\xbf")
@example(content=b"\xef\xbb\xbf\xef\xbb\xbfseed: 1")
@example(content="seed: 1\u2028mode: dials".encode())
@quick(200)
def test_no_bytes_in_a_file_raise_anything_else(scratch, content):
    (scratch / "any.yaml").write_bytes(content)
    accepts_or_refuses(load, str(scratch / "any.yaml"))


@given(
    cuts=st.lists(
        st.tuples(st.integers(0, len(VALID)), st.integers(0, 4), st.binary(max_size=4)),
        min_size=1,
        max_size=3,
    )
)
@quick(60)
def test_no_damage_to_a_configuration_raises_anything_else(scratch, cuts):
    content = VALID.encode()
    for start, length, junk in cuts:
        content = content[:start] + junk + content[start + length :]
    (scratch / "damaged.yaml").write_bytes(content)
    accepts_or_refuses(load, str(scratch / "damaged.yaml"))


YAML_TEXT = st.recursive(
    st.one_of(
        VALUES, st.sampled_from(["&a 1", "*a", "!!int 1", "!x", "|\n  text", ">-\n  text", "? x", "<<: {}"])
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.lists(inner, max_size=3).map(lambda parts: "".join(f"\n  - {part}" for part in parts)),
        st.lists(st.tuples(st.sampled_from([*KEYS, "clip", "grid", "<<"]), inner), max_size=3).map(
            lambda parts: "".join(f"\n  {key.rpartition('.')[2]}: {part}" for key, part in parts)
        ),
    ),
    max_leaves=5,
)


@given(
    lines=st.lists(
        st.tuples(st.sampled_from([*KEYS, "ppo", "policy", "influence", "warehouse"]), YAML_TEXT), max_size=4
    )
)
@quick(200)
def test_no_document_raises_anything_else(scratch, lines):
    text = "".join(f"{key}: {value}\n" for key, value in lines)
    (scratch / "document.yaml").write_text(text, encoding="utf-8", errors="replace")
    accepts_or_refuses(load, str(scratch / "document.yaml"))


@given(text=st.text(alphabet="0123456789:-. \n٣h", max_size=14) | st.text(max_size=8))
@example(text="9999-9999:59:59")
@quick(300)
def test_no_walltime_raises_anything_else(text):
    try:
        seconds = walltime.seconds(text)
    except BadInput as refusal:
        assert str(refusal).isprintable() and "3:50:00" in str(refusal)
    else:
        days, _, clock = text.strip().rpartition("-")
        hours, minutes, rest = map(int, clock.split(":"))
        assert seconds == ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + rest > 0


WORD = st.one_of(
    st.sampled_from(
        ["--resume", "--log-ranks", "--config", "--output", "--walltime", "--", "-x", "-", "--conf", "--o"]
    ),
    st.sampled_from(
        ["good.yaml", "open.yaml", "binary.yaml", "nowhere", ".", "3:50:00", "seed=1", "ppo.clip=0.2"]
    ),
    OVERRIDE.map("=".join),
    st.text(st.characters(exclude_characters="\0"), max_size=6),
    st.text(st.characters(exclude_characters="\0"), max_size=4).map("--{}".format),
)


@given(words=st.lists(WORD, min_size=1, max_size=5))
@quick(120)
def test_no_command_line_raises_anything_else(worker, scratch, words):
    """--print-config stands first: behind a -- it would be a setting, and the run would begin."""
    if not (scratch / "good.yaml").exists():
        with_files(scratch)
    said = refused_or_done(worker, scratch, "train", ["--print-config", *words])
    if said.code == 0:
        config_module.from_yaml(said.stdout) if not said.stdout.startswith("usage:") else None


# Anything at all: files ----------------------------------------------------------------------------------

STRUCTURES = re.compile(
    rb"\x89HDF|TREE|SNOD|HEAP|OHDR|OCHK|GCOL|FRHP|FHDB|FHIB|BTHD|BTIN|BTLF|EAHD|EAIB|EASB|EADB|FAHD|FADB"
)
"""Beginnings of HDF5's own structures, where a changed byte does most."""

PLACE = st.tuples(st.booleans(), st.integers(0, 10**6), st.integers(0, 100))
DAMAGE = st.one_of(
    st.tuples(
        st.just("flip"), PLACE, st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128, 255]) | st.integers(1, 255)
    ),
    st.tuples(st.just("zero"), PLACE, st.sampled_from([2, 8, 64, 512, 4096, 65536])),
    st.tuples(st.just("ones"), PLACE, st.sampled_from([2, 8, 64, 512])),
    st.tuples(st.just("noise"), PLACE, st.sampled_from([2, 8, 64, 512, 4096])),
    st.tuples(st.just("elsewhere"), PLACE, st.sampled_from([8, 512, 4096])),
    st.tuples(st.just("lost"), PLACE, st.sampled_from([1, 8, 512, 4096])),
    st.tuples(st.just("cut"), PLACE, st.just(0)),
    st.tuples(st.just("longer"), PLACE, st.integers(1, 1000)),
)
FLIP = st.tuples(st.just("flip"), PLACE, st.integers(1, 255))


def damaged(data: bytes, damage: tuple[str, tuple[bool, int, int], int]) -> bytes:
    """A file's bytes after something has happened to them at one place."""
    kind, (at_structure, number, offset), size = damage
    starts = [match.start() for match in STRUCTURES.finditer(data)]
    place = (starts[number % len(starts)] + offset if at_structure else number) % len(data)
    if kind == "cut":
        return data[:place]
    if kind == "flip":
        return data[:place] + bytes([data[place] ^ size]) + data[place + 1 :]
    if kind == "lost":
        return data[:place] + data[place + size :]
    if kind == "longer":
        return data + NOISE[:size]
    place -= place % min(size, 512)  # what is lost on a disk or in a page are blocks
    size = min(size, len(data) - place)
    new = {
        "zero": bytes(size),
        "ones": b"\xff" * size,
        "noise": NOISE[number % 999 :][:size],
        "elsewhere": (data[place // 2 :] + bytes(size))[:size],
    }[kind]
    return data[:place] + new + data[place + len(new) :]


def test_damage_is_damage():
    """The strategy's own arithmetic: nothing but the place that is meant changes."""
    data = b"....OHDR" + bytes(range(248))
    assert damaged(data, ("flip", (True, 5, 1), 32)) == data.replace(b"OHDR", b"OhDR")
    assert damaged(data, ("zero", (False, 17, 0), 8)) == data[:16] + bytes(8) + data[24:]
    assert damaged(data, ("lost", (False, 10, 0), 8)) == data[:10] + data[18:]
    assert damaged(data, ("cut", (False, 256 + 9, 0), 0)) == data[:9]
    for kind in ("ones", "noise", "elsewhere"):
        assert len(damaged(data, (kind, (False, 250, 0), 64))) == len(data)


@pytest.fixture(scope="module")
def at_hand(originals, tmp_path_factory) -> Path:
    """A killed run to damage and to mend again."""
    return originals.copy(tmp_path_factory.mktemp("at_hand"))


def pages(size: int) -> list[tuple[str, tuple[bool, int, int], int]]:
    """Every page of a file in turn, lost."""
    return [("zero", (False, place, 0), 4096) for place in range(0, size, 4096)]


def require_noticed_or_harmless(
    worker: Worker, originals: Originals, run: Path, damages: Sequence[tuple[str, tuple[bool, int, int], int]]
) -> None:
    """The same numbers as before are loaded from a damaged checkpoint, or those of the older one are."""
    newest = run / "checkpoint-384.h5"
    whole = (originals.killed / newest.name).read_bytes()
    for damage in damages:
        content = damaged(whole, damage)
        newest.write_bytes(content)
        found = worker.start(run)
        if found != originals.starts["checkpoint-384.h5"]:
            assert found == {**originals.starts["checkpoint-256.h5"], "damaged": [newest.name]}, damage


def test_a_lost_page_of_a_checkpoint_is_noticed(worker, originals, at_hand):
    size = (at_hand / "checkpoint-384.h5").stat().st_size
    require_noticed_or_harmless(worker, originals, at_hand, pages(size))


@given(damage=DAMAGE)
@quick(120)
def test_any_damage_to_a_checkpoint_is_noticed_or_harmless(worker, originals, at_hand, damage):
    require_noticed_or_harmless(worker, originals, at_hand, [damage])


@given(damage=FLIP)
@quick(100)
def test_any_flipped_byte_of_a_checkpoint_is_noticed_or_harmless(worker, originals, at_hand, damage):
    require_noticed_or_harmless(worker, originals, at_hand, [damage])


def test_a_checkpoint_whose_numbers_were_replaced_is_noticed(worker, originals, at_hand):
    """Zeros are what HDF5's own checksum takes for good, where it is zeroed with them."""
    newest = at_hand / "checkpoint-384.h5"
    whole = (originals.killed / newest.name).read_bytes()
    with h5py.File(originals.killed / newest.name) as file:
        parts = [
            f"{kind}/{part}" for kind in KINDS for part in ("parameters", "first_moment", "second_moment")
        ]
        rows = [file[part][region].tobytes() for part in parts for region in range(4)]
    for row in rows:
        assert whole.count(row) == 1
        before, behind = whole.split(row)
        newest.write_bytes(before + bytes(len(row) + 4) + behind[4:])
        found = worker.start(at_hand)
        assert found == {**originals.starts["checkpoint-256.h5"], "damaged": [newest.name]}


def text_heaps(data: bytes) -> Iterator[int]:
    """Where HDF5 keeps texts of any length, without a checksum: the number and the size of each."""
    for match in re.finditer(b"GCOL", data):
        place, end = (
            match.start() + 16,
            match.start() + int.from_bytes(data[match.start() + 8 :][:8], "little"),
        )
        number = -1
        while number and place + 16 <= min(end, len(data)):
            number, size = (
                int.from_bytes(data[at : at + width], "little") for at, width in ((place, 2), (place + 8, 8))
            )
            yield from (place, place + 8)
            place += 16 + -(-size // 8) * 8


def test_a_flipped_byte_where_texts_are_kept_is_noticed(worker, originals, at_hand):
    """The library was seen to look for a text without end."""
    newest = at_hand / "checkpoint-384.h5"
    places = list(text_heaps((originals.killed / newest.name).read_bytes()))
    damages = [("flip", (False, place, 0), bit) for place in places for bit in (1, 255)]
    require_noticed_or_harmless(worker, originals, at_hand, damages)


def require_refused_or_good(worker: Worker, originals: Originals, run: Path, content: bytes) -> None:
    """A damaged run file: the run does not begin, or it writes what it would have."""
    for path in run.glob("*"):
        path.unlink()
    for path in originals.killed.glob("*"):
        shutil.copy(path, run)
    (run / "run.h5").write_bytes(content)
    found = worker.start(run, session=True)
    if "refused" in found:
        assert found["refused"].isprintable()
        assert (run / "run.h5").read_bytes() == content
    else:
        assert found == originals.starts["checkpoint-384.h5"]


def test_a_lost_page_of_a_run_file(worker, originals, at_hand):
    whole = (originals.killed / "run.h5").read_bytes()
    for damage in pages(len(whole)):
        require_refused_or_good(worker, originals, at_hand, damaged(whole, damage))


@given(damage=DAMAGE)
@quick(120)
def test_any_damage_to_a_run_file_is_refused_or_good_enough(worker, originals, at_hand, damage):
    whole = (originals.killed / "run.h5").read_bytes()
    require_refused_or_good(worker, originals, at_hand, damaged(whole, damage))


@given(damage=DAMAGE)
@quick(100)
def test_any_damage_to_a_run_file_is_no_traceback_in_the_report(worker, originals, scratch, damage):
    (scratch / "run.h5").write_bytes(damaged((originals.finished / "run.h5").read_bytes(), damage))
    assert worker.read(scratch).isprintable()


@given(damage=DAMAGE)
@quick(60)
def test_any_damage_to_a_run_file_is_noticed_by_the_evaluation(worker, originals, scratch, damage):
    """It is refused, or the figures are those of the whole file."""
    (scratch / "run.h5").unlink(missing_ok=True)
    arguments = [".", "--episodes", "2"]
    said = worker.main("evaluate", arguments, originals.finished)
    assert (said.code, said.stderr) == (0, "")
    (scratch / "run.h5").write_bytes(damaged((originals.finished / "run.h5").read_bytes(), damage))
    found = refused_or_done(worker, scratch, "evaluate", arguments)
    assert found.code == 2 or found.stdout == said.stdout


if __name__ == "__main__":
    serve()
