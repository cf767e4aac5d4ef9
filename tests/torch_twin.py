"""Reference networks of torch's own layers, in double precision."""

import numpy as np
import torch
from torch import nn

from dials_mpi.config import Influence
from dials_mpi.learning.builtin import BuiltinNetwork
from dials_mpi.learning.tables import layers


class TorchTwin(nn.Module):
    """A GRU or an FNN with the parameters of a network, which are loaded by name; it runs step by step."""

    def __init__(self, network):
        super().__init__()
        shapes = dict(network.table)
        self.names = list(shapes)
        second, first = shapes["second.weight"]
        if network.state_size:
            self.gru = nn.GRUCell(shapes["gru.weight_ih"][1], first)
        else:
            self.first = nn.Linear(shapes["first.weight"][1], first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, shapes["head.bias"][0])
        parameters = layers(network.table, network.vector)
        self.load_state_dict({name: torch.from_numpy(part) for name, part in parameters.items()})
        self.double()

    def step(self, x, state):
        """x [B, I], state [B, H] -> outputs [B, K], new state."""
        features = state = self.gru(x, state) if hasattr(self, "gru") else self.first(x).relu()
        return self.head(self.second(features).relu()), state

    def forward(self, x, state, keep=None):
        x, state = torch.as_tensor(x).double(), torch.as_tensor(state).double()
        outputs = []
        for s, inputs in enumerate(x):
            if keep is not None and hasattr(self, "gru"):
                state = state * torch.as_tensor(keep)[s].double().unsqueeze(1)
            output, state = self.step(inputs, state)
            outputs.append(output)
        return torch.stack(outputs)

    def flat(self, of=lambda parameter: parameter):
        """The parameters, or what ``of`` makes of each, in the order of the network's vector."""
        named = dict(self.named_parameters())
        return torch.cat([of(named[name]).detach().flatten() for name in self.names])

    def flat_gradient(self):
        return self.flat(lambda parameter: parameter.grad)


def network(architecture, inputs, hidden, outputs, seed=0):
    """An initialised built-in network with a gradient."""
    made = BuiltinNetwork(Influence(architecture, hidden), inputs, outputs)
    made.initialise(np.random.default_rng(seed))
    made.require_gradient()
    return made


def assert_close(actual, expected, tolerance=2e-5):
    """Equal up to ``tolerance`` of the largest expected magnitude (and of 1e-2, for tiny values)."""
    actual, expected = (torch.as_tensor(part).detach().double() for part in (actual, expected))
    assert actual.shape == expected.shape
    if actual.numel():
        error = (actual - expected).abs().max()
        assert error <= tolerance * max(float(expected.abs().max()), 1e-2), f"off by {error:.3g}"
