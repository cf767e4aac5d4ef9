"""What the pictures of SUMO's networks share: colours, and the outlines of vehicles."""

from __future__ import annotations

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.lines import Line2D

from dials_mpi.domains.pictures import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    YELLOW,
    add_colour_bar,
)

SPEED_COLOURS = LinearSegmentedColormap.from_list("speed", [VERMILION, ORANGE, SKY, BLUE])
LIGHT_COLOURS = {"G": GREEN, "g": GREEN, "y": YELLOW, "Y": YELLOW, "r": VERMILION, "s": SKY}
"""By the letter in the state of a signal; the rare other letters have none."""

ROAD, MARKING = "#D4D4D4", "#FFFFFF"
LANE, CAR_WIDTH = 3.2, 2.0
"""Widths, metres."""


def headings(angle: np.ndarray) -> np.ndarray:
    """Unit vectors [V, 2] to the east and north for SUMO's angles [V], degrees from north, clockwise."""
    radians = np.deg2rad(angle)
    return np.stack([np.sin(radians), np.cos(radians)], axis=-1)


def to_the_right(ahead: np.ndarray) -> np.ndarray:
    """Unit vectors [V, 2] to the right of these directions."""
    return np.stack([ahead[..., 1], -ahead[..., 0]], axis=-1)


def outlines(front: np.ndarray, ahead: np.ndarray, length: np.ndarray | float, width: float) -> np.ndarray:
    """Vehicles, narrower at the front: [V, 6, 2]; front, ahead: [V, 2]; length: metres, of each or of all."""
    along = ahead * np.reshape(length, (-1, 1))
    across = to_the_right(ahead) * width / 2
    waist, back = (front - part * along for part in (0.4, 1))
    right = front + 0.5 * across, waist + across, back + across
    left = back - across, waist - across, front - 0.5 * across
    return np.stack([*right, *left], axis=1)


def light_keys(entering: bool, stop_first: bool = False) -> list[Line2D]:
    """The entries of a legend.

    entering: with the arrow of a sampled vehicle. stop_first: with the colour of links on which vehicles may
    drive after a stop.
    """
    names = {"green": GREEN, "yellow": YELLOW, "red": VERMILION} | (
        {"stop, then go": SKY} if stop_first else {}
    )
    keys = [Line2D([], [], color=colour, linewidth=2.2, label=name) for name, colour in names.items()]
    if entering:
        sampled = Line2D([], [], marker=">", ls="", ms=4.5, mfc=PURPLE, mec=INK, mew=0.4)
        sampled.set_label("car enters, as sampled")
        keys.append(sampled)
    return keys


def add_moving(
    axes: Axes, lights: LineCollection, cars: PolyCollection
) -> tuple[PolyCollection, list[Artist]]:
    """Add what changes from step to step, with a scale of the cars' speed: the arrows of sampled vehicles,
    still empty, and all in the order in which they are drawn."""
    lights.set_capstyle("butt")
    entering = PolyCollection([], facecolor=PURPLE, edgecolor=INK, linewidth=0.4, zorder=5)
    artists: list[Artist] = [lights, cars, entering]
    for artist in (lights, cars, entering):
        axes.add_collection(artist, autolim=False)
    add_colour_bar(axes, cars, "speed of the car, m/s")
    return entering, artists
