"""What the command lines have in common: one sentence and exit code 2 for bad input, from root alone."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from dials_mpi.core.errors import BadInput, refuse
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.text import printable, shown
from dials_mpi.parallel.communicator import Communicator
from dials_mpi.settings import numerals


class Parser(argparse.ArgumentParser):
    """An argument parser that every rank may run: all come to the same result, only root speaks.

    alone: the program is one process; what else a launcher has started leaves at once, without a word.
    """

    def __init__(self, program: str, about: str, epilog: str, alone: bool = True) -> None:
        self._alone = alone
        super().__init__(
            prog=f"python -m dials_mpi.{program}",
            description=about,
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As of argparse, with the user's home for a ~ that the shell has left."""
        if self._alone and not launched_as_root():
            sys.exit(0)
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([_at_home(text) for text in given], namespace)

    def _print_message(self, message: str, file: object = None) -> None:
        if launched_as_root():
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Refuse the command line."""
        if launched_as_root():
            refuse(f"{printable(message[:500])}; see {self.prog} --help")
        sys.exit(2)


def word(text: str) -> str:
    """What an option is given: not nothing, as of a variable that a job script forgot to set."""
    if not text:
        raise argparse.ArgumentTypeError("is empty, give a value or leave the option out")
    return text


def add_unchecked(parser: argparse.ArgumentParser) -> None:
    """The option of programs that read runs."""
    parser.add_argument(
        "--unchecked", action="store_true", help="read a run whose files another program has changed, too"
    )


def _at_home(text: str) -> str:
    """An argument ~/x or --option=~/x with the user's home in it; shells leave the second as it is."""
    option, equals, value = text.partition("=")
    if option.startswith("--") and value.startswith("~"):
        return option + equals + os.path.expanduser(value)
    return os.path.expanduser(text)


def integer(text: str) -> int:
    """What an option for a whole number is given, as settings are written: 010 is refused, it may be 8."""
    return int(_numeral(text, numerals.INTEGER, "a whole number"))


def real(text: str) -> float:
    """What an option for a number is given; neither infinity nor NaN is one."""
    return float(_numeral(text, numerals.NUMBER, "a number"))


def _numeral(text: str, form: re.Pattern[str], kind: str) -> str:
    if form.fullmatch(text) and len(text) <= numerals.MAX_LENGTH:
        return text
    found = numerals.ambiguity(text)
    remedy = f"{found.why}: {found.remedy}" if found else f"give {kind}"
    raise argparse.ArgumentTypeError(f"is {shown(text)}, {'which ' * bool(found)}{remedy}")


def agreed(comm: Communicator, decide: Callable[[], Any]) -> Any:
    """What root decides before anything else happens on any rank, on every rank.

    It is the exit code, on every rank as well, where ``decide`` raises BadInput, which root reads out.
    """
    decision = None
    if comm.is_root:
        try:
            decision = decide()
        except BadInput as refusal:
            decision = refuse(refusal)
    return comm.broadcast(decision)
