"""A program for test_same_bits.py: digests of results of compiled code, one line each, for numba's target.

Arguments: ``small`` for three small functions, ``learning`` for all learning functions, or ``run``, a folder
and settings for a run of ``dials_mpi.train``.
"""

import sys
from collections.abc import Iterator
from contextlib import suppress
from hashlib import sha256

import numpy as np

from dials_mpi import config as c

RANDOM = np.random.default_rng(0)
CLASSES = (2, 4, 3)


def some(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape, np.float32)


def digest(*arrays: np.ndarray) -> str:
    return sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:16]


def small() -> Iterator[tuple[str, str]]:
    """Loops that each target vectorises for itself."""
    from dials_mpi.learning.influence import _gradient
    from dials_mpi.learning.kernels.gru import _cell, _cell_backward

    gates, products, before, after = some(3 * 500), some(3 * 500), some(500), some(500)
    _cell(gates, products, before, after)
    yield "cell", digest(gates, after)
    _cell_backward(gates, products, before, after)
    yield "backward cell", digest(gates, products, after)
    sources, counts = RANDOM.integers(5, size=(40, 2)).astype(np.uint8), np.array([5, 20])
    yield "cross-entropy", digest(_gradient(some(40, 25), sources, counts, np.array([0, 5])))


def learning() -> Iterator[tuple[str, str]]:
    yield from small()
    yield from functions()
    yield from layers()
    for architecture in ("gru", "fnn"):
        yield from policy(architecture)
        yield from predictor(architecture)


def functions() -> Iterator[tuple[str, str]]:
    from dials_mpi.learning.kernels import activations
    from dials_mpi.learning.kernels.sampling import log_sum_exp
    from dials_mpi.learning.ppo import shorten

    for name in ("exp", "sigmoid", "tanh"):
        yield name, digest([getattr(activations, name)(x) for x in 30 * some(3000)])
    for name, numbers in {"exp_double": 30 * some(3000), "log": np.exp(10 * some(3000))}.items():
        yield name, digest([getattr(activations, name)(np.float64(x)) for x in numbers])
    yield "log_sum_exp", digest([log_sum_exp(some(size)) for size in range(1, 40)])
    shortened = some(1001)
    shorten(shortened, 0.5)
    yield "shorten", digest(shortened)


def layers() -> Iterator[tuple[str, str]]:
    from dials_mpi.learning.kernels.gemm import linear, of_weights, through_weights

    for samples, inputs, outputs in [(1, 37, 3), (3, 100, 130), (16, 70, 67), (130, 33, 5), (300, 65, 66)]:
        x, d_out, weight, bias = (
            some(samples, inputs),
            some(samples, outputs),
            some(outputs, inputs),
            some(outputs),
        )
        out, d_x, d_weight, d_bias = np.empty_like(d_out), x.copy(), weight.copy(), bias.copy()
        linear(x, weight, bias, out)
        through_weights(d_out, weight, d_x, 1)
        of_weights(d_out, x, d_weight, d_bias)
        yield f"layer of {samples}", digest(out, d_x, d_weight, d_bias)


def policy(architecture: str) -> Iterator[tuple[str, str]]:
    """Two updates of 4 environments, and a step of a policy with 1 and with 5 of them."""
    from dials_mpi.domains.base import Agent
    from dials_mpi.learning.ppo import PPO

    sizes = c.Policy(architecture=architecture, hidden=(37, 20), sequence_length=8)
    settings = c.PPO(max_gradient_norm=0.5, learning_rate=0.01, minibatch_size=64)
    agent = PPO(sizes, settings, Agent(observation_size=29, actions=6), 4)
    agent.policy.network.initialise(np.random.default_rng(1))
    agent.begin_segment(np.random.default_rng(2), np.random.default_rng(3))
    for _ in range(2):
        for t in range(agent.length):
            agent.act(some(4, 29))
            agent.observe(some(4), np.full(4, t % 20 == 19), some(4, 29))
        agent.update(some(4, 29), 0.25)
    yield (
        f"update of a {architecture}",
        digest(agent.policy.network.vector, *agent.optimiser.state().values()),
    )
    yield f"metrics of a {architecture}", digest(agent.metrics, *agent.memory().values())
    for rows in (1, 5):
        decision = agent.policy.act(
            some(rows, 29), agent.policy.initial_state(rows), RANDOM.random(rows, np.float32)
        )
        yield f"{rows} decisions of a {architecture}", digest(*decision)


def predictor(architecture: str) -> Iterator[tuple[str, str]]:
    from dials_mpi.domains.base import Region
    from dials_mpi.learning.influence import Predictor

    for heads in ("independent", "autoregressive"):
        settings = c.Influence(
            architecture=architecture, hidden=(24, 17), epochs=2, batch_size=7, heads=heads
        )
        made = Predictor(settings, Region((0,), 21, CLASSES, "uint8"), trainable=True)
        made.network.initialise(np.random.default_rng(1))
        inputs = RANDOM.integers(2, size=(20, 30, 21)).astype(np.uint8)
        sources = np.stack([RANDOM.integers(count, size=(20, 30)) for count in CLASSES], -1).astype(np.uint8)
        fit = made.fit(inputs, sources, np.random.default_rng(2))
        name = f"{heads} heads of a {architecture}"
        yield f"fit of {name}", digest(np.array(fit), made.vector)
        state, uniforms = made.network.initial_state(20), RANDOM.random((20, len(CLASSES)), np.float32)
        yield f"sources of {name}", digest(*made.sample(inputs[:, 0], state, uniforms))
        yield f"probabilities of {name}", digest(*made.probabilities(inputs[:, 0], state, sources[:, 0]))


def run(folder: str, *settings: str) -> Iterator[tuple[str, str]]:
    """Each series and array of the run file that does not measure the machine."""
    import h5py

    from dials_mpi.train import main

    sys.argv = ["train", "--output", folder, *settings]
    with suppress(SystemExit):
        main()
    with h5py.File(f"{folder}/run.h5") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        own = ("timing/", "memory/", "events/", "config/", "evaluation/wall_time", "placement/")
        for name in names:
            if not name.startswith(own):
                found = file[name][()]
                yield name, digest(found.astype(str) if found.dtype == object else found)


def lines(what: str, *arguments: str) -> list[str]:
    """What the program prints."""
    RANDOM.bit_generator.state = np.random.PCG64(0).state
    found = {"small": small, "learning": learning, "run": run}[what](*arguments)
    return [f"digest {name}: {value}" for name, value in found]


if __name__ == "__main__":
    print("\n".join(lines(*sys.argv[1:])))
