"""Signals under the agents' decisions, second by second: yellow, all-red, and the new green.

The rule is RESCO's: a decision names one of a signal's greens. If it is another than the one shown, the links
that lose green show yellow for a while, then, with ``all_red``, red, and then the new green is shown.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_GREEN, _RED = frozenset("gG"), frozenset("rs")


def transition(old: str, new: str) -> str:
    """The state between two greens: yellow for the links that lose green, all others as in ``old``."""
    return _between(old, new, "y")


def _between(old: str, new: str, letter: str) -> str:
    return "".join(letter if a in _GREEN and b in _RED else a for a, b in zip(old, new, strict=True))


class Lights:
    """K signals; durations are whole seconds. A green is shown for a second at least.

    green: int [K], the index of the green that each signal shows, or to which it is changing. age: int [K],
    seconds for which it has been shown, 0 during a change. states: the state of each signal, [K].
    """

    def __init__(
        self, greens: Sequence[Sequence[str]], yellow: int, all_red: int = 0, minimum_green: int = 0
    ) -> None:
        """greens: the states that each signal can show, [K]."""
        self._greens, self._yellow, self._all_red = greens, yellow, all_red
        self._minimum = minimum_green
        self.green = np.zeros(len(greens), np.int64)
        self.age = np.zeros(len(greens), np.int64)
        self.states = [states[0] for states in greens]
        self._changing: dict[int, tuple[int, int]] = {}  # the green before, and seconds since the request
        self.reset()

    def reset(self, which: np.ndarray | None = None) -> None:
        """Show the first green, for so long that it may end at once, at all signals or those of an index."""
        chosen = range(len(self._greens)) if which is None else which.tolist()
        for k in chosen:
            self.green[k], self.age[k], self.states[k] = 0, self._minimum, self._greens[k][0]
            self._changing.pop(k, None)

    @property
    def free(self) -> np.ndarray:
        """Whether a request takes effect: the minimum green is over, and no change is going on; bool [K]."""
        free = self.age >= self._minimum
        free[list(self._changing)] = False
        return free

    def request(self, actions: np.ndarray) -> None:
        """Ask for greens, by index [K], at a decision.

        It changes nothing where that green is shown, and where the signal is not ``free``.
        """
        for k in np.flatnonzero((actions != self.green) & self.free).tolist():
            self._changing[k] = int(self.green[k]), 0
            self.green[k] = actions[k]
            self.age[k] = 0

    def second(self) -> list[int]:
        """Advance to the states of the coming second; returns the signals whose state changes."""
        changed = []
        for k, (before, gone) in list(self._changing.items()):
            state = self._state(k, before, gone)
            if state != self.states[k]:
                self.states[k] = state
                changed.append(k)
            self._changing[k] = before, gone + 1
            if gone >= self._yellow + self._all_red:
                del self._changing[k]
        self.age += 1
        if self._changing:
            self.age[list(self._changing)] = 0
        return sorted(changed)

    def _state(self, k: int, before: int, gone: int) -> str:
        old, new = self._greens[k][before], self._greens[k][self.green[k]]
        if gone < self._yellow:
            return transition(old, new)
        return _between(old, new, "r") if gone < self._yellow + self._all_red else new
