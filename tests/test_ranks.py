"""Ranks: the same results at any number of them; layout and messages, on real MPI.

The tests marked mpi need a world of their own: the last test starts them under mpirun.
"""

from __future__ import annotations

import os
import time
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from conftest import SMALL, launch
from hypothesis import given
from hypothesis import strategies as st

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.failures import Attempts, Failures
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains.base import SimulatorFailure
from dials_mpi.domains.warehouse import Warehouse, WarehouseConfig
from dials_mpi.parallel import communicator
from dials_mpi.parallel.launch import connect
from dials_mpi.parallel.layout import Layout, require_usable
from dials_mpi.run import state_exchange
from dials_mpi.run.partners import GroupFailures, GroupPartners
from dials_mpi.run.state import Entry
from dials_mpi.run.state_exchange import StateExchange

# Independence of the rank count --------------------------------------------------------------------------

PAPER = (  # the paper's networks and horizon
    "warehouse.grid=[2,2]",
    "total_steps=512",
    "evaluate_every=256",
    "retrain_every=256",
    "dataset_size=400",
    "evaluation_episodes=4",
    "influence.epochs=2",
)
OWN = ("timing/", "memory/", "events/", "placement/", "evaluation/wall_time", "config/")
"""What differs from run to run or with the ranks, or is text."""


def results(directory) -> dict[str, bytes]:
    """Every result in a run file, by its name, as bytes (so that NaN equals NaN)."""
    found = {}

    def take(name, item):
        if isinstance(item, h5py.Dataset) and not name.startswith(OWN):
            value = item[()]
            found[name] = value.tobytes() if value.dtype != object else repr(value).encode()

    with h5py.File(directory / "run.h5") as file:
        file.visititems(take)
    for name in ("policy/parameters", "evaluation/returns", "training/entropy"):
        assert name in found
    return found


def differing(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """The names of what is not the same in both, to the bit."""
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_any_number_of_ranks_gives_the_same_results(trained, ranks):
    alone = results(trained(*PAPER))
    assert {"predictor/parameters", "influence/cross_entropy_before", "influence/cross_entropy_after"} <= set(
        alone
    )
    assert differing(alone, results(trained(*PAPER, ranks=ranks))) == []


@pytest.mark.parametrize(
    "settings",
    [
        ("mode=untrained",),
        ("mode=global",),
        ("policy.architecture=fnn", "influence.architecture=fnn"),
        ("warehouse.grid=[1,3]", "warehouse.ring=false"),
        ("influence.start=first", "influence.epochs=6", "influence.refit_epochs=1"),
    ],
    ids=lambda settings: settings[0],
)
def test_modes_and_networks_do_not_depend_on_the_ranks(trained, settings):
    settings = (*SMALL, *settings)
    assert differing(results(trained(*settings)), results(trained(*settings, ranks=3))) == []


def test_what_the_modes_store(trained):
    untrained = results(trained(*SMALL, "mode=untrained"))
    everywhere = results(trained(*SMALL, "mode=global"))
    assert "predictor/parameters" in untrained and "predictor/parameters" not in everywhere
    assert not any(name.startswith("influence/") for name in untrained.keys() | everywhere.keys())


def test_seeds_and_modes_differ(trained):
    quick = "influence.learning_rate=0.1"  # so that three epochs change what the policies see
    runs = [
        results(trained(*SMALL, quick)),
        results(trained(*SMALL, quick, "seed=1")),
        results(trained(*SMALL, "mode=untrained")),
        results(trained(*SMALL, "mode=global")),
    ]
    assert len({run["policy/parameters"] for run in runs}) == len(runs)
    assert runs[0]["predictor/parameters"] != runs[2]["predictor/parameters"]
    assert runs[0]["evaluation/returns"] != runs[1]["evaluation/returns"]


# Layout --------------------------------------------------------------------------------------------------


def agents_of(regions: int) -> list[tuple[int]]:
    """One agent in each region."""
    return [(k,) for k in range(regions)]


@pytest.mark.quick
@given(regions=st.integers(1, 300), data=st.data())
def test_each_region_has_one_rank_and_the_load_is_balanced(regions, data):
    players = data.draw(st.integers(1, 5))
    size = data.draw(st.one_of(st.just(1), st.integers(players + 1, regions + players)))
    places = []
    for rank in range(size):
        layout = Layout(rank, size, agents_of(regions), global_ranks=players)
        places.append(layout.regions)
        assert layout.is_global == (rank < layout.global_ranks) == (rank < (players if size > 1 else 1))
        assert all(layout.region_ranks[region] == rank for region in places[-1])
        assert layout.owned["region"][rank] == layout.owned["agent"][rank] == places[-1]
    assert [i for place in places for i in place] == list(range(regions)), (
        "every region once, contiguous and in order"
    )
    workers = places[players:] or places
    counts = [len(place) for place in workers]
    assert min(counts) >= 1 and max(counts) - min(counts) <= 1
    assert size == 1 or not any(places[:players]), "global ranks hold no region"


@given(regions=st.integers(1, 300), size=st.integers(1, 20))
def test_root_can_hold_all(regions, size):
    for rank in range(size):
        layout = Layout(rank, size, agents_of(regions), on_root=True)
        assert layout.regions == (list(range(regions)) if rank == 0 else [])
        assert layout.region_ranks == [0] * regions


@pytest.mark.parametrize(("ranks", "global_ranks"), [(1, 1), (1, 9), (2, 1), (5, 1), (7, 3), (4, 3)])
def test_ranks_that_can_share_the_work(ranks, global_ranks):
    require_usable(ranks, 4, global_ranks)


@pytest.mark.parametrize(("ranks", "global_ranks", "allowed"), [(6, 1, 5), (8, 3, 7), (3, 3, 4)])
def test_ranks_that_cannot(ranks, global_ranks, allowed):
    with pytest.raises(BadInput, match=f"start at (most|least) {allowed}"):
        require_usable(ranks, 4, global_ranks)


# Messages, on worlds of every size -----------------------------------------------------------------------

REGIONS = 7


@pytest.fixture(params=[(False, 1), (True, 1), (False, 2), (True, 2)], ids=str)
def ranks(request):
    """Regions on workers or all on root, and one or two ranks with global simulators."""
    ranks = connect()
    on_root, players = request.param
    ranks.layout = Layout(ranks.rank, ranks.size, agents_of(REGIONS), on_root, players)
    ranks.owned, ranks.mine = ranks.layout.owned["region"], ranks.layout.regions
    yield ranks
    ranks.barrier()


def row(region: int, width: int) -> np.ndarray:
    """The row of a region."""
    return np.arange(width, dtype=np.float32) + 100 * region + 0.5


@pytest.mark.mpi
def test_broadcast(ranks):
    for thing in (None, {"a": [1, "é"]}, 2, ("x" * 3_000_000,)):
        assert ranks.broadcast(thing if ranks.is_root else "ignored") == thing


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64])
def test_scatter(ranks, dtype):
    """Arrays of different shapes, empty ones among them, and of several types for each region."""
    blocks = {i: (np.full((3, i, 2), i * 30, dtype), np.full((3, 2), i + 0.5)) for i in range(REGIONS)}
    room = {i: (np.full((3, i, 2), 1, dtype), np.zeros((3, 2))) for i in ranks.mine}
    ranks.scatter(blocks if ranks.is_root else None, room, ranks.owned)
    for i, arrays in room.items():
        for array, block in zip(arrays, blocks[i], strict=True):
            assert (array == block).all() and array.dtype == block.dtype


@pytest.mark.mpi
def test_each_global_rank_scatters_its_share(ranks):
    """The first has rows 0 to 2, the second the rest; or none at all."""
    for bounds in ([0, 5], [0, 3, 5], [0, 5, 5], [0, 0, 5]):
        shares = [slice(*pair) for pair in pairwise(bounds)]
        if len(shares) != ranks.layout.global_ranks:
            continue
        whole = [np.arange(10 * (i + 1)).reshape(5, -1) + i for i in range(REGIONS)]
        blocks = None
        if ranks.layout.is_global:
            blocks = {i: [array[shares[ranks.rank]]] for i, array in enumerate(whole)}
        room = {i: [np.full_like(whole[i], -1)] for i in ranks.mine}
        ranks.scatter(blocks, room, ranks.owned, shares)
        assert all((arrays[0] == whole[i]).all() for i, arrays in room.items())


@pytest.mark.mpi
def test_root_joins_the_shares(ranks):
    """Rows of some ranks only; the others do not take part."""
    whole = np.arange(15.0).reshape(5, 3) + 0.5
    for bounds in ([0, 5], [0, 3, 5], [0, 5, 5], [0, 0, 5]):
        shares = [range(*pair) for pair in pairwise(bounds)]
        if len(shares) != ranks.layout.global_ranks or not ranks.layout.is_global:
            continue
        rows = ranks.gather({i: whole[i] for i in shares[ranks.rank]}, shares, 3, float)
        assert (rows == whole).all() if ranks.is_root else rows is None


@pytest.mark.mpi
@pytest.mark.parametrize("first", [range(REGIONS), range(3), range(0)], ids=str)
def test_each_global_rank_gathers_what_it_wants(ranks, first):
    """Whole rows of some ranks, part of those of others, or none."""
    own = {i: row(i, 4) for i in ranks.mine}
    wanted = [first, range(2, REGIONS)][: ranks.layout.global_ranks]
    gathered = ranks.gather(own, ranks.owned, 4, np.float32, wanted)
    if ranks.layout.is_global:
        assert np.array_equal(gathered, np.array([row(i, 4) for i in wanted[ranks.rank]]).reshape(-1, 4))
    else:
        assert gathered is None


@pytest.mark.mpi
def test_few_bytes_are_gathered_as_many_are(ranks):
    own = {i: row(i, 3 + i % 2) for i in ranks.mine}
    few, many = (gather(own, ranks.owned, 4, np.float32) for gather in (ranks.gather_few, ranks.gather))
    assert np.array_equal(few, many) if ranks.is_root else few is many is None


@pytest.mark.mpi
def test_all_members_of_a_group_get_all_rows(ranks):
    """Two groups at the same call, of all ranks; a member may have no row."""
    ours = [rank for rank in range(ranks.size) if rank % 2 == ranks.rank % 2]
    group, counts = ranks.group(ours), [2 * k for k in range(len(ours))]
    rows = [np.full((count, 3), rank, np.uint16) for rank, count in zip(ours, counts, strict=True)]
    assert group.rank == ours.index(ranks.rank)
    assert np.array_equal(group.allgather(rows[group.rank], counts), np.concatenate(rows))


class Chooser:
    """An agent whose actions depend on all that it gets."""

    def initial_state(self, batch):
        return np.zeros(batch)

    def act(self, observations, state, uniforms):
        state = state + observations.sum(axis=1)
        return SimpleNamespace(actions=((state + 4 * uniforms) % 4).astype(int), state=state)


class Failing(Warehouse):
    """Its first simulator fails at a step, or after the last one, at ``horizon``; at None never."""

    at, made = None, 0

    def global_simulator(self, streams):
        simulator, self.made = super().global_simulator(streams), self.made + 1
        methods, steps = {name: getattr(simulator, name) for name in ("step", "statistics")}, count()

        def failing(name):
            def call(*given):
                if self.made == 1 and next(steps) == self.at:
                    raise SimulatorFailure("it broke")
                return methods[name](*given)

            return call

        for name in methods:
            setattr(simulator, name, failing(name))
        return simulator


def played(at, partners, failures):
    domain = Failing(WarehouseConfig(grid=(2, 3), horizon=6))
    domain.at = at
    simulators, actions = Attempts(streams(0, Purpose.COLLECT, 5)), Attempts(streams(1, Purpose.COLLECT, 5))
    policies = [Chooser() for _ in partners.agents]
    acting = lambda _, part: joint.TrainedPolicies(policies, actions[part], partners)  # noqa: E731
    return collect(domain, simulators, acting, failures, with_acts=True)


@pytest.mark.mpi
@pytest.mark.parametrize("at", [None, 0, 3, 6])
def test_a_group_plays_and_fails_as_one_rank_does(at, capfd):
    """The last member's simulator fails. What is played again does not depend on where it failed."""
    ranks = connect()
    group = ranks.group(range(ranks.size))
    parts = [range(6 * k // ranks.size, 6 * (k + 1) // ranks.size) for k in range(ranks.size)]
    partners, own = GroupPartners(group, parts, range(0)), Failures(ranks.rank)
    last = ranks.rank == ranks.size - 1
    ours = played(at if last else None, partners, GroupFailures(own, partners))
    assert own.count == (last and at is not None)
    alone = played(None if at is None else 1, joint.Alone(6), Failures())
    assert np.array_equal(ours.returns, alone.returns)
    assert np.array_equal(ours.acts.actions, alone.acts.actions)
    first = played(None, joint.Alone(6), Failures())
    assert np.array_equal(ours.acts.actions, first.acts.actions) == (at is None)


@pytest.mark.mpi
def test_scatter_of_large_blocks(ranks):
    blocks = {i: [np.full(2_000_003, i, np.uint8)] for i in range(REGIONS)} if ranks.is_root else None
    room = {i: [np.empty(2_000_003, np.uint8)] for i in ranks.mine}
    ranks.scatter(blocks, room, ranks.owned)
    assert all((array == i).all() for i, (array,) in room.items())


@pytest.mark.mpi
@pytest.mark.parametrize("limit", [1, 7, 64, 4000])
def test_exchanges_do_not_depend_on_the_largest_message(ranks, limit, monkeypatch):
    """Messages are cut at the same bytes on both sides."""
    for name in ("LARGEST_MESSAGE", "PACKED_BYTES", "BYTES_UNDER_WAY"):
        monkeypatch.setattr(communicator, name, limit)
    gathered = ranks.gather({i: row(i, 20 + i) for i in ranks.mine}, ranks.owned, 30, np.float32)
    blocks = {i: [row(i, 5), row(i, 33)] for i in range(REGIONS)} if ranks.is_root else None
    room = {i: [np.empty(5, np.float32), np.empty(33, np.float32)] for i in ranks.mine}
    ranks.scatter(blocks, room, ranks.owned)
    for i, arrays in room.items():
        assert (arrays[0] == row(i, 5)).all() and (arrays[1] == row(i, 33)).all()
    for i in range(REGIONS) if ranks.is_root else ():
        assert (gathered[i, : 20 + i] == row(i, 20 + i)).all() and not gathered[i, 20 + i :].any()


@pytest.mark.mpi
def test_an_exchange_is_one_message_from_each_rank(ranks, monkeypatch):
    """However many regions it has."""
    posted = []

    def counted(name):
        start = getattr(ranks, name)

        def post(array, peer):
            requests = start(array, peer)
            posted.extend((name, peer) for _ in requests)
            return requests

        return post

    for name in ("isend", "irecv"):
        monkeypatch.setattr(ranks, name, counted(name))
    ranks.gather({i: row(i, 5 + i) for i in ranks.mine}, ranks.owned, 20, np.float32)
    blocks = {i: [row(i, 5), row(i, 33)] for i in range(REGIONS)} if ranks.is_root else None
    room = {i: [np.empty(5, np.float32), np.empty(33, np.float32)] for i in ranks.mine}
    ranks.scatter(blocks, room, ranks.owned)
    others = [rank for rank in range(1, ranks.size) if ranks.owned[rank]]
    if ranks.is_root:
        assert posted == [*(("irecv", rank) for rank in others), *(("isend", rank) for rank in others)]
    else:
        assert posted == ([("isend", 0), ("irecv", 0)] if ranks.mine else [])


@pytest.mark.mpi
def test_large_exchanges_are_fast(ranks):
    """A message of several arrays must not move a few kilobytes per poll: 19 MB took 5 s."""
    rows = {i: np.full(1_000_000, i, np.float32) for i in ranks.mine}
    blocks = {i: [np.full(1_000_000, i), np.full(5, i)] for i in range(REGIONS)} if ranks.is_root else None
    room = {i: [np.empty(1_000_000, int), np.empty(5, int)] for i in ranks.mine}
    ranks.barrier()
    start = time.perf_counter()
    ranks.gather(rows, ranks.owned, 1_000_000, np.float32)
    ranks.scatter(blocks, room, ranks.owned)
    assert time.perf_counter() - start < 5
    assert all((array == i).all() for i, arrays in room.items() for array in arrays)


@pytest.mark.mpi
def test_only_contiguous_arrays_are_sent_and_received(ranks):
    spread = np.empty((4, 4), np.float32)[:, :2]
    for operation in (ranks.isend, ranks.irecv):
        with pytest.raises(ValueError, match="contiguous"):
            operation(spread, 0)


@pytest.mark.mpi
def test_gather_fills_shorter_rows_with_zeros(ranks):
    for _ in range(3):
        own = {i: row(i, 5 + i) for i in ranks.mine}
        gathered = ranks.gather(own, ranks.owned, 5 + REGIONS, np.float32)
        if not ranks.is_root:
            assert gathered is None
            continue
        assert gathered.shape == (REGIONS, 5 + REGIONS) and gathered.dtype == np.float32
        for i in range(REGIONS):
            assert (gathered[i, : 5 + i] == row(i, 5 + i)).all() and (gathered[i, 5 + i :] == 0).all()


@pytest.mark.mpi
def test_rows_in_any_order_come_to_their_places(ranks):
    """The agents of a rank's regions need not have consecutive numbers."""
    agents = [(5, 2), (0,), (9, 1, 7), (3,), (8,), (4, 10), (6,)]
    on_root = ranks.size == 1
    owned = Layout(ranks.rank, ranks.size, agents, on_root).owned["agent"]
    gathered = ranks.gather({i: row(i, 3 + i % 2) for i in owned[ranks.rank]}, owned, 4, np.float32)
    if ranks.is_root:
        for i in range(11):
            assert gathered[i].tolist() == [*row(i, 3 + i % 2), *[0.0] * (1 - i % 2)]


@pytest.mark.mpi
def test_gather_in_double_precision(ranks):
    values = {i: np.array([np.pi * i, np.nan, 1e300]) for i in ranks.mine}
    gathered = ranks.gather(values, ranks.owned, 3, np.float64)
    if ranks.is_root:
        assert (gathered[:, 0] == np.pi * np.arange(REGIONS)).all()
        assert np.isnan(gathered[:, 1]).all() and (gathered[:, 2] == 1e300).all()


@pytest.mark.mpi
def test_gather_by_rank(ranks):
    gathered = ranks.gather_by_rank(np.array([ranks.rank, 7.5]))
    if ranks.is_root:
        assert gathered.tolist() == [[rank, 7.5] for rank in range(ranks.size)]
    else:
        assert gathered is None


class Store:
    """The state of one rank for the entries of the tests, and what it got back."""

    def __init__(self, ranks) -> None:
        self.back = {}
        self.exchange = StateExchange(ranks, ranks.layout, self)

    def entry(self, name: str, owner: str, width: int, dtype=np.float32, spare: int = 0) -> Entry:
        def unpack(store, number, values):
            store.back[name, number] = values.copy()

        return Entry(name, owner, width, lambda _, i: row(i, width - spare).astype(dtype), unpack, dtype)


@pytest.mark.mpi
@pytest.mark.parametrize("block_bytes", [1, 3000, 4 << 20])
def test_states_come_to_root_in_blocks_of_bounded_size(ranks, block_bytes, monkeypatch):
    monkeypatch.setattr(state_exchange, "BLOCK_BYTES", block_bytes)
    store, taken, sizes, send = Store(ranks), {}, [], ranks.isend

    def sized(block, dest):
        sizes.append(block.nbytes)
        return send(block, dest)

    monkeypatch.setattr(ranks, "isend", sized)
    entries = [
        store.entry("a", "agent", 701, spare=1),
        store.entry("b", "region", 3, float),
        store.entry("c", "rank", 2, float),
        store.entry("d", "run", 1),
    ]

    def put(name, number, values):
        assert (name, number) not in taken
        taken[name, number] = values.copy()

    store.exchange.gather(entries, put if ranks.is_root else None)
    assert all(size <= max(block_bytes, 2808) for size in sizes)
    own = len(ranks.mine)
    if not ranks.is_root and block_bytes > 10_000:
        assert len(sizes) == 1, "all in one message"
    elif not ranks.is_root and block_bytes == 1:
        assert len(sizes) == 2 * own + 1, "each row in one"
    if ranks.is_root:
        numbers = {"a": range(REGIONS), "b": range(REGIONS), "c": range(ranks.size), "d": [0]}
        assert taken.keys() == {(name, i) for name in numbers for i in numbers[name]}
        for (name, i), values in taken.items():
            width = {"a": 700, "b": 3, "c": 2, "d": 1}[name]
            assert (values[:width] == row(i, width)).all() and not values[width:].any()
            assert values.dtype == (float if name in "bc" else np.float32)


@pytest.mark.mpi
def test_all_agree_on_the_most_that_any_rank_wants(ranks):
    for who in range(ranks.size):
        assert ranks.allreduce_max(2 if ranks.rank == who else 0) == 2
    assert ranks.allreduce_max(0) == 0


@pytest.mark.mpi
def test_all_know_the_hosts_and_send_heartbeats(ranks):
    hosts = ranks.exchange_hosts(silence=0.2)
    assert hosts == [ranks.host] * ranks.size
    watched = range(1, ranks.size) if ranks.is_root else [0] if ranks.rank == 1 else []
    heard, limit = set(), time.monotonic() + 20
    while heard < set(watched) and time.monotonic() < limit:
        time.sleep(0.01)
        ranks.heartbeat.beat()
        heard.update(ranks.heartbeat._received())
    assert heard == set(watched)
    ranks.barrier()


@pytest.mark.mpi
def test_nothing_of_mpich_is_left_in_shared_memory_when_this_is_killed(ranks):
    ranks.exchange_hosts(silence=0.0)
    ranks.barrier()
    maps = Path("/proc/self/maps").read_text().splitlines()
    names = [line.split()[5] for line in maps if "mpich_shm_" in line]
    assert not [name for name in names if os.path.exists(name)]


@pytest.mark.mpi
def test_barrier_waits_for_the_last_without_burning_a_core(ranks):
    ranks.barrier()
    start, cpu = time.perf_counter(), time.process_time()
    last = ranks.size - 1
    if ranks.rank == last:
        time.sleep(0.6)
    ranks.barrier()
    assert time.perf_counter() - start > (0.5 if ranks.rank == last else 0.3)
    assert time.process_time() - cpu < 0.3


@pytest.mark.mpi
def test_the_world_is_known(ranks):
    assert ranks.library and ranks.library.isprintable()
    assert ranks.host
    assert ranks.is_root == (ranks.rank == 0) and 0 <= ranks.rank < ranks.size


@pytest.mark.parametrize(("ranks", "cores"), [(1, 2), (8, 2), (101, 2), (257, 2), (128, 128)])
def test_the_polls_of_all_ranks_take_a_fifth_of_a_machine_at_most(ranks, cores, monkeypatch):
    """With 80 us for a poll; few ranks poll 500 times a second."""
    clock, polls = 0.0, []

    def sleep(seconds):
        nonlocal clock
        clock += seconds + 1e-5

    class Request:
        @staticmethod
        def Testall(_):
            polls.append(clock)
            return clock > 60

    monkeypatch.setattr(communicator, "time", SimpleNamespace(sleep=sleep, perf_counter=lambda: clock))
    monkeypatch.setattr(communicator.os, "cpu_count", lambda: cores)
    monkeypatch.setenv("MPI_LOCALNRANKS", str(ranks))
    communicator.Communicator(SimpleNamespace(rank=0, size=ranks), "").wait([Request()])
    rate = sum(moment > 30 for moment in polls) / 30
    assert ranks * rate * 80e-6 < 0.2 * cores
    assert rate > (490 if ranks <= 4 * cores else 10)


# These, started --------------------------------------------------------------------------------------------


UNDER_MPI = """
import sys, pytest
from mpi4py import MPI
sys.exit(pytest.main([*sys.argv[2:], f"--junitxml={sys.argv[1]}/{MPI.COMM_WORLD.rank}.xml"]))
"""
"""pytest with a report of each rank in a file of its own: what ranks print may meet within a line."""


@pytest.mark.parametrize("size", [1, pytest.param(3, marks=pytest.mark.quick)])
def test_messages_under_mpirun(size, tmp_path):
    options = ("-x", "-q", "--only-mpi", "-p", "no:cacheprovider", __file__)
    result = launch("-m", "mpi4py", "-c", UNDER_MPI, str(tmp_path), *options, ranks=size)
    assert result.code == 0, result.stdout + result.stderr
    suites = [ElementTree.parse(tmp_path / f"{rank}.xml").find("testsuite") for rank in range(size)]
    assert {(suite.get("errors"), suite.get("failures")) for suite in suites} == {("0", "0")}
    passed = [int(suite.get("tests")) - int(suite.get("skipped")) for suite in suites]
    assert min(passed) == max(passed) >= 70, result.stdout
