"""The approximate influence predictor (AIP) of one region: I(u_t | l_t), Section 3.2 and Appendix E.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.learning.adam import Adam
from dials_mpi.learning.kernels.activations import exp
from dials_mpi.learning.kernels.gemm import ROWS
from dials_mpi.learning.network import Network, advance, workspace
from dials_mpi.learning.policy import draw, log_sum_exp

if TYPE_CHECKING:
    from dials_mpi.config import Influence as InfluenceConfig
    from dials_mpi.domains.base import Region


AT_ONCE = 2**14
"""About how many steps of episodes a cross-entropy is predicted for at a time: more only take more memory."""


class Fit(NamedTuple):
    """Cross-entropies in nats per source on the held-out episodes of a refit.

    before, after: of the predictor, just before and just after it is fitted to the other episodes;
    constant: of the class frequencies of those other episodes, a predictor that looks at nothing.
    """

    before: float
    after: float
    constant: float


class Heads:
    """How a network's K outputs are shared among M sources: one logit for a binary one, else one per class.

    A binary source is a softmax over (0, logit).
    """

    def __init__(self, classes: tuple[int, ...]) -> None:
        self.classes = classes
        widths = [1 if c == 2 else c for c in classes]
        self.outputs = sum(widths)
        self.counts = np.array(classes)
        self.starts = np.cumsum([0, *widths[:-1]])

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Of the classes, [B, M, C], C the largest number of classes, from outputs [B, K]."""
        return _probabilities(outputs, self.counts, self.starts)

    def loss(self, outputs: np.ndarray, sources: np.ndarray) -> float:
        """Cross-entropy, the mean over rows and sources: outputs [B, K], sources uint8 [B, M]."""
        return _cross_entropy(outputs, sources, self.counts, self.starts)

    def gradient(self, outputs: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """That of ``loss`` in the outputs, [B, K]."""
        return _gradient(outputs, sources, self.counts, self.starts)


class Predictor:
    """A predictor of one region's M influence sources from its d-set (Table 4), and its optimiser."""

    def __init__(
        self,
        config: InfluenceConfig,
        region: Region,
        vector: np.ndarray | None = None,
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

    def probabilities(self, inputs: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """I(u | l): inputs [B, D], state [B, H] -> probabilities [B, M, C], new state."""
        outputs, state = self.network.advance(scaled(np.ascontiguousarray(inputs)), state)
        return self.heads.probabilities(outputs), state

    def sample(
        self, inputs: np.ndarray, state: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw the sources int64 [B, M] for inputs [B, D]; uniforms: float32 [B, M] in [0, 1)."""
        network, heads, inputs = self.network, self.heads, np.ascontiguousarray(inputs)
        return _sample(network.sizes, network.vector, inputs, state, uniforms, heads.counts, heads.starts)

    def cross_entropy(self, inputs: np.ndarray, sources: np.ndarray) -> float:
        """Mean over episodes, steps and sources, in nats: inputs [K, T, D], sources [K, T, M]."""
        outputs = np.empty((inputs.shape[1], len(inputs), self.heads.outputs), np.float32)
        for block in _blocks(*inputs.shape[:2]):
            x = scaled(by_time(inputs, block))
            outputs[:, block] = self.network.predict(x, self.network.initial_state(len(block)))
        wanted = by_time(sources, np.arange(len(inputs)))
        return self.heads.loss(outputs.reshape(-1, self.heads.outputs), wanted.reshape(-1, wanted.shape[2]))

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
                self._step(by_time(inputs, chosen), by_time(sources, chosen))
        workspace.cache_clear()  # of whole episodes: larger than what policies need
        return Fit(before, self.cross_entropy(*held_out), constant)

    def _step(self, inputs: np.ndarray, sources: np.ndarray) -> None:
        """One gradient step on a minibatch, time first: inputs [S, B, D], sources [S, B, M]."""
        state = self.network.initial_state(inputs.shape[1])
        outputs = self.network.forward(scaled(inputs), state)
        rows = outputs.reshape(-1, self.heads.outputs), sources.reshape(-1, sources.shape[2])
        self.network.backward(self.heads.gradient(*rows).reshape(outputs.shape))
        self.optimiser.step(self.config.learning_rate)


def constant_cross_entropy(train: np.ndarray, test: np.ndarray, classes: tuple[int, ...]) -> float:
    """Cross-entropy on ``test [..., M]`` of the class frequencies of ``train [..., M]``, add-one smoothed."""
    losses = []
    for m, count in enumerate(classes):
        seen = np.bincount(train[..., m].ravel(), minlength=count) + 1.0
        wanted = np.bincount(test[..., m].ravel(), minlength=count)
        losses.append(-(wanted / wanted.sum()) @ np.log(seen / seen.sum()))
    return float(np.mean(losses))


def _blocks(episodes: int, steps: int) -> list[np.ndarray]:
    """Numbers of episodes, cut into blocks of about AT_ONCE steps.

    A row's place among the ROWS that are multiplied together stays the same, and the last block has the rest:
    so the outputs have the bits that they would have if all came at once.
    """
    size = max(1, AT_ONCE // steps // ROWS) * ROWS
    return np.split(np.arange(episodes), range(size, episodes - size + 1, size))


@compiled
def by_time(episodes, chosen):
    """Some episodes [K, T, ...] of a dataset, copied with time first: [T, len(chosen), ...]."""
    steps, width = episodes.shape[1:]
    picked = np.empty((steps, chosen.size, width), episodes.dtype)
    for t in range(steps):
        for k in range(chosen.size):
            picked[t, k] = episodes[chosen[k], t]
    return picked


@compiled
def scaled(inputs):
    """Predictor inputs as float32: bits (uint8) become -1 and +1, float32 stays as it is."""
    x = inputs.astype(np.float32)
    if inputs.itemsize == 1:
        flat = x.reshape(-1)
        for k in range(flat.size):
            flat[k] = flat[k] + flat[k] - np.float32(1)
    return x


@compiled
def _logits(outputs, count, start):
    """The logits of one source in one row of outputs, one per class."""
    if count > 2:
        return outputs[start : start + count].copy()
    logits = np.zeros(2, outputs.dtype)
    logits[1] = outputs[start]
    return logits


@compiled
def _probabilities(outputs, counts, starts):
    probabilities = np.zeros((outputs.shape[0], counts.size, counts.max()), np.float32)
    for b in range(outputs.shape[0]):
        for m in range(counts.size):
            logits = _logits(outputs[b], counts[m], starts[m])
            total = log_sum_exp(logits)
            for c in range(counts[m]):
                probabilities[b, m, c] = np.exp(logits[c] - total)
    return probabilities


@compiled
def _sample(sizes, vector, inputs, state, uniforms, counts, starts):
    outputs, state = advance(sizes, vector, scaled(inputs), state)
    sources = np.empty(uniforms.shape, np.int64)
    for b in range(uniforms.shape[0]):
        for m in range(counts.size):
            logits = _logits(outputs[b], counts[m], starts[m])
            sources[b, m] = draw(logits, log_sum_exp(logits), uniforms[b, m])
    return sources, state


@compiled
def _cross_entropy(outputs, sources, counts, starts):
    total = 0.0
    for b in range(outputs.shape[0]):
        for m in range(counts.size):
            logits = _logits(outputs[b], counts[m], starts[m])
            total += log_sum_exp(logits) - logits[sources[b, m]]
    return total / sources.size


@compiled
def _gradient(outputs, sources, counts, starts):
    """Probabilities less what happened, over the number of terms: in single precision, it is done often."""
    gradient, share = np.empty_like(outputs), np.float32(1 / sources.size)
    for b in range(outputs.shape[0]):
        for m in range(counts.size):
            count, start = counts[m], starts[m]
            if count == 2:
                probability = np.float32(1) / (np.float32(1) + exp(-outputs[b, start]))
                gradient[b, start] = (probability - np.float32(sources[b, m])) * share
                continue
            largest, total = outputs[b, start], np.float32(0)
            for c in range(start, start + count):
                largest = max(largest, outputs[b, c])
            for c in range(start, start + count):
                gradient[b, c] = exp(outputs[b, c] - largest)
                total += gradient[b, c]
            for c in range(start, start + count):
                gradient[b, c] *= share / total
            gradient[b, start + sources[b, m]] -= share
    return gradient
