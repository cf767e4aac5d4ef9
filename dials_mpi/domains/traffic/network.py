"""Road networks: copies of a grid of signalised junctions, built with netconvert and cached.

One lane per direction; every vehicle drives straight ahead from its entry edge to the opposite side. The
copies of a network are not connected: side-by-side episodes of the whole system are copies of its grid, local
regions are copies of a grid of their junctions, by default one junction ("tiles").
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

from dials_mpi.core import cache, first_start
from dials_mpi.domains.sumo import installation
from dials_mpi.domains.traffic import vehicles

SIDES = ("west", "south", "east", "north")
"""The side of a junction from which an incoming edge comes, in the order of the observation."""

LINKS = ("north", "east", "south", "west")
"""The side from which each link comes, in the order of the letters in a signal's state."""

PHASES = ("GrGr", "yryr", "rGrG", "ryry")
"""The states of a signal in their cycle, in the order of LINKS: green for north and south, yellow after it,
green for west and east, yellow after it."""

ACTUATED = "actuated"
"""The name of SUMO's actuated program."""
ACTUATED_PHASES = tuple((state, 31, 8, 45) if "G" in state else (state, 6, 3, 6) for state in PHASES)
"""Its phases: (state, duration, shortest and longest duration), seconds."""
ACTUATED_PARAMETERS = {"max-gap": "3.0", "detector-gap": "0.8", "show-detectors": "false"}

FILES = ("net.xml", "routes.xml", "actuated.xml")
"""What SUMO reads: the network, the vehicles' routes and the actuated programs."""

_OPTIONS = ("--no-turnarounds", "--no-warnings")

HEADING = {"west": (0, 1), "south": (-1, 0), "east": (0, -1), "north": (1, 0)}
"""(Rows, columns) by which a vehicle that comes from this side moves at a junction."""


@dataclass(frozen=True)
class Network:
    """``copies`` of a grid of rows x columns junctions, junctions in row-major order, copy after copy.

    edge_length: of every edge, metres; speed_limit: m/s.
    """

    rows: int
    columns: int
    copies: int
    edge_length: float
    speed_limit: float

    @cached_property
    def _positions(self) -> list[tuple[int, int, int]]:
        """(Copy, row, column) of every junction."""
        return [(k, r, c) for k in range(self.copies) for r in range(self.rows) for c in range(self.columns)]

    @property
    def junctions(self) -> list[str]:
        """Their names, [copies x rows x columns]."""
        return [f"{k}_{r}_{c}" for k, r, c in self._positions]

    @property
    def lanes(self) -> list[str]:
        """The incoming lanes of every junction in the order of SIDES, [junctions x 4]."""
        return [f"{junction}_{side}_0" for junction in self.junctions for side in SIDES]

    @property
    def entry_edges(self) -> list[tuple[str, int, int]]:
        """The edges on which vehicles enter one copy: side, and row and column of the junction, of each."""
        return [
            (side, r, c)
            for _, r, c in self._positions[: self.rows * self.columns]
            for side in SIDES
            if not self._inside(*_behind(side, r, c))
        ]

    def entry_mask(self) -> np.ndarray:
        """Which incoming edges of one copy are entry edges: bool [rows x columns, 4]."""
        entry_edges = set(self.entry_edges)
        positions = self._positions[: self.rows * self.columns]
        return np.array([[(side, r, c) in entry_edges for side in SIDES] for _, r, c in positions])

    def entry_indices(self) -> np.ndarray:
        """The indices of the W entry edges among one copy's incoming edges [rows x columns x 4]: int [W]."""
        return np.flatnonzero(self.entry_mask())

    def route(self, copy: int, side: str, row: int, column: int) -> str:
        """The name of the route that begins on this entry edge."""
        return f"{copy}_{row}_{column}_{side}"

    def route_length(self, side: str) -> int:
        """The number of junctions on a route that begins on this side."""
        return self.rows if side in ("south", "north") else self.columns

    def files(self) -> tuple[Path, Path, Path]:
        """The paths of FILES in the cache; they are built if they are missing or damaged.

        If the cache cannot be used, they are in a temporary folder until this process ends. BadInput: SUMO is
        missing. RuntimeError, OSError: they cannot be built there either.
        """
        key = cache.key(installation.version(), _fingerprint(self, tuple(vehicles.CAR.items())))
        temporary = _temporary.get(key)
        if temporary and Path(temporary.name, "net.xml").is_file():
            return _files(Path(temporary.name))
        folder = cache.folder(f"networks/{key}")
        if folder:
            cache.hold(folder)
        if folder and all(cache.read(folder / name) is not None for name in FILES):
            return _files(folder)
        with first_start.making("building the road network", brief=True):
            built = _build(*self._documents())
        if folder and all(cache.write(folder / name, content) for name, content in built.items()):
            cache.hold(folder)
            return _files(folder)
        return _files(_write_temporary(key, built))

    def _documents(self) -> tuple[dict[str, str], dict[str, str]]:
        """The input of netconvert, by kind, and the other files that SUMO reads, by name."""
        parts = {"nodes": self._nodes(), "edges": self._edges(), "connections": self._connections()}
        return {kind: _document(kind, lines) for kind, lines in parts.items()}, {
            "routes.xml": _document("additional", self._routes()),
            "actuated.xml": _document("additional", self._actuated()),
        }

    def _inside(self, row: int, column: int) -> bool:
        return 0 <= row < self.rows and 0 <= column < self.columns

    def _nodes(self) -> Iterator[str]:
        """Junctions and the dead ends around them; copies are side by side with a gap."""
        pitch = self.edge_length
        for k, r, c in self._positions:
            x0 = k * (self.columns + 2) * pitch
            yield _element("node", id=f"{k}_{r}_{c}", x=x0 + c * pitch, y=-r * pitch, type="traffic_light")
            for side in SIDES:
                row, column = _behind(side, r, c)
                if not self._inside(row, column):
                    end = f"{k}_{r}_{c}_{side}_end"
                    yield _element("node", id=end, x=x0 + column * pitch, y=-row * pitch, type="dead_end")

    def _edges(self) -> Iterator[str]:
        """The incoming edges of every junction, named after it and the side, and the exit edges."""
        common = {"numLanes": 1, "speed": self.speed_limit, "length": self.edge_length}
        for k, r, c in self._positions:
            for side in SIDES:
                row, column = _behind(side, r, c)
                inside = self._inside(row, column)
                behind = f"{k}_{row}_{column}" if inside else f"{k}_{r}_{c}_{side}_end"
                here = f"{k}_{r}_{c}"
                yield _element("edge", id=f"{here}_{side}", **{"from": behind, "to": here}, **common)
                if not inside:
                    yield _element("edge", id=f"{here}_{side}_out", **{"from": here, "to": behind}, **common)

    def _connections(self) -> Iterator[str]:
        for k, r, c in self._positions:
            for side in SIDES:
                onward = self._onward(k, side, r, c)
                ends = {"from": f"{k}_{r}_{c}_{side}", "to": onward}
                yield _element("connection", **ends, fromLane=0, toLane=0)

    def _routes(self) -> Iterator[str]:
        yield _element("vType", **vehicles.CAR, maxSpeed=self.speed_limit)
        for k in range(self.copies):
            for side, r, c in self.entry_edges:
                edges, row, column = [f"{k}_{r}_{c}_{side}"], r, c
                while self._inside(row, column):
                    edges.append(self._onward(k, side, row, column))
                    row, column = _ahead(side, row, column)
                yield _element("route", id=self.route(k, side, r, c), edges=" ".join(edges))

    def _actuated(self) -> Iterator[str]:
        for junction in self.junctions:
            yield f'<tlLogic id="{junction}" type="actuated" programID="{ACTUATED}" offset="0">'
            for key, value in ACTUATED_PARAMETERS.items():
                yield _element("param", key=key, value=value)
            for state, duration, shortest, longest in ACTUATED_PHASES:
                yield _element("phase", duration=duration, minDur=shortest, maxDur=longest, state=state)
            yield "</tlLogic>"

    def _onward(self, copy: int, side: str, row: int, column: int) -> str:
        """The edge after the junction, for a vehicle from ``side``."""
        ahead = _ahead(side, row, column)
        if not self._inside(*ahead):
            return f"{copy}_{row}_{column}_{_OPPOSITE[side]}_out"
        return f"{copy}_{ahead[0]}_{ahead[1]}_{side}"


@functools.lru_cache(maxsize=64)
def _fingerprint(network: Network, car: tuple[tuple[str, str], ...]) -> str:
    """A key of all its documents, with this vehicle type. Making them takes a quarter of SUMO's start."""
    plain, final = network._documents()
    return cache.key(*plain.values(), *final.values(), *_OPTIONS)


_OPPOSITE = {"west": "east", "south": "north", "east": "west", "north": "south"}


def _ahead(side: str, row: int, column: int) -> tuple[int, int]:
    """Row and column after a junction, for a vehicle from ``side``."""
    down, right = HEADING[side]
    return row + down, column + right


def _behind(side: str, row: int, column: int) -> tuple[int, int]:
    """Row and column before a junction, for a vehicle from ``side``."""
    down, right = HEADING[side]
    return row - down, column - right


def _element(tag: str, **attributes: object) -> str:
    pairs = (f"{name}={quoteattr(str(value))}" for name, value in attributes.items())
    return f"<{tag} {' '.join(pairs)}/>"


def _document(root: str, lines: Iterator[str]) -> str:
    return f"<{root}>\n" + "\n".join(lines) + f"\n</{root}>\n"


def _files(folder: Path) -> tuple[Path, Path, Path]:
    net, routes, actuated = (folder / name for name in FILES)
    return net, routes, actuated


def _build(plain: Mapping[str, str], final: Mapping[str, str]) -> dict[str, bytes]:
    """The content of FILES, from the input of netconvert and the other files of SUMO."""
    with TemporaryDirectory(prefix="dials_mpi-") as work:
        for kind, text in plain.items():
            Path(work, f"{kind}.xml").write_text(text)
        sources = [f"--{kind[:-1]}-files={work}/{kind}.xml" for kind in plain]
        installation.netconvert([*sources, f"--output-file={work}/net.xml", *_OPTIONS])
        net = Path(work, "net.xml").read_bytes()
    return {"net.xml": net} | {name: text.encode() for name, text in final.items()}


_temporary: dict[str, TemporaryDirectory[str]] = {}
"""Folders of networks that could not be written to the cache; they are removed when the process ends."""


def _write_temporary(key: str, built: Mapping[str, bytes]) -> Path:
    _temporary[key] = TemporaryDirectory(prefix="dials_mpi-")
    folder = Path(_temporary[key].name)
    for name, content in built.items():
        (folder / name).write_bytes(content)
    return folder
