"""The global simulator of a city, its statistics and its controllers, against SUMO asked directly."""

import ctypes
import functools
import math
import platform
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from city_common import busy, network, resco

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city import outputs
from dials_mpi.domains.city.approaches import observation_size
from dials_mpi.domains.city.controllers import CONTROLLERS, CityController
from dials_mpi.domains.city.global_simulator import CityGlobalSimulator, Rules
from dials_mpi.domains.city.net import read
from dials_mpi.domains.city.outputs import Outputs
from dials_mpi.domains.city.regions import plan, with_upstream
from dials_mpi.domains.city.rewards import REWARDS, reward_class
from dials_mpi.domains.city.scenario import find
from dials_mpi.domains.city.statistics import STATISTICS, approach, level_of_service
from dials_mpi.domains.sumo.simulation import Simulation

net_of = functools.cache(read)


def simulator(scenario=None, rules=None, seed=0, net=None, **options):
    scenario, rules = scenario or busy(), rules or Rules()
    streams = [np.random.default_rng(seed)]
    return CityGlobalSimulator(scenario, net or net_of(scenario.network), rules, streams, **options)


def play(city, seconds, seed=1, every=10):
    """Random decisions; yields the step of each second."""
    rng = np.random.default_rng(seed)
    for t in range(seconds):
        if t % every == 0:
            actions = rng.integers([len(s.greens) for s in city.approaches.signals])[:, None]
        yield city.step(actions)


def api(city):
    """SUMO's own answers about the running simulation."""
    return city.simulation._api


def test_there_is_one_episode():
    net = net_of(busy().network)
    with pytest.raises(ValueError, match="one episode, not 2"):
        CityGlobalSimulator(busy(), net, Rules(), [np.random.default_rng(0)] * 2)


# --- observations and rewards ---


def observed(city, signal, waiting):
    """A signal's observation by sumo-rl's definitions, from SUMO's answers, with the lanes upstream."""
    sumo, k = api(city), city.names.index(signal.name)
    lanes = list(dict.fromkeys(sumo.trafficlight.getControlledLanes(signal.name)))
    density, queue, waits = [], [], []
    for lane, upstream in zip(lanes, signal.upstream or ((),) * len(lanes), strict=True):
        chain = [lane, *upstream]
        there = [name for each in chain for name in sumo.lane.getLastStepVehicleIDs(each)]
        mean = np.mean([sumo.vehicle.getLength(name) for name in there]) if there else 0
        fit = sum(map(sumo.lane.getLength, chain)) / (2.5 + mean)
        density.append(min(1, len(there) / fit))
        queue.append(min(1, sum(sumo.vehicle.getSpeed(name) < 0.1 for name in there) / fit))
        waits.append(sum(map(sumo.vehicle.getWaitingTime, there)) / 100)
    phase = [float(i == city.lights.green[k]) for i in range(len(signal.greens))]
    return [*phase, float(city.lights.free[k]), *density, *queue, *(waits if waiting else [])]


@functools.cache
def long_approaches():
    """The busy network, whose agents observe the lanes upstream, too."""
    net = net_of(busy().network)
    return with_upstream(net, [plan(net, [name]) for name in net.agents], 400.0)


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("upstream", [False, True])
def test_observations_are_those_of_sumo_rl_at_each_decision(waiting, upstream):
    rules = Rules(minimum_green=8, observe_waiting=waiting)
    city = simulator(rules=rules, net=long_approaches() if upstream else None)
    assert any(map(any, (signal.upstream for signal in city.approaches.signals))) == upstream
    state, flags = city.reset(), set()
    sizes = [observation_size(signal, waiting) for signal in city.approaches.signals]
    for t, step in enumerate(play(city, 200), 1):
        if t % rules.decision_every:
            for repeated, seen in zip(step.state.observations, state.observations, strict=True):
                np.testing.assert_array_equal(repeated, seen)
        for k, signal in enumerate(city.approaches.signals):
            row = step.state.observations[k]
            assert row.shape == (1, sizes[k]) and row.dtype == np.float32
            if t % rules.decision_every == 0:
                assert row[0] == pytest.approx(observed(city, signal, waiting), abs=1e-6)
                flags.add(float(row[0, len(signal.greens)]))
        state = step.state
    assert flags == {0.0, 1.0}
    assert max(row.max() for row in state.observations) > 0.3


def halting(city, lanes):
    return sum(map(api(city).lane.getLastStepHaltingNumber, lanes))


def number(city, lanes):
    return sum(map(api(city).lane.getLastStepVehicleNumber, lanes))


def vehicles(city, lanes):
    return [name for lane in lanes for name in api(city).lane.getLastStepVehicleIDs(lane)]


def average_speed(city, signal):
    ask = api(city).vehicle
    shares = [ask.getSpeed(v) / ask.getAllowedSpeed(v) for v in vehicles(city, signal.incoming)]
    return np.mean(shares) if shares else 1.0


EXPECTED = {
    "queue": lambda city, signal: -halting(city, {*signal.incoming, *chain.from_iterable(signal.upstream)}),
    "pressure": lambda city, signal: number(city, signal.outgoing) - number(city, signal.incoming),
    "average-speed": average_speed,
}


@pytest.mark.parametrize(("reward", "upstream"), [*((reward, False) for reward in EXPECTED), ("queue", True)])
def test_a_reward_is_paid_in_the_last_second_of_a_decision(reward, upstream):
    city = simulator(rules=Rules(reward=reward), net=long_approaches() if upstream else None)
    city.reset()
    for t, step in enumerate(play(city, 200), 1):
        assert step.rewards.shape == (4, 1) and step.rewards.dtype == np.float32
        due = [EXPECTED[reward](city, s) if t % 10 == 0 else 0.0 for s in city.approaches.signals]
        assert step.rewards[:, 0] == pytest.approx(due, abs=1e-5)


OWN_REWARD = """
from dials_mpi.domains.city.rewards import Reward

class Arrivals(Reward):
    def second(self, simulation):
        return float(len(simulation.arrived()))

class NoReward:
    pass
"""


def test_a_reward_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(OWN_REWARD)
    monkeypatch.syspath_prepend(tmp_path)
    city = simulator(rules=Rules(reward="my_rewards:Arrivals", reward_scale=0.5))
    city.reset()
    arrived = 0
    for step in play(city, 200):
        now = len(api(city).simulation.getArrivedIDList())
        assert (step.rewards == 0.5 * now).all()
        arrived += now
    assert arrived > 5
    for name, why in {
        "velocity": "choose from diff-waiting-time, queue",
        "my_rewards:NoReward": "not derived from",
        "my_rewards:Nothing": "has no class",
        "nowhere:Reward": "No module named 'nowhere'",
    }.items():
        with pytest.raises(BadInput, match=why):
            reward_class(name)


def test_the_delay_reward_is_the_time_lost_on_the_incoming_lanes():
    """Against the vehicles' own speeds; the mean over a decision's seconds."""
    city = simulator(rules=Rules(reward="delay"))
    city.reset()
    total = np.zeros(4)
    for step in play(city, 200):
        total += step.rewards[:, 0]
        for k, signal in enumerate(city.approaches.signals):
            lost = 0.0
            for lane in signal.incoming:
                speeds = [api(city).vehicle.getSpeed(v) for v in vehicles(city, [lane])]
                mean = np.mean(speeds) if speeds else math.inf
                lost += len(speeds) * max(0, 1 - mean / api(city).lane.getMaxSpeed(lane))
            assert step.rewards[k, 0] == pytest.approx(-lost / 10, abs=1e-5)
    assert (total < -5).all()


def test_diff_waiting_time_is_the_fall_of_the_waiting_on_the_incoming_lanes():
    """A vehicle's waiting is counted second by second here; SUMO's is read at decisions only."""
    city = simulator(rules=Rules(reward="diff-waiting-time"))
    city.reset()
    waited, last, paid = {}, np.zeros(4), []
    for t, step in enumerate(play(city, 250), 1):
        now = {}
        for k, signal in enumerate(city.approaches.signals):
            for lane in signal.incoming:
                for v in vehicles(city, [lane]):
                    now[k, lane, v] = waited.get((k, lane, v), 0) + (api(city).vehicle.getSpeed(v) < 0.1)
        waited = now
        if t % 10 == 0:
            sums = np.array([sum(w for (k, _, _), w in waited.items() if k == i) for i in range(4)]) / 100
            assert step.rewards[:, 0] == pytest.approx(last - sums, abs=0.15)
            last = sums
            paid.append(step.rewards[:, 0])
    assert np.std(paid) > 0.1
    assert np.sum(paid, 0) == pytest.approx(-last, abs=0.15)


def test_the_signals_of_sumo_follow_the_lights_and_actions_count_at_decisions_only():
    city = simulator(rules=Rules(decision_every=7, yellow=2, all_red=1))
    city.reset()
    rng, greens = np.random.default_rng(0), [s.greens for s in city.approaches.signals]
    before = None
    for t in range(70):
        actions = rng.integers(list(map(len, greens)))[:, None]
        city.step(actions)
        shown = [api(city).trafficlight.getRedYellowGreenState(name) for name in city.names]
        assert shown == city.lights.states
        if t % 7 == 0:
            chosen = actions[:, 0].tolist()
        if t % 7 >= 3:
            assert shown == [states[green] for states, green in zip(greens, chosen, strict=True)]
        elif t % 7 == 0 and before:
            assert any("y" in state for state in shown) == (shown != before)
        before = shown


# --- episodes ---


def trace(city, seconds=150):
    steps = [(s.rewards.tolist(), [o.tolist() for o in s.state.observations]) for s in play(city, seconds)]
    return steps, sorted(vehicles(city, net_of(busy().network).lengths))


def test_an_episode_depends_on_its_stream_alone():
    one, other, third = simulator(seed=3), simulator(seed=3), simulator(seed=4)
    traces = []
    for city in (one, other, third):
        city.reset()
        traces.append(trace(city))
    assert traces[0] == traces[1] != traces[2]
    third.reset()
    assert trace(third) != traces[2]  # the stream goes on


def fragment(seed):
    """Leave gaps of many sizes in the memory of this process."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    order = random.Random(seed)
    blocks = [libc.malloc(order.randrange(16, 2000, 16)) for _ in range(60000)]
    order.shuffle(blocks)
    for block in blocks[:50000]:
        libc.free(block)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="SUMO's own fault is mended with glibc alone")
def test_traffic_does_not_depend_on_what_the_process_did_before():
    """Who gives way to whom: with SUMO 1.28, in the main thread, it is another order every time."""
    path, orders = network("--rand", "--rand.iterations=40", "--seed=4", "--default.lanenumber=2"), []
    for seed in range(6):
        fragment(seed)
        with ThreadPoolExecutor(max_workers=1) as thread:  # the next thread may get this one's memory
            thread.submit(fragment, seed).result()
        simulation = Simulation(path, (), (), "libsumo")
        inner = [lane for lane in simulation._api.lane.getIDList() if lane.startswith(":")]
        orders.append(simulation.ask("lane", "getInternalFoes", inner))
        simulation.close()
    assert any(len(foes) > 3 for foes in orders[0])
    assert all(order == orders[0] for order in orders)


def test_a_late_start_is_empty_and_ends_with_the_window():
    city = simulator()
    state = city.reset(elapsed=np.array([280]))
    assert api(city).simulation.getTime() == busy().begin + 280
    assert not any(row[0, 5:].any() for row in state.observations)
    done = [bool(step.done[0]) for step in play(city, 20)]
    assert done == [False] * 19 + [True]
    assert 0 < city.statistics()["undeparted"] + len(ElementTree.parse(tripinfo(city)).getroot()) < 40


def test_a_mask_without_the_episode_changes_nothing():
    city = simulator()
    city.reset()
    last = list(play(city, 30))[-1].state
    for part, before in zip(city.reset(where=np.array([False])), last, strict=True):
        for one, other in zip(part, before, strict=True):
            np.testing.assert_array_equal(one, other)
    assert api(city).simulation.getTime() == busy().begin + 30


def test_influence_is_read_after_every_second():
    class Clock:
        def reset(self, simulation, lights, gone=0.0):
            return [np.array([[simulation._api.simulation.getTime()]])]

        def second(self, simulation, lights):
            time = simulation._api.simulation.getTime()
            return [np.array([[time]])], [np.array([[time % 7]])]

    city = simulator(influence=Clock())
    assert city.reset().inputs[0] == [[100.0]]
    for t, step in enumerate(play(city, 15), 1):
        assert step.state.inputs[0] == [[100 + t]] and step.sources[0] == [[(100 + t) % 7]]
    alone = simulator()
    assert [row.shape for row in alone.reset().inputs] == [(1, 0)] * 4


# --- statistics ---


def tripinfo(city) -> Path:
    return city.files.folder / outputs.TRIPINFO


@pytest.fixture(scope="module")
def blocked():
    """An episode in which the signals let few through, with what SUMO said in each second."""
    city = simulator(replace(busy(), end=400.0), files=Outputs(emissions=True))
    city.reset()
    counted = {"halting": 0, "arrived": 0, "reached": {}}
    for _ in range(300):
        city.step(np.zeros((4, 1), int))
        counted["halting"] += halting(city, city.approaches.incoming.names)
        counted["arrived"] += len(api(city).simulation.getArrivedIDList())
        for name in api(city).vehicle.getIDList():
            route, index = api(city).vehicle.getRoute(name), api(city).vehicle.getRouteIndex(name)
            counted["reached"][name] = route[:index]  # the edges that it has left
    return city, counted, city.statistics()


def test_delay_is_that_of_sumos_tripinfo_file(blocked):
    """Recomputed from the file, and for the vehicles that never departed from the route file."""
    city, _, found = blocked
    assert list(found) == [s.name for s in STATISTICS] and all(v.shape == (1,) for v in found.values())
    (routes,), end = busy().routes, 400.0
    wanted = {t.get("id"): float(t.get("depart")) for t in ElementTree.parse(routes).getroot()}
    delays = {name: end - depart for name, depart in wanted.items() if depart < end}
    departed = 0
    trips = ElementTree.parse(tripinfo(city)).getroot()
    for trip in trips:
        if float(trip.get("depart")) >= 0:
            delays[trip.get("id")] = float(trip.get("timeLoss")) + float(trip.get("departDelay"))
            departed += 1
    assert len(delays) == 200 and departed < 200
    assert found["delay"][0] == pytest.approx(np.mean(list(delays.values())), abs=0.01)
    assert found["undeparted"] == 200 - departed
    known = [delays[t.get("id")] for t in trips if float(t.get("depart")) >= 0]
    assert found["delay_resco"] == pytest.approx(np.mean(known), abs=0.01)  # it forgets each other <trip>


def test_the_other_statistics_are_what_sumo_said(blocked):
    city, counted, found = blocked
    trips = [t.attrib for t in ElementTree.parse(tripinfo(city)).getroot() if float(t.get("depart")) >= 0]
    mean = {key: np.mean([float(t[key]) for t in trips]) for key in ("waitingTime", "waitingCount")}
    assert found["waiting_time"] == pytest.approx(mean["waitingTime"])
    assert found["stops"] == pytest.approx(mean["waitingCount"])
    ended = [float(t["duration"]) for t in trips if float(t["arrival"]) >= 0]
    assert found["trip_time"] == pytest.approx(np.mean(ended))
    assert found["throughput"] == len(ended) == counted["arrived"] > 10
    assert found["queue"] == pytest.approx(counted["halting"] / 300, rel=0.02)
    assert found["teleports"] == 0 and 1 < found["co2"] < 1000


def test_the_delay_at_each_signal(blocked):
    city, counted, _ = blocked
    net, delays = city.net, city.signal_delays()
    assert [d.signal for d in delays] == list(net.signals)
    for delay, signal in zip(delays, net.signals.values(), strict=True):
        last = {net.lane_edge[lane] for lane in signal.incoming}
        passed = sum(not last.isdisjoint(edges) for edges in counted["reached"].values())
        assert delay.vehicles == pytest.approx(passed, abs=2) and passed > 20
    lost = {}
    for edge in ElementTree.parse(city.files.folder / outputs.LANES).iter("edge"):
        lost[edge.get("id")] = sum(float(lane.get("timeLoss")) for lane in edge)
    for delay, signal in zip(delays, net.signals.values(), strict=True):
        total = sum(lost.get(edge, 0) for edge in approach(net, signal))
        assert delay.delay == pytest.approx(total / delay.vehicles) and delay.delay > 20
        assert delay.level == level_of_service(delay.delay)


def test_resco_counts_vehicles_that_come_after_the_last_departed_one(tmp_path):
    """Only those that the route file has as <vehicle>, not as <trip>."""
    lines = ElementTree.parse(busy().routes[0]).getroot()
    for trip in lines:
        trip.tag = "vehicle"
        ElementTree.SubElement(trip, "route").set("edges", " ".join(way(trip.get("from"), trip.get("to"))))
        del trip.attrib["from"], trip.attrib["to"]
    path = tmp_path / "vehicles.rou.xml"
    path.write_text(ElementTree.tostring(lines, encoding="unicode"))
    city = simulator(replace(busy(), routes=(path,)))
    city.reset()
    for _ in range(300):
        city.step(np.zeros((4, 1), int))
    found = city.statistics()
    trips = [t.attrib for t in ElementTree.parse(tripinfo(city)).getroot() if float(t.get("depart")) >= 0]
    last = max(trips, key=lambda t: float(t["depart"]))["id"]
    wanted = {v.get("id"): float(v.get("depart")) for v in lines}
    never = [400 - depart for depart in wanted.values() if depart > wanted[last]]
    total = sum(float(t["timeLoss"]) + float(t["departDelay"]) for t in trips) + sum(never)
    assert found["delay_resco"] == pytest.approx(total / (len(trips) + len(never)), abs=0.01)


def way(start, end):
    """The shortest way between two edges of the grid."""
    net, before = net_of(busy().network), {start: None}
    waiting = [start]
    for edge in waiting:
        for connection in net.connections[edge]:
            after = net.lane_edge[connection.to_lane]
            if after not in before:
                before[after] = edge
                waiting.append(after)
    edges = [end]
    while before[edges[-1]]:
        edges.append(before[edges[-1]])
    return edges[::-1]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("delay", "level"),
    [
        (0, "A"),
        (10, "A"),
        (10.1, "B"),
        (20, "B"),
        (35, "C"),
        (35.1, "D"),
        (55.1, "E"),
        (80.1, "F"),
        (math.nan, ""),
    ],
)
def test_levels_of_service(delay, level):
    assert level_of_service(delay) == level


def test_files_stay_where_they_are_wanted(tmp_path):
    city = simulator(files=Outputs(tmp_path / "new"))
    city.reset()
    list(play(city, 20))
    city.statistics()
    city.close()
    kept = {path.name for path in (tmp_path / "new").iterdir()}
    assert kept >= {outputs.TRIPINFO, outputs.SUMMARY, outputs.STATISTICS, outputs.LANES}
    other = simulator()
    other.reset()
    folder = other.files.folder
    other.close()
    assert not folder.exists()


# --- controllers ---


def opened(signal, green):
    state = signal.greens[green]
    return [
        link for letter, links in zip(state, signal.links, strict=True) if letter in "gG" for link in links
    ]


def wave(city, signal, green):
    return number(city, {link.from_lane for link in opened(signal, green)})


def pressure(city, signal, green):
    links = opened(signal, green)
    return sum(halting(city, [link.from_lane]) - halting(city, [link.to_lane]) for link in links)


def longest(city, signal, green):
    queues = [halting(city, [lane]) for lane in {link.from_lane for link in opened(signal, green)}]
    return max(queues), sum(queues)


@pytest.mark.parametrize(
    ("name", "value"), [("max-wave", wave), ("max-pressure", pressure), ("longest-queue", longest)]
)
def test_a_controller_chooses_the_best_green_and_stays_where_it_is_one_of_several(name, value):
    city = simulator()
    controller = CityController(name, city, np.random.default_rng(0))
    city.reset()
    ties = 0
    for t in range(200):
        if t % 10 == 0:
            actions = controller.act()
            for k, signal in enumerate(city.approaches.signals):
                values = [value(city, signal, green) for green in range(len(signal.greens))]
                best = [green for green, v in enumerate(values) if v == max(values)]
                shown = int(city.lights.green[k])
                assert actions[k, 0] == (shown if shown in best else best[0])
                ties += len(best) > 1
        city.step(actions)
    assert ties


def test_random_chooses_among_all_greens_by_its_stream():
    city = simulator()
    city.reset()
    one, other = (CityController("random", city, np.random.default_rng(5)) for _ in range(2))
    chosen = np.array([one.act()[:, 0] for _ in range(100)])
    assert (chosen == [other.act()[:, 0] for _ in range(100)]).all()
    for column, signal in zip(chosen.T, city.approaches.signals, strict=True):
        assert set(column.tolist()) == set(range(len(signal.greens)))


def test_native_leaves_the_signals_to_their_programs():
    city = simulator()
    controller = CityController("native", city, np.random.default_rng(0))
    city.reset()
    for t in range(120):
        city.step(controller.act())
        for signal in city.approaches.signals:
            times = np.cumsum([seconds for _, seconds in signal.phases])
            phase = np.searchsorted(times, (100 + t - signal.offset) % times[-1], side="right")
            state = api(city).trafficlight.getRedYellowGreenState(signal.name)
            assert state == signal.phases[phase][0]


def test_actuated_shows_the_same_phases_for_as_long_as_vehicles_come():
    """In the same order; a green without traffic ends early, a busy one may last longer."""
    city = simulator()
    controller = CityController("actuated", city, np.random.default_rng(0))
    city.reset()
    shown = {name: [] for name in city.names}
    for _ in range(300):
        city.step(controller.act())
        for name in city.names:
            shown[name].append(api(city).trafficlight.getRedYellowGreenState(name))
    lengths = []
    for signal in city.approaches.signals:
        states = [state for state, _ in signal.phases]
        changes = [0, *(t for t in range(1, 300) if shown[signal.name][t] != shown[signal.name][t - 1]), 300]
        seen = [shown[signal.name][t] for t in changes[:-1]]
        assert seen == [states[i % len(states)] for i in range(len(seen))]
        greens = [(a, b) for a, b in pairwise(changes[:-1]) if shown[signal.name][a] in signal.greens]
        lengths += [b - a for a, b in greens]
    assert min(lengths) >= 5 and max(lengths) <= 50 and len(set(lengths)) > 3


def test_an_unknown_controller_is_an_error():
    with pytest.raises(ValueError, match="longest-queue"):
        CityController("best", simulator(), np.random.default_rng(0))
    assert next(iter(CONTROLLERS)) == "native" and next(iter(REWARDS)) == "diff-waiting-time"


def test_traci_gives_the_same_as_libsumo():
    found = []
    for backend in ("libsumo", "traci"):
        city = simulator(backend=backend)
        controller = CityController("max-pressure", city, np.random.default_rng(0))
        city.reset()
        for t in range(60):
            step = city.step(controller.act() if t % 10 == 0 else np.zeros((4, 1), int))
            found.append((backend, step.rewards.tolist(), [row.tolist() for row in step.state.observations]))
        found.append((backend, str(city.statistics()), ""))
        city.close()
    assert [row[1:] for row in found[:61]] == [row[1:] for row in found[61:]]


# --- RESCO's maps ---

DELAYS = {
    ("cologne1", "max-wave"): 21.8,
    ("cologne1", "max-pressure"): 25.7,
    ("ingolstadt1", "native"): 29.6,
    ("ingolstadt1", "max-pressure"): 14.6,
}
"""Seconds; measured with another program, mean of five seeds."""


@resco
@pytest.mark.parametrize(("name", "policy"), DELAYS)
def test_delays_on_the_maps_of_resco(name, policy):
    city = simulator(find(f"resco:{name}"))
    controller = CityController(policy, city, np.random.default_rng(0))
    city.reset()
    for t in range(city.horizon):
        if t % 10 == 0:
            actions = controller.act()
        city.step(actions)
    assert city.statistics()["delay"] == pytest.approx(DELAYS[name, policy], rel=0.1)
    city.close()
