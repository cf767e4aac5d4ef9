"""How numbers are written, in YAML and on command lines: only what everybody reads as the same number is one.

YAML 1.1, as PyYAML has it, takes 010 for eight, 1:30 for ninety and no for false. Such forms are told apart
here from numbers, with what is probably meant by them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_DIGITS = r"(?:0|[1-9][0-9]*|[1-9][0-9]{0,2}(?:_[0-9]{3})+)"  # underscores part thousands alone

WHOLE = re.compile(rf"[-+]?{_DIGITS}")
"""12, -3 and 8_000_000."""

POINTED = re.compile(rf"[-+]?(?:{_DIGITS}\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
"""Numbers with a decimal point: 0.5, .5, 1. and 2.5e-4."""

NUMBER = re.compile(rf"{WHOLE.pattern}(?:[eE][-+]?[0-9]+)?|{POINTED.pattern}")
"""Any of these, and 1e-4."""

LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?")
OTHER_BASE = re.compile(r"[-+]?0(?:[xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)")
BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
UNDERSCORES = re.compile(
    r"[-+]?(?=[0-9_.]*_)(?:[0-9][0-9_]*(?:\.[0-9_]*(?:[eE][-+]?[0-9]+)?)?|\.[0-9][0-9_]*)"
)
TRUTH = re.compile(r"(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)")

LONGEST = 60
"""Characters of a number whose value a message gives."""


class Odd(NamedTuple):
    """A way of writing that not everybody reads alike: what it is, and what may be meant by it."""

    why: str
    meant: tuple[str, ...]

    @property
    def remedy(self) -> str:
        """What to write: '10 (or 8)'."""
        first, *others = self.meant
        return f"write {first}" + (f" (or {' or '.join(others)})" if others else "")


def odd(text: str) -> Odd | None:
    """What is odd about a text that may be meant as a number, or as true or false; None for any other."""
    if WHOLE.fullmatch(text) or POINTED.fullmatch(text):
        return None
    for form, explain in _FORMS:
        if form.fullmatch(text):
            return explain(text) if len(text) <= LONGEST else Odd("is very long", ("it in digits alone",))
    return None


def _leading_zero(text: str) -> Odd:
    decimal = _plain(text)
    if not re.fullmatch(r"-?[0-7]+", decimal) or len(decimal.lstrip("-")) < 2:
        return Odd("has a leading zero", (decimal,))
    octal = str(int(decimal, 8))
    return Odd(f"has a leading zero, by which YAML 1.1 reads it as octal {octal}", (decimal, octal))


def _other_base(text: str) -> Odd:
    names = {"x": "hexadecimal", "o": "octal", "b": "binary"}
    number = text.replace("_", "")
    try:
        meant = str(int(number, 0))
    except ValueError:  # nothing but underscores
        meant = "it in digits"
    return Odd(f"is {names[text.lstrip('-+')[1].lower()]}", (meant,))


def _base_60(text: str) -> Odd:
    value: float = 0
    for part in text.lstrip("-+").replace("_", "").split(":"):
        value = 60 * value + (float(part) if "." in part else int(part))
    meant = f"{'-' * text.startswith('-')}{value}"
    return Odd(f"is {meant} to YAML 1.1, which reads it in base 60", (meant, f"'{text}' in quotes"))


def _underscores(text: str) -> Odd:
    return Odd("has underscores that do not part thousands", (_plain(text),))


def _truth(text: str) -> Odd:
    meant = "true" if text.lower() in ("yes", "on") else "false"
    return Odd(f"is {meant} to YAML 1.1 and a text to others", (meant, f"'{text}' in quotes"))


def _plain(text: str) -> str:
    """A decimal number without underscores, leading zeros and a plus."""
    digits = text.replace("_", "").lstrip("-+").lstrip("0")
    zero = "" if digits[:1].isdigit() else "0"
    return f"{'-' * text.startswith('-')}{zero}{digits}"


_FORMS = (
    (LEADING_ZERO, _leading_zero),
    (OTHER_BASE, _other_base),
    (BASE_60, _base_60),
    (UNDERSCORES, _underscores),
    (TRUTH, _truth),
)
