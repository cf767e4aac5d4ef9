"""``check`` on a domain that keeps the contract, and on ones that break it in one place each."""

import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL

from dials_mpi.algorithm.joint import TrainedPolicies
from dials_mpi.check import contract, influence, replay, speed
from dials_mpi.check.__main__ import main
from dials_mpi.check.findings import Verdict
from dials_mpi.check.play import play_globally, play_locally
from dials_mpi.config import load
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import State, Statistic
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.policy import Policy

sys.path.append(str(Path(__file__).parents[1] / "examples" / "relays"))
import relays


def line(**settings):
    return relays.Relays(relays.RelaysConfig(**{"nodes": 4, "horizon": 20, **settings}))


def findings_on(domain):
    return list(contract.check_contract(domain, seed=0))


def wrong(domain):
    """What is said of the one thing that is wrong, which comes last."""
    *others, last = findings_on(domain)
    assert last.verdict is Verdict.WRONG, last
    assert not [finding for finding in others if finding.verdict is Verdict.WRONG]
    return f"{last.what}: {last.seen}"


@pytest.mark.quick
def test_the_example_keeps_the_contract():
    findings = findings_on(line())
    assert len(findings) == 12
    assert not [finding for finding in findings if finding.verdict is Verdict.WRONG]


# Faults, each put into one of the simulators -------------------------------------------------------------


def stepping(kind, change):
    """A simulator class whose steps are changed."""

    class Changed(kind):
        def step(self, *arguments):
            return change(self, super().step(*arguments))

    return Changed


def with_state(step, observations=None, inputs=None):
    state = State(observations or step.state.observations, inputs or step.state.inputs)
    return step._replace(state=state)


def late(simulator, step):
    """From the fifth step on."""
    simulator.count = getattr(simulator, "count", 0) + 1
    return np.full_like(step.done, simulator.count >= 5)


STEP_FAULTS = {
    "rewards in double precision": (
        lambda self, step: step._replace(rewards=np.float64(step.rewards)),
        "rewards are float64, not float32",
    ),
    "bits that are none": (
        lambda self, step: with_state(
            step, observations=[np.uint8(np.ceil(2 * o)) for o in step.state.observations]
        ),
        "are uint8 up to 2, not bits: give float32",
    ),
    "a tuple without names": (lambda self, step: tuple(step), "AttributeError: "),
    "an observation too few": (
        lambda self, step: with_state(step, observations=step.state.observations[:-1]),
        "3 observations in step 1",
    ),
    "another size": (
        lambda self, step: with_state(step, observations=[o[:, :1] for o in step.state.observations]),
        "observations of agent 0 are of shape [3, 1], not [3, 3]",
    ),
    "double precision": (
        lambda self, step: with_state(step, observations=[np.float64(o) for o in step.state.observations]),
        "observations of agent 0 are float64, not uint8 or float32",
    ),
    "not a number": (
        lambda self, step: with_state(step, observations=[o * np.nan for o in step.state.observations]),
        "observations of agent 0 are not finite",
    ),
    "inputs of another type": (
        lambda self, step: with_state(step, inputs=[np.uint8(i) for i in step.state.inputs]),
        "inputs of region 0 are uint8, not float32",
    ),
    "rewards by episode first": (
        lambda self, step: step._replace(rewards=step.rewards.T),
        "rewards are of shape [(3, 4)], not [4, 3]",
    ),
    "an infinite reward": (lambda self, step: step._replace(rewards=step.rewards + np.inf), "not finite"),
    "done too early": (
        lambda self, step: step._replace(done=late(self, step)),
        "done is set after steps [5, 6, 7], not after the last one",
    ),
    "never done": (
        lambda self, step: step._replace(done=np.zeros_like(step.done)),
        "done is set after steps []",
    ),
}


@pytest.mark.parametrize("where", ["global", "local"])
@pytest.mark.parametrize("fault", STEP_FAULTS)
def test_a_fault_in_what_a_step_gives_is_named(fault, where, monkeypatch):
    change, said = STEP_FAULTS[fault]
    name = {"global": "GlobalLine", "local": "LocalLine"}[where]
    monkeypatch.setattr(relays, name, stepping(getattr(relays, name), change))
    assert f"the {where} simulator" in (found := wrong(line())) and said in found


def test_statistics_that_are_names_are_named():
    domain = line()
    domain.statistics = ("freezing",)
    assert "statistics has 'freezing', which is no Statistic" in wrong(domain)


def test_a_statistic_is_better_lower_or_higher():
    domain = line()
    domain.statistics = (Statistic("waiting", "s", "of all", "less"),)
    assert "statistic waiting is better 'less', not lower, higher or empty" in wrong(domain)


def test_an_exception_is_told_with_the_line_of_the_domain(monkeypatch):
    monkeypatch.delattr(relays.GlobalLine, "statistics")
    assert "AttributeError: 'GlobalLine' object has no attribute 'statistics'" in wrong(line())

    def broken(self, actions):
        return [][len(actions)]

    monkeypatch.setattr(relays.GlobalLine, "step", broken)
    assert "IndexError: list index out of range (test_check.py, line" in wrong(line())


def change_global(monkeypatch, change):
    monkeypatch.setattr(relays, "GlobalLine", stepping(relays.GlobalLine, change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda self, step: step._replace(sources=[s + 1 for s in step.sources]),
            "outside their classes (2, 2",
        ),
        (lambda self, step: step._replace(sources=[s[:, 1:] for s in step.sources]), "sources of region 0"),
        (
            lambda self, step: step._replace(sources=[np.float32(s) for s in step.sources]),
            "not whole numbers",
        ),
    ],
)
def test_sources_that_are_none_are_named(change, said, monkeypatch):
    change_global(monkeypatch, change)
    assert said in wrong(line())


def test_chance_from_elsewhere_is_found(monkeypatch):
    chance = np.random.default_rng()
    change_global(
        monkeypatch, lambda self, step: step._replace(rewards=step.rewards + np.float32(chance.random()))
    )
    assert "two runs with one seed differ" in wrong(line())


def test_a_stream_that_episodes_share_is_found(monkeypatch):
    class Shared(relays.GlobalLine):
        def __init__(self, config, line, streams):
            super().__init__(config, line, [streams[0]] * len(streams))

    monkeypatch.setattr(relays, "GlobalLine", Shared)
    assert "an episode played alone differs" in wrong(line())


def test_regions_that_know_of_each_other_are_found(monkeypatch):
    def change(self, step):
        total = sum(packets.sum() for packets in self.packets)
        return step._replace(rewards=step.rewards + np.float32(total))

    monkeypatch.setattr(relays, "LocalLine", stepping(relays.LocalLine, change))
    assert "simulated alone differs" in wrong(line())


@pytest.mark.parametrize("where", ["GlobalLine", "LocalLine"])
def test_a_reset_that_does_not_heed_its_arguments_is_found(where, monkeypatch):
    kind = getattr(relays, where)

    class Early(kind):
        def reset(self, where=None, elapsed=None):
            return super().reset(where)

    monkeypatch.setattr(relays, where, Early)
    assert "does not shorten the second one" in wrong(line())

    class All(kind):
        def reset(self, where=None, elapsed=None):
            return super().reset(None, elapsed)

    monkeypatch.setattr(relays, where, All)
    assert "a restart of one episode changes" in wrong(line())


def test_a_controller_that_is_none_is_named(monkeypatch):
    monkeypatch.setattr(relays.Relays, "controller", lambda *arguments: None)
    assert "controller('longest', ...) gives None, which has no method act" in wrong(line())


def test_a_controller_that_needs_what_reset_makes_is_found(monkeypatch):
    """Elsewhere it is made before the first reset."""
    original = relays.GlobalLine.reset

    def reset(self, where=None, elapsed=None):
        self.begun = True
        return original(self, where, elapsed)

    monkeypatch.setattr(relays.GlobalLine, "reset", reset)
    monkeypatch.setattr(relays.Longest, "__init__", lambda self, simulator: simulator.begun)
    assert "AttributeError: 'GlobalLine' object has no attribute 'begun'" in wrong(line())


def test_a_restart_that_changes_the_clock_of_others_is_found(monkeypatch):
    class All(relays.GlobalLine):
        def reset(self, where=None, elapsed=None):
            state = super().reset(where, elapsed)
            if where is not None:
                self.clocks.restart(None, None)
            return state

    monkeypatch.setattr(relays, "GlobalLine", All)
    assert "a restart of one episode changes the clock of another" in wrong(line())


@pytest.mark.parametrize(
    ("actions", "said"), [(9, "an action that does not exist"), (None, "of shape [2, 4]")]
)
def test_a_hand_coded_policy_that_cannot_act_is_found(actions, said, monkeypatch):
    def act(self):
        shape = (4, 2) if actions else (2, 4)
        return np.full(shape, actions or 0)

    monkeypatch.setattr(relays.Longest, "act", act)
    assert said in wrong(line())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda domain: domain.regions.pop(), "the regions hold the agents [0, 1, 2], not each of them once"),
        (lambda domain: setattr(domain, "horizon", 0), "horizon is 0"),
        (lambda domain: domain.agents.__setitem__(1, relays.Agent(3, 1)), "agent 1 has 1 actions"),
        (
            lambda domain: domain.regions.__setitem__(1, relays.Region((1,), 4, (2, 1))),
            "region 1 has a source of one class",
        ),
    ],
)
def test_a_description_that_does_not_fit_is_named(change, said):
    domain = line()
    change(domain)
    assert said in wrong(domain)


# Definition 3 --------------------------------------------------------------------------------------------


def replayed(domain, episodes=40):
    actors = influence.random_actors(domain)
    recorded = play_globally(domain, 0, episodes, policy=actors.policy)
    findings = [
        replay.check_replay(domain, 0, recorded),
        *influence.check_influence(domain, 0, recorded, actors),
    ]
    return {finding.what: finding for finding in findings}


@pytest.mark.quick
def test_an_exact_abstraction_is_said_to_be_one():
    found = replayed(line())
    exact = found["local simulators under the true sources (Definition 3)"]
    assert exact.verdict is Verdict.GOOD and "the abstraction is exact" in exact.seen
    assert found["the influence matters"].verdict is Verdict.GOOD


def test_an_abstraction_that_is_not_exact_is_measured(monkeypatch):
    """Local packets that come too often are half lost: what is missing is measured by hand as well."""

    class Leaky(relays.LocalLine):
        def step(self, actions, sources):
            return super().step(
                actions, [np.asarray(part) * [1, *[0] * (part.shape[1] - 1)] for part in sources]
            )

    domain = line()
    exact = recorded_episodes(domain, 40).returns.mean()
    monkeypatch.setattr(relays, "LocalLine", Leaky)
    domain = line()
    found = replayed(domain)["local simulators under the true sources (Definition 3)"]
    assert found.verdict is Verdict.WRONG and "draws no random numbers" in found.seen
    gap = float(found.seen.split("differs by ")[1].split(" ±")[0])
    recorded = recorded_episodes(domain, 40)
    local = play_locally(domain, 0, range(4), 40, recorded.sources, recorded.actions)
    assert gap == pytest.approx(local.returns.mean() - exact, rel=0.01)


def recorded_episodes(domain, episodes):
    return play_globally(domain, 0, episodes, policy=influence.random_actors(domain).policy)


class Alone(relays.Relays):
    """The line, with simulators that take one episode of the whole, or one region."""

    side_by_side = 1

    def global_simulator(self, streams):
        if len(streams) > 1:
            raise ValueError("several episodes")
        return super().global_simulator(streams)

    def local_simulator(self, regions, environments, streams):
        if len(regions) > 1:
            raise ValueError("several regions")
        return super().local_simulator(regions, environments, streams)


def test_a_domain_of_one_region_or_episode_at_a_time_gives_the_same_results():
    beside, alone = line(), Alone(line().config)
    assert not [finding for finding in findings_on(alone) if finding.verdict is Verdict.WRONG]
    *_, actors = networks(beside)
    recorded, again = (play_globally(domain, 0, 10, policy=actors.policy) for domain in (beside, alone))
    assert recorded.differs_from(again) is None
    np.testing.assert_array_equal(np.stack(recorded.actions), np.stack(again.actions))
    np.testing.assert_array_equal(np.stack(recorded.done), np.stack(again.done))
    local = [play_locally(domain, 0, [2, 0], 10) for domain in (beside, alone)]
    assert local[0].differs_from(local[1]) is None
    said = [replay.check_replay(domain, 0, recorded) for domain in (beside, alone)]
    assert said[0] == said[1] and said[0].verdict is Verdict.GOOD
    assert replayed(alone)["the influence matters"].verdict is Verdict.GOOD


def test_one_episode_at_a_time_that_does_not_begin_later_is_found(monkeypatch):
    class Early(relays.GlobalLine):
        def reset(self, where=None, elapsed=None):
            return super().reset(where)

    monkeypatch.setattr(relays, "GlobalLine", Early)
    assert "does not shorten the only one" in wrong(Alone(line().config))


def test_an_influence_that_changes_nothing_is_said_to(monkeypatch):
    class Deaf(relays.LocalLine):
        def step(self, actions, sources):
            return super().step(actions, [np.ones_like(part) for part in sources])

    monkeypatch.setattr(relays, "LocalLine", Deaf)
    found = replayed(line())
    assert found["the influence matters"].verdict is Verdict.NOTE
    assert "by +0 ± 0" in found["the most frequent sources alone"].seen


def test_frequencies_are_those_of_the_recorded_episodes():
    domain = line()
    recorded = play_globally(domain, 0, 7)
    classes = domain.regions[2].source_classes
    counts = np.zeros((len(classes), 2))
    for step in recorded.sources:
        for episode in step[2]:
            for m, value in enumerate(episode):
                counts[m, value] += 1
    np.testing.assert_allclose(
        influence.frequencies(recorded, 2, classes), counts / counts.sum(axis=1)[:, None]
    )


# A run's policies and predictors -------------------------------------------------------------------------


def networks(domain):
    """Policies and predictors as they are initialised, and who acts with them."""
    config = load(None, ["domain=relays:Relays", "relays.nodes=4"])
    policies = [Policy(config.policy, agent) for agent in domain.agents]
    predictors = [Predictor(config.influence, region) for region in domain.regions]
    for k, made in enumerate([*policies, *predictors]):
        made.network.initialise(np.random.default_rng(k))

    def policy(agents, chance):
        return TrainedPolicies([policies[i] for i in agents], chance)

    return policies, predictors, influence.Actors("the trained policies", policy, predictors)


def everybody(actors):
    """The joint policy of all agents in ten episodes."""
    return actors.policy(range(4), streams(0, Purpose.EVALUATION_ACTIONS, 10))


def test_policies_that_act_upon_what_they_see_repeat_themselves_in_an_exact_abstraction():
    """Regions that hold their agents in another order: each must still be given its own observations."""
    domain = line()
    *_, actors = networks(domain)
    recorded = play_globally(domain, 0, 10, policy=actors.policy)
    assert len(np.unique(np.stack(recorded.actions))) > 2
    local = domain.local_simulator(range(4), 10, streams(0, Purpose.SIMULATOR, 4))
    fed = influence.ReplayedSources(local, recorded.sources)
    returns = influence.local_returns(domain, fed, everybody(actors), range(4))
    np.testing.assert_array_equal(returns, recorded.returns)


def test_agents_in_another_order_are_given_their_own_observations(monkeypatch):
    """Regions in reverse, with recorded sources as well: only the order in which they are held differs."""
    domain = line()
    *_, actors = networks(domain)
    recorded = play_globally(domain, 0, 10, policy=actors.policy)
    turned = line()
    turned.regions = domain.regions[::-1]
    monkeypatch.setattr(
        turned,
        "local_simulator",
        lambda regions, *rest: domain.local_simulator([3 - k for k in regions], *rest),
    )
    local = turned.local_simulator(range(4), 10, streams(0, Purpose.SIMULATOR, 4))
    fed = influence.ReplayedSources(local, [sources[::-1] for sources in recorded.sources])
    returns = influence.local_returns(turned, fed, everybody(actors), range(4))
    np.testing.assert_array_equal(returns, recorded.returns[::-1])


def test_the_return_that_predictors_promise_is_that_of_a_plain_loop():
    domain = line()
    policies, predictors, actors = networks(domain)
    recorded = play_globally(domain, 0, 10, policy=actors.policy)
    *_, last = influence.check_influence(domain, 0, recorded, actors)
    assert last.what == "sources sampled from the run's predictors"

    chances = streams(0, Purpose.EVALUATION_ACTIONS, 10)
    draws = streams(0, Purpose.SOURCES, 4)
    local = domain.local_simulator(range(4), 10, streams(0, Purpose.SIMULATOR, 4))
    state, total = local.reset(), 0.0
    acting = [[policy.network.initial_state(n) for n in (8, 2)] for policy in policies]
    foretelling = [predictor.network.initial_state(10) for predictor in predictors]
    for _ in range(domain.horizon):
        uniforms = np.stack([chance.random(4, dtype=np.float32) for chance in chances])
        actions = np.empty((4, 10), np.int64)
        for i, policy in enumerate(policies):
            for b, rows in enumerate((slice(0, 8), slice(8, 10))):
                decision = policy.act(state.observations[i][rows], acting[i][b], uniforms[rows, i])
                actions[i, rows], acting[i][b] = decision.actions, decision.state
        sources = []
        for k, predictor in enumerate(predictors):
            chance = draws[k].random((10, len(domain.regions[k].source_classes)), dtype=np.float32)
            drawn, foretelling[k] = predictor.sample(state.inputs[k], foretelling[k], chance)
            sources.append(drawn)
        state, rewards, _ = local.step(actions, sources)
        total += rewards.sum(dtype=np.float64)
    assert f"a mean return of {total / 40:.4g}," in last.seen


def test_the_program_checks_a_run_with_its_policies(trained, capsys, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    run = str(trained(*SMALL, ranks=3))
    with pytest.raises(SystemExit, match="0"):
        main([run, "--episodes", "4"])
    out = capsys.readouterr().out
    assert "change the mean return of the trained policies by" in out
    assert "sources sampled from the run's predictors: give the trained policies a mean return of" in out
    with pytest.raises(SystemExit, match="2"):
        main([run, "seed=1"])
    assert "seed=1 is given beside the run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([run, "--checkpoint", "7"])
    assert "no 7 checkpoint" in capsys.readouterr().err


# The program ---------------------------------------------------------------------------------------------


def test_the_program_checks_a_domain(capsys, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    with pytest.raises(SystemExit, match="0"):
        main(["relays:Relays", "relays.nodes=3", "relays.horizon=20", "--episodes", "4"])
    out = capsys.readouterr().out
    assert "the abstraction is exact" in out and "a step of the global simulator" in out
    assert "wrong" not in out


def test_a_folder_of_a_domains_name_is_no_run(tmp_path, capsys, monkeypatch):
    """As in configs/, where one is called warehouse."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "warehouse").mkdir()
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    with pytest.raises(SystemExit, match="0"):
        main(["warehouse", "warehouse.grid=[1,2]", "warehouse.horizon=20", "--episodes", "2"])
    assert "Definition 3" in capsys.readouterr().out


def test_the_program_ends_with_1_where_something_is_wrong(capsys, monkeypatch):
    change_global(monkeypatch, lambda self, step: step._replace(rewards=step.rewards * np.nan))
    with pytest.raises(SystemExit, match="1"):
        main(["relays:Relays", "relays.nodes=3", "relays.horizon=20"])
    out = capsys.readouterr().out
    assert "wrong the global simulator" in out and "Definition 3" not in out


@pytest.mark.parametrize("domain", ["warehouse", "traffic"])
def test_the_domains_of_the_paper_keep_the_contract(domain, capsys, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    words = [f"{domain}.grid=[2,2]", f"{domain}.horizon=30", "dataset_size=300", "--episodes", "4"]
    with pytest.raises(SystemExit, match="0"):
        main([domain, *words])
    assert "Definition 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["relays:Nothing"], "has no class Nothing"),
        (["relays:Relays", "relays.nodes=1"], "relays.nodes is 1"),
        (["relays:Relays", "--episodes", "1"], "--episodes is 1"),
        (["relays:Relays", "--checkpoint", "best"], "--checkpoint is given, and no run"),
        ([], "DOMAIN"),
    ],
)
def test_bad_input_is_refused(words, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words)
    error = capsys.readouterr().err
    assert error.startswith("dials_mpi: ") and error.count("\n") == 1 and said in error
