"""A console that shows text as it is: neither [b] in the name of a folder nor :x: means anything."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from dials_mpi.core.output import discard

NARROWEST = 20
"""Columns: with fewer a table shows nothing, and with COLUMNS=0 no text is shown at all."""
USUAL = 80


class PlainConsole(Console):
    """For text that users, or the writers of domains, have made up."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if self.width < NARROWEST:
            self.width = USUAL


class LastingConsole(PlainConsole):
    """Of a program that goes on where nothing can be said any more: its reader is gone, or the disk full."""

    def print(self, *objects: Any, **options: Any) -> None:
        """As of rich."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """In place of rich's, which ends the program."""
        self.quiet = True
        discard()
