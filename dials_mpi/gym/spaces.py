"""Observations and actions of an agent as Gymnasium spaces."""

from __future__ import annotations

import operator
import reprlib
from typing import Any

import numpy as np

from dials_mpi.domains.base import Domain
from dials_mpi.gym.libraries import Box, Discrete


def observation_space(observations: np.ndarray) -> Box:
    """The space of one agent's observation, float32 [O], given some of its simulator's, [E, O].

    Bits (uint8) come as 0.0 and 1.0 in place of a MultiBinary: every trainer feeds a float32 Box to a network
    as it is, while others want integers to be converted, or take them for pictures.
    """
    low, high = (0, 1) if observations.dtype == np.uint8 else (-np.inf, np.inf)
    return Box(low, high, observations.shape[1:], np.float32)


def action_space(domain: Domain, agent: int) -> Discrete:
    """The space of an agent's actions: 0 to their number less one."""
    return Discrete(domain.agents[agent].actions)


def action_of(space: Discrete, action: Any) -> int | None:
    """One agent's action as an int, be it Python's, numpy's or torch's; None: it is none of the agent's."""
    try:
        number = operator.index(action.item() if hasattr(action, "item") else action)
    except (TypeError, ValueError, RuntimeError):  # torch's, of several elements
        return None
    return number if 0 <= number < space.n else None


def actions_of(space: Discrete, actions: Any, environments: int) -> np.ndarray:
    """An agent's actions in so many environments, int64 [E]: an array, a tensor or a list of them.

    The compiled simulators look at no bounds. ValueError: they are not so many, or one is not the agent's.
    """
    given = actions.tolist() if hasattr(actions, "tolist") else actions
    numbers = [action_of(space, one) for one in given] if isinstance(given, list | tuple) else []
    if len(numbers) != environments or None in numbers:
        must = f"{environments} of 0 to {space.n - 1}, integers"
        raise ValueError(f"the actions are {reprlib.repr(actions)}: give {must}")
    return np.array(numbers, np.int64)
