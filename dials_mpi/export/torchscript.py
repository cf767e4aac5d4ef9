"""A policy as TorchScript; the only file that imports PyTorch outside of tests and the bench.

Why TorchScript and not torch.export: one call, ``torch.jit.load``, in Python or C++, loads such a file. The
format of torch.export changed in PyTorch 2.8, and older versions cannot read what newer ones write.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.learning.policy import Policy
from dials_mpi.learning.tables import layers, policy_sizes

try:
    import torch
    from torch import nn
except ImportError as missing:
    raise BadInput(
        f"exporting a single policy needs PyTorch ({missing}): pip install 'dials_mpi[export]', or write all "
        "of them as arrays with --all"
    ) from missing

DESCRIPTION = "description.json"
"""The name of the description within the file, a zip archive."""


class Recurrent(nn.Module):
    """A recurrent policy of torch's own layers; its parameters have the names of ``Network.table``."""

    def __init__(self, inputs: int, first: int, second: int, outputs: int) -> None:
        super().__init__()
        self.gru = nn.GRUCell(inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, outputs)

    def forward(
        self, observation: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Observation [B, O], state [B, H] -> logits [B, A], value [B], the next state [B, H]."""
        state = self.gru(observation, state)
        outputs = self.head(self.second(state).relu())
        return outputs[:, :-1], outputs[:, -1], state


class FeedForward(nn.Module):
    """A feed-forward policy: its state is [B, 0]."""

    def __init__(self, inputs: int, first: int, second: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, outputs)

    def forward(
        self, observation: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``Recurrent.forward``."""
        outputs = self.head(self.second(self.first(observation).relu()).relu())
        return outputs[:, :-1], outputs[:, -1], state


MODULES: dict[str, Callable[[int, int, int, int], nn.Module]] = {"gru": Recurrent, "fnn": FeedForward}
"""The module of each architecture."""


def write(policy: Policy, description: Mapping[str, Any], file: Path) -> None:
    """Write a policy with its description.

    BadInput: there is no module for the policy's architecture. OSError: the file cannot be written.
    """
    # Into memory first: torch raises no OSError if the disk is full.
    buffer, module = io.BytesIO(), _module(policy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # in favour of torch.export: see above
        torch.jit.save(
            torch.jit.script(module), buffer, _extra_files={DESCRIPTION: json.dumps(description, indent=2)}
        )
    file.write_bytes(buffer.getvalue())


def _module(policy: Policy) -> nn.Module:
    config, network = policy.config, policy.network
    if config.architecture not in MODULES:
        raise BadInput(
            f"a policy of the architecture {printable(config.architecture)} cannot be exported as "
            "TorchScript: write all policies as arrays with --all"
        )
    inputs, outputs = policy_sizes(policy.agent)
    module = MODULES[config.architecture](inputs, *config.hidden, outputs)
    parameters = layers(network.table, network.vector)
    module.load_state_dict({name: torch.from_numpy(part.copy()) for name, part in parameters.items()})
    return module.requires_grad_(False).eval()
