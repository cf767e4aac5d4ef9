"""Checks of a trainer of the user's own: ``python -m dials_mpi.check --learner my_package:MyTrainer``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import IALS
from dials_mpi.algorithm.own import AgentEnvironment, OwnAgent
from dials_mpi.check.findings import Breach, Finding, good, note, require, wrong
from dials_mpi.config import Config
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import Purpose, stream
from dials_mpi.core.text import told
from dials_mpi.domains.base import Domain
from dials_mpi.learning.influence import Predictor

BATCH, UPDATES = 5, 8


class Subject(NamedTuple):
    """An agent of one kind that is the only one of its region."""

    config: Config
    domain: Domain
    region: int

    @property
    def agent(self) -> int:
        """Its number."""
        return self.domain.regions[self.region].agents[0]

    def learner(self, seed: int = 0) -> OwnAgent:
        """A new learner."""
        rng = stream(self.config.seed, Purpose.POLICY_INITIALISATION, self.agent, seed)
        return OwnAgent(self.config, self.domain.agents[self.agent], rng=rng)

    def train(self, learner: OwnAgent, segment: int) -> None:
        """A segment of a few updates in the agent's local simulator, with an untrained predictor."""
        config, k = self.config, self.region
        region, envs = self.domain.regions[k], config.envs_per_region
        simulator, sources, acting, fitted = (
            stream(config.seed, purpose, k, segment)
            for purpose in (
                Purpose.SIMULATOR,
                Purpose.SOURCES,
                Purpose.ACTIONS,
                Purpose.PREDICTOR_INITIALISATION,
            )
        )
        predictor = Predictor(config.influence, region)
        predictor.network.initialise(fitted)
        local = self.domain.local_simulator([k], envs, [simulator])
        environment = AgentEnvironment(
            IALS(local, [predictor], envs, [sources]),
            self.domain,
            self.domain.agents[self.agent],
            envs,
            UPDATES * config.ppo.memory_size,
            Failures(),
        )
        learner.learn(environment, acting)


def check_learner(config: Config, domain: Domain) -> Iterator[Finding]:
    """All findings up to the first violation, for an agent of each kind."""
    kinds = {domain.agents[region.agents[0]]: k for k, region in reversed(list(enumerate(domain.regions)))}
    for k in sorted(kinds.values()):
        subject = Subject(config, domain, k)
        for what, look in (
            ("making it", _created),
            ("acting", _acts),
            ("training", _learns),
            ("going on", _continues),
        ):
            try:
                yield look(subject)
            except (Breach, BadInput) as breach:
                yield wrong(what, str(breach))
                return
            except Exception as error:  # a learner may raise anything
                yield wrong(what, told(error))
                return


def _created(subject: Subject) -> Finding:
    one = subject.learner()
    _require_same(one, subject.learner(), "two learners made with equal generators differ")
    state = one.state()["learner"].nbytes
    seen = f"agent {subject.agent}: {len(one.parameters):,} parameters, and a state of {state:,} bytes"
    return good("equal parameters from equal random numbers", seen)


def _acts(subject: Subject) -> Finding:
    one, agent = subject.learner(), subject.domain.agents[subject.agent]
    chance, before = np.random.default_rng(0), one.state()
    seen = chance.random((BATCH, agent.observation_size), np.float32)
    uniforms = np.array([0, 0.25, 0.5, 0.75, np.nextafter(np.float32(1), np.float32(0))], np.float32)
    first = one.act(seen, None, uniforms)
    second = one.act(seen, first.state, uniforms)
    require(np.array_equal(first.actions, one.act(seen, None, uniforms).actions), "two equal calls differ")
    alone = [one.act(seen[b : b + 1], None, uniforms[b : b + 1]).actions[0] for b in range(BATCH)]
    require(alone == first.actions.tolist(), "other rows of a batch change the action of a row")
    for part, row in one.state().items():
        require(np.array_equal(row, before[part]), f"act changes the {_name(part)}")
    chosen = sorted({*first.actions.tolist(), *second.actions.tolist()})
    return good("actions: they exist, and depend on their own row only", f"{chosen} of {agent.actions}")


def _learns(subject: Subject) -> Finding:
    one, again = subject.learner(), subject.learner()
    before = one.state()
    for each in (one, again):
        subject.train(each, 0)
    require(bool(np.isfinite(one.parameters).all()), "parameters are not finite after a segment")
    for part, row in one.state().items():
        require(len(row) == len(before[part]), f"learn changes the sizes of the {_name(part)}")
    _require_same(one, again, "two equal learners differ after a segment with equal random numbers")
    what, steps = "equal training from equal random numbers", UPDATES * subject.config.ppo.memory_size
    if np.array_equal(one.parameters, before["parameters"]):
        return note(what, f"{steps} steps change no parameter: these checks need some with rewards")
    return good(what, f"{steps} steps in a local simulator")


def _continues(subject: Subject) -> Finding:
    """As a run that is resumed: another learner gets the parameters and the state."""
    one, restored = subject.learner(), subject.learner(seed=1)
    subject.train(one, 0)
    for part, row in one.state().items():
        restored.restore(part, row)
    _require_same(one, restored, "a learner that gets its parameters and state has others")
    for each in (one, restored):
        subject.train(each, 1)
    _require_same(
        one, restored, "after another segment they differ: something that learn depends on is not in state"
    )
    return good("a learner that gets parameters and state of another one trains on as that one")


def _require_same(one: OwnAgent, other: OwnAgent, what: str) -> None:
    """Breach: the learners' parameters or states differ."""
    theirs = other.state()
    for part, row in one.state().items():
        require(np.array_equal(row, theirs[part]), f"{what} (in the {_name(part)})")


def _name(part: str) -> str:
    return "parameters" if part == "parameters" else "state"
