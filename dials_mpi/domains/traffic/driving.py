"""SUMO's drivers as compiled functions: the Intelligent Driver Model (IDM), stopping, and insertion.

Speeds are in m/s, gaps in metres; ``limit`` is the speed limit and everybody's desired speed. Every operation
is rounded as in SUMO 1.28 (docs/grid.md).
"""

from __future__ import annotations

import math

from dials_mpi.core.jit import compiled_into_others
from dials_mpi.domains.traffic.vehicles import CAR

ACCEL, DECEL, HEADWAY, MIN_GAP, LENGTH = (
    float(CAR[key]) for key in ("accel", "decel", "tau", "minGap", "length")
)
EMERGENCY_DECEL = max(9.0, DECEL)
"""SUMO's default for cars, m/s2."""

STOP_OFFSET = 1.0
"""Where vehicles stop before a junction, metres from the end of the edge."""

SMALL, TINY, STANDING, STILL = 0.1, 0.001, 0.1, 1e-4
"""SUMO's tolerances: metres; metres or m/s; m/s below which a vehicle halts; m/s that count as 0."""

SUBSTEPS = 4
"""Of a second, in the IDM."""

_ROOT = 2 * math.sqrt(ACCEL * DECEL)
_FAR = 1e6


@compiled_into_others
def idm(gap: float, speed: float, leader: float, limit: float, standstill: float) -> float:
    """The IDM's speed after a second; gap: without ``standstill``, the gap to keep when standing; leader: the
    speed of the vehicle ahead."""
    gap += standstill
    for _ in range(SUBSTEPS):
        desired = max(0.0, speed * HEADWAY + speed * (speed - leader) / _ROOT) + standstill
        gap = max(TINY, gap)
        change = ACCEL * (1.0 - math.pow(speed / limit, 4.0) - (desired * desired) / (gap * gap))
        speed = max(0.0, speed + change / SUBSTEPS)
        gap -= max(0.0, (speed - leader) / SUBSTEPS)
    return speed


@compiled_into_others
def free_speed(speed: float, limit: float) -> float:
    """The speed after a second on an empty road."""
    return idm(_FAR, speed, limit, limit, 0.0)


@compiled_into_others
def is_far(v: float, gap: float, speed: float, leader: float, limit: float, standstill: float) -> bool:
    """Whether ``idm`` is above v for sure, by a lower bound that costs a tenth."""
    highest = min(limit, speed + ACCEL * (1.0 - (speed / limit) ** 4))
    closing = max(0.0, highest - leader)
    left = gap + standstill - closing
    if left < 1.0 or gap < limit or limit < 2 * ACCEL:
        return False
    desired = highest * HEADWAY + highest * closing / _ROOT + standstill
    lost = (highest / limit) ** 4 + (desired / left) * (desired / left)
    return bool(speed + ACCEL * (1.0 - lost) - TINY > v)


@compiled_into_others
def follow(highest: float, gap: float, speed: float, leader: float, limit: float) -> float:
    """The speed behind a leader, at most ``highest``."""
    if gap >= _FAR or is_far(highest, gap, speed, leader, limit, MIN_GAP):
        return highest
    return min(highest, idm(gap, speed, leader, limit, MIN_GAP))


@compiled_into_others
def brake_gap(speed: float, headway: float) -> float:
    """Metres to stop in, in steps of a second."""
    steps = int(speed / DECEL)
    return steps * speed - DECEL * steps * (steps + 1) / 2 + speed * headway


@compiled_into_others
def secure_gap(speed: float, leader: float) -> float:
    """The gap that the IDM wants beside the one to keep when standing, metres."""
    return max(0.0, speed * HEADWAY + speed * (speed - leader) / _ROOT)


@compiled_into_others
def creep_speed(gap: float) -> float:
    """The highest speed from which a vehicle can stop within the gap."""
    left = gap - TINY
    if left < 0.0:
        return 0.0
    steps = math.floor(0.5 - (1.0 + math.sqrt(1.0 + 4.0 * ((2.0 * left / DECEL - 1.0) + 1.0)) * -0.5))
    braking = 0.5 * steps * (steps - 1.0) * DECEL + steps * DECEL
    return steps * DECEL + (left - braking) / (steps + 1.0)


@compiled_into_others
def stop_speed(speed: float, gap: float, limit: float) -> float:
    """The speed of a vehicle that stops after the gap."""
    if gap < 0.01:
        return 0.0
    found = idm(gap, speed, 0.0, limit, 0.0)
    if speed < TINY and found < TINY:
        found = creep_speed(gap)
    return min(found, gap)


@compiled_into_others
def stop_at_line(v: float, seen: float, speed: float, limit: float) -> float:
    """The speed of a vehicle that stops before the end of its lane, in ``seen`` metres; at most v."""
    offset, brake = STOP_OFFSET, brake_gap(speed, 0.0)
    if seen >= brake:
        offset = min(offset, seen - brake)
    gap = max(0.0, seen - max(SMALL, offset))
    if is_far(v, gap, speed, 0.0, limit, 0.0):
        return v
    return min(v, stop_speed(speed, gap, limit))


@compiled_into_others
def behind_crossing(
    v: float, speed: float, gap: float, to: float, leader: float, before: float, limit: float
) -> float:
    """At most v behind a vehicle that crosses in ``to`` metres; before: metres to the junction."""
    safe = stop_speed(speed, before - SMALL, limit) if gap < 0 else idm(gap, speed, leader, limit, MIN_GAP)
    if to >= 0:
        time = (to - gap) / max(leader, STANDING)
        final = max(speed, 2 * (to - MIN_GAP) / time - speed)
        through = speed + (final - speed) / time
        safe = max(safe, min(through, stop_speed(speed, to - MIN_GAP, limit)))
    return min(v, safe)


@compiled_into_others
def bounded(speed: float, safe: float, limit: float) -> float:
    """The speed after a second: the safe one within the bounds of acceleration and braking."""
    low = min(max(speed - DECEL, 0.0), max(safe, max(speed - EMERGENCY_DECEL, 0.0)))
    high = min(min(speed + (limit - speed), min(speed + ACCEL, limit)), safe)
    found = max(low, high)
    return 0.0 if abs(found) < STILL else found


@compiled_into_others
def insertion_speed(speed: float, gap: float, leader: float, limit: float) -> float:
    """The highest safe speed of a new vehicle behind a leader, at most ``speed``."""
    while gap < secure_gap(speed, leader):
        slower = idm(gap, speed, leader, limit, MIN_GAP)
        if slower - idm(gap, slower, leader, limit, MIN_GAP) < 1:
            return slower
        speed = slower
    return speed
