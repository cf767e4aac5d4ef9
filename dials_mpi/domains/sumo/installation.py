"""Find SUMO on this machine: its programs, its Python modules and their versions.

SUMO comes from the wheel eclipse-sumo, from the folder $SUMO_HOME, or from $PATH.
"""

from __future__ import annotations

import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable

BACKENDS = ("auto", "libsumo", "traci")
OLDEST = (1, 20)
"""The oldest version of SUMO with which the traffic domain was tested."""

_PARTS = {"libsumo": "libsumo.py", "traci": "constants.py", "sumolib": "miscutils.py"}
"""SUMO's Python modules, which import each other, and a file that identifies each."""

_INSTALL = "install it with pip install 'dials_mpi[traffic]'"


def versions(backend: str = "auto", gui: bool = False) -> dict[str, str]:
    """The versions of SUMO and of netconvert, which builds networks, and the name of SUMO's Python module.

    BadInput: one of them is not installed or too old.
    """
    netconvert = version()
    return {
        "sumo": simulator_version(backend, gui),
        "sumo_module": module(backend, gui).__name__,
        "netconvert": netconvert,
    }


@functools.cache
def program(name: str) -> str:
    """The path of one of SUMO's programs: in the wheel eclipse-sumo, else in $SUMO_HOME, else on $PATH.

    BadInput: it is in none of them.
    """
    _prepare()
    home = os.environ.get("SUMO_HOME")
    inside = Path(home, "bin", name) if home else None
    found = str(inside) if inside and inside.is_file() else shutil.which(name)
    if not found:
        raise BadInput(f"SUMO's program {name} is not found: {_INSTALL}")
    return found


@functools.cache
def version() -> str:
    """The version of netconvert, such as "1.28.0". BadInput: it is older than OLDEST."""
    return _program_version("netconvert")


@functools.cache
def simulator_version(backend: str, gui: bool) -> str:
    """The version of the SUMO that simulates: that of libsumo, or of the program to which traci connects.

    BadInput: it is older than OLDEST, or cannot be loaded.
    """
    used = module(backend, gui)
    if used.__name__ == "libsumo":
        return _checked_version(used.getVersion()[1], used.__file__ or "libsumo")
    return _program_version(_simulator_name(gui))


def _program_version(name: str) -> str:
    path = program(name)
    try:
        answer = _run([path, "--version"])
    except (OSError, RuntimeError):
        answer = ""
    return _checked_version(answer, path)


def _checked_version(answer: str, path: str) -> str:
    """The version in the answer of a program or module. BadInput: there is none, or it is too old."""
    found = re.search(r"(\d+)[._](\d+)[._](\d+)", answer)  # 1.28.0, or v1_28_0+0123-abc of a developer
    if not found:
        raise BadInput(f"{path} does not show its version: {_INSTALL}")
    version = ".".join(found.groups())
    if tuple(map(int, found.groups())) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BadInput(f"SUMO is {version} ({path}), older than {oldest}: {_INSTALL}")
    return version


def simulator(gui: bool) -> str:
    """The path of the program sumo, or of sumo-gui. BadInput: it is not found."""
    return program(_simulator_name(gui))


def _simulator_name(gui: bool) -> str:
    return "sumo-gui" if gui else "sumo"


def netconvert(arguments: Sequence[str]) -> None:
    """Run netconvert. RuntimeError, with its messages: it fails."""
    _run([program("netconvert"), *arguments])


def tool(name: str, arguments: Sequence[str]) -> None:
    """Run a Python tool of SUMO. BadInput: it is not found. RuntimeError, with its messages: it fails."""
    _prepare()
    path = Path(os.environ.get("SUMO_HOME", ""), "tools", name)
    if not path.is_file():
        raise BadInput(f"SUMO's tool {name} is not found: {_INSTALL}, or set SUMO_HOME")
    _run([sys.executable, str(path), *arguments])


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


@functools.cache
def _prepare() -> None:
    """Set the environment that SUMO needs: for the wheel eclipse-sumo, if installed, else for $SUMO_HOME."""
    wheel = _wheel()
    if wheel:
        os.environ["SUMO_HOME"] = str(wheel)
        if not os.environ.get("PROJ_LIB") and not os.environ.get("PROJ_DATA"):
            # The folder of SUMO's map projections; without it SUMO prints warnings.
            os.environ["PROJ_LIB"] = os.environ["PROJ_DATA"] = str(wheel / "data" / "proj")
        return
    # SUMO installed in another way has its Python modules here.
    home = os.environ.get("SUMO_HOME")
    tools = os.path.join(home, "tools") if home else ""
    if os.path.isdir(tools) and tools not in sys.path:
        sys.path.append(tools)


def _wheel() -> Path | None:
    """The wheel's folder. ``sumo`` is not imported: the user may have a file or folder of that name."""
    try:
        folder = Path(str(distribution("eclipse-sumo").locate_file("sumo")))
    except PackageNotFoundError:
        return None
    return folder if (folder / "bin").is_dir() else None


@functools.cache
def module(backend: str, gui: bool) -> ModuleType:
    """libsumo or traci. BadInput: it cannot be loaded, or another module of its name is found first."""
    _prepare()
    if backend == "libsumo" and gui:
        raise BadInput("gui=true needs sumo=traci: libsumo has no window")
    if gui and sys.platform == "linux" and not os.environ.get("DISPLAY"):
        raise BadInput("gui=true needs a screen, and DISPLAY is not set: set it, or leave gui out")
    names = ["traci"] if gui else ["libsumo", "traci"] if backend == "auto" else [backend]
    _require_sumos_modules()
    reason: ImportError | None = None
    for name in names:
        try:
            loaded = importlib.import_module(name)
        except ImportError as error:
            reason = reason or error
            continue
        if name == "traci":
            simulator(gui)
        return loaded
    raise BadInput(f"SUMO's Python module {names[0]} cannot be loaded ({reason}): {_INSTALL}") from reason


def in_process(backend: str, gui: bool) -> bool:
    """Whether SUMO runs inside this process, which then has one simulation at a time. BadInput: as of
    ``module``."""
    return module(backend, gui).__name__ == "libsumo"


def free_port() -> int:
    """A port on which SUMO's process can listen."""
    return importlib.import_module("sumolib.miscutils").getFreeSocketPort()


def read_net(path: Path) -> Any:
    """The network of a file, plain or gzipped: a sumolib.net.Net without right of way and signal programs.

    OSError, or any exception of its parser: the file cannot be read as a network.
    """
    _prepare()
    _require_sumos_modules()
    return importlib.import_module("sumolib.net").readNet(
        str(path),
        withInternal=True,
        withPedestrianConnections=True,
        withFoes=False,
        lxml=False,  # the same parser on every machine
    )


def _require_sumos_modules() -> None:
    """BadInput: another module would be imported in place of one of SUMO's. Nothing is executed for it."""
    for name, part in _PARTS.items():
        try:
            spec = find_spec(name)
        except (ImportError, ValueError):
            continue
        places = (spec.submodule_search_locations or ()) if spec else ()
        if spec and not any(Path(place, part).is_file() for place in places):
            found = printable(spec.origin or next(iter(places), name))
            raise BadInput(
                f"{found} would be imported in place of SUMO's Python module {name}: rename it, or take its "
                "folder out of PYTHONPATH"
            )
