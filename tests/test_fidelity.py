"""The comparison of local crossings with the global grid: exact where it must be, and its figures by hand."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import generators, launch

from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.fidelity import independent, record, replay

TRAFFIC = (
    "domain=traffic",
    "traffic.grid=[1,2]",
    "traffic.horizon=60",
    "dataset_size=120",
)


def fixed(domain):
    return lambda simulator: lambda seen: domain.controller("fixed", simulator, ()).act()


def test_a_lone_crossing_is_replayed_exactly_by_hold_and_not_by_drop():
    domain = Traffic(TrafficConfig(grid=(1, 1), inflow=0.2))
    recording = record(domain, generators(3), fixed(domain))
    for ours, truth in zip(replay(domain, recording), recording.seen, strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-6)
    dropping = replay(Traffic(TrafficConfig(grid=(1, 1), inflow=0.2, entries="drop")), recording)
    assert abs(dropping.returns.mean() / recording.seen.returns.mean() - 1) > 0.003


def test_the_figures_are_sums_and_means_over_the_steps():
    domain = Traffic(TrafficConfig(grid=(1, 2), inflow=0.2, horizon=50))
    recording = record(domain, generators(2), fixed(domain))
    # Once more, with plain sums of what the contract and the crossings say.
    simulator = domain.global_simulator(generators(2))
    simulator.reset()
    returns, flow, occupied = np.zeros((2, 2)), np.zeros((2, 4)), np.zeros((2, 4, 9))
    speed, count = np.zeros((2, 4)), np.zeros((2, 4))
    for actions, sources in zip(recording.actions, recording.sources, strict=True):
        step = simulator.step(actions)
        assert np.array_equal(step.sources, sources)
        returns += step.rewards
        for i in range(2):
            for e in range(2):
                flow[i] += step.sources[i, e] / 2
                occupied[i] += step.state.observations[i, e, :36].reshape(4, 9) / (2 * 50)
                speed[i] += simulator.crossings.speed_sum[2 * e + i]
                count[i] += simulator.crossings.count[2 * e + i]
    seen = recording.seen
    np.testing.assert_allclose(seen.returns, returns, rtol=1e-6)
    np.testing.assert_allclose(seen.flow, flow)
    np.testing.assert_allclose(seen.occupancy, occupied)
    np.testing.assert_allclose(seen.speed, speed / np.maximum(count, 1))


def test_the_program_shows_both_rules_by_edge_and_in_sum():
    result = launch("-m", "dials_mpi.fidelity", *TRAFFIC, "--episodes", "2", environment={"COLUMNS": "160"})
    assert (result.code, result.stderr) == (0, "")
    for word in ("hold", "drop", "west", "north", "mean flow", "largest gap in a crossing's return"):
        assert word in result.stdout, word
    short = launch("-m", "dials_mpi.fidelity", *TRAFFIC, "--episodes", "2", "--summary", "--policy", "random")
    assert (short.code, short.stderr) == (0, "") and "west" not in short.stdout


def test_independent_entries_are_all_let_in_by_hold_and_one_in_ten_is_dropped():
    hold, drop = (
        independent(Traffic(TrafficConfig(grid=(2, 2), entries=rule)), 0.1, 8, green=10)
        for rule in ("hold", "drop")
    )
    # 0.1 x 4 edges x 300 steps, less what waits at the end; the same draws for both.
    assert 110 < hold[1] <= 130
    assert 0.86 < drop[1] / hold[1] < 0.94
    assert drop[0] > hold[0]


def test_the_program_plays_independent_entries():
    result = launch("-m", "dials_mpi.fidelity", *TRAFFIC, "--episodes", "2", "--independent", "0.3")
    assert (result.code, result.stderr) == (0, "")
    assert "0.3 per edge" in result.stdout and "after 30 s" in result.stdout


@pytest.mark.quick
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "configs/traffic/4.yaml"),
        ((*TRAFFIC, "--policy", "actuated"), "random, fixed, greedy, max-pressure, never"),
        ((*TRAFFIC, "--episodes", "0"), "at least 1"),
        ((*TRAFFIC, "--independent", "1.5"), "0 to 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(arguments, part):
    result = launch("-m", "dials_mpi.fidelity", *arguments)
    assert result.code == 2 and result.stdout == ""
    assert result.ours() == [result.stderr.rstrip("\n")] and part in result.stderr
