"""The vehicle type, and the names of vehicles."""

from __future__ import annotations

CAR = {
    "id": "car",
    "carFollowModel": "IDM",
    "accel": "2.6",
    "decel": "7.5",
    "tau": "1.0",
    "minGap": "2.5",
    "length": "5",
    # Every driver's desired speed is the speed limit. The authors' deviation of 0.1 has no effect where
    # vehicles are inserted at the limit: SUMO raises a lower desired speed to the departure speed, and
    # maxSpeed caps a higher one. Without a deviation SUMO draws no random number (its IDM ignores sigma).
    "speedFactor": "1",
    "speedDev": "0",
}
"""The vehicle type (the authors' parameters); ``maxSpeed`` is the speed limit."""

INSERTION_POSITION = float(CAR["length"]) + 0.1
"""Where SUMO places the front of a vehicle that it inserts at the beginning of a lane, metres."""


def longest_insertion(speed_limit: float) -> float:
    """Length of an edge in metres on which SUMO inserts a vehicle without a look at the next one.

    The vehicle's front is at most as far into the edge as it drives in a second; it must be able to stop.
    """
    decel, headway, gap = (float(CAR[key]) for key in ("decel", "tau", "minGap"))
    steps = int(speed_limit / decel)
    braking = steps * speed_limit - decel * steps * (steps + 1) / 2 + speed_limit * headway
    return INSERTION_POSITION + speed_limit + braking + gap


def vehicle_name(copy: int, number: int) -> str:
    """The name of vehicle ``number`` in a copy of the network."""
    return f"{copy}.{number}"


def copy_of(vehicle: str) -> int:
    """The copy of the network in which a vehicle drives."""
    return int(vehicle.partition(".")[0])
