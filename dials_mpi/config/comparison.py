"""Which settings of a run may change when it continues, and when it is looked at again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dials_mpi import settings
from dials_mpi.config import Config, load_changed
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown


def differences(before: Config, config: Config) -> str:
    """The changes that are not allowed, as text.

    Allowed are changes of settings that do not affect results, and a larger total_steps.
    """
    old, new = before.decisive(), config.decisive()
    if new["total_steps"] >= old["total_steps"]:
        new["total_steps"] = old["total_steps"]
    return _changes(old, new)


def changed_for_looking(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration of a run with settings that do not affect results, such as ``traffic.gui=true``.

    BadInput: another setting is changed, or one is not valid.
    """
    changed = load_changed(config, overrides)
    free = settings.without_effect(changed)
    old, new = ({k: v for k, v in one.decisive().items() if k not in free} for one in (config, changed))
    difference = _changes(old, new)
    if difference:
        also = f" ({', '.join(sorted(free))})" if free else ""
        raise BadInput(
            f"the settings of a run are fixed, and {difference}: give only settings that do not affect "
            f"results{also}"
        )
    return changed


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    changed = [key for key in {**old, **new} if old.get(key, ...) != new.get(key, ...)]
    more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
    return ", ".join(_difference(key, old, new) for key in changed[:5]) + more


def _difference(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    was, now = (shown(values[key]) if key in values else "missing" for values in (old, new))
    return f"{key} was {was} and is {now}"
