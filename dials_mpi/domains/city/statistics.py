"""What an episode in a city amounts to, from the files that SUMO writes when it ends."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np

from dials_mpi.domains.base import Details, Statistic
from dials_mpi.domains.city.net import Net, Signal
from dials_mpi.domains.city.xml_files import elements

STATISTICS = (
    Statistic(
        "delay",
        "s",
        "timeLoss + departDelay of all vehicles of the window, unfinished and never departed ones included; "
        "mean",
        "lower",
    ),
    Statistic(
        "delay_resco",
        "s",
        "as RESCO computes it: without most of the vehicles that never departed; mean",
        "lower",
    ),
    Statistic("trip_time", "s", "of the vehicles that arrived, from entering to arriving; mean", "lower"),
    Statistic("waiting_time", "s", "below 0.1 m/s, of the vehicles that departed; mean", "lower"),
    Statistic(
        "queue",
        "vehicles",
        "that halt on the incoming lanes of the agents' signals; mean over time",
        "lower",
    ),
    Statistic("throughput", "vehicles", "that arrived", "higher"),
    Statistic("undeparted", "vehicles", "of the window that never found room to depart", "lower"),
    Statistic("teleports", "vehicles", "that SUMO moved out of a jam or a collision", "lower"),
    Statistic("stops", "per vehicle", "halts below 0.1 m/s of the vehicles that departed; mean", "lower"),
    Statistic("co2", "kg", "of all vehicles, by SUMO's emission model (HBEFA)", "lower"),
)

LEVELS = (("A", 10.0), ("B", 20.0), ("C", 35.0), ("D", 55.0), ("E", 80.0), ("F", math.inf))
"""Levels of service at signals in the Highway Capacity Manual: the largest delay per vehicle, s, of each."""

APPROACH = 150.0
"""Metres before a stop line on which the time lost counts as the signal's delay."""


def level_of_service(delay: float) -> str:
    """The letter for a delay per vehicle, s; "" for NaN, where nobody passed."""
    return next((letter for letter, most in LEVELS if delay <= most), "")


class Trip(NamedTuple):
    """A vehicle of the window; seconds of the day, and seconds.

    scheduled: when it should have departed; departed: when it did, NaN if never. stops: number of halts.
    co2: mg, 0 if SUMO did not compute it.
    """

    vehicle: str
    scheduled: float
    departed: float
    arrived: bool
    duration: float
    waiting: float
    stops: int
    loss: float
    delay: float
    co2: float


def read_trips(tripinfo: Path, end: float) -> list[Trip]:
    """The vehicles of SUMO's tripinfo file of an episode that ended at ``end``, s.

    BadInput: the file is not complete.
    """
    trips = (_trip(element, end) for element in elements(tripinfo) if element.tag == "tripinfo")
    return [trip for trip in trips if trip.scheduled < end]


def _trip(element: Element, end: float) -> Trip:
    value = {name: float(element.attrib[name]) for name in _NUMBERS}
    never = value["depart"] < 0
    departed = math.nan if never else value["depart"]
    emissions = element.find("emissions")
    return Trip(
        element.attrib["id"],
        (end if never else departed) - value["departDelay"],
        departed,
        value["arrival"] >= 0 and not element.get("vaporized"),
        value["duration"],
        value["waitingTime"],
        int(value["waitingCount"]),
        value["timeLoss"],
        value["timeLoss"] + value["departDelay"],
        0.0 if emissions is None else float(emissions.get("CO2_abs", 0)),
    )


_NUMBERS = ("depart", "departDelay", "arrival", "duration", "waitingTime", "waitingCount", "timeLoss")


def summarised(trips: Sequence[Trip], listed: Collection[str]) -> dict[str, float]:
    """The statistics of the trips by name; NaN for the mean of no vehicles.

    listed: the vehicles that a route file contains as <vehicle>, for ``delay_resco``.
    """
    driving = [trip for trip in trips if not math.isnan(trip.departed)]
    arrived = [trip for trip in driving if trip.arrived]
    return {
        "delay": _mean(trip.delay for trip in trips),
        "delay_resco": _mean(trip.delay for trip in _counted_by_resco(trips, driving, listed)),
        "trip_time": _mean(trip.duration for trip in arrived),
        "waiting_time": _mean(trip.waiting for trip in driving),
        "throughput": float(len(arrived)),
        "undeparted": float(len(trips) - len(driving)),
        "stops": _mean(trip.stops for trip in driving),
        "co2": sum(trip.co2 for trip in driving) / 1e6,
    }


def _counted_by_resco(trips: Sequence[Trip], driving: Sequence[Trip], listed: Collection[str]) -> list[Trip]:
    """All that departed, and of the others those listed as <vehicle> that should have departed after the
    last one that did."""
    last = max(driving, key=lambda trip: trip.departed, default=None)
    after = -math.inf if last is None else last.scheduled
    never = [trip for trip in trips if math.isnan(trip.departed)]
    return [*driving, *(trip for trip in never if trip.vehicle in listed and trip.scheduled > after)]


def teleports(statistic: Path) -> float:
    """The number of teleports in SUMO's file of statistics; NaN if it has none."""
    found = (element for element in elements(statistic) if element.tag == "teleports")
    return next((float(element.get("total", "nan")) for element in found), math.nan)


class Lane(NamedTuple):
    """What happened on a lane in an episode: vehicle seconds lost, and below 0.1 m/s; vehicles that left it
    at its end."""

    lost: float
    waiting: float
    left: int


def read_lanes(lane_data: Path) -> dict[str, Lane]:
    """The lanes that had vehicles, from SUMO's mean values of lanes. BadInput: the file is not complete."""
    lanes = (lane for interval in elements(lane_data) for lane in interval.iter("lane"))
    numbers = ("timeLoss", "waitingTime", "left")
    values = {lane.attrib["id"]: [float(lane.get(name, 0)) for name in numbers] for lane in lanes}
    return {name: Lane(lost, waiting, int(left)) for name, (lost, waiting, left) in values.items()}


class SignalDelay(NamedTuple):
    """delay: seconds lost on a signal's approach, per vehicle that passed it; level: its level of service."""

    signal: str
    vehicles: int
    delay: float
    level: str


def signal_delays(lanes: Mapping[str, Lane], net: Net) -> list[SignalDelay]:
    """The delay at each signal of a network, in their order."""
    nothing, found = Lane(0.0, 0.0, 0), []
    for signal in net.signals.values():
        vehicles = sum(lanes.get(lane, nothing).left for lane in signal.incoming)
        own = (lane for edge in approach(net, signal) if edge in net.edges for lane in net.edges[edge].lanes)
        lost = sum(lanes.get(lane, nothing).lost for lane in own)
        delay = lost / vehicles if vehicles else math.nan
        found.append(SignalDelay(signal.name, vehicles, delay, level_of_service(delay)))
    return found


def delay_table(episodes: Sequence[Sequence[SignalDelay]]) -> Details:
    """The delay at each signal, per vehicle of all episodes; vehicles: how many passed it, per episode."""
    columns = (("signal", ""), ("vehicles", "per episode"), ("delay", "s"), ("level_of_service", ""))
    return Details("signals", columns, tuple(map(_over_episodes, zip(*episodes, strict=True))))


def _over_episodes(delays: Sequence[SignalDelay]) -> tuple[str, float, float | None, str | None]:
    """The row of one signal; no delay and no level where nobody passed."""
    vehicles = sum(one.vehicles for one in delays)
    lost = sum(one.vehicles * one.delay for one in delays if one.vehicles)
    mean = lost / vehicles if vehicles else math.nan
    level = level_of_service(mean) or None
    return delays[0].signal, vehicles / len(delays), mean if vehicles else None, level


def approach(net: Net, signal: Signal) -> list[str]:
    """The edges on which delay counts as a signal's: its incoming ones, and those that lead to them.

    Upstream until APPROACH metres are covered, or until another signal.
    """
    signalised = {junction for other in net.signals.values() for junction in other.junctions}
    covered = {net.lane_edge[lane]: 0.0 for lane in signal.incoming}  # metres between edge and stop line
    waiting = list(covered)
    for edge in waiting:
        reached = covered[edge] + net.edges[edge].length if edge in net.edges else APPROACH
        for before in net.before.get(edge, ()) if reached < APPROACH else ():
            if before not in covered and net.edges[before].end not in signalised:
                covered[before] = reached
                waiting.append(before)
    return waiting


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else math.nan
