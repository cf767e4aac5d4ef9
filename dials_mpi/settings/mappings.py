"""A setting whose value is a mapping of plain values, such as the arguments of a class of the user's own."""

from __future__ import annotations

import math
from typing import Any

from dials_mpi.settings import numerals


class PlainMapping(dict[str, Any]):
    """Texts, numbers, true, false, null, lists and mappings by name.

    Configurations are keys of caches: nobody changes a mapping, and it has a hash.
    """

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))


def plain_mapping(value: Any) -> PlainMapping:
    """The mapping, converted. ValueError: it is none, a name is no identifier, or a number is not finite."""
    if not isinstance(value, dict) or not all(
        isinstance(name, str) and name.isidentifier() for name in value
    ):
        raise ValueError
    return PlainMapping({name: _plain(part) for name, part in value.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return plain_mapping(value)
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, str) and "e" in value.lower() and numerals.NUMBER.fullmatch(value):
        value = float(value)  # in YAML 1e-4 is a text
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError
    return value
