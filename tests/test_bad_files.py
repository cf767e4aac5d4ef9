"""Files of a run that are broken: one sentence, or an older checkpoint takes a broken one's place.

A table for run.h5, with the programs that cannot do without what is broken, and one for checkpoints. Nothing
is written where a program refuses; a resumed run ends with the numbers of an uninterrupted one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import bad_input
import h5py
import numpy as np
import pytest
from bad_input import (
    FILES,
    KINDS,
    NOISE,
    OTHERS,
    RESUME,
    Originals,
    Worker,
    attribute,
    cut,
    dataset,
    edited,
    refused,
    refused_or_done,
    replaced,
    table,
    tree,
)

from dials_mpi.storage.checkpoint import FORMAT_VERSION
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.progress import Progress
from dials_mpi.storage.runfile import RunFile

worker, originals, tmp_path = bad_input.worker, bad_input.originals, bad_input.tmp_path


# Damage of any file --------------------------------------------------------------------------------------


def group(name: str) -> Callable[[Path], None]:
    """A group in place of a dataset."""

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
"""Damage of any file; afterwards it is not a valid run file or checkpoint."""


# Run files -----------------------------------------------------------------------------------------------


EVERY = "train evaluate report"

RUN_FILES: dict[str, tuple[Callable[[Path], None], str]] = {
    **{name: (change, EVERY) for name, change in DAMAGED.items()},
    # attributes
    "no version": (edited(lambda file: file.attrs.__delitem__("format_version")), EVERY),
    "a newer version": (attribute("format_version", 3), EVERY),
    "a version far ahead": (attribute("format_version", 10**18), EVERY),
    "version text": (attribute("format_version", "new"), EVERY),
    "version list": (attribute("format_version", [1, 1]), EVERY),
    "version nan": (attribute("format_version", np.nan), EVERY),
    "version nought": (attribute("format_version", 0), EVERY),
    "version negative": (attribute("format_version", -1), EVERY),
    "version inf": (attribute("format_version", np.inf), EVERY),
    "version nothing": (attribute("format_version", h5py.Empty("i8")), EVERY),
    "finished list": (attribute("finished", [True, False]), ""),
    "finished text": (attribute("finished", "perhaps"), ""),
    "finished nothing": (attribute("finished", h5py.Empty("i8")), ""),
    "no attribute finished": (edited(lambda file: file.attrs.__delitem__("finished")), ""),
    "odd attributes": (attribute("extra", np.zeros(3, [("a", "i4"), ("b", "f8")])), ""),
    # the configuration
    "no configuration": (dataset("config"), EVERY),
    "configuration in no chain": (dataset("config", "seed: 1\n"), EVERY),
    "an empty chain": (edited(lambda file: file.__delitem__("config/0")), EVERY),
    "a chain of words": (dataset("config/last", "seed: 1\n"), EVERY),
    "configuration a number": (dataset("config/0", 3), EVERY),
    "configuration a list": (dataset("config/0", ["seed: 1\n", "mode: dials\n"]), EVERY),
    "configuration a group": (edited(lambda file: file.create_group("config/1")), EVERY),
    "configuration nothing": (dataset("config/0", h5py.Empty(h5py.string_dtype())), EVERY),
    "configuration no text": (dataset("config/0", np.array(b"seed: \xff\xfe", h5py.string_dtype())), EVERY),
    "configuration no YAML": (dataset("config/0", "seed: [1\n"), EVERY),
    "configuration YAML list": (dataset("config/0", "- seed\n"), EVERY),
    "configuration alias bomb": (dataset("config/0", FILES["bomb.yaml"].decode()), EVERY),
    "configuration very deep": (dataset("config/0", "a: " + "[" * 9999), EVERY),
    "configuration unknown key": (dataset("config/0", "sead: 1\n"), EVERY),
    "configuration out of bounds": (dataset("config/0", "seed: -1\n"), EVERY),
    "configuration odd words": (dataset("config/0", "two lines\r\n: \u202e\x85"), EVERY),
    "configuration of another run": (dataset("config/0", "seed: 1\n"), "train evaluate"),
    "a second configuration": (dataset("config/7", "seed: 1\n"), "train evaluate"),
    # series that a session continues
    "a series too short": (edited(lambda file: file["evaluation/returns"].resize(3, axis=0)), "train"),
    "a series that is gone": (dataset("training/entropy"), "train"),
    "a series of no rows": (edited(lambda file: file["timing/train"].resize(0, axis=0)), "train"),
    "a series that is one number": (dataset("evaluation/env_steps", 3), "train report"),
    "a series that is a group": (group("evaluation/returns"), "train report"),
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
    "steps that go back": (edited(lambda file: file["evaluation/env_steps"].__setitem__(2, 0)), "report"),
    "steps that stand still": (
        edited(lambda file: file["evaluation/env_steps"].__setitem__(..., 0)),
        "report",
    ),
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
    "a return that is none": (
        edited(lambda file: file["evaluation/returns"].__setitem__((1, 2, 3), np.nan)),
        "report",
    ),
    "an endless return": (
        edited(lambda file: file["evaluation/returns"].__setitem__((1, 2, 3), np.inf)),
        "report",
    ),
    "too few returns": (
        dataset("evaluation/returns", np.zeros((2, 3, 4)), maxshape=(None, 3, 4)),
        "train report",
    ),
    "cross-entropy a vector": (dataset("evaluation/cross_entropy", np.zeros(4)), "train report"),
    "cross-entropy of text": (dataset("evaluation/cross_entropy", np.full((4, 4), b"x")), "train report"),
    "refits without steps": (dataset("influence/env_steps"), "train report"),
    "refits of one loss only": (dataset("influence/cross_entropy_after"), "train report"),
    "a loss that is a vector": (dataset("influence/cross_entropy_after", np.zeros(3)), "train report"),
    "memory of text": (dataset("memory/peak_rss", [b"much"]), "report"),
    "memory a group": (group("memory/peak_rss"), "report"),
    "a reference of text": (dataset("reference/random", [b"good"]), "report"),
    "a reference that is a group": (group("reference/random"), "report"),
}
"""Damage of run.h5, and the programs that must refuse it; other programs may accept it."""

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
def test_a_broken_run_file_is_refused_or_not_needed(worker, originals, tmp_path, name, program):
    run = originals.copy(tmp_path, finished=program != "train")
    RUN_FILES[name][0](run / "run.h5")
    refused_or_done(worker, tmp_path, program, PROGRAMS[program])


def test_a_newer_version_is_named(worker, originals, tmp_path):
    run = originals.copy(tmp_path, finished=True)
    attribute("format_version", 7)(run / "run.h5")
    for program, arguments in PROGRAMS.items():
        refused(worker, tmp_path, program, arguments, ["format version 7", "newer"])


# Checkpoints ---------------------------------------------------------------------------------------------


BROKEN_CHECKPOINTS: dict[str, Callable[[Path], None]] = {
    **DAMAGED,
    "a directory": as_directory,
    "a dangling link": as_dangling_link,
    "the run file": lambda path: shutil.copy(path.parent / "run.h5", path),
    "an older one": lambda path: shutil.copy(path.parent / "checkpoint-256.h5", path),
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
    *("wall_time negative", "wall_time part", "wall_time nan"),
    *("ranks huge", "ranks negative", "ranks part", "ranks nan", "ranks inf", "ranks text", "ranks bytes"),
}
"""Attributes of a checkpoint that may be wrong, because they do not affect results."""

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
    """--resume prints which checkpoint it starts from and which it renames, and gives the same results."""
    contents = {name: digest for name, (digest, _) in tree(folder / "run").items()}
    said = worker.main("train", RESUME, folder)
    assert (said.code, said.stderr) == (0, ""), said
    assert f"going on from {steps} steps (checkpoint-{steps}.h5)\n" in said.stdout
    after = {name: digest for name, (digest, _) in tree(folder / "run").items()}
    for name in aside:
        assert re.search(f"{re.escape(name)}( is |: | cannot be read)", said.stdout), said.stdout
        assert after[f"{name}.damaged"] == contents[name]
    assert {name for name in after if name.endswith(".damaged")} == {f"{name}.damaged" for name in aside}
    assert (RunFile.open(folder / "run").read("policy/parameters") == originals.parameters).all()


@table(BROKEN_CHECKPOINTS)
def test_an_older_checkpoint_is_used_in_place_of_a_broken_one(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    BROKEN_CHECKPOINTS[name](run / "checkpoint-384.h5")
    expected = {**originals.starts["checkpoint-256.h5"], "damaged": ["checkpoint-384.h5"]}
    assert worker.start(run) == expected


ATTRIBUTES = list(Progress.__dataclass_fields__)


@table({f"{entry} {junk}": 0 for entry in ATTRIBUTES for junk in JUNK_VALUES})
def test_an_invalid_progress_record_counts_as_broken(worker, originals, tmp_path, name):
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
    "junk",
    [
        "text",
        1.0,
        [1.0] * 13,
        [[1.0] * 12],
        [[-1.0] * 13],
        [[float("nan")] * 13],
        [[[1.0] * 13]],
        [[1e13] * 13],
    ],
    ids=str,
)
def test_invalid_unrecorded_costs_count_as_broken(worker, originals, tmp_path, junk):
    run = originals.copy(tmp_path)
    with rewriting(run / "checkpoint-384.h5") as file:
        del file["unrecorded"]
        file["unrecorded"] = junk
    assert worker.start(run) == {**originals.starts["checkpoint-256.h5"], "damaged": ["checkpoint-384.h5"]}


@pytest.mark.parametrize(
    ("entry", "text"), [(key, text) for key in JSON_ATTRIBUTES for text in JSON_ATTRIBUTES[key]]
)
def test_lengths_and_seconds_that_are_none_count_as_broken(worker, originals, tmp_path, entry, text):
    run = originals.copy(tmp_path)
    attribute(entry, np.bytes_(text))(run / "checkpoint-384.h5")
    expected = {**originals.starts["checkpoint-256.h5"], "damaged": ["checkpoint-384.h5"]}
    assert worker.start(run) == expected


@pytest.mark.parametrize("name", ["empty", "noise", "cut at 50%", "a directory", "an older one"])
def test_a_run_gives_the_same_results_despite_a_broken_checkpoint(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    BROKEN_CHECKPOINTS[name](run / "checkpoint-384.h5")
    goes_on_from(worker, originals, tmp_path, 256, ["checkpoint-384.h5"])


def test_two_broken_checkpoints(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    cut(0.5)(run / "checkpoint-384.h5")
    replaced(NOISE)(run / "checkpoint-256.h5")
    goes_on_from(worker, originals, tmp_path, 128, ["checkpoint-384.h5", "checkpoint-256.h5"])


def test_a_checkpoint_under_another_name(worker, originals, tmp_path):
    """The name has more steps than the checkpoint, or than the run, or fewer."""
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


def test_files_with_other_names_are_not_used_or_renamed(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    names = [f"checkpoint-{name}" for name in (".h5", "x.h5", "-1.h5", "1e9.h5", "384.h5.bak", "512.h5~")]
    names += ["checkpoint-384.h5.damaged", "Checkpoint-512.h5", "checkpoint-512.hdf5"]
    for name in names:
        (run / name).write_bytes(NOISE[:100])
    assert worker.start(run) == originals.starts["checkpoint-384.h5"]
    (run / "checkpoint-384.h5.damaged").unlink()
    goes_on_from(worker, originals, tmp_path, 384, [])
    assert all((run / name).read_bytes() == NOISE[:100] for name in names if not name.endswith(".damaged"))


@table(OTHERS)
def test_a_checkpoint_of_another_run(worker, originals, tmp_path, name):
    """Undamaged, with steps that agree with its name, but not of this run."""
    run = originals.copy(tmp_path)
    shutil.copy(originals.foreign[name] / "checkpoint-384.h5", run / "checkpoint-384.h5")
    goes_on_from(worker, originals, tmp_path, 256, ["checkpoint-384.h5"])


@pytest.mark.parametrize("name", ["empty", "noise", "cut at 86%", "no policy/parameters"])
def test_without_a_valid_checkpoint_a_run_does_not_continue(worker, originals, tmp_path, name):
    """Nor does it start from the beginning: the user may need its results."""
    run = originals.copy(tmp_path)
    for path in run.glob("checkpoint-*.h5"):
        BROKEN_CHECKPOINTS[name](path)
    mentions = ["none of the checkpoints in run", "checkpoint-384.h5", "put back a good one", "--output"]
    refused(worker, tmp_path, "train", RESUME, mentions)


NEWER: dict[str, tuple[int, Sequence[int], Sequence[int]]] = {
    "the newest": (FORMAT_VERSION + 1, [384], []),
    "the newest, far ahead": (10**18, [384], []),
    "the newest two": (FORMAT_VERSION + 1, [384, 256], []),
    "all": (FORMAT_VERSION + 1, [384, 256, 128], []),
    "the newest behind a broken one": (FORMAT_VERSION + 1, [256], [384]),
}
"""Checkpoints of a newer program: their version, which ones they are, and which others are damaged."""


def newer(run: Path, version: int, *steps: int) -> None:
    """Give a run's checkpoints the version of a newer program."""
    for own in steps:
        attribute("format_version", version)(run / f"checkpoint-{own}.h5")


@table(NEWER)
def test_a_checkpoint_of_a_newer_program_is_refused(worker, originals, tmp_path, name):
    """It is not damaged, so the run does not continue from an older one, even if that is intact."""
    version, steps, broken = NEWER[name]
    run = originals.copy(tmp_path)
    newer(run, version, *steps)
    for own in broken:
        cut(0.5)(run / f"checkpoint-{own}.h5")
    line = refused(
        worker, tmp_path, "train", RESUME, [f"checkpoint-{steps[0]}.h5 has format version {version}"]
    )
    assert line.endswith(f", and this dials_mpi reads up to {FORMAT_VERSION}: continue with a newer one")


def test_an_older_checkpoint_of_a_newer_version_is_ignored(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    newer(run, FORMAT_VERSION + 1, 256)
    before = (run / "checkpoint-256.h5").read_bytes()
    goes_on_from(worker, originals, tmp_path, 384, [])
    assert (run / "checkpoint-256.h5").read_bytes() == before


def test_a_damaged_checkpoint_whose_new_name_exists(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    as_directory(run / "checkpoint-384.h5")
    shutil.copytree(run / "checkpoint-384.h5", run / "checkpoint-384.h5.damaged")
    refused_or_done(worker, tmp_path, "train", RESUME)


EVALUATED = ["run", "--episodes", "1", "--checkpoint"]
NOT_EVALUATED = "first|second half|_moment|adam|regions|width"
"""Damage that the evaluation of a checkpoint does not have to detect."""


@table([name for name in BROKEN_CHECKPOINTS if not re.search(NOT_EVALUATED, name)])
def test_a_broken_checkpoint_is_not_evaluated(worker, originals, tmp_path, name):
    run = originals.copy(tmp_path)
    BROKEN_CHECKPOINTS[name](run / "checkpoint-384.h5")
    refused(worker, tmp_path, "evaluate", [*EVALUATED, "384"], ["checkpoint"])


@pytest.mark.parametrize("wanted", ["384", "newest"])
def test_a_checkpoint_of_a_newer_program_is_not_evaluated(worker, originals, tmp_path, wanted):
    newer(originals.copy(tmp_path), FORMAT_VERSION + 1, 384)
    mentions = [f"checkpoint-384.h5 has format version {FORMAT_VERSION + 1}"]
    refused(worker, tmp_path, "evaluate", [*EVALUATED, wanted], mentions)


@table(OTHERS)
def test_a_checkpoint_of_another_run_is_not_evaluated(worker, originals, tmp_path, name):
    """Its figures would be reported under this run's name."""
    run = originals.copy(tmp_path)
    shutil.copy(originals.foreign[name] / "checkpoint-384.h5", run / "checkpoint-384.h5")
    refused(worker, tmp_path, "evaluate", [*EVALUATED, "384"], ["checkpoint-384.h5"])
