"""What is recorded of the global simulator: the dataset of a region, and the acts of all agents."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dials_mpi.domains.base import Domain, Region


class Dataset:
    """D_i: what region i saw, and what influenced it, in K whole episodes of T steps.

    inputs [K, T, D]: the d-set before each step; sources uint8 [K, T, M]: the sources of that step. Bits are
    held as bits: ``inputs`` unpacks them at each access. stored: both arrays as they are held and sent, the
    bits as uint8 [K, T, ceil(D / 8)].
    """

    def __init__(self, inputs: np.ndarray, sources: np.ndarray) -> None:
        """inputs: uint8 (bits), which are copied, or float32, which are not; nor are the sources."""
        self._bits = inputs.shape[-1] if inputs.dtype == np.uint8 else None
        self.stored = self._packed(inputs), sources

    @classmethod
    def empty(cls, region: Region, episodes: int, horizon: int) -> Dataset:
        """Room for a region's dataset."""
        room = cls.__new__(cls)
        room._bits = region.input_size if np.dtype(region.input_type) == np.uint8 else None
        width = region.input_size if room._bits is None else -(-region.input_size // 8)
        room.stored = (
            np.empty((episodes, horizon, width), region.input_type),
            np.empty((episodes, horizon, len(region.source_classes)), np.uint8),
        )
        return room

    @property
    def inputs(self) -> np.ndarray:
        """See the class; bits are a new array."""
        return self.some(slice(None))[0]

    @property
    def sources(self) -> np.ndarray:
        """See the class; not copied."""
        return self.stored[1]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The inputs and the sources."""
        return iter(self.some(slice(None)))

    def some(self, part: slice) -> tuple[np.ndarray, np.ndarray]:
        """The inputs and the sources of some episodes."""
        inputs, sources = (array[part] for array in self.stored)
        return inputs if self._bits is None else np.unpackbits(inputs, axis=-1, count=self._bits), sources

    def record(self, part: slice, t: int, inputs: np.ndarray, sources: np.ndarray) -> None:
        """Set step t of some of the episodes: inputs [E, D] and sources [E, M]."""
        self.stored[0][part, t] = self._packed(inputs)
        self.stored[1][part, t] = sources

    def _packed(self, inputs: np.ndarray) -> np.ndarray:
        return inputs if self._bits is None else np.packbits(inputs, axis=-1)


class Acts(NamedTuple):
    """What the N agents did in K episodes of T steps, and their rewards.

    actions [K, T, N]: uint8, or uint16 where an agent has more than 256; rewards float32 [K, T, N]. Both of
    every step, also where a decision lasts several.
    """

    actions: np.ndarray
    rewards: np.ndarray

    @classmethod
    def empty(cls, domain: Domain, episodes: int) -> Acts:
        """Room for so many episodes."""
        shape = episodes, domain.horizon, len(domain.agents)
        most = max(agent.actions for agent in domain.agents)
        return cls(np.empty(shape, np.uint8 if most <= 256 else np.uint16), np.empty(shape, np.float32))
