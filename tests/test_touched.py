"""Files of a run that another program has opened, changed or left open: messages, and how to continue."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import bad_input
import h5py
import numpy as np
import pytest
from bad_input import RESUME, refused, table, tree
from conftest import content

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.gym import GlobalEnv, RegionEnv
from dials_mpi.storage import superblock
from dials_mpi.storage.checksum import Changed, InUse, has_valid_checksum
from dials_mpi.storage.runfile import RunFile

worker, originals, tmp_path = bad_input.worker, bad_input.originals, bad_input.tmp_path

CHANGE = "was changed by another program since the run wrote it"
OPEN = "is open for writing in another program"

WRITER = """
import sys, h5py
file = h5py.File(sys.argv[1], "r+")
exec(sys.argv[2])
print("open", flush=True)
sys.stdin.read()
"""


@contextmanager
def opened(path: Path, change: str = "") -> Iterator[subprocess.Popen]:
    """The file while another program has it open for writing; the program is killed if it has not ended."""
    command = [sys.executable, "-c", WRITER, str(path), change]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout.readline() == "open\n"
        yield program
        program.kill()


def left_open(path: Path, change: str = "") -> None:
    with opened(path, change):
        pass


def outside(edit):
    """A change by another program, which does not update the checksum."""

    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    return change


COMMENT = "file.attrs['comment'] = 'the best one'; file.flush()"

TOUCHED = {
    "a comment": outside(lambda file: file.attrs.__setitem__("comment", "the best one")),
    "a comment on a series": outside(
        lambda file: file["evaluation/returns"].attrs.__setitem__("seen", [1, 2])
    ),
    "nothing for a comment": outside(lambda file: file.attrs.__setitem__("comment", h5py.Empty("i8"))),
    "a derived dataset": outside(lambda file: file.__setitem__("evaluation/mean", np.arange(4.0))),
    "a derived series": outside(
        lambda file: file.create_dataset("mine/rows", data=np.arange(9.0), maxshape=(None,), chunks=(3,))
    ),
    "a type": outside(lambda file: file.__setitem__("mine", np.dtype("f8"))),
    "links": outside(
        lambda file: [
            file.__setitem__(name, link)
            for name, link in {
                "nowhere": h5py.SoftLink("/none"),
                "round": h5py.SoftLink("/"),
                "away": h5py.ExternalLink("none.h5", "/x"),
            }.items()
        ]
    ),
    "left open with a comment": lambda path: left_open(path, COMMENT),
}
"""Changes of other programs that do not damage the file."""


def test_a_mark_is_removed_as_the_library_does(originals):
    head = (originals.finished / "run.h5").read_bytes()[: superblock.HEAD]
    assert not superblock.marked(head) and superblock.cleared(head) == head
    marked = head[:11] + b"\x01" + head[12:]
    assert superblock.marked(marked) and superblock.cleared(marked) == head


# Reading -------------------------------------------------------------------------------------------------


@table(TOUCHED)
def test_a_changed_run_file_is_read_with_unchecked(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path, finished=True)
    TOUCHED[name](run / "run.h5")
    for program, words in (("evaluate", ["--episodes", "1"]), ("report", ["--html", "page.html"])):
        refused(worker, tmp_path, program, ["run", *words], ["run.h5", CHANGE, "--unchecked", "--resume"])
        said = worker.main(program, ["run", *words, "--unchecked"], tmp_path)
        assert (said.code, said.stderr) == (0, ""), said


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--episodes", "1"),
        ("watch.__main__", "--steps", "1", "--out", "x.png"),
        ("report.__main__", "--out", "x"),
        ("export.__main__", "--all", "--out", "x.npz"),
        ("archive", "--out", "x"),
        ("check.__main__", "--episodes", "2"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_every_program_that_reads_runs(arguments, originals, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    TOUCHED["a comment"](originals.copy(tmp_path, finished=True) / "run.h5")
    program, *words = arguments
    main = importlib.import_module(f"dials_mpi.{program}").main
    for more, code in (([], 2), (["--unchecked"], 0)):
        with pytest.raises(SystemExit) as left:
            main(["run", *words, *more])
        said = capsys.readouterr().err
        assert left.value.code == code, said
        assert (CHANGE in said) == (code == 2)


def test_environments_of_a_changed_run(originals, tmp_path):
    run = originals.copy(tmp_path, finished=True)
    TOUCHED["a comment"](run / "run.h5")
    for kind in (GlobalEnv, RegionEnv):
        with pytest.raises(Changed):
            kind.from_run(run)
        kind.from_run(run, unchecked=True).close()


def test_an_unchanged_file_that_is_open_elsewhere_is_read(worker, originals, tmp_path):
    path = originals.copy(tmp_path, finished=True) / "run.h5"
    before = path.read_bytes()
    with opened(path):
        assert path.read_bytes() != before
        assert RunFile.open(path.parent).finished()
        said = worker.main("evaluate", ["run", "--episodes", "1"], tmp_path)
        assert (said.code, said.stderr) == (0, ""), said
    assert path.read_bytes() != before, "the program was killed"
    assert RunFile.open(path.parent).finished()


def test_a_file_that_is_being_changed_must_be_closed_first(worker, originals, tmp_path):
    path = originals.copy(tmp_path, finished=True) / "run.h5"
    with opened(path, COMMENT) as program:
        for more in ([], ["--unchecked"]):
            refused(worker, tmp_path, "evaluate", ["run", *more], [OPEN, "close it there"])
        program.communicate("")
    assert CHANGE in refused(worker, tmp_path, "evaluate", ["run"])


# Continuing ----------------------------------------------------------------------------------------------


def require_continued(worker, folder, kept, touched: bytes) -> None:
    said = worker.main("train", RESUME, folder)
    assert (said.code, said.stderr) == (0, ""), said
    assert f"run.h5 {CHANGE}: " in said.stdout and f"kept as {kept}\n" in said.stdout
    assert (folder / "run" / kept).read_bytes() == touched
    assert has_valid_checksum(folder / "run" / "run.h5")


@table(TOUCHED)
def test_a_run_continues_from_the_rows_of_a_changed_file(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    TOUCHED[name](run / "run.h5")
    require_continued(worker, tmp_path, "run.h5.changed", (run / "run.h5").read_bytes())
    found, expected = content(run / "run.h5"), content(originals.finished / "run.h5")
    assert set(found) == {*expected, "config/1"}
    for key in expected:
        if not key.startswith(("timing/", "memory/", "config/")) and "wall_time" not in key:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=key)
    with h5py.File(run / "run.h5") as file:
        assert file["config/1"].attrs["rebuilt_from"] == "run.h5.changed"
        commented = name in ("a comment", "left open with a comment")
        assert file.attrs.get("comment") == ("the best one" if commented else None)
        assert file["evaluation/returns"].attrs["unit"] == "reward per episode"
        assert file["evaluation/returns"].maxshape == (None, 3, 4)


def test_a_finished_run_whose_file_was_changed_gets_a_new_one(worker, originals, tmp_path):
    run = originals.copy(tmp_path, finished=True)
    TOUCHED["a comment"](run / "run.h5")
    (run / "run.h5.changed").touch()
    require_continued(worker, tmp_path, "run.h5.changed1", (run / "run.h5").read_bytes())
    assert RunFile.open(run).finished()
    assert (RunFile.open(run).read("policy/parameters") == originals.parameters).all()
    assert not (run / "run.h5.changed").read_bytes()


def test_a_finished_run_with_a_comment_is_not_trained_again(worker, originals, tmp_path):
    run = originals.copy(tmp_path, finished=True)
    TOUCHED["a comment"](run / "run.h5")
    (run / "checkpoint-384.h5").unlink()
    before = tree(tmp_path)
    said = worker.main("train", RESUME, tmp_path)
    assert said.code == 0 and "is finished" in said.stdout
    assert tree(tmp_path) == before


@pytest.mark.parametrize("change", ["", COMMENT])
def test_a_run_does_not_continue_while_another_program_has_its_file_open(worker, originals, tmp_path, change):
    run = originals.copy(tmp_path)
    with opened(run / "run.h5", change) as program:
        refused(worker, tmp_path, "train", RESUME, ["run.h5", OPEN, "close it there"])
        program.communicate("")
    assert worker.main("train", RESUME, tmp_path).code == 0


def with_texts(file: h5py.File) -> None:
    del file["evaluation/returns"]
    file.create_dataset("evaluation/returns", data=[b"x"] * 9, maxshape=(None,))


WRONG = {
    "steps past the checkpoint": lambda file: file["evaluation/env_steps"].__setitem__(1, 999),
    "steps that go back": lambda file: file["training/env_steps"].__setitem__(1, 0),
    "another type": with_texts,
    "fewer rows": lambda file: file["evaluation/returns"].resize(2, axis=0),
    "a series that is gone": lambda file: file.__delitem__("training/entropy"),
    "another configuration": lambda file: file["config/0"].__setitem__((), "seed: 1\n"),
}


@table(WRONG)
def test_a_run_does_not_continue_from_rows_that_it_cannot_have_written(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    outside(WRONG[name])(run / "run.h5")
    refused(worker, tmp_path, "train", RESUME, ["run"])


# Checkpoints ---------------------------------------------------------------------------------------------


def test_a_changed_checkpoint_is_named_and_the_one_before_is_used(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    TOUCHED["a comment"](run / "checkpoint-384.h5")
    refused(worker, tmp_path, "evaluate", ["run"], ["checkpoint-384.h5", CHANGE, "--unchecked"])
    assert worker.main("evaluate", ["run", "--unchecked", "--episodes", "1"], tmp_path).code == 0
    said = worker.main("train", RESUME, tmp_path)
    assert said.code == 0, said
    assert f"checkpoint-384.h5 {CHANGE}" in said.stdout and "going on from 256 steps" in said.stdout
    assert (run / "checkpoint-384.h5.damaged").exists()
    assert (RunFile.open(run).read("policy/parameters") == originals.parameters).all()


def test_a_checkpoint_that_is_open_elsewhere(worker, originals, tmp_path):
    """It is never treated as damaged: it is used if it is unchanged, else --resume is refused."""
    run = originals.copy(tmp_path)
    with opened(run / "checkpoint-384.h5", COMMENT):
        refused(worker, tmp_path, "train", RESUME, ["checkpoint-384.h5", OPEN])
    shutil.copy(originals.finished / "checkpoint-384.h5", run)
    with opened(run / "checkpoint-384.h5"):
        said = worker.main("train", RESUME, tmp_path)
    assert said.code == 0 and "going on from 384 steps" in said.stdout, said


# During a run --------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path):
    run = RunFile(tmp_path)
    run.create("seed: 1\n", {"seed": 7}, {"env_steps": 0})
    run.append({"steps": 0})
    run.commit()
    return run


@pytest.mark.parametrize("change", ["", COMMENT])
@pytest.mark.parametrize("killed", [False, True])
def test_a_run_keeps_writing_while_another_program_has_its_file_open(run, change, killed):
    with opened(run.path, change) as program:
        if killed:
            program.kill()
            program.wait()
        assert run.lengths() == {"steps": 1}
        run.append({"steps": 1})
        run.commit()
    assert RunFile.open(run.directory).read("steps").tolist() == [0, 1]
    assert ("comment" in run.attributes()) == bool(change)


def test_a_run_reports_that_another_program_has_damaged_its_file(run):
    whole = run.path.read_bytes()
    run.path.write_bytes(whole[: len(whole) // 2])
    run.append({"steps": 1})
    with pytest.raises(Unwritable, match=r"run\.h5 was damaged by another program.*resume=True$"):
        run.commit()


def test_a_file_that_takes_too_long_to_read_is_damaged(run, monkeypatch):
    """Reading a damaged file may hang: a separate process reads it first, with a time limit."""
    TOUCHED["a comment"](run.path)
    monkeypatch.setattr("dials_mpi.storage.checksum.READ_SECONDS", 0.0)
    with pytest.raises(BadInput, match="damaged") as error:
        RunFile.open(run.directory, unchecked=True)
    assert not isinstance(error.value, Changed | InUse)


def test_a_file_without_a_checksum_is_not_a_run_file(tmp_path):
    with h5py.File(tmp_path / "run.h5", "w") as file:
        file["config/0"] = "seed: 1\n"
    with pytest.raises(BadInput, match="not a run file"):
        RunFile.open(tmp_path, unchecked=True)
