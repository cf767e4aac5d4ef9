"""A convolution over the 5 x 5 cells of a warehouse robot's region, in place of one long vector.

PYTHONPATH=examples/networks mpirun -n 3 python -m dials_mpi.train --config configs/warehouse/fast.yaml
    policy.architecture=floor:Floor

As a predictor, too: influence.architecture=floor:Floor. It has a memory, a GRU, because agents do not see the
ages of items.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import nn

SIZE = 5


class Floor(nn.Module):
    """Two planes, the robot and the items, through a convolution, a GRU and a linear layer."""

    def __init__(
        self, inputs: int, outputs: int, description: tuple[Any, ...], channels: int = 8, hidden: int = 64
    ) -> None:
        """description: of a region of one robot. channels: of the convolution; hidden: units of the GRU."""
        super().__init__()
        self.parts = {part.name: part for part in description}
        cells = [tuple(map(int, re.findall(r"\d+", name))) for name in self.parts["items"].rows]
        self.shelves = [SIZE * row + column for row, column in cells]
        self.convolution = nn.Conv2d(2, channels, kernel_size=3, padding=1)
        self.memory = nn.GRUCell(channels * SIZE * SIZE, hidden)
        self.head = nn.Linear(hidden, outputs)

    def initial_state(self, batch: int) -> torch.Tensor:
        """Zeros [batch, hidden]."""
        return torch.zeros(batch, self.memory.hidden_size)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: x [B, 37] -> outputs [B, K], state [B, hidden]."""
        state = self.memory(self.features(x), state)
        return self.head(state), state

    def sequence(self, x: torch.Tensor, state: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """All steps of x [S, B, 37] at once, but for the memory: outputs [S, B, K]."""
        states = []
        features = self.features(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        for seen, kept in zip(features, keep, strict=True):
            state = self.memory(seen, state * kept[:, None])
            states.append(state)
        return self.head(torch.stack(states))

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """The convolution of both planes, [rows, channels x 25]."""
        items = x.new_zeros(len(x), SIZE * SIZE)
        items[:, self.shelves] = self.parts["items"].of(x)
        planes = torch.stack([self.parts["location"].of(x), items.unflatten(1, (SIZE, SIZE))], 1)
        return self.convolution(planes).relu().flatten(1)
