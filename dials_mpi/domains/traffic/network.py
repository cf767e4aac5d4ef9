"""Road networks: copies of a grid of signalised crossings, built with netconvert and cached.

One lane per direction; every vehicle drives straight from where it enters to the opposite side. The copies
of a network are not connected: side-by-side episodes of the whole system are copies of its grid, local
regions are copies of a grid of their crossings, by default one ("tiles").
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.sax.saxutils import quoteattr

import numpy as np

from dials_mpi.core import cache
from dials_mpi.domains.traffic.sumo import installation
from dials_mpi.domains.traffic.sumo import simulation as sumo

SIDES = ("west", "south", "east", "north")
"""The side of a crossing from which an incoming edge comes, in the order of the observation."""

LINKS = ("north", "east", "south", "west")
"""The side of each link in the state of a light."""

PHASES = ("GrGr", "yryr", "rGrG", "ryry")
"""The lights in their cycle, in the order of LINKS: green one way and yellow after it, green the other way
and yellow after it."""

ACTUATED = "actuated"
"""SUMO's own program: (state, duration, shortest, longest) of its phases, in seconds, and its parameters."""
ACTUATED_PHASES = tuple((state, 31, 8, 45) if "G" in state else (state, 6, 3, 6) for state in PHASES)
ACTUATED_PARAMETERS = {"max-gap": "3.0", "detector-gap": "0.8", "show-detectors": "false"}

FILES = ("net.xml", "routes.xml", "actuated.xml")
"""What SUMO reads: the network, the vehicles' routes and the actuated programs."""

_OPTIONS = ("--no-turnarounds", "--no-warnings")

HEADING = {"west": (0, 1), "south": (-1, 0), "east": (0, -1), "north": (1, 0)}
"""(Rows, columns) by which a vehicle that came from this side gets on at a crossing."""


@dataclass(frozen=True)
class Network:
    """``copies`` of a grid of rows x columns crossings, crossings in row-major order, copy after copy.

    edge_length: of every edge, metres; speed_limit: m/s.
    """

    rows: int
    columns: int
    copies: int
    edge_length: float
    speed_limit: float

    @cached_property
    def _places(self) -> list[tuple[int, int, int]]:
        """(Copy, row, column) of every crossing."""
        return [(k, r, c) for k in range(self.copies) for r in range(self.rows) for c in range(self.columns)]

    @property
    def crossings(self) -> list[str]:
        """Their names, [copies x rows x columns]."""
        return [f"{k}_{r}_{c}" for k, r, c in self._places]

    @property
    def lanes(self) -> list[str]:
        """The incoming lanes of every crossing in the order of SIDES, [crossings x 4]."""
        return [f"{crossing}_{side}_0" for crossing in self.crossings for side in SIDES]

    @property
    def entries(self) -> list[tuple[str, int, int]]:
        """The ways into one copy: (side, row, column) of the crossings that are entered from outside."""
        return [
            (side, r, c)
            for _, r, c in self._places[: self.rows * self.columns]
            for side in SIDES
            if not self._inside(*_behind(side, r, c))
        ]

    def outside(self) -> np.ndarray:
        """Which edges of one copy begin outside: bool [rows x columns, 4]."""
        ways = set(self.entries)
        places = self._places[: self.rows * self.columns]
        return np.array([[(side, r, c) in ways for side in SIDES] for _, r, c in places])

    def ways(self) -> np.ndarray:
        """The same by their numbers among one copy's incoming edges, [crossings x 4]: int [W]."""
        return np.flatnonzero(self.outside())

    def route(self, copy: int, side: str, row: int, column: int) -> str:
        """The name of the route of a vehicle that enters there."""
        return f"{copy}_{row}_{column}_{side}"

    def route_length(self, side: str) -> int:
        """How many crossings a vehicle passes that enters from this side."""
        return self.rows if side in ("south", "north") else self.columns

    def files(self) -> tuple[Path, Path, Path]:
        """FILES: those of the cache, built where they are missing or damaged.

        Where the cache cannot be used they are in a temporary folder, as long as this process runs. BadInput:
        SUMO is missing. RuntimeError, OSError: they cannot be built there either.
        """
        key = cache.key(installation.version(), _fingerprint(self, tuple(sumo.CAR.items())))
        own = _temporary.get(key)
        if own and Path(own.name, "net.xml").is_file():
            return _files(Path(own.name))
        folder = cache.folder(f"networks/{key}")
        if folder and all(cache.read(folder / name) is not None for name in FILES):
            return _files(folder)
        built = _build(*self._documents())
        if folder and all(cache.write(folder / name, content) for name, content in built.items()):
            return _files(folder)
        return _files(_keep(key, built))

    def _documents(self) -> tuple[dict[str, str], dict[str, str]]:
        """What netconvert reads, by kind, and what SUMO reads beside the network, by file name."""
        parts = {"nodes": self._nodes(), "edges": self._edges(), "connections": self._connections()}
        return {kind: _document(kind, lines) for kind, lines in parts.items()}, {
            "routes.xml": _document("additional", self._routes()),
            "actuated.xml": _document("additional", self._actuated()),
        }

    def _inside(self, row: int, column: int) -> bool:
        return 0 <= row < self.rows and 0 <= column < self.columns

    def _nodes(self) -> Iterator[str]:
        """Crossings and the ends of the roads around them, copies side by side with a gap."""
        pitch = self.edge_length
        for k, r, c in self._places:
            x0 = k * (self.columns + 2) * pitch
            yield _element("node", id=f"{k}_{r}_{c}", x=x0 + c * pitch, y=-r * pitch, type="traffic_light")
            for side in SIDES:
                row, column = _behind(side, r, c)
                if not self._inside(row, column):
                    end = f"{k}_{r}_{c}_{side}_end"
                    yield _element("node", id=end, x=x0 + column * pitch, y=-row * pitch, type="dead_end")

    def _edges(self) -> Iterator[str]:
        """Every crossing's incoming edges, named after it and the side, and the edges that leave the grid."""
        common = {"numLanes": 1, "speed": self.speed_limit, "length": self.edge_length}
        for k, r, c in self._places:
            for side in SIDES:
                row, column = _behind(side, r, c)
                inside = self._inside(row, column)
                behind = f"{k}_{row}_{column}" if inside else f"{k}_{r}_{c}_{side}_end"
                here = f"{k}_{r}_{c}"
                yield _element("edge", id=f"{here}_{side}", **{"from": behind, "to": here}, **common)
                if not inside:
                    yield _element("edge", id=f"{here}_{side}_out", **{"from": here, "to": behind}, **common)

    def _connections(self) -> Iterator[str]:
        for k, r, c in self._places:
            for side in SIDES:
                onward = self._onward(k, side, r, c)
                ends = {"from": f"{k}_{r}_{c}_{side}", "to": onward}
                yield _element("connection", **ends, fromLane=0, toLane=0)

    def _routes(self) -> Iterator[str]:
        yield _element("vType", **sumo.CAR, maxSpeed=self.speed_limit)
        for k in range(self.copies):
            for side, r, c in self.entries:
                edges, row, column = [f"{k}_{r}_{c}_{side}"], r, c
                while self._inside(row, column):
                    edges.append(self._onward(k, side, row, column))
                    row, column = _ahead(side, row, column)
                yield _element("route", id=self.route(k, side, r, c), edges=" ".join(edges))

    def _actuated(self) -> Iterator[str]:
        for crossing in self.crossings:
            yield f'<tlLogic id="{crossing}" type="actuated" programID="{ACTUATED}" offset="0">'
            for key, value in ACTUATED_PARAMETERS.items():
                yield _element("param", key=key, value=value)
            for state, duration, shortest, longest in ACTUATED_PHASES:
                yield _element("phase", duration=duration, minDur=shortest, maxDur=longest, state=state)
            yield "</tlLogic>"

    def _onward(self, copy: int, side: str, row: int, column: int) -> str:
        """The edge that a vehicle from ``side`` takes after the crossing."""
        ahead = _ahead(side, row, column)
        if not self._inside(*ahead):
            return f"{copy}_{row}_{column}_{_OPPOSITE[side]}_out"
        return f"{copy}_{ahead[0]}_{ahead[1]}_{side}"


@functools.lru_cache(maxsize=64)
def _fingerprint(network: Network, car: tuple[tuple[str, str], ...]) -> str:
    """Of all its documents, with this vehicle type; to make them takes a quarter of a start of SUMO."""
    plain, final = network._documents()
    return cache.key(*plain.values(), *final.values(), *_OPTIONS)


_OPPOSITE = {"west": "east", "south": "north", "east": "west", "north": "south"}


def _ahead(side: str, row: int, column: int) -> tuple[int, int]:
    """The place after a crossing for a vehicle that came from ``side``."""
    down, right = HEADING[side]
    return row + down, column + right


def _behind(side: str, row: int, column: int) -> tuple[int, int]:
    """The place before a crossing for a vehicle that comes from ``side``."""
    down, right = HEADING[side]
    return row - down, column - right


def _element(tag: str, **attributes: object) -> str:
    pairs = (f"{name}={quoteattr(str(value))}" for name, value in attributes.items())
    return f"<{tag} {' '.join(pairs)}/>"


def _document(root: str, lines: Iterator[str]) -> str:
    return f"<{root}>\n" + "\n".join(lines) + f"\n</{root}>\n"


def vehicle(copy: int, number: int) -> str:
    """The name of a vehicle."""
    return f"{copy}.{number}"


def copy_of(vehicle: str) -> int:
    """The copy of the network in which a vehicle drives."""
    return int(vehicle.partition(".")[0])


def _files(folder: Path) -> tuple[Path, Path, Path]:
    net, routes, actuated = (folder / name for name in FILES)
    return net, routes, actuated


def _build(plain: Mapping[str, str], final: Mapping[str, str]) -> dict[str, bytes]:
    """The content of FILES, of what netconvert reads and of what only SUMO reads."""
    with TemporaryDirectory(prefix="dials_mpi-") as work:
        for kind, text in plain.items():
            Path(work, f"{kind}.xml").write_text(text)
        sources = [f"--{kind[:-1]}-files={work}/{kind}.xml" for kind in plain]
        installation.netconvert([*sources, f"--output-file={work}/net.xml", *_OPTIONS])
        net = Path(work, "net.xml").read_bytes()
    return {"net.xml": net} | {name: text.encode() for name, text in final.items()}


_temporary: dict[str, TemporaryDirectory[str]] = {}
"""Of networks that could not be kept in the cache; they are removed when the process ends."""


def _keep(key: str, built: Mapping[str, bytes]) -> Path:
    _temporary[key] = TemporaryDirectory(prefix="dials_mpi-")
    folder = Path(_temporary[key].name)
    for name, content in built.items():
        (folder / name).write_bytes(content)
    return folder
