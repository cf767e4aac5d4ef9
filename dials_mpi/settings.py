"""From text to dataclass: typed, bounded settings with one-sentence errors. Knows nothing of the project."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def setting(
    default: Any,
    about: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with its documentation and the values it may take (bounds are inclusive).

    about: one line: what it is, its unit, its source in the paper.
    """
    metadata = {"about": about, "low": low, "high": high, "choices": choices}
    return field(default=default, metadata=metadata)
