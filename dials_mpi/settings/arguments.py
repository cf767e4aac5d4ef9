"""A setting whose value is a mapping of plain values, such as the arguments of a class of the user's own."""

from __future__ import annotations

import json
import math
from typing import Any

from dials_mpi.settings.numerals import NUMBER


class Arguments(dict[str, Any]):
    """Keyword arguments: null, truth values, numbers, texts, and lists and mappings of these.

    It must not be changed: it is the default of a setting, and hashable.
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(json.dumps(self, sort_keys=True))


def arguments(value: Any) -> Arguments:
    """The value as Arguments. ValueError: it is no such mapping, or a name is not an identifier."""
    if not isinstance(value, dict) or not all(isinstance(key, str) and key.isidentifier() for key in value):
        raise ValueError
    return Arguments({key: _plain(part) for key, part in value.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, str) and NUMBER.fullmatch(value):
        value = float(value)  # in YAML 1e-4 is a text
    if value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    return value
