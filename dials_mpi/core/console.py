"""Consoles that print text unchanged: [b] in the name of a folder is no markup, and :x: no emoji."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from dials_mpi.core.output import discard

NARROWEST = 20
"""Columns: with fewer a table shows nothing, and with COLUMNS=0 no text is shown at all."""
USUAL = 80


class PlainConsole(Console):
    """A console for text from users and from domains."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
        if self.width < NARROWEST:
            self.width = USUAL


class LastingConsole(PlainConsole):
    """A console that ignores errors of its output, so that the program continues without it.

    The reader of a pipe may have ended, or the disk of a log may be full.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does; after an error print nothing more."""
        try:
            super().print(*objects, **options)
        except OSError:
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Drop all further output; rich would end the program here."""
        self.quiet = True
        discard()
