"""What a signal is paid, by the names of sumo-rl: the sum over the seconds of a decision is its reward.

All but ``delay`` are paid in a decision's last second, from what SUMO says then.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import import_subclass
from dials_mpi.core.text import shown
from dials_mpi.domains.city.approaches import WAITING_UNIT, Approaches
from dials_mpi.domains.sumo.simulation import Simulation


class Reward:
    """A reward of K signals: ``second`` after every second, ``decision`` after a decision's last one."""

    def __init__(self, approaches: Approaches, decision_every: int) -> None:
        """decision_every: seconds of a decision."""
        self.approaches, self.decision_every = approaches, decision_every

    def reset(self, which: np.ndarray | None = None) -> None:
        """Episodes begin, without vehicles, at all signals or those of an index."""

    def second(self, simulation: Simulation) -> np.ndarray | float:
        """Paid for the second that has passed: float [K], or 0."""
        return 0.0

    def decision(self, simulation: Simulation) -> np.ndarray | float:
        """Paid for a decision as a whole: float [K], or 0. ``approaches`` has been read."""
        return 0.0


class Queue(Reward):
    """Minus the halting vehicles on the approaches at the end of the decision.

    Halting vehicles, summed over all seconds, are the waiting time, most of the delay at a signal; what
    slow but moving vehicles lose, and vehicles further upstream, are not in it.
    """

    def decision(self, simulation: Simulation) -> np.ndarray:
        """As Reward."""
        return -self.approaches.queues()


class Delay(Reward):
    """Minus the time that vehicles on the approaches lose against the speed limit, per second.

    A decision pays the mean over its seconds, in vehicles: ten vehicles that stand all the time pay -10.
    Summed up it is the part of SUMO's timeLoss that arises on these lanes.
    """

    def second(self, simulation: Simulation) -> np.ndarray:
        """As Reward."""
        return -self.approaches.time_lost(simulation) / self.decision_every


class Pressure(Reward):
    """The vehicles on the outgoing lanes minus those on the incoming ones.

    To keep it high keeps queues from growing without bound (max-pressure); it is no time, and a vehicle
    counts the same whether it stands or drives.
    """

    def decision(self, simulation: Simulation) -> np.ndarray:
        """As Reward."""
        approaches = self.approaches
        leaving = approaches.outgoing_values(simulation, "getLastStepVehicleNumber")
        return approaches.outgoing.sums(leaving) - approaches.incoming.sums(approaches.vehicles)


class AverageSpeed(Reward):
    """The mean over the vehicles on the incoming lanes of speed over allowed speed; 1 if there are none.

    One minus it is the share of time that a vehicle loses; as the mean does not grow with their number, a
    long queue costs no more than a short one.
    """

    def decision(self, simulation: Simulation) -> np.ndarray:
        """As Reward."""
        approaches = self.approaches
        share = np.zeros(len(approaches.vehicles))
        for i, names in approaches.vehicles_by_lane(simulation).items():
            speeds = simulation.ask("vehicle", "getSpeed", names)
            allowed = simulation.ask("vehicle", "getAllowedSpeed", names)
            share[i] = sum(map(float.__truediv__, speeds, allowed))
        count, total = (approaches.incoming.sums(values) for values in (approaches.vehicles, share))
        return np.where(count > 0, total / np.maximum(count, 1), 1.0)


class DiffWaitingTime(Reward):
    """By how much the waiting time of the vehicles on the incoming lanes fell, in units of WAITING_UNIT.

    A vehicle's waiting time is that on its lane; it leaves the sum as it passes the stop line. Without
    discounting, an episode's rewards sum up to minus the waiting of those who stand there at its end: only
    the discount makes an early green better than a late one.
    """

    def reset(self, which: np.ndarray | None = None) -> None:
        """As Reward."""
        if which is None:
            self._last = np.zeros(len(self.approaches.signals))
            self._before: dict[tuple[int, str], float] = {}
        else:
            self._last[which] = 0

    def decision(self, simulation: Simulation) -> np.ndarray:
        """As Reward."""
        waiting = self.approaches.incoming.sums(self.waiting(simulation)) / WAITING_UNIT
        reward, self._last = self._last - waiting, waiting
        return reward

    def waiting(self, simulation: Simulation) -> np.ndarray:
        """Seconds that the vehicles on each incoming lane have waited there, float [L].

        When a vehicle is seen on a lane for the first time, only its present stop counts.
        """
        total, before = np.zeros(len(self.approaches.vehicles)), self._before
        self._before = {}
        for i, names in self.approaches.vehicles_by_lane(simulation).items():
            times = simulation.ask("vehicle", "getAccumulatedWaitingTime", names)
            present = simulation.ask("vehicle", "getWaitingTime", names)
            for name, time, stop in zip(names, times, present, strict=True):
                start = self._before[i, name] = before.get((i, name), time - stop)
                total[i] += time - start
        return total


REWARDS: dict[str, Callable[[Approaches, int], Reward]] = {
    "diff-waiting-time": DiffWaitingTime,
    "queue": Queue,
    "pressure": Pressure,
    "average-speed": AverageSpeed,
    "delay": Delay,
}
"""The rewards by name; the first one is sumo-rl's default."""


def reward_class(name: str) -> Callable[[Approaches, int], Reward]:
    """The reward of this name, or a class of the user's, ``module:Class``. BadInput: there is none."""
    if name in REWARDS:
        return REWARDS[name]
    module, _, qualified = name.partition(":")
    if not module or not qualified:
        raise BadInput(
            f"city.reward is {shown(name)}: choose from {', '.join(REWARDS)}, or name a class of your own as "
            "module:Class"
        )
    return import_subclass("city.reward", name, Reward, "dials_mpi.domains.city.rewards.Reward")
