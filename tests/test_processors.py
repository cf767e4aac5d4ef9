"""Runs on several kinds of processor or versions of libraries: what is recorded, and the notes about it."""

import subprocess
from pathlib import Path

import h5py
import pytest
from conftest import SMALL, launch, train

from dials_mpi.core import provenance
from dials_mpi.core.jit import processor
from dials_mpi.core.provenance import PROCESSORS, differences
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import RunFile

OTHER = "another avx"
RANK_2_ON_ANOTHER = f"""
import os
from dials_mpi.run import system
from dials_mpi.core.launchers import MPI
from dials_mpi.train import main
if "2" in [os.environ.get(each.rank) for each in MPI]:
    system.processor = lambda: "{OTHER}"
main()
"""


def processors_of(directory):
    with h5py.File(directory / "run.h5") as file:
        return [list(file[f"config/{k}"].attrs["processors"]) for k in range(len(file["config"]))]


@pytest.fixture(scope="module")
def two_sessions(tmp_path_factory):
    """The directory of a run of two sessions, on two ranks and three, and what they printed."""
    directory = tmp_path_factory.mktemp("run")
    output = ("--output", str(directory))
    first = train(*SMALL, *output, ranks=2)
    then = train(*SMALL, *output, "--resume", "total_steps=384", ranks=3)
    assert (first.code, then.code) == (0, 0), first.stderr + then.stderr
    return directory, first.stdout + then.stdout


def test_ranks_and_sessions_on_one_kind_give_no_note(two_sessions):
    directory, printed = two_sessions
    assert "round" not in printed
    assert processors_of(directory) == [[processor()] * 2, [processor()] * 3]


def test_several_kinds_are_recorded_and_noted(tmp_path):
    output = ("--output", str(tmp_path))
    first = launch("-c", RANK_2_ON_ANOTHER, *SMALL, *output, ranks=3, preloaded=True)
    assert first.code == 0, first.stderr
    mine = processor()
    assert f"several kinds of processor (2 on {mine}, 1 on {OTHER}), which may round" in first.stdout
    then = train(*SMALL, *output, "--resume", "total_steps=384")
    assert then.code == 0, then.stderr
    assert f"runs on {mine}, earlier sessions ran on {mine} and {OTHER}: they may round" in then.stdout
    assert processors_of(tmp_path) == [[mine, mine, OTHER], [mine]]


def test_the_kind_is_the_target_of_compiled_code():
    shown = "from dials_mpi.core.jit import processor; print(processor())"
    mine, other = (launch("-c", shown, environment=given).stdout for given in ({}, {"NUMBA_CPU_NAME": "x"}))
    assert mine.strip() == processor() and other.split() == ["x", *mine.split()[1:]]


OTHER_LIBRARIES = """
import os
from dials_mpi.core import provenance
from dials_mpi.run import system
from dials_mpi.core.launchers import MPI
from dials_mpi.train import main
own = provenance.libraries()
other = lambda: {**own, "numba": "0.1.2", "numpy": "1.2.3"}
if %r is None or %r in [os.environ.get(each.rank) for each in MPI]:
    provenance.libraries = system.libraries = other
main()
"""


def told(directory, name):
    with h5py.File(directory / "run.h5") as file:
        return [file[f"config/{k}"].attrs[name] for k in range(len(file["config"]))], file.attrs[name]


def test_another_numba_and_numpy_are_recorded_by_session_and_noted(tmp_path):
    output = ("--output", str(tmp_path))
    first = train(*SMALL, *output)
    assert first.code == 0 and "session" not in first.stdout, first.stderr
    other = ("-c", OTHER_LIBRARIES % (None, None), *SMALL, *output)
    then = launch(*other, "--resume", "total_steps=384", preloaded=True)
    assert then.code == 0, then.stderr
    mine = provenance.libraries()
    now, before = "numba 0.1.2, numpy 1.2.3", f"numba {mine['numba']}, numpy {mine['numpy']}"
    assert f"this session runs on {now}, earlier sessions ran on {before}: they may" in then.stdout
    for name in ("numba", "numpy"):
        other = {"numba": "0.1.2", "numpy": "1.2.3"}[name]
        assert told(tmp_path, name) == ([mine[name], other], mine[name])
    again = train(*SMALL, *output, "--resume", "total_steps=512")
    assert f"this session runs on {before}, earlier sessions ran on " in again.stdout


def test_every_session_records_all_versions(two_sessions):
    directory, printed = two_sessions
    assert "ran on" not in printed
    for name, value in provenance.versions().items():
        assert told(directory, name) == ([value] * 2, value), name
    for name in ("h5py", "hdf5", "mpi_library"):
        each, whole = told(directory, name)
        assert each == [whole] * 2 and whole, name
    assert [len(hosts) for hosts in told(directory, "hosts")[0]] == [2, 3]


def test_ranks_of_several_versions_are_recorded_and_noted(tmp_path):
    other = ("-c", OTHER_LIBRARIES % ("2", "2"), *SMALL, "--output", str(tmp_path))
    done = launch(*other, ranks=3, preloaded=True)
    assert done.code == 0, done.stderr
    mine = provenance.libraries()["numba"]
    assert f"several versions of numba (2 on {mine}, 1 on 0.1.2), which may round" in done.stdout
    assert told(tmp_path, "numba")[0] == [f"{mine} and 0.1.2"]


def test_a_run_of_an_older_program_continues_without_a_note(tmp_path):
    """Its sessions recorded neither versions nor processors."""
    output = ("--output", str(tmp_path))
    assert train(*SMALL, *output).code == 0
    with rewriting(tmp_path / "run.h5") as file:
        attributes = file["config/0"].attrs
        for name in set(attributes) - {"env_steps", "config_digest", "creator", "git_commit", "ranks"}:
            del attributes[name]
        file.attrs["numba"] = "0.1.2"
    then = train(*SMALL, *output, "--resume", "total_steps=384")
    assert then.code == 0 and "ran on" not in then.stdout, then.stderr
    assert told(tmp_path, "creator")[0] == [provenance.versions()["creator"]] * 2
    with h5py.File(tmp_path / "run.h5") as file:
        assert file.attrs["numba"] == "0.1.2", "of the first session"


def test_versions_are_those_of_the_modules_that_are_loaded(monkeypatch):
    import llvmlite
    import mpi4py
    import numba
    import numpy as np

    provenance.versions.cache_clear()
    provenance.libraries.cache_clear()
    for module in (llvmlite, mpi4py, numba, np):
        monkeypatch.setattr(module, "__version__", f"{module.__name__} of the test")
    found = provenance.versions()
    provenance.versions.cache_clear()
    provenance.libraries.cache_clear()
    for name in ("llvmlite", "mpi4py", "numba", "numpy"):
        assert found[name] == f"{name} of the test"


def test_the_commit_is_of_this_checkout_and_changed_by_a_new_file(tmp_path, monkeypatch):
    def git(folder, *words):
        words = ("git", "-c", "user.name=a", "-c", "user.email=a@b", *words)
        return subprocess.run(words, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "project" / "dials_mpi"
    package.mkdir(parents=True)
    (package / "provenance.py").write_text(Path(provenance.__file__).read_text())
    for folder in (tmp_path / "project", tmp_path):
        git(folder, "init", "-q")
    git(package, "add", ".")
    git(package, "commit", "-qm", "first")
    commit = git(package, "rev-parse", "HEAD")
    monkeypatch.setattr(provenance, "__file__", str(package / "provenance.py"))
    assert provenance.git_commit() == commit
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook of another repository
    assert provenance.git_commit() == commit
    (package / "new.py").touch()
    assert provenance.git_commit() == f"{commit}+"


def test_the_notes():
    def of(*kinds):
        return {PROCESSORS: kinds}

    assert differences(of("a", "a"), {}) == differences(of("a", "a"), of("a")) == []
    mixed, changed = differences(of("a", "b", "a"), of("a"))
    assert "(2 on a, 1 on b)" in mixed and "may depend on which rank trains which region" in mixed
    assert "runs on a and b, earlier sessions ran on a:" in changed
    assert len(differences(of("a", "b"), of("b", "a"))) == 1, "as before, but mixed"
    (both,) = differences({**of("a"), "numpy": ["2"], "sumo": ["3"]}, {**of("b"), "numpy": ["1"]})
    assert "runs on a, numpy 2, earlier sessions ran on b, numpy 1:" in both
    assert differences(of("haswell avx2", "znver4 avx512f"), of("icelake-server avx512f")) == []
    assert len(differences(of("haswell avx2", "znver4 avx512f"), of("a avx512f"), built_in=False)) == 2
    assert len(differences(of("haswell avx2", "ivybridge avx"), of("haswell avx2"))) == 2
    assert differences({"ranks": ["2"], "h5py": ["2"]}, {"ranks": ["1"], "h5py": ["1"]}) == []


def test_a_run_of_an_older_program_has_no_versions():
    archived = Path(__file__).parent.parent / "results" / "runs" / "warehouse-4-gs-seed0"
    newest, earlier = RunFile.open(archived).provenance()
    assert PROCESSORS not in newest and earlier == {}
