"""Traffic: lights, what is seen and counted, the global simulator and the hand-coded policies.

Expected values come from plain loops over the vehicles that SUMO itself lists, and from SUMO's own demand.
"""

import copy
import importlib
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from conftest import generators
from hypothesis import given, settings
from hypothesis import strategies as st
from traffic_common import CYCLE, EAST, NORTH, SIDES, SOUTH, WEST, api, random_actions

from dials_mpi.core.errors import BadInput
from dials_mpi.domains import DOMAINS, create
from dials_mpi.domains.traffic import Traffic, TrafficConfig, vehicles
from dials_mpi.domains.traffic.junctions import Lights
from dials_mpi.domains.traffic.network import Network

# --- the domain and its settings ---


@pytest.mark.quick
@pytest.mark.parametrize("sees_lights", [False, True])
def test_the_domain_describes_its_regions(sees_lights):
    domain = create("traffic", DOMAINS["traffic"][1](grid=(2, 3), predictor_sees_lights=sees_lights))
    assert (domain.name, domain.horizon, len(domain.regions)) == ("traffic", 300, 6)
    agent, region = domain.agents[5], domain.regions[5]
    assert (agent.observation_size, agent.actions, len(domain.agents)) == (40, 2, 6)
    assert (region.agents, region.source_classes) == ((5,), (2, 2, 2, 2))
    assert region.input_size == (40 if sees_lights else 36)
    for simulator in (
        domain.global_simulator(generators(2)),
        domain.local_simulator(range(6), 2, generators(6)),
    ):
        state = simulator.reset()
        assert state.observations.shape == (6, 2, 40) and state.inputs.shape == (6, 2, region.input_size)
        assert state.observations.dtype == state.inputs.dtype == np.uint8
        assert np.array_equal(state.inputs, state.observations[..., : region.input_size])


def test_more_cells_than_an_edge_has_are_refused():
    TrafficConfig(cells=10)
    TrafficConfig(cells=9, edge_length=95)
    with pytest.raises(BadInput, match=r"traffic\.cells is 11.*traffic\.edge_length=100: make it at most 10"):
        TrafficConfig(cells=11)
    with pytest.raises(BadInput, match=r"traffic\.edge_length=95: make it at most 9"):
        TrafficConfig(cells=10, edge_length=95)


def test_unknown_names_and_missing_streams_are_refused():
    domain = Traffic(TrafficConfig(grid=(1, 1)))
    with pytest.raises(ValueError, match="no hand-coded traffic policy 'newest'"):
        domain.controller("newest", domain.global_simulator(generators(1)), generators(1))
    with pytest.raises(ValueError, match="2 regions need as many streams, not 1"):
        domain.local_simulator([0, 0], 4, generators(1))


# --- lights ---


def plain_light(orders, yellow):
    """(phase, age) of one light in every step: once it switches, it is known what comes until green."""
    shown, plan, told = [], [], []
    for order in orders:
        if order == "restart":
            shown, plan = [], []
        now = shown[-1] if shown else 0
        if order == "switch" and not plan:
            plan = [(now + 1) % 4] * yellow + [(now + 2) % 4]
        shown.append(plan.pop(0) if plan else now)
        age = 0
        while age < len(shown) and shown[-1 - age] == shown[-1]:
            age += 1
        told.append((shown[-1], age))
    return told


ORDERS = st.sampled_from(["keep"] * 5 + ["switch"] * 3 + ["restart"])


@given(
    columns=st.lists(st.lists(ORDERS, min_size=40, max_size=40), min_size=3, max_size=3),
    yellow=st.integers(1, 6),
)
@settings(max_examples=50, deadline=None)
def test_lights_keep_their_times(columns, yellow):
    """Orders of keeping, switching and restarting (which keeps) to three lights."""
    lights = Lights(3, yellow)
    plain = zip(*(plain_light(orders, yellow) for orders in columns), strict=True)
    for orders, expected in zip(np.transpose(columns), plain, strict=True):
        lights.reset(orders == "restart")
        before = lights.phase.copy()
        changed = lights.act((orders == "switch").astype(int))
        assert list(zip(lights.phase.tolist(), lights.age.tolist(), strict=True)) == list(expected)
        assert np.array_equal(changed, np.flatnonzero(lights.phase != before))


# --- what is seen, against a loop over all vehicles ---


class Watcher:
    """Reads vehicle by vehicle what there is in a simulation of a grid."""

    def __init__(self, config, episodes):
        rows, columns = config.grid
        self.config = config
        self.names = [[f"{e}_{r}_{c}" for e in range(episodes)] for r in range(rows) for c in range(columns)]
        self.on = {}

    def look(self, simulator):
        """(observations, inputs, sources, rewards) of the step that has just passed."""
        config, vehicle, lights = self.config, api(simulator).vehicle, api(simulator).trafficlight
        before, self.on = self.on, {}
        for name in vehicle.getIDList():
            place = vehicle.getLanePosition(name), vehicle.getSpeed(name)
            self.on.setdefault(vehicle.getLaneID(name), {})[name] = place
        seen, sources, rewards = [], [], []
        for junction in (name for region in self.names for name in region):
            bits, speeds, entered = [], [], []
            for side in SIDES:
                here = self.on.get(f"{junction}_{side}_0", {})
                cells = {int((config.edge_length - position) // 10) for position, _ in here.values()}
                bits += [int(cell in cells) for cell in range(config.cells)]
                speeds += [speed for _, speed in here.values()]
                new = set(here) - set(before.get(f"{junction}_{side}_0", {}))
                assert len(new) <= 1
                entered.append(len(new))
            state = lights.getRedYellowGreenState(junction)
            seen.append(bits + [int(state == phase) for phase in CYCLE])
            sources.append(entered)
            rewards.append(sum(speeds) / len(speeds) / config.speed_limit if speeds else 0)
        shape = len(self.names), len(self.names[0])
        return (
            np.array(seen).reshape(*shape, -1),
            np.array(sources).reshape(*shape, 4),
            np.array(rewards).reshape(shape),
        )


@pytest.mark.parametrize(
    "config",
    [
        TrafficConfig(grid=(2, 2)),
        TrafficConfig(grid=(2, 3), inflow=0.3),
        TrafficConfig(grid=(1, 2), edge_length=130, speed_limit=14, cells=6, yellow=5),
        TrafficConfig(grid=(2, 1), cells=10),
    ],
    ids=lambda config: f"{config.grid}-{config.cells}",
)
def test_what_is_seen_agrees_with_a_loop_over_all_vehicles(config):
    simulator, rng = Traffic(config).global_simulator(generators(2)), np.random.default_rng(1)
    watcher, n = Watcher(config, 2), config.grid[0] * config.grid[1]
    simulator.reset()
    met = np.zeros((2, n, 2))
    for _ in range(200):
        state, sources, rewards, _ = simulator.step(random_actions(rng, n, 2))
        expected, expected_sources, expected_rewards = watcher.look(simulator)
        assert np.array_equal(state.observations, expected)
        assert np.array_equal(state.inputs, expected[..., :-4])
        assert np.array_equal(sources, expected_sources)
        assert rewards == pytest.approx(expected_rewards, rel=1e-6)
        phases = simulator.junctions.lights.phase.reshape(2, n).T
        assert np.array_equal(phases, expected[..., -4:].argmax(-1))
        junctions = simulator.junctions
        lanes = [len(watcher.on.get(lane, {})) for lane in junctions.network.lanes]
        assert junctions.count.ravel().tolist() == lanes
        speeds = [sum(v for _, v in watcher.on.get(lane, {}).values()) for lane in junctions.network.lanes]
        assert junctions.speed_sum.ravel() == pytest.approx(speeds)
        met += [rewards > 0, (phases % 2 == 1)]
    assert (met > 0).all()


def test_a_vehicle_is_seen_from_the_beginning_of_its_edge_to_the_stop_line():
    """One vehicle from each side, under the first green: what is seen of it, cell by cell."""
    simulator = Traffic(TrafficConfig(grid=(1, 1))).local_simulator([0], 1, generators(1))
    simulator.reset()
    seen = []
    for t in range(25):
        state = simulator.step(np.zeros((1, 1), int), np.full((1, 1, 4), t == 0)).state
        seen.append(state.observations[0, 0, :36].reshape(4, 9))
    seen = np.array(seen)
    for side in (SOUTH, NORTH):  # at 5.1 m first, and 10 m further on in every second
        cells = [np.flatnonzero(row).tolist() for row in seen[:, side]]
        assert cells == [[], [8], [7], [6], [5], [4], [3], [2], [1], [0], *[[]] * 15]
    for side in (WEST, EAST):
        assert [np.flatnonzero(row).tolist() for row in seen[-5:, side]] == [[0]] * 5


# --- the global simulator ---


def episode(simulator, actions, steps, first=0):
    """All that can be seen from here on: arrays [T, ...]."""
    parts = []
    for t in range(first, first + steps):
        state, sources, rewards, _ = simulator.step(actions[t])
        parts.append((state.observations, state.inputs, sources, rewards))
    return [np.array(part) for part in zip(*parts, strict=True)]


def returns_of(domain, streams, act):
    """Mean return over the regions of each episode, and the statistics; act(simulator) gives a policy."""
    simulator = domain.global_simulator(streams)
    policy = act(simulator)
    simulator.reset()
    total = np.zeros((len(domain.regions), len(streams)))
    for _ in range(domain.horizon):
        total += simulator.step(policy()).rewards
    return total.mean(0), simulator.statistics()


def test_random_actions_return_what_the_authors_get():
    episodes, rng = 24, np.random.default_rng(0)
    returns, _ = returns_of(
        Traffic(TrafficConfig()), generators(episodes), lambda _: lambda: rng.integers(0, 2, (4, episodes))
    )
    assert returns.mean() == pytest.approx(142, abs=4 * returns.std(ddof=1) / np.sqrt(episodes))
    assert 5 < returns.std(ddof=1) < 20


def test_no_two_episodes_are_alike():
    simulator = Traffic(TrafficConfig()).global_simulator(generators(5))
    actions, seen = np.zeros((60, 4, 5), int), []
    for _ in range(2):
        simulator.reset()
        rewards = episode(simulator, actions, 60)[3]
        seen += list(np.moveaxis(rewards, -1, 0))
    assert len({rewards.tobytes() for rewards in seen}) == 10


def test_an_episode_depends_on_its_own_stream_alone():
    domain = Traffic(TrafficConfig(grid=(2, 3)))
    actions = random_actions(np.random.default_rng(0), 150, 6, 3)
    together, statistics = [], []
    for _ in range(2):
        simulator = domain.global_simulator(generators(3))
        simulator.reset()
        together.append(episode(simulator, actions, 150))
        statistics.append(simulator.statistics())
    assert all(map(np.array_equal, *together))
    alone = domain.global_simulator([generators(3)[1]])
    alone.reset()
    for one, many in zip(episode(alone, actions[:, :, 1:2], 150), together[0], strict=True):
        assert np.array_equal(one, many[:, :, 1:2])
    for name, values in alone.statistics().items():
        assert values[0] == statistics[0][name][1] == statistics[1][name][1]


def test_a_partial_reset_empties_its_episodes_and_no_other():
    domain = Traffic(TrafficConfig(inflow=0.4))
    actions = random_actions(np.random.default_rng(0), 160, 4, 3)
    undisturbed = domain.global_simulator(generators(3))
    undisturbed.reset()
    expected = episode(undisturbed, actions, 160)
    streams, mask = generators(3), np.array([True, False, True])
    simulator = domain.global_simulator(streams)
    simulator.reset()
    episode(simulator, actions, 80)
    assert np.unique(simulator.junctions.lights.phase).size > 1
    waiting = {name.partition(".")[0] for name in api(simulator).simulation.getPendingVehicles()}
    assert waiting == {"0", "1", "2"}
    state, later = simulator.reset(mask), copy.deepcopy(streams)
    left = api(simulator).vehicle.getIDList() + api(simulator).simulation.getPendingVehicles()
    assert {name.partition(".")[0] for name in left} == {"1"}
    for junction in simulator.junctions.names:
        if not junction.startswith("1_"):
            assert api(simulator).trafficlight.getRedYellowGreenState(junction) == "GrGr"
            lanes = [f"{junction}_{side}_0" for side in SIDES]
            assert sum(map(api(simulator).lane.getLastStepVehicleNumber, lanes)) == 0
    empty = np.zeros((4, 2, 40), np.uint8)
    empty[:, :, 36] = 1
    assert np.array_equal(state.observations[:, mask], empty)
    assert np.array_equal(state.observations[:, 1], expected[0][79][:, 1])
    seen = episode(simulator, actions, 80, 80)
    for one, other in zip(seen, expected, strict=True):
        assert np.array_equal(one[:, :, 1], other[80:, :, 1])
    fresh = domain.global_simulator(later)
    fresh.reset()
    for one, other in zip(seen, episode(fresh, actions, 80, 80), strict=True):
        assert np.array_equal(one[:, :, mask], other[:, :, mask])


@pytest.mark.parametrize("kind", ["global", "local"])
def test_episodes_end_by_their_own_clocks(kind):
    domain = Traffic(TrafficConfig(grid=(1, 2), horizon=10))
    if kind == "global":
        simulator, extra = domain.global_simulator(generators(3)), ()
    else:
        simulator, extra = domain.local_simulator(range(2), 3, generators(2)), (np.zeros((2, 3, 4), int),)
    simulator.reset(elapsed=np.array([0, 4, 9]))
    ends = [[], [], []]
    for step in range(1, 21):
        done = simulator.step(np.zeros((2, 3), int), *extra).done
        for e in np.flatnonzero(done):
            ends[e].append(step)
        if done.any():
            simulator.reset(done)
    assert ends == [[10, 20], [6, 16], [1, 11]]


# --- statistics, against a book kept for every vehicle ---

JUNCTION = 14.4
"""Metres that a vehicle drives between the stop line and the next edge."""


class Book:
    """What became of every vehicle of one episode, from what SUMO tells after each step."""

    def __init__(self, episode, api, junctions):
        self.api, self.prefix = api, f"{episode}."
        self.lanes = {f"{name}_{side}_0" for name in junctions for side in SIDES}
        self.steps, self.wanted, self.travel, self.lost = 0, {}, {}, {}
        self.standing = self.outside = 0
        self.sumos_own = {}

    def write(self):
        vehicle, simulation = self.api.vehicle, self.api.simulation
        known = [v for v in vehicle.getLoadedIDList() if v.startswith(self.prefix)]
        self.steps += 1
        # SUMO lets a vehicle in at the end of a step.
        self.wanted |= {v: self.steps for v in known if v not in self.wanted}
        driving = [v for v in vehicle.getIDList() if v.startswith(self.prefix)]
        for name in driving:
            self.standing += vehicle.getLaneID(name) in self.lanes and vehicle.getSpeed(name) < 0.1
            edges = len(self.api.route.getEdges(vehicle.getRouteID(name)))
            way = 100 * edges + JUNCTION * (edges - 1) - 5.1
            self.sumos_own[name] = vehicle.getTimeLoss(name) + vehicle.getDepartDelay(name)
            self.lost[name] = self.steps - self.wanted[name] - vehicle.getDistance(name) / 10, way
        for name in [v for v in simulation.getArrivedIDList() if v in self.wanted]:
            self.travel[name] = self.steps - self.wanted[name]
            self.lost[name] = self.travel[name] - self.lost[name][1] / 10, None
        waiting = set(self.wanted) - set(driving) - set(self.travel)
        self.outside += len(waiting)
        for name in waiting:
            self.lost[name] = self.steps - self.wanted[name], None
            self.sumos_own[name] = self.lost[name][0]

    def statistics(self):
        lost = [lost for lost, _ in self.lost.values()]
        mean = {
            "travel_time": list(self.travel.values()),
            "time_spent": [self.travel.get(v, self.steps - begin) for v, begin in self.wanted.items()],
            "time_lost": lost,
        }
        return {
            "arrived": len(self.travel),
            "scheduled": len(self.wanted),
            **{name: sum(values) / len(values) if values else np.nan for name, values in mean.items()},
            "time_lost_p90": np.quantile(lost, 0.9) if lost else np.nan,
            "waiting_inside": self.standing / self.steps,
            "waiting_outside": self.outside / self.steps,
        }


def test_statistics_agree_with_a_book_of_every_vehicle():
    """One of three episodes is restarted in its middle, and nobody arrives before it does."""
    domain, rng = Traffic(TrafficConfig(grid=(2, 3), inflow=0.2)), np.random.default_rng(0)
    simulator = domain.global_simulator(generators(3))
    simulator.reset()
    names = np.array(simulator.junctions.names).reshape(3, 6)
    books = [Book(e, api(simulator), names[e]) for e in range(3)]
    assert [statistic.name for statistic in domain.statistics] == list(simulator.statistics())
    for t in range(180):
        simulator.step(random_actions(rng, 6, 3))
        for book in books:
            book.write()
        if t % 10 == 9 or t < 5:
            for name, values in simulator.statistics().items():
                assert values == pytest.approx([book.statistics()[name] for book in books], nan_ok=True)
        if t == 100:
            simulator.reset(np.array([False, True, False]))
            books[1] = Book(1, api(simulator), names[1])
    assert min(book.statistics()["waiting_outside"] for book in books) > 0.1
    sumos = [np.mean(list(book.sumos_own.values())) for book in books]
    assert simulator.statistics()["time_lost"] == pytest.approx(sumos, abs=1.5)


def test_each_approach_has_the_delay_and_the_queues_that_sumo_tells():
    """Three episodes, one of them restarted; SUMO is asked for each vehicle after each step."""
    domain, rng = Traffic(TrafficConfig(grid=(1, 2), inflow=0.2)), np.random.default_rng(0)
    simulator = domain.global_simulator(generators(3))
    simulator.reset()
    lanes = [f"{name}_{side}_0" for name in simulator.junctions.names for side in SIDES]
    entered, lost, queues = np.zeros((3, 8)), np.zeros((3, 8)), [[[] for _ in range(8)] for _ in range(3)]
    known = [set() for _ in lanes]
    for t in range(120):
        simulator.step(random_actions(rng, 2, 3))
        for k, lane in enumerate(lanes):
            e, edge = divmod(k, 8)
            there = api(simulator).lane.getLastStepVehicleIDs(lane)
            speeds = [api(simulator).vehicle.getSpeed(vehicle) for vehicle in there]
            entered[e, edge] += len(set(there) - known[k])
            known[k] |= set(there)
            lost[e, edge] += len(speeds) - sum(speeds) / 10
            queues[e][edge].append(sum(speed < 0.1 for speed in speeds))
        if t == 50:
            simulator.reset(np.array([False, True, False]))
            entered[1] = lost[1] = 0
            queues[1] = [[] for _ in range(8)]
    details = domain.merged_details([domain.details(simulator)])
    names = [f"row 1, column {c}, {side}" for c in (1, 2) for side in SIDES]
    assert details.name == "approaches" and [row[0] for row in details.rows] == names
    for edge, (_, passed, delay, mean, high, longest) in enumerate(details.rows):
        together = sorted(q for e in range(3) for q in queues[e][edge])
        assert passed == entered[:, edge].sum() / 3
        assert delay == pytest.approx(lost[:, edge].sum() / entered[:, edge].sum())
        assert (mean, longest) == (pytest.approx(np.mean(together)), together[-1])
        assert high == together[int(np.ceil(0.95 * len(together))) - 1]
    twice = domain.merged_details([domain.details(simulator)] * 2)
    assert twice.rows == details.rows


@pytest.mark.quick
def test_statistics_of_an_empty_road_are_undefined_means():
    simulator = Traffic(TrafficConfig(inflow=0)).global_simulator(generators(2))
    simulator.reset()
    with np.errstate(all="raise"):
        simulator.step(np.zeros((4, 2), int))
        found = {name: values.tolist() for name, values in simulator.statistics().items()}
    nothing = [0.0, 0.0]
    assert str(found) == str(
        {
            "arrived": nothing,
            "scheduled": nothing,
            "travel_time": [np.nan] * 2,
            "time_spent": [np.nan] * 2,
            "time_lost": [np.nan] * 2,
            "time_lost_p90": [np.nan] * 2,
            "waiting_inside": nothing,
            "waiting_outside": nothing,
        }
    )


def hand_coded(domain, name, streams):
    return returns_of(domain, streams, lambda simulator: domain.controller(name, simulator, streams).act)


def test_lights_that_never_change_starve_the_traffic():
    domain = Traffic(TrafficConfig())
    returns, starved = hand_coded(domain, "never", generators(3))
    better, served = hand_coded(domain, "greedy", generators(3))
    assert (better > 2 * returns).all()
    assert (served["arrived"] > 1.5 * starved["arrived"]).all()
    assert (served["waiting_outside"] < 1).all() and (starved["waiting_outside"] > 10).all()
    assert (served["time_lost"] < 30).all() and (starved["time_lost"] > 50).all()
    assert (starved["time_spent"] > 1.5 * served["time_spent"]).all()
    assert (starved["travel_time"] < served["travel_time"]).all()  # of those that arrived, the lucky ones


# --- demand, against SUMO's own ---

FLOWS = """<additional>
<vType id="car" carFollowModel="IDM" accel="2.6" decel="7.5" tau="1.0" minGap="2.5" length="5" sigma="0.5"
       speedFactor="1" speedDev="0.1" maxSpeed="10"/>
{}
</additional>"""

FLOW = """<flow id="{way}" type="car" from="{way}" to="{out}" begin="0" end="300" probability="0.1"
               departLane="free" departSpeed="10"/>"""


def sumos_own_demand(network, folder, seed):
    """Return and arrivals of each copy of a 2 x 2 grid, with SUMO's flows, under the fixed plan."""
    ways = [
        ("0_0_west", "0_1_east"),
        ("1_0_west", "1_1_east"),
        ("0_1_east", "0_0_west"),
        ("1_1_east", "1_0_west"),
        ("0_0_north", "1_0_south"),
        ("0_1_north", "1_1_south"),
        ("1_0_south", "0_0_north"),
        ("1_1_south", "0_1_north"),
    ]
    flows = [FLOW.format(way=f"{k}_{a}", out=f"{k}_{b}_out") for k in range(network.copies) for a, b in ways]
    (folder / "flows.xml").write_text(FLOWS.format("\n".join(flows)))
    api = importlib.import_module("libsumo")
    files = ["-n", str(network.files()[0]), "-a", str(folder / "flows.xml"), "--seed", str(seed)]
    api.start(["sumo", *files, "--time-to-teleport", "-1", "--no-step-log", "--no-warnings"])
    returns, arrived = np.zeros(network.copies), np.zeros(network.copies)
    for t in range(300):
        state = CYCLE[[31, 34, 65, 68].index(next(end for end in (31, 34, 65, 68) if t % 68 < end))]
        for junction in network.junctions:
            api.trafficlight.setRedYellowGreenState(junction, state)
        api.simulationStep()
        for name in api.simulation.getArrivedIDList():
            arrived[int(name.partition("_")[0])] += 1
        for junction in network.junctions:
            lanes = [f"{junction}_{side}_0" for side in SIDES]
            speeds = [api.vehicle.getSpeed(v) for i in lanes for v in api.lane.getLastStepVehicleIDs(i)]
            returns[int(junction.partition("_")[0])] += np.mean(speeds) / 10 / 4 if speeds else 0
    api.close()
    return returns, arrived


def test_demand_and_drivers_agree_with_sumos_own_flow(tmp_path):
    domain = Traffic(TrafficConfig())
    returns, statistics = hand_coded(domain, "fixed", generators(24))
    simulator = domain.global_simulator(generators(1))
    simulator.reset()
    simulator.junctions.simulation.close()
    own = [sumos_own_demand(Network(2, 2, 8, 100.0, 10.0), tmp_path, seed) for seed in range(3)]
    expected, arrived = np.concatenate(own, axis=1)
    for found, theirs in ((returns, expected), (statistics["arrived"], arrived)):
        error = np.sqrt((found.var(ddof=1) + theirs.var(ddof=1)) / 24)
        assert error < 0.03 * theirs.mean()
        assert found.mean() == pytest.approx(theirs.mean(), abs=3.5 * error)


def test_the_authors_drivers_drive_in_the_same_way(monkeypatch):
    """With their vehicle type, in full, the same vehicles do the same at the same lights."""
    domain, actions = Traffic(TrafficConfig()), random_actions(np.random.default_rng(0), 200, 4, 3)
    seen = []
    for _ in range(2):
        simulator = domain.global_simulator(generators(3))
        simulator.reset()
        seen.append(episode(simulator, actions, 200))
        authors = {"accel": "2.6", "decel": "7.5", "tau": "1.0", "minGap": "2.5", "length": "5"}
        authors |= {"id": "car", "carFollowModel": "IDM", "sigma": "0.5", "speedFactor": "1"}
        monkeypatch.setattr(vehicles, "CAR", {**authors, "speedDev": "0.1"})
    (ours, _, sources, paid), (theirs, _, their_sources, their_paid) = seen
    assert (ours != theirs).mean() < 1e-4 and (sources != their_sources).mean() < 1e-4
    assert np.abs(paid - their_paid).max() < 1e-3
    assert api(simulator).vehicletype.getSpeedDeviation("car") == 0.1
    assert api(simulator).vehicletype.getMaxSpeed("car") == 10


@pytest.mark.parametrize("inflow", [0.05, 0.1, 1.0])
def test_vehicles_enter_every_entry_edge_with_the_probability_of_inflow(inflow):
    simulator = Traffic(TrafficConfig(grid=(1, 2), inflow=inflow)).global_simulator(generators(4))
    simulator.reset()
    vehicle, first = api(simulator).vehicle, {}
    for _ in range(100):
        simulator.step(np.zeros((2, 4), int))
        for name in set(vehicle.getLoadedIDList()) - set(first):
            first[name] = api(simulator).route.getEdges(vehicle.getRouteID(name))[0].partition("_")[2]
    came = Counter(first.values())
    ways = "0_0_west", "0_0_south", "0_0_north", "0_1_south", "0_1_east", "0_1_north"
    assert set(came) == set(ways)
    error = np.sqrt(400 * inflow * (1 - inflow))
    assert list(came.values()) == pytest.approx([400 * inflow] * 6, abs=3.5 * error)


# --- the hand-coded policies ---


def demand_of_ways(simulator, ahead_too, episode, row, column):
    """Vehicles coming from south and north, and from west and east, by SUMO's count."""
    lane = api(simulator).lane
    following = {"west": (0, 1), "south": (-1, 0), "east": (0, -1), "north": (1, 0)}
    totals = []
    for sides in (("south", "north"), ("west", "east")):
        total = 0
        for side in sides:
            total += lane.getLastStepVehicleNumber(f"{episode}_{row}_{column}_{side}_0")
            r, c = row + following[side][0], column + following[side][1]
            if ahead_too and 0 <= r < 2 and 0 <= c < 3:
                total -= lane.getLastStepVehicleNumber(f"{episode}_{r}_{c}_{side}_0")
        totals.append(total)
    return totals


@pytest.mark.parametrize("name", ["fixed", "greedy", "max-pressure"])
def test_hand_coded_policies_agree_with_plain_loops(name):
    """Under their own decisions, and in the second half under some of chance, too."""
    simulator, rng = Traffic(TrafficConfig(grid=(2, 3))).global_simulator(generators(2)), generators(1)[0]
    act = Traffic(TrafficConfig(grid=(2, 3))).controller(name, simulator, generators(2)).act
    simulator.reset()
    history = {junction: [] for junction in simulator.junctions.names}
    switches = Counter()
    for t in range(300):
        actions = act()
        for n, e in np.ndindex(6, 2):
            junction = f"{e}_{n // 3}_{n % 3}"
            state = api(simulator).trafficlight.getRedYellowGreenState(junction)
            shown = history[junction]
            age = next((i for i, old in enumerate(reversed(shown)) if old != state), len(shown))
            first, second = demand_of_ways(simulator, name == "max-pressure", e, n // 3, n % 3)
            if name == "fixed":
                expected = age >= 31
            elif state == "GrGr":
                expected = second > first and age >= 8
            else:
                expected = state == "rGrG" and first > second and age >= 8
            if "G" in state:  # else it is ignored
                assert actions[n, e] == expected
                switches[state] += expected
        assert actions.shape == (6, 2)
        simulator.step(actions | random_actions(rng, 6, 2) if t > 150 else actions)
        for junction, shown in history.items():
            shown.append(api(simulator).trafficlight.getRedYellowGreenState(junction))
    assert min(switches["GrGr"], switches["rGrG"]) > 20


def runs(values):
    """[(value, how often in a row)]."""
    found = []
    for value in values:
        if found and found[-1][0] == value:
            found[-1][1] += 1
        else:
            found.append([value, 1])
    return found


def watched(name, override=None):
    """States of the lights [T][K] under a policy, and what was seen."""
    domain = Traffic(TrafficConfig(grid=(2, 3), inflow=0.15))
    simulator = domain.global_simulator(generators(2))
    act = domain.controller(name, simulator, generators(2)).act
    simulator.reset()
    states, parts = [], []
    for _ in range(300):
        actions = act()
        state, _, rewards, _ = simulator.step(actions if override is None else override(actions))
        light = api(simulator).trafficlight.getRedYellowGreenState
        states.append([light(junction) for junction in simulator.junctions.names])
        parts.append((state.observations, rewards))
        shown = np.array(states[-1]).reshape(2, 6).T
        assert (np.array(CYCLE)[state.observations[..., 36:].argmax(-1)] == shown).all()
    return states, [np.array(part) for part in zip(*parts, strict=True)]


def test_the_actuated_program_keeps_its_times_and_takes_no_orders():
    states, seen = watched("actuated")
    greens = []
    for column in zip(*states, strict=True):
        phases = runs(column)
        assert phases[0][0] == "GrGr" and len(phases) > 8
        for (one, _), (other, _) in pairwise(phases):
            assert CYCLE[(CYCLE.index(one) + 1) % 4] == other
        for state, time in phases[1:-1]:
            assert 8 <= time <= 45 if "G" in state else 3 <= time <= 6
            greens += [time] * ("G" in state)
    assert len(set(greens)) > 10  # it follows the traffic
    _, ordered = watched("actuated", np.ones_like)
    assert all(map(np.array_equal, seen, ordered))


def test_never_leaves_the_first_green():
    states, _ = watched("never")
    assert {state for column in states for state in column} == {"GrGr"}


@pytest.mark.parametrize("kind", ["global", "local"])
@pytest.mark.parametrize(("grid", "episodes"), [((1, 1), 3), ((2, 2), 1), ((2, 2), 3)])
def test_states_stay_as_they_were(kind, grid, episodes):
    domain = Traffic(TrafficConfig(grid=grid, inflow=0.5))
    n = len(domain.regions)
    if kind == "global":
        simulator, extra = domain.global_simulator(generators(episodes)), ()
    else:
        simulator = domain.local_simulator(range(n), episodes, generators(n))
        extra = (np.ones((n, episodes, 4), int),)
    simulator.reset()
    for _ in range(20):
        state = simulator.step(np.zeros((n, episodes), int), *extra).state
    copies = [part.copy() for part in state]
    simulator.reset(np.arange(episodes) == 0)
    simulator.step(np.ones((n, episodes), int), *extra)
    assert all(map(np.array_equal, state, copies))
    assert state.inputs[:, 0].any()


def test_the_actuated_program_goes_on_after_a_partial_reset():
    domain = Traffic(TrafficConfig(grid=(1, 2)))
    simulator = domain.global_simulator(generators(2))
    act = domain.controller("actuated", simulator, generators(2)).act
    simulator.reset()
    for _ in range(60):
        simulator.step(act())
    state = simulator.reset(np.array([True, False]))
    assert (state.observations[:, 0, 36:] == [1, 0, 0, 0]).all()
    shown = set()
    for _ in range(100):
        simulator.step(act())
        shown |= {
            (name, api(simulator).trafficlight.getRedYellowGreenState(name))
            for name in simulator.junctions.names
        }
    assert len(shown) == 4 * 4


def test_a_vehicle_that_nothing_holds_up_loses_no_time():
    simulator = Traffic(TrafficConfig(grid=(1, 1), inflow=0.01)).global_simulator(generators(1, 3))
    simulator.reset()
    for _ in range(60):
        simulator.step(np.zeros((1, 1), int))
        lost = simulator.statistics()["time_lost"][0]
        held = [api(simulator).vehicle.getTimeLoss(v) for v in api(simulator).vehicle.getIDList()]
        if held:
            assert lost - np.mean(held) < 0.1
