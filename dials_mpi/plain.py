"""A console that shows text as it is: neither [b] in the name of a folder nor :x: means anything."""

from __future__ import annotations

from typing import Any

from rich.console import Console


class PlainConsole(Console):
    """For text that users, or the writers of domains, have made up."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)
