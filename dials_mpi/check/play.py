"""Play and record episodes of the global simulator, and of local ones under given influence sources."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from typing import Any

import numpy as np

from dials_mpi.algorithm.collect import parts
from dials_mpi.algorithm.decisions import held
from dials_mpi.algorithm.joint import JointPolicy
from dials_mpi.check.draws import Draws, region_draws, simulator_of
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import Domain, Rows, State, local_side_by_side
from dials_mpi.domains.decisions import decision_steps
from dials_mpi.domains.members import Members

Maker = Callable[[Sequence[int], Sequence[np.random.Generator]], JointPolicy]
"""Makes the joint policy of some agents; one stream per episode."""


@dataclass
class Played:
    """T steps of E episodes: states before each step and after the last, and the results of each step.

    draws: of the reset and of each step, where the global simulator says them, else None. streams: of the
    local simulators' regions, after the episodes.
    """

    states: list[State] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    rewards: list[np.ndarray] = field(default_factory=list)
    done: list[np.ndarray] = field(default_factory=list)
    statistics: dict[str, np.ndarray] = field(default_factory=dict)
    draws: list[Draws] | None = None
    streams: list[np.random.Generator] = field(default_factory=list)

    @property
    def returns(self) -> np.ndarray:
        """Undiscounted, [N, E]."""
        return np.asarray(np.sum(self.rewards, axis=0, dtype=np.float64))

    def only(self, episode: int) -> Played:
        """One of the episodes."""

        def cut(rows: Any) -> list[np.ndarray]:
            return [np.asarray(row)[episode : episode + 1] for row in rows]

        return Played(
            [State(cut(state.observations), cut(state.inputs)) for state in self.states],
            rewards=[np.asarray(rewards)[:, episode : episode + 1] for rewards in self.rewards],
            sources=[cut(sources) for sources in self.sources],
        )

    def part(self, agents: Sequence[int], regions: Sequence[int]) -> Played:
        """Some of the agents and regions, by their indices here."""
        return Played(
            [
                State([state.observations[i] for i in agents], [state.inputs[k] for k in regions])
                for state in self.states
            ],
            rewards=[np.asarray(rewards)[list(agents)] for rewards in self.rewards],
            sources=[[sources[k] for k in regions] for sources in self.sources],
        )

    def differs_from(self, other: Played) -> int | None:
        """The first step at which anything differs in any bit; None: nothing does."""
        for t, (one, two) in enumerate(zip(self.states, other.states, strict=True)):
            if not (_same(one.observations, two.observations) and _same(one.inputs, two.inputs)):
                return t
            if t < len(self.rewards):
                same = np.array_equal(self.rewards[t], other.rewards[t])
                if not same or not _same(self.sources[t], other.sources[t]):
                    return t + 1
        return None


def _beside(played: Sequence[Played]) -> Played:
    """Episodes that were played one part after another, as if all were played side by side."""
    if len(played) == 1:
        return played[0]

    def rows(those: Sequence[Rows]) -> list[np.ndarray]:
        return [np.concatenate(row) for row in zip(*those, strict=True)]

    states = zip(*(part.states for part in played), strict=True)
    return Played(
        [State(rows([s.observations for s in those]), rows([s.inputs for s in those])) for those in states],
        [np.hstack(those) for those in zip(*(part.actions for part in played), strict=True)],
        [rows(those) for those in zip(*(part.sources for part in played), strict=True)],
        [np.hstack(those) for those in zip(*(part.rewards for part in played), strict=True)],
        [np.hstack(those) for those in zip(*(part.done for part in played), strict=True)],
        {name: np.hstack([part.statistics[name] for part in played]) for name in played[0].statistics},
        None if played[0].draws is None else [_joined(those) for those in _calls(played)],
    )


def _calls(played: Sequence[Played]) -> Iterator[tuple[Draws, ...]]:
    """The draws of each call, by part."""
    return zip(*(part.draws or [] for part in played), strict=True)


def _joined(parts: Sequence[Draws]) -> Draws:
    """The draws of one call in several parts of the episodes, as if all were played side by side."""
    regions = zip(*parts, strict=True)
    return [[np.concatenate(arrays) for arrays in zip(*region, strict=True)] for region in regions]


def _together(played: Sequence[Played]) -> Played:
    """Groups of regions that were played one after another, as if one simulator had played all of them.

    done: [groups x E] where there are several.
    """
    if len(played) == 1:
        return played[0]

    def joined(those: Sequence[Rows]) -> list[np.ndarray]:
        return list(chain.from_iterable(those))

    states = zip(*(group.states for group in played), strict=True)
    return Played(
        [
            State(joined([s.observations for s in those]), joined([s.inputs for s in those]))
            for those in states
        ],
        sources=[joined(those) for those in zip(*(group.sources for group in played), strict=True)],
        rewards=[np.vstack(those) for those in zip(*(group.rewards for group in played), strict=True)],
        done=[np.hstack(those) for those in zip(*(group.done for group in played), strict=True)],
        streams=list(chain.from_iterable(group.streams for group in played)),
    )


def _same(one: Rows, other: Rows) -> bool:
    pairs = zip(one, other, strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in pairs)


def agents_of(domain: Domain, regions: Sequence[int]) -> list[int]:
    """The agents that some regions hold, region after region."""
    return Members(domain.regions).of(regions)


def groups(domain: Domain, regions: Sequence[int], environments: int) -> list[list[int]]:
    """The regions as they are simulated: those of a group in one local simulator."""
    most = local_side_by_side(domain)
    if most is None:
        return [list(regions)]
    return Members(domain.regions).groups(regions, most // environments)


def play_globally(
    domain: Domain, seed: int, episodes: int, only: int | None = None, policy: Maker | None = None
) -> Played:
    """Whole episodes of the global simulator, as many side by side as suits the domain.

    only: one of the episodes, played alone; policy: of all agents, default random.
    """
    chosen = [slice(only, only + 1)] if only is not None else parts(domain, episodes)
    return _beside([_play_part(domain, seed, episodes, part, policy) for part in chosen])


def _play_part(domain: Domain, seed: int, episodes: int, part: slice, policy: Maker | None) -> Played:
    everybody = range(len(domain.agents))
    simulator = domain.global_simulator(streams(seed, Purpose.EVALUATION, episodes)[part])
    every = random_actions(domain, everybody, seed, episodes)
    acting: JointPolicy = lambda _: next(every)[:, part]  # noqa: E731
    if policy:
        own = streams(seed, Purpose.EVALUATION_ACTIONS, episodes)[part]
        acting = held(policy(everybody, own), decision_steps(domain))
    state = simulator.reset()
    played, size = Played([_copied(state)]), (len(domain.regions), len(range(episodes)[part]))
    draws = [region_draws(simulator, *size)]
    for _ in range(domain.horizon):
        actions = acting(state.observations)
        step = simulator.step(actions)
        state = step.state
        played.actions.append(actions)
        _record(played, step, step.sources)
        draws.append(region_draws(simulator, *size))
    played.draws = [call for call in draws if call is not None] or None
    played.statistics = simulator.statistics()
    return played


def play_locally(
    domain: Domain,
    seed: int,
    regions: Sequence[int],
    episodes: int,
    sources: Sequence[Any] | None = None,
    actions: Sequence[np.ndarray] | None = None,
    actions_seed: int | None = None,
    draws: Sequence[Draws] | None = None,
) -> Played:
    """Whole episodes of some regions, as many side by side as suits the domain.

    sources [T][R][E, M] and actions [T][A, E]: default random. actions_seed: seed of random actions and
    sources, default ``seed``. draws: recorded ones, [T + 1] calls with all regions; default new ones.
    """
    order, places = agents_of(domain, regions), {k: place for place, k in enumerate(regions)}
    played = []
    for group in groups(domain, regions, episodes):
        own = [order.index(i) for i in agents_of(domain, group)]
        played.append(
            _play_group(
                *(domain, seed, group, episodes),
                None if sources is None else [[step[places[k]] for k in group] for step in sources],
                None if actions is None else [step[own] for step in actions],
                seed if actions_seed is None else actions_seed,
                draws,
            )
        )
    return _together(played)


def _play_group(
    domain: Domain,
    seed: int,
    regions: Sequence[int],
    episodes: int,
    sources: Sequence[Any] | None,
    actions: Sequence[np.ndarray] | None,
    chance: int,
    draws: Sequence[Draws] | None,
) -> Played:
    simulator = simulator_of(domain, regions, episodes, seed, draws)
    given = iter(random_sources(domain, regions, chance, episodes) if sources is None else sources)
    agents = agents_of(domain, regions)
    chosen = iter(random_actions(domain, agents, chance, episodes) if actions is None else actions)
    played = Played([_copied(simulator.reset())])
    for _ in range(domain.horizon):
        influence = next(given)
        _record(played, simulator.step(next(chosen), influence), influence)
    played.streams = list(simulator.streams)
    return played


def random_actions(domain: Domain, agents: Sequence[int], seed: int, episodes: int) -> Iterator[np.ndarray]:
    """Endless random actions of each step, int64 [A, E]; each agent has its own rng.

    They are the same for the steps of a decision.
    """
    every = streams(seed, Purpose.EVALUATION_ACTIONS, len(domain.agents))
    while True:
        drawn = np.stack([every[i].integers(domain.agents[i].actions, size=episodes) for i in agents])
        yield from repeat(drawn, decision_steps(domain))


def random_sources(
    domain: Domain, regions: Sequence[int], seed: int, episodes: int
) -> Iterator[list[np.ndarray]]:
    """Endless sources, int64 [R][E, M], with equal probabilities; each region has its own rng."""
    every = streams(seed, Purpose.SOURCES, len(domain.regions))
    while True:
        yield [
            every[k].integers(
                domain.regions[k].source_classes, size=(episodes, len(domain.regions[k].source_classes))
            )
            for k in regions
        ]


def _record(played: Played, step: Any, sources: Any) -> None:
    played.states.append(_copied(step.state))
    played.sources.append([np.array(part) for part in sources])
    played.rewards.append(np.array(step.rewards))
    played.done.append(np.array(step.done))


def _copied(state: State) -> State:
    """A copy, since a simulator that breaks the contract may change its arrays later."""
    return State([np.array(part) for part in state.observations], [np.array(part) for part in state.inputs])
