"""Checks of a network of the user's own: ``python -m dials_mpi.check --network my_package:MyPolicy``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from dials_mpi.check.exports import check_exports
from dials_mpi.check.findings import Breach, Finding, Verdict, good, note, require
from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.base import Description, Domain
from dials_mpi.learning.network import NETWORKS, Network, create
from dials_mpi.learning.tables import NetworkConfig, layers, policy_sizes, predictor_sizes

ROLES = ("policy", "influence")
STEPS, BATCH = 6, 5
CLOSE = 1e-4
"""Largest difference of outputs that should be equal but for rounding, relative to the largest output."""
SECONDS = 0.5
"""CPU time of one measurement."""


class Subject(NamedTuple):
    """A network to check: its section of the configuration, its sizes and the description of its inputs."""

    config: NetworkConfig
    inputs: int
    outputs: int
    description: Description

    def network(self, seed: int | None = 0, vector: np.ndarray | None = None) -> Network:
        """A network of these sizes; seed: of its first parameters; None: those of the vector."""
        made = create(self.config, self.inputs, self.outputs, vector, self.description)
        if seed is not None:
            made.initialise(np.random.default_rng(seed))
        return made


def subjects(config: Config, domain: Domain, role: str) -> list[Subject]:
    """One network for each kind of agents (role policy) or regions (influence): those of equal sizes."""
    if role == "policy":
        found = [Subject(config.policy, *policy_sizes(one), one.description) for one in domain.agents]
    else:
        found = [Subject(config.influence, *predictor_sizes(one), one.description) for one in domain.regions]
    kinds: dict[tuple[int, int], Subject] = {}
    for subject in found:
        kinds.setdefault((subject.inputs, subject.outputs), subject)
    return list(kinds.values())


def require_class(config: NetworkConfig) -> None:
    """BadInput: torch or the class is missing, or the class is no torch.nn.Module."""
    if config.architecture not in NETWORKS:
        from dials_mpi.learning import torch_modules  # loads torch

        torch_modules.find(config)


def check_network(config: Config, domain: Domain, role: str) -> Iterator[Finding]:
    """All findings; of each kind of agents up to its first violation, and the speed for the first kind."""
    kinds, broken = subjects(config, domain, role), False
    for subject in kinds:
        for finding in _check_kind(subject):
            yield finding
            broken |= finding.verdict is Verdict.WRONG
    if not broken:
        if role == "policy":
            yield from check_exports(config, domain)
        yield from _speed(kinds[0], config.envs_per_region)


def _check_kind(subject: Subject) -> Iterator[Finding]:
    for what, look in (
        ("shapes, types, no noise", _shapes),
        ("the same parameters from the same seed", _seeds),
        ("the same outputs for the same inputs", _repeats),
        ("a row of a batch does not depend on the others", _rows),
        ("whole sequences agree with single steps", _sequences),
        ("the state is forgotten where an episode begins", _resets),
        ("gradients reach every parameter", _gradients),
        ("saving and loading repeats the outputs", _loads),
    ):
        try:
            verdict, seen = look(subject)
        except (Breach, BadInput) as breach:
            yield Finding(what, Verdict.WRONG, str(breach))
            return
        except Exception as error:  # a module may raise anything
            yield Finding(what, Verdict.WRONG, f"{type(error).__name__}: {error}")
            return
        yield Finding(what, verdict, seen)


Seen = tuple[Verdict, str]


def _shapes(subject: Subject) -> Seen:
    network = subject.network()
    state = f"a state of {network.state_size} numbers" if network.state_size else "no state"
    return Verdict.GOOD, (
        f"{subject.inputs} inputs, {subject.outputs} outputs, {len(network.table)} tensors with "
        f"{len(network.vector):,} parameters, {state}"
    )


def _seeds(subject: Subject) -> Seen:
    first, again, other = (subject.network(seed).vector for seed in (0, 0, 1))
    require(
        np.array_equal(first, again),
        "two modules built with one seed differ: draw initial values from torch's generator alone",
    )
    if np.array_equal(first, other):
        return Verdict.NOTE, "and from another seed as well: nothing is random"
    return Verdict.GOOD, "and others from another one"


def _repeats(subject: Subject) -> Seen:
    network, (x, state, keep) = subject.network(), _data(subject)
    first = network.forward(x, state, keep)
    second = network.forward(x, state, keep)
    require(np.array_equal(first, second), f"two equal calls differ by {_largest(first, second):.3g}")
    step = network.advance(x[0], state)
    for one, two in zip(step, network.advance(x[0], state), strict=True):
        require(np.array_equal(one, two), f"two equal steps differ by {_largest(one, two):.3g}")
    return Verdict.GOOD, ""


def _rows(subject: Subject) -> Seen:
    network, (x, state, _) = subject.network(), _data(subject)
    others = x[0].copy()
    others[1:] = 1 - others[1:]
    one, two = (network.advance(inputs, state)[0][0] for inputs in (x[0], others))
    require(_equal(one, two), f"other rows change its outputs by {_largest(one, two):.3g}")
    return Verdict.GOOD, ""


def _sequences(subject: Subject) -> Seen:
    network, (x, state, keep) = subject.network(), _data(subject)
    whole = network.forward(x, state, keep)
    for s in range(STEPS):
        outputs, state = network.advance(x[s], state * keep[s][:, None])
        require(
            _equal(outputs, whole[s]),
            f"step {s} of a sequence differs by {_largest(outputs, whole[s]):.3g} from the step alone",
        )
    return Verdict.GOOD, ""


def _resets(subject: Subject) -> Seen:
    network, (x, state, _) = subject.network(), _data(subject)
    if not network.state_size:
        return Verdict.NOTE, "it has no state"
    keep = np.ones((STEPS, BATCH), np.float32)
    keep[STEPS // 2] = 0
    later = network.forward(x, state, keep)[STEPS // 2 :]
    fresh = network.forward(x[STEPS // 2 :], network.initial_state(BATCH), None)
    require(
        _equal(later, fresh), f"what came before changes the outputs after by {_largest(later, fresh):.3g}"
    )
    one, two = (network.advance(x[0], start)[0] for start in (state, network.initial_state(BATCH)))
    if np.array_equal(one, two):
        return Verdict.NOTE, "yes, and the state changes no output either"
    return Verdict.GOOD, ""


def _gradients(subject: Subject) -> Seen:
    network, (x, state, keep) = subject.network(), _data(subject)
    gradient = network.require_gradient()
    outputs = network.forward(x, state, keep)
    network.backward(np.random.default_rng(2).standard_normal(outputs.shape, np.float32))
    require(bool(np.isfinite(gradient).all()), "a gradient is not finite")
    frozen = getattr(network, "frozen", ())
    missed = [name for name, part in layers(network.table, gradient).items() if not part.any()]
    missed = [name for name in missed if name not in frozen]
    require(
        not missed, f"none reaches {', '.join(missed[:3])}: use it in forward, or set requires_grad to False"
    )
    return Verdict.GOOD, f"except {', '.join(frozen)}, which is not trained" if frozen else ""


def _loads(subject: Subject) -> Seen:
    network, (x, state, keep) = subject.network(seed=3), _data(subject)
    loaded = subject.network(None, network.vector.copy())
    one, two = (each.forward(x, state, keep) for each in (network, loaded))
    require(
        np.array_equal(one, two),
        f"a module with the stored parameters differs by {_largest(one, two):.3g}: only parameters are "
        "stored, and the rest must not be random",
    )
    return Verdict.GOOD, ""


def _data(subject: Subject) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random bits x [S, B, I], a state [B, H] that has seen some, and keep [S, B] with both values."""
    stream = np.random.default_rng(1)
    bits = stream.integers(0, 2, (2 * STEPS, BATCH, subject.inputs)).astype(np.float32)
    network = subject.network()
    state = network.initial_state(BATCH)
    for x in bits[STEPS:]:
        _, state = network.advance(x, state)
    keep = np.ones((STEPS, BATCH), np.float32)
    keep[1, 0] = keep[3, 2] = keep[4, 2] = 0
    return bits[:STEPS], state, keep


def _equal(one: np.ndarray, two: np.ndarray) -> bool:
    return _largest(one, two) <= CLOSE * max(1.0, float(np.abs(two).max(initial=0)))


def _largest(one: np.ndarray, two: np.ndarray) -> float:
    return float(np.abs(one - two).max(initial=0))


def _speed(subject: Subject, rows: int) -> Iterator[Finding]:
    """CPU time of a step and of a training pass, beside the built-in network of the same kind."""
    network = subject.network()
    name = "gru" if network.state_size else "fnn"
    built_in = subject._replace(config=_built_in(subject.config, name)).network()
    yield good(
        f"speed beside the built-in {name} of hidden={list(subject.config.hidden)}",
        f"it has {len(network.vector):,} parameters, the built-in one {len(built_in.vector):,}",
    )
    for what, measure in (("a step", _step_time), ("a training pass of 8 steps", _pass_time)):
        own, theirs = measure(network, subject.inputs, rows), measure(built_in, subject.inputs, rows)
        yield note(
            f"{what} of {rows} environments",
            f"{1e6 * own:.3g} us, built-in {1e6 * theirs:.3g} us: {own / theirs:.3g} times as long",
        )


def _built_in(config: NetworkConfig, name: str) -> NetworkConfig:
    changed: NetworkConfig = replace(config, architecture=name, arguments=type(config.arguments)())  # type: ignore[type-var]
    return changed


def _step_time(network: Network, inputs: int, rows: int) -> float:
    x, state = np.zeros((rows, inputs), np.float32), network.initial_state(rows)
    return _repeat(lambda: network.advance(x, state))


def _pass_time(network: Network, inputs: int, rows: int) -> float:
    x, state = np.zeros((8, rows, inputs), np.float32), network.initial_state(rows)
    network.require_gradient()
    keep = np.ones(x.shape[:2], np.float32) if network.state_size else None

    def work() -> None:
        network.backward(np.ones_like(network.forward(x, state, keep)))

    return _repeat(work)


def _repeat(work: Callable[[], object]) -> float:
    """CPU seconds of one call; the first one, which may compile, does not count."""
    work()
    begun, count = time.process_time(), 0
    while time.process_time() - begun < SECONDS:
        work()
        count += 1
    return (time.process_time() - begun) / count
