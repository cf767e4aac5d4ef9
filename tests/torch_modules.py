"""Modules of PyTorch as users write them, good and broken; a run finds them as torch_modules:NAME."""

import random

import torch
from torch import nn


class Plain(nn.Module):
    """Without a state."""

    def __init__(self, inputs, outputs, description, width=8):
        super().__init__()
        self.description = description
        self.first, self.head = nn.Linear(inputs, width), nn.Linear(width, outputs)

    def forward(self, x, state):
        return self.head(torch.tanh(self.first(x))), state


class Pair(nn.Module):
    """With a state of two tensors of different shapes: an LSTM cell's, and the last input's means."""

    def __init__(self, inputs, outputs, description, width=6):
        super().__init__()
        self.cell, self.head = nn.LSTMCell(inputs, width), nn.Linear(width + 2, outputs)
        self.width = width

    def initial_state(self, batch):
        return torch.zeros(batch, 2, self.width), torch.zeros(batch, 2)

    def forward(self, x, state):
        cells, means = state
        h, c = self.cell(x, (cells[:, 0], cells[:, 1]))
        outputs = self.head(torch.cat([h, means], 1))
        return outputs, (torch.stack([h, c], 1), torch.stack([x.mean(1), x.amax(1)], 1))


class Whole(Pair):
    """With a method for sequences, which must agree with forward."""

    def sequence(self, x, state, keep):
        found = []
        for inputs, kept in zip(x, keep, strict=True):
            cells, means = state
            outputs, state = self(inputs, (cells * kept[:, None, None], means * kept[:, None]))
            found.append(outputs)
        return torch.stack(found)


class Frozen(Plain):
    """With a parameter that is not trained, one that nothing uses, and one tensor in two places."""

    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.scale = nn.Parameter(torch.full((1,), 2.0), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(3))
        self.again = self.first
        self.register_buffer("shift", torch.randn(outputs))

    def forward(self, x, state):
        outputs, state = super().forward(x, state)
        return outputs * self.scale + self.shift, state


class Anyone(nn.Module):
    """Its parameters are the same for any numbers of inputs and outputs."""

    def __init__(self, inputs, outputs, description, width=8):
        super().__init__()
        self.register_buffer("places", torch.linspace(0, 1, inputs))
        self.register_buffer("actions", torch.linspace(0, 1, outputs - 1))
        self.item, self.logit, self.value = nn.Linear(2, width), nn.Linear(width + 1, 1), nn.Linear(width, 1)

    def forward(self, x, state):
        items = torch.stack([x, self.places.expand_as(x)], 2)
        seen = torch.relu(self.item(items)).mean(1)
        count = len(self.actions)
        each = torch.cat([seen[:, None].expand(-1, count, -1), self.actions.expand(len(x), -1)[..., None]], 2)
        return torch.cat([self.logit(torch.tanh(each)).squeeze(2), self.value(seen)], 1), state


class Greedy(Plain):
    """It changes its inputs in place and returns its state as it was."""

    def initial_state(self, batch):
        return torch.zeros(batch, 2)

    def forward(self, x, state):
        x.mul_(0.5)
        return self.head(torch.tanh(self.first(x))), state


# Broken ones ---------------------------------------------------------------------------------------------


class NoParameters(nn.Module):
    def __init__(self, inputs, outputs, description):
        super().__init__()
        self.outputs = outputs

    def forward(self, x, state):
        return x[:, : self.outputs], state


class Double(Plain):
    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.double()


class OneOutput(Plain):
    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, 1, description)


class OutputsAlone(Plain):
    def forward(self, x, state):
        return super().forward(x, state)[0]


class Running(Plain):
    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.norm = nn.BatchNorm1d(inputs)

    def forward(self, x, state):
        return super().forward(self.norm(x), state)


class Drops(Plain):
    def forward(self, x, state):
        return super().forward(nn.functional.dropout(x + 1), state)


class OtherState(Pair):
    def forward(self, x, state):
        outputs, (cells, means) = super().forward(x, state)
        return outputs, (cells, means[:, :1])


class OneTensor(Pair):
    def forward(self, x, state):
        outputs, (cells, _) = super().forward(x, state)
        return outputs, cells


class Ones(Pair):
    def initial_state(self, batch):
        return torch.ones(batch, 2, self.width), torch.zeros(batch, 2)


class NoBatch(Pair):
    def initial_state(self, batch):
        return torch.zeros(2, self.width)


class Detached(Plain):
    def forward(self, x, state):
        outputs, state = super().forward(x, state)
        return outputs.detach(), state


class WrongSequence(Pair):
    def sequence(self, x, state, keep):
        return self(x[0], state)[0]


class Raises(Plain):
    def forward(self, x, state):
        raise ValueError("three\nlines\nof text")


class NoModule:
    pass


# Wrong in a way that only the check finds ----------------------------------------------------------------


class Remembers(Plain):
    """Its outputs depend on earlier calls."""

    calls = 0

    def forward(self, x, state):
        self.calls += 1
        outputs, state = super().forward(x, state)
        return outputs + self.calls, state


class Mixes(Plain):
    """Rows of a batch depend on each other."""

    def forward(self, x, state):
        return super().forward(x - x.mean(0), state)


class Unreached(Plain):
    """A parameter has no gradient."""

    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.unused = nn.Parameter(torch.ones(3))


class KeepsState(Whole):
    """Its sequence ignores the beginnings of episodes."""

    def sequence(self, x, state, keep):
        return super().sequence(x, state, torch.ones_like(keep))


class Unseeded(Plain):
    """Its initial values come from another generator."""

    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        with torch.no_grad():
            self.first.bias.fill_(random.random())


class OtherBuffer(Plain):
    """A constant that is drawn anew whenever the module is built."""

    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.register_buffer("shift", torch.full((outputs,), random.random()))

    def forward(self, x, state):
        return super().forward(x, state)[0] + self.shift, state


class Scaled(Plain):
    """A parameter that is not trained."""

    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.scale = nn.Parameter(torch.full((1,), 2.0), requires_grad=False)

    def forward(self, x, state):
        outputs, state = super().forward(x, state)
        return outputs * self.scale, state


class Branches(Plain):
    """What it does depends on values that Python reads."""

    def forward(self, x, state):
        outputs, state = super().forward(x, state)
        return (outputs if float(x[0, 0]) == 0 else -outputs), state


class DiffersTogether(Plain):
    """Gives other outputs where torch.vmap maps it, as if a product were added up in another order."""

    def forward(self, x, state):
        outputs, state = super().forward(x, state)
        return outputs + 1e-6 * torch._C._functorch.is_batchedtensor(outputs), state


class FixedBatch(Plain):
    """The number of rows becomes a constant of the exported program."""

    def __init__(self, inputs, outputs, description):
        super().__init__(inputs, outputs, description)
        self.shift = nn.Parameter(torch.zeros(1, outputs))

    def forward(self, x, state):
        outputs, state = super().forward(x, state)
        return outputs + self.shift.expand(len(x), -1), state
