"""Where a run's numbers come from: code, libraries, machines; and how much memory a rank takes."""

from __future__ import annotations

import platform
import resource
import subprocess
from collections.abc import Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

import dials_mpi


@cache
def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries whose results end in the run file."""
    libraries = {name: version(name) for name in ("numba", "numpy", "mpi4py")}
    creator = f"dials_mpi {dials_mpi.__version__}"
    return {"creator": creator, "git_commit": git_commit(), "python": platform.python_version(), **libraries}


def git_commit() -> str:
    """The commit of the source tree, with '+' where it is changed; 'unknown' outside a checkout."""
    source = Path(__file__).resolve().parents[1]
    try:
        commit = _git(source, "rev-parse", "HEAD")
        _git(source, "ls-files", "--error-unmatch", __file__)  # fails where the checkout is another project's
        changed = _git(source, "status", "--porcelain", "--untracked-files=no", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def roundings(processors: Sequence[str], earlier: Sequence[str]) -> list[str]:
    """What is to be said where the kinds of processor bear on the results.

    processors: of each rank; earlier: kinds that the run's sessions before were on.
    """
    kinds, notes = dict.fromkeys(processors), []
    if len(kinds) > 1:
        counts = ", ".join(f"{processors.count(kind)} on {kind}" for kind in kinds)
        notes.append(
            f"the ranks run on several kinds of processor ({counts}), which may round differently: the "
            "results may depend on which rank holds which region"
        )
    if earlier and set(earlier) != set(kinds):
        here, before = " and ".join(kinds), " and ".join(earlier)
        notes.append(
            f"this session runs on {here}, those before ran on {before}: they may round differently, so that "
            "the results are not to the bit those of an unbroken run"
        )
    return notes


def memory() -> tuple[float, float]:
    """Of this process, in bytes: the peak resident set, and the proportional set now (NaN off Linux).

    The proportional set size counts a page shared by n processes as 1/n: it may be summed over ranks.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0, _proportional("Pss:")


def own_memory() -> float:
    """What this process has allocated and holds, in bytes (NaN off Linux).

    Unlike the proportional set it does not change when other processes end that share its libraries.
    """
    return _proportional("Pss_Anon:")


def _proportional(name: str) -> float:
    """A line of the kernel's account, in bytes; NaN where there is none."""
    try:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(name)), float("nan"))


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()
