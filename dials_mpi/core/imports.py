"""Import a class from outside the package, which a setting names as ``module:Class``."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown


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
        raise BadInput(f"{key} is {shown(name)}, but {module} has no class {printable(qualified)}")
    return found
