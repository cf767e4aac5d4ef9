"""Consoles that print text unchanged: [b] in the name of a folder is not markup, :x: is not an emoji."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from dials_mpi.core.output import discard_output

MIN_WIDTH = 20
"""Columns. In a narrower console a table is empty, and with COLUMNS=0 no text is shown at all."""
DEFAULT_WIDTH = 80
"""Columns of a console that reports a smaller width than MIN_WIDTH."""


class PlainConsole(Console):
    """A console for text from users and from domains."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if self.width < MIN_WIDTH:
            self.width = DEFAULT_WIDTH


class BestEffortConsole(PlainConsole):
    """A console that stops printing after an output error, so that the program continues.

    Such errors: the reader of a pipe has exited, or the disk of a log is full.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; print nothing after an error."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Discard all further output; rich would exit the program here."""
        self.quiet = True
        discard_output()


@contextmanager
def progress_bar(what: str, number: int) -> Iterator[Callable[[int], None]]:
    """A bar with the time that is left, on stderr at a terminal; yields the function that advances it."""
    from rich.progress import Progress

    console = PlainConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=number)
        yield lambda more: bar.update(task, advance=more)
