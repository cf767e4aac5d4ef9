"""Which neighbouring signals share a region: the setting ``city.block``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.domains.city.net import Net, Signal

_AUTO = re.compile(r"auto:\s*([1-9][0-9]{0,4})")


def groups(net: Net, block: str) -> list[tuple[str, ...]]:
    """The signals of each region; groups and their signals are in the order of the network's agents.

    block: "": one each; "auto:K": K that are near each other; "a+b, c+d+e": these, the others one each.
    BadInput: no such setting; no signal with a choice of that name; one that is named twice.
    """
    if not block.strip():
        return [(name,) for name in net.agents]
    if block.strip().startswith("auto"):
        return _nearest(net, _size(block.strip()))
    return _listed(net.agents, [part.split("+") for part in block.split(",")])


def _size(block: str) -> int:
    found = _AUTO.fullmatch(block)
    if not found:
        raise BadInput(f"city.block is {shown(block)}: write auto:K, K the number of signals, such as auto:4")
    return int(found[1])


def _nearest(net: Net, size: int) -> list[tuple[str, ...]]:
    """The first signal that is left with those that are left nearest to it, again and again."""
    names = list(net.agents)
    places = np.array([_place(net, net.signals[name]) for name in names])
    left, found = np.arange(len(names)), []
    while len(left):
        distances = np.linalg.norm(places[left] - places[left[0]], axis=1)
        taken = np.argsort(distances, kind="stable")[:size]
        found.append(tuple(names[i] for i in np.sort(left[taken])))
        left = np.delete(left, taken)
    return found


def _place(net: Net, signal: Signal) -> np.ndarray:
    """The middle of a signal's junctions, metres."""
    return np.mean([net.junctions[junction][1] for junction in signal.junctions], axis=0)


def _listed(agents: Mapping[str, Signal], parts: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    order = {name: k for k, name in enumerate(agents)}
    group_of: dict[str, int] = {}
    for number, part in enumerate(parts):
        for name in map(str.strip, part):
            if name not in order:
                raise BadInput(
                    f"city.block names {shown(name)}, which is no signal with two greens or more: take names "
                    "from the import report (python -m dials_mpi.check)"
                )
            if name in group_of:
                raise BadInput(f"city.block names signal {shown(name)} twice: name it once")
            group_of[name] = number
    members: dict[int | str, list[str]] = {}
    for name in order:  # groups in the order of their first signals
        members.setdefault(group_of.get(name, name), []).append(name)
    return [tuple(names) for names in members.values()]
