"""The series of a run as xarray datasets with named dimensions and coordinates (extra ``data``).

Names and units are those of the run file (docs/run-file.md).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.storage.dimensions import CLOCKS

if TYPE_CHECKING:
    import pandas
    import xarray

    from dials_mpi.storage.runfile import Labelled, RunFile

NUMBERED = ("agent", "region", "episode", "rank")
"""Dimensions whose coordinate counts from 0."""


def library() -> ModuleType:
    """The module xarray. BadInput: it is not installed."""
    try:
        import xarray
    except ImportError as error:
        raise BadInput(
            "xarray, in which the series of a run come, is not installed: pip install 'dials_mpi[data]'"
        ) from error
    return xarray


def series(file: RunFile, *groups: str) -> xarray.Dataset:
    """The datasets of some groups. BadInput: the run has not written the first of them, or no xarray."""
    xarray, found = library(), file.labelled(*groups)
    if not found:
        raise BadInput(f"{printable(str(file.path))} has no {groups[0]}: the run has not written it")
    coordinates = {
        name: one for name, one in found.items() if name in ("env_steps", "wall_time") and one.dimensions
    }
    variables = {name: one for name, one in found.items() if name not in coordinates}
    return xarray.Dataset(variables, {**_counts(found), **coordinates}, _identity(file))


def references(file: RunFile) -> xarray.Dataset:
    """``returns`` [policy, episode, agent] of the policies that need no training, and the statistics of the
    same episodes, [policy, episode]. BadInput: as of ``series``."""
    xarray, found = library(), file.labelled("reference")
    if not found:
        raise BadInput(f"{printable(str(file.path))} has no references: a run writes them at its end")
    names = list(found)
    figures = {"returns": _stacked(found, names)}
    by_policy = file.labelled("reference_statistics")
    for figure in dict.fromkeys(name.partition("/")[2] for name in by_policy):
        own = {policy: by_policy[f"{policy}/{figure}"] for policy in names}
        figures[figure] = _stacked(own, names)
    return xarray.Dataset(figures, {"policy": names, **_counts(found)}, _identity(file))


def long_form(evaluations: xarray.Dataset) -> pandas.DataFrame:
    """One row for each evaluation, episode and agent; an episode's statistics are repeated for its agents."""
    per_episode = [
        name for name, one in evaluations.data_vars.items() if set(one.dims) <= {*NUMBERED[::2], "env_steps"}
    ]
    return evaluations[per_episode].to_dataframe().reset_index()


def stacked_runs(runs: Mapping[str, xarray.Dataset], labels: Mapping[str, Sequence[Any]]) -> xarray.Dataset:
    """The evaluations of several runs along ``run``; labels: further coordinates of that dimension.

    Where runs have other steps, episodes, agents or figures, the entries that one lacks are NaN.
    """
    xarray = library()
    own = [one.reset_coords("wall_time").drop_attrs(deep=False) for one in runs.values()]
    every = xarray.concat(own, dim="run", join="outer", data_vars="all", coords="minimal", compat="override")
    return every.assign_coords(
        {"run": list(runs), **{name: ("run", list(of)) for name, of in labels.items()}}
    )


def natural(name: str) -> list[Any]:
    """A key that sorts seed2 before seed10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _counts(found: Mapping[str, Labelled]) -> dict[str, Any]:
    """The coordinates of the dimensions that have no series of their own."""
    lengths: dict[str, int] = {}
    for one in found.values():
        lengths |= dict(zip(one.dimensions, one.values.shape, strict=True))
    counted: dict[str, Any] = {name: np.arange(lengths[name]) for name in NUMBERED if name in lengths}
    return counted | ({"clock": list(CLOCKS)} if "clock" in lengths else {})


def _stacked(found: Mapping[str, Labelled], names: Sequence[str]) -> tuple[Any, ...]:
    first = found[names[0]]
    return ("policy", *first.dimensions), np.stack([found[name].values for name in names]), first.attributes


def _identity(file: RunFile) -> dict[str, Any]:
    """Which run it is, as attributes."""
    known = file.attributes()
    return {"run": file.directory.resolve().name} | {
        name: known[name] for name in ("domain", "mode", "seed", "git_commit") if name in known
    }
