"""A policy as TorchScript; the only file that imports PyTorch outside of tests and the bench.

Why TorchScript and not torch.export: one call, ``torch.jit.load``, in Python or C++, loads such a file and
gives what can be called. The archives of torch.export changed in PyTorch 2.8, so that what a newer one writes
is lost on an older one.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.learning.policy import Policy

try:
    import torch
    from torch import nn
except ImportError as missing:
    raise BadInput(
        f"exporting a single policy needs PyTorch ({missing}): pip install 'dials_mpi[export]', or write all "
        "of them as arrays with --all"
    ) from missing

DESCRIPTION = "description.json"
"""The file inside the file."""


class Recurrent(nn.Module):
    """A policy with memory, of torch's own layers; its parameters have the names of ``Network.table``."""

    def __init__(self, inputs: int, first: int, second: int, outputs: int) -> None:
        super().__init__()
        self.gru = nn.GRUCell(inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, outputs)

    def forward(
        self, observation: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """observation [B, O], state [B, H] -> logits [B, A], value [B], the next state [B, H]."""
        state = self.gru(observation, state)
        outputs = self.head(self.second(state).relu())
        return outputs[:, :-1], outputs[:, -1], state


class FeedForward(nn.Module):
    """A policy without memory: its state is [B, 0]."""

    def __init__(self, inputs: int, first: int, second: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, outputs)

    def forward(
        self, observation: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As of Recurrent."""
        outputs = self.head(self.second(self.first(observation).relu()).relu())
        return outputs[:, :-1], outputs[:, -1], state


def write(policy: Policy, description: Mapping[str, Any], file: Path) -> None:
    """Write a policy with its description. OSError: the folder or the disk does not take it."""
    # By way of memory: torch gives no OSError for a disk that is full.
    buffer, module = io.BytesIO(), _module(policy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # in favour of torch.export: see above
        torch.jit.save(
            torch.jit.script(module), buffer, _extra_files={DESCRIPTION: json.dumps(description, indent=2)}
        )
    file.write_bytes(buffer.getvalue())


def _module(policy: Policy) -> nn.Module:
    network = policy.network
    kind = Recurrent if network.state_size else FeedForward
    module = kind(network.inputs, *network.hidden, network.sizes.outputs)
    names = [name for name, _ in network.table]
    parameters = [torch.from_numpy(part.copy()) for part in network.parameters]
    module.load_state_dict(dict(zip(names, parameters, strict=True)))
    return module.requires_grad_(False).eval()
