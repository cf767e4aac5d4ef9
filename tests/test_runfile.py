"""The run file: it can be read by any process at any time; unreadable files are refused."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import launch

from dials_mpi.core.errors import BadInput, Unwritable
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import FORMAT_VERSION, NAME, RunFile

YAML = "seed: 1  # é\n"


@pytest.fixture
def run(tmp_path):
    run = RunFile(tmp_path)
    run.create(YAML, {"domain": "warehouse", "seed": 7}, {"env_steps": 0})
    return run


def refused(call, *arguments) -> str:
    """The message of a BadInput: one printable line that says what to do."""
    with pytest.raises(BadInput) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 800
    return message


# Writing -------------------------------------------------------------------------------------------------


def test_create_writes_what_identifies_the_run(run):
    with h5py.File(run.path) as file:
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert file.attrs["h5py"] == h5py.__version__
        assert (file.attrs["domain"], file.attrs["seed"]) == ("warehouse", 7)
        assert file["config/0"].asstr()[()] == YAML
        assert file["config/0"].attrs["env_steps"] == 0
    assert run.configuration() == YAML


def test_nothing_is_in_the_file_before_the_commit(run):
    before = run.path.read_bytes()
    run.append({"steps": 0})
    run.write({"other": np.zeros(2)})
    assert run.path.read_bytes() == before
    run.commit()
    assert run.has("steps") and run.has("other")
    run.commit()
    assert len(run.read("steps")) == 1


def test_a_series_that_begins_late_has_unknown_rows_before(tmp_path):
    """A newer program resumes a run: its domain has one more statistic."""
    run = RunFile(tmp_path, {"arrived": "vehicles", "spent": "s"})
    run.create(YAML, {}, {})
    for steps in (0, 10):
        run.append({"evaluation/env_steps": steps, "evaluation_statistics/arrived": [3.0, 4.0]})
        run.commit()
    late = {"evaluation_statistics/arrived": [5.0, 6.0], "evaluation_statistics/spent": [7.0, 8.0]}
    run.append({"evaluation/env_steps": 20, **late, "training/loss": 1.0, "training/env_steps": 20})
    run.commit()
    assert run.read("evaluation_statistics/arrived").tolist() == [[3, 4], [3, 4], [5, 6]]
    spent = run.read("evaluation_statistics/spent")
    assert np.isnan(spent[:2]).all() and spent[2].tolist() == [7, 8]
    assert run.read("training/loss").tolist() == [1] and run.read("training/env_steps").tolist() == [20]


def test_append_copies_the_row(run):
    """The caller may change the array after the call."""
    row = np.zeros(3)
    run.append({"rows": row})
    row += 1
    run.commit()
    assert not run.read("rows").any()


def test_a_folder_of_runs_is_refused_with_the_runs_below_it(tmp_path):
    for name in ("b/seed0", "b/seed1", "a", "c/d/too deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.h5").touch()
    (tmp_path / "none").mkdir()
    below = ", ".join(str(tmp_path / name) for name in ("a", "b/seed0", "b/seed1"))
    assert refused(RunFile.open, tmp_path).endswith(f"give the directory of a run below it: {below}")
    (tmp_path / "e" / "f").mkdir(parents=True)
    (tmp_path / "e" / "f" / "run.h5").touch()
    assert refused(RunFile.open, tmp_path).endswith(f"{below}, 1 more")
    assert refused(RunFile.open, tmp_path / "none").endswith("none: give the directory of a run")


@pytest.mark.quick
def test_series_grow_by_one_row(run):
    for t in range(5):
        run.append({"a/steps": t * 10, "a/rows": np.full((2, 3), t, np.float32), "a/share": t / 2})
    run.commit()
    assert run.read("a/steps").tolist() == [0, 10, 20, 30, 40]
    assert run.read("a/steps").dtype == np.int64
    rows = run.read("a/rows")
    assert rows.shape == (5, 2, 3) and rows.dtype == np.float32
    assert (rows == np.arange(5)[:, None, None]).all()
    assert run.read("a/share").dtype == np.float64


def test_large_rows_and_many_small_ones(run):
    large = np.arange(600_000, dtype=np.float32)
    run.append({"large": large})
    run.append({"large": -large})
    run.commit()
    assert (run.read("large") == [large, -large]).all()
    for t in range(200):
        run.append({"small": t})
    run.commit()
    assert (run.read("small") == np.arange(200)).all()


def test_a_row_of_another_shape_is_refused(run):
    run.append({"rows": np.zeros(3)})
    run.append({"rows": np.zeros(4)})
    with pytest.raises((ValueError, TypeError)):
        run.commit()
    assert not run.has("rows")


def test_write_sets_replaces_and_adds_attributes(run):
    run.write({"m/peak": np.array([1.0, 2.0])}, ranks=2, hosts=["one", "zwölf"])
    run.write({"m/peak": np.array([3.0, 4.0])}, ranks=3)
    run.commit()
    assert run.read("m/peak").tolist() == [3.0, 4.0]
    attributes = run.attributes()
    assert attributes["ranks"] == 3
    assert list(attributes["hosts"]) == ["one", "zwölf"]


def test_networks_of_two_kinds_of_regions(run):
    small, large = (("w", (2, 3)), ("b", (2,))), (("w", (3, 3)), ("b", (3,)))
    parameters = np.arange(36, dtype=np.float32).reshape(3, 12)
    run.write_networks("policy", parameters, [small, large, small])
    run.commit()
    assert (run.read("policy/parameters") == parameters).all()
    with h5py.File(run.path) as file:
        tables = [json.loads(text) for text in file["policy/tables"].asstr()[()]]
        table_of = file["policy/table_of"][()].tolist()
    assert table_of == [0, 1, 0]
    assert tables == [[["w", [2, 3]], ["b", [2]]], [["w", [3, 3]], ["b", [3]]]]


def test_a_reader_with_a_lock_does_not_stop_the_run(run, tmp_path):
    """As of a notebook that has opened the file and not closed it: the run continues."""
    run.append({"steps": 0})
    run.commit()
    reader = "import h5py, sys; file = h5py.File(sys.argv[1]); open(sys.argv[2], 'w'); sys.stdin.read()"
    opened = tmp_path / "opened"
    command = [sys.executable, "-c", reader, str(run.path), str(opened)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as forgetful:
        limit = time.monotonic() + 30
        while not opened.exists():
            assert time.monotonic() < limit and forgetful.poll() is None
            time.sleep(0.02)
        run.append({"steps": 1})
        run.write({"other": np.zeros(2)}, finished=True)
        run.commit()
        forgetful.communicate(timeout=30)
    assert run.read("steps").tolist() == [0, 1]


def test_a_reader_during_a_commit_finds_the_complete_old_file(run, monkeypatch):
    run.append({"steps": 0})
    run.commit()
    lengths = []
    reader = "import h5py, sys; print(len(h5py.File(sys.argv[1])['steps']))"

    def look(*names):
        lengths.append(launch("-c", reader, str(run.path), timeout=30).stdout)
        replace(*names)

    replace = os.replace
    monkeypatch.setattr(os, "replace", look)
    run.append({"steps": 1})
    run.commit()
    assert lengths == ["1\n"]
    assert launch("-c", reader, str(run.path), timeout=30).stdout == "2\n"


def test_rows_by_rank_are_as_long_as_the_most_ranks(run):
    for ranks in (2, 4, 3):
        run.append({"timing/train": np.ones((ranks, 2)), "events/breakdowns": np.ones(ranks, np.int64)})
        run.commit()
    seconds, counts = run.read("timing/train"), run.read("events/breakdowns")
    assert seconds.shape == (3, 4, 2) and counts.shape == (3, 4)
    assert np.isfinite(seconds).all(axis=2).sum(axis=1).tolist() == [2, 4, 3]
    assert counts.sum(axis=1).tolist() == [2, 4, 3]
    assert np.isnan(seconds[0, 2:]).all()


def test_an_array_of_another_length_replaces_the_old_one(run):
    for ranks in (3, 2):
        run.write({"memory/pss": np.full(ranks, ranks)})
        run.commit()
    assert run.read("memory/pss").tolist() == [2, 2]


# Continuing ----------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_a_continued_run_has_every_row_once(run):
    for t in range(5):
        run.append({"a/steps": t, "b/rows": np.full(3, t)})
    run.append({"late/steps": 4})
    run.write({"policy/parameters": np.zeros((2, 3))}, finished=True)
    run.commit()
    assert run.lengths() == {"a/steps": 5, "b/rows": 5, "late/steps": 1}
    run.continue_run("seed: 2\n", {"finished": False}, {"env_steps": 3}, {"a/steps": 3, "b/rows": 3})
    assert run.lengths() == {"a/steps": 3, "b/rows": 3}
    run.append({"a/steps": 3, "b/rows": np.full(3, 3)})
    run.commit()
    assert run.read("a/steps").tolist() == run.read("b/rows")[:, 1].tolist() == [0, 1, 2, 3]
    assert run.last_row("a") == {"steps": 3} and run.last_row("none") == {}
    assert not run.attributes()["finished"] and run.attributes()["seed"] == 7
    assert run.configuration() == "seed: 2\n" and run.has("config/0")
    with h5py.File(run.path) as file:
        assert file["config/1"].attrs["env_steps"] == 3


@pytest.mark.parametrize("moment", ["copy", "change", "fsync", "replace"])
def test_a_disk_that_is_full_leaves_the_old_file(run, monkeypatch, moment):
    """The disk's error occurs at different moments; the HDF5 library must not see it."""
    before = run.path.read_bytes()
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if moment in ("fsync", "replace"):
        monkeypatch.setattr(os, moment, lambda *_: (_ for _ in ()).throw(full))
    else:
        limit = len(before) - 10 if moment == "copy" else len(before) + 10
        keep, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    run.append({"rows": np.zeros(100_000)})
    try:
        with pytest.raises(
            Unwritable, match=r"run.h5 cannot be written \(.*\), its earlier content is intact"
        ):
            run.commit()
    finally:
        if moment in ("copy", "change"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (keep, hard))
    assert run.path.read_bytes() == before
    assert [path.name for path in run.directory.iterdir()] == [NAME]
    assert len(h5py.h5f.get_obj_ids(h5py.h5f.OBJ_ALL, h5py.h5f.OBJ_FILE)) == 0
    monkeypatch.undo()
    run.commit()
    assert run.has("rows")


# Reading -------------------------------------------------------------------------------------------------


def test_has_tells_datasets_and_groups(run):
    run.append({"a/steps": 0})
    run.commit()
    assert run.has("a/steps") and run.has("a") and run.has("config")
    assert not run.has("a/other") and not run.has("policy/parameters")


def test_reading_a_dataset_that_is_not_written_yet(run):
    assert "policy/parameters" in refused(run.read, "policy/parameters")


def test_the_configuration_is_that_of_the_newest_session(run):
    with rewriting(run.path) as file:
        for k in range(1, 12):
            file[f"config/{k}"] = f"seed: {k}\n"
    assert run.configuration() == "seed: 11\n"


def test_open_refuses_a_directory_without_a_run(tmp_path):
    assert NAME in refused(RunFile.open, str(tmp_path))
    assert NAME in refused(RunFile.open, str(tmp_path / "nowhere"))
    assert refused(RunFile.open, str(tmp_path / ("x" * 300)))


def test_open_refuses_other_files(tmp_path):
    for content in (b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        (tmp_path / NAME).write_bytes(content)
        assert "damaged" in refused(RunFile.open, str(tmp_path))
    (tmp_path / NAME).unlink()
    for writing in (h5py.File(tmp_path / NAME, "w"), rewriting(tmp_path / NAME, begin_empty=True)):
        with writing as file:
            file["x"] = 1
        assert "damaged" in refused(RunFile.open, str(tmp_path))


def test_a_file_that_another_program_has_changed_is_refused(run):
    with h5py.File(run.path, "r+") as file:
        file.attrs["seed"] = 8
    assert "its checksum is wrong" in refused(RunFile.open, str(run.directory))


def test_open_refuses_a_newer_format(run):
    run.write({}, format_version=FORMAT_VERSION + 1)
    run.commit()
    message = refused(RunFile.open, str(run.directory))
    assert str(FORMAT_VERSION + 1) in message and "newer" in message


@pytest.mark.parametrize("version", ["new", [1, 2]])
def test_open_refuses_an_invalid_version(run, version):
    run.write({}, format_version=version)
    run.commit()
    assert "damaged" in refused(RunFile.open, str(run.directory))


@pytest.mark.quick
@pytest.mark.timeout(60)
def test_damage_is_refused(run):
    """A file that was truncated at any place, or whose configuration is not a text."""
    run.append({"a/rows": np.arange(100.0)})
    run.commit()
    whole = run.path.read_bytes()
    text = YAML.encode()
    assert whole.count(text) == 1
    broken = [whole[:length] for length in range(0, len(whole) - 1, len(whole) // 40)]
    for content in (*broken, whole.replace(text, b"\xff" * len(text))):
        run.path.write_bytes(content)
        assert "damaged" in refused(lambda: RunFile.open(str(run.directory)).configuration())


def test_a_configuration_that_is_not_a_text_or_is_missing_is_damage(run):
    with rewriting(run.path) as file:
        del file["config/0"]
        file["config/0"] = 3
    assert "damaged" in refused(RunFile.open(str(run.directory)).configuration)
    with rewriting(run.path) as file:
        del file["config"]
    assert "damaged" in refused(RunFile.open(str(run.directory)).configuration)
