"""Imports of Gymnasium and PettingZoo; no other file imports them."""

from __future__ import annotations

try:
    from gymnasium.spaces import Box, Discrete, Space
    from gymnasium.vector import AutoresetMode, VectorEnv
    from gymnasium.vector.utils import batch_space
    from pettingzoo import ParallelEnv
except ImportError as missing:
    raise ImportError(
        f"dials_mpi.gym needs Gymnasium and PettingZoo ({missing}): pip install 'dials_mpi[gym]'"
    ) from missing

__all__ = ["AutoresetMode", "Box", "Discrete", "ParallelEnv", "Space", "VectorEnv", "batch_space"]
