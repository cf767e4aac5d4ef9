"""Decisions that last several simulator steps (``decision_every`` of a domain): the action is repeated.

``decide`` plays a whole decision, for a caller that needs its result alone. ``held`` makes a joint policy
that is called at every simulator step, for a caller that records or draws each of them.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING

import numpy as np

# For annotations only: the local simulators' module loads numba.
if TYPE_CHECKING:
    from dials_mpi.algorithm.ials import Environment, Outcome
    from dials_mpi.algorithm.joint import JointPolicy
    from dials_mpi.domains.base import Rows


def decide(environment: Environment, actions: np.ndarray, every: int) -> Outcome:
    """Take the same actions, int [N, E], for ``every`` steps: the outcome of the last one, with the sum of
    the rewards."""
    outcome = environment.step(actions)
    for _ in range(every - 1):
        earned = np.array(outcome.rewards)  # a copy, even if a simulator wrongly reuses its arrays
        outcome = environment.step(actions)
        outcome = outcome._replace(rewards=earned + outcome.rewards)
    return outcome


def held(policy: JointPolicy, every: int) -> JointPolicy:
    """A joint policy to call at every step of whole episodes: ``policy`` decides at the first step of each
    decision, and its actions are repeated at the ``every - 1`` others."""
    if every == 1:
        return policy
    steps, actions = count(), np.empty(0, np.int64)

    def act(observations: Rows) -> np.ndarray:
        nonlocal actions
        if next(steps) % every == 0:
            actions = np.array(policy(observations))  # a copy: a controller may return the simulator's array
        return actions

    return act
