"""Launchers that the MPI library does not know or that belong to another one; shared memory for MPI."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import LAUNCHER_PREFIXES, SMALL, launch, mpirun, train

from dials_mpi.core import launchers
from dials_mpi.core.errors import BadInput
from dials_mpi.parallel import shared_memory

MPICH, CH3, OLD, OLDER, OPENMPI, OLD_OPENMPI = (
    "MPICH Version:      5.0.2\nMPICH Device:       ch4:ucx ofi\nMPICH configure:    --with-pm=hydra\n",
    "MPICH Version:      3.4.3\nMPICH Device:       ch3:nemesis\n",
    "MPICH Version:      4.3.2\nMPICH Device:       ch4:ucx ofi\n",
    "MPICH Version:      4.2.3\nMPICH Device:       ch4:ofi ucx\n",
    "Open MPI v5.0.11, package: Open MPI user@localhost Distribution, ident: 5.0.11\0",
    "Open MPI v4.1.8, package: Open MPI user@localhost Distribution\0",
)
MPICH_WITH_PMIX = MPICH.replace("hydra", "hydra --with-pmix=/usr")
NAMES = {name for each in (*launchers.MPI, *launchers.OTHERS) for name in (each.size, each.rank) if name}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    """environment(NAME=value): set these variables of launchers, and remove all others."""
    for name in os.environ:
        if name in NAMES or name.startswith((*LAUNCHER_PREFIXES, "SLURM_", "MPIR_CVAR_PMI")):
            monkeypatch.delenv(name)

    def be(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return be


def step(tasks: int, rank: int = 0, **more: object) -> dict[str, object]:
    """The variables that srun sets for each task."""
    return {
        "SLURM_STEP_ID": 0,
        "SLURM_STEP_NUM_TASKS": tasks,
        "SLURM_NTASKS": tasks,
        "SLURM_PROCID": rank,
    } | more


# A launcher that MPI does not know ------------------------------------------------------------------------

UNNOTICED = {
    "srun without PMI": (step(3), 1, 3),
    "srun without PMI, another task": (step(3, 1), 1, 3),
    "a step in an environment that is cut down": ({"SLURM_STEP_NUM_TASKS": 3, "SLURM_PROCID": 0}, 1, 3),
    "PMI": ({"PMI_SIZE": 4, "PMI_RANK": 0}, 1, 4),
    "Open MPI": ({"OMPI_COMM_WORLD_SIZE": 4, "OMPI_COMM_WORLD_RANK": 0}, 1, 4),
    "MVAPICH": ({"MV2_COMM_WORLD_SIZE": 4, "MV2_COMM_WORLD_RANK": 0}, 1, 4),
    "PMIx, the third of them": ({"PMIX_RANK": 2, "PMIX_NAMESPACE": "x"}, 1, 3),
    "Flux": ({"FLUX_JOB_SIZE": 4, "FLUX_TASK_RANK": 0}, 1, 4),
    "jsrun": ({"JSM_NAMESPACE_SIZE": 4, "JSM_NAMESPACE_RANK": 0}, 1, 4),
    "aprun, the second of them": ({"ALPS_APP_PE": 1}, 1, 2),
    "PALS, the second of them": ({"PALS_RANKID": 1}, 1, 2),
    "torchrun": ({"WORLD_SIZE": 2, "RANK": 0, "LOCAL_RANK": 0}, 1, 2),
    "Hydra's own": ({"MPI_LOCALNRANKS": 3}, 1, 3),
    "some of them": ({"PMI_SIZE": 4, "PMI_RANK": 0}, 2, 4),
    "of another MPI, within one rank of this one": ({"PMI_SIZE": 1, "OMPI_COMM_WORLD_SIZE": 3}, 1, 3),
}
NOTICED = {
    "none": ({}, 1),
    "mpirun": ({"PMI_SIZE": 3, "PMI_RANK": 1, "MPI_LOCALNRANKS": 3}, 3),
    "a batch script of three tasks": ({"SLURM_NTASKS": 3, "SLURM_NPROCS": 3, "SLURM_PROCID": 0}, 1),
    "a batch script that was submitted from a step": (step(3) | {"SLURM_NTASKS": 1}, 1),
    "one task": (step(1), 1),
    "srun with PMI2": (step(3, 2, PMI_SIZE=3, PMI_RANK=2), 3),
    "srun with PMIx": (step(3, 2, PMIX_RANK=2), 3),
    "daemons that srun started, one on each of two machines": (step(2, 1, PMI_SIZE=3, PMI_RANK=2), 3),
    "daemons on more machines than ranks": (step(4, 1, OMPI_COMM_WORLD_SIZE=2, PMIX_RANK=1), 2),
    "one rank of mpirun within a step of four": (step(4, PMI_SIZE=1, PMI_RANK=0), 1),
    "mpirun within a shell of another": ({"PMI_SIZE": 4, "OMPI_COMM_WORLD_SIZE": 2}, 2),
    "a WORLD_SIZE of something else": ({"WORLD_SIZE": 8}, 1),
    "PMIx's number for no rank": ({"PMIX_RANK": 4294967294}, 1),
    "empty": ({"PMI_SIZE": "", "PMI_RANK": ""}, 1),
}


@pytest.mark.parametrize("name", UNNOTICED)
def test_a_launcher_that_mpi_does_not_know_is_refused(environment, name):
    variables, size, started = UNNOTICED[name]
    environment(**variables)
    with pytest.raises(
        BadInput, match=rf"started {started} ranks \(\w+\).* sees {size}: start with"
    ) as refusal:
        launchers.require_all_ranks_seen(size, MPICH)
    assert ("srun the --mpi" in str(refusal.value)) == ("SLURM_STEP_NUM_TASKS" in variables)


@pytest.mark.parametrize("name", NOTICED)
def test_a_launcher_that_mpi_knows_is_accepted(environment, name):
    variables, size = NOTICED[name]
    environment(**variables)
    launchers.require_numbers()
    launchers.require_all_ranks_seen(size, MPICH)


ROOTS = {
    "alone": ({}, True, False),
    "the first": ({"PMI_RANK": 0, "PMI_SIZE": 2}, True, True),
    "the second": ({"PMI_RANK": 1, "PMI_SIZE": 2}, False, True),
    "the first of a step": (step(3), True, True),
    "the second of a step": (step(3, 1), False, True),
    "the only one of a step": (step(1), True, False),
    "a batch script of three tasks": ({"SLURM_NTASKS": 3, "SLURM_PROCID": 0}, True, False),
    "the first, under the second of two daemons": (step(2, 1, PMI_RANK=0), True, True),
    "a worker of torchrun": ({"WORLD_SIZE": 2, "RANK": 1, "LOCAL_RANK": 1}, False, True),
    "a RANK of something else": ({"RANK": 7}, True, False),
    "no number": ({"PMI_RANK": "x"}, True, True),
}


@pytest.mark.parametrize("name", ROOTS)
def test_one_process_prints(environment, name):
    variables, root, launched = ROOTS[name]
    environment(**variables)
    assert (launchers.launched_as_root(), launchers.launched()) == (root, launched)


@pytest.mark.parametrize("variable", ["PMI_SIZE", "PMI_RANK", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"])
@pytest.mark.parametrize("value", ["abc", "-1", "3x", "²"])
def test_a_variable_that_is_not_a_number_is_named(tmp_path, environment, variable, value):
    environment(**{variable: value})
    with pytest.raises(BadInput, match=f"{variable} is '{value}'"):
        launchers.require_numbers()


def test_an_invalid_number_is_one_sentence(tmp_path):
    """MPICH itself would end the process with four lines."""
    result = train(*SMALL, cwd=tmp_path, environment={"PMI_SIZE": "abc", "PMI_RANK": "0"})
    assert (result.code, len(result.stderr.splitlines())) == (2, 1)
    assert "PMI_SIZE is 'abc'" in result.stderr and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_task_of_srun_without_pmi_writes_nothing(tmp_path, rank):
    variables = {name: str(value) for name, value in step(3, rank).items()}
    result = train(*SMALL, cwd=tmp_path, environment=variables)
    assert (result.code, result.stdout, len(result.ours())) == (2, "", 1 - rank)
    assert not rank or result.stderr == ""
    assert not (tmp_path / "runs").exists()


# Two MPIs in one environment -----------------------------------------------------------------------------

PMIX = {"PMIX_NAMESPACE": "prterun-1", "PMIX_RANK": 0}
PMI = {"PMI_SIZE": 2, "PMI_RANK": 0, "PMI_FD": 9}
KINDS = {
    "Open MPI's launcher and MPICH": (PMIX, MPICH, "another MPI.*uses PMIx"),
    "and an older one": (PMIX, OLD, "another MPI.*uses PMIx"),
    "and one that ignores it": (PMIX, OLDER, None),
    "and one that knows PMIx": (PMIX, MPICH_WITH_PMIX, None),
    "and itself": (PMIX, OPENMPI, None),
    "MPICH's launcher and Open MPI": (PMI, OPENMPI, "another MPI.*uses PMI,"),
    "and an Open MPI that knows PMI": (PMI, OLD_OPENMPI, None),
    "and MPICH": (PMI, MPICH, None),
    "one rank of it and Open MPI": (PMI | {"PMI_SIZE": 1}, OPENMPI, None),
    "both and MPICH": (PMI | PMIX, MPICH, "both PMI_SIZE and PMIX_NAMESPACE"),
    "both and MPICH that is told which": (PMI | PMIX | {"MPIR_CVAR_PMI_VERSION": 1}, MPICH, None),
    "both and MPICH that knows one": (PMI | PMIX, OLD, None),
    "both and Open MPI": (PMI | PMIX, OPENMPI, None),
    "none": ({}, MPICH, None),
    "Intel": (PMIX, "Intel(R) MPI Library 2021.13 for Linux* OS\n", None),
}


@pytest.mark.parametrize("name", KINDS)
def test_the_launcher_of_another_mpi_is_refused_before_the_library_ends_the_process(environment, name):
    variables, library, says = KINDS[name]
    environment(**variables)
    if says is None:
        launchers.require_same_kind(library)
    else:
        with pytest.raises(BadInput, match=says):
            launchers.require_same_kind(library)


def own_library() -> str:
    begin = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI"
    return launch("-c", f"{begin}; print(MPI.Get_library_version())").stdout


def test_pmix_and_the_mpich_of_this_environment(tmp_path):
    version = launchers.mpich_version(own_library())
    if version is None or version < (4, 3):
        pytest.skip("needs an MPICH that ends at PMIX_NAMESPACE")
    for rank, sentences in ((0, 1), (1, 0)):
        variables = {"PMIX_NAMESPACE": "prterun-1", "PMIX_RANK": str(rank)}
        result = train(*SMALL, cwd=tmp_path, environment=variables)
        assert (result.code, len(result.stderr.splitlines()), len(result.ours())) == (2, sentences, sentences)
        assert not (tmp_path / "runs").exists()


# Free space in /dev/shm ----------------------------------------------------------------------------------


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """room(bytes): use another folder for shared memory, with this much free space."""
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path)

    def be(free: int) -> None:
        monkeypatch.setattr(shared_memory.os, "statvfs", lambda _: SimpleNamespace(f_bavail=free, f_frsize=1))

    return be


@pytest.mark.parametrize(
    ("variables", "ranks"),
    [
        ({"MPI_LOCALNRANKS": 17, "PMI_SIZE": 17}, 17),
        ({"PMI_LOCAL_SIZE": 17, "PMI_SIZE": 34}, 17),
        (step(34, PMI_SIZE=34, SLURM_STEP_TASKS_PER_NODE="17(x2)"), 17),
        (step(20, PMI_SIZE=20, SLURM_STEP_TASKS_PER_NODE="17,3"), 17),
        (step(2, PMI_SIZE=34, MPI_LOCALNRANKS=17, SLURM_STEP_TASKS_PER_NODE="1(x2)"), 17),
        ({}, 1),
    ],
)
def test_shared_memory_must_suffice_for_the_ranks_of_this_machine(environment, room, variables, ranks):
    environment(**variables)
    needed = 1_057_344 * ranks + 4096
    room(needed)
    shared_memory.require_room(MPICH)
    room(needed - 1)
    with pytest.raises(BadInput, match=rf"for {ranks} rank.*--shm-size.*fewer ranks"):
        shared_memory.require_room(MPICH)
    for library in (CH3, OPENMPI, "Intel(R) MPI Library 2021.13 for Linux* OS\n"):
        shared_memory.require_room(library)


def test_a_single_process_needs_no_shared_memory_before_mpich_5(environment, room):
    environment()
    room(0)
    shared_memory.require_room(OLD)
    with pytest.raises(BadInput):
        shared_memory.require_room(MPICH)


def test_memory_that_other_ranks_of_the_job_have_allocated_counts_as_free(
    environment, room, tmp_path, monkeypatch
):
    environment(MPI_LOCALNRANKS=3)
    needed, taken = 1_057_344 * 3 + 4096, 2**20
    segment = tmp_path / "mpich_shm_1_0"
    with segment.open("wb") as file:
        file.write(bytes(taken))
        file.truncate(needed)
    room(needed - taken)
    shared_memory.require_room(MPICH)
    segment.rename(tmp_path / "of_something_else")
    with pytest.raises(BadInput):
        shared_memory.require_room(MPICH)
    (tmp_path / "of_something_else").rename(segment)
    monkeypatch.setattr(shared_memory, "_loaded", time.time() + 600)  # left by an earlier run
    with pytest.raises(BadInput):
        shared_memory.require_room(MPICH)


TAKES = """
import re
from pathlib import Path
from dials_mpi.parallel.launch import run
def program(ranks):
    ranks.barrier()
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    shared = [(m[0].split("-"), m[5]) for m in maps if len(m) > 5 and "/dev/shm/" in m[5]]
    if ranks.is_root:
        print(*(f"{path}:{int(last, 16) - int(first, 16)}" for (first, last), path in shared))
    ranks.barrier()
    return 0
run(program)
"""


def test_the_mpich_of_this_environment_needs_what_is_required(tmp_path):
    if "ch4" not in own_library():
        pytest.skip("needs MPICH")
    result = launch("-c", TAKES, ranks=3)
    assert (result.code, result.stderr) == (0, "")
    assert "ucx_shm" not in result.stdout
    sizes = [int(entry.rpartition(":")[2]) for entry in result.stdout.split() if "mpich_shm_" in entry]
    needed = 3 * shared_memory.EACH + shared_memory.ALL
    assert sizes and 0.98 * needed < sum(sizes) <= needed + 4096


def small_shared_memory(size: str, ranks: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run under mpirun with a separate, small /dev/shm."""
    script = f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHER_PREFIXES)}
    program = ["unshare", "--mount", "sh", "-c", script, "sh", mpirun(), "-n", str(ranks), sys.executable]
    return subprocess.run(
        [*program, *command],
        capture_output=True,
        text=True,
        timeout=120,
        env={**inherited, "UCX_LOG_LEVEL": "error"},
    )


def test_a_small_dev_shm_is_refused_or_suffices(tmp_path):
    try:
        possible = (
            subprocess.run(["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]).returncode
            == 0
        )
    except OSError:
        possible = False
    if not possible or "ch4" not in own_library():
        pytest.skip("needs MPICH, and the right to mount")
    program = (
        "-c",
        "from dials_mpi.parallel.launch import run; run(lambda ranks: ranks.barrier() or 0)",
    )
    enough = small_shared_memory("17m", 16, *program)  # with UCX's share it was 86 MB
    assert (enough.returncode, enough.stdout + enough.stderr) == (0, "")
    refused = small_shared_memory("16m", 16, *program)
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1 and "17.0 MB" in refused.stderr
