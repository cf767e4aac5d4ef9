"""The device on which this process computes networks in PyTorch; this module does without torch."""

from __future__ import annotations

from typing import NamedTuple


class Device(NamedTuple):
    """name: of the setting ``learning.device``; place: the number of this rank among those of its machine."""

    name: str = "cpu"
    place: int = 0


_chosen = [Device()]


def choose(device: Device) -> None:
    """Networks that are built from now on compute there."""
    _chosen[0] = device


def chosen() -> Device:
    """Where networks compute that are built now."""
    return _chosen[0]


def require(name: str) -> None:
    """BadInput: this machine has no such device."""
    if name != Device().name:
        from dials_mpi.learning.torch_modules import device  # loads torch

        device(Device(name))
