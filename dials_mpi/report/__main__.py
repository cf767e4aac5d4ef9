"""The command ``report``."""

from __future__ import annotations

import math
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import NoReturn

from dials_mpi.cli import Parser, add_unchecked, integer, word
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable, shown
from dials_mpi.report import group_runs, notes, report
from dials_mpi.report.contents import paired_table
from dials_mpi.report.figures import Size
from dials_mpi.report.folders import runs_in
from dials_mpi.report.groups import Group
from dials_mpi.report.marl_eval import inequalities
from dials_mpi.report.runtimes import CLOCKS
from dials_mpi.report.tables import summary_table, text_table, to_read
from dials_mpi.results.style import FONT_SIZE

MOST_STEPS = 10**12
LEAST_SIZE, MOST_SIZE = 1, 50
LEAST_FONT, MOST_FONT = 3, 50

EXAMPLES = """examples:
  python -m dials_mpi.report runs/warehouse-4-dials-seed0 --out figures
  python -m dials_mpi.report runs/warehouse-* --out figures           several methods, sizes, seeds and F
  python -m dials_mpi.report runs/tables/* --out figures --steps 4000000 --clock cpu
  python -m dials_mpi.report runs/cologne8-* runs/cologne1-* --out figures --statistic delay
  python -m dials_mpi.report runs/figure-3-warehouse --out figures --size 6x4 --font-size 9    a whole study
  python -m dials_mpi.report runs/warehouse-* --html page.html        one page with everything
  python -m dials_mpi.report runs/warehouse-* --marl-eval runs.json   evaluations for marl-eval

All runs must be of one domain; those that differ only in their seed are averaged. Pictures (.png and .svg):
  learning-curves     returns against steps, by number of agents, with runtimes (Figures 5 and 6 of the paper)
  overview            learning curves, final returns and runtimes by number of agents (Figure 3)
  refresh-intervals   returns and cross-entropies against the runtime (Figures 4, 7 and 8)
  cross-entropy       of the influence predictors, against steps
  regions             a map of the regions' returns
Tables (tables.md, tables.tex, and each as CSV): returns (interquartile means), paired (differences between
methods, seed by seed), improvement (probabilities), statistics (of the domain), runtimes (Tables 1 and 2),
memory (Table 3); summary.csv has a row per run, curves.csv per evaluation.
With --statistic, curves and final values are of that statistic, and controllers.csv compares the methods with
hand-coded policies.
--html writes one file that needs no network: curves, maps, tables, settings, times, memory and sessions. It
needs scipy, --out needs matplotlib as well (both: extra report)."""


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("report", "Draw pictures, tables and a page of runs, finished or not.", EXAMPLES)
    parser.add_argument(
        "directories",
        nargs="+",
        metavar="DIR",
        help="the directory of a run, or a folder of runs, such as that of a study",
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=word, help="folder for pictures and tables; created if missing"
    )
    parser.add_argument("--html", metavar="FILE", type=word, help="write everything as one page to FILE")
    parser.add_argument(
        "--marl-eval", metavar="FILE", type=word, help="write the evaluations to FILE, JSON for marl-eval"
    )
    parser.add_argument(
        "--clock",
        choices=list(CLOCKS),
        default="wall",
        help="runtimes in pictures: measured wall-clock time (default), or the CPU time of the slowest rank, "
        "an estimate for one core per rank",
    )
    parser.add_argument(
        "--statistic",
        metavar="NAME",
        type=word,
        help="show this statistic of the domain in place of the return",
    )
    parser.add_argument(
        "--compare",
        nargs="+",
        default=[],
        metavar="FILE",
        help="JSON files of runs of Stable-Baselines3 on sumo-rl, shown beside (docs/studies.md)",
    )
    parser.add_argument(
        "--size", metavar="WxH", type=word, help="width and height of each picture in inches, such as 6x4"
    )
    parser.add_argument("--font-size", metavar="POINTS", type=word, help="of pictures (default 7)")
    parser.add_argument(
        "--steps", type=integer, metavar="N", help="scale the table of runtimes to N steps per agent"
    )
    add_unchecked(parser)
    options = parser.parse_args(argv)
    try:
        if options.steps is not None and not 1 <= options.steps <= MOST_STEPS:
            raise BadInput(f"--steps is {options.steps}: give a number from 1 to {MOST_STEPS}")
        if options.out is options.html is options.marl_eval is None:
            raise BadInput("nothing is to be written: add --out FOLDER, --html FILE or --marl-eval FILE")
        runs, files = report(
            *(options.directories, options.out, options.clock, options.steps, options.unchecked),
            *(options.statistic, options.compare, options.html, options.marl_eval),
            *_look(options),
        )
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    console = PlainConsole()
    if not console.is_terminal:
        console.width = 160
    groups = group_runs(runs)
    console.print(summary_table(runs, groups))
    console.print("return: at the end, ± standard error over episodes; GiB: sum of the ranks' peaks")
    if (compared := paired_table(groups)).rows:
        console.print(text_table(compared.title, to_read(compared.rows)))
    if options.out is not None and all(run.cross_entropy is None for run in runs):
        console.print("no cross-entropy picture: these runs have no influence predictors")
    for note in _notes(options, groups):
        console.print(note, soft_wrap=True)
    for file in files:
        console.print(printable(str(file)), soft_wrap=True)
    sys.exit(0)


def _look(options: Namespace) -> tuple[Size | None, float]:
    """The size and the font size of pictures. BadInput: they are no valid ones, or no picture is drawn."""
    for option, value in (("--size", options.size), ("--font-size", options.font_size)):
        if value is not None and options.out is None:
            raise BadInput(f"{option} is given, and no picture is drawn: add --out FOLDER")
    font_size = FONT_SIZE if options.font_size is None else _number(options.font_size)
    if not LEAST_FONT <= font_size <= MOST_FONT:
        raise BadInput(f"--font-size is {shown(options.font_size)}: give points, {LEAST_FONT} to {MOST_FONT}")
    if options.size is None:
        return None, font_size
    width, height = (_number(part) for part in (options.size.partition("x")[::2]))
    if not all(LEAST_SIZE <= length <= MOST_SIZE for length in (width, height)):
        raise BadInput(
            f"--size is {shown(options.size)}: give width and height in inches, {LEAST_SIZE} to {MOST_SIZE}, "
            "such as 6x4"
        )
    return (width, height), font_size


def _number(text: str) -> float:
    """A plain decimal number; NaN for any other text."""
    return float(text) if re.fullmatch(r"\d{1,4}(\.\d{1,4})?", text, re.ASCII) else math.nan


def _notes(options: Namespace, groups: Sequence[Group]) -> list[str]:
    unequal = inequalities(groups) if options.marl_eval is not None else []
    begun = [
        f"{printable(one)} has no evaluation yet: left out" for one in runs_in(options.directories).begun
    ]
    return [*begun, *notes(groups, options.steps), *unequal]


if __name__ == "__main__":
    main()
