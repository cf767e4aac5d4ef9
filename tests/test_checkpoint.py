"""Checkpoints: complete, complete or absent, refused when damaged; where a run continues."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import signal
import time

import h5py
import numpy as np
import pytest
from conftest import SMALL, Program, launch, train
from test_ranks import differing, results

from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.learners import Learners
from dials_mpi.config import from_yaml, load
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.core.timing import PHASES, Stopwatch
from dials_mpi.domains import create
from dials_mpi.domains.base import Agent, Region
from dials_mpi.run import state
from dials_mpi.run.costs import WIDTH, UnrecordedCosts, redistribute
from dials_mpi.run.resume import begin, configuration_of, find
from dials_mpi.run.state import RankState
from dials_mpi.storage import checkpoint as checkpoints
from dials_mpi.storage.checkpoint import Checkpoint, Rows
from dials_mpi.storage.files import lock_directory
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.progress import Progress
from dials_mpi.storage.runfile import RunFile

CONFIG = load(None, [*SMALL, "total_steps=1024"])
DOMAIN = create(CONFIG.domain, CONFIG.domain_section)
ENTRIES = [entry for entry in state.entries(CONFIG, DOMAIN) if entry.owner in ("agent", "region")]
STATES = [entry for entry in ENTRIES if entry.kept(1)]
PROGRAM = {"creator": "the test", "git_commit": "unknown"}


def rows(count: int, entries=STATES) -> dict[str, np.ndarray]:
    """Values of some entries for so many owners of each."""
    rng = np.random.default_rng(count)
    return {entry.name: rng.normal(size=(count, entry.width)).astype(entry.dtype) for entry in entries}


def write(directory, progress, values, config=CONFIG):
    count = len(next(iter(values.values())))
    tables = {"policy": [(("w", (5,)),)] * count}
    text = config.to_yaml(), config.digest()
    datasets = [Rows(name, len(array), array.shape[1], array.dtype) for name, array in values.items()]
    with checkpoints.writing(directory, progress, text, PROGRAM, datasets, tables) as put:
        for name, array in values.items():
            for i, row in enumerate(array):
                put(name, i, row)
    return directory / f"checkpoint-{progress.env_steps}.h5"


def at(segment: int, **more) -> Progress:
    """The progress record after so many segments of CONFIG."""
    return Progress(segment, 128 * segment, **more)


# Entries ---------------------------------------------------------------------------------------------------


def test_checkpoints_hold_parameters_moments_and_counts():
    parts = "parameters", "first_moment", "second_moment", "adam_steps"
    assert [entry.name for entry in STATES] == [
        f"{k}/{part}" for k in ("policy", "predictor") for part in parts
    ]
    assert [entry.owner for entry in STATES] == ["agent"] * 4 + ["region"] * 4
    for first in (0, 4):
        parameters = STATES[first].width
        assert [entry.width for entry in STATES[first : first + 4]] == [parameters] * 3 + [1]
        assert parameters > 100


def test_the_earlier_policies_are_kept_where_the_next_refit_needs_them():
    overlapped = load(None, [*SMALL, "total_steps=1024", "retrain_every=256", "schedule=overlapped"])
    for config, kept in ((CONFIG, []), (overlapped, [2, 4, 6, 8])):
        entry = next(e for e in state.entries(config, DOMAIN) if e.name == "earlier_policy/parameters")
        assert [done for done in range(9) if entry.kept(done)] == kept


@pytest.mark.parametrize("mode", ["dials", "global"])
def test_networks_of_different_sizes_get_back_what_they_had(mode):
    """A row is as long as the longest of its kind, and each network takes its own part of it."""

    class Uneven:
        agents = (Agent(3, 4), Agent(7, 2), Agent(5, 3))
        regions = (Region((2, 0), 5, (2, 2)), Region((1,), 9, (4,)))
        side_by_side, horizon = None, 20

    config = dataclasses.replace(CONFIG, mode=mode)
    entries = [entry for entry in state.entries(config, Uneven()) if entry.owner in ("agent", "region")]
    entries = [entry for entry in entries if entry.kept(1)]
    owners = [("policy", i) for i in range(3)] + [("predictor", k) for k in range(2) if mode == "dials"]
    old, new = (RankState(Learners(config, Uneven(), [0, 1]), None) for _ in range(2))
    for n, array in enumerate(a for owner in owners for a in old.learners.state(*owner).values()):
        array[:] = np.arange(array.size) + 1000 * n
    for entry in entries:
        for i in range({"agent": 3, "region": 2}[entry.owner]):
            row, packed = np.full(entry.width, 77, np.float32), entry.pack(old, i)
            row[: packed.size] = packed
            entry.unpack(new, i, row)
    for kind, i in owners:
        ours, theirs = new.learners.state(kind, i), old.learners.state(kind, i)
        assert ours.keys() == {entry.name for entry in entries if entry.name.startswith(f"{kind}/")}
        assert all((ours[name] == array).all() for name, array in theirs.items())
    # It is the learners' own memory, not a copy.
    assert new.learners.agents[1].policy.network.vector[1] == 4001
    assert float(new.learners.agents[1].optimiser.steps) == 7000
    assert len(entries) == (8 if mode == "dials" else 4)


# The file ------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_what_is_written_is_read_back(tmp_path):
    progress = at(3, wall_time=7.25, lengths={"a/b": 3}, ranks=5, seconds={"train": 2.5})
    values = rows(4)
    path = write(tmp_path, progress, values)
    back = Checkpoint(path)
    assert back.progress == progress
    assert (back.configuration, back.digest) == (CONFIG.to_yaml(), CONFIG.digest())
    with back.rows() as read:
        for name, array in values.items():
            assert all((read(name, i) == row).all() for i, row in enumerate(array))
            assert (back.whole(name) == array).all() and back.has(name)
    assert not back.has("unrecorded")
    state.verify(back, ENTRIES, DOMAIN)
    width = values["predictor/parameters"].shape[1]
    with pytest.raises(BadInput, match=rf"predictor/parameters is not float32 \[2, {width}\]"):
        back.verify([Rows("predictor/parameters", 2, width)])
    for wrong in (Rows("policy/adam_steps", 4, 1, np.float64), Rows("policy/adam_steps", None, 2)):
        with pytest.raises(BadInput, match="policy/adam_steps is not float"):
            back.verify([wrong])
    with pytest.raises(BadInput, match="is not a checkpoint, or a damaged one"):
        back.verify([Rows("policy/third_moment", 4, 1)])
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint-384.h5"]


@pytest.mark.parametrize("name", [entry.name for entry in STATES])
def test_a_checkpoint_without_an_entry_is_refused(tmp_path, name):
    values = rows(4)
    del values[name]
    with pytest.raises(BadInput, match=name.rpartition("/")[2]):
        state.verify(Checkpoint(write(tmp_path, at(3), values)), ENTRIES, DOMAIN)


def test_anyone_can_read_it_with_h5py(tmp_path):
    values = rows(4)
    with h5py.File(write(tmp_path, at(3), values)) as file:
        assert file.attrs["format_version"] == checkpoints.ONE_FILE  # older programs read it, too
        assert file.attrs["env_steps"] == 384 and file.attrs["segments"] == 3
        assert json.loads(file.attrs["lengths"]) == {}
        assert (file["policy/first_moment"][2] == values["policy/first_moment"][2]).all()
        assert (file["predictor/adam_steps"][:, 0] == values["predictor/adam_steps"][:, 0]).all()
        assert json.loads(file["policy/tables"].asstr()[0]) == [["w", [5]]]


def test_a_disk_that_is_full_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = write(tmp_path, at(3), rows(4))
    before = path.read_bytes()
    resource = pytest.importorskip("resource")
    keep, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    large = {"policy/parameters": np.ones((4, 50_000), np.float32)}
    for limit in (0, 300, 1000, 3000, 10_000, 100_000, 700_000, 800_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(Unwritable, match=r"checkpoint-384.h5 cannot be written \(File too large\)"):
                write(tmp_path, at(3), large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (keep, hard))
        assert path.read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == ["checkpoint-384.h5"]


def test_no_more_than_a_row_is_in_memory(tmp_path):
    """Root writes what comes in, one region after the other; 200 MB here."""
    import tracemalloc

    agents, width = 100, 500_000
    datasets, tables = [Rows("policy/parameters", agents, width)], {"policy": [(("w", (width,)),)] * agents}
    row = np.ones(width, np.float32)
    tracemalloc.start()
    with checkpoints.writing(tmp_path, at(1), ("", ""), PROGRAM, datasets, tables) as put:
        for i in range(agents):
            put("policy/parameters", i, row)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * row.nbytes


# Parts ---------------------------------------------------------------------------------------------------

OWNERS = ([0, 3], [1], [2])
"""Whose rows each part of a checkpoint of four owners holds."""


def write_parts(directory, progress, values, complete=True):
    """A checkpoint in parts; complete: with the file that refers to them."""
    path = checkpoints.path_of(directory, progress.env_steps)
    datasets = [Rows(name, len(array), array.shape[1], array.dtype) for name, array in values.items()]
    parts = [
        checkpoints.Part(checkpoints.part_of(path, k), dict.fromkeys(values, own))
        for k, own in enumerate(OWNERS)
    ]
    for part in parts:
        with checkpoints.writing_part(part, datasets) as put:
            for name, array in values.items():
                for i in part.numbers[name]:
                    put(name, i, array[i])
    if complete:
        text = CONFIG.to_yaml(), CONFIG.digest()
        tables = {"policy": [(("w", (5,)),)] * 4}
        with checkpoints.writing(directory, progress, text, PROGRAM, datasets, tables, parts):
            pass
    return path


def test_parts_are_read_as_one_checkpoint_from_any_folder(tmp_path, monkeypatch):
    values = rows(4)
    (tmp_path / "run").mkdir()
    write_parts(tmp_path / "run", at(3), values)
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    back = Checkpoint(tmp_path / "moved" / "checkpoint-384.h5")
    assert back.progress == at(3)
    state.verify(back, ENTRIES, DOMAIN)
    with back.rows() as read:
        for name, array in values.items():
            assert back.whole(name).tobytes() == array.tobytes()
            assert all((read(name, i) == row).all() for i, row in enumerate(array))


@pytest.mark.parametrize("damage", ["gone", "flip", "of another checkpoint"])
def test_a_checkpoint_with_a_bad_part_is_refused(tmp_path, damage):
    path = write_parts(tmp_path, at(3), rows(4))
    part = checkpoints.part_of(path, 1)
    whole = bytearray(part.read_bytes())
    if damage == "gone":
        part.unlink()
    elif damage == "flip":
        whole[len(whole) // 2] ^= 4
        part.write_bytes(whole)
    else:
        other = write_parts(tmp_path, at(4), {name: array + 1 for name, array in rows(4).items()})
        part.write_bytes(checkpoints.part_of(other, 1).read_bytes())
    with pytest.raises(BadInput, match=r"checkpoint-384-part1\.h5"):
        Checkpoint(path)


def test_a_disk_that_the_ranks_do_not_share_is_said(tmp_path):
    part = checkpoints.Part(tmp_path / "checkpoint-384-part0.h5", {})
    with (
        pytest.raises(Unwritable, match="on a disk that all ranks share, or set checkpoint_writers=1"),
        checkpoints.writing(tmp_path, at(3), ("", ""), PROGRAM, [], {}, [part]),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_parts_go_with_their_checkpoint(tmp_path):
    for segment in (1, 2, 3):
        write_parts(tmp_path, at(segment), rows(4))
    checkpoints.prune(tmp_path, 2, lambda _: np.nan)
    assert len(list(tmp_path.iterdir())) == 2 * 4
    checkpoints.set_aside(tmp_path / "checkpoint-384.h5")
    left = {path.name for path in tmp_path.iterdir()}
    assert {"checkpoint-256.h5", "checkpoint-384.h5.damaged", "checkpoint-384-part2.h5.damaged"} < left
    assert [path.name for path in checkpoints.present(tmp_path)] == ["checkpoint-256.h5"]


# Which are kept ------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_the_newest_and_the_best_are_kept(tmp_path):
    means = dict(enumerate([3.0, 9.0, 5.0, np.nan, 8.0, 7.0, 10.0], start=1))

    def mean_return(env_steps):
        return means[env_steps // 128]

    for segment in range(1, 7):
        write(tmp_path, at(segment), rows(2))
        checkpoints.prune(tmp_path, 2, mean_return)
    assert [path.name for path in checkpoints.present(tmp_path)] == [
        f"checkpoint-{128 * segment}.h5" for segment in (6, 5, 2)
    ]
    assert checkpoints.best(tmp_path, mean_return).name == "checkpoint-256.h5"
    assert checkpoints.best(tmp_path, lambda _: np.nan) is None
    write(tmp_path, at(7), rows(2))
    checkpoints.prune(tmp_path, 1, mean_return)
    assert [path.name for path in checkpoints.present(tmp_path)] == ["checkpoint-896.h5"]


def test_a_damaged_file_is_not_the_best_and_other_files_are_none(tmp_path):
    write(tmp_path, at(1), rows(2))
    (tmp_path / "checkpoint-256.h5").write_bytes(b"no HDF5")
    for name in (
        "checkpoint-x.h5",
        "checkpoint-512.h5.damaged",
        "my-checkpoint-512.h5",
        ".checkpoint-9.h5.partial",
    ):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in checkpoints.present(tmp_path)] == ["checkpoint-256.h5", "checkpoint-128.h5"]
    assert checkpoints.best(tmp_path, float).name == "checkpoint-128.h5"


# Where a run starts --------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path, monkeypatch):
    """A run with three checkpoints and one more segment in its run file."""
    # A lock would last until the end of this process.
    monkeypatch.setattr("dials_mpi.run.resume.lock_directory", lambda directory: None)
    begin(find(CONFIG, DOMAIN, str(tmp_path), resume=False), PROGRAM, ranks=3)
    run = RunFile(tmp_path)
    for segment in (1, 2, 3):
        run.append({"training/env_steps": 128 * segment})
        run.commit()
        write(tmp_path, at(segment, lengths=run.lengths()), rows(4))
    run.append({"training/env_steps": 512})
    run.commit()
    return tmp_path


def test_a_run_goes_on_from_its_newest_checkpoint(three):
    start = find(CONFIG, DOMAIN, str(three), resume=True)
    assert (start.progress.segments, start.checkpoint.name) == (3, "checkpoint-384.h5")
    assert start.segments() == segments(CONFIG)[3:]
    assert "going on from 384 steps" in start.notes[-1]
    (three / ".checkpoint-512.h5.partial").write_bytes(b"killed")
    begin(start, PROGRAM, ranks=2)
    run = RunFile.open(three)
    assert run.read("training/env_steps").tolist() == [128, 256, 384]
    assert run.has("config/1") and not (three / ".checkpoint-512.h5.partial").exists()


def test_a_resumed_run_removes_the_checkpoints_that_a_killed_session_left(three):
    run = RunFile.open(three)
    run.append({"evaluation/env_steps": 128, "evaluation/returns": np.ones(4, np.float32)})
    run.commit()
    write(three, at(4, lengths=run.lengths()), rows(4))  # four, and nothing has been removed
    begin(find(CONFIG, DOMAIN, str(three), resume=True), PROGRAM, ranks=2)
    kept = ["checkpoint-512.h5", "checkpoint-384.h5", "checkpoint-128.h5"]  # the newest two and the best
    assert [path.name for path in checkpoints.present(three)] == kept


def test_a_run_that_was_killed_before_all_parts_were_there_goes_on_from_the_checkpoint_before(three):
    run = RunFile.open(three)
    values = rows(4)
    kept = write_parts(three, at(4, lengths=run.lengths()), values)
    unfinished = write_parts(three, at(5), values, complete=False)
    checkpoints.part_of(unfinished, 2).unlink()
    start = find(CONFIG, DOMAIN, str(three), resume=True)
    assert start.checkpoint == kept
    begin(start, PROGRAM, ranks=2)
    assert checkpoints.files_of(kept) == [kept, *(checkpoints.part_of(kept, k) for k in range(3))]
    assert not list(three.glob("checkpoint-640*"))


@pytest.mark.parametrize("damage", [b"", b"no HDF5 at all", "cut", "flip"])
def test_a_damaged_checkpoint_is_passed_over_and_set_aside(three, damage):
    newest = three / "checkpoint-384.h5"
    whole = bytearray(newest.read_bytes())
    if damage == "cut":
        damage = whole[: len(whole) // 2]
    elif damage == "flip":
        whole[len(whole) // 2] ^= 4  # one bit of some number
        damage = whole
    newest.write_bytes(damage)
    start = find(CONFIG, DOMAIN, str(three), resume=True)
    assert start.checkpoint.name == "checkpoint-256.h5"
    assert "checkpoint-384.h5" in start.notes[0] and "damaged" in start.notes[0]
    assert newest.exists()  # until the run begins
    begin(start, PROGRAM, ranks=3)
    assert not newest.exists() and (three / "checkpoint-384.h5.damaged").exists()
    assert RunFile.open(three).read("training/env_steps").tolist() == [128, 256]


def test_a_checkpoint_of_a_newer_program_is_left_to_that_one(three):
    newest = three / "checkpoint-384.h5"
    with rewriting(newest) as file:
        file.attrs["format_version"] = checkpoints.FORMAT_VERSION + 1
    before = newest.read_bytes()
    with pytest.raises(BadInput, match="continue with a newer one"):
        find(CONFIG, DOMAIN, str(three), resume=True)
    assert newest.read_bytes() == before


def test_without_any_good_checkpoint_nothing_is_thrown_away(three):
    for path in checkpoints.present(three):
        path.write_bytes(b"no HDF5")
    with pytest.raises(BadInput, match="none of the checkpoints"):
        find(CONFIG, DOMAIN, str(three), resume=True)
    assert len(checkpoints.present(three)) == 3


def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(three):
    for path in checkpoints.present(three):
        path.unlink()
    RunFile(three).continue_run(CONFIG.to_yaml(), {}, {}, {"training/env_steps": 1})
    start = find(CONFIG, DOMAIN, str(three), resume=True)
    assert (start.checkpoint, start.progress.segments) == (None, 0)
    begin(start, PROGRAM, ranks=1)
    assert RunFile.open(three).lengths() == {}


@pytest.mark.parametrize("finished", [False, True])
def test_results_whose_checkpoints_are_gone_are_not_begun_anew(three, finished):
    for path in checkpoints.present(three):
        path.unlink()
    run = RunFile.open(three)
    run.write({}, finished=finished)
    run.commit()
    before = run.path.read_bytes()
    longer = load(None, [*SMALL, "total_steps=2048"])
    with pytest.raises(BadInput, match="results and no checkpoint to continue from"):
        find(longer, DOMAIN, str(three), resume=True)
    assert run.path.read_bytes() == before


def test_checkpoints_by_the_clock_alone_may_not_have_come_yet(three):
    for path in checkpoints.present(three):
        path.unlink()
    rarely = load(None, [*SMALL, "total_steps=1024", "checkpoint_every=0", "checkpoint_minutes=60"])
    RunFile(three).continue_run(rarely.to_yaml(), {}, {}, {"training/env_steps": 4})
    assert find(rarely, DOMAIN, str(three), resume=True).checkpoint is None


def test_total_steps_under_which_nothing_was_trained_can_be_taken_back(three):
    """A finished run, a mistyped total_steps, Ctrl-C, and the right one again; but none below."""
    run = RunFile.open(three)
    run.write({}, finished=True)
    run.commit()
    right, wrong = (load(None, [*SMALL, f"total_steps={steps}"]) for steps in (1024, 10240))
    start = find(wrong, DOMAIN, str(three), resume=True)
    begin(start, PROGRAM, ranks=1)
    assert not run.finished() and from_yaml(run.configuration(), "").total_steps == 10240
    assert configuration_of(run).total_steps == 1024
    again = find(right, DOMAIN, str(three), resume=True)
    assert (again.finished, again.progress.env_steps) == (False, 384)
    with pytest.raises(BadInput, match="total_steps was 1024 and is 512"):
        find(load(None, [*SMALL, "total_steps=512"]), DOMAIN, str(three), resume=True)
    run.append({"training/env_steps": 512})  # now something was
    run.commit()
    assert configuration_of(run).total_steps == 10240
    with pytest.raises(BadInput, match="total_steps was 10240 and is 1024"):
        find(right, DOMAIN, str(three), resume=True)


def test_a_run_that_begins_between_the_look_and_the_start_is_not_replaced(tmp_path):
    start = find(CONFIG, DOMAIN, str(tmp_path), resume=True)
    other = RunFile(tmp_path)
    other.create(CONFIG.to_yaml(), PROGRAM, {})
    before = other.path.read_bytes()
    with pytest.raises(BadInput, match="start again"):
        begin(start, PROGRAM, ranks=1)
    assert other.path.read_bytes() == before


def test_a_checkpoint_of_other_steps_than_its_name_is_damaged(three):
    (three / "checkpoint-384.h5").rename(three / "checkpoint-512.h5")
    assert find(CONFIG, DOMAIN, str(three), resume=True).checkpoint.name == "checkpoint-256.h5"


def test_a_run_file_that_is_older_than_its_checkpoint_is_refused(three):
    run = RunFile.open(three)
    run.continue_run(CONFIG.to_yaml(), {}, {}, {"training/env_steps": 2})
    with pytest.raises(BadInput, match=r"fewer rows of training/env_steps than checkpoint-384.h5"):
        find(CONFIG, DOMAIN, str(three), resume=True)


def test_checkpoints_without_a_run_file_are_refused(three):
    (three / "run.h5").unlink()
    with pytest.raises(BadInput, match=r"no run.h5"):
        find(CONFIG, DOMAIN, str(three), resume=True)


@pytest.mark.parametrize(
    "override",
    [
        *("seed=1", "ppo.clip=0.2", "warehouse.horizon=10", "mode=untrained", "total_steps=512"),
        "schedule=overlapped",
    ],
)
def test_another_configuration_is_refused_with_the_difference(three, override):
    other = load(None, [*SMALL, "total_steps=1024", override])
    key = override.partition("=")[0]
    with pytest.raises(BadInput, match=f"{key} was .* and is .*: give the same ones"):
        find(other, DOMAIN, str(three), resume=True)


@pytest.mark.parametrize(
    "override",
    ["total_steps=2048", "checkpoint_every=3", "silence=5", "checkpoint_keep=9", "global_ranks=3"],
)
def test_what_may_change_may_change(three, override):
    other = load(None, [*SMALL, "total_steps=1024", override])
    start = find(other, DOMAIN, str(three), resume=True)
    assert len(start.segments()) == len(segments(other)) - 3


def test_how_long_work_took_is_known_only_with_as_many_global_ranks(three):
    lengths = RunFile(three).lengths()
    took = {"train": 2.0}
    write(three, at(4, seconds=took, ranks=4, lengths=lengths), rows(4))
    other = load(None, [*SMALL, "total_steps=1024", "global_ranks=2"])
    for config, known in ((CONFIG, took), (other, {})):
        assert find(config, DOMAIN, str(three), resume=True).progress.seconds == known


def test_a_run_that_is_there_is_not_begun_again(three):
    with pytest.raises(BadInput, match="continue it with resume=True"):
        find(CONFIG, DOMAIN, str(three), resume=False)


def test_a_finished_run_has_nothing_left_to_do_unless_it_shall_be_longer(three):
    run = RunFile.open(three)
    run.write({}, finished=True)
    run.commit()
    assert find(CONFIG, DOMAIN, str(three), resume=True).finished
    longer = load(None, [*SMALL, "total_steps=2048"])
    assert not find(longer, DOMAIN, str(three), resume=True).finished


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("dials_mpi.storage.files.fcntl.flock", flock)
    assert "does not support locks" in lock_directory(tmp_path)


# Whole runs ----------------------------------------------------------------------------------------------

LONG = (*SMALL, "total_steps=1280", "retrain_every=512")


def stop_early(directory, ranks, settings=LONG):
    """Begin a run and ask it to stop as soon as it is under way."""
    arguments = "-m", "dials_mpi.train", *settings, "--output", str(directory)
    program = Program(*arguments, ranks=ranks, preloaded=True)
    log, limit = directory / "log.txt", time.monotonic() + 150
    while not (log.exists() and "training up to 384" in log.read_text()):
        assert program.running() and time.monotonic() < limit
        time.sleep(0.005)
    os.kill(program.process.pid, signal.SIGUSR1)
    result = program.wait()
    assert (result.code, result.stderr) == (75, "")
    *_, reason, last = result.stdout.splitlines()
    assert "stopped at" in last and reason == "a stop was requested, by a signal or a callback"
    return result


@pytest.mark.parametrize(
    ("first", "then", "words"),
    [(5, 1, ()), (None, 5, ()), (4, 3, ("checkpoint_writers=2",))],
    ids=["5-1", "None-5", "parts"],
)
def test_a_run_goes_on_at_another_rank_count_to_the_same_bits(trained, tmp_path, first, then, words):
    stop_early(tmp_path, first, (*LONG, *words))
    done = len(RunFile.open(tmp_path).read("training/env_steps"))
    assert 3 <= done < 10
    result = train(*LONG, *words, "--output", str(tmp_path), "--resume", ranks=then)
    assert (result.code, result.stderr) == (0, "")
    assert f"going on from {128 * done:,} steps" in result.stdout
    unbroken = trained(*LONG)
    assert differing(results(unbroken), results(tmp_path)) == []
    last = "checkpoint-1280.h5"
    with h5py.File(unbroken / last) as one, h5py.File(tmp_path / last) as other:
        for name in (entry.name for entry in STATES):
            assert one[name][()].tobytes() == other[name][()].tobytes()
    run = RunFile.open(tmp_path)
    with h5py.File(run.path) as file:
        chain = [(config.attrs["env_steps"], config.attrs["ranks"]) for config in file["config"].values()]
    assert chain == [(0, first or 1), (128 * done, then)]
    assert (np.diff(run.read("evaluation/wall_time")) > 0).all()
    assert run.read("timing/train").shape == (11, max(first or 1, then), 2)


@pytest.mark.parametrize("mode", ["untrained", "global"])
def test_the_other_modes_go_on_as_well(trained, tmp_path, mode):
    settings = (*LONG, f"mode={mode}")
    stop_early(tmp_path, 3, settings)
    assert train(*settings, "--output", str(tmp_path), "--resume", ranks=2).code == 0
    assert differing(results(trained(*settings)), results(tmp_path)) == []


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        (("checkpoint_every=3",), [384, 768, 1152, 1280]),
        (("checkpoint_every=0", "checkpoint_minutes=60"), [1280]),
        (("checkpoint_every=4", "checkpoint_minutes=0.00001"), [128 * k for k in range(1, 11)]),
    ],
)
def test_checkpoints_are_written_when_they_are_due_and_at_the_end(tmp_path, when, expected):
    result = train(*LONG, *when, "checkpoint_keep=99", "--output", str(tmp_path))
    assert result.code == 0
    steps = sorted(int(path.stem.rpartition("-")[2]) for path in checkpoints.present(tmp_path))
    assert steps == expected


def test_segments_shorter_than_the_time_between_evaluations(trained, tmp_path):
    settings = (*LONG, "evaluate_every=640", "segment_every=128", "retrain_every=640")
    stop_early(tmp_path, 3, settings)
    with h5py.File(tmp_path / "run.h5") as file:
        assert len(file["training/env_steps"]) % 5, "it stopped at an evaluation"
    assert train(*settings, "--output", str(tmp_path), "--resume").code == 0
    unbroken = trained(*settings)
    assert differing(results(unbroken), results(tmp_path)) == []
    run = RunFile.open(unbroken)
    assert run.read("evaluation/env_steps").tolist() == [0, 640, 1280]
    assert run.read("training/env_steps").tolist() == [128 * k for k in range(1, 11)]


@pytest.mark.parametrize("then", [2, 3])
def test_what_was_spent_before_a_stop_between_evaluations_is_counted(tmp_path, then):
    """With as many ranks to each its own; with others to each what the slowest one spent."""
    settings = (*SMALL, "segment_every=128", "evaluate_every=640", "retrain_every=640", "total_steps=640")
    assert train(*settings, "checkpoint_keep=9", "--output", str(tmp_path), ranks=2).code == 0
    for path in checkpoints.present(tmp_path)[:2]:
        path.unlink()
    with rewriting(tmp_path / "run.h5") as file:
        file.attrs["finished"] = False
    stopped = Checkpoint(checkpoints.present(tmp_path)[0])
    assert stopped.progress.env_steps == 384
    before = stopped.whole("unrecorded") + 1000
    with rewriting(tmp_path / "checkpoint-384.h5") as file:
        file["unrecorded"][...] += 1000.0  # more than the rest can take
    train_wall = 2 * PHASES.index("train")
    assert before.shape == (2, WIDTH)
    assert before[1, train_wall] > before[0, train_wall]  # rank 1 trains
    done = train(*settings, "--output", str(tmp_path), "--resume", ranks=then)
    assert (done.code, done.stderr) == (0, "")
    first, last = RunFile.open(tmp_path).read("timing/train")
    assert first.shape == (then, 2) and not (first > 1000).any()
    assert (last[1:, 0] > before[1, train_wall]).all()
    assert last[0, 0] == pytest.approx(before[int(then == 3), train_wall], abs=0.1)
    failures = RunFile.open(tmp_path).read("events/simulator_failures")[-1]
    assert failures.tolist() == ([1000, 1000] if then == 2 else [2000, 0, 0])


def test_unrecorded_costs_go_over_to_the_ranks_of_the_next_session():
    rows = np.zeros((2, WIDTH))
    rows[0, :2], rows[1, :2], rows[:, -1] = (1.0, 0.5), (4.0, 2.0), (1, 2)

    def restored(rank, size, given=rows):
        watch, failures = Stopwatch(), Failures()
        unrecorded = UnrecordedCosts(watch, failures)
        unrecorded.restore(redistribute(given, size)[rank])
        return [*unrecorded.row()[:2], unrecorded.row()[-1]]

    assert [restored(rank, 2) for rank in (0, 1)] == [[1, 0.5, 1], [4, 2, 2]]
    assert [restored(rank, 3) for rank in (0, 1, 2)] == [[4, 2, 3], [4, 2, 0], [4, 2, 0]]
    assert restored(0, 1, rows[:0]) == [0, 0, 0]


def test_a_finished_run_can_be_made_longer(trained, tmp_path):
    settings = (*LONG, "ppo.anneal=false")  # so that the first part does not depend on the end
    how = ("--output", str(tmp_path))
    assert train(*settings, "total_steps=640", *how).code == 0
    again = train(*settings, "total_steps=640", *how, "--resume", ranks=3)
    assert (again.code, again.stderr) == (0, "") and "is finished" in again.stdout
    assert train(*settings, *how, "--resume", ranks=3).code == 0
    assert differing(results(trained(*settings)), results(tmp_path)) == []


def test_a_run_that_was_cut_off_after_its_training_only_finishes(trained, tmp_path):
    """What is left are the policies to compare with and the table, which shows the recorded evaluation.

    The settings are not given again: they are those of the run.
    """
    whole = train(*LONG, "--output", str(tmp_path))
    with rewriting(tmp_path / "run.h5") as file:
        file.attrs["finished"] = False
        for name in ("policy", "predictor", "reference"):
            del file[name]
    again = train("--output", str(tmp_path), "--resume", ranks=3)
    assert (again.code, again.stderr) == (0, "") and "training up" not in again.stdout
    tables = [text[text.index("Mean return") :] for text in (whole.stdout, again.stdout)]
    assert tables[0] == tables[1]
    assert differing(results(trained(*LONG)), results(tmp_path)) == []


def test_the_policies_of_checkpoints_can_be_evaluated(trained, tmp_path):
    directory = tmp_path / "run"
    stop_early(directory, 3, (*LONG, "ppo.learning_rate=0.05"))  # so that every segment changes them
    steps = [path.stem.rpartition("-")[2] for path in checkpoints.present(directory)]
    means = {
        which: launch("-m", "dials_mpi.evaluate", str(directory), "--episodes", "3", *which).stdout
        for which in ((), ("--checkpoint", "newest"), ("--checkpoint", steps[0]), ("--checkpoint", steps[1]))
    }
    newest, *same, other = means.values()
    assert newest.startswith("mean return") and same == [newest, newest] and other != newest


def test_logs(tmp_path):
    result = train(*SMALL, "--output", str(tmp_path), "--log-ranks", ranks=3)
    assert (result.code, result.stderr) == (0, "")
    assert {path.name for path in tmp_path.glob("log*")} == {"log.txt", "log-0.txt", "log-1.txt", "log-2.txt"}
    root, worker = (tmp_path / "log.txt").read_text(), (tmp_path / "log-2.txt").read_text()
    assert all(line[4] == "-" and " 0/3 INFO " in line for line in root.splitlines())
    assert "256 of 256 steps" in root and "checkpoint at 256 steps" in root
    assert " 2/3 INFO " in worker and "trained regions [2, 3]" in worker


# Something new in checkpoints ------------------------------------------------------------------------------

EXTRA = """
import sys
import numpy as np
from dials_mpi import train
from dials_mpi.run import state

known, back = state.entries, {}

def unpack(owner):
    return lambda rank_state, number, row: back.update({(owner, number): row.tolist()})

def more(config, domain):
    extra = [
        state.Entry("extra/" + owner, owner, 3, lambda _, i: np.array([i, 0.5]), unpack(owner), np.float64,
                    optional=True)
        for owner in ("agent", "region", "run")
    ]
    return [*known(config, domain), *extra]

state.entries = more
connect = train.launch.connect

def remember():
    global rank
    comm = connect()
    rank = comm.rank
    return comm

train.launch.connect = remember
try:
    train.main(sys.argv[2:])
finally:
    with open(f"{sys.argv[1]}/{rank}", "w") as file:
        file.write(repr(back))
"""


def test_a_new_entry_is_written_and_read_without_other_changes(tmp_path):
    """Saved on 3 ranks, loaded on 2. A checkpoint without an optional entry is read, too."""
    driver, out, told = tmp_path / "driver.py", tmp_path / "out", tmp_path / "told"
    driver.write_text(EXTRA)
    told.mkdir()
    settings = (*SMALL, "ppo.anneal=false", "--output", str(out))

    def extended(*arguments, ranks):
        done = launch(str(driver), str(told), *settings, *arguments, ranks=ranks, preloaded=True)
        assert done.code == 0, done.stderr
        return [ast.literal_eval((told / str(rank)).read_text()) for rank in range(ranks)]

    assert train(*settings, "total_steps=128", ranks=2).code == 0
    assert extended("--resume", ranks=3) == [{}] * 3
    with h5py.File(out / "checkpoint-256.h5") as file:
        assert file["extra/agent"][()].tolist() == [[i, 0.5, 0] for i in range(4)]
        assert file["extra/run"][()].tolist() == [[0, 0.5, 0]]
    root, worker = extended("--resume", "total_steps=384", ranks=2)
    assert root == {("run", 0): [0, 0.5, 0]}
    assert worker == {(owner, i): [i, 0.5, 0] for owner in ("agent", "region") for i in range(4)}
