"""A global simulator that refuses steps which its contract does not allow, for users of the library.

Training does not need it: its loops give what the contract demands.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Domain, GlobalSimulator, GlobalStep, State


def guarded(simulator: GlobalSimulator, domain: Domain, episodes: int) -> GlobalSimulator:
    """The same simulator, with a ``step`` that raises BadInput.

    It does so for actions that do not exist or are of another shape than [N, E], and while an episode has
    ended or not begun.
    """
    reset, step = simulator.reset, simulator.step
    over = np.ones(episodes, bool)

    def guarded_reset(where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        state = reset(where, elapsed)
        over[slice(None) if where is None else where] = False
        return state

    def guarded_step(actions: Any) -> GlobalStep:
        if over.any():
            ended = int(np.flatnonzero(over)[0])
            raise BadInput(f"episode {ended} has ended or not begun: call reset, for example with where=done")
        outcome = step(_actions(actions, domain, episodes))
        over[:] = outcome.done
        return outcome

    # The object stays of its class, which controllers and drawings look at.
    vars(simulator).update(reset=guarded_reset, step=guarded_step)
    return simulator


def _actions(given: Any, domain: Domain, episodes: int) -> np.ndarray:
    """The actions as an array. BadInput: they are none for these agents and episodes."""
    actions, shape = np.asarray(given), (len(domain.agents), episodes)
    if actions.shape != shape or actions.dtype.kind not in "iu":
        raise BadInput(
            f"actions are {actions.dtype.name} of shape {list(actions.shape)}: give whole numbers of shape "
            f"{list(shape)}, by agent and episode"
        )
    counts = np.array([agent.actions for agent in domain.agents])[:, None]
    for agent, episode in np.argwhere((actions < 0) | (actions >= counts))[:1].tolist():
        raise BadInput(
            f"the action of agent {agent} in episode {episode} is {actions[agent, episode]}: give one from 0 "
            f"to {counts[agent, 0] - 1}"
        )
    return actions
