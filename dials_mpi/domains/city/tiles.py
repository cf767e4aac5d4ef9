"""Tiles: the network of one region, cut out of the city's, in several copies.

A tile's signals equal the city's link for link and phase for phase; signals at its rim keep their states,
with gaps where links are missing, so that a recorded state of the city can be shown as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from dials_mpi.core import cache
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import cutting
from dials_mpi.domains.city.net import Net, Signal, read
from dials_mpi.domains.city.regions import RegionPlan
from dials_mpi.domains.city.xml_files import quoted, shown
from dials_mpi.domains.sumo import made_files

_FILE = "tile.net.xml"


@dataclass(frozen=True)
class Tile:
    """A network file with ``copies`` disjoint copies of a region, all at the same place on the map."""

    plan: RegionPlan
    copies: int
    _made: Callable[[], Path]

    @property
    def network(self) -> Path:
        """The file, which is made again if somebody has removed it from the cache."""
        return self._made()

    def name(self, copy: int, original: str) -> str:
        """The name in a copy of an edge, lane, junction or signal of the city."""
        return cutting.name_in_copy(copy, original)


class Cutter:
    """Cuts tiles out of a network, and keeps them in the cache."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self._source = sha256(Path(cutting.__file__).read_bytes()).hexdigest()

    def tile(self, plan: RegionPlan, copies: int) -> Tile:
        """The tile of a region. BadInput, with the signal's name: its links or phases are not the city's."""
        edges = " ".join(sorted(plan.edges))
        key = cache.key(self._source, self._digest, edges, *sorted(plan.signals), str(copies))

        def made() -> Path:
            return made_files.folder(f"tiles/{key}", (_FILE,), lambda: self._make(plan, copies)) / _FILE

        made()
        return Tile(plan, copies, made)

    @cached_property
    def _digest(self) -> str:
        return sha256(self._net.path.read_bytes()).hexdigest()

    @cached_property
    def _sheet(self) -> cutting.Sheet:
        return cutting.read(self._net.path)

    def _make(self, plan: RegionPlan, copies: int) -> dict[str, bytes]:
        part = cutting.cut(self._sheet, plan.edges)
        self._require_equal(plan, cutting.copies(part, 1))
        return {_FILE: cutting.copies(part, copies)}

    def _require_equal(self, plan: RegionPlan, network: bytes) -> None:
        """BadInput: a signal of the region is not the same in this network with one copy."""
        with TemporaryDirectory(prefix="dials_mpi-") as work:
            path = Path(work, _FILE)
            path.write_bytes(network)
            signals = read(path).signals
        for name in plan.signals:
            mine = signals.get(cutting.name_in_copy(0, name))
            difference = _difference(self._net.signals[name], mine) if mine else "it is missing"
            if difference:
                raise BadInput(
                    f"signal {quoted(name)} cannot be cut out of {shown(self._net.path)} ({difference}): "
                    "write the network again with netconvert, or name other signals"
                )


def _difference(city: Signal, tile: Signal) -> str:
    """What differs between a signal in the city and in copy 0 of its tile; "" if nothing does."""
    for index, (links, copied) in enumerate(zip(city.links, tile.links, strict=False)):
        if sorted(_ends(city, index)) != sorted((link.from_lane, link.to_lane) for link in copied):
            return f"link {index} has {len(links)} connections in the city, {len(copied)} in the tile"
    if len(city.links) != len(tile.links):
        return f"{len(city.links)} links in the city, {len(tile.links)} in the tile"
    same = (city.phases, city.offset, city.kind) == (tile.phases, tile.offset, tile.kind)
    return "" if same else "its program differs"


def _ends(signal: Signal, index: int) -> Iterator[tuple[str, str]]:
    """The lanes before and behind a link, by their names in copy 0."""
    for link in signal.links[index]:
        yield cutting.name_in_copy(0, link.from_lane), cutting.name_in_copy(0, link.to_lane)
