"""The approximate influence predictor (AIP) of one region: I(u_t | l_t), Section 3.2 and Appendix E.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from dials_mpi.learning.adam import Adam
from dials_mpi.learning.gru import workspace
from dials_mpi.learning.network import Network

if TYPE_CHECKING:
    from dials_mpi.config import Influence as InfluenceConfig
    from dials_mpi.domains.base import Region


class Fit(NamedTuple):
    """Cross-entropies in nats per source on the held-out episodes of a refresh.

    before, after: of the predictor, just before and just after it is fitted to the other episodes;
    constant: of the class frequencies of those other episodes, a predictor that looks at nothing.
    """

    before: float
    after: float
    constant: float


class Heads:
    """How a network's outputs are shared among M sources: one logit for a binary one, else one per class."""

    def __init__(self, classes: tuple[int, ...]) -> None:
        self.classes = classes
        widths = [1 if c == 2 else c for c in classes]
        self.outputs = sum(widths)
        self.widest = max(classes)
        self.last = torch.tensor(classes) - 1
        # A binary source is a softmax over (0, logit); a missing class has the logit -inf.
        zero, nothing = self.outputs, self.outputs + 1
        index, start = [], 0
        for count, width in zip(classes, widths, strict=True):
            own = [zero, start] if count == 2 else list(range(start, start + width))
            index.append(own + [nothing] * (self.widest - count))
            start += width
        self.index = torch.tensor(index)
        self.plain = self.outputs == self.index.numel() and self.widest > 2

    def logits(self, outputs: Tensor) -> Tensor:
        """Outputs [..., K] as logits [..., M, C], C the largest number of classes."""
        if self.plain:
            return outputs.unflatten(-1, self.index.shape)
        extra = outputs.new_tensor([0.0, -torch.inf]).expand(*outputs.shape[:-1], 2)
        return torch.cat([outputs, extra], -1)[..., self.index]


class Predictor:
    """A predictor of one region's M influence sources from its d-set (Table 4), and its optimiser."""

    def __init__(
        self,
        config: InfluenceConfig,
        region: Region,
        vector: Tensor | None = None,
        trainable: bool = False,
    ) -> None:
        self.config = config
        self.heads = Heads(region.source_classes)
        self.network = Network(
            config.architecture, region.input_size, config.hidden, self.heads.outputs, vector
        )
        if trainable:
            gradient = self.network.require_gradient()
            self.optimiser = Adam(self.network.vector, gradient, config.adam_epsilon)

    def probabilities(self, inputs: np.ndarray, state: Tensor) -> tuple[Tensor, Tensor]:
        """I(u | l): inputs [B, D], state [B, H] -> probabilities [B, M, C], new state."""
        outputs, state = self.network.advance(scaled(inputs), state)
        return self.heads.logits(outputs).softmax(-1), state

    def sample(self, inputs: np.ndarray, state: Tensor, uniforms: np.ndarray) -> tuple[np.ndarray, Tensor]:
        """Draw the sources int64 [B, M] for inputs [B, D]; uniforms: float32 [B, M] in [0, 1)."""
        probabilities, state = self.probabilities(inputs, state)
        cumulative = probabilities.cumsum(-1)[..., :-1]
        drawn = (torch.from_numpy(uniforms).unsqueeze(-1) >= cumulative).sum(-1)
        # Probabilities may add up to a little less than the largest uniform.
        return torch.minimum(drawn, self.heads.last).numpy(), state

    @torch.no_grad()
    def cross_entropy(self, inputs: np.ndarray, sources: np.ndarray) -> float:
        """Mean over episodes, steps and sources, in nats: inputs [K, T, D], sources [K, T, M]."""
        state = self.network.initial_state(len(inputs))
        total = 0.0
        for t in range(inputs.shape[1]):
            outputs, state = self.network.advance(scaled(inputs[:, t]), state)
            total += float(self._loss(outputs, torch.from_numpy(sources[:, t].astype(np.int64))))
        return total / inputs.shape[1]

    def fit(self, inputs: np.ndarray, sources: np.ndarray, stream: np.random.Generator) -> Fit:
        """Train on whole episodes: inputs [K, T, D], sources [K, T, M], the last share held out.

        Goes on from the present weights and Adam moments. A GRU learns from minibatches of batch_size
        episodes at most, an FNN of steps.
        """
        train = len(inputs) - self.config.held_out_episodes(len(inputs))
        held_out = inputs[train:], sources[train:]
        before = self.cross_entropy(*held_out)
        inputs, sources = inputs[:train], sources[:train]
        constant = constant_cross_entropy(sources, held_out[1], self.heads.classes)
        if not self.network.state_size:  # every step is a sequence of its own
            inputs, sources = (part.reshape(-1, 1, part.shape[-1]) for part in (inputs, sources))
        for _ in range(self.config.epochs):
            order = stream.permutation(len(inputs))
            # Of equal size, so that one workspace serves them all.
            for chosen in np.array_split(order, -(-len(order) // self.config.batch_size)):
                self._step(inputs[chosen].swapaxes(0, 1), sources[chosen].swapaxes(0, 1))
        workspace.cache_clear()  # a whole dataset's worth of memory
        return Fit(before, self.cross_entropy(*held_out), constant)

    def _step(self, inputs: np.ndarray, sources: np.ndarray) -> None:
        """One gradient step on a minibatch, time first: inputs [S, B, D], sources [S, B, M]."""
        state = self.network.initial_state(inputs.shape[1])
        outputs = self.network.forward(scaled(inputs), state).requires_grad_()
        self._loss(outputs, torch.from_numpy(sources.astype(np.int64))).backward()
        self.network.backward(outputs.grad)
        self.optimiser.step(self.config.learning_rate)

    def _loss(self, outputs: Tensor, u: Tensor) -> Tensor:
        """Cross-entropy averaged over all but the last axes: outputs [..., K], u [..., M]."""
        return cross_entropy(self.heads.logits(outputs).flatten(0, -2), u.flatten())


def constant_cross_entropy(train: np.ndarray, test: np.ndarray, classes: tuple[int, ...]) -> float:
    """Cross-entropy on ``test [..., M]`` of the class frequencies of ``train [..., M]``, add-one smoothed."""
    losses = []
    for m, count in enumerate(classes):
        seen = np.bincount(train[..., m].ravel(), minlength=count) + 1.0
        wanted = np.bincount(test[..., m].ravel(), minlength=count)
        losses.append(-(wanted / wanted.sum()) @ np.log(seen / seen.sum()))
    return float(np.mean(losses))


def scaled(inputs: np.ndarray) -> Tensor:
    """Predictor inputs as float32: bits (uint8) become -1 and +1, float32 stays as it is."""
    x = torch.from_numpy(np.ascontiguousarray(inputs))
    return x if x.dtype == torch.float32 else x.to(torch.float32).mul_(2).sub_(1)
