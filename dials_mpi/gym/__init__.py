"""The simulators as PettingZoo and Gymnasium environments, for other trainers (extra ``gym``).

    from dials_mpi.gym import GlobalEnv, RegionEnv

    system = GlobalEnv.from_config("configs/warehouse/4.yaml")          # PettingZoo: a ParallelEnv
    region = RegionEnv.from_run("runs/warehouse-4-dials-seed0", 2)      # Gymnasium: a VectorEnv

``GlobalEnv`` is the global simulator with all agents; ``RegionEnv`` the influence-augmented local
simulator (IALS) of one region, many environments side by side. A ``step`` is one decision of the agents: in a
domain with ``decision_every`` so many simulator steps under the same actions, with the sum of their rewards.
Both report the end of an episode as
truncated, never terminated: it is a time limit. In the traffic domain a process can run one SUMO at a time:
a new environment ends the previous one. vector.py has ``RegionEnv``, parallel.py ``GlobalEnv``.
"""

from dials_mpi.gym.parallel import GlobalEnv
from dials_mpi.gym.vector import RegionEnv

__all__ = ["GlobalEnv", "RegionEnv"]
