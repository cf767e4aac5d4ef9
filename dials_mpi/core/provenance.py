"""Provenance of results: versions of the code and the libraries, processors; and the memory of a rank."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path

import dials_mpi

PROCESSORS = "processors"
"""The name of the attribute with each rank's kind of processor."""

FUSED = ("avx512f", "avx2")
"""Ends of the names of processors that give the same bits with the built-in networks: compiled code rounds a
product and a sum once (``kernels.instructions.multiply_add``), and the C library has the same functions."""

IRRELEVANT = (
    *("env_steps", "config_digest", "ranks", "hosts", "rebuilt_from"),
    *(
        f"{kind}_from_{what}"
        for kind in ("policies", "predictors")
        for what in ("digest", "env_steps", "numbers")
    ),
    *("mpi4py", "mpi_library", "h5py", "hdf5"),
)
"""Attributes of a session that do not affect results: these libraries only move and store numbers."""


@cache
def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that training uses."""
    creator = f"dials_mpi {dials_mpi.__version__}"
    return {"creator": creator, "git_commit": git_commit(), **libraries(), "mpi4py": _version("mpi4py")}


@cache
def libraries() -> dict[str, str]:
    """Versions of Python and of the libraries that compute in this process, from the modules themselves."""
    names = ("numba", "llvmlite", "numpy")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    return str(import_module(name).__version__)


def git_commit() -> str:
    """The commit of the source tree, with '+' if files are changed; 'unknown' outside a checkout."""
    source = Path(__file__).resolve().parents[1]
    try:
        commit = _git(source, "rev-parse", "HEAD")
        _git(
            source, "ls-files", "--error-unmatch", __file__
        )  # fails if the checkout belongs to another project
        changed = _git(source, "status", "--porcelain", "--untracked-files=all", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def distinct(kinds: Sequence[str]) -> str:
    """The distinct values of all ranks, as text."""
    return " and ".join(dict.fromkeys(kinds))


def differences(
    here: Mapping[str, Sequence[str]], earlier: Mapping[str, Sequence[str]], built_in: bool = True
) -> list[str]:
    """Notes for the user: differences of processors or versions that may change results.

    here: by name, such as "processors" or "numba", the value of each rank (or one value for all).
    earlier: the values that earlier sessions recorded; a name may be missing. built_in: all networks and the
    learner are; others may round differently on each kind of processor.
    """

    def unlike(name: str, values: Sequence[str]) -> set[str]:
        alike = FUSED if built_in and name == PROCESSORS else ()
        return {FUSED[-1] if value.endswith(alike) else value for value in values}

    here = {name: values for name, values in here.items() if name not in IRRELEVANT}
    notes = [_mixed(name, values) for name, values in here.items() if len(unlike(name, values)) > 1]
    changed = [
        name
        for name, values in here.items()
        if earlier.get(name) and unlike(name, earlier[name]) != unlike(name, values)
    ]
    if changed:
        now, before = (", ".join(_labelled(name, of[name]) for name in changed) for of in (here, earlier))
        notes.append(
            f"this session runs on {now}, earlier sessions ran on {before}: they may round or compute "
            "differently, so the results may differ from those of an uninterrupted run"
        )
    return notes


def _mixed(name: str, values: Sequence[str]) -> str:
    what = "kinds of processor" if name == PROCESSORS else f"versions of {name}"
    counts = ", ".join(f"{list(values).count(kind)} on {kind}" for kind in dict.fromkeys(values))
    return (
        f"the ranks run on several {what} ({counts}), which may round differently: the "
        "results may depend on which rank trains which region"
    )


def _labelled(name: str, kinds: Sequence[str]) -> str:
    label = {PROCESSORS: "", "creator": "", "git_commit": "commit "}.get(name, f"{name} ")
    return label + distinct(kinds)


def memory() -> tuple[float, float]:
    """Memory of this process, in bytes: peak resident set, and current proportional set (NaN off Linux).

    The proportional set size counts a page shared by n processes as 1/n, so it can be summed over ranks.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, _proportional("Pss:")


def own_memory() -> float:
    """Anonymous memory of this process, in bytes (NaN off Linux).

    Unlike the proportional set, it does not change when other processes that share libraries end.
    """
    return _proportional("Pss_Anon:")


def _proportional(name: str) -> float:
    """A line of /proc/self/smaps_rollup, in bytes; NaN if it is missing."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(name)), float("nan"))


def _git(folder: Path, *arguments: str) -> str:
    # Without variables such as GIT_DIR, with which a hook sets another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
