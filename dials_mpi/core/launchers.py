"""The launcher that started this process, from environment variables: number of processes, and rank.

This is known before MPI is loaded, and is then compared with what the MPI library reports.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown


class Launcher(NamedTuple):
    """The variables of one kind of launcher; size: the number of processes, rank: the rank of this process.

    Either is empty if there is no such variable. applies: whether the variables describe this process.
    """

    size: str
    rank: str
    applies: Callable[[], bool] = lambda: True


def _in_step() -> bool:
    # srun sets both variables to one value; a job that was submitted from within a step inherits the first.
    step = os.environ.get("SLURM_STEP_NUM_TASKS")
    return step is not None and os.environ.get("SLURM_NTASKS", step) == step


def _by_torchrun() -> bool:
    return all(name in os.environ for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))


MPI = (
    Launcher("PMI_SIZE", "PMI_RANK"),
    Launcher("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    Launcher("MV2_COMM_WORLD_SIZE", "MV2_COMM_WORLD_RANK"),
    Launcher("", "PMIX_RANK"),
)
"""Launchers that MPI libraries know."""

OTHERS = (
    Launcher("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", _in_step),
    Launcher("FLUX_JOB_SIZE", "FLUX_TASK_RANK"),
    Launcher("JSM_NAMESPACE_SIZE", "JSM_NAMESPACE_RANK"),
    Launcher("MPIRUN_NPROCS", "MPIRUN_RANK"),
    Launcher("WORLD_SIZE", "RANK", _by_torchrun),
    Launcher("", "PALS_RANKID"),
    Launcher("", "ALPS_APP_PE"),
    Launcher("MPI_LOCALNRANKS", ""),
)
"""Launchers that MPI libraries may not know, or that started one of the launchers above."""


_SRUN = ", or give srun the --mpi that it supports (srun --mpi=list)"


def launched_as_root() -> bool:
    """Whether this process is rank 0 of its launcher, or has no launcher."""
    ranks = [_number(each.rank) for each in MPI]
    if all(rank is None for rank in ranks):
        ranks = [_number(each.rank) for each in OTHERS if each.applies()]
    return not any(ranks)


def launched() -> bool:
    """Whether an MPI launcher, or another launcher with several processes, started this process.

    The output may then be a pseudo-terminal that is not shown to a user.
    """
    several = any(number > 1 for number, _ in _sizes(OTHERS))
    return several or any(each.rank in os.environ for each in MPI)


def require_numbers() -> None:
    """BadInput: a launcher's variable is not a number; some MPI libraries would then end the process."""
    for each in (*MPI, *(other for other in OTHERS if other.applies())):
        for name in filter(None, (each.size, each.rank)):
            value = os.environ.get(name, "").strip()
            if value and not _digits(value):
                raise BadInput(
                    f"{name} is {shown(value)} in the environment, but must be a number: unset it, "
                    "or start with mpirun"
                )


def require_all_ranks_seen(size: int, library: str) -> None:
    """BadInput: a launcher started more processes than MPI sees; each would be a separate run.

    size: of MPI's world. library: the version text of the MPI library.
    """
    sizes = [number for each in MPI if (number := _number(each.size)) is not None]
    # MPI knows its launcher; a larger size belongs to an outer launcher, such as that of mpirun's daemons.
    if size in sizes and (size > 1 or max(sizes) == 1):
        return
    started, variable = max(_sizes((*MPI, *OTHERS)), default=(1, ""))
    if started > size:
        raise BadInput(
            f"the launcher started {started} ranks ({variable}) but the MPI library ({_name(library)}) sees "
            f"{size}: start with the mpirun that belongs to this library{_SRUN * _in_step()}"
        )


def require_same_kind(library: str) -> None:
    """BadInput: the launcher does not belong to the MPI library, which would end the process.

    library: its version text. MPICH reads PMIX_NAMESPACE since 4.3, and since 5.0 it fails if PMI_SIZE is
    set as well; Open MPI ignores PMI_SIZE since 5.0.
    """
    mpich, openmpi = mpich_version(library), _version("Open MPI v", library)
    pmi, pmix = _number("PMI_SIZE"), "PMIX_NAMESPACE" in os.environ
    if openmpi and openmpi >= (5, 0) and not pmix and (pmi or 0) > 1:
        raise _another_kind(library, "PMI, as MPICH's mpirun and srun --mpi=pmi2 do")
    if mpich is None or not pmix or "MPIR_CVAR_PMI_VERSION" in os.environ:
        return
    if pmi is not None and mpich >= (5, 0):
        raise BadInput(
            f"both PMI_SIZE and PMIX_NAMESPACE are in the environment: the MPI library ({_name(library)}) "
            "cannot tell which launcher started it; unset the variable of the outer launcher, or set "
            "MPIR_CVAR_PMI_VERSION=1 for the mpirun of MPICH"
        )
    if pmi is None and mpich >= (4, 3) and "pmix" not in library.lower():
        raise _another_kind(library, "PMIx, as Open MPI's mpirun and srun --mpi=pmix do")


def _another_kind(library: str, protocol: str) -> BadInput:
    return BadInput(
        f"the launcher belongs to another MPI than the MPI library ({_name(library)}): it uses {protocol}: "
        f"start with the mpirun that belongs to this library{_SRUN * _in_step()}, or uninstall one of the "
        "packages mpich and openmpi"
    )


def mpich_version(library: str) -> tuple[int, int] | None:
    """Major and minor version of MPICH; None for any other library, also for one derived from MPICH.

    library: its version text.
    """
    return _version("MPICH Version:", library)


def _version(name: str, library: str) -> tuple[int, int] | None:
    match = re.match(rf"{name}\s*(\d+)\.(\d+)", library)
    return (int(match[1]), int(match[2])) if match else None


def _name(library: str) -> str:
    """The name and version of the library, from its version text."""
    return " ".join(library.splitlines()[0].strip(" \0").split(",")[0].split())


def local_ranks() -> int:
    """The number of ranks on this machine; 1 if the launcher does not tell it."""
    for name in ("MPI_LOCALNRANKS", "PMI_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        if number := _number(name):
            return number
    if "PMI_SIZE" in os.environ and _in_step():  # such as 2(x3),1
        text = re.sub(r"\(x\d+\)", "", os.environ.get("SLURM_STEP_TASKS_PER_NODE", ""))
        return max((int(part) for part in text.split(",") if _digits(part)), default=1)
    return 1


def _sizes(launchers: Iterable[Launcher]) -> list[tuple[int, str]]:
    """The least number of processes that each variable implies, with the variable's name."""
    found = []
    for each in launchers:
        if each.applies():
            size, rank = _number(each.size), _number(each.rank)
            found += [(size, each.size)] if size is not None else []
            found += [(rank + 1, each.rank)] if rank is not None else []
    return found


def _number(name: str) -> int | None:
    """The value of a variable; None if it is not a number. PMIx uses values near 2^32 for invalid ranks."""
    value = os.environ.get(name, "").strip()
    return int(value) if _digits(value) and len(value) < 10 else None


def _digits(value: str) -> bool:
    return value.isascii() and value.isdecimal()
