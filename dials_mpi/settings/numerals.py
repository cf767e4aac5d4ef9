"""Notations of numbers in YAML and on command lines; ambiguous ones are rejected.

YAML 1.1, as PyYAML implements it, reads 010 as eight, 1:30 as ninety and no as false. Such texts are not
numbers here; ``ambiguity`` gives the reason and the values that may be meant.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIGITS = r"(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+)"  # underscores may only separate thousands

INTEGER = re.compile(rf"[-+]?{_DIGITS}")
"""12, -3 and 8_000_000."""

DECIMAL = re.compile(rf"[-+]?(?:{_DIGITS}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""Numbers with a decimal point: 0.5, .5, 1. and 2.5e-4."""

NUMBER = re.compile(rf"{INTEGER.pattern}(?:[eE][-+]?[0-9]+)?|{DECIMAL.pattern}")
"""INTEGER, DECIMAL, and an integer with an exponent, such as 1e-4."""

LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
OTHER_BASE = re.compile(r"[-+]?0(?:[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)")
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
UNDERSCORES = re.compile(
    r"[-+]?(?=[0-9_.]*_)(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?)?|\.[0-9][0-9_]*)"
)
BOOLEAN = re.compile(r"(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)")

MAX_LENGTH = 60
"""Messages give the value of numbers up to this many characters."""


class Ambiguity(NamedTuple):
    """Why a text is ambiguous, and the values that may be meant."""

    why: str
    meant: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """What to write instead: 'write 10 (or 8)'."""
        first, *others = self.meant
        return f"write {first}" + (f" (or {' or '.join(others)})" if others else "")


def ambiguity(text: str) -> Ambiguity | None:
    """The ambiguity of a text that may be meant as a number or as a truth value; None for all other texts."""
    if INTEGER.fullmatch(text) or DECIMAL.fullmatch(text):
        return None
    explain = next((explain for form, explain in _FORMS if form.fullmatch(text)), None)
    if explain is None or len(text) <= MAX_LENGTH:
        return explain and explain(text)
    return Ambiguity("is very long", ("it with digits only",))


def _leading_zero(text: str) -> Ambiguity:
    decimal = _plain(text)
    if not re.fullmatch(r"-?[0-7]+", decimal) or len(decimal.lstrip("-")) < 2:
        return Ambiguity("has a leading zero", (decimal,))
    octal = str(int(decimal, 8))
    return Ambiguity(f"has a leading zero, so YAML 1.1 reads it as octal {octal}", (decimal, octal))


def _other_base(text: str) -> Ambiguity:
    names = {"x": "hexadecimal", "o": "octal", "b": "binary"}
    number = text.replace("_", "")
    try:
        meant = str(int(number, 0))
    except ValueError:  # only underscores
        meant = "it in digits"
    return Ambiguity(f"is {names[text.lstrip('-+')[1].lower()]}", (meant,))


def _base_60(text: str) -> Ambiguity:
    value: float = 0
    for part in text.lstrip("-+").replace("_", "").split(":"):
        value = 60 * value + (float(part) if "." in part else int(part))
    meant = f"{'-' * text.startswith('-')}{value}"
    return Ambiguity(f"is {meant} in YAML 1.1, which reads it in base 60", (meant, f"'{text}' in quotes"))


def _underscores(text: str) -> Ambiguity:
    return Ambiguity("has underscores that do not separate thousands", (_plain(text),))


def _boolean(text: str) -> Ambiguity:
    meant = "true" if text.lower() in ("yes", "on") else "false"
    return Ambiguity(f"is {meant} in YAML 1.1 and a text elsewhere", (meant, f"'{text}' in quotes"))


def _plain(text: str) -> str:
    """A decimal number without underscores, leading zeros and plus sign."""
    digits = text.replace("_", "").lstrip("-+").lstrip("0")
    zero = "" if digits[:1].isdigit() else "0"
    return f"{'-' * text.startswith('-')}{zero}{digits}"


_FORMS = (
    (LEADING_ZERO, _leading_zero),
    (OTHER_BASE, _other_base),
    (BASE_60, _base_60),
    (UNDERSCORES, _underscores),
    (BOOLEAN, _boolean),
)
