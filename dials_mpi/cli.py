"""What the command lines share: a parser for all ranks, refusals by root alone, the choice of a run."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from dials_mpi.core import shell
from dials_mpi.core.errors import REFUSED, BadInput, refuse
from dials_mpi.core.launchers import launched_as_root
from dials_mpi.core.text import printable, shown
from dials_mpi.settings import numerals

if TYPE_CHECKING:
    from dials_mpi.parallel.communicator import Communicator
    from dials_mpi.results.run import Run

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """An argument parser that every rank may run: all get the same result, only root prints.

    Usage and examples name the program as it was started, ``python -m dials_mpi.NAME`` or ``dials NAME``.
    alone: the program needs one process; all others that a launcher has started exit at once, silently.
    """

    def __init__(self, program: str, about: str, epilog: str, alone: bool = True) -> None:
        self._alone = alone
        super().__init__(
            prog=shell.program(program),
            description=about,
            epilog=epilog.replace("python -m dials_mpi.", shell.program("")),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, with the user's home directory for each ~ that the shell has not replaced."""
        if self._alone and not launched_as_root():
            sys.exit(0)
        given = sys.argv[1:] if args is None else args
        return super().parse_known_args([_at_home(text) for text in given], namespace)

    def _print_message(self, message: str, file: Any = None) -> None:
        if launched_as_root():
            super()._print_message(message, file)

    def error(self, message: str) -> NoReturn:
        """Print on root why the command line is refused, and exit with code 2."""
        if launched_as_root():
            refuse(f"{printable(message[:500])}; see {self.prog} --help")
        sys.exit(2)


def word(text: str) -> str:
    """The type of an option's text, which must not be empty, as an unset variable of a job script is."""
    if not text:
        raise argparse.ArgumentTypeError("is empty, give a value or leave the option out")
    return text


def add_unchecked(parser: argparse.ArgumentParser) -> None:
    """Add ``--unchecked``, the option of all commands that read runs."""
    parser.add_argument(
        "--unchecked", action="store_true", help="also read files that another program has changed"
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add ``--checkpoint``, the option of commands that use trained networks."""
    parser.add_argument(
        "--checkpoint",
        metavar="WHICH",
        type=word,
        help="use the networks of this checkpoint: best, newest or its steps (default: the run's end)",
    )


def add_run_arguments(parser: argparse.ArgumentParser, several: bool = False) -> None:
    """Add the arguments that ``run_of`` and ``policy_of`` read; several: that ``policies_of`` reads."""
    choices = "random, hand-coded or all" if several else "random or hand-coded"
    parser.add_argument(
        "arguments",
        nargs="*",
        metavar="DIR | key=value",
        help="a run, or settings; with a run: those without effect on results",
    )
    parser.add_argument("--config", metavar="FILE", help="a configuration in place of a run")
    parser.add_argument("--policy", type=word, help=f"trained (default for a run), {choices}")
    add_checkpoint(parser)
    add_unchecked(parser)


def run_of(options: argparse.Namespace) -> Run:
    """The run whose directory is given, or the configuration alone. BadInput: it cannot be read."""
    from dials_mpi.results.run import Run  # loads h5py and numba, which other commands do not need

    directories, overrides = runs_and_settings(options.arguments)
    if options.config or not directories:
        if directories:
            raise BadInput(f"{printable(directories[0])} is given beside --config: give one of them")
        if not options.config and not overrides:
            raise BadInput("neither a run nor a configuration is given: give its directory, or --config FILE")
        run = Run.of_config(options.config, overrides)
    else:
        require_no_settings(directories[0], directories[1:])
        run = Run.open(directories[0], options.checkpoint, options.unchecked, overrides)
    _ = run.domain  # raises BadInput where something is missing
    return run


def policies_of(options: argparse.Namespace, run: Run) -> tuple[str, ...]:
    """The names of the joint policies: all of them for ``--policy all``, else that of ``policy_of``.

    BadInput: as of ``policy_of``.
    """
    if options.policy != "all":
        return (policy_of(options, run, also=("all",)),)
    if options.checkpoint is not None and not run.file:
        raise BadInput("--checkpoint is given, and a configuration has none: leave it out")
    return run.joint_policies


def policy_of(
    options: argparse.Namespace, run: Run, predictors: bool = False, also: Sequence[str] = ()
) -> str:
    """The name of the joint policy: ``--policy``; without it that of a run is trained.

    predictors: the run's predictors are used whatever the policy is. also: what else may be chosen, for the
    message. BadInput: there is no such policy, or ``--checkpoint`` is given and no network of a run is used.
    """
    name: str | None = options.policy or ("trained" if run.file else None)
    if name not in run.joint_policies:
        raise BadInput(
            (f"--policy is {printable(name)}" if name else "--policy is not given")
            + f": choose {', '.join((*run.joint_policies, *also))}"
            + ("" if run.file else " (trained needs the directory of a run)")
        )
    if name != "trained" and options.checkpoint is not None and not (run.file and predictors):
        raise BadInput(f"--checkpoint is given, and the policy {name} has none: leave one of them out")
    return name


def require_no_settings(directory: str, words: Sequence[str]) -> None:
    """BadInput: there are further words on the command line beside the directory of a run."""
    if words:
        raise BadInput(
            f"{printable(words[0])} is given beside the run {printable(directory)}, whose configuration is "
            "fixed: leave it out"
        )


def runs_and_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words that name directories, and the settings ``key=value``; a run's name may contain = as well."""
    directories = [word for word in words if "=" not in word or is_run(word)]
    return directories, [word for word in words if word not in directories]


def is_run(word: str) -> bool:
    """Whether a word of the command line is the directory of a run, or the name of one that comes with the
    package."""
    from dials_mpi.storage.shipped import NAME, located

    return os.path.exists(located(word) / NAME)


def _at_home(text: str) -> str:
    """An argument ~/x or --option=~/x with the user's home directory; shells do not replace the second."""
    option, equals, value = text.partition("=")
    if option.startswith("--") and value.startswith("~"):
        return option + equals + os.path.expanduser(value)
    return os.path.expanduser(text)


def integer(text: str) -> int:
    """The type of an option that is a whole number, written as in settings: 010 is refused, it may mean 8."""
    return int(_numeral(text, numerals.INTEGER, "a whole number"))


def real(text: str) -> float:
    """The type of an option that is a number, neither infinite nor NaN, written as in settings."""
    return float(_numeral(text, numerals.NUMBER, "a number"))


def _numeral(text: str, form: re.Pattern[str], kind: str) -> str:
    if form.fullmatch(text) and len(text) <= numerals.MAX_LENGTH:
        return text
    found = numerals.ambiguity(text)
    remedy = f"{found.why}: {found.remedy}" if found else f"give {kind}"
    raise argparse.ArgumentTypeError(f"is {shown(text)}, {'which ' * bool(found)}{remedy}")


def agreed(comm: Communicator, decide: Callable[[], T]) -> T | int:
    """What ``decide`` returns on root, on every rank.

    Where ``decide`` raises BadInput, root prints it, and all ranks get the exit code instead.
    """
    try:
        return decided(comm, decide)
    except BadInput as refusal:
        return refuse(refusal) if comm.is_root else REFUSED


def decided(comm: Communicator, decide: Callable[[], T]) -> T:
    """What ``decide`` returns on root, on every rank. BadInput, on every rank: ``decide`` raised it."""
    decision: T | BadInput | None = None
    if comm.is_root:
        try:
            decision = decide()
        except BadInput as refusal:
            decision = refusal
    shared: T | BadInput = comm.broadcast(decision)
    if isinstance(shared, BadInput):
        raise shared
    return shared
