"""SUMO's traffic of single junctions as compiled loops.

K junctions with four ways each, in the order of SIDES: an incoming edge, the way across the junction, an exit
edge. Everybody drives straight on, so a way is a queue whose order does not change. A step is a second: all
vehicles choose their speeds from the state before it, then they move with them. Every operation is rounded
as in SUMO 1.28, so positions and speeds have the same bits. Only where vehicles on crossing ways meet, which
takes a yellow of one or two seconds or a low speed limit, they differ, by less than 1e-10 m: SUMO's crossing
points have a rounding error that depends on where a junction lies on the map.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from dials_mpi.core.jit import compiled_exactly, compiled_into_others
from dials_mpi.domains.traffic.driving import (
    ACCEL,
    DECEL,
    LENGTH,
    MIN_GAP,
    SMALL,
    STANDING,
    STILL,
    behind_crossing,
    bounded,
    brake_gap,
    follow,
    free_speed,
    idm,
    stop_at_line,
)

ENTRY, INSIDE, EXIT = 0, 1, 2
"""The three lanes of a way."""

NEVER, NOBODY = 1 << 40, 1e300
"""A step and a position that stand for none."""


class Roads(NamedTuple):
    """lengths: float64 [3], of a way's lanes, metres; limit: m/s; crossing: float64 [4, 4], metres from the
    beginning of a way across the junction to where another one begins to cross it; width: of the latter,
    metres; red, yellow: bool [4, 4], whether a phase shows this colour to a side."""

    lengths: np.ndarray
    limit: float
    crossing: np.ndarray
    width: float
    red: np.ndarray
    yellow: np.ndarray


class Cars(NamedTuple):
    """The vehicles on each way, [K, 4, C], the first one first; number: int64 [K, 4], of them.

    lane: int64; position: float64, of the front on its lane, metres; speed: float64, m/s; waits: bool, SUMO's
    mark of vehicles that brake; arrived: int64, the step in which it drove into the junction, or NEVER.
    next_speed, next_waits: work space.
    """

    number: np.ndarray
    lane: np.ndarray
    position: np.ndarray
    speed: np.ndarray
    waits: np.ndarray
    arrived: np.ndarray
    next_speed: np.ndarray
    next_waits: np.ndarray


class Last(NamedTuple):
    """The last vehicle that is at least partly on a lane: its back, metres from the beginning of the lane,
    NOBODY if there is none; its speed, m/s; whether it ``waits``."""

    back: float
    speed: float
    waits: bool


class Way(NamedTuple):
    """What a way's vehicles ask: the numbers of vehicles on its exit edge, and inside the junction or on the
    exit edge; the last ones of the two lanes."""

    on_exit: int
    past_line: int
    inside: Last
    exit: Last


Ways: TypeAlias = tuple[Way, Way, Way, Way]


def no_cars(junctions: int, lengths: np.ndarray) -> Cars:
    """Cars without any vehicle, with room for as many as the ways can hold."""
    shape = junctions, 4, int(lengths.sum() / LENGTH) + 4
    return Cars(
        np.zeros(shape[:2], np.int64),
        np.zeros(shape, np.int64),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(shape, np.bool_),
        np.full(shape, NEVER, np.int64),
        np.zeros(shape),
        np.zeros(shape, np.bool_),
    )


@compiled_into_others
def give_way(
    v: float,
    floor: float,
    cars: Cars,
    k: int,
    side: int,
    i: int,
    seen: float,
    foe: int,
    way: Way,
    roads: Roads,
) -> float:
    """At most v, and at least ``floor``, before the vehicles of a crossing way.

    seen: metres to the end of the own way across the junction; foe, way: the other one.
    """
    inside, arrived = roads.lengths[INSIDE], cars.arrived[k, side, i]
    to = seen - (inside - roads.crossing[side, foe])
    if to + roads.width < 0:
        return v
    for f in range(max(0, way.on_exit - 1), way.past_line):
        back, within = cars.position[k, foe, f] - LENGTH, cars.lane[k, foe, f] == INSIDE
        if not within and back >= 0.0:
            continue
        back += 0.0 if within else inside
        left = (inside - (inside - roads.crossing[foe, side])) - back
        if left + roads.width < 0:
            continue
        in_the_way = to > 0 and left < LENGTH
        goes_first = arrived == NEVER or not within or arrived > cars.arrived[k, foe, f]
        if in_the_way or (to >= -SMALL and goes_first):
            gap = to - MIN_GAP - left - roads.width
            leader, before = cars.speed[k, foe, f], seen - inside
            v = behind_crossing(v, cars.speed[k, side, i], gap, to, leader, before, roads.limit)
            v = max(v, floor)
    return v


@compiled_into_others
def cross(
    v: float,
    cars: Cars,
    k: int,
    side: int,
    i: int,
    seen: float,
    ways: Ways,
    roads: Roads,
) -> float:
    """At most v before the vehicles of both crossing ways; up to the stop line a vehicle may always drive."""
    floor = 0.0
    if cars.lane[k, side, i] == ENTRY:
        floor = stop_at_line(v, seen - roads.lengths[INSIDE], cars.speed[k, side, i], roads.limit)
    for foe in ((side + 1) % 4, (side + 3) % 4):
        v = give_way(v, floor, cars, k, side, i, seen, foe, ways[foe], roads)
    return v


@compiled_into_others
def next_back(cars: Cars, k: int, side: int, i: int, lengths: np.ndarray) -> float:
    """The back of the next vehicle on the lane of vehicle i, or NOBODY."""
    if i == 0:
        return NOBODY
    here, there = cars.lane[k, side, i], cars.lane[k, side, i - 1]
    back = cars.position[k, side, i - 1] - LENGTH
    if there == here:
        return back
    return back + lengths[here] if there == here + 1 and back < 0.0 else NOBODY


@compiled_into_others
def behind_next(
    cars: Cars, k: int, side: int, i: int, lengths: np.ndarray, limit: float
) -> tuple[float, bool]:
    """The speed behind the next vehicle on the lane of vehicle i; whether there is one."""
    speed, back = cars.speed[k, side, i], next_back(cars, k, side, i, lengths)
    v = min(speed + ACCEL, limit)
    if back == NOBODY:
        return v, False
    gap = back - cars.position[k, side, i] - MIN_GAP
    return min(v, idm(gap, speed, cars.speed[k, side, i - 1], limit, MIN_GAP)), True


@compiled_into_others
def behind_last(v: float, last: Last, length: float, seen: float, speed: float, limit: float) -> float:
    """At most v behind the last vehicle of a lane ahead, which has this length and ends in ``seen`` m."""
    if last.back == NOBODY:
        return v
    return follow(v, last.back + seen - length - MIN_GAP, speed, last.speed, limit)


@compiled_into_others
def approach(
    cars: Cars,
    k: int,
    side: int,
    i: int,
    phase: int,
    ways: Ways,
    busy: bool,
    roads: Roads,
) -> float:
    """The speed that is safe for a vehicle before the junction; busy: crossing vehicles are inside."""
    way, lengths, limit = ways[side], roads.lengths, roads.limit
    speed, seen = cars.speed[k, side, i], lengths[ENTRY] - cars.position[k, side, i]
    v, follows = behind_next(cars, k, side, i, lengths, limit)
    brake, red = brake_gap(speed, 0.0), roads.red[phase, side]
    if (red or roads.yellow[phase, side]) and seen >= brake:
        return stop_at_line(v, seen, speed, limit)
    request, end = v > STILL, seen + lengths[INSIDE]
    if not follows:
        v = min(v, free_speed(speed, limit))
    v = behind_last(v, way.inside, lengths[INSIDE], end, speed, limit)
    if red or not request:
        return stop_at_line(v, seen, speed, limit)
    passes, at_line = v > STILL, v
    if busy:
        v = cross(v, cars, k, side, i, end, ways, roads)
    v = behind_last(v, way.exit, lengths[EXIT], end + lengths[EXIT], speed, limit)
    if seen >= brake + SMALL and not (passes and has_room(way, i, lengths)):
        return stop_at_line(at_line, seen, speed, limit)
    return v if passes else stop_at_line(v, end, speed, limit)


@compiled_into_others
def has_room(way: Way, i: int, lengths: np.ndarray) -> bool:
    """Whether the exit edge has room for vehicle i; true unless the last one there brakes."""
    if way.on_exit == 0 or not way.exit.waits:
        return True
    return bool(lengths[EXIT] - (i + 1) * (LENGTH + MIN_GAP) >= 0)


@compiled_into_others
def drive_through(
    cars: Cars, k: int, side: int, i: int, ways: Ways, busy: bool, roads: Roads
) -> tuple[float, bool]:
    """The speed that is safe for a vehicle inside the junction, and whether it ``waits``."""
    lengths, limit = roads.lengths, roads.limit
    speed, seen = cars.speed[k, side, i], lengths[INSIDE] - cars.position[k, side, i]
    at_end, follows = behind_next(cars, k, side, i, lengths, limit)
    if busy:
        at_end = cross(at_end, cars, k, side, i, seen, ways, roads)
    v = at_end if follows else min(at_end, free_speed(speed, limit))
    v = behind_last(v, ways[side].exit, lengths[EXIT], seen + lengths[EXIT], speed, limit)
    slow = at_end < DECEL and at_end < min(speed + ACCEL, limit) and at_end <= v
    waits = v < speed or v < STANDING or (slow and at_end <= stop_at_line(at_end, seen, speed, limit))
    return v, waits


@compiled_into_others
def leave(cars: Cars, k: int, side: int, i: int, roads: Roads) -> tuple[float, bool]:
    """The speed that is safe for a vehicle on its exit edge, and whether it ``waits``."""
    v, follows = behind_next(cars, k, side, i, roads.lengths, roads.limit)
    speed = cars.speed[k, side, i]
    if not follows:
        v = min(v, free_speed(speed, roads.limit))
    return v, v < speed or v < STANDING


@compiled_into_others
def last_on(cars: Cars, k: int, side: int, number: int, lane: int, lengths: np.ndarray) -> Last:
    """The last vehicle that is at least partly on a lane; number: of vehicles on it or further."""
    if number == 0:
        return Last(NOBODY, 0.0, False)
    back = cars.position[k, side, number - 1] - LENGTH
    if cars.lane[k, side, number - 1] != lane:
        back = back + lengths[lane] if back < 0.0 else NOBODY
    return Last(back, cars.speed[k, side, number - 1], cars.waits[k, side, number - 1])


@compiled_into_others
def way_of(cars: Cars, k: int, side: int, lengths: np.ndarray) -> Way:
    """One way of junction k."""
    on_exit = past_line = 0
    for i in range(cars.number[k, side]):
        on_exit += cars.lane[k, side, i] == EXIT
        past_line += cars.lane[k, side, i] != ENTRY
    inside = last_on(cars, k, side, past_line, INSIDE, lengths)
    return Way(on_exit, past_line, inside, last_on(cars, k, side, on_exit, EXIT, lengths))


@compiled_into_others
def plan(cars: Cars, k: int, phase: int, roads: Roads) -> None:
    """Set next_speed and next_waits of all vehicles of junction k."""
    lengths = roads.lengths
    ways = (
        way_of(cars, k, 0, lengths),
        way_of(cars, k, 1, lengths),
        way_of(cars, k, 2, lengths),
        way_of(cars, k, 3, lengths),
    )
    for side in range(4):
        way, one, other = ways[side], ways[(side + 1) % 4], ways[(side + 3) % 4]
        busy = one.inside.back != NOBODY or other.inside.back != NOBODY
        for i in range(cars.number[k, side]):
            if i < way.on_exit:
                safe, waits = leave(cars, k, side, i, roads)
            elif i < way.past_line:
                safe, waits = drive_through(cars, k, side, i, ways, busy, roads)
            else:
                safe = approach(cars, k, side, i, phase, ways, busy, roads)
                waits = safe < cars.speed[k, side, i]
            cars.next_waits[k, side, i] = waits
            cars.next_speed[k, side, i] = bounded(cars.speed[k, side, i], safe, roads.limit)


@compiled_into_others
def advance(cars: Cars, k: int, side: int, red: bool, lengths: np.ndarray, time: int) -> int:
    """Move the vehicles of a way; returns the number of those that reach the end of their route."""
    lane, position, speed = cars.lane[k, side], cars.position[k, side], cars.speed[k, side]
    gone = 0
    for i in range(cars.number[k, side]):
        speed[i] = cars.next_speed[k, side, i]
        cars.waits[k, side, i] = cars.next_waits[k, side, i]
        position[i] += speed[i]
        while lane[i] < EXIT and position[i] > lengths[lane[i]]:
            if lane[i] == ENTRY and red:  # it could not brake in time
                position[i], speed[i] = lengths[ENTRY], 0.0
                break
            position[i] -= lengths[lane[i]]
            lane[i] += 1
            cars.arrived[k, side, i] = time if lane[i] == INSIDE else NEVER
        gone += lane[i] == EXIT and position[i] > lengths[EXIT] - SMALL
    return gone


@compiled_into_others
def shift(cars: Cars, k: int, side: int, first: int, by: int) -> None:
    """Move the vehicles from index ``first`` on by some places, without those that fall off the front."""
    number = cars.number[k, side]
    steps = range(number - 1, first - 1, -1) if by > 0 else range(first, number)
    for i in steps:
        if i + by >= 0:
            cars.lane[k, side, i + by] = cars.lane[k, side, i]
            cars.position[k, side, i + by] = cars.position[k, side, i]
            cars.speed[k, side, i + by] = cars.speed[k, side, i]
            cars.waits[k, side, i + by] = cars.waits[k, side, i]
            cars.arrived[k, side, i + by] = cars.arrived[k, side, i]
    cars.number[k, side] = number + by


@compiled_exactly
def drive(cars: Cars, phase: np.ndarray, roads: Roads, time: int) -> None:
    """Advance all vehicles by a second; phase: int64 [K], of the signals; time: number of the step."""
    for k in range(len(phase)):
        plan(cars, k, phase[k], roads)
        for side in range(4):
            gone = advance(cars, k, side, roads.red[phase[k], side], roads.lengths, time)
            if gone:
                shift(cars, k, side, 0, -gone)
