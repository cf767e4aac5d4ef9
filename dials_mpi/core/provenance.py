"""Where a run's numbers come from: code, libraries, machines; and how much memory a rank takes."""

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
"""The name under which each rank's kind of processor is told."""

NO_MATTER = (
    *("env_steps", "config_digest", "ranks", "hosts", "rebuilt_from"),
    *("mpi4py", "mpi_library", "h5py", "hdf5"),
)
"""What a session tells of itself that bears on no number: these move and store numbers, unchanged."""


@cache
def versions() -> dict[str, str]:
    """Versions of this package, of Python and of the libraries that training goes through."""
    creator = f"dials_mpi {dials_mpi.__version__}"
    return {"creator": creator, "git_commit": git_commit(), **libraries(), "mpi4py": _version("mpi4py")}


@cache
def libraries() -> dict[str, str]:
    """Versions of what computes in this process, as the modules themselves tell them."""
    names = ("numba", "llvmlite", "numpy")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    return str(import_module(name).__version__)


def git_commit() -> str:
    """The commit of the source tree, with '+' where it is changed; 'unknown' outside a checkout."""
    source = Path(__file__).resolve().parents[1]
    try:
        commit = _git(source, "rev-parse", "HEAD")
        _git(source, "ls-files", "--error-unmatch", __file__)  # fails where the checkout is another project's
        changed = _git(source, "status", "--porcelain", "--untracked-files=all", ".")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if changed else "")


def several(kinds: Sequence[str]) -> str:
    """The distinct ones of what each rank tells."""
    return " and ".join(dict.fromkeys(kinds))


def differences(here: Mapping[str, Sequence[str]], earlier: Mapping[str, Sequence[str]]) -> list[str]:
    """What is to be said where other processors or versions may lead to other results.

    By what they are of, such as "processors" or "numba". here: what each rank tells, or root for all;
    earlier: what the sessions before told, as far as they did.
    """
    here = {name: told for name, told in here.items() if name not in NO_MATTER}
    notes = [_mixed(name, told) for name, told in here.items() if len(set(told)) > 1]
    changed = [name for name, told in here.items() if earlier.get(name) and set(earlier[name]) != set(told)]
    if changed:
        now, before = (", ".join(_labelled(name, told[name]) for name in changed) for told in (here, earlier))
        notes.append(
            f"this session runs on {now}, those before ran on {before}: they may round or compute "
            "differently, so that the results are not to the bit those of an unbroken run"
        )
    return notes


def _mixed(name: str, told: Sequence[str]) -> str:
    what = "kinds of processor" if name == PROCESSORS else f"versions of {name}"
    counts = ", ".join(f"{list(told).count(kind)} on {kind}" for kind in dict.fromkeys(told))
    return (
        f"the ranks run on several {what} ({counts}), which may round differently: the "
        "results may depend on which rank holds which region"
    )


def _labelled(name: str, kinds: Sequence[str]) -> str:
    label = {PROCESSORS: "", "creator": "", "git_commit": "commit "}.get(name, f"{name} ")
    return label + several(kinds)


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
    # Without variables such as GIT_DIR, by which a hook names a repository of its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
