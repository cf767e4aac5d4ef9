"""The approximate influence predictor (AIP) of one region: I(u_t | l_t), Section 3.2 and Appendix E.1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from dials_mpi.core.jit import compiled
from dials_mpi.core.seeding import Purpose, stream
from dials_mpi.learning.adam import Adam, Gradients
from dials_mpi.learning.kernels.activations import exp, exp_double, log
from dials_mpi.learning.kernels.gemm import ROWS
from dials_mpi.learning.kernels.inputs import by_time, scaled
from dials_mpi.learning.kernels.sampling import (
    COUPLING_SCALE,
    add_coupling,
    draw_coupled_sources,
    draw_sources,
    log_sum_exp,
    source_logits,
)
from dials_mpi.learning.network import FusedNetwork, Network, create
from dials_mpi.learning.tables import predictor_sizes, predictor_table, size, source_outputs

if TYPE_CHECKING:
    from dials_mpi.config import Influence as InfluenceConfig
    from dials_mpi.domains.base import Region


AT_ONCE = 2**14
"""About how many steps of episodes a cross-entropy is computed for at a time, to limit its memory."""


class Fit(NamedTuple):
    """Cross-entropies in nats per source on the held-out episodes of a refit.

    before, after: of the predictor, before and after it is fitted to the other episodes; constant: the
    baseline, a predictor that always gives the class frequencies of those other episodes.
    """

    before: float
    after: float
    constant: float


class Heads:
    """Which of a network's K outputs belong to which of M sources, which are independent given these outputs.

    A source of two classes has one output, the logit of class 1, while that of class 0 is zero; a source of
    more classes has one logit per class. classes, counts [M]: each source's number of classes; starts [M]:
    its first output; outputs: K.
    """

    def __init__(self, classes: Sequence[int]) -> None:
        self.classes = classes
        widths = source_outputs(classes)
        self.outputs = sum(widths)
        self.counts = np.array(classes)
        self.starts = np.cumsum([0, *widths[:-1]])

    def probabilities(self, outputs: np.ndarray, sources: np.ndarray | None = None) -> np.ndarray:
        """Of the classes: [B, M, C] from outputs [B, K], C the largest number of classes, 0 beyond a source's
        own.

        sources [B, M]: autoregressive heads need them and give each source's probabilities given those
        before it.
        """
        return _probabilities(self._given(outputs, sources), self.counts, self.starts)

    def loss(self, outputs: np.ndarray, sources: np.ndarray) -> float:
        """Cross-entropy, the mean over rows and sources: outputs [B, K], sources uint8 [B, M].

        M times it is the cross-entropy of the joint distribution, for autoregressive heads by the chain rule.
        """
        return _cross_entropy(self._given(outputs, sources), sources, self.counts, self.starts)

    def gradient(self, outputs: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """The gradient of ``loss`` in the outputs, [B, K]."""
        return _gradient(self._given(outputs, sources), sources, self.counts, self.starts)

    def draw(self, outputs: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Sources int64 [B, M] from outputs [B, K], uniforms float32 [B, M] in [0, 1)."""
        return draw_sources(outputs, uniforms, self.counts, self.starts)

    def _given(self, outputs: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
        """The outputs [B, K], with what the sources [B, M] add to those of the sources after them."""
        return outputs


class AutoregressiveHeads(Heads):
    """Heads in which each source depends on those before it, in place of Equation 25.

    Each class of a source but the first adds a learned number to each output of the sources after it: a fully
    visible sigmoid belief network (Neal, 1992; Frey, 1998), given the network's outputs. couplings [N]: these
    numbers divided by COUPLING_SCALE, source after source and class after class; places [M]: where a source's
    begin; widths [M]: how many outputs come after it. If all are zero, the sources are independent.
    """

    def __init__(
        self, classes: Sequence[int], couplings: np.ndarray, gradient: np.ndarray | None = None
    ) -> None:
        """gradient [N]: the method ``gradient`` writes that in the couplings here."""
        super().__init__(classes)
        self.widths = self.outputs - np.cumsum(source_outputs(classes))
        self.places = np.cumsum([0, *((self.counts - 1) * self.widths)[:-1]])
        self.couplings, self.couplings_gradient = couplings, gradient

    def gradient(self, outputs: np.ndarray, sources: np.ndarray) -> np.ndarray:
        """The gradient of ``loss`` in the outputs, [B, K]; ``couplings_gradient`` becomes that in the
        couplings."""
        found = super().gradient(outputs, sources)
        if self.couplings_gradient is not None:
            _couplings_gradient(found, sources, self.places, self.widths, self.couplings_gradient)
        return found

    def draw(self, outputs: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """As ``Heads.draw``, source after source."""
        coupled = self.couplings, self.places, self.widths
        return draw_coupled_sources(outputs, uniforms, self.counts, self.starts, *coupled)

    def _given(self, outputs: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
        if sources is None:
            raise ValueError("autoregressive heads need the sources: each depends on those before it")
        return _coupled(outputs, sources, self.couplings, self.places, self.widths)


class Predictor:
    """A predictor of one region's M influence sources from its d-set (Table 4), and its optimiser.

    vector [P]: the parameters, those of the network and after them those of the heads. optimiser: only if
    trainable. All that it learns is in the vector and the optimiser's state.
    """

    def __init__(
        self,
        config: InfluenceConfig,
        region: Region,
        vector: np.ndarray | None = None,
        trainable: bool = False,
        gradients: Gradients | None = None,
    ) -> None:
        """vector: its first P numbers are the parameters; by default they are zero. gradients: has room for
        this one's; by default it has its own."""
        self.config = config
        length = size(predictor_table(config, region))
        self._vector = np.zeros(length, np.float32) if vector is None else vector[:length]
        self.network = create(config, *predictor_sizes(region), self._vector, region.description)
        gradient = (gradients or Gradients()).room(length) if trainable else None
        self.heads = self._heads(region.source_classes, gradient)
        self._sample = self._sampler()
        if gradient is not None:
            self.network.gradient = gradient[: len(self.network.vector)]
            self.optimiser = Adam(self._vector, gradient, config.adam_epsilon)

    @property
    def vector(self) -> np.ndarray:
        """See the class. Where the heads have no parameters, the network's, which can be moved."""
        return self.network.vector if self.config.heads == "independent" else self._vector

    def _heads(self, classes: Sequence[int], gradient: np.ndarray | None) -> Heads:
        if self.config.heads == "independent":
            return Heads(classes)
        own = slice(len(self.network.vector), None)
        return AutoregressiveHeads(classes, self._vector[own], None if gradient is None else gradient[own])

    def _sampler(self) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        network, heads = self.network, self.heads
        if isinstance(network, FusedNetwork) and not isinstance(heads, AutoregressiveHeads):
            return partial(network.sample, counts=heads.counts, starts=heads.starts)
        return partial(sample, network, heads)

    def probabilities(
        self, inputs: np.ndarray, state: np.ndarray, sources: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """I(u | l): inputs [B, D], state [B, H] -> probabilities [B, M, C], new state.

        sources [B, M]: those of this step, which autoregressive heads need; see ``Heads.probabilities``.
        """
        outputs, state = self.network.advance(scaled(np.ascontiguousarray(inputs)), state)
        return self.heads.probabilities(np.ascontiguousarray(outputs), sources), state

    def sample(
        self, inputs: np.ndarray, state: np.ndarray, uniforms: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Draw sources: inputs [B, D], state [B, H], uniforms float32 [B, M] in [0, 1) -> sources int64
        [B, M], new state."""
        return self._sample(inputs, state, uniforms)

    def cross_entropy(self, inputs: np.ndarray, sources: np.ndarray) -> float:
        """Mean over episodes, steps and sources, in nats: inputs [K, T, D], sources [K, T, M]."""
        outputs = np.empty((inputs.shape[1], len(inputs), self.heads.outputs), np.float32)
        for block in _blocks(*inputs.shape[:2]):
            x = scaled(by_time(inputs, block))
            outputs[:, block] = self.network.predict(x, self.network.initial_state(len(block)))
        targets = by_time(sources, np.arange(len(inputs)))
        return self.heads.loss(outputs.reshape(-1, self.heads.outputs), targets.reshape(-1, targets.shape[2]))

    def fit(
        self,
        inputs: np.ndarray,
        sources: np.ndarray,
        stream: np.random.Generator,
        epochs: int | None = None,
    ) -> Fit:
        """Train on whole episodes, inputs [K, T, D], sources [K, T, M], except the last share, held out.

        It continues from the present parameters and moments. A recurrent network learns from minibatches of
        at most batch_size episodes, another one from minibatches of steps. With ``patience`` it ends early,
        and takes back what it learnt after the epoch with the lowest held-out loss. epochs: by default those
        of the configuration.
        """
        train = len(inputs) - self.config.held_out_episodes(len(inputs))
        held_out = inputs[train:], sources[train:]
        before = self.cross_entropy(*held_out)
        inputs, sources = inputs[:train], sources[:train]
        constant = baseline_cross_entropy(sources, held_out[1], self.heads.classes)
        if not self.network.state_size:  # each step is a sequence of its own
            inputs, sources = (part.reshape(-1, 1, part.shape[-1]) for part in (inputs, sources))
        best = _Best(before, self.config.patience, self.optimiser) if self.config.patience else None
        for _ in range(epochs or self.config.epochs):
            order = stream.permutation(len(inputs))
            # Of nearly equal sizes: the network allocates memory for two sizes at most.
            for chosen in np.array_split(order, -(-len(order) // self.config.batch_size)):
                self._step(by_time(inputs, chosen), by_time(sources, chosen))
            if best and best.is_over(self.cross_entropy(*held_out)):
                break
        self.network.release()  # whole episodes need more memory than what follows
        after = best.taken_back() if best else self.cross_entropy(*held_out)
        return Fit(before, after, constant)

    def _step(self, inputs: np.ndarray, sources: np.ndarray) -> None:
        """One gradient step on a minibatch: inputs [S, B, D], sources [S, B, M]."""
        state = self.network.initial_state(inputs.shape[1])
        outputs = self.network.forward(scaled(inputs), state)
        rows = outputs.reshape(-1, self.heads.outputs), sources.reshape(-1, sources.shape[2])
        self.network.backward(self.heads.gradient(*rows).reshape(outputs.shape))
        self.optimiser.step(self.config.learning_rate)


class _Best:
    """The state of an optimiser at the lowest loss so far."""

    def __init__(self, loss: float, patience: int, optimiser: Adam) -> None:
        self.loss, self._patience, self._optimiser = loss, patience, optimiser
        self._epochs = 0
        self._state = self._copy()

    def is_over(self, loss: float) -> bool:
        """Note the loss after an epoch; whether it has not fallen for too long."""
        self._epochs += 1
        if loss < self.loss:
            self.loss, self._epochs, self._state = loss, 0, self._copy()
        return self._epochs >= self._patience

    def taken_back(self) -> float:
        """Restore the state; returns its loss."""
        for name, array in self._optimiser.state().items():
            array[...] = self._state[name]
        return self.loss

    def _copy(self) -> dict[str, np.ndarray]:
        return {name: array.copy() for name, array in self._optimiser.state().items()}


def fit_anew(
    settings: InfluenceConfig,
    region: Region,
    number: int,
    data: tuple[np.ndarray, np.ndarray],
    seed: int,
    segment: int = 0,
    start: np.ndarray | None = None,
) -> tuple[Predictor, Fit]:
    """A new predictor of region ``number``, fitted as a run of this seed fits it before the first segment.

    data: inputs [E, T, D] and sources [E, T, M]. segment: another one gives other minibatches. start:
    parameters [P] of the fitted predictor that it starts from; by default it has random ones.
    """
    predictor = Predictor(settings, region, trainable=True)
    if start is None:
        predictor.network.initialise(stream(seed, Purpose.PREDICTOR_INITIALISATION, number))
    else:
        predictor.vector[:] = start
    random, epochs = (
        stream(seed, Purpose.INFLUENCE_FIT, number, segment),
        settings.fit_epochs(start is not None),
    )
    return predictor, predictor.fit(*data, random, epochs)


def starts(settings: InfluenceConfig, regions: Sequence[Region]) -> list[int]:
    """For each region the number of the one whose fitted predictor its own starts from at the first refit,
    if the run begins with none: itself, where it starts from random weights."""
    return first_of_kind(regions) if settings.start == "first" else list(range(len(regions)))


def first_of_kind(regions: Sequence[Region]) -> list[int]:
    """For each region the number of the first one with equal sizes: of inputs, and classes of each source."""
    first: dict[tuple[int, tuple[int, ...]], int] = {}
    return [
        first.setdefault((region.input_size, tuple(region.source_classes)), k)
        for k, region in enumerate(regions)
    ]


def baseline_cross_entropy(train: np.ndarray, test: np.ndarray, classes: Sequence[int]) -> float:
    """Cross-entropy on ``test [..., M]`` of the class frequencies of ``train [..., M]``, add-one smoothed."""
    losses = []
    for m, count in enumerate(classes):
        seen = np.bincount(train[..., m].ravel(), minlength=count) + 1.0
        wanted = np.bincount(test[..., m].ravel(), minlength=count)
        pairs = zip(wanted / wanted.sum(), seen / seen.sum(), strict=True)
        losses.append(-sum(share * log(chance) for share, chance in pairs))
    return float(np.mean(losses))


def _blocks(episodes: int, steps: int) -> list[np.ndarray]:
    """Numbers of episodes, in blocks of about AT_ONCE steps.

    The built-in network multiplies ROWS rows at a time. Each row keeps its place among them, and the last
    block takes the remainder, so that the outputs do not depend on the blocks, to the bit.
    """
    size = max(1, AT_ONCE // steps // ROWS) * ROWS
    return np.split(np.arange(episodes), range(size, episodes - size + 1, size))


def sample(
    network: Network, heads: Heads, inputs: np.ndarray, state: np.ndarray, uniforms: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """``Predictor.sample`` for any network and heads."""
    outputs, state = network.advance(scaled(np.ascontiguousarray(inputs)), state)
    return heads.draw(np.ascontiguousarray(outputs), uniforms), state


@compiled
def _coupled(outputs, sources, couplings, places, widths):
    """A copy of outputs [B, K] with what each source of sources [B, M] adds to those after it."""
    coupled = outputs.copy()
    for b in range(sources.shape[0]):
        for m in range(widths.size):
            add_coupling(coupled[b], sources[b, m], couplings, places[m], widths[m])
    return coupled


@compiled
def _couplings_gradient(gradient, sources, places, widths, found):
    """From the gradient in the outputs [B, K] to that in the couplings, written into ``found`` [N]."""
    found[:] = 0
    for b in range(sources.shape[0]):
        for m in range(widths.size):
            if sources[b, m]:
                added, last = places[m] + (sources[b, m] - 1) * widths[m], gradient.shape[1] - widths[m]
                for k in range(widths[m]):
                    found[added + k] += COUPLING_SCALE * gradient[b, last + k]


@compiled
def _probabilities(outputs, counts, starts):
    probabilities = np.zeros((outputs.shape[0], counts.size, counts.max()), np.float32)
    for b in range(outputs.shape[0]):
        for m in range(counts.size):
            logits = source_logits(outputs[b], counts[m], starts[m])
            total = log_sum_exp(logits)
            for c in range(counts[m]):
                probabilities[b, m, c] = exp_double(logits[c] - total)
    return probabilities


@compiled
def _cross_entropy(outputs, sources, counts, starts):
    total = 0.0
    for b in range(outputs.shape[0]):
        for m in range(counts.size):
            logits = source_logits(outputs[b], counts[m], starts[m])
            total += log_sum_exp(logits) - logits[sources[b, m]]
    return total / sources.size


@compiled
def _gradient(outputs, sources, counts, starts):
    """(Probability - 1 of the true class, - 0 of the others) / number of terms.

    In single precision, because every gradient step computes it.
    """
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
