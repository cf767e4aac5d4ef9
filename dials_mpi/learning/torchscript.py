"""A policy as a program: TorchScript (.pt), that of torch.export (.pt2), or ONNX (.onnx, see onnx_model.py).

Why TorchScript first: one call, ``torch.jit.load``, in Python or C++, loads such a file in all versions. The
format of torch.export changed in PyTorch 2.8, and older versions cannot read what newer ones write; but it
takes more of the modules that users write.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable
from dials_mpi.learning.network import Network
from dials_mpi.learning.policy import Policy
from dials_mpi.learning.tables import layers, policy_sizes

try:
    import torch
    from torch import nn

    from dials_mpi.learning.torch_network import TorchNetwork
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


class Packed(nn.Module):
    """A policy of the user's own; its state is one tensor [B, H]."""

    def __init__(self, network: TorchNetwork) -> None:
        super().__init__()
        self.module, self._memory = network.module, network.memory

    def forward(
        self, observation: torch.Tensor, state: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As ``Recurrent.forward``."""
        outputs, after = self.module(observation, self._memory.unpack(state))
        after = self._memory.pack(after) if self._memory.size else state.clone()
        return outputs[:, :-1], outputs[:, -1], after


def write(policy: Policy, description: Mapping[str, Any], file: Path) -> None:
    """Write a policy with its description, in the format of the file's ending.

    BadInput: this policy cannot be written in that format, or a package for it is missing. OSError: the file
    cannot be written.
    """
    file.write_bytes(program(policy, description, file.suffix))  # torch raises no OSError if the disk is full


def program(policy: Policy, description: Mapping[str, Any], ending: str) -> bytes:
    """The content of a file with that ending. BadInput: as of ``write``."""
    kind, buffer, module = _format(ending), io.BytesIO(), _module(policy)
    example = torch.zeros(2, policy.agent.observation_size), torch.zeros(2, policy.network.state_size)
    extra = {DESCRIPTION: json.dumps(description, indent=2)}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # TorchScript: deprecated, see above; a trace: of Python's branches
        try:
            kind.save(module, example, buffer, extra)
            buffer.seek(0)
            _require_equal(kind.load(buffer), policy)
        except Exception as error:  # what a module's code leads to
            raise BadInput(
                f"this policy cannot be exported as {ending} ({_reason(error)}): docs/networks.md says "
                "what a module must leave out; correct it, or write all policies as arrays with --all"
            ) from error
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """The first and the last line of what PyTorch says; between them is the code that it made."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()] or [""]
    last = f" … {lines[-1]}" if len(lines) > 1 else ""
    return f"{printable(f'{type(error).__name__}: {lines[0]}')[:200]}{printable(last)[:200]}"


Example = tuple[torch.Tensor, torch.Tensor]


class Format(NamedTuple):
    """What writes a module to a file in memory, and what makes a function of the file's content."""

    save: Callable[[nn.Module, Example, io.BytesIO, dict[str, str]], None]
    load: Callable[[io.BytesIO], Callable[..., Any]]


def _format(ending: str) -> Format:
    if ending == ".onnx":
        from dials_mpi.learning import onnx_model  # only this needs the package onnx

        return Format(onnx_model.save, onnx_model.load)
    if ending == ".pt2":
        return Format(_save_exported, lambda buffer: torch.export.load(buffer).module())
    return Format(_save_script, torch.jit.load)


def _save_script(module: nn.Module, example: Example, buffer: io.BytesIO, extra: dict[str, str]) -> None:
    traced = isinstance(module, Packed)  # what Python does between tensors need not be TorchScript
    program = torch.jit.trace(module, example) if traced else torch.jit.script(module)
    torch.jit.save(program, buffer, _extra_files=extra)


def _save_exported(module: nn.Module, example: Example, buffer: io.BytesIO, extra: dict[str, str]) -> None:
    batch = torch.export.Dim("batch")
    program = torch.export.export(module, example, dynamic_shapes=({0: batch}, {0: batch}))
    torch.export.save(program, buffer, extra_files=extra)


def _require_equal(program: Callable[..., Any], policy: Policy) -> None:
    """ValueError: the outputs of a program are not those of the policy, with one row and with several."""
    stream = np.random.default_rng(0)
    for batch in (1, 5):
        x = stream.integers(0, 2, (batch, policy.agent.observation_size)).astype(np.float32)
        state = policy.network.initial_state(batch)
        for _ in range(3):
            outputs, after = policy.network.advance(x, state)
            logits, values, found = program(torch.from_numpy(x), torch.from_numpy(state))
            pairs = (logits, outputs[:, :-1]), (values, outputs[:, -1]), (found, after)
            if not all(np.allclose(one, two, rtol=1e-4, atol=1e-5) for one, two in pairs):
                raise ValueError("the program gives other outputs")
            state = after


def _module(policy: Policy) -> nn.Module:
    config, network = policy.config, policy.network
    built_in = config.architecture.removeprefix("torch:")
    if built_in not in MODULES:
        return _own(network, config.architecture).eval()
    inputs, outputs = policy_sizes(policy.agent)
    module = MODULES[built_in](inputs, *config.hidden, outputs)
    parameters = layers(network.table, network.vector)
    module.load_state_dict({name: torch.from_numpy(part.copy()) for name, part in parameters.items()})
    return module.requires_grad_(False).eval()


def _own(network: Network, architecture: str) -> nn.Module:
    if not isinstance(network, TorchNetwork):
        raise BadInput(
            f"a policy of the architecture {printable(architecture)} cannot be exported as a program of "
            "PyTorch: write all policies as arrays with --all"
        )
    return Packed(network).requires_grad_(False)
