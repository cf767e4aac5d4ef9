"""Attention over the lanes of a junction: one module for junctions of a city with any number of lanes.

PYTHONPATH=examples/networks mpirun -n 3 python -m dials_mpi.train --config configs/city/cologne8.yaml
    policy.architecture=lanes:Lanes

Its parameters have the same shapes at all junctions: lanes and greens are sets, and only the description says
which lanes belong to which green.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Lanes(nn.Module):
    """Lanes attend to each other; a green's logit comes from the lanes that it serves, the value from all."""

    def __init__(
        self, inputs: int, outputs: int, description: tuple[Any, ...], width: int = 32, heads: int = 4
    ) -> None:
        """outputs: one for each green, and the value. width: features of a lane; heads: of the attention."""
        super().__init__()
        parts = {part.name: part for part in description}
        self.green, self.free = parts["green"], parts["free"]
        self.lanes = [part for part in description if part.actions]  # density, queue and perhaps waiting
        serves = torch.zeros(outputs - 1, len(self.lanes[0].rows))
        for lane, greens in enumerate(self.lanes[0].actions):
            serves[list(greens), lane] = 1
        self.register_buffer("serves", serves)
        self.encode = nn.Linear(len(self.lanes) + 1, width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.logit = nn.Sequential(nn.Linear(width + 2, width), nn.ReLU(), nn.Linear(width, 1))
        self.value = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        """x [B, I] -> a logit for each green and the value, [B, K]."""
        green = self.green.of(x)
        open_now = green @ self.serves  # [B, lanes]
        seen = torch.stack([*(part.of(x) for part in self.lanes), open_now], 2)
        lanes = self.encode(seen).relu()
        lanes = lanes + self.attention(lanes, lanes, lanes, need_weights=False)[0]
        served = self.serves @ lanes / self.serves.sum(1, keepdim=True).clamp(min=1)  # [B, greens, width]
        own = torch.stack([green, self.free.of(x).expand_as(green)], 2)
        logits = self.logit(torch.cat([served, own], 2)).squeeze(2)
        return torch.cat([logits, self.value(lanes.mean(1))], 1), None
