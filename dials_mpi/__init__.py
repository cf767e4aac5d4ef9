"""Distributed influence-augmented local simulators (DIALS) as an MPI application and as a library.

    import dials_mpi

    config = dials_mpi.load_config("warehouse/fast", ["seed=1"])
    run = dials_mpi.train(config, output="runs/mine")            # or: run = dials_mpi.open("runs/mine")
    run.evaluations.returns.mean(("episode", "agent"))           # xarray
    actions, state = run.policies[0].act(observations)
    runs = dials_mpi.open_many("runs/warehouse-*")

docs/python.md describes these functions; all of them are imported at their first use.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["BadInput", "Config", "Run", "load_config", "open", "open_many", "train"]

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.config import load as load_config
    from dials_mpi.core.errors import BadInput
    from dials_mpi.results.many import open_many
    from dials_mpi.results.run import Run
    from dials_mpi.train import train_from_python as train

    open = Run.open

_PLACES = {
    "BadInput": ("core.errors", "BadInput"),
    "Config": ("config", "Config"),
    "Run": ("results.run", "Run"),
    "load_config": ("config", "load"),
    "open": ("results.run", "Run.open"),
    "open_many": ("results.many", "open_many"),
    "train": ("train", ""),  # the module, which can be called
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'dials_mpi' has no attribute {name!r}")
    module, place = _PLACES[name]
    found: Any = import_module(f"dials_mpi.{module}")
    for part in filter(None, place.split(".")):
        found = getattr(found, part)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if sys.argv[:1] == ["-m"] and not sys.flags.safe_path:
    # Started as `python -m dials_mpi.NAME`: the working folder, which Python has put first, comes last, so
    # that no file in it, such as a numpy.py or a sumo.py, is imported in place of a library.
    sys.path.append(sys.path.pop(0))
