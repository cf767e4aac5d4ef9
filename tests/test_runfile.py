"""The run file: what is written can be read, by anyone, at any time; what cannot be read is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest
from conftest import launch

from dials_mpi.errors import BadInput
from dials_mpi.runfile import FORMAT_VERSION, NAME, RunFile

YAML = "seed: 1  # é\n"


@pytest.fixture
def run(tmp_path):
    return RunFile.create(str(tmp_path / "a" / "b"), YAML, {"domain": "warehouse", "seed": 7})


def refused(call, *arguments) -> str:
    """The message of a BadInput: one printable line that says what to do."""
    with pytest.raises(BadInput) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 800
    return message


# Writing -------------------------------------------------------------------------------------------------


def test_create_makes_the_directory_and_what_identifies_the_run(run):
    with h5py.File(run.directory / NAME) as file:
        assert file.attrs["format_version"] == FORMAT_VERSION
        assert file.attrs["h5py"] == h5py.__version__
        assert (file.attrs["domain"], file.attrs["seed"]) == ("warehouse", 7)
        assert file["config/0"].asstr()[()] == YAML
    assert run.configuration() == YAML


def test_create_uses_an_existing_empty_directory(tmp_path):
    RunFile.create(str(tmp_path), YAML, {})
    assert RunFile.open(str(tmp_path)).configuration() == YAML


def test_create_keeps_a_run_that_is_there(run):
    message = refused(RunFile.create, str(run.directory), "seed: 2\n", {})
    assert "already" in message and "--output" in message
    assert run.configuration() == YAML


@pytest.mark.parametrize("where", ["file", "file/below", "x" * 300, "nul\0"])
def test_create_refuses_what_cannot_be_a_directory(tmp_path, where):
    (tmp_path / "file").write_text("here already")
    assert "--output" in refused(RunFile.create, f"{tmp_path}/{where}", YAML, {})
    assert (tmp_path / "file").read_text() == "here already"


def test_series_grow_by_one_row(run):
    for t in range(5):
        run.append({"a/steps": t * 10, "a/rows": np.full((2, 3), t, np.float32), "a/share": t / 2})
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
    assert (run.read("large") == [large, -large]).all()
    for t in range(200):
        run.append({"small": t})
    assert (run.read("small") == np.arange(200)).all()


def test_a_row_of_another_shape_is_no_row_of_the_series(run):
    run.append({"rows": np.zeros(3)})
    with pytest.raises((ValueError, TypeError)):
        run.append({"rows": np.zeros(4)})


def test_write_sets_replaces_and_adds_attributes(run):
    run.write({"m/peak": np.array([1.0, 2.0])}, ranks=2, hosts=["one", "zwölf"])
    run.write({"m/peak": np.array([3.0, 4.0])}, ranks=3)
    assert run.read("m/peak").tolist() == [3.0, 4.0]
    attributes = run.attributes()
    assert attributes["ranks"] == 3
    assert list(attributes["hosts"]) == ["one", "zwölf"]


def test_networks_of_two_kinds_of_regions(run):
    small, large = (("w", (2, 3)), ("b", (2,))), (("w", (3, 3)), ("b", (3,)))
    parameters = np.arange(36, dtype=np.float32).reshape(3, 12)
    run.write_networks("policy", parameters, [small, large, small])
    assert (run.read("policy/parameters") == parameters).all()
    with h5py.File(run.path) as file:
        tables = [json.loads(text) for text in file["policy/tables"].asstr()[()]]
        table_of = file["policy/table_of"][()].tolist()
    assert table_of == [0, 1, 0]
    assert tables == [[["w", [2, 3]], ["b", [2]]], [["w", [3, 3]], ["b", [3]]]]


def test_a_reader_with_a_lock_does_not_stop_the_run(run, tmp_path):
    """Someone looks at the run in a notebook and forgets to close the file: the run goes on."""
    run.append({"steps": 0})
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
        forgetful.communicate(timeout=30)
    assert run.read("steps").tolist() == [0, 1]


def test_a_reader_gets_in_while_the_run_writes(run):
    """Another process opens the file plainly at a moment when the run has it open to append."""
    run.append({"steps": 0})
    reader = "import h5py, sys; print(len(h5py.File(sys.argv[1])['steps']))"
    with run._change():
        result = launch("-c", reader, str(run.path), timeout=30)
    assert (result.stdout, result.stderr) == ("1\n", "")


# Reading -------------------------------------------------------------------------------------------------


def test_has_tells_datasets_and_groups(run):
    run.append({"a/steps": 0})
    assert run.has("a/steps") and run.has("a") and run.has("config")
    assert not run.has("a/other") and not run.has("policy/parameters")


def test_read_of_what_is_not_there_yet(run):
    assert "policy/parameters" in refused(run.read, "policy/parameters")


def test_the_newest_configuration_counts(run):
    with h5py.File(run.path, "r+") as file:
        for k in range(1, 12):
            file[f"config/{k}"] = f"seed: {k}\n"
    assert run.configuration() == "seed: 11\n"


def test_open_refuses_a_directory_without_a_run(tmp_path):
    assert NAME in refused(RunFile.open, str(tmp_path))
    assert NAME in refused(RunFile.open, str(tmp_path / "nowhere"))
    assert refused(RunFile.open, str(tmp_path / ("x" * 300)))


def test_open_refuses_what_is_no_run_file(tmp_path):
    for content in (b"", b"no HDF5 at all", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        (tmp_path / NAME).write_bytes(content)
        assert "damaged" in refused(RunFile.open, str(tmp_path))
    (tmp_path / NAME).unlink()
    with h5py.File(tmp_path / NAME, "w") as file:
        file["x"] = 1
    assert "damaged" in refused(RunFile.open, str(tmp_path))


def test_open_refuses_a_newer_format(run):
    run.write({}, format_version=FORMAT_VERSION + 1)
    message = refused(RunFile.open, str(run.directory))
    assert str(FORMAT_VERSION + 1) in message and "newer" in message


@pytest.mark.parametrize("version", ["new", [1, 2]])
def test_open_refuses_a_version_that_is_none(run, version):
    run.write({}, format_version=version)
    assert "damaged" in refused(RunFile.open, str(run.directory))


@pytest.mark.timeout(60)
def test_damage_is_refused(run):
    """A file that was cut at any place, or whose configuration is no text any more."""
    run.append({"a/rows": np.arange(100.0)})
    whole = run.path.read_bytes()
    text = YAML.encode()
    assert whole.count(text) == 1
    broken = [whole[:length] for length in range(0, len(whole) - 1, len(whole) // 40)]
    for content in (*broken, whole.replace(text, b"\xff" * len(text))):
        run.path.write_bytes(content)
        assert "damaged" in refused(lambda: RunFile.open(str(run.directory)).configuration())


def test_a_configuration_that_is_no_text_or_is_missing_is_damage(run):
    with h5py.File(run.path, "r+") as file:
        del file["config/0"]
        file["config/0"] = 3
    assert "damaged" in refused(RunFile.open(str(run.directory)).configuration)
    with h5py.File(run.path, "r+") as file:
        del file["config"]
    assert "damaged" in refused(RunFile.open(str(run.directory)).configuration)
