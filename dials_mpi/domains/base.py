"""The contract of a domain: what its global simulator, local simulator and controllers provide.

Two kinds of index: agents i = 0..N-1 have observations, actions and rewards; regions k = 0..R-1 have a local
simulator, a d-set and influence sources, and contain one agent or several (Appendix E.2 of the paper).

Everything is batched: E is the number of episodes that run side by side. The first axis is that of agents or
regions, and learning code only indexes it (``observations[i]``, ``inputs[k]``). If agents or regions differ
in size, ``Rows`` may therefore be a list of arrays instead of an array ``[N, E, ...]`` or ``[R, E, ...]``.

Time: ``observations`` and ``inputs`` belong to the state before a step, ``sources`` to the step itself.
``reset`` and ``step`` return (observations, inputs) of the state that they reach; ``step`` also returns the
sources that acted during the step (Algorithm 2 of the paper: the pair (l_t, u_t)). A domain whose agents do
not decide at every step has an attribute ``decision_every``: int, the number of steps per decision. The
caller then gives a simulator the same actions so many times and adds up the rewards.

Arrays: those that ``reset`` and ``step`` return belong to the caller. No later call changes them, and what
the caller writes into them does not change the simulator: return new arrays or copies. Those that a simulator
is given (``where``, ``elapsed``, ``actions``, ``sources``) belong to the caller, too: a simulator neither
changes them nor keeps them after the call.

Random numbers: if regions draw random numbers, the global simulator also provides ``RegionDraws``, so that
``check`` can give the local simulators the draws of a recorded episode.

Approximations: a domain whose local simulators only approximate the regions has an attribute
``return_tolerance``: float, the largest share of the mean return by which, under the true influence sources
and random policies, that of the local simulators may differ. Without it ``check`` demands that they agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

Rows: TypeAlias = Sequence[np.ndarray] | np.ndarray
"""An array [E, ...] for each agent or region: a list of arrays, or an array [N, E, ...] or [R, E, ...]."""


class Part(NamedTuple):
    """A part of an observation or of a predictor's input, for networks that treat parts differently.

    start: its first number in the vector; shape: of the part, in row-major order; meaning: of its numbers,
    with unit. rows: the names of the entries along its first axis, () if they have none. actions: for each of
    these entries the agent's actions that belong to it, such as the greens of a lane; () if unknown.
    """

    name: str
    start: int
    shape: tuple[int, ...]
    meaning: str
    rows: tuple[str, ...] = ()
    actions: tuple[tuple[int, ...], ...] = ()

    @property
    def stop(self) -> int:
        """One more than the part's last number in the vector."""
        return self.start + prod(self.shape)

    def of(self, x: Any) -> Any:
        """The part of vectors [..., I], as an array or tensor [..., *shape]."""
        return x[..., self.start : self.stop].reshape(*x.shape[:-1], *self.shape)


Description: TypeAlias = tuple[Part, ...]
"""How a vector is laid out: its parts, one after another; () if that is unknown."""


def consecutive(*parts: Part) -> Description:
    """The parts one after another; the given ``start`` of each is ignored."""
    found: list[Part] = []
    for part in parts:
        found.append(part._replace(start=found[-1].stop if found else 0))
    return tuple(found)


def _whole(size: int) -> Description:
    return (Part("all", 0, (size,), "not described"),)


@dataclass(frozen=True)
class Agent:
    """Sizes of an agent: length O of its observation, and number of its discrete actions.

    parts: of its observation; a domain may leave them out. name, position: shown where results are shown; a
    domain may leave them out. position: (x, y) on a map of the system, x to the right and y up, in any unit.
    """

    observation_size: int
    actions: int
    parts: Description = ()
    name: str = field(default="", compare=False)
    position: tuple[float, float] | None = field(default=None, compare=False)

    @property
    def description(self) -> Description:
        """The parts; where they are unknown, one that has all numbers."""
        return self.parts or _whole(self.observation_size)


@dataclass(frozen=True)
class Region:
    """One local region (Definition 2): its agents, and the sizes of its influence predictor.

    agents: their indices, in the order of the local simulator; every agent is in exactly one region.
    input_size: length D of the predictor's input (the d-separating set, Appendix E.1).
    source_classes: number of classes C_m >= 2 of each of the M > 0 influence sources.
    input_type: of the predictor's input: uint8 (bits) or float32. parts: of this input; a domain may leave
    them out. A network gets bits as -1 and +1.
    """

    agents: tuple[int, ...]
    input_size: int
    source_classes: tuple[int, ...]
    input_type: str = "uint8"
    parts: Description = ()

    @property
    def description(self) -> Description:
        """The parts; where they are unknown, one that has all numbers."""
        return self.parts or _whole(self.input_size)


@dataclass(frozen=True)
class Statistic:
    """A statistic of an episode that a domain reports beside the return: name, unit and meaning.

    better: whether lower or higher values are better; "" if neither is.
    """

    name: str
    unit: str
    about: str
    better: Literal["lower", "higher", ""] = ""


class SimulatorFailure(Exception):
    """A simulator failed in ``reset`` or ``step``, and its state is lost.

    A ``reset`` of all episodes starts it again, with other episodes.
    """


class State(NamedTuple):
    """The visible part of a state.

    observations: [N, E, O], by agent; inputs: [R, E, D], input of the predictors, by region. Both are uint8
    (bits) or float32.
    """

    observations: Rows
    inputs: Rows


class GlobalStep(NamedTuple):
    """One step of the global simulator.

    state: after the step. sources: int [R, E, M], and rewards: float32 [N, E], of the step itself. done: bool
    [E], the episode has reached its time limit; the caller then resets these episodes.
    """

    state: State
    sources: Rows
    rewards: np.ndarray
    done: np.ndarray


class LocalStep(NamedTuple):
    """One step of the local simulators: as GlobalStep; the sources are an input here."""

    state: State
    rewards: np.ndarray
    done: np.ndarray


class GlobalSimulator(Protocol):
    """The whole system (GS): E episodes side by side; episode e draws random numbers from stream e only."""

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """Start new episodes in the mask ``where`` (bool [E], default all); return the state of all episodes.

        elapsed: int [E], the step counters of the new episodes (default 0), multiples of ``decision_every``,
        so that episodes side by side reach the time limit at different times.
        """
        ...

    def step(self, actions: np.ndarray) -> GlobalStep:
        """Advance all episodes by one step; actions: int [N, E].

        The caller gives existing actions in this shape, and resets episodes at their end before the next
        step: a simulator need not check either.
        """
        ...

    def statistics(self) -> dict[str, np.ndarray]:
        """The domain's statistics of the current episodes up to now, by name: float64 [E] each."""
        ...


@runtime_checkable
class RegionDraws(Protocol):
    """What a global simulator also provides if its regions draw random numbers."""

    def region_draws(self) -> Sequence[Sequence[np.ndarray]]:
        """The random numbers of the last ``reset`` or ``step`` on which each region depends: R sequences.

        Those of region k are what its local simulator of E environments draws from its stream in the same
        call: arrays [E, ...], one for each call of a method of the generator, in the same order. A region
        that draws nothing has an empty sequence. It is called only if all episodes were reset or advanced.
        The local simulator must call the methods of its stream from Python: ``check`` gives it another
        generator, whose methods return these numbers.
        """
        ...


class LocalSimulator(Protocol):
    """Some local regions (LS), E environments each; region r of R draws random numbers from stream r only.

    Its N agents are those of its regions, region after region, in the order of ``Region.agents``.
    """

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As GlobalSimulator.reset; environment e of every region has the same step counter."""
        ...

    def step(self, actions: np.ndarray, sources: Rows) -> LocalStep:
        """Advance by one step under the given sources, int [R, E, M]; actions: int [N, E]."""
        ...


class Controller(Protocol):
    """A hand-coded joint policy that reads the whole state of the global simulator."""

    def act(self) -> np.ndarray:
        """The actions for the current state, int [N, E]; called once before each decision."""
        ...


class Domain(Protocol):
    """A networked system of N agents in R local regions, built from its section of the configuration.

    The section may have a property ``system_name``: str, the name of the system, if the number of agents does
    not tell systems apart.
    """

    @property
    def name(self) -> str:
        """The key of its section."""
        ...

    @property
    def horizon(self) -> int:
        """Length of an episode, steps: a multiple of ``decision_every`` where the domain has that."""
        ...

    @property
    def agents(self) -> Sequence[Agent]:
        """The N agents."""
        ...

    @property
    def regions(self) -> Sequence[Region]:
        """The R regions."""
        ...

    @property
    def hand_coded(self) -> tuple[str, ...]:
        """Names of the hand-coded joint policies; the first one is the main comparison."""
        ...

    @property
    def statistics(self) -> tuple[Statistic, ...]:
        """Those that the global simulator reports of an episode beside the return."""
        ...

    @property
    def side_by_side(self) -> int | None:
        """The largest number of agents, times episodes, with which one simulator is fast; None: any number.

        Results do not depend on it. No caller asks for more, except for one region with all its environments
        or for one episode of the whole system: a simulator may raise ValueError then. With None, several
        ranks may play the same episodes, each on a simulator of its own, and act for some agents each. A
        domain may have another number for local simulators: an attribute ``local_side_by_side``.
        """
        ...

    def versions(self) -> dict[str, str]:
        """Versions of other software that the simulators need, by name. BadInput: it is not installed."""
        ...

    def global_simulator(self, streams: Sequence[np.random.Generator]) -> GlobalSimulator:
        """E = len(streams) episodes of the whole system."""
        ...

    def local_simulator(
        self, regions: Sequence[int], environments: int, streams: Sequence[np.random.Generator]
    ) -> LocalSimulator:
        """Local simulators of the given regions, which may differ in size: one stream and ``environments``
        episodes for each region."""
        ...

    def controller(self, name: str, simulator: Any, streams: Sequence[np.random.Generator]) -> Controller:
        """The hand-coded policy ``name`` for ``simulator``, a global simulator of this domain.

        It is called before the simulator's first ``reset``. Random choices in episode e use streams[e] only.
        """
        ...


@runtime_checkable
class Closable(Protocol):
    """A simulator with a resource that must be released: a process, a window."""

    def close(self) -> None:
        """Release it; a ``reset`` of all episodes starts the simulator again."""
        ...


class OnlyOne(NamedTuple):
    """A process can run one simulator at a time; otherwise: a setting that lifts this limit, or ""."""

    otherwise: str


@runtime_checkable
class Limited(Protocol):
    """What a domain also provides if a process cannot run any number of its simulators at a time."""

    @property
    def only_one(self) -> OnlyOne | None:
        """None: with these settings there is no limit. With one, a new simulator ends the one before."""
        ...


@runtime_checkable
class ChecksLocal(Protocol):
    """What a domain also provides if its local simulators need more than ``versions``."""

    def require_local(self) -> None:
        """BadInput: its local simulators cannot be used on this machine. Called before the first is made."""
        ...


class Survey(NamedTuple):
    """What a domain has found in its input files.

    columns, rows: a table as text, a row for each part of the system; warnings: what stands in the way of a
    good result, a sentence each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    warnings: tuple[str, ...]


@runtime_checkable
class Surveyed(Protocol):
    """What a domain that reads files may also provide, for ``python -m dials_mpi.check``."""

    def survey(self) -> Survey:
        """A report on the files. BadInput: they cannot be used."""
        ...


@runtime_checkable
class Mapped(Protocol):
    """What a domain with a map may also provide, for ``python -m dials_mpi.check --picture``."""

    def draw_map(self, axes: Axes, colours: Sequence[str] | None = None) -> None:
        """Draw all regions and their numbers in axes, and set the limits and the aspect.

        colours: of the R regions; None: some in which neighbours differ.
        """
        ...


@runtime_checkable
class Scored(Protocol):
    """What a domain with a map may also provide, for ``python -m dials_mpi.watch --before``."""

    def draw_scores(self, axes: Axes, simulator: Any) -> None:
        """Draw a map of how an episode of the global simulator went in each region, and set the limits.

        The simulator's episode is over. Colours mean the same in all maps.
        """
        ...


class Source(NamedTuple):
    """The name of an influence source of a region, and the names of its classes."""

    name: str
    classes: tuple[str, ...]


class Drawing(Protocol):
    """A picture of a simulator with one episode, in axes whose limits and aspect it has set."""

    @property
    def artists(self) -> Sequence[Artist]:
        """The artists of matplotlib that change from step to step, in the order in which they are drawn."""
        ...

    def update(self, sources: np.ndarray | None) -> None:
        """Show the simulator's current state; sources: int [M], of a local simulator's step, else None."""
        ...


@runtime_checkable
class Drawable(Protocol):
    """What a domain may also provide, for ``python -m dials_mpi.watch``."""

    def sources(self, region: int) -> Sequence[Source]:
        """The M influence sources of a region, in the order of its ``source_classes``."""
        ...

    def drawing(self, simulator: Any, axes: Axes, region: int | None) -> Drawing:
        """A picture of this domain's global simulator (region None), or of its local simulator of one region.

        The simulator has been reset.
        """
        ...


class Details(NamedTuple):
    """Figures about the parts of a system, over some episodes: a table; None where there is no figure.

    name: of the list in JSON. columns: their names and units ("" for none).
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[tuple[Any, ...], ...]


@runtime_checkable
class Detailed(Protocol):
    """What a domain may also provide, for ``python -m dials_mpi.evaluate``: more than the statistics."""

    def details(self, simulator: Any) -> Any:
        """What ``merged_details`` needs of a global simulator's episodes, which have just ended."""
        ...

    def merged_details(self, episodes: Sequence[Any]) -> Details:
        """The table over all episodes, from what ``details`` returned for each simulator."""
        ...


def local_side_by_side(domain: Domain) -> int | None:
    """``side_by_side`` of its local simulators."""
    return getattr(domain, "local_side_by_side", domain.side_by_side)


@runtime_checkable
class KeepsFiles(Protocol):
    """What a domain may also provide, for ``python -m dials_mpi.evaluate --tripinfo``, if its global
    simulators have one episode each."""

    def keep_files(self, simulator: Any, folder: Path) -> None:
        """Let the simulator leave its own files of the coming episode in a folder, which exists.

        It is called before the first ``reset``. BadInput: the folder cannot be used.
        """
        ...


@runtime_checkable
class Controllable(Protocol):
    """What a domain may also provide, for ``python -m dials_mpi.export --traci``."""

    def control(self) -> dict[str, Any]:
        """What export/traci_program.py needs to control the same scenario in SUMO; all values fit into JSON.

        Its docstring lists the keys.
        """
        ...
