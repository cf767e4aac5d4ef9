"""The contract of a domain: what a global simulator, a local simulator and a controller must offer.

There are two index spaces. Agents i = 0..N-1 have observations, actions and rewards; regions k = 0..R-1
have a local simulator, a d-set and influence sources, and hold one agent or several (Appendix E.2).

Everything is batched: E is the number of episodes that run side by side. The axis of agents or regions
comes first everywhere, and learning code only ever indexes it (``observations[i]``, ``inputs[k]``): where
agents or regions differ in size, a domain may return a list of arrays where the text below says
``[N, E, ...]`` or ``[R, E, ...]``.

Time: ``observations`` and ``inputs`` belong to the state before a step, ``sources`` to the step itself.
``reset`` and ``step`` therefore return the pair (observations, inputs) of the state now reached, and
``step`` the sources that acted while it was reached (Algorithm 2 of the paper: the pair (l_t, u_t)).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Agent:
    """Sizes of what one agent sees and does.

    observation_size: length O of its observation. actions: number of its discrete actions.
    """

    observation_size: int
    actions: int


@dataclass(frozen=True)
class Region:
    """One local region (Definition 2): the agents that act in it, and the sizes of its influence.

    agents: their numbers, in the order in which its local simulator has them; every agent of the system is in
    one region. input_size: length D of the influence predictor's input (the d-separating set, Appendix E.1).
    source_classes: number of classes C_m, at least 2, of each of the M > 0 influence sources.
    input_type: of the predictor's input: uint8 (bits) or float32.
    """

    agents: tuple[int, ...]
    input_size: int
    source_classes: tuple[int, ...]
    input_type: str = "uint8"


@dataclass(frozen=True)
class Statistic:
    """A figure of an episode that a domain reports beside the return."""

    name: str
    unit: str
    about: str


class SimulatorFailure(Exception):
    """A simulator broke down in ``reset`` or ``step`` and what it held is lost; a full ``reset`` starts it
    anew, with other episodes."""


class State(NamedTuple):
    """What can be seen of the state: ``observations [N, E, O]`` by agent, predictor ``inputs [R, E, D]`` by
    region.

    Both are uint8 (bits) or float32.
    """

    observations: Sequence[np.ndarray]
    inputs: Sequence[np.ndarray]


class GlobalStep(NamedTuple):
    """One step of the global simulator.

    state: the state reached. sources: int [R, E, M], rewards: float32 [N, E], of the step itself.
    done: bool [E], the time limit was reached; the caller then resets those episodes.
    """

    state: State
    sources: Sequence[np.ndarray]
    rewards: np.ndarray
    done: np.ndarray


class LocalStep(NamedTuple):
    """One step of the local simulators: as GlobalStep, the sources being an input here."""

    state: State
    rewards: np.ndarray
    done: np.ndarray


class GlobalSimulator(Protocol):
    """The whole system (GS): E episodes side by side, episode e drawing from its own stream e."""

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Restart the episodes in the mask ``where`` (bool [E], default all); return the state of all.

        elapsed: int [E], steps already gone on the restarted episodes' clocks (default 0), so that
        side-by-side episodes can end at different times.
        """
        ...

    def step(self, actions: np.ndarray) -> GlobalStep:
        """Advance all episodes by one step; actions: int [N, E]."""
        ...

    def statistics(self) -> dict[str, np.ndarray]:
        """The domain's statistics of the episodes so far, by name: float64 [E] each."""
        ...


class LocalSimulator(Protocol):
    """Some local regions (LS): E environments per region, region r of R drawing from stream r.

    Its N agents are those of its regions, region after region, in the order of ``Region.agents``.
    """

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As GlobalSimulator.reset; the E clocks are the same for every region."""
        ...

    def step(self, actions: np.ndarray, sources: Sequence[np.ndarray]) -> LocalStep:
        """Advance by one step under the given influence; actions: int [N, E], sources: int [R, E, M]."""
        ...


class Controller(Protocol):
    """A hand-coded joint policy that reads the global simulator's whole state."""

    def act(self) -> np.ndarray:
        """Actions for the present state, int [N, E]; called once before each step."""
        ...


class Domain(Protocol):
    """A networked system of N agents in R local regions; built from its own section of the configuration.

    hand_coded: names of the hand-coded joint policies, the one to compare with first.
    statistics: what the global simulator reports of an episode beside the return.
    side_by_side: the most agents, counted once per episode, that one simulator should hold at a time to be
    fast; None for any number. Results do not depend on it.
    """

    name: str
    horizon: int
    agents: Sequence[Agent]
    regions: Sequence[Region]
    hand_coded: tuple[str, ...]
    statistics: tuple[Statistic, ...]
    side_by_side: int | None

    def versions(self) -> dict[str, str]:
        """What the simulators need beside this package, by name. BadInput: it is missing on this machine."""
        ...

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> GlobalSimulator:
        """E = len(streams) episodes of the whole system."""
        ...

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> LocalSimulator:
        """Local simulators of the given regions, maybe of different sizes, one stream and ``environments``
        episodes each."""
        ...

    def controller(
        self, name: str, simulator: GlobalSimulator, streams: Sequence[np.random.Generator]
    ) -> Controller:
        """The hand-coded policy ``name`` for a simulator of this domain, whose first ``reset`` comes after
        this; a random choice that it makes in episode e comes from streams[e]."""
        ...


@runtime_checkable
class Closable(Protocol):
    """A simulator that holds what must be given back: a process, a window."""

    def close(self) -> None:
        """End it; ``reset`` would begin anew."""
        ...


class Source(NamedTuple):
    """How an influence source of a region is called, and each of its classes."""

    name: str
    classes: tuple[str, ...]


class Drawing(Protocol):
    """A picture of a simulator of one episode, in axes whose limits and aspect it has set.

    artists: matplotlib's, that change from step to step, in the order in which they are drawn.
    """

    artists: Sequence[Artist]

    def update(self, sources: np.ndarray | None) -> None:
        """Show the simulator's present state; sources: int [M], of a local simulator's step, else None."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """What a domain offers besides if it can be watched (``python -m dials_mpi.watch``)."""

    def sources(self, region: int) -> Sequence[Source]:
        """The M influence sources of a region, in the order of its ``source_classes``."""
        ...

    def drawing(self, simulator: GlobalSimulator | LocalSimulator, axes: Axes, region: int | None) -> Drawing:
        """The picture of a global simulator, or of a local one of this region alone, which was reset."""
        ...
