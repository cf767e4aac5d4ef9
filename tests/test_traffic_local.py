"""Traffic: the local simulators, against replays of the whole system, one another, and plain counts."""

import copy
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from conftest import generators
from traffic_common import EAST, NORTH, SIDES, SOUTH, WEST, api, random_actions

from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.insertion import Hold
from dials_mpi.domains.traffic.platoons import Platoons

# --- the local simulators: exactness (Definition 3) ---


def record(domain, episodes, act):
    """A global episode: actions, sources, observations, rewards [T, N, E, ...], and places.

    places: where regions have one crossing, for each step: where a vehicle that came onto edge m of region n
    in episode e was, position and speed by (n, e, m).
    """
    simulator = domain.global_simulator(generators(episodes))
    policy, columns = act(simulator), domain.config.grid[1]
    simulator.reset()
    lane, vehicle = api(simulator).lane, api(simulator).vehicle
    parts, places = [], []
    for _ in range(domain.horizon):
        actions = policy()
        state, sources, rewards, _ = simulator.step(actions)
        parts.append((actions, sources, state.observations, rewards))
        places.append({})
        for n, e, m in np.argwhere(sources).tolist() if domain.config.block == (1, 1) else ():
            here = lane.getLastStepVehicleIDs(f"{e}_{n // columns}_{n % columns}_{SIDES[m]}_0")
            places[-1][n, e, m] = min((vehicle.getLanePosition(v), vehicle.getSpeed(v)) for v in here)
    return [np.array(part) for part in zip(*parts, strict=True)], places


def replay(domain, actions, sources, before=lambda simulator, t: None):
    """The same in the local simulators of all regions: observations, rewards, entered [T, N, E, ...]."""
    regions, episodes = sources.shape[1:3]
    order = [i for region in domain.regions for i in region.agents]
    back = np.argsort(order)
    simulator = domain.local_simulator(range(regions), episodes, generators(regions, 9))
    simulator.reset()
    parts = []
    for t in range(len(actions)):
        before(simulator, t)
        state, rewards, _ = simulator.step(actions[t][order], sources[t])
        entered = simulator.crossings.entered.reshape(regions, episodes, -1, 4).swapaxes(1, 2)
        entered = entered.reshape(-1, episodes, 4)
        parts.append((state.observations[back], rewards[back], entered[back]))
    return [np.array(part) for part in zip(*parts, strict=True)]


@pytest.mark.parametrize("inflow", [0.1, 0.6])
@pytest.mark.parametrize("speed_limit", [10, 14])
def test_a_crossing_without_neighbours_is_reproduced_exactly(inflow, speed_limit):
    config = TrafficConfig(grid=(1, 1), inflow=inflow, speed_limit=speed_limit)
    domain, rng = Traffic(config), np.random.default_rng(0)
    (actions, sources, seen, paid), _ = record(domain, 3, lambda _: lambda: random_actions(rng, 1, 3))
    local_seen, local_paid, entered = replay(domain, actions, sources)
    assert np.array_equal(local_seen, seen)
    assert np.array_equal(local_paid, paid)
    assert np.array_equal(entered, sources)
    assert sources.mean() > 0.09 and len(np.unique(paid)) > 500


def record_blocks(config, episodes, act):
    """``record`` of blocks; the sources of each crossing by itself, [T, N, E, 4], and the places there."""
    apart, places = record(Traffic(replace(config, block=(1, 1))), episodes, act)
    parts, _ = record(Traffic(config), episodes, act)
    assert all(np.array_equal(apart[k], parts[k]) for k in (0, 2, 3))
    return parts, apart[1], places


def ways_into(grid, block):
    """For each block its crossings' edges that come from outside it: (number of the crossing, side)."""
    behind = ((0, -1), (1, 0), (0, 1), (-1, 0))  # west, south, east, north
    found = []
    for top in range(0, grid[0], block[0]):
        for left in range(0, grid[1], block[1]):
            own = [(top + r, left + c) for r in range(block[0]) for c in range(block[1])]
            ways = [
                (r, c, m) for r, c in own for m, (dr, dc) in enumerate(behind) if (r + dr, c + dc) not in own
            ]
            found.append([(r * grid[1] + c, m) for r, c, m in ways])
    return found


@pytest.mark.parametrize("inflow", [0.1, 0.6])
@pytest.mark.parametrize("grid", [(2, 2), (1, 3), (3, 2)])
def test_a_whole_grid_in_one_block_is_reproduced_exactly(grid, inflow):
    """Definition 3: inside, vehicles drive as they did; from outside they come when they did."""
    config, n = TrafficConfig(grid=grid, block=grid, inflow=inflow), grid[0] * grid[1]
    script = random_actions(np.random.default_rng(0), config.horizon, n, 3)
    parts, apart, _ = record_blocks(config, 3, lambda _: partial(next, iter(script)))
    actions, sources, seen, paid = parts
    assert sources.shape == (config.horizon, 1, 3, 2 * sum(grid))
    local_seen, local_paid, entered = replay(Traffic(config), actions, sources)
    assert np.array_equal(local_seen, seen)
    assert np.array_equal(local_paid, paid)
    assert np.array_equal(entered, apart)
    assert len(np.unique(paid)) > 500


@pytest.mark.parametrize(("grid", "block"), [((2, 4), (2, 2)), ((2, 2), (1, 2)), ((4, 2), (2, 1))])
def test_blocks_are_reproduced_where_vehicles_enter_as_they_did(grid, block, monkeypatch):
    """But for the thousandths of a metre, and for whom a vehicle that leaves would have to wait outside."""
    config = TrafficConfig(grid=grid, block=block)
    domain, ways = Traffic(config), ways_into(grid, block)
    (actions, sources, seen, paid), apart, places = record_blocks(config, 4, fixed_plan(domain))
    for k, edges in enumerate(ways):
        assert domain.regions[k].source_classes == (2,) * len(edges)
        expected = np.stack([apart[:, n, :, m] for n, m in edges], axis=-1)
        assert np.array_equal(sources[:, k], expected)

    def feed(simulator, t):
        def place(rule, k, way, uniform):
            n, m = ways[k // 4][way]
            return places[t][n, k % 4, m]

        monkeypatch.setattr(Hold, "_place", place)

    local_seen, local_paid, entered = replay(domain, actions, sources, feed)
    assert np.abs(local_paid - paid).mean() < 2e-3
    assert (local_seen != seen).mean() < 2e-3
    assert (entered != apart).mean() < 1e-3


@pytest.mark.parametrize("entries", ["hold", "drop"])
def test_blocks_have_the_same_flow_and_return(entries):
    config = TrafficConfig(grid=(2, 4), block=(2, 2), entries=entries)
    (actions, sources, _, paid), apart, _ = record_blocks(config, 8, fixed_plan(Traffic(config)))
    _, local_paid, entered = replay(Traffic(config), actions, sources)
    off = 0.01 if entries == "hold" else 0.1
    assert entered.sum() == pytest.approx(apart.sum(), rel=off)
    assert local_paid.sum() == pytest.approx(paid.sum(), rel=off)


def test_exactness_needs_the_true_sources():
    domain, rng = Traffic(TrafficConfig(grid=(1, 1))), np.random.default_rng(0)
    (actions, sources, seen, _), _ = record(domain, 3, lambda _: lambda: random_actions(rng, 1, 3))
    local_seen, *_ = replay(domain, actions, np.roll(sources, 1, axis=0))
    assert not np.array_equal(local_seen, seen)


def test_regions_with_neighbours_are_reproduced_where_vehicles_enter_as_they_did(monkeypatch):
    """But for the thousandths of a metre and of a metre per second at which vehicles are put in."""
    domain = Traffic(TrafficConfig())
    (actions, sources, seen, paid), places = record(domain, 4, fixed_plan(domain))

    def feed(simulator, t):
        monkeypatch.setattr(Hold, "_place", lambda rule, k, m, uniform: places[t][k // 4, k % 4, m])

    local_seen, local_paid, entered = replay(domain, actions, sources, feed)
    assert np.array_equal(entered, sources)
    assert np.abs(local_paid - paid).mean() < 1e-3
    assert (local_seen != seen).mean() < 1e-3


def fixed_plan(domain):
    return lambda simulator: domain.controller("fixed", simulator, [None]).act


def test_regions_with_neighbours_have_the_same_flow_and_return():
    domain = Traffic(TrafficConfig())
    (actions, sources, _, paid), _ = record(domain, 8, fixed_plan(domain))
    _, local_paid, entered = replay(domain, actions, sources)
    assert entered.sum() == pytest.approx(sources.sum(), rel=0.01)
    assert entered.sum((0, 2)) == pytest.approx(sources.sum((0, 2)), rel=0.01)
    assert local_paid.sum() == pytest.approx(paid.sum(), rel=0.01)


# --- the local simulators: independent tiles ---


@pytest.mark.quick
def test_nobody_comes_to_a_tile_without_sources():
    simulator = Traffic(TrafficConfig()).local_simulator(range(4), 2, generators(4))
    simulator.reset()
    sources, rng = np.zeros((4, 2, 4), int), np.random.default_rng(0)
    alone = np.zeros((4, 2), bool)
    alone[2, 1] = True
    for _ in range(80):
        sources[2, 1] = rng.random(4) < 0.4
        state, rewards, _ = simulator.step(random_actions(rng, 4, 2), sources)
        assert not state.inputs[~alone].any() and not rewards[~alone].any()
    assert {api(simulator).vehicle.getRouteID(v)[:2] for v in api(simulator).vehicle.getIDList()} == {"5_"}
    assert state.inputs[alone].any() and rewards[alone].all()


def local_run(domain, regions, streams, actions, sources, resets):
    """What each of the regions sees and is paid: [T, R, E, ...]."""
    simulator = domain.local_simulator(regions, actions.shape[-1], streams)
    simulator.reset()
    seen, paid = [], []
    for t in range(len(actions)):
        state, rewards, _ = simulator.step(actions[t][regions], sources[t][regions])
        if resets[t].any():
            state = simulator.reset(resets[t])
        seen.append(state.observations)
        paid.append(rewards)
    return np.array(seen), np.array(paid)


@pytest.mark.parametrize("entries", ["hold", "drop"])
def test_a_block_depends_on_its_own_stream_alone(entries):
    """With 1, 2 and 4 of two crossings in a simulation, and with restarts in the middle."""
    config = TrafficConfig(grid=(2, 4), block=(2, 1), entries=entries)
    domain, rng, found = Traffic(config), np.random.default_rng(0), {}
    actions, sources = random_actions(rng, 90, 4, 2, 3), (rng.random((90, 4, 3, 6)) < 0.3).astype(int)
    for regions in ([1], [3, 1], [0, 1, 2, 3]):
        streams = [np.random.default_rng(k) for k in regions]
        simulator = domain.local_simulator(regions, 3, streams)
        simulator.reset()
        place, rows = regions.index(1), []
        for t in range(90):
            acting = actions[t, regions].reshape(-1, 3)
            state, paid, _ = simulator.step(acting, sources[t, regions])
            if t % 20 == 15:
                state = simulator.reset(np.arange(3) == t // 20 % 3)
            own = slice(2 * place, 2 * place + 2)
            assert np.array_equal(
                state.inputs[place], np.concatenate(list(state.observations[own, :, :36]), axis=1)
            )
            rows.append((state.observations[own], paid[own]))
        found[len(regions)] = [np.array(part) for part in zip(*rows, strict=True)]
    for number in (2, 4):
        assert all(np.array_equal(*pair) for pair in zip(found[number], found[1], strict=True))
    assert found[1][1].any() and not np.array_equal(found[1][0][:, 0], found[1][0][:, 1])


@pytest.mark.parametrize("entries", ["hold", "drop"])
@pytest.mark.parametrize("environments", [1, 4])
def test_a_region_depends_on_its_own_stream_alone(entries, environments):
    """With 1, 3 and 16 regions in a simulation, and with restarts at other moments in each environment."""
    domain, rng = Traffic(TrafficConfig(grid=(4, 4), entries=entries)), np.random.default_rng(0)
    shape = 120, 16, environments
    actions, sources = random_actions(rng, *shape), (rng.random((*shape, 4)) < 0.3).astype(int)
    resets = (np.arange(120)[:, None] - 7 * np.arange(environments)) % 40 == 39
    streams = {r: np.random.SeedSequence(r) for r in range(16)}
    seen = {}
    for regions in ([5], [3, 5, 12], list(range(16))):
        own = [np.random.default_rng(streams[r]) for r in regions]
        seen[len(regions)] = local_run(domain, regions, own, actions, sources, resets)
    for found, place in ((seen[3], 1), (seen[16], 5)):
        assert np.array_equal(found[0][:, place], seen[1][0][:, 0])
        assert np.array_equal(found[1][:, place], seen[1][1][:, 0])
    assert not np.array_equal(seen[16][0][:, 3], seen[16][0][:, 5])


@pytest.mark.parametrize("entries", ["hold", "drop"])
def test_staggered_resets_leave_nothing_behind(entries):
    """No vehicle on the road or waiting; and the rest of the episode is that of a new simulator."""
    domain, rng = Traffic(TrafficConfig(grid=(1, 2), entries=entries)), np.random.default_rng(0)
    streams = generators(2)
    simulator = domain.local_simulator([0, 1], 3, streams)
    simulator.reset()
    for e in (2, 0, 1, 0):
        for _ in range(30):
            simulator.step(random_actions(rng, 2, 3), (rng.random((2, 3, 4)) < 0.5).astype(int))
        assert vehicles_by_environment(simulator)[e] > 10
        others = simulator.crossings.count.reshape(2, 3, 4).copy()
        state = simulator.reset(np.arange(3) == e)
        assert vehicles_by_environment(simulator)[e] == 0
        assert not state.inputs[:, e].any() and (state.observations[:, e, 36:] == [1, 0, 0, 0]).all()
        others[:, e] = 0
        assert np.array_equal(simulator.crossings.count.reshape(2, 3, 4), others)
    fresh = domain.local_simulator([0, 1], 3, copy.deepcopy(streams))
    actions, sources = random_actions(rng, 50, 2, 3), (rng.random((50, 2, 3, 4)) < 0.5).astype(int)
    after = [simulator.step(actions[t], sources[t]) for t in range(50)]
    fresh.reset()
    for t, (state, rewards, _) in enumerate(after):
        expected = fresh.step(actions[t], sources[t])
        assert np.array_equal(state.observations[:, 0], expected.state.observations[:, 0])
        assert np.array_equal(rewards[:, 0], expected.rewards[:, 0])


def vehicles_by_environment(simulator):
    """On the road or waiting to enter, in all regions; the simulator has 3 environments."""
    vehicles = api(simulator).vehicle.getLoadedIDList()
    tiles = Counter(int(api(simulator).vehicle.getRouteID(v).partition("_")[0]) for v in vehicles)
    return [sum(number for k, number in tiles.items() if k % 3 == e) for e in range(3)]


# --- the local simulators: how vehicles enter ---


def fed(entries, sources, grid=(1, 1)):
    """Plays the sources [T, K, 4] in as many tiles, lights never changing; entered [T, K, 4]."""
    domain = Traffic(TrafficConfig(grid=grid, entries=entries))
    simulator = domain.local_simulator([0], sources.shape[1], generators(1))
    simulator.reset()
    entered = []
    for now in sources:
        simulator.step(np.zeros((1, len(now)), int), now[None])
        entered.append(simulator.crossings.entered.copy())
    return simulator, np.array(entered)


def test_hold_loses_nobody_and_lets_nobody_follow_at_once():
    sources = np.zeros((200, 4, 4), int)
    sources[:60] = np.random.default_rng(0).random((60, 4, 4)) < 0.4
    sources[60:, :, [WEST, EAST]] = 0
    for grid in ((1, 1), (2, 2)):  # all edges from outside, and half of them from a neighbour
        simulator, entered = fed("hold", sources, grid)
        assert not (entered[1:] & entered[:-1]).any()
        backlog = np.cumsum(sources, 0) - np.cumsum(entered, 0)
        assert (backlog >= 0).all() and (backlog[:60] > 0).any()
        assert np.array_equal(simulator.entrances.waiting, backlog[-1])
        assert (backlog[-1][:, [SOUTH, NORTH]] == 0).all()  # served by the green
        assert (backlog[-1][:, [WEST, EAST]] > 0).any()  # full up to their beginning


def test_hold_lets_a_vehicle_enter_in_the_step_of_its_source():
    sources = (np.random.default_rng(0).random((60, 2, 4)) < 0.1).astype(int)
    sources[1:] &= 1 - np.maximum.accumulate(sources, 0)[:-1]  # one for each edge
    _, entered = fed("hold", sources)
    assert np.array_equal(entered, sources) and sources.sum() > 5


def test_hold_puts_vehicles_at_the_beginning_of_edges_from_outside_and_into_inner_ones():
    """Region 0 of a 2 x 2 grid has its neighbours in the east and in the south."""
    domain = Traffic(TrafficConfig())
    simulator = domain.local_simulator([0], 300, generators(1))
    simulator.reset()
    simulator.step(np.zeros((1, 300), int), np.ones((1, 300, 4), int))
    vehicle, places = api(simulator).vehicle, {side: [] for side in SIDES}
    for name in vehicle.getIDList():
        side = vehicle.getRouteID(name).rpartition("_")[2]
        places[side].append((vehicle.getLanePosition(name), vehicle.getSpeed(name)))
    for side in ("west", "north"):
        assert np.array(places[side]) == pytest.approx(np.array([[5.1, 10.0]] * 300))
    for side in ("south", "east"):
        assert len(places[side]) == 300 and len(set(places[side])) > 20
        position, speed = np.array(places[side]).T
        assert (position >= 0).all() and (position < 10).all() and (speed > 5).all() and (speed <= 10).all()


def test_drop_loses_whom_the_one_before_leaves_no_room():
    sources = np.zeros((100, 3, 4), int)
    sources[:40] = np.random.default_rng(0).random((40, 3, 4)) < 0.4
    simulator, entered = fed("drop", sources)
    lost = sources.sum(0) - entered.sum(0)
    assert not (entered & (sources == 0)).any()
    assert lost.min() >= 0 and lost.sum() > 10
    assert np.array_equal(simulator.entrances.dropped, lost)
    assert not api(simulator).simulation.getPendingVehicles()
    pair = np.zeros((60, 3, 4), int)
    pair[:2] = 1
    _, dropped = fed("drop", pair)
    _, held = fed("hold", pair)
    assert (dropped.sum(0) == 1).all() and (held.sum(0) == 2).all()


def test_drop_puts_vehicles_where_the_authors_do():
    """6 m into the edge at 9.5 m/s, or at 3 m/s behind more than 8 others."""
    simulator = Traffic(TrafficConfig(grid=(1, 1), entries="drop")).local_simulator([0], 1, generators(1))
    simulator.reset()
    vehicle, known, met = api(simulator).vehicle, set(), Counter()
    for t in range(120):
        before = api(simulator).lane.getLastStepVehicleNumber("0_0_0_west_0")
        simulator.step(np.zeros((1, 1), int), np.array([[[t % 3 == 0, 0, 0, 0]]], int))
        for name in set(vehicle.getIDList()) - known:
            known.add(name)
            expected = (6.0, 3.0 if before > 8 else 9.5)
            assert (vehicle.getLanePosition(name), vehicle.getSpeed(name)) == pytest.approx(expected)
            met[expected] += 1
    assert min(met.values()) > 0 and len(met) == 2


def test_platoons_are_drawn_by_headway():
    recorded = [[(1.0, 8.0)], [(2.0, 8.0), (3.0, 8.0)], [(4.0, 9.0)], [(5.0, 9.0), (6.0, 10.0), (7.0, 10.0)]]
    drawn = Platoons(recorded).draw
    assert [drawn(headway, 0.5)[0] for headway in (1, 2, 3, 4, 5, 6, 10**9)] == [1, 1, 3, 4, 6, 6, 6]
    assert [drawn(5, uniform)[0] for uniform in (0.0, 0.33, 0.34, 0.66, 0.67, 0.999)] == [5, 5, 6, 6, 7, 7]
