"""Names of the dimensions of run files and checkpoints: HDF5's dimension scales, in the way of netCDF-4.

xarray and programs that read netCDF find the names, and the numbers along a dimension as coordinates. Those
of the whole system are in the root group; a group has its own ``env_steps``, which is one of its series, and
its own ``rank``, because sessions can have different numbers of ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Set

import h5py
import numpy as np

SYSTEM = ("agent", "region", "episode")
"""Dimensions that have the same length in all groups."""

CLOCKS = ("wall", "CPU")
"""The coordinate of the dimension ``clock``."""

GROUPS: dict[str, tuple[str, ...]] = {
    "evaluation": ("env_steps",),
    "evaluation_statistics": ("env_steps", "episode"),
    "influence": ("env_steps", "region"),
    "training": ("env_steps", "agent"),
    "timing": ("env_steps", "rank", "clock"),
    "events": ("env_steps", "rank"),
    "placement": ("region",),
    "map": ("agent",),
    "memory": ("rank",),
    "reference": ("episode", "agent"),
    "reference_statistics": ("episode",),
}
"""The dimensions of a group's datasets; one with fewer axes has the first of them."""

NETWORKS = {"policy": "agent", "predictor": "region", "earlier_policy": "agent"}
"""Groups of networks, and whose they are."""

OF_NETWORKS = {
    **dict.fromkeys(("parameters", "first_moment", "second_moment"), ("parameter",)),
    "adam_steps": ("counter",),
    "learner": ("byte",),
}
"""The dimensions of a network's datasets after that of its owner."""

DATASETS: dict[str, tuple[str, ...]] = {
    "evaluation/returns": ("env_steps", "episode", "agent"),
    "evaluation/cross_entropy": ("env_steps", "region"),
    "unrecorded": ("rank", "cost"),
    **{f"{kind}/tables": ("table",) for kind in NETWORKS},
    **{f"{kind}/table_of": (owner,) for kind, owner in NETWORKS.items()},
    **{
        f"{kind}/{name}": (owner, *others)
        for kind, owner in NETWORKS.items()
        for name, others in OF_NETWORKS.items()
    },
}
"""Those of datasets that differ from their group."""

WALL_TIME = ("evaluation/returns", "evaluation/cross_entropy")
"""Datasets along the time of ``evaluation/wall_time`` too: the CF convention's attribute ``coordinates``."""

CF_UNITS = {"s": "s", "kg": "kg", "byte": "byte"}
"""Units that the CF convention knows, by the attribute ``unit``; figures in other units are counts to it."""

GROWING = ("env_steps", "rank")
"""Dimensions whose length can change: with each row, and from one session to the next."""

UNNUMBERED = ("parameter", "table", "counter", "byte", "cost")
"""Dimensions without coordinates: their scales have a length and no content."""

NETCDF_NAME = "This is a netCDF dimension but not a netCDF variable.{:10d}"
"""The name by which netCDF-4 recognizes such a scale, with its length."""

COPIES = {"evaluation_statistics/env_steps": "evaluation/env_steps"}
"""Coordinates of groups without a series of their own."""

ATTRIBUTES = ("CLASS", "NAME", "REFERENCE_LIST", "DIMENSION_LIST")
"""Attributes by which HDF5 connects datasets and scales. They refer to places in the file, so that a copy of
a dataset in another file must not have them."""


def is_coordinate(name: str) -> bool:
    """Whether a dataset of this name is made by ``label``; a series is not."""
    group, _, last = name.strip("/").rpartition("/")
    if name.strip("/") in COPIES:
        return True
    made = (*SYSTEM, "rank", "cost") if not group else ("rank", "clock", *UNNUMBERED)
    return last in made and group != "placement"


def label(file: h5py.File, groups: Set[str] | None = None) -> None:
    """Name the dimensions of all datasets, with coordinates of the right lengths, and their units.

    groups: those that were changed since the file was labelled. None: all.
    """
    named = [(dataset, _names(dataset)) for dataset in _datasets(file, groups)]
    lengths: dict[str, int] = {}
    for dataset, names in named:
        for name, length in zip(names, dataset.shape, strict=False):  # names may be empty
            lengths[name] = max(length, lengths.get(name, 0))
    for name, length in lengths.items():
        shared = groups is not None and name in SYSTEM and name in file  # with groups that are not looked at
        _make(file, name, max(length, len(file[name])) if shared else length)
    for dataset, names in named:
        _attach(file, dataset, names)
        _describe(dataset)


def remove(file: h5py.File, name: str) -> None:
    """Remove a dataset, and what refers to it."""
    dataset = file[name]
    if dataset.is_scale:
        for other in _datasets(file):
            for axis in other.dims:
                if dataset in axis.values():
                    axis.detach_scale(dataset)
    else:
        for axis in dataset.dims:
            for scale in axis.values():
                axis.detach_scale(scale)
    del file[name]


def _datasets(file: h5py.File, groups: Set[str] | None = None) -> Iterator[h5py.Dataset]:
    """The datasets that have named dimensions, at any depth; groups: in these only."""
    for name in (*GROUPS, *NETWORKS, "unrecorded"):
        thing = file.get(name) if groups is None or name in groups else None
        if isinstance(thing, h5py.Group):
            yield from within(thing)
        elif isinstance(thing, h5py.Dataset):
            yield thing


def within(group: h5py.Group) -> Iterator[h5py.Dataset]:
    """The datasets in a group, at any depth, coordinates included."""
    # visititems is not used: with a damaged dataset it ends in a segmentation fault.
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue  # a link that another program has made; its target may not exist
        thing = group[name]
        if isinstance(thing, h5py.Group):
            yield from within(thing)
        elif isinstance(thing, h5py.Dataset):
            yield thing


def names_of(name: str, axes: int) -> tuple[str, ...]:
    """The names of a dataset's axes; empty where they are not known."""
    own = name.strip("/")
    names = DATASETS.get(own) or GROUPS.get(own.partition("/")[0], ())[:axes]
    return names if len(names) == axes else ()


def units_of(dataset: h5py.Dataset) -> dict[str, str]:
    """The CF convention's attribute ``units`` of a dataset that has a unit."""
    return {"units": CF_UNITS.get(dataset.attrs["unit"], "1")} if "unit" in dataset.attrs else {}


def _names(dataset: h5py.Dataset) -> tuple[str, ...]:
    """The paths of the coordinates of a dataset; empty for a coordinate, and where they are not known."""
    group, _, last = dataset.name.strip("/").partition("/")
    names = names_of(dataset.name, dataset.ndim)
    if is_coordinate(dataset.name) or names[:1] == (last,):
        return ()
    return tuple(one if one in SYSTEM or not last else f"{group}/{one}" for one in names)


def _make(file: h5py.File, name: str, length: int) -> None:
    """Make the coordinate, with the length."""
    last = name.rpartition("/")[2]
    if last in UNNUMBERED:
        if name not in file:
            file.create_dataset(name, (length,), ">f4", chunks=(length,))
            file[name].make_scale(NETCDF_NAME.format(length))
        return
    if is_coordinate(name):
        values = _values(file, name, length)
        if name not in file:
            growing = {"maxshape": (None,), "chunks": (max(64, length),)} if last in GROWING else {}
            file.create_dataset(name, data=values, **growing)
        elif len(file[name]) != length:
            file[name].resize(length, axis=0)
            file[name][...] = values
    if name in file and not file[name].is_scale:
        file[name].make_scale(last)


def _values(file: h5py.File, name: str, length: int) -> np.ndarray:
    if name.endswith("/clock"):
        return np.array(CLOCKS[:length], dtype=h5py.string_dtype())
    if name in COPIES and COPIES[name] in file:
        steps: np.ndarray = file[COPIES[name]][:length]
        return steps
    return np.arange(length)


def _attach(file: h5py.File, dataset: h5py.Dataset, names: tuple[str, ...]) -> None:
    for axis, name in zip(dataset.dims, names, strict=False):
        if not len(axis) and name in file:
            axis.attach_scale(file[name])


def _describe(dataset: h5py.Dataset) -> None:
    if "units" not in dataset.attrs:
        dataset.attrs.update(units_of(dataset))
    if dataset.name.strip("/") in WALL_TIME and "coordinates" not in dataset.attrs:
        dataset.attrs["coordinates"] = "wall_time"
