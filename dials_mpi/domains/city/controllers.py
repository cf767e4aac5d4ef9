"""Hand-coded policies of a whole city, for comparison with the trained ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.sax.saxutils import quoteattr

import numpy as np

from dials_mpi.domains.city.approaches import Approaches
from dials_mpi.domains.city.global_simulator import CityGlobalSimulator
from dials_mpi.domains.city.net import Signal
from dials_mpi.domains.city.outputs import temporary_folder

ACTUATED = "dials-actuated"
"""The name of the actuated programs."""

SHORTEST, LONGEST = 5.0, 50.0
"""Seconds of green under the actuated programs, as netconvert sets them by default."""


class CityController:
    """Chooses a green for every signal at each decision: actions int [N, 1]."""

    def __init__(self, name: str, simulator: CityGlobalSimulator, stream: np.random.Generator) -> None:
        """ValueError: there is no such policy."""
        if name not in CONTROLLERS:
            raise ValueError(f"no hand-coded policy {name!r} for a city; there are {', '.join(CONTROLLERS)}")
        self._simulator, self._stream, self._choose = simulator, stream, CONTROLLERS[name]
        signals = simulator.approaches.signals
        self._actions = np.zeros((len(signals), 1), np.int64)
        self._links = [_links(simulator.approaches, k) for k in range(len(signals))]
        self._lanes = [[np.unique(links[0]) for links in greens] for greens in self._links]
        if name == "native":
            simulator.use_programs()
        elif name == "actuated":
            path = temporary_folder(self) / "actuated.add.xml"
            path.write_text(actuated_programs(signals), encoding="utf-8")
            simulator.use_programs(path, ACTUATED)

    def act(self) -> np.ndarray:
        """The actions for the present state; call once before each decision."""
        return self._choose(self)

    def _none(self) -> np.ndarray:
        """SUMO switches the signals."""
        return self._actions

    def _random(self) -> np.ndarray:
        numbers = [len(greens) for greens in self._lanes]
        return self._stream.integers(numbers)[:, None]

    def _max_wave(self) -> np.ndarray:
        """The green that opens the lanes with the most vehicles."""
        vehicles = self._simulator.approaches.vehicles
        return self._best([[vehicles[lanes].sum() for lanes in greens] for greens in self._lanes])

    def _max_pressure(self) -> np.ndarray:
        """The green with the highest pressure: over its links, halting vehicles before less those behind."""
        approaches = self._simulator.approaches
        here = approaches.halting
        there = approaches.outgoing_values(self._simulator.simulation, "getLastStepHaltingNumber")
        return self._best(
            [
                [here[before].sum() - there[behind].sum() for before, behind in greens]
                for greens in self._links
            ]
        )

    def _longest_queue(self) -> np.ndarray:
        """The green that opens the lane with the most halting vehicles; of several, that with most in all."""
        halting = self._simulator.approaches.halting
        queues = [[halting[lanes] for lanes in greens] for greens in self._lanes]
        many = 1 + halting.sum()
        return self._best([[q.max(initial=0) + q.sum() / many for q in greens] for greens in queues])

    def _best(self, values: Sequence[Sequence[float]]) -> np.ndarray:
        """The green of the largest value at each signal; of several, the one shown, else the first."""
        for k, (green, of_signal) in enumerate(
            zip(self._simulator.lights.green.tolist(), values, strict=True)
        ):
            best = int(np.argmax(of_signal))
            self._actions[k] = green if of_signal[green] == of_signal[best] else best
        return self._actions.copy()


CONTROLLERS: dict[str, Callable[[CityController], np.ndarray]] = {
    "native": CityController._none,
    "actuated": CityController._none,
    "random": CityController._random,
    "max-pressure": CityController._max_pressure,
    "max-wave": CityController._max_wave,
    "longest-queue": CityController._longest_queue,
}
"""The policies by name; the first one is the main comparison."""


def _links(approaches: Approaches, k: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each green of signal k, the indices of the lanes before and behind the links that it opens."""
    found = []
    for state in approaches.signals[k].greens:
        pairs = zip(state, approaches.signals[k].links, strict=False)
        opened = [link for letter, links in pairs if letter in "gG" for link in links]
        before = [approaches.incoming.place[k, link.from_lane] for link in opened]
        behind = [approaches.outgoing.place[k, link.to_lane] for link in opened]
        found.append((np.array(before, np.int64), np.array(behind, np.int64)))
    return found


def actuated_programs(signals: Sequence[Signal]) -> str:
    """An additional file: for each signal a program with its phases whose greens last while vehicles come.

    SUMO prolongs a green from SHORTEST to LONGEST seconds while the gaps between vehicles are short. A green
    that lasts less, or longer, in the signal's own program may do so here, too.
    """
    return f"<additional>\n{''.join(map(_actuated, signals))}</additional>\n"


def _actuated(signal: Signal) -> str:
    phases = "".join(_phase(state, seconds, state in signal.greens) for state, seconds in signal.phases)
    head = f'id={quoteattr(signal.name)} type="actuated" programID="{ACTUATED}" offset="{signal.offset:g}"'
    return f"<tlLogic {head}>\n{phases}</tlLogic>\n"


def _phase(state: str, seconds: float, green: bool) -> str:
    limits = f' minDur="{min(seconds, SHORTEST):g}" maxDur="{max(seconds, LONGEST):g}"' if green else ""
    return f'<phase duration="{seconds:g}" state="{state}"{limits}/>\n'
