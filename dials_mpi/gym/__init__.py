"""Our simulators for other people's trainers: PettingZoo's and Gymnasium's interfaces (extra ``gym``).

    from dials_mpi.gym import GlobalEnv, RegionEnv

    system = GlobalEnv.from_config("configs/warehouse/4.yaml")          # PettingZoo: a ParallelEnv
    region = RegionEnv.from_run("runs/warehouse-4-dials-seed0", 2)      # Gymnasium: a VectorEnv

``GlobalEnv`` is the global simulator, all agents together; ``RegionEnv`` the influence-augmented local
simulator (IALS) of one region, many environments side by side. Both report the end of an episode as
truncated, never terminated: it is a time limit. In the traffic domain a process holds one SUMO at a time:
an environment that begins there ends the one before it.
"""

from dials_mpi.gym.parallel import GlobalEnv
from dials_mpi.gym.vector import RegionEnv

__all__ = ["GlobalEnv", "RegionEnv"]
