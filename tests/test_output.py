"""Errors of standard output: a reader that has exited, a full disk, a closed stream; numbers of options."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import launch, without_first_start

from dials_mpi.__main__ import COMMANDS as EVERY
from dials_mpi.cli import integer, real
from dials_mpi.core.errors import BadInput
from dials_mpi.settings import numerals
from dials_mpi.storage.files import output_file, write_json

PROGRAMS = Path(__file__).parents[1] / "dials_mpi"
STUDY = Path(__file__).parents[1] / "configs/studies/table-3-small.yaml"

COMMANDS = {
    "evaluate": ("evaluate", "--policy", "random", "--episodes", "1", "warehouse.grid=[2,2]"),
    "train --print-config": ("train", "--print-config"),
    "train --print-ranks": ("train", "--print-ranks"),
    "study --count": ("study", str(STUDY), "--count"),
    "study --list": ("study", str(STUDY), "--list"),
    "evaluate --help": ("evaluate", "--help"),
}


def started(arguments: tuple[str, ...], folder: Path, buffered: bool, stdout: int) -> tuple[int, str]:
    """A program's exit code and its text on stderr."""
    program, *others = arguments
    command = [sys.executable, *([] if buffered else ["-u"]), "-m", f"dials_mpi.{program}", *others]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=folder, env=environment, timeout=120
    )
    return done.returncode, without_first_start(done.stderr)


@pytest.mark.parametrize("buffered", [True, False])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_has_exited_gives_no_traceback(name, buffered, tmp_path):
    """As with ``| head``."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        code, said = started(COMMANDS[name], tmp_path, buffered, writer)
    finally:
        os.close(writer)
    assert said == "" and code in (
        (1,) if buffered else (0, 1)
    )  # argparse ignores errors when it prints --help


EVERY_COMMAND = """
import os, sys
from dials_mpi.__main__ import COMMANDS, main
for words in [[], ["--help"], ["configs"], ["cache"], *([name, "--help"] for name in COMMANDS)]:
    if not os.fork():
        main(words)
    print(os.waitstatus_to_exitcode(os.wait()[1]), *words, file=sys.stderr)
os._exit(0)
"""


@pytest.mark.slow
def test_every_command_bears_a_reader_that_has_exited(tmp_path):
    """Each in a process of its own, which has loaded what they share."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", EVERY_COMMAND]
    done = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=120
    )
    os.close(writer)
    codes = dict(line.partition(" ")[::2][::-1] for line in done.stderr.splitlines())
    assert len(codes) == 4 + len(EVERY) and set(codes) >= {"configs", "cache", "train --help"}
    assert {code for words, code in codes.items() if words} <= {"0", "1"}, done.stderr


def test_a_reader_of_errors_that_has_exited_changes_no_exit_code(tmp_path):
    """As with ``2>&1 | head``."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "dials_mpi.evaluate", "nowhere"]
    done = subprocess.run(command, stdout=writer, stderr=writer, cwd=tmp_path, timeout=120)
    os.close(writer)
    assert done.returncode == 2


@pytest.mark.parametrize("name", ["evaluate", "study --list", "train --print-config"])
def test_a_full_disk_gives_one_sentence(name, tmp_path):
    with open("/dev/full", "w") as full:
        code, said = started(COMMANDS[name], tmp_path, True, full.fileno())
    assert code == 1 and said.count("\n") == 1
    assert said.startswith("dials_mpi: standard output cannot be written (No space left on device)")


def test_bad_input_is_exit_code_2_with_any_output(tmp_path):
    with open("/dev/full", "w") as full:
        code, said = started(("evaluate", "nowhere"), tmp_path, True, full.fileno())
    assert code == 2 and said.count("\n") == 1 and "no run.h5" in said


def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path):
    """Otherwise text that a library prints would be written to that file."""
    script = (
        "from dials_mpi.core.output import command_line, os\n"
        "@command_line\n"
        "def main():\n"
        "    print(1); os.write(1, b'x'); raise SystemExit(os.open('file', os.O_CREAT | os.O_WRONLY))\n"
        "main()"
    )
    command = f'{sys.executable} -c "$SCRIPT" <&- >&-'
    done = subprocess.run(
        ["sh", "-c", command], env={**os.environ, "SCRIPT": script}, cwd=tmp_path, capture_output=True
    )
    assert (done.returncode > 2, done.stderr) == (True, b"")


# Numbers on command lines --------------------------------------------------------------------------------


def test_every_option_for_a_number_is_parsed_as_settings_are():
    """int and float would accept 010, 1_0 and digits of any script."""
    exported = PROGRAMS / "export" / "traci_program.py"  # which uses nothing of this package
    for file in {*PROGRAMS.rglob("*.py")} - {exported}:
        text = file.read_text()
        assert "type=int," not in text and "type=float," not in text, file


@pytest.mark.parametrize(
    "text", ["010", "1_0", "٣", "\uff11", " 1", "1 ", "", "1e3", "0x1F", "1:30", "9" * 5000]
)
def test_texts_that_are_not_whole_numbers(text):
    with pytest.raises(Exception, match=r"which|give a whole number"):
        integer(text)


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "infinity", "010", "1_0.5", "٣", " 1", "0x1p3", ""])
def test_texts_that_are_not_numbers(text):
    with pytest.raises(Exception, match=r"which|give a number"):
        real(text)


def test_whole_numbers_and_numbers():
    assert [integer(text) for text in ("0", "-3", "+5", "8_000_000")] == [0, -3, 5, 8_000_000]
    assert [real(text) for text in ("5", "1e-4", ".5", "5.", "1_000.5")] == [5, 1e-4, 0.5, 5, 1000.5]
    assert numerals.ambiguity("10") is None is numerals.ambiguity("ten")


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--policy", "random", "--episodes", "010"),
        ("check", "warehouse", "--episodes", "010"),
        ("fidelity", "--episodes", "010"),
        ("report", "nowhere", "--out", "x", "--steps", "010"),
        ("export", "nowhere", "--out", "x.pt", "--region", "010"),
        ("bench", "--updates", "010"),
        ("watch", "nowhere", "--out", "x.png", "--seed", "010"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_programs_refuse_a_leading_zero(arguments, tmp_path):
    program, *others = arguments
    done = launch("-m", f"dials_mpi.{program}", *others, cwd=tmp_path)
    assert done.code == 2 and done.stderr.count("\n") == 1 and "write 10 (or 8)" in done.stderr, done


# Devices in place of files -------------------------------------------------------------------------------


def test_a_device_is_written_and_not_replaced(tmp_path):
    """It was replaced by a file, which for /dev/full or /dev/stdout harms other programs, too."""
    null, full = tmp_path / "null", tmp_path / "full"
    null.symlink_to("/dev/null")
    full.symlink_to("/dev/full")
    write_json(str(null), [1])
    assert null.is_symlink() and null.is_char_device()
    with pytest.raises(BadInput, match=r"full cannot be written \(No space left on device\)"):
        write_json(str(full), [1])
    assert full.is_symlink() and len(list(tmp_path.iterdir())) == 2


def test_a_folder_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(BadInput, match="Is a directory"), output_file(tmp_path):
        pytest.fail("nothing is made")
