"""The import report: what each signal of a city has, and what stands in the way of a good result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.domains import base
from dials_mpi.domains.city import routes
from dials_mpi.domains.city.influence import Influence
from dials_mpi.domains.city.net import Net, Signal
from dials_mpi.domains.city.regions import SHORT, RegionPlan, Roads
from dials_mpi.domains.city.routes import Routes
from dials_mpi.domains.city.scenario import Scenario
from dials_mpi.domains.city.xml_files import elements, quoted, shown


@dataclass(frozen=True)
class Row:
    """A signal in the report.

    agent: whether it learns. greens, links, lanes: numbers of its choices, of links with a connection, and of
    lanes that end at it. entries, exits: roads of its region; rim: entries at the rim of the network, where
    vehicles depart. classes: those of each influence source. approach: metres from the nearest and the
    farthest entry to the stop line; (0, 0) if it has none. vehicles: those whose route passes the signal, in
    the window.
    """

    signal: str
    agent: bool
    junctions: int
    greens: int
    links: int
    lanes: int
    entries: int
    rim: int
    exits: int
    classes: tuple[int, ...]
    approach: tuple[float, float]
    vehicles: int

    @property
    def sources(self) -> int:
        """Number of influence sources."""
        return len(self.classes)


@dataclass(frozen=True)
class Survey:
    """The report: a row for each signal, warnings as sentences, and the number of vehicles in the window."""

    rows: tuple[Row, ...]
    warnings: tuple[str, ...]
    vehicles: int


def survey(scenario: Scenario, net: Net, plans: Sequence[RegionPlan]) -> Survey:
    """The report on a scenario, its network and the regions of its agents.

    BadInput, one sentence: the network or the demand cannot be simulated, or no signal can learn.
    """
    require_agents(net)
    demand = routes.read(scenario, net)
    passing = _passing(net, demand)
    regions = {name: plan for plan in plans for name in plan.signals}
    rows = tuple(_row(net, name, regions.get(name), passing[name]) for name in net.signals)
    warnings = (
        *_about_files(scenario),
        *_about_demand(demand),
        *_about_signals(net, rows),
        *_short(net, plans),
    )
    return Survey(rows, warnings, round(sum(trip.vehicles for trip in demand.trips)))


def table(found: Survey) -> base.Survey:
    """The report as text; agents have the numbers that other commands use for them and for their regions."""
    agents = [row.signal for row in found.rows if row.agent]
    numbers = {name: str(agent) for agent, name in enumerate(agents)}
    return base.Survey(
        COLUMNS,
        tuple((numbers.get(row.signal, "-"), *_cells(row)) for row in found.rows),
        (*found.warnings, f"{found.vehicles} vehicles depart in the window"),
    )


COLUMNS = (
    *("agent", "greens", "links", "lanes", "entries", "rim", "exits", "sources", "classes", "approach, m"),
    *("vehicles", "signal"),
)


def _cells(row: Row) -> tuple[str, ...]:
    near, far = row.approach
    numbers = (row.greens, row.links, row.lanes, row.entries, row.rim, row.exits, row.sources)
    classes = _range(min(row.classes, default=0), max(row.classes, default=0))
    approach = _range(round(near), round(far))
    return *map(str, numbers), classes, approach, str(row.vehicles), printable(row.signal)


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"


def require_agents(net: Net) -> None:
    """BadInput: the network has no signal, or none with a choice."""
    if not net.signals:
        raise BadInput(
            f"{shown(net.path)} has no traffic signal: let netconvert add some (--tls.guess), or take "
            "another network"
        )
    if not net.agents:
        names = ", ".join(map(quoted, list(net.signals)[:5]))
        raise BadInput(
            f"{shown(net.path)} has no signal with two green phases or more ({names}): nothing can be "
            "learnt there"
        )


def _passing(net: Net, demand: Routes) -> Counter[str]:
    """Vehicles by signal that they pass, each once."""
    links = Roads(net).links
    passing: Counter[str] = Counter()
    for trip in demand.trips:
        for signal in {links[edge][0] for edge in trip.edges[:-1] if edge in links}:
            passing[signal] += round(trip.vehicles)
    return passing


def _row(net: Net, name: str, plan: RegionPlan | None, vehicles: int) -> Row:
    signal = net.signals[name]
    entries = (*plan.entries, *plan.fringe) if plan else ()
    distances = [entry.distance for entry in entries if entry.distance] or [0.0]
    return Row(
        name,
        name in net.agents,
        len(signal.junctions),
        len(signal.greens),
        sum(bool(links) for links in signal.links),
        len(signal.incoming),
        len(plan.entries) if plan else 0,
        len(plan.fringe) if plan else 0,
        len(plan.exits) if plan else 0,
        Influence(plan, net).classes if plan else (),
        (min(distances), max(distances)),
        vehicles,
    )


def _about_files(scenario: Scenario) -> Iterator[str]:
    if scenario.unused:
        yield f"options of the .sumocfg without effect here: {', '.join(scenario.unused)}"
    if scenario.teleports:
        yield (
            f"vehicles that wait for {scenario.teleports:g} s teleport in this .sumocfg; here they never do, "
            "and a jam can last"
        )
    for path in scenario.detectors:
        yield f"{shown(path)} is left out: it contains detectors alone"
    for path in (*scenario.additional, *scenario.routes):
        lights = {element.get("id", "") for element in elements(path) if element.tag == "tlLogic"}
        if lights:
            yield f"{shown(path)} has programs of signals, which the regions do not have: {_list(lights)}"


def _about_demand(demand: Routes) -> Iterator[str]:
    if demand.outside:
        yield f"{demand.outside:g} vehicles depart outside the window and are not simulated"
    if demand.unsorted:
        yield f"{demand.unsorted} vehicles or flows come after later ones in a file and are skipped: sort it"
    if demand.persons:
        yield f"{demand.persons} persons are in the demand: the regions are simulated without them"
    unknown = sum(not trip.edges for trip in demand.trips)
    if unknown:
        yield f"{unknown} trips begin or end at junctions or zones: their routes are not in this report"


def _about_signals(net: Net, rows: Iterable[Row]) -> Iterator[str]:
    for row in rows:
        signal = net.signals[row.signal]
        name = f"signal {quoted(row.signal)}"
        yield from (f"{name} {what}" for what in _about_signal(signal, row))
        if row.agent and not row.vehicles:
            yield f"{name}: no vehicle of the demand passes it"


def _about_signal(signal: Signal, row: Row) -> Iterator[str]:
    if not row.agent:
        yield f"has {_count(row.greens, 'green phase')}: it stays on its own program"
    if signal.added:
        yield (
            "has links that are green in no green phase without yellow: "
            f"{_count(len(signal.added), 'phase')} added to its choices ({_list(signal.added)})"
        )
    if signal.never_green:
        yield f"never gives green to link {', '.join(map(str, signal.never_green))}"
    gaps = len(signal.links) - row.links
    if gaps:
        yield f"has {_count(gaps, 'link')} without connection among {len(signal.links)}"
    if row.junctions > 1:
        yield f"has one program over {row.junctions} junctions ({_list(signal.junctions)})"


def _short(net: Net, plans: Iterable[RegionPlan]) -> Iterator[str]:
    for plan in plans:
        short = [entry.edge for entry in plan.entries if net.edges[entry.edge].length < SHORT]
        if short:
            yield (
                f"signal {_list(plan.signals)}: entry {_list(short)} is shorter than {SHORT:g} m, "
                "so vehicles are seen late there"
            )


def _list(names: Iterable[str]) -> str:
    """A few names for a sentence."""
    found = sorted(names)
    return ", ".join(map(quoted, found[:4])) + (f" and {len(found) - 4} more" if len(found) > 4 else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
