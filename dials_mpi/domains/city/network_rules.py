"""What SUMO would refuse in a network file, found before SUMO reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn
from xml.etree.ElementTree import Element

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import shown as shown_value
from dials_mpi.domains.city.xml_files import elements, quoted, shown

OLDEST = (1, 0)
"""The oldest version of network files that are read; netconvert converts older ones."""

_LETTERS = frozenset("rugGyYosO")


def require_network(path: Path) -> None:
    """BadInput, one sentence: the file is no network, is too old, or has ids twice or impossible programs."""
    top, *content = elements(path)
    if top.tag != "net":
        raise BadInput(f"{shown(path)} is a <{top.tag}>, not a network of SUMO (.net.xml)")
    _require_version(path, top.get("version", ""))
    _require_unique(path, content)
    _require_ends(path, content)
    links = _links(path, content)
    programs = [(light.get("id", ""), [*light.iter("phase")]) for light in content if light.tag == "tlLogic"]
    for name, phases in programs:
        _require_phases(path, name, [phase.attrib for phase in phases], links.get(name, 0))
    for name in sorted(set(links) - {name for name, _ in programs}):
        _refuse(path, name, "has connections and no program (tlLogic)")


def _require_unique(path: Path, content: Sequence[Element]) -> None:
    seen: Counter[tuple[str, str]] = Counter()
    for element in content:
        if element.tag in ("edge", "junction", "tlLogic"):
            program = element.get("programID", "") if element.tag == "tlLogic" else ""
            seen[element.tag, f"{element.get('id', '')} {program}".strip()] += 1
    for (tag, name), times in seen.items():
        if times > 1:
            raise BadInput(
                f"{shown(path)} has {times} {tag} elements with the id {shown_value(name)}: rename them"
            )


def _require_ends(path: Path, content: Sequence[Element]) -> None:
    """BadInput: a road does not lead from a junction to a junction."""
    junctions = {element.get("id") for element in content if element.tag == "junction"}
    for edge in content:
        if edge.tag == "edge" and not edge.get("id", "").startswith(":"):
            for end in ("from", "to"):
                if edge.get(end) not in junctions:
                    raise BadInput(
                        f"edge {shown_value(edge.get('id', ''))} in {shown(path)} has no junction at its end "
                        f"({end} is {shown_value(edge.get(end))}): write the network again with netconvert"
                    )


def _links(path: Path, content: Sequence[Element]) -> dict[str, int]:
    """The number of links of each signal: its highest link index, plus one."""
    links: dict[str, int] = {}
    for connection in content:
        signal = connection.get("tl", "") if connection.tag == "connection" else ""
        index = connection.get("linkIndex", "")
        if signal and not index.isdecimal():
            _refuse(path, signal, f"has a connection with link index {shown_value(index)}")
        if signal:
            links[signal] = max(links.get(signal, 0), int(index) + 1)
    return links


def _require_version(path: Path, text: str) -> None:
    try:
        version = tuple(int(part) for part in text.split("."))
    except ValueError:
        raise BadInput(
            f"{shown(path)} is a network of version {shown_value(text)}: convert it with netconvert"
        ) from None
    if version < OLDEST:
        raise BadInput(
            f"{shown(path)} is a network of version {text}, older than SUMO 1.0: convert it with "
            "netconvert -s OLD.net.xml -o NEW.net.xml"
        )


def _require_phases(path: Path, name: str, phases: Sequence[Mapping[str, str]], links: int) -> None:
    """BadInput, with the signal's id: its phases cannot be shown."""
    if not phases:
        _refuse(path, name, "has a program without phases")
    states = [phase.get("state", "") for phase in phases]
    if len(set(map(len, states))) > 1:
        _refuse(path, name, f"has phases of different lengths ({', '.join(sorted(set(states))[:2])})")
    if len(states[0]) < links:
        _refuse(path, name, f"has {links} links, and phases with {len(states[0])} letters")
    wrong = sorted(set("".join(states)) - _LETTERS)
    if wrong:
        _refuse(path, name, f"has the letter {shown_value(wrong[0])} in a phase, which SUMO does not know")
    for phase in phases:
        if not _is_duration(phase.get("duration", "")):
            _refuse(path, name, f"has a phase of {shown_value(phase.get('duration'))} seconds")


def _is_duration(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False


def _refuse(path: Path, signal: str, what: str) -> NoReturn:
    raise BadInput(f"signal {quoted(signal)} in {shown(path)} {what}: correct it with netedit or netconvert")
