"""The ranges of a sweep: for each setting an interval of numbers, or a list of values."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any, NamedTuple

from dials_mpi import settings
from dials_mpi.config import Config
from dials_mpi.config.schema import MAINTENANCE
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.settings.yaml_text import scalar
from dials_mpi.study.plan import mapping

INTERVAL_KEYS = ("low", "high", "log", "step")
MOST_VALUES = 1000
"""The most values of a list, and of an interval in a grid."""


class Interval(NamedTuple):
    """Numbers from low to high, both included: whole ones if the setting is; step: of whole numbers."""

    low: int | float
    high: int | float
    log: bool
    step: int

    @property
    def whole(self) -> bool:
        """Whether the setting is a whole number."""
        return isinstance(self.low, int)

    def drawn(self, value: Any) -> int | float | None:
        """What a sampler draws for this value of the setting; None: it is not in the interval."""
        inside = self.low <= value <= self.high
        return value if inside and not (self.whole and (value - self.low) % self.step) else None

    def word(self, drawn: Any) -> str:
        """The text of the setting's value, as on a command line."""
        return scalar(drawn)

    def all(self) -> list[Any] | None:
        """All values; None if they are real numbers, or too many."""
        values = range(int(self.low), int(self.high) + 1, self.step) if self.whole else range(0)
        return list(values) if 0 < len(values) <= MOST_VALUES else None


class Choices(NamedTuple):
    """A list of values, with the texts that a sampler draws in their place."""

    texts: tuple[str, ...]
    values: tuple[Any, ...]

    def drawn(self, value: Any) -> str | None:
        """What a sampler draws for this value of the setting; None: it is not in the list."""
        return self.texts[self.values.index(value)] if value in self.values else None

    def word(self, drawn: Any) -> str:
        """The text of the setting's value, as on a command line."""
        return str(drawn)

    def all(self) -> list[Any] | None:
        """All values."""
        return list(self.texts)


Range = Interval | Choices


def ranges_of(content: Any, base: Config, where: str) -> dict[str, Range]:
    """The ranges in a mapping from settings. base: the configuration of the other settings.

    BadInput: a key is no setting, an interval makes no sense, or a value is not valid for its setting.
    """
    return {
        key: _range(key, entry, base, f"{where}.{key}" if isinstance(key, str) else where)
        for key, entry in mapping(content, where).items()
    }


def combinations(ranges: Mapping[str, Range], where: str) -> list[dict[str, Any]]:
    """All combinations of values, the last range changing fastest. BadInput: a range has endless values."""
    values = {key: one.all() for key, one in ranges.items()}
    for key, some in values.items():
        if some is None:
            raise BadInput(
                f"{where}.{key} has real numbers, or more than {MOST_VALUES} values, and --sampler is grid: "
                "give a list such as [0.001, 0.01]"
            )
    drawn = itertools.product(*(some or () for some in values.values()))
    return [dict(zip(ranges, one, strict=True)) for one in drawn]


def _range(key: Any, entry: Any, base: Config, where: str) -> Range:
    if not isinstance(key, str) or key == "domain" or key in MAINTENANCE:
        raise BadInput(f"{where}: {shown(key)} is no setting that changes the results of a domain: remove it")
    if isinstance(entry, list):
        return _choices(key, entry, base, where)
    if not isinstance(entry, dict):
        must = "a list of values, or an interval such as {low: 1, high: 8}"
        raise BadInput(f"{where} is {shown(entry)}, but must be {must}")
    return _interval(key, mapping(entry, where, INTERVAL_KEYS, needed=("low", "high")), base, where)


def _choices(key: str, entry: list[Any], base: Config, where: str) -> Choices:
    if not 1 <= len(entry) <= MOST_VALUES:
        raise BadInput(f"{where} has {len(entry)} values, but must have from 1 to {MOST_VALUES}")
    values = tuple(settings.checked_setting(base, key, value, where) for value in entry)
    if any(value in values[:k] for k, value in enumerate(values)):
        raise BadInput(f"{where} is {shown(entry)}, which has a value twice: keep one of the two")
    return Choices(tuple(scalar(value) for value in values), values)


def _interval(key: str, entry: Mapping[str, Any], base: Config, where: str) -> Interval:
    low, high = (settings.checked_setting(base, key, entry[end], f"{where}.{end}") for end in ("low", "high"))
    if type(low) not in (int, float):
        raise BadInput(f"{where}: {key} is no number: give a list of values in place of low and high")
    log, step = entry.get("log", False), entry.get("step", 1)
    if type(log) is not bool:
        raise BadInput(f"{where}.log is {shown(log)}, but must be true or false")
    if type(step) is not int or step < 1 or ("step" in entry and (log or type(low) is float)):
        raise BadInput(
            f"{where}.step is {shown(step)}, but must be a whole number from 1 on, for whole numbers "
            "without log: correct it, or remove it"
        )
    if low > high:
        raise BadInput(
            f"{where}: low is {shown(low)} and high is {shown(high)}, which is less: exchange them"
        )
    if log and low <= 0:
        raise BadInput(f"{where}: low is {shown(low)}, but with log it must be larger than 0")
    return Interval(low, high - (high - low) % step if type(low) is int else high, log, step)
