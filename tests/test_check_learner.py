"""``check --learner``: trainers that keep the contract, and ones that break it in one place each."""

import numpy as np
import pytest
from own_learner import Linear

from dials_mpi.check.__main__ import main

WORDS = ("domain=ponds_domain:Ponds",)


class Unseeded(Linear):
    def __init__(self, task, rng):
        super().__init__(task, np.random.default_rng())


class Mixes(Linear):
    def act(self, observations, state, uniforms):
        actions, state = super().act(observations, state, uniforms)
        return np.full_like(actions, observations.sum() > 1), state


class Counts(Linear):
    def act(self, observations, state, uniforms):
        self.state["segments"] += 1
        return super().act(observations, state, uniforms)


class TooMany(Linear):
    def act(self, observations, state, uniforms):
        return super().act(observations, state, uniforms)[0] + 1, state


class Short(Linear):
    def learn(self, environment, steps, rng):
        return super().learn(environment, steps // 2, rng)


class Chance(Linear):
    def learn(self, environment, steps, rng):
        return super().learn(environment, steps, np.random.default_rng())


class Forgets(Linear):
    """Its momentum is not in ``state``."""

    def __init__(self, task, rng):
        super().__init__(task, rng)
        self.own = self.state.pop("momentum")

    def learn(self, environment, steps, rng):
        self.state = {**self.state, "momentum": self.own}
        found = super().learn(environment, steps, rng)
        self.state.pop("momentum")
        return found


WRONG = {
    Unseeded: "making it: two learners made with equal generators differ (in the parameters)",
    Mixes: "acting: other rows of a batch change the action of a row",
    Counts: "acting: act changes the state",
    TooMany: "acting: ValueError: the actions are",
    Short: "training: RuntimeError: learn of Short has left out 512 steps of the segment",
    Chance: "training: two equal learners differ after a segment with equal random numbers (in the param",
    Forgets: "going on: after another segment they differ: something that learn depends on is not in state",
}


@pytest.mark.quick
def test_a_good_trainer_passes(in_process):
    said = in_process(main)("--learner", "own_learner:Linear", *WORDS)
    assert (said.code, said.stderr) == (0, "")
    assert [line[:5] for line in said.stdout.splitlines()] == ["good "] * 4
    assert "1024 steps in a local simulator" in said.stdout


@pytest.mark.parametrize("kind", WRONG)
def test_what_breaks_the_contract_is_named(kind, in_process):
    said = in_process(main)("--learner", f"test_check_learner:{kind.__name__}", *WORDS)
    assert (said.code, said.stderr) == (1, "")
    last = said.stdout.splitlines()[-1]
    assert last.startswith(f"wrong {WRONG[kind]}") and said.stdout.count("wrong") == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--learner", "ppo"], "--learner is ppo, the built-in trainer"),
        (["--learner", "no_such:Trainer"], "No module named 'no_such'"),
        (["--learner", "own_learner:Linear", "--network", "gru"], "check one after the other"),
        (["--learner", "own_learner:Linear", "--survey"], "--learner is given beside"),
        (["--learner", "own_learner:Linear", "unequal_domain:Unequal"], "region 0 has 2 agents"),
    ],
)
def test_what_cannot_be_checked_is_refused(in_process, words, said):
    found = in_process(main)(*words)
    assert (found.code, found.stdout) == (2, "")
    assert said in found.stderr and found.stderr.count("\n") == 1
