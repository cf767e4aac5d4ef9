"""Check the contract of domains/base.py: shapes and ranges, the time limit, seeds, parallel episodes."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dials_mpi.algorithm.collect import parts
from dials_mpi.algorithm.decisions import held
from dials_mpi.check.arrays import require_own_arrays
from dials_mpi.check.draws import simulator_of
from dials_mpi.check.findings import Breach, Finding, Verdict, good, note, require
from dials_mpi.check.play import (
    Played,
    agents_of,
    groups,
    play_globally,
    play_locally,
    random_actions,
    random_sources,
)
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import Agent, Controller, Description, Domain, Rows, State, Statistic
from dials_mpi.domains.decisions import decision_steps

EPISODES = 3
OTHER_SEED = 1


def check_contract(domain: Domain, seed: int) -> Iterator[Finding]:
    """One finding for each part of the contract, up to the first violation."""
    for what, look in (
        ("the domain describes itself", _check_description),
        ("the global simulator: shapes, types, ranges", _check_global),
        ("the global simulator: the same for the same seed", _check_global_seeds),
        ("the global simulator: an episode does not depend on others beside it", _check_global_alone),
        ("the global simulator: episodes that begin later, restarts", _check_global_restarts),
        ("the global simulator: arrays belong to the caller", _check_global_arrays),
        ("the local simulators: shapes, types, ranges", _check_local),
        ("the local simulators: the same for the same seed", _check_local_seeds),
        ("the local simulators: a region does not depend on others beside it", _check_local_alone),
        ("the local simulators: environments that begin later, restarts", _check_local_restarts),
        ("the local simulators: arrays belong to the caller", _check_local_arrays),
        ("hand-coded policies act on the global simulator", _check_controllers),
    ):
        try:
            yield look(what, domain, seed)
        except Breach as breach:
            yield Finding(what, Verdict.WRONG, str(breach))
            return
        except Exception as error:  # a domain that breaks the contract may raise anything
            yield Finding(what, Verdict.WRONG, _described(error))
            return


def _described(error: Exception) -> str:
    """An exception, and the line that raised it: the last one of the domain, else of this package."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "dials_mpi" not in Path(frame.filename).parts] or frames
    last = own[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno}: {last.line})"


def _check_description(what: str, domain: Domain, seed: int) -> Finding:
    require(isinstance(domain.horizon, int) and domain.horizon > 0, f"horizon is {domain.horizon!r}")
    every = decision_steps(domain)
    require(isinstance(every, int) and every > 0, f"decision_every is {every!r}")
    require(
        domain.horizon % every == 0, f"horizon is {domain.horizon}, not a multiple of decision_every={every}"
    )
    require(len(domain.regions) > 0, "there are no regions")
    for statistic in domain.statistics:
        require(isinstance(statistic, Statistic), f"statistics has {statistic!r}, which is no Statistic")
        require(
            statistic.better in ("lower", "higher", ""),
            f"statistic {statistic.name} is better {statistic.better!r}, not lower, higher or empty",
        )
    for i, agent in enumerate(domain.agents):
        require(agent.actions >= 2, f"agent {i} has {agent.actions} actions: it has no choice")
        require(agent.observation_size >= 1, f"agent {i} observes nothing")
        _require_parts(agent.description, agent.observation_size, f"agent {i}")
    held = sorted(agent for region in domain.regions for agent in region.agents)
    require(
        held == list(range(len(domain.agents))), f"the regions hold the agents {held}, not each of them once"
    )
    for k, region in enumerate(domain.regions):
        require(region.input_size >= 1, f"region {k} has no input for its predictor")
        require(len(region.source_classes) >= 1, f"region {k} has no influence source")
        require(min(region.source_classes) >= 2, f"region {k} has a source of one class, which is constant")
        require(max(region.source_classes) <= 256, f"region {k} has a source of more than 256 classes")
        require(region.input_type in ("uint8", "float32"), f"region {k} has inputs of {region.input_type}")
        _require_parts(region.description, region.input_size, f"region {k}")
    sizes = {(agent.observation_size, agent.actions) for agent in domain.agents}
    kinds = len(sizes), len({_sizes(region) for region in domain.regions})
    return good(
        what,
        f"{len(domain.regions)} regions of {kinds[1]} kind(s), {len(domain.agents)} agents of {kinds[0]}, "
        f"{domain.horizon} steps" + (f", {every} in each decision" if every > 1 else ""),
    )


def _require_parts(parts: Description, size: int, whose: str) -> None:
    """Breach: the parts of a vector do not lie one after another up to its end, or rows lack names."""
    at = 0
    for part in parts:
        require(part.start == at, f"part {part.name} of {whose} starts at {part.start}, not {at}")
        for entries in filter(None, (part.rows, part.actions)):
            count = part.shape[0]
            require(
                len(entries) == count, f"part {part.name} of {whose} names {len(entries)} of {count} rows"
            )
        at = part.stop
    require(at == size, f"the parts of {whose} end at {at}, and its vector has {size} numbers")


def _sizes(region: Any) -> tuple[Any, ...]:
    return len(region.agents), region.input_size, region.source_classes, region.input_type


def _check_global(what: str, domain: Domain, seed: int) -> Finding:
    played = play_globally(domain, seed, EPISODES)
    every = range(len(domain.agents))  # in their own order, not in that of the regions
    _require_states(played.states, domain, every, range(len(domain.regions)), EPISODES)
    for k, region in enumerate(domain.regions):
        sources = np.stack([np.asarray(step[k]) for step in played.sources])
        _require_sources(sources, region.source_classes, f"sources of region {k}", EPISODES)
    _require_rewards(played, len(domain.agents), EPISODES)
    names = {statistic.name for statistic in domain.statistics}
    require(
        set(played.statistics) == names,
        f"statistics() gives {sorted(played.statistics)}, not {sorted(names)}",
    )
    for name, values in played.statistics.items():
        require(np.shape(values) == (EPISODES,), f"the statistic {name} is of shape {np.shape(values)}")
    returns = played.returns.mean()
    return good(what, f"{EPISODES} episodes under random policies, mean return {returns:.4g}")


def _check_local(what: str, domain: Domain, seed: int) -> Finding:
    regions = range(len(domain.regions))
    played = play_locally(domain, seed, regions, EPISODES)
    _require_states(played.states, domain, agents_of(domain, regions), regions, EPISODES)
    _require_rewards(played, len(domain.agents), EPISODES)
    return good(what, f"random sources, mean return {played.returns.mean():.4g}")


def _require_states(
    states: Sequence[State], domain: Domain, agents: Sequence[int], regions: Sequence[int], episodes: int
) -> None:
    """Breach: a state is not of the sizes that the domain gives for these agents and regions."""
    for t, state in enumerate(states):
        require(len(state.observations) == len(agents), f"{len(state.observations)} observations in step {t}")
        require(len(state.inputs) == len(regions), f"{len(state.inputs)} inputs in step {t}")
        for i, seen in zip(agents, state.observations, strict=True):
            size = domain.agents[i].observation_size
            _require_array(
                np.asarray(seen), (episodes, size), ("uint8", "float32"), f"observations of agent {i}"
            )
        for k, given in zip(regions, state.inputs, strict=True):
            region = domain.regions[k]
            kind = (region.input_type,)
            _require_array(np.asarray(given), (episodes, region.input_size), kind, f"inputs of region {k}")


def _require_array(array: np.ndarray, shape: tuple[int, ...], kinds: Sequence[str], whose: str) -> None:
    require(array.shape == shape, f"{whose} are of shape {list(array.shape)}, not {list(shape)}")
    require(array.dtype.name in kinds, f"{whose} are {array.dtype.name}, not {' or '.join(kinds)}")
    bits = array.dtype != np.uint8 or not array.size or array.max() <= 1
    require(bits, f"{whose} are uint8 up to {array.max(initial=0)}, not bits: give float32")
    require(bool(np.isfinite(array).all()), f"{whose} are not finite")


def _require_sources(sources: np.ndarray, classes: Sequence[int], whose: str, episodes: int) -> None:
    shape = (episodes, len(classes))
    require(sources.shape[1:] == shape, f"{whose} are of shape {list(sources.shape[1:])}, not {list(shape)}")
    require(sources.dtype.kind in "iu", f"{whose} are {sources.dtype.name}, not whole numbers")
    low, high = sources.min(axis=(0, 1)), sources.max(axis=(0, 1))
    require(
        bool((low >= 0).all() and (high < classes).all()),
        f"{whose} are {low.min()} to {high.max()}, outside their classes {tuple(classes)}",
    )


def _require_rewards(played: Played, agents: int, episodes: int) -> None:
    shapes = {np.shape(rewards) for rewards in played.rewards}
    require(
        shapes == {(agents, episodes)}, f"rewards are of shape {sorted(shapes)}, not {[agents, episodes]}"
    )
    kinds = {rewards.dtype.name for rewards in played.rewards}
    require(kinds == {"float32"}, f"rewards are {', '.join(sorted(kinds))}, not float32")
    require(bool(np.isfinite(np.stack(played.rewards)).all()), "rewards are not finite")
    ends = [t for t, done in enumerate(played.done, start=1) if np.any(done)]
    require(
        ends == [len(played.done)] and bool(np.all(played.done[-1])),
        f"done is set after steps {ends[:3]}, not after the last one, {len(played.done)}, alone",
    )


def _check_global_seeds(what: str, domain: Domain, seed: int) -> Finding:
    return _compare_seeds(what, lambda own: play_globally(domain, own, EPISODES), seed)


def _check_local_seeds(what: str, domain: Domain, seed: int) -> Finding:
    regions = range(len(domain.regions))
    return _compare_seeds(
        what, lambda own: play_locally(domain, own, regions, EPISODES, actions_seed=seed), seed
    )


def _compare_seeds(what: str, play: Callable[[int], Played], seed: int) -> Finding:
    first, again = play(seed), play(seed)
    step = first.differs_from(again)
    require(
        step is None,
        f"two runs with one seed differ from step {step} on: something other than the rngs decides",
    )
    if first.differs_from(play(seed + OTHER_SEED)) is None:
        return note(what, "and for another seed as well: nothing is random")
    return good(what, "and another one for another seed")


def _check_global_alone(what: str, domain: Domain, seed: int) -> Finding:
    together = play_globally(domain, seed, EPISODES)
    alone = play_globally(domain, seed, EPISODES, only=EPISODES - 1)
    step = together.only(EPISODES - 1).differs_from(alone)
    require(step is None, f"an episode played alone differs from step {step} on")
    return good(what)


def _check_local_alone(what: str, domain: Domain, seed: int) -> Finding:
    together = play_locally(domain, seed, range(len(domain.regions)), EPISODES)
    last = len(domain.regions) - 1
    alone = play_locally(domain, seed, [last], EPISODES)
    places = [agents_of(domain, range(len(domain.regions))).index(i) for i in domain.regions[last].agents]
    step = together.part(places, [last]).differs_from(alone)
    require(step is None, f"region {last} simulated alone differs from step {step} on")
    return good(what)


def _check_global_restarts(what: str, domain: Domain, seed: int) -> Finding:
    episodes = _side_by_side(domain)
    simulator = domain.global_simulator(streams(seed, Purpose.EVALUATION, episodes))
    actions = random_actions(domain, range(len(domain.agents)), seed, episodes)
    return _check_clock(what, domain, simulator, lambda: simulator.step(next(actions)), episodes)


def _side_by_side(domain: Domain) -> int:
    """Two episodes in one global simulator, or one if that suits the domain."""
    return len(range(2)[parts(domain, 2)[0]])


def _check_local_restarts(what: str, domain: Domain, seed: int) -> Finding:
    found = [
        _check_group_restarts(what, domain, seed, group)
        for group in groups(domain, range(len(domain.regions)), 2)
    ]
    return found[0]


def _check_group_restarts(what: str, domain: Domain, seed: int, regions: Sequence[int]) -> Finding:
    own = streams(seed, Purpose.SIMULATOR, len(domain.regions))
    simulator = domain.local_simulator(regions, 2, [own[k] for k in regions])
    actions = random_actions(domain, agents_of(domain, regions), seed, 2)
    sources = random_sources(domain, regions, seed, 2)
    return _check_clock(what, domain, simulator, lambda: simulator.step(next(actions), next(sources)), 2)


def _check_clock(
    what: str, domain: Domain, simulator: Any, step: Callable[[], Any], episodes: int
) -> Finding:
    """Play two episodes; one begins after half of its decisions, and is reset at its end.

    episodes: 1 if that one is played alone.
    """
    horizon, every = domain.horizon, decision_steps(domain)
    half = horizon // every // 2 * every
    if not half:
        return note(what, "episodes of one decision: not checked")
    late = episodes - 1
    simulator.reset(elapsed=np.array([0, half])[-episodes:])
    ends = []
    for t in range(1, horizon + 1):
        outcome = step()
        done = np.asarray(outcome.done)
        fits = done.shape == (episodes,) and done.dtype == bool
        require(fits, f"done is {done.dtype.name} {list(done.shape)}")
        ends += [(t, int(e)) for e in np.flatnonzero(done)]
        if done.any() and t < horizon:
            after = simulator.reset(where=done)
            for before, now in zip(outcome.state.observations, after.observations, strict=True):
                same = np.array_equal(np.asarray(before)[~done], np.asarray(now)[~done])
                require(same, "a restart of one episode changes the observations of another")
    shorter = (horizon - half, late) in ends
    which = "the second one" if late else "the only one"
    require(shorter, f"episodes end at {ends}: elapsed={half} does not shorten {which}")
    require(episodes == 1 or (horizon, 0) in ends, "a restart of one episode changes the clock of another")
    return good(what)


def _check_global_arrays(what: str, domain: Domain, seed: int) -> Finding:
    episodes = _side_by_side(domain)
    make = partial(_global_simulator, domain, seed, episodes)
    require_own_arrays(domain, seed, make, episodes)
    return good(what)


def _global_simulator(domain: Domain, seed: int, episodes: int) -> Any:
    return domain.global_simulator(streams(seed, Purpose.EVALUATION, episodes))


def _check_local_arrays(what: str, domain: Domain, seed: int) -> Finding:
    group = groups(domain, range(len(domain.regions)), 2)[0]
    require_own_arrays(domain, seed, partial(simulator_of, domain, group, 2, seed), 2, group)
    return good(what)


def _act(controller: Controller, observations: Rows) -> np.ndarray:
    return np.asarray(controller.act())


def _check_controllers(what: str, domain: Domain, seed: int) -> Finding:
    if not domain.hand_coded:
        return note(what, "there are none to compare with")
    agents: Sequence[Agent] = domain.agents
    counts, episodes = np.array([agent.actions for agent in agents])[:, None], _side_by_side(domain)
    for name in domain.hand_coded:
        simulator = domain.global_simulator(streams(seed, Purpose.EVALUATION, episodes))
        own = streams(seed, Purpose.EVALUATION_ACTIONS, episodes)
        controller = domain.controller(name, simulator, own)
        require(
            hasattr(controller, "act"),
            f"controller({name!r}, ...) gives {controller!r}, which has no method act",
        )
        state, every = simulator.reset(), decision_steps(domain)
        acting = held(partial(_act, controller), every)
        for _ in range(min(domain.horizon, 20 * every)):
            actions = acting(state.observations)
            fits = actions.shape == (len(agents), episodes)
            require(fits, f"{name} gives actions of shape {list(actions.shape)}")
            require(
                bool(((actions >= 0) & (actions < counts)).all()),
                f"{name} chooses an action that does not exist",
            )
            simulator.step(actions)
    return good(what, ", ".join(domain.hand_coded))
