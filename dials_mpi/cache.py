"""The command ``cache``: what this package keeps between starts: place, sizes, and how to clean it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.table import Table

from dials_mpi.cli import Parser
from dials_mpi.core import cache
from dials_mpi.core.cache_content import KINDS, Cleaned, Content, clean, content
from dials_mpi.core.console import BestEffortConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.jit import code_folder
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable

EXAMPLES = """examples:
  python -m dials_mpi.cache                place and size of the cache
  python -m dials_mpi.cache --clean old    remove machine code that this version does not use
  python -m dials_mpi.cache --clean        remove all that no process uses

All of it is made again where it is needed. XDG_CACHE_HOME=FOLDER moves the cache to another place."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("cache", "Show what is kept between starts, and its size, or remove it.", EXAMPLES)
    parser.add_argument(
        "--clean",
        nargs="?",
        const="all",
        choices=("all", "old"),
        help="remove what no process uses; old: only machine code of other versions and processors",
    )
    options = parser.parse_args(argv)
    try:
        _run(options.clean)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    sys.exit(0)


def _run(which: str | None) -> None:
    """BadInput: there is no place for a cache."""
    place = cache.folder("")
    if place is None:
        raise BadInput(
            "there is no cache, because the home folder is unknown: set XDG_CACHE_HOME to a folder"
        )
    found, out = content(place), BestEffortConsole(soft_wrap=True)
    out.print(f"The cache is {printable(str(place))}")
    if which:
        for line in _said(clean([one for one in found if which == "all" or _is_old(one)])):
            out.print(line)
    elif found:
        out.print(_table(found))
        out.print("To remove it: --clean, or --clean old for the machine code of other versions alone.")
    else:
        out.print("It is empty.")


def _is_old(one: Content) -> bool:
    """Whether it is machine code of another version or processor."""
    return one.kind == "kernels" and one.folder != code_folder()


def _table(found: Sequence[Content]) -> Table:
    table = Table("what", "files", "MB")
    for column in table.columns[1:]:
        column.justify = "right"
    rows: dict[str, list[Content]] = {}
    for one in found:
        about = KINDS.get(one.kind, "others")
        if one.kind == "kernels":
            about += ", of other versions" if _is_old(one) else ", of this version"
        rows.setdefault(about, []).append(one)
    for about, own in rows.items():
        table.add_row(about, f"{sum(one.files for one in own):,}", _megabytes(sum(one.size for one in own)))
    table.add_section()
    table.add_row("all", f"{sum(one.files for one in found):,}", _megabytes(sum(one.size for one in found)))
    return table


def _said(done: Cleaned) -> list[str]:
    lines = [f"{_megabytes(done.removed)} MB removed"]
    if done.in_use:
        lines.append(f"{done.in_use} road networks or demands stay: a running process may be reading them")
    if done.of_others:
        lines.append(f"{done.of_others} folders stay: they belong to other users")
    return lines


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}"


if __name__ == "__main__":
    main()
