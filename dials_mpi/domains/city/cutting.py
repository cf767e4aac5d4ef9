"""Cut a part out of a SUMO network, and write several copies of it into one network.

What is kept stays as it is in the file: lanes, their lengths and speeds, the links of signals and their
indices, programs, and the right of way between the links that remain. netconvert is not used, because it
computes the junctions anew when it cuts: lanes become longer or shorter, and right of way changes.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, tostring

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown
from dials_mpi.domains.city.xml_files import elements

_MARK = "\ue000"
"""Stands for the copy in names, until the copies are written."""

_NAMES = {
    "edge": ("id", "from", "to", "bidi", "crossingEdges"),
    "lane": ("id",),
    "neigh": ("lane",),
    "junction": ("id", "incLanes", "intLanes"),
    "connection": ("from", "to", "via", "tl"),
    "tlLogic": ("id",),
    "roundabout": ("nodes", "edges"),
}
"""The attributes that contain names, or lists of names."""


def name_in_copy(index: int | str, name: str) -> str:
    """The name of an edge, lane, junction or signal in a copy; names inside junctions begin with a colon."""
    return f":{index}/{name[1:]}" if name.startswith(":") else f"{index}/{name}"


class Sheet:
    """The elements of a network file by name, so that each cut touches only what it keeps.

    leaving: connections by the edge that they leave, with their place in the file; at: roads by junction.
    """

    def __init__(self, net: Element) -> None:
        self.net = net
        self.edges = _by_name(net, "edge")
        self.junctions = _by_name(net, "junction")
        self.types = _by_name(net, "type")
        self.leaving: dict[str, list[tuple[int, Element]]] = {}
        for place, connection in enumerate(net.iter("connection")):
            self.leaving.setdefault(connection.get("from", ""), []).append((place, connection))
        self.at: dict[str, list[str]] = {}
        for name, edge in self.edges.items():
            for junction in _ends(edge):
                self.at.setdefault(junction, []).append(name)
        self.inner = {name: name[1:].rpartition("_")[0] for name in self.edges if name.startswith(":")}
        self.footpaths: dict[str, list[str]] = {}
        for name, junction in self.inner.items():
            if self.function(name) in ("crossing", "walkingarea"):
                self.footpaths.setdefault(junction, []).append(name)

    def function(self, edge: str) -> str:
        """SUMO's word for what an edge is for; "" for a road."""
        return self.edges[edge].get("function", "") if edge in self.edges else ""

    def links(self, lane: str) -> list[Element]:
        """The connections that leave a lane, in the order of the file."""
        edge, _, index = lane.rpartition("_")
        return [link for _, link in self.leaving.get(edge, ()) if link.get("fromLane") == index]


def read(path: Path) -> Sheet:
    """A network file, plain or gzipped. BadInput: it is not complete XML."""
    top, *content = elements(path)
    top.extend(content)
    return Sheet(top)


def cut(sheet: Sheet, roads: Collection[str]) -> Element:
    """The part of a network with these roads, their junctions and the signals there.

    BadInput: the links of a junction do not match its rules of priority.
    """
    return _Cut(sheet, roads).result()


def copies(part: Element, number: int) -> bytes:
    """A network file with this number of disjoint copies of a network, at the same place."""
    marked = copy.deepcopy(part)
    for element in marked.iter():
        for key in _NAMES.get(element.tag, ()):
            if element.get(key):
                names = element.get(key, "").split(" ")
                element.set(key, " ".join(name_in_copy(_MARK, name) for name in names))
    sections: dict[str, list[str]] = {}
    for element in marked:
        sections.setdefault(element.tag, []).append(tostring(element, "unicode"))
    head = tostring(Element(part.tag, part.attrib), "unicode").removesuffix("/>").rstrip()
    text = [f"{head}>\n"]
    for tag, parts in sections.items():
        section = "".join(parts)
        times = number if tag in _NAMES else 1
        text += (section.replace(_MARK, str(index)) for index in range(times))
    return "".join([*text, "</net>\n"]).encode()


class _Cut:
    """One cut: which edges, lanes and connections are kept."""

    def __init__(self, sheet: Sheet, roads: Collection[str]) -> None:
        self._sheet = sheet
        self._junctions = {end for name in roads for end in _ends(sheet.edges[name])}
        self._whole = {name for name in self._junctions if set(sheet.at[name]) <= set(roads)}
        self._kept = {*roads, *(path for name in self._whole for path in sheet.footpaths.get(name, ()))}
        self._connections = self._kept_connections()
        self._inner = {via for _, link in self._connections for via in self._ways(link)}
        self._kept |= {lane.rpartition("_")[0] for lane in self._inner}
        self._connections += [
            (place, link)
            for edge in {lane.rpartition("_")[0] for lane in self._inner}
            for place, link in sheet.leaving.get(edge, ())
            if f"{edge}_{link.get('fromLane')}" in self._inner
        ]
        self._lanes = {_name(lane) for edge in self._kept for lane in sheet.edges[edge].iter("lane")}

    def result(self) -> Element:
        """A network; its elements are in the order of the file."""
        result = Element(self._sheet.net.tag, self._sheet.net.attrib)
        result.extend(self._sheet.net.findall("location"))
        types = {self._sheet.edges[name].get("type") for name in self._kept}
        result.extend(element for name, element in self._sheet.types.items() if name in types)
        result.extend([self._edge(edge) for name, edge in self._sheet.edges.items() if name in self._kept])
        signals = {link.get("tl") for _, link in self._connections} - {None}
        result.extend(light for light in self._sheet.net.iter("tlLogic") if _name(light) in signals)
        junctions = {*self._junctions, *self._inner}
        # Lists: Element.extend hides what is raised inside a generator.
        result.extend([self._junction(j) for name, j in self._sheet.junctions.items() if name in junctions])
        result.extend(link for _, link in sorted(self._connections, key=lambda pair: pair[0]))
        result.extend(r for r in self._sheet.net.iter("roundabout") if self._has_roundabout(r))
        return result

    def _kept_connections(self) -> list[tuple[int, Element]]:
        """The connections between edges that are kept, before those inside junctions are known."""
        found = (pair for name in self._kept for pair in self._sheet.leaving.get(name, ()))
        return [(place, link) for place, link in found if link.get("to") in self._kept]

    def _ways(self, link: Element) -> list[str]:
        """The lanes inside the junction, over which a connection leads."""
        ways: list[str] = []
        via = link.get("via")
        while via and via not in ways:
            if via.rpartition("_")[0] not in self._sheet.edges:
                raise BadInput(
                    f"a connection of edge {shown(link.get('from'))} leads over lane {shown(via)}, which the "
                    "network does not have: write the network again with netconvert"
                )
            ways.append(via)
            onward = self._sheet.links(via)
            via = onward[0].get("via") if onward else None
        return ways

    def _edge(self, edge: Element) -> Element:
        edge = copy.deepcopy(edge)
        if edge.get("bidi") not in self._kept:
            edge.attrib.pop("bidi", None)
        for lane in edge.iter("lane"):
            for neighbour in [n for n in lane.iter("neigh") if n.get("lane") not in self._lanes]:
                lane.remove(neighbour)
        return edge

    def _junction(self, junction: Element) -> Element:
        if _name(junction) in self._whole:
            return junction
        result = Element("junction", junction.attrib)
        for key in ("incLanes", "intLanes"):
            lanes = junction.get(key, "").split()
            result.set(key, " ".join(lane for lane in lanes if lane in self._lanes))
        result.extend(self._rules(junction))
        if junction.get("type") != "internal" and not len(result):
            result.set("type", "dead_end")
        return result

    def _rules(self, junction: Element) -> list[Element]:
        """The rules of priority between the links that are kept."""
        rules = list(junction.iter("request"))
        keep = [
            link.get("from") in self._kept and link.get("to") in self._kept
            for link in (self._links(junction) if rules else ())
        ]
        letters = {len(rule.get(key, "")) for rule in rules for key in ("response", "foes")}
        if len(keep) != len(rules) or letters - {len(rules)}:
            raise BadInput(
                f"the rules of priority of junction {shown(_name(junction))} do not fit its {len(keep)} "
                "links: write the network again with netconvert"
            )
        numbers = [index for index, kept in enumerate(keep) if kept]
        return [_rule(rules[index], new, numbers) for new, index in enumerate(numbers)]

    def _links(self, junction: Element) -> Iterator[Element]:
        """A junction's links in the order of its rules: that of the lanes, without ways onto footpaths."""
        for lane in junction.get("incLanes", "").split():
            for link in self._sheet.links(lane):
                before, after = (self._sheet.function(link.get(end, "")) for end in ("from", "to"))
                if after != "walkingarea" and (before != "walkingarea" or after == "crossing"):
                    yield link

    def _has_roundabout(self, roundabout: Element) -> bool:
        nodes, edges = (roundabout.get(key, "").split() for key in ("nodes", "edges"))
        return set(edges) <= self._kept and set(nodes) <= self._junctions


def _rule(rule: Element, index: int, numbers: list[int]) -> Element:
    """A rule for the links with these numbers alone; the last letter of a text belongs to link 0."""
    result = Element("request", rule.attrib)
    result.set("index", str(index))
    for key in ("response", "foes"):
        letters = rule.get(key, "")[::-1]
        result.set(key, "".join(letters[number] for number in numbers)[::-1])
    return result


def _name(element: Element) -> str:
    return element.get("id", "")


def _ends(edge: Element) -> list[str]:
    return [edge.get(key, "") for key in ("from", "to") if edge.get(key)]


def _by_name(net: Element, tag: str) -> dict[str, Element]:
    return {_name(element): element for element in net.iter(tag)}
