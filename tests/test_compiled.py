"""Traffic: the compiled local junctions are those of SUMO, step by step and in whole runs."""

import re
from dataclasses import replace

import numpy as np
import pytest
from conftest import generators, train
from test_traffic_runs import SMALL, content

from dials_mpi.core.errors import BadInput
from dials_mpi.domains import require_local
from dials_mpi.domains.traffic import Traffic, TrafficConfig, vehicles
from dials_mpi.domains.traffic.controllers import TrafficController
from dials_mpi.domains.traffic.fidelity import record
from dials_mpi.domains.traffic.sameness import compare, require_same_traffic
from dials_mpi.gym.vector import RegionEnv
from dials_mpi.results.run import Run

COMPILED = TrafficConfig(local="compiled", grid=(2, 2))
SETTINGS = {
    "the paper's": COMPILED,
    "dropped entries": replace(COMPILED, entries="drop"),
    "fast": replace(COMPILED, speed_limit=13.89, edge_length=120.0),
    "slow and short": replace(COMPILED, speed_limit=5.0, edge_length=40.0, cells=4, yellow=2),
    "meetings inside the junction": replace(COMPILED, yellow=1),
    "long": replace(COMPILED, speed_limit=20.0, edge_length=300.0, cells=30),
}


def pair(config, environments, seed=3):
    """The local simulators of SUMO and the compiled ones, with the same random numbers."""
    return [
        Traffic(replace(config, local=kind)).local_simulator([0, 1], environments, generators(2, seed))
        for kind in ("sumo", "compiled")
    ]


def random_traffic(steps, environments, switching, entering, seed=1):
    """Actions and sources of two regions."""
    rng = np.random.default_rng(seed)
    actions = (rng.random((steps, 2, environments)) < switching).astype(int)
    return actions, (rng.random((*actions.shape, 4)) < entering).astype(int)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_observation_and_reward_is_that_of_sumo(name):
    for switching, entering in ((0.1, 0.3), (0.5, 0.1)):
        actions, sources = random_traffic(150, 4, switching, entering)
        found = compare(SETTINGS[name], actions, sources)
        assert found == (actions.size, 0, 0, 0.0)


def test_the_vehicles_are_where_sumos_are():
    """Bit for bit, and on the picture."""
    sumo, compiled = pair(COMPILED, 1)
    for simulator in (sumo, compiled):
        simulator.reset()
    for action, source in zip(*random_traffic(120, 1, 0.1, 0.2), strict=True):
        for simulator in (sumo, compiled):
            simulator.step(action, source)
        reading, cars = sumo.junctions.simulation.read(), compiled.junctions._cars
        ours = [
            cars.position[k, m, i]
            for k, m in np.ndindex(2, 4)
            for i in reversed(range(cars.number[k, m]))
            if cars.lane[k, m, i] == 0
        ]
        assert reading.position.tolist() == ours
    theirs, shown = sumo.junctions.simulation.vehicle_positions(), compiled.junctions.positions()
    first = theirs.front[:, 0] < 300  # of the two junctions side by side
    order = [np.lexsort(vehicles.front.round(3).T) for vehicles in (theirs, shown)]
    order[0] = order[0][first[order[0]]]
    assert len(shown.speed) > 5
    for values, others in zip(theirs, shown, strict=True):
        np.testing.assert_allclose(values[order[0]], others[order[1]], atol=0.01)
    sumo.close()


@pytest.mark.parametrize("entries", ["hold", "drop"])
def test_staggered_resets_are_those_of_sumo(entries):
    simulators = pair(replace(COMPILED, entries=entries), 4)
    for simulator in simulators:
        simulator.reset()
    rng = np.random.default_rng(8)
    for t, (action, source) in enumerate(zip(*random_traffic(120, 4, 0.1, 0.5), strict=True)):
        if t % 20 == 19:
            where = rng.random(4) < 0.4
            states = [simulator.reset(where) for simulator in simulators]
            np.testing.assert_array_equal(*(state.observations for state in states))
        steps = [simulator.step(action, source) for simulator in simulators]
        np.testing.assert_array_equal(*(step.state.observations for step in steps))
        np.testing.assert_array_equal(*(step.rewards for step in steps))
    simulators[0].close()


@pytest.mark.slow
def test_a_run_with_it_is_the_same_run(trained, tmp_path):
    """Policies, predictors, returns: bit for bit, at one rank and at three."""
    sumo = content(trained(*SMALL))
    for ranks in (None, 3):
        directory = tmp_path / f"{ranks}"
        words = (*SMALL, "traffic.local=compiled", "--output", str(directory))
        result = train(*words, ranks=ranks)
        assert (result.code, result.stderr) == (0, "")
        ours = content(directory)
        assert ours.keys() == sumo.keys()
        for name in ours:
            if not name.startswith(("config/", "events/", "placement/")):
                np.testing.assert_array_equal(ours[name], sumo[name], err_msg=name)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"block": (1, 2)}, "traffic.block is [1, 2]"),
        ({"speed_limit": 13.889}, "traffic.speed_limit is 13.889"),
        ({"edge_length": 40.0, "cells": 4, "speed_limit": 30.0}, "traffic.edge_length is 40"),
    ],
)
def test_what_it_cannot_simulate_is_refused(change, text):
    replace(COMPILED, local="sumo", **change)
    with pytest.raises(BadInput, match=re.escape(text)):
        replace(COMPILED, **change)


def test_another_sumo_is_refused(monkeypatch):
    require_same_traffic(COMPILED, "1.28.0")
    monkeypatch.setitem(vehicles.CAR, "tau", "1.1")  # of SUMO's vehicles; the compiled ones are known already
    with pytest.raises(BadInput, match=re.escape("that of SUMO 1.99.0 differs")):
        require_same_traffic(COMPILED, "1.99.0")


def test_only_what_uses_local_junctions_compares_them_with_sumo(monkeypatch):
    """Evaluating and drawing the whole grid need SUMO alone, of any version."""

    def differs(config, version):
        raise BadInput("differs")

    monkeypatch.setattr("dials_mpi.domains.traffic.sameness.require_same_traffic", differs)
    run = Run.of_config(None, ["domain=traffic", "traffic.local=compiled", "dataset_size=9900"])
    assert run.domain.versions()["sumo"]
    with pytest.raises(BadInput, match="differs"):
        require_local(run.domain)
    with pytest.raises(BadInput, match="differs"):
        RegionEnv(run.config)


PLANS = ("random", "never", "fixed", "trained")
LEARNING = (
    *("total_steps=40000", "retrain_every=40000", "evaluate_every=40000", "evaluation_episodes=2"),
    "traffic.local=compiled",
)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("plan", PLANS)
def test_a_hundred_episodes_of_the_whole_grid(plan, trained):
    """Their actions and entries, in all regions: no observation and no reward differs from SUMO's."""
    domain = Traffic(COMPILED)
    rng = np.random.default_rng(5)

    def policy(simulator):
        if plan == "random":
            return lambda _: rng.random((4, 100)) < 0.1
        if plan == "trained":
            run = Run.open(trained("--config", "configs/traffic/fast.yaml", *LEARNING))
            return run.joint_policy(plan, simulator, generators(100, 7))
        controller = TrafficController(plan, simulator)
        return lambda _: controller.act()

    recording = record(domain, generators(100), policy)
    found = compare(COMPILED, recording.actions.astype(int), recording.sources)
    assert found == (300 * 100 * 4, 0, 0, 0.0)
