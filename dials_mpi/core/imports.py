"""Import a class that a setting names as ``module:Class`` or that an installed package registers as an entry
point; find the folder of an installed package."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown

NETWORKS = "dials_mpi.networks"
"""The group of entry points under which installed packages register networks."""


def registered(group: str) -> dict[str, str]:
    """The entry points of installed packages in a group: ``module:Class`` by name."""
    return {entry.name: entry.value for entry in entry_points(group=group)}


def located(name: str, group: str) -> str:
    """``module:Class`` of a name in a group of entry points; the name itself if it is a place or unknown."""
    return name if ":" in name else registered(group).get(name, name)  # looking for these is slow


def is_place(name: str) -> bool:
    """Whether a name has the form ``module:Class``."""
    module, colon, qualified = name.partition(":")
    return bool(colon and module and qualified)


def import_class(key: str, name: str, place: str) -> type:
    """The class at ``place``, ``module:Class``.

    key, name: the setting and its value, for messages. BadInput: there is no such class, or the module
    cannot be imported.
    """
    module, _, qualified = place.partition(":")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        raise BadInput(
            f"{key} is {shown(name)}, but {printable(str(error))}: install its package, or put the "
            "module's folder into PYTHONPATH"
        ) from error
    except Exception as error:  # the module may raise anything
        reason = printable(f"{type(error).__name__}: {error}")[:300]
        raise BadInput(f"{key} is {shown(name)}, but importing {module} fails: {reason}") from error
    for part in qualified.split("."):
        found = getattr(found, part, None)
    if not inspect.isclass(found):
        hint = _similar(module, qualified)
        raise BadInput(f"{key} is {shown(name)}, but {module} has no class {printable(qualified)}{hint}")
    return found


def _similar(module: str, name: str) -> str:
    """A question after the class of a module with a similar name; "" if there is none."""
    classes = [known for known, value in vars(import_module(module)).items() if inspect.isclass(value)]
    near = get_close_matches(name, classes, 1)
    return f": did you mean {near[0]}?" if near else ""


def import_subclass(key: str, name: str, base: type, public: str) -> type:
    """The class that a setting names as ``module:Class``, derived from ``base``.

    key: the setting, public: where users find the base, for messages. BadInput: as in ``import_class``, or it
    is not derived from the base.
    """
    found = import_class(key, name, name)
    if not issubclass(found, base):
        qualified = name.partition(":")[2]
        raise BadInput(f"{key} is {shown(name)}, but {qualified} is not derived from {public}: derive it")
    return found


def package_folder(name: str) -> Path | None:
    """The folder of an installed top-level package, which is not imported; None: it is not installed."""
    spec = find_spec(name)
    places = (spec.submodule_search_locations or ()) if spec else ()
    return next((Path(place) for place in places), None)
