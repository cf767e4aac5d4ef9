"""The reference of traffic's speed: SUMO alone, with the same commands."""

import numpy as np
import pytest
from conftest import generators
from traffic_common import random_actions

from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.command_log import LoggedTraffic
from dials_mpi.domains.traffic.throughput import Comparison, compare, compare_global


def whole_state(simulation):
    """All that SUMO says of the vehicles, on the road or waiting to enter, and of the lights."""
    vehicle, light = simulation._api.vehicle, simulation._api.trafficlight
    asked = (vehicle.getRouteID, vehicle.getRoadID, vehicle.getLanePosition, vehicle.getSpeed)
    driving = {name: [ask(name) for ask in asked] for name in vehicle.getIDList()}
    lights = {name: light.getRedYellowGreenState(name) for name in light.getIDList()}
    return driving, sorted(vehicle.getLoadedIDList()), lights


def play_global(domain, steps=120, name=None):
    """Two episodes of which the second restarts on the way; its simulator, still running."""
    simulator, rng = domain.global_simulator(generators(2)), np.random.default_rng(3)
    controller = name and domain.controller(name, simulator, generators(2))
    simulator.reset()
    for t in range(steps):
        actions = controller.act() if controller else random_actions(rng, len(domain.regions), 2)
        simulator.step(actions)
        if t == 70:
            simulator.reset(np.array([False, True]))
    return simulator


def play_local(domain, steps=120):
    simulator, rng = domain.local_simulator([0, 1], 2, generators(2)), np.random.default_rng(3)
    simulator.reset()
    for t in range(steps):
        simulator.step(random_actions(rng, 2, 2), (rng.random((2, 2, 4)) < 0.4).astype(int))
        if t == 70:
            simulator.reset(np.array([True, False]))
    return simulator


PLAYS = {
    "global": play_global,
    "actuated": lambda domain: play_global(domain, name="actuated"),
    "local": play_local,
}


@pytest.mark.parametrize("entries", ["hold", "drop"])
@pytest.mark.parametrize("play", PLAYS)
def test_a_replay_ends_in_the_state_that_was_played(play, entries):
    config = TrafficConfig(grid=(1, 2), inflow=0.3, entries=entries)
    expected = whole_state(PLAYS[play](Traffic(config)).junctions.simulation)
    logged = LoggedTraffic(config)
    recorded = PLAYS[play](logged)
    assert recorded.junctions.simulation is logged.logs[-1]
    assert whole_state(logged.logs[-1]) == expected
    replayed, *_ = logged.logs[-1].replay()
    assert whole_state(replayed) == expected
    driving, loaded, _ = expected
    assert len(driving) > 20 and (len(loaded) > len(driving) or entries == "drop" or play != "local")


def test_a_replay_without_one_of_the_vehicles_ends_elsewhere():
    """The comparison above would notice."""
    logged = LoggedTraffic(TrafficConfig(grid=(1, 2)))
    expected = whole_state(play_global(logged).junctions.simulation)
    commands = logged.logs[-1].commands
    last = max(i for i, (name, _) in enumerate(commands) if name == "insert")
    del commands[last]
    assert whole_state(logged.logs[-1].replay().simulation) != expected


def test_a_log_has_the_commands_that_change_something_and_no_others():
    logged = LoggedTraffic(TrafficConfig(grid=(1, 2)))
    play_global(logged)
    [log] = logged.logs
    assert [name for name, _ in log.commands].count("step") == 120
    assert {name for name, _ in log.commands} == {"step", "insert", "remove", "set_lights"}
    assert all(arguments[0] for name, arguments in log.commands if name != "step")


def test_every_start_of_sumo_has_a_log():
    def play(domain):
        play_global(domain, steps=80)
        play_local(domain, steps=80)

    logged = LoggedTraffic(TrafficConfig(grid=(1, 2)))
    play(logged)
    assert len(logged.logs) == 2
    assert compare(Traffic(logged.config), play).bare > 0


def test_seconds_of_whole_episodes():
    seconds = compare_global(Traffic(TrafficConfig(horizon=300)), repeats=3)
    assert isinstance(seconds, Comparison)
    assert 0 < seconds.stepping < seconds.bare < seconds.played < 60
