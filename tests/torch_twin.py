"""The same networks made of torch's own layers, in double precision: what the tests compare with."""

import numpy as np
import torch
from torch import nn

from dials_mpi.learning.network import Network


class TorchTwin(nn.Module):
    """A two-layer network; it loads a Network's parameters by name and runs step by step."""

    def __init__(self, network):
        super().__init__()
        first, second = network.hidden
        shapes = dict(network.table)
        self.names = list(shapes)
        if network.architecture == "gru":
            self.gru = nn.GRUCell(network.inputs, first)
        else:
            self.first = nn.Linear(network.inputs, first)
        self.second = nn.Linear(first, second)
        self.head = nn.Linear(second, shapes["head.bias"][0])
        parameters = [torch.from_numpy(part) for part in network.parameters]
        self.load_state_dict(dict(zip(self.names, parameters, strict=True)))
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
    """An initialised Network with room for its gradient."""
    made = Network(architecture, inputs, hidden, outputs)
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
