"""What is compared: settings of the predictors, numbers of samples, lengths of the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from dials_mpi.config import Config, Influence, load_changed
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.settings.yaml_text import parse_value, scalar

SAMPLES, HISTORY = "samples", "history"
"""Keys beside the settings of the predictors: samples per region to fit to, and steps of the history."""

PREFIX = f"{Influence.key}."
MOST = 64
"""The most variants at a time."""


@dataclass(frozen=True)
class Variant:
    """influence: the settings. varied: what tells it from the others, as text by key.

    samples: steps per region to fit to; history: steps that a predictor sees at most, this one included.
    None: all.
    """

    influence: Influence
    varied: Mapping[str, str]
    samples: int | None = None
    history: int | None = None

    @property
    def name(self) -> str:
        """The variant in words."""
        return ", ".join(f"{key.removeprefix(PREFIX)} {value}" for key, value in self.varied.items())


def variants(config: Config, wanted: Sequence[str]) -> list[Variant]:
    """All combinations of ``wanted``, texts such as "influence.architecture=fnn,gru" or "samples=1000,all".

    BadInput: an unknown key, a value that is not valid, or too many combinations.
    """
    axes = dict(_axis(text) for text in wanted)
    if len(axes) < len(wanted):
        raise BadInput("--vary names a key twice: give all its values at once, such as samples=1000,all")
    number = 1
    for values in axes.values():
        number *= len(values)
    if number > MOST:
        raise BadInput(f"--vary gives {number} combinations: give at most {MOST}")
    return [_variant(config, dict(zip(axes, chosen, strict=True))) for chosen in product(*axes.values())]


def _axis(text: str) -> tuple[str, list[Any]]:
    """The key and the values of KEY=VALUE,VALUE; values are written as in a configuration."""
    key, equals, values = text.partition("=")
    if not equals or not values.strip():
        raise BadInput(f"--vary is {shown(text)}: give KEY=VALUE,VALUE, such as {PREFIX}architecture=fnn,gru")
    if key not in (SAMPLES, HISTORY) and not key.startswith(PREFIX):
        raise BadInput(
            f"--vary has the key {shown(key)}: give {SAMPLES}, {HISTORY}, or a setting of the predictors, "
            f"such as {PREFIX}hidden"
        )
    return key, parse_value(f"[{values}]", f"--vary {shown(text)}")


def _variant(config: Config, chosen: Mapping[str, Any]) -> Variant:
    overrides = [f"{key}={scalar(value)}" for key, value in chosen.items() if key.startswith(PREFIX)]
    return Variant(
        load_changed(config, overrides).influence,
        {key: scalar(value) for key, value in chosen.items()},
        _count(chosen, SAMPLES),
        _count(chosen, HISTORY),
    )


def _count(chosen: Mapping[str, Any], key: str) -> int | None:
    value = chosen.get(key, "all")
    if value == "all":
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise BadInput(f"--vary has {key}={shown(str(value))}: give whole numbers from 1, or all")
    return value
