"""Run files open in other programs as they are, and files of version 1 are still read and resumed."""

from __future__ import annotations

import tarfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL, content, train

from dials_mpi.results.run import Run
from dials_mpi.storage import dimensions
from dials_mpi.storage.checkpoint import Checkpoint
from dials_mpi.storage.checksum import has_valid_checksum
from dials_mpi.storage.datasets import DatasetFile
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import RunFile

ENGINES = ("h5netcdf", "netcdf4")
VERSION_1 = Path(__file__).with_name("data") / "version-1.tar.gz"
"""An unfinished run of two agents, of format version 1, with rows to 128 steps and a checkpoint there."""


def dimensions_of(file: Path) -> dict[str, list[str]]:
    """Each dataset's dimensions; a scale without a coordinate has the name of its dataset."""
    with h5py.File(file) as opened:
        found = {name: item for name in content(file) if (item := opened[name]).shape}
        return {
            name: [scale.name.rpartition("/")[2] for axis in item.dims for scale in axis.values()]
            for name, item in found.items()
        }


# Other programs ------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("error")
def test_xarray_opens_a_run_file_as_it_is(trained, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    path = trained(*SMALL) / "run.h5"
    plain = content(path)
    with xarray.open_datatree(path, engine=engine) as tree:
        returns = tree["evaluation/returns"]
        assert returns.dims == ("env_steps", "episode", "agent")
        assert set(returns.coords) == {"env_steps", "episode", "agent", "wall_time"}
        assert np.array_equal(returns, plain["evaluation/returns"])
        assert np.array_equal(returns.env_steps, plain["evaluation/env_steps"])
        assert np.array_equal(returns.wall_time, plain["evaluation/wall_time"]), "not decoded to a time"
        assert tree["timing/train"].dims == ("env_steps", "rank", "clock")
        assert list(tree["timing/clock"].values) == ["wall", "CPU"]
        assert returns.attrs["units"] == "1" and tree["timing/train"].attrs["units"] == "s"
        assert tree.attrs["finished"] == 1 and tree.attrs["domain"] == "warehouse"
        found = {f"{node.path}/{name}".lstrip("/") for node in tree.subtree for name in node.variables}
        assert found >= {name for name in plain if name.rpartition("/")[2] not in dimensions.UNNUMBERED}
    with xarray.open_dataset(path, group="evaluation", engine=engine) as group:
        assert dict(group.sizes) == {"env_steps": 3, "episode": 3, "agent": 4, "region": 4}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.filterwarnings("error")
def test_xarray_opens_checkpoints_and_datasets(trained, engine):
    xarray = pytest.importorskip("xarray")
    pytest.importorskip({"netcdf4": "netCDF4"}.get(engine, engine))
    run = trained(*SMALL, "schedule=overlapped")
    plain = {} if engine == "netcdf4" else {"phony_dims": "sort"}
    files = [(file, {}) for file in run.glob("checkpoint-*.h5")]
    files += [(file, plain) for file in run.glob("datasets/*.h5")]
    assert len(files) >= 2
    for file, how in files:
        with xarray.open_datatree(file, engine=engine, **how) as tree:
            found = {name.lstrip("/") for node in tree.subtree for name in _paths(node)}
            sizes = dict(tree["policy"].to_dataset().sizes) if "policy" in tree else {}
        kept = {name for name in content(file) if not dimensions.is_coordinate(name)}
        assert found == kept and (not sizes or set(sizes) >= {"agent", "parameter", "counter", "table"})


def _paths(node):
    return (f"{node.path.rstrip('/')}/{name}" for name in node.data_vars)


def test_every_axis_of_a_run_file_has_one_name(trained):
    path = trained(*SMALL) / "run.h5"
    for name, names in dimensions_of(path).items():
        with h5py.File(path) as file:
            assert len(names) == (0 if file[name].is_scale else file[name].ndim), name


def test_a_file_that_is_opened_for_writing_and_not_changed_keeps_its_checksum(trained, tmp_path):
    path = tmp_path / "run.h5"
    path.write_bytes((trained(*SMALL) / "run.h5").read_bytes())
    before = path.read_bytes()
    with h5py.File(path, "r+") as file:
        assert "evaluation" in file
    assert has_valid_checksum(path) and path.read_bytes() == before


def test_a_file_does_not_grow_when_it_is_rewritten(tmp_path):
    """The trailer is removed before new content is added."""
    path = tmp_path / "x.h5"
    with rewriting(path, begin_empty=True) as file:
        file["a"] = np.arange(10)
    size = path.stat().st_size
    for _ in range(5):
        with rewriting(path) as file:
            file["a"][...] = 1
    assert path.stat().st_size == size and path.read_bytes().count(b"dials_mpi sha256 ") == 1


def test_rows_and_ranks_that_change_change_their_coordinates(tmp_path):
    """A resumed run loses rows, and can have fewer ranks."""
    run = RunFile(tmp_path, {"arrived": "vehicles"})
    run.create("seed: 1\n", {}, {})
    for t in range(3):
        row = {"evaluation/env_steps": 10 * t, "evaluation/returns": np.zeros((2, 3))}
        run.append({**row, "evaluation_statistics/arrived": np.zeros(2)})
        run.append({"timing/env_steps": 10 * t, "timing/train": np.zeros((4, 2))})
        run.write({"memory/pss": np.zeros(4)})
        run.commit()
    lengths = run.lengths()
    assert set(lengths) == {
        *("evaluation/env_steps", "evaluation/returns", "evaluation_statistics/arrived"),
        *("timing/env_steps", "timing/train"),
    }
    run.continue_run("seed: 1\n", {}, {}, {name: 2 for name in lengths if name.startswith("evaluation")})
    run.append({"timing/env_steps": 10, "timing/train": np.zeros((6, 2))})
    run.write({"memory/pss": np.zeros(1)})
    run.commit()
    found = content(run.path)
    assert found["evaluation_statistics/env_steps"].tolist() == [0, 10]
    assert found["timing/rank"].tolist() == list(range(6)) and found["memory/rank"].tolist() == [0]
    with h5py.File(run.path) as file:
        (scale,) = file["timing/train"].dims[0].values()
        assert scale.name == "/timing/env_steps" and scale[:].tolist() == [10]
    assert set(run.last_row("evaluation_statistics")) == {"arrived"}


# Version 1 -----------------------------------------------------------------------------------------------


@pytest.fixture
def old(tmp_path):
    """The directory of the old run."""
    with tarfile.open(VERSION_1) as archive:
        archive.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


def test_files_of_version_1_are_read(old):
    assert (old / "run.h5").read_bytes().startswith(b"dials_mpi sha256 ")
    run = RunFile.open(old)
    assert run.read("evaluation/env_steps").tolist() == [0, 128] and not run.finished()
    assert Checkpoint(old / "checkpoint-128.h5").progress.env_steps == 128
    assert DatasetFile(old / "datasets" / "0.h5").region(0).sources.shape == (5, 20, 4)
    assert len(Run.open(old).policies) == 2


def test_a_run_of_version_1_is_resumed(old):
    before = content(old / "run.h5")
    settings = RunFile.open(old).configuration()
    (old.parent / "own.yaml").write_text(settings)
    words = ["--config", str(old.parent / "own.yaml"), "--output", str(old), "--resume"]
    result = train(*words)
    assert (result.code, result.stderr) == (0, "")
    after, names = content(old / "run.h5"), dimensions_of(old / "run.h5")
    with h5py.File(old / "run.h5") as file:
        assert file.attrs["format_version"] == 2 and file.attrs["finished"] == 1
        assert file["evaluation/returns"].attrs["units"] == "1"
    assert after["evaluation/env_steps"].tolist() == [0, 128, 256, 384]
    assert np.array_equal(after["evaluation/returns"][:2], before["evaluation/returns"][:2])
    assert names["evaluation/returns"] == ["env_steps", "episode", "agent"]
    assert (old / "run.h5").read_bytes().startswith(b"\x89HDF")


@pytest.mark.parametrize("name", ["run.h5", "checkpoint-128.h5"])
def test_a_damaged_file_of_version_1_is_refused(old, name):
    path = old / name
    whole = path.read_bytes()
    for place in (100, 600, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert not has_valid_checksum(path)
