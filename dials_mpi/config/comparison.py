"""Which settings of a run may change when it continues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dials_mpi.config import Config
from dials_mpi.core.text import shown


def differences(before: Config, config: Config) -> str:
    """The changes that are not allowed, as text.

    Allowed are changes of settings that do not affect results, and a larger total_steps.
    """
    old, new = before.decisive(), config.decisive()
    if new["total_steps"] >= old["total_steps"]:
        new["total_steps"] = old["total_steps"]
    changed = [key for key in {**old, **new} if old.get(key, ...) != new.get(key, ...)]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return ", ".join(_difference(key, old, new) for key in changed[:5]) + more


def _difference(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    was, now = (shown(values[key]) if key in values else "missing" for values in (old, new))
    return f"{key} was {was} and is {now}"
