"""All commands in one program: ``dials NAME ...``, the same as ``python -m dials_mpi.NAME ...``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pkgutil import resolve_name
from typing import NoReturn

# Nothing here may load numpy: the bench sets its number of threads first.
from dials_mpi import __version__
from dials_mpi.core.errors import DONE, REFUSED, refuse
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.output import command_line
from dials_mpi.core.text import shown

COMMANDS = {
    "train": "Train the agents of a networked system with DIALS.",
    "evaluate": "Play joint policies on the global simulator.",
    "report": "Draw pictures, tables and a page of runs, finished or not.",
    "study": "Train a grid of systems, methods and seeds, one run after another.",
    "watch": "Draw episodes of a system, or the predictions of a region's influence predictor.",
    "influence": "Fit influence predictors to the kept data of a run.",
    "export": "Write a run's trained policies for use without this package.",
    "archive": "Copy the results of runs, without or with their networks.",
    "configs": "List the configurations that come with the package, or copy one.",
    "check": "Check that a domain keeps its contract, and measure its simulators.",
    "fidelity": "Compare the local simulators with the global one: traffic and cities.",
    "bench": "Measure training speed, and compare it with the machine's limits.",
    "cache": "Show what is kept between starts, and its size, or remove it.",
}
"""Each command with the first line of its help."""

PACKAGES = ("report", "study", "watch", "influence", "export", "check", "bench", "fidelity")
"""The commands whose ``main`` is in a module ``__main__``."""

HELP = """usage: dials COMMAND ...

{commands}

dials COMMAND --help describes a command; dials --version prints the version.
dials COMMAND ... and python -m dials_mpi.COMMAND ... are the same, with mpirun, too:
  mpirun -n 3 dials train --config configs/warehouse/fast.yaml"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line of ``dials`` and of ``python -m dials_mpi``."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] not in COMMANDS:
        _answer(words)
    _append_working_folder()
    name, *rest = words
    resolve_name(f"dials_mpi.{name}{'.__main__' * (name in PACKAGES)}:main")(rest)
    raise AssertionError(f"{name} has returned")


@command_line
def _answer(words: Sequence[str]) -> NoReturn:
    """Without a command: print help or version, or why the words are refused, and exit; only root prints.

    Without any word the help is printed, and the exit code is still that of bad input.
    """
    asked = bool(words) and words[0] in ("-h", "--help", "-V", "--version")
    if not launched_as_root():
        sys.exit(DONE if asked else REFUSED)
    if asked or not words:
        version = asked and words[0] in ("--version", "-V")
        lines = "\n".join(f"  {name:<10}{about}" for name, about in COMMANDS.items())
        print(f"dials_mpi {__version__}" if version else HELP.format(commands=lines), flush=True)
        sys.exit(DONE if asked else refuse("no command is given: give one of these"))
    near = get_close_matches(words[0], COMMANDS, n=1)
    remedy = f"the nearest is {near[0]}" if near else f"give one of {', '.join(COMMANDS)}"
    sys.exit(refuse(f"there is no command {shown(words[0])}: {remedy}; see dials --help"))


def _append_working_folder() -> None:
    """Find domains and sinks in the working folder, as under ``python -m`` (``dials_mpi/__init__.py``)."""
    with suppress(OSError):  # the folder was removed
        if not sys.flags.safe_path and os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


if __name__ == "__main__":
    main()
