"""The command line of the report."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from rich.console import Console

from dials_mpi.cli import Parser, word
from dials_mpi.errors import BadInput, refuse
from dials_mpi.report import report
from dials_mpi.report.tables import summary_table
from dials_mpi.values import printable

EXAMPLES = """examples:
  python -m dials_mpi.report runs/warehouse-4-dials-seed0 --out figures
  python -m dials_mpi.report runs/warehouse-4-* --out figures       methods, seeds and F side by side

It writes learning-curves.png and .svg, cross-entropy.png and .svg, summary.csv and curves.csv."""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("report", "Draw and tabulate runs, finished or not, from their run files.", EXAMPLES)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the directory of a run")
    parser.add_argument(
        "--out", required=True, metavar="FOLDER", type=word, help="where the files go; made if missing"
    )
    options = parser.parse_args(argv)
    try:
        runs, files = report(options.directories, options.out)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(summary_table(runs))
    console.print("return: at the end, ± standard error over episodes; GiB: the ranks' peaks added up")
    if all(run.cross_entropy is None for run in runs):
        console.print("no cross-entropy picture: these runs have no influence predictors")
    for file in files:
        console.print(printable(str(file)), markup=False, soft_wrap=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
