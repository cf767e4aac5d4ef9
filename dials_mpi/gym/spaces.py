"""What an agent sees and does, as Gymnasium's spaces: the only place here that reads an agent's sizes."""

from __future__ import annotations

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
