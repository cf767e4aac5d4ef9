"""The sinks that the setting ``sinks`` names: csv, tensorboard, or a class as ``module:Class``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import import_subclass, is_place
from dials_mpi.core.text import shown
from dials_mpi.run.sinks.base import Sink


def find(names: Sequence[str]) -> list[type[Sink]]:
    """The class of each name. BadInput: a name is unknown or there twice, or a package is missing."""
    for k, name in enumerate(names):
        if name in names[:k]:
            raise BadInput(f"sinks has {shown(name)} twice: name it once")
    return [_find(name) for name in names]


def create(names: Sequence[str]) -> list[Sink]:
    """A sink of each name. BadInput as of ``find``."""
    return [sink() for sink in find(names)]


def _find(name: str) -> type[Sink]:
    if name in KNOWN:
        return KNOWN[name]()
    if not is_place(name):
        raise BadInput(
            f"sinks has {shown(name)}: choose from {', '.join(KNOWN)}, or name a class of your own as "
            "module:Class"
        )
    return import_subclass("a sink", name, Sink, "dials_mpi.run.sinks.Sink")


def _csv() -> type[Sink]:
    from dials_mpi.run.sinks.csv import CsvSink

    return CsvSink


def _tensorboard() -> type[Sink]:
    try:
        from dials_mpi.run.sinks.tensorboard import TensorBoardSink
    except ImportError as error:
        raise BadInput(
            f"sinks has 'tensorboard', but its package cannot be imported ({error}): "
            "pip install 'dials_mpi[tensorboard]'"
        ) from error
    return TensorBoardSink


KNOWN: dict[str, Callable[[], type[Sink]]] = {"csv": _csv, "tensorboard": _tensorboard}
"""The built-in sinks by name; they are imported when they are used."""
