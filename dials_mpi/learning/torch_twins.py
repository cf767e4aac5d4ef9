"""The built-in networks in PyTorch: the same parameters in the same order, for comparison and as examples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from dials_mpi.domains.base import Description


class TwinFNN(nn.Module):
    """The built-in FNN in PyTorch: the same parameters in the same order."""

    def __init__(self, inputs: int, outputs: int, description: Description, hidden: tuple[int, int]) -> None:
        super().__init__()
        first, second = hidden
        self.first = nn.Linear(inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, outputs)

    def forward(self, x: torch.Tensor, state: None) -> tuple[torch.Tensor, None]:
        """One step: x [B, I] -> outputs [B, K]."""
        return self.head(self.second(self.first(x).relu()).relu()), None


class TwinGRU(nn.Module):
    """The built-in GRU in PyTorch: the same parameters in the same order."""

    def __init__(self, inputs: int, outputs: int, description: Description, hidden: tuple[int, int]) -> None:
        super().__init__()
        first, second = hidden
        self.gru = nn.GRUCell(inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, outputs)

    def initial_state(self, batch: int) -> torch.Tensor:
        """Zeros [batch, H]."""
        return torch.zeros(batch, self.gru.hidden_size)

    def forward(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One step: x [B, I], state [B, H] -> outputs [B, K], a new state."""
        state = self.gru(x, state)
        return self._outputs(state), state

    def sequence(self, x: torch.Tensor, state: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
        """x [S, B, I], keep [S, B] -> outputs [S, B, K]; whole sequences are one call of torch's kernel."""
        if keep.all():
            cell = self.gru
            weights = [cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh]
            states, _ = torch.gru(x, state[None], weights, True, 1, 0.0, self.training, False, False)
            return self._outputs(states)
        steps = []
        for inputs, kept in zip(x, keep, strict=True):
            state = self.gru(inputs, state * kept[:, None])
            steps.append(state)
        return self._outputs(torch.stack(steps))

    def _outputs(self, features: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.second(features).relu())
        return outputs


TWINS: dict[str, type[nn.Module]] = {"torch:gru": TwinGRU, "torch:fnn": TwinFNN}
"""The built-in networks in PyTorch, for comparison."""
