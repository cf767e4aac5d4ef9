"""Two-layer networks whose parameters are one contiguous vector (Tables 4 and 5 of the paper).

A recurrent network is a GRU, a linear layer with ReLU and a linear head; a feed-forward one (FNN) has a
linear layer with ReLU in place of the GRU. Policies and influence predictors differ only in the sizes.
"""

from __future__ import annotations

from math import prod, sqrt

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from dials_mpi.learning.gru import gru_backward, gru_forward, gru_step

Table = tuple[tuple[str, tuple[int, ...]], ...]


def parameter_table(architecture: str, inputs: int, hidden: tuple[int, int], outputs: int) -> Table:
    """Names and shapes of a network's parameters, in the order in which they lie in its vector."""
    first, second = hidden
    if architecture == "gru":
        layer: Table = (
            ("gru.weight_ih", (3 * first, inputs)),
            ("gru.weight_hh", (3 * first, first)),
            ("gru.bias_ih", (3 * first,)),
            ("gru.bias_hh", (3 * first,)),
        )
    else:
        layer = (("first.weight", (first, inputs)), ("first.bias", (first,)))
    return (
        *layer,
        ("second.weight", (second, first)),
        ("second.bias", (second,)),
        ("head.weight", (outputs, second)),
        ("head.bias", (outputs,)),
    )


class Network:
    """A GRU or feed-forward network on a flat float32 vector.

    vector [P] holds the parameters (views of it are the layers), table their names and shapes.
    state_size is the length H of the recurrent state, 0 for an FNN. A given vector may be longer than P.
    """

    def __init__(
        self,
        architecture: str,
        inputs: int,
        hidden: tuple[int, int],
        outputs: int,
        vector: Tensor | None = None,
    ) -> None:
        self.architecture = architecture
        self.inputs, self.hidden = inputs, hidden
        self.table = parameter_table(architecture, inputs, hidden, outputs)
        self.state_size = hidden[0] if architecture == "gru" else 0
        size = sum(prod(shape) for _, shape in self.table)
        self.vector = torch.zeros(size) if vector is None else vector[:size]
        self.parameters = _views(self.vector, self.table)
        self.gradient: Tensor | None = None

    def initialise(self, stream: np.random.Generator) -> None:
        """Torch's default initialisation: uniform in +-1/sqrt(fan-in), for a GRU in +-1/sqrt(H)."""
        bounds = {"gru": self.hidden[0], "first": self.inputs, "second": self.hidden[0]}
        for (name, shape), view in zip(self.table, self.parameters, strict=True):
            bound = 1 / sqrt(bounds.get(name.split(".")[0], self.hidden[1]))
            values = stream.uniform(-bound, bound, shape).astype(np.float32)
            with torch.no_grad():
                view.copy_(torch.from_numpy(values))

    def require_gradient(self) -> Tensor:
        """Make room for the gradient; return it, one vector [P] that ``backward`` fills."""
        if self.gradient is None:
            self.gradient = torch.zeros_like(self.vector)
            self.gradients = _views(self.gradient, self.table)
        return self.gradient

    def initial_state(self, batch: int) -> Tensor:
        """The state at the beginning of an episode: zeros [batch, H]."""
        return torch.zeros(batch, self.state_size)

    @torch.no_grad()
    def advance(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One step: x [B, I], state [B, H] -> outputs [B, K], new state [B, H]."""
        *first, second_weight, second_bias, head_weight, head_bias = self.parameters
        if self.state_size:
            features = state = gru_step(x, state, first)
        else:
            features = linear(x, *first).relu_()
        hidden = linear(features, second_weight, second_bias).relu_()
        return linear(hidden, head_weight, head_bias), state

    @torch.no_grad()
    def forward(self, x: Tensor, state: Tensor, keep: Tensor | None = None) -> Tensor:
        """Whole sequences: x [S, B, I], state [B, H] before the first step -> outputs [S, B, K].

        keep [S, B]: 0 where a new episode begins at that step, else 1; None: no episode begins inside.
        A ``backward`` belongs to the last ``forward`` before it, with no other network's in between:
        networks of the same sizes share their workspace.
        """
        *first, second_weight, second_bias, head_weight, head_bias = self.parameters
        self.x, self.keep = x, keep
        if self.state_size:
            self.features = gru_forward(x, state, keep, first).flatten(0, 1)
        else:
            self.features = linear(x.flatten(0, 1), *first).relu_()
        self.second = linear(self.features, second_weight, second_bias).relu_()
        return linear(self.second, head_weight, head_bias).view(*x.shape[:2], -1)

    @torch.no_grad()
    def backward(self, grad_outputs: Tensor) -> None:
        """Overwrite the gradient vector with that of a loss whose gradient in the outputs is given.

        Written by hand so that each product lands in its place in the vector: nothing is allocated,
        cleared or added up.
        """
        *first, second_weight, _, head_weight, _ = self.parameters
        *grad_first, grad_second_weight, grad_second_bias, grad_head_weight, grad_head_bias = self.gradients
        rows = grad_outputs.flatten(0, 1)
        torch.mm(rows.t(), self.second, out=grad_head_weight)
        torch.sum(rows, 0, out=grad_head_bias)
        rows = (rows @ head_weight).mul_(self.second > 0)
        torch.mm(rows.t(), self.features, out=grad_second_weight)
        torch.sum(rows, 0, out=grad_second_bias)
        rows = rows @ second_weight
        if self.state_size:
            d_states = rows.view(*self.x.shape[:2], -1)
            gru_backward(self.x, d_states, self.keep, first[1], grad_first)
        else:
            rows.mul_(self.features > 0)
            torch.mm(rows.t(), self.x.flatten(0, 1), out=grad_first[0])
            torch.sum(rows, 0, out=grad_first[1])


def _views(vector: Tensor, table: Table) -> list[Tensor]:
    sizes = [prod(shape) for _, shape in table]
    return [part.view(shape) for part, (_, shape) in zip(vector.split(sizes), table, strict=True)]
