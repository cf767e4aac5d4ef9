"""Definition 3 in ``check``: correct local simulators are good, and faulty ones are found, with a place."""

import numpy as np
import pytest
from ponds_domain import Ponds, PondsConfig

from dials_mpi.check import contract, influence, replay, speed
from dials_mpi.check.__main__ import main
from dials_mpi.check.chance import LEVEL, improbability, over_all
from dials_mpi.check.draws import Replay
from dials_mpi.check.findings import Breach, Verdict
from dials_mpi.check.gaps import difference
from dials_mpi.check.play import play_globally, play_locally
from dials_mpi.domains.traffic import Traffic
from dials_mpi.domains.warehouse import Warehouse, WarehouseConfig, WarehouseLocalSimulator

SEEDS = range(2)


def ponds(**settings):
    return Ponds(PondsConfig(**settings))


def eager(agents, chance):
    """Policies that let water flow where the pond is more than half full."""
    return lambda observations: np.stack([np.where(o[:, 0] > 0.5, 2, 0) for o in observations])


def replayed(domain, seed, policy=None):
    """The finding on Definition 3, as the command makes it."""
    policies = policy or influence.random_actors(domain).policy
    return replay.check_replay(domain, seed, play_globally(domain, seed, 32, policy=policies), policy is None)


# Verdicts ------------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("policy", [None, eager])
def test_shared_random_numbers_make_the_replay_exact(policy, ring):
    for seed in SEEDS:
        found = replayed(ponds(ring=ring), seed, policy)
        assert found.verdict is Verdict.GOOD and "the abstraction is exact" in found.seen


def test_draws_of_episodes_and_regions_that_are_simulated_one_by_one_are_put_together():
    beside, alone = ponds(), ponds()
    alone.side_by_side = 1
    recorded = [play_globally(domain, 0, 5) for domain in (beside, alone)]
    for one, other in zip(*(played.draws for played in recorded), strict=True):
        np.testing.assert_array_equal(one, other)
    found = replay.check_replay(alone, 0, recorded[1])
    assert found.verdict is Verdict.GOOD and "the abstraction is exact" in found.seen


@pytest.mark.parametrize("policy", [None, eager])
def test_without_shared_random_numbers_a_correct_domain_is_good(policy):
    for seed in SEEDS:
        found = replayed(ponds(draws=False), seed, policy)
        assert found.verdict is Verdict.GOOD and "no difference beyond chance" in found.seen


def test_actions_of_policies_that_see_are_not_replayed_with_other_random_numbers():
    """That difference is many standard errors, though the domain is correct: it must not be judged."""
    domain = ponds(draws=False)
    recorded = play_globally(domain, 0, 32, policy=eager)
    local = play_locally(domain, 0, range(4), 32, recorded.sources, recorded.actions)
    gap = difference(local.returns, recorded.returns)
    assert abs(gap.mean) > 5 * gap.error
    found = replay.check_replay(domain, 0, recorded, random_policies=False)
    assert found.verdict is Verdict.GOOD and "of random policies" in found.seen


@pytest.mark.parametrize(
    ("fault", "draws", "said"),
    [
        ("no weather", True, "the local simulator of region 0 does not draw the numbers of shape [[32]]"),
        ("no weather", False, "of agent 0 after step 0 is 0.5, and"),
        ("other weather", True, "draws by integers() are not distributed as those of region_draws()"),
        ("other weather", False, "different beyond chance"),
        ("merged classes", True, "given the recorded random numbers, the observation of agent"),
        ("merged classes", False, "different beyond chance"),
    ],
)
def test_a_faulty_local_simulator_is_found(fault, draws, said):
    for seed in SEEDS:
        domain = ponds(fault=fault, draws=draws)
        assert not [found for found in contract.check_contract(domain, seed) if found.verdict == "wrong"]
        found = replayed(domain, seed)
        assert found.verdict is Verdict.WRONG and said in found.seen


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("returns its own array", "the simulator changes the observations[0] that the first reset returns"),
        ("keeps actions", "writing into what the simulator is given changes the observations[0] that step 2"),
    ],
)
def test_arrays_that_are_shared_with_the_caller_are_found(fault, said):
    *_, last = contract.check_contract(ponds(fault=fault), 0)
    assert (
        last.verdict is Verdict.WRONG
        and f"arrays belong to the caller: {said}" in f"{last.what}: {last.seen}"
    )


def test_the_program_tells_a_fault_and_ends_with_1(capsys, monkeypatch):
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    for words, code, said in (
        ([], 0, "good  local simulators under the true sources"),
        (["ponds.fault=merged classes"], 1, "wrong local simulators under the true sources"),
        (["ponds.fault=keeps actions"], 1, "wrong the local simulators: arrays belong to the caller"),
    ):
        with pytest.raises(SystemExit, match=str(code)):
            main(["ponds_domain:Ponds", *words])
        out = capsys.readouterr().out
        assert said in out and out.count("wrong") == code


def test_too_few_episodes_give_no_verdict():
    domain = ponds(draws=False, fault="merged classes")
    found = replay.check_replay(domain, 0, play_globally(domain, 0, 24))
    assert found.verdict is Verdict.NOTE and "give --episodes 25 or more" in found.seen


@pytest.mark.parametrize(
    ("mean", "verdict"), [(0.03, "good"), (0.2, "wrong"), (-0.2, "wrong"), (0.06, "note")]
)
def test_an_approximation_is_held_to_its_tolerance(mean, verdict, monkeypatch):
    true, noise = np.full((2, 32), 10.0), np.resize([-1.0, 1.0], 32)
    played = [replay.Played(rewards=[returns]) for returns in (true, true * (1 + mean) + noise)]
    assert replay._tolerated(*played, tolerance=0.1 if verdict != "note" else 0.05).verdict == verdict
    assert Traffic.return_tolerance == 0.05


# The warehouse -------------------------------------------------------------------------------------------


def seeing(agents, chance):
    """A joint policy that heeds all that the robots see."""
    return lambda seen: np.stack([(o.astype(np.int64) @ np.arange(o.shape[1])) % 4 for o in seen])


@pytest.mark.parametrize("settings", [{}, {"ring": False}, {"grid": (2, 4), "block": (2, 2)}])
def test_a_correct_warehouse_is_good_whatever_its_policies(settings):
    domain = Warehouse(
        WarehouseConfig(**{"grid": (2, 2), "item_probability": 0.1, "horizon": 50, **settings})
    )
    for policy in (None, seeing):
        assert replayed(domain, 0, policy).verdict is Verdict.GOOD


@pytest.mark.parametrize("fault", ["deaf", "own items"])
def test_a_faulty_warehouse_is_found(fault, monkeypatch):
    step, draw = WarehouseLocalSimulator.step, WarehouseLocalSimulator._draw
    if fault == "deaf":
        absent = lambda self, actions, sources: step(self, actions, np.full_like(sources, 3))  # noqa: E731
        monkeypatch.setattr(WarehouseLocalSimulator, "step", absent)
    else:
        monkeypatch.setattr(WarehouseLocalSimulator, "_draw", lambda self: 1 - draw(self))
    found = replayed(Warehouse(WarehouseConfig(grid=(2, 2))), 0, seeing)
    assert found.verdict is Verdict.WRONG and "given the recorded random numbers" in found.seen


# The predictors' promise ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "spread", "verdict"),
    [(0.5, 1.0, "good"), (3.0, 1.0, "wrong"), (-3.0, 1.0, "wrong"), (0.5, 0.1, "good"), (1.5, 0.1, "wrong")],
)
def test_what_predictors_promise_is_judged_by_the_spread_of_returns(offset, spread, verdict):
    """One standard deviation between episodes, or a tenth of the return, which is 10 here."""
    chance = np.random.default_rng(0)
    real, promised = 10 + spread * chance.standard_normal((2, 8, 64))
    assert influence._promise(promised + offset, real, "policies").verdict == verdict
    few = influence._promise(promised[:1, :4] + offset / 10, real[:1, :4], "policies")
    assert few.verdict == ("note" if spread == 1 else "good")


# Statistics and texts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", ["standard_normal", "standard_cauchy", "rare"])
def test_chance_gives_few_false_alarms_whatever_the_distribution(draw):
    chance = np.random.default_rng(1)
    size = 32, 40_000
    if draw == "rare":
        gaps = chance.choice([-1.0, 0, 1], p=[0.05, 0.9, 0.05], size=size)
    else:
        gaps = getattr(chance, draw)(size)
    p = improbability(gaps, np.zeros(size))
    for level in (0.05, 0.01, 0.001):
        assert np.mean(p < level) < 1.3 * level
    assert over_all([p[:1], p[1:]]) > LEVEL


def test_rounding_is_no_difference():
    those = np.linspace(1, 2, 32)[:, None]
    assert improbability(those * (1 + 1e-7), those) == 1
    assert improbability(those * 1.01, those) < 1e-6


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (np.full((2, 4), 10.0), "+1 ± 0 (+10.0%)"),
        (np.array([[-9.0, 9, -9, 9.5]] * 2), "+1 ± 0"),  # near zero on average
        (np.full((2, 4), 1e-3), "+1 ± 0"),  # a thousand times as much
        (np.zeros((2, 4)), "+1 ± 0"),
    ],
)
def test_there_are_no_percentages_of_numbers_near_zero(returns, said):
    assert str(difference(returns + 1, returns)) == said


def test_a_replay_gives_the_arrays_that_it_was_given():
    replaying, one, two = Replay("region 5", 0), np.array([0.25, 0.5]), np.array([[1, 2], [3, 0]])
    replaying.give([one, one, two, two, two[0]])
    np.testing.assert_array_equal(replaying.random(2), one)
    out = np.empty((2, 1), np.float32)
    assert replaying.random(out=out, dtype=np.float32) is out
    np.testing.assert_array_equal(out[:, 0], one)
    np.testing.assert_array_equal(replaying.integers(4, size=(2, 2)), two)
    np.testing.assert_array_equal(replaying.poisson([1.0, 2, 3, 4]), two.ravel())
    shuffled = np.arange(2)
    replaying.shuffle(shuffled)
    np.testing.assert_array_equal(shuffled, two[0])
    replaying.finish()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "draws integers() of shape [2], and region_draws() has no more numbers"),
        ([np.zeros(3, np.int64)], "of shape [2], and region_draws() has int64 [3]"),
        ([np.zeros(2)], "of shape [2] as int64, and region_draws() has float64 [2]"),
        ([np.zeros(2, np.int64)] * 2, "region 5 does not draw the numbers of shape [[2]]"),
    ],
)
def test_draws_that_do_not_fit_are_named(given, said):
    replaying = Replay("region 5", 0)
    replaying.give(given)
    with pytest.raises(Breach) as breach:
        replaying.integers(4, size=2)
        replaying.finish()
    assert said in str(breach.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rain: [(row,) for row in rain[1:]], "region_draws() has 3 regions, not 4"),
        (lambda rain: [(row[:1],) for row in rain], "region 0 has int64 [1], not numbers of shape [3, ...]"),
    ],
)
def test_region_draws_that_are_none_are_named(change, said, monkeypatch):
    domain = ponds()
    kind = type(domain.global_simulator([np.random.default_rng(0)]))
    monkeypatch.setattr(kind, "region_draws", lambda self: change(self.rain))
    *_, last = contract.check_contract(domain, 0)
    assert last.verdict is Verdict.WRONG and said in last.seen
