"""The warehouse: geometry, semantics against a plain-loop twin, exactness of the local simulator, returns."""

import copy

import numpy as np
import pytest
from conftest import generators

from dials_mpi.core.errors import BadInput
from dials_mpi.domains import DOMAINS, create
from dials_mpi.domains.warehouse import (
    Warehouse,
    WarehouseConfig,
    WarehouseController,
    WarehouseGlobalSimulator,
    WarehouseLocalSimulator,
)
from dials_mpi.domains.warehouse.floor import lay_out
from dials_mpi.domains.warehouse.region import CENTRE, NEXT_CELL, SHELF_AT, SHELF_CELLS

UP, DOWN, LEFT, RIGHT = range(4)
ITEM_ORDER = (
    [(0, c) for c in (1, 2, 3)]
    + [(4, c) for c in (1, 2, 3)]
    + [(1, 0), (1, 4), (2, 0), (2, 4), (3, 0), (3, 4)]
)
GRIDS = [((2, 2), True), ((2, 2), False), ((2, 3), True), ((3, 1), False), ((1, 1), True), ((1, 1), False)]


class Recorder(WarehouseGlobalSimulator):
    """The global simulator, keeping what each episode drew."""

    def _draw(self, where):
        draws = super()._draw(where)
        self.tape = draws.copy()
        return draws


class Replay(WarehouseLocalSimulator):
    """The local simulator, drawing what it is given."""

    def _draw(self):
        return self.fed


def replay(config, environments, seed=9):
    """Of all regions."""
    block = lay_out(config.grid, config.ring, config.block).block
    number = config.grid[0] * config.grid[1] // (config.block[0] * config.block[1])
    return Replay(block, environments, config.item_probability, config.horizon, generators(number, seed))


def recorder(config, episodes, seed=0):
    return Recorder(
        lay_out(config.grid, config.ring, config.block),
        config.ring_policy,
        config.item_probability,
        config.horizon,
        generators(episodes, seed),
    )


# --- a twin of the global simulator in plain loops: one episode, coordinates on the map, dictionaries ---


def move(row, column, action):
    """Within a region; corners cannot be entered, shelf cells are left only inward."""
    if action in (UP, DOWN) and column in (0, 4):
        return row, column
    if action in (LEFT, RIGHT) and row in (0, 4):
        return row, column
    row += {UP: -1, DOWN: 1}.get(action, 0)
    column += {LEFT: -1, RIGHT: 1}.get(action, 0)
    return min(max(row, 0), 4), min(max(column, 0), 4)


def inward(row, column):
    return min(max(row, 1), 3), min(max(column, 1), 3)


def distance(start, goal):
    """From shelf cell or interior over the 3 x 3 interior to a shelf cell."""
    if start == goal:
        return 0
    (a, b), (c, d) = inward(*start), inward(*goal)
    return (start != (a, b)) + abs(a - c) + abs(b - d) + (goal != (c, d))


class PlainWarehouse:
    def __init__(self, config, tape):
        border = 1 if config.ring else 0
        self.probability = config.item_probability
        self.policy = config.ring_policy
        self.height, self.width = config.grid[0] + 2 * border, config.grid[1] + 2 * border
        self.robots = [(i, j) for i in range(self.height) for j in range(self.width)]
        self.learners = [
            (i + border, j + border) for i in range(config.grid[0]) for j in range(config.grid[1])
        ]
        self.scripted = [robot for robot in self.robots if robot not in self.learners]
        self.shelves = [
            (y, x)
            for y in range(4 * self.height + 1)
            for x in range(4 * self.width + 1)
            if (y % 4 == 0) != (x % 4 == 0)
        ]
        self.place = dict.fromkeys(self.robots, (2, 2))
        self.target = dict.fromkeys(self.scripted)
        self.ages = {}
        self.paid_twice = 0
        self.appear(tape)

    def on_map(self, robot, cell=None):
        row, column = self.place[robot] if cell is None else cell
        return 4 * robot[0] + row, 4 * robot[1] + column

    def appear(self, tape):
        for number, shelf in enumerate(self.shelves):
            if shelf not in self.ages and tape[number] < self.probability:
                self.ages[shelf] = 0

    def items(self, robot):
        """Age of each item in the robot's region by its cell there, in row-major order."""
        cells = sorted(ITEM_ORDER)
        return {
            cell: self.ages[self.on_map(robot, cell)]
            for cell in cells
            if self.on_map(robot, cell) in self.ages
        }

    def scripted_action(self, robot, chance):
        items, here = self.items(robot), self.place[robot]
        if self.policy == "closest":
            items.pop(here, None)
        if self.target[robot] not in items:
            if self.policy == "closest":
                ranked = sorted(items, key=lambda cell: distance(here, cell))
            else:
                ranked = sorted(items, key=lambda cell: -items[cell])
            self.target[robot] = ranked[0] if ranked else None
        goal = self.target[robot]
        if goal is None or goal == here:
            return int(4 * chance)
        closer = [a for a in range(4) if distance(move(*here, a), goal) < distance(here, goal)]
        return closer[0]

    def step(self, learner_actions, tape):
        for shelf in self.ages:
            self.ages[shelf] += 1
        chances = tape[len(self.shelves) :]
        actions = dict(zip(self.learners, learner_actions, strict=True))
        for robot, chance in zip(self.scripted, chances, strict=True):
            actions[robot] = self.scripted_action(robot, chance)
        for robot in self.robots:
            self.place[robot] = move(*self.place[robot], actions[robot])
        sources = [self.sources(robot) for robot in self.learners]
        rewards = [self.reward(robot) for robot in self.learners]
        standing = [self.on_map(robot) for robot in self.robots]
        for shelf in list(self.ages):
            if shelf in standing:
                self.paid_twice += standing.count(shelf) > 1
                del self.ages[shelf]
        self.appear(tape)
        return sources, rewards

    def sources(self, robot):
        i, j = robot
        sides = [
            ((i, j + 1), [(r, 4) for r in (1, 2, 3)]),
            ((i + 1, j), [(4, c) for c in (1, 2, 3)]),
            ((i, j - 1), [(r, 0) for r in (1, 2, 3)]),
            ((i - 1, j), [(0, c) for c in (1, 2, 3)]),
        ]
        found = []
        for neighbour, cells in sides:
            spots = [self.on_map(robot, cell) for cell in cells]
            stands = neighbour in self.place and self.on_map(neighbour) in spots
            found.append(spots.index(self.on_map(neighbour)) if stands else 3)
        return found

    def reward(self, robot):
        items = self.items(robot)
        return items[self.place[robot]] / max(items.values()) if self.place[robot] in items else 0.0

    def observation(self, robot):
        row, column = self.place[robot]
        location = [int((r, c) == (row, column)) for r in range(5) for c in range(5)]
        return location + [int(self.on_map(robot, cell) in self.ages) for cell in ITEM_ORDER]


# --- geometry ---


def test_robots_can_enter_21_cells():
    reached, frontier = {CENTRE}, [CENTRE]
    while frontier:
        new = set(NEXT_CELL[frontier.pop()].tolist()) - reached
        reached |= new
        frontier += new
    corners = {0, 4, 20, 24}
    assert reached == set(range(25)) - corners


@pytest.mark.parametrize("cell", ITEM_ORDER)
def test_shelf_cells_are_dead_ends_left_only_inward(cell):
    row, column = cell
    here = 5 * row + column
    ways_out = {action: divmod(int(NEXT_CELL[here, action]), 5) for action in range(4)}
    ways_out = {action: to for action, to in ways_out.items() if to != cell}
    inner = {0: DOWN, 4: UP}.get(row, RIGHT if column == 0 else LEFT)
    assert ways_out == {inner: inward(*cell)}


def test_moves_agree_with_the_plain_rule():
    for cell in set(range(25)) - {0, 4, 20, 24}:
        for action in range(4):
            assert divmod(int(NEXT_CELL[cell, action]), 5) == move(*divmod(cell, 5), action)


def test_shelf_cells_are_numbered_in_the_order_of_the_observation():
    assert SHELF_CELLS == ITEM_ORDER
    assert [SHELF_AT[5 * r + c] for r, c in ITEM_ORDER] == list(range(1, 13))
    assert np.count_nonzero(SHELF_AT) == 12


@pytest.mark.parametrize(("grid", "ring"), [*GRIDS, ((5, 5), True), ((10, 10), True)])
def test_each_side_has_3_shelf_cells_shared_with_its_neighbour(grid, ring):
    floor = lay_out(grid, ring)
    rows, columns = grid[0] + 2 * ring, grid[1] + 2 * ring
    assert floor.learners == grid[0] * grid[1]
    assert floor.shelf_cells == 3 * (rows * (columns + 1) + columns * (rows + 1))
    own = [set(shelves[1:].tolist()) for shelves in floor.shelves]
    assert all(len(cells) == 12 for cells in own)
    assert set().union(*own) == set(range(1, floor.shelf_cells + 1))
    for robot, neighbours in enumerate(floor.neighbours):
        present = [other for other in neighbours if other < len(own)]
        assert len(present) == len(set(present))
        assert all(len(own[robot] & own[other]) == 3 for other in present)
        assert len(present) == 4 or not ring


def test_the_domain_describes_its_regions():
    domain = create("warehouse", DOMAINS["warehouse"][1](grid=(2, 3)))
    assert (domain.name, domain.horizon, len(domain.regions)) == ("warehouse", 100, 6)
    agent, region = domain.agents[5], domain.regions[5]
    assert (agent.observation_size, agent.actions, len(domain.agents)) == (37, 4, 6)
    assert (region.agents, region.input_size, region.source_classes) == ((5,), 37, (4, 4, 4, 4))
    assert domain.hand_coded == ("oldest", "closest")


def test_unknown_names_are_refused():
    with pytest.raises(BadInput, match="domain is 'depot': choose warehouse, traffic"):
        create("depot", None)
    domain = Warehouse(WarehouseConfig(grid=(1, 1)))
    with pytest.raises(ValueError, match="no hand-coded warehouse policy 'newest'"):
        domain.controller("newest", domain.global_simulator(generators(1)), generators(1))


# --- the global step against its plain twin ---


@pytest.mark.quick
@pytest.mark.parametrize(("grid", "ring"), GRIDS)
@pytest.mark.parametrize("ring_policy", ["closest", "oldest"])
def test_the_batched_step_agrees_with_plain_loops(grid, ring, ring_policy):
    config = WarehouseConfig(grid=grid, ring=ring, ring_policy=ring_policy, item_probability=0.05)
    episodes, rng = 3, np.random.default_rng(3)
    simulator = recorder(config, episodes)
    observations, _ = simulator.reset()
    controller = WarehouseController("closest", simulator, generators(episodes, 1))
    twins = [PlainWarehouse(config, tape) for tape in simulator.tape]
    paid, shared = [], 0
    for step in range(150):
        for e, twin in enumerate(twins):
            assert observations[:, e].tolist() == [twin.observation(robot) for robot in twin.learners]
        scripted, chance = controller.act(), rng.integers(0, 4, (grid[0] * grid[1], episodes))
        actions = scripted if step % 50 < 25 else chance
        (observations, inputs), sources, rewards, _ = simulator.step(actions)
        assert np.array_equal(inputs, observations)
        paid.append(rewards)
        for e, twin in enumerate(twins):
            expected_sources, expected_rewards = twin.step(actions[:, e], simulator.tape[e])
            assert sources[:, e].tolist() == expected_sources
            assert rewards[:, e] == pytest.approx(expected_rewards, rel=1e-6)
        if step % 15 == 14:  # a restart must leave nothing behind, the ring's targets included
            observations, _ = simulator.reset(np.array([True, False, True]))
            for e in (0, 2):
                shared += twins[e].paid_twice
                twins[e] = PlainWarehouse(config, simulator.tape[e])
    paid = np.array(paid)
    assert (paid == 1).any() and ((paid > 0) & (paid < 1)).any()
    if len(twins[0].robots) > 1:
        assert shared + sum(twin.paid_twice for twin in twins) > 0


@pytest.mark.parametrize("policy", ["closest", "oldest"])
def test_controllers_agree_with_the_plain_script(policy):
    """A learner without neighbours, so that the twin's script can be asked about it."""
    config = WarehouseConfig(grid=(1, 1), ring=False, item_probability=0.05)
    simulator = recorder(config, 1)
    simulator.reset()
    controller = WarehouseController(policy, simulator, generators(1, 1))
    chances = generators(1, 1)[0]
    twin = PlainWarehouse(config, simulator.tape[0])
    twin.policy, twin.target = policy, {(0, 0): None}
    for _ in range(300):
        chance = chances.random(1, dtype=np.float32)[0]
        actions = controller.act()
        assert actions[0, 0] == twin.scripted_action((0, 0), chance)
        simulator.step(actions)
        twin.step(actions[:, 0], simulator.tape[0])


# --- exactness of the local simulator (Definition 3) ---


def blocks_of(config):
    """The robots (row, column) of each block, learners without the ring."""
    (rows, columns), (high, wide) = config.grid, config.block
    return [
        [(i + r, j + c) for r in range(high) for c in range(wide)]
        for i in range(0, rows, high)
        for j in range(0, columns, wide)
    ]


def shelf_columns(config):
    """[R, S]: where each block's shelf cells stand on the tape: those of its first robot in the order of its
    observation, then those of the second that are new, and so on."""
    border = int(config.ring)
    rows, columns = config.grid[0] + 2 * border, config.grid[1] + 2 * border
    on_map = [
        (y, x) for y in range(4 * rows + 1) for x in range(4 * columns + 1) if (y % 4 == 0) != (x % 4 == 0)
    ]
    position = {cell: number for number, cell in enumerate(on_map)}
    cells = [
        [(4 * (i + border) + r, 4 * (j + border) + c) for i, j in block for r, c in ITEM_ORDER]
        for block in blocks_of(config)
    ]
    return np.array([[position[cell] for cell in dict.fromkeys(own)] for own in cells])


@pytest.mark.quick
@pytest.mark.parametrize("policy", ["random", "closest", "oldest"])
@pytest.mark.parametrize(
    ("grid", "ring", "block"),
    [
        *((*one, (1, 1)) for one in (*GRIDS, ((5, 5), True), ((5, 5), False))),
        *(((2, 4), True, block) for block in ((1, 2), (2, 1), (2, 2), (1, 4))),
        ((4, 4), True, (2, 2)),
        ((4, 4), True, (4, 4)),
        ((4, 4), False, (2, 2)),
        ((4, 4), False, (4, 4)),
        ((3, 3), False, (3, 3)),
    ],
)
def test_local_simulators_reproduce_the_global_one_under_true_influence(grid, ring, block, policy):
    config = WarehouseConfig(grid=grid, ring=ring, block=block, item_probability=0.04)
    n, episodes, rng = grid[0] * grid[1], 4, np.random.default_rng(5)
    order = [i * grid[1] + j for robots in blocks_of(config) for i, j in robots]
    columns = shelf_columns(config)
    whole = recorder(config, episodes)
    local = replay(config, episodes)
    expected = whole.reset()
    local.fed = whole.tape[:, columns].swapaxes(0, 1)
    state = local.reset()
    controller = WarehouseController(
        "oldest" if policy == "random" else policy, whole, generators(episodes, 1)
    )
    for _ in range(config.horizon):
        assert np.array_equal(state.observations, expected.observations[order])
        assert np.array_equal(state.inputs, expected.inputs)
        actions = rng.integers(0, 4, (n, episodes)) if policy == "random" else controller.act()
        expected, sources, rewards, done = whole.step(actions)
        if block == grid and not ring:
            assert (sources == 3).all()  # nobody is there
        local.fed = whole.tape[:, columns].swapaxes(0, 1)
        state, local_rewards, local_done = local.step(actions[order], sources)
        assert np.array_equal(local_rewards, rewards[order])
        assert np.array_equal(local_done, done)
    assert np.array_equal(state.observations, expected.observations[order])
    assert done.all()


@pytest.mark.parametrize(("grid", "block"), [((2, 4), (1, 2)), ((4, 4), (2, 2)), ((4, 2), (4, 1))])
def test_a_block_is_influenced_from_outside_alone_and_sees_what_its_robots_see(grid, block):
    config, rng = WarehouseConfig(grid=grid, block=block, item_probability=0.1), np.random.default_rng(7)
    single = WarehouseConfig(grid=grid, item_probability=0.1)
    whole, apart = (Warehouse(one).global_simulator(generators(5)) for one in (config, single))
    states = [whole.reset(), apart.reset()]
    influenced = 0
    for _ in range(40):
        assert np.array_equal(states[0].observations, states[1].observations)
        actions = rng.integers(0, 4, (grid[0] * grid[1], 5))
        ours, theirs = whole.step(actions), apart.step(actions)
        assert np.array_equal(ours.rewards, theirs.rewards)
        states = [ours.state, theirs.state]
        for k, robots in enumerate(blocks_of(config)):
            agents = [i * grid[1] + j for i, j in robots]
            seen = np.concatenate([theirs.state.observations[n] for n in agents], axis=1)
            assert np.array_equal(ours.state.inputs[k], seen)
            outer = [
                theirs.sources[i * grid[1] + j, :, side]
                for i, j in robots
                for side, place in enumerate(((i, j + 1), (i + 1, j), (i, j - 1), (i - 1, j)))
                if place not in robots
            ]
            assert np.array_equal(ours.sources[k], np.stack(outer, axis=1))
            influenced += (ours.sources[k] < 3).sum()
    assert influenced
    region = Warehouse(config).regions[1]
    assert region.source_classes == (4,) * 2 * sum(block)
    assert region.agents == tuple(i * grid[1] + j for i, j in blocks_of(config)[1])
    assert region.input_size == 37 * len(region.agents)


def test_a_block_that_does_not_divide_the_grid_is_refused():
    words = r"warehouse\.block is \[2, 3\], which does not divide warehouse\.grid=\[5, 4\]: "
    with pytest.raises(BadInput, match=words + "use 1 or 5 for its rows and 1, 2 or 4 for its columns"):
        WarehouseConfig(grid=(5, 4), block=(2, 3))


def test_exactness_needs_the_true_sources():
    """The counterpart of the test above: without its neighbours a region goes its own way."""
    config = WarehouseConfig(grid=(2, 2))
    columns = shelf_columns(config)
    whole = recorder(config, 4)
    local = replay(config, 4)
    expected = whole.reset()
    local.fed = whole.tape[:, columns].swapaxes(0, 1)
    state = local.reset()
    rng = np.random.default_rng(0)
    for _ in range(config.horizon):
        actions = rng.integers(0, 4, (4, 4))
        expected = whole.step(actions).state
        local.fed = whole.tape[:, columns].swapaxes(0, 1)
        state = local.step(actions, np.full((4, 4, 4), 3)).state
    assert not np.array_equal(state.observations, expected.observations)


# --- returns of scripted policies ---

PUBLISHED_EPISODES = 150


@pytest.mark.parametrize(
    ("grid", "ring", "ring_policy", "policy", "published"),
    [
        ((2, 2), True, "closest", "random", 1.51),
        ((2, 2), True, "closest", "closest", 12.94),
        ((2, 2), True, "closest", "oldest", 12.90),
        ((2, 2), True, "oldest", "oldest", 13.29),
        ((2, 2), False, "closest", "random", 2.59),
        ((2, 2), False, "closest", "oldest", 16.56),
        ((1, 1), False, "closest", "random", 3.05),
        ((1, 1), False, "closest", "closest", 18.58),
        ((1, 1), False, "closest", "oldest", 19.34),
    ],
)
def test_scripted_returns_agree_with_the_authors_simulator(grid, ring, ring_policy, policy, published):
    domain = Warehouse(WarehouseConfig(grid=grid, ring=ring, ring_policy=ring_policy))
    n, episodes, rng = len(domain.regions), 450, np.random.default_rng(2)
    simulator = domain.global_simulator(generators(episodes))
    simulator.reset()
    controller = None if policy == "random" else domain.controller(policy, simulator, generators(episodes, 1))
    returns = np.zeros((n, episodes))
    for _ in range(domain.horizon):
        actions = controller.act() if controller else rng.integers(0, 4, (n, episodes))
        returns += simulator.step(actions).rewards
    spread = returns.mean(axis=0).std(ddof=1)
    error = spread * np.sqrt(1 / episodes + 1 / PUBLISHED_EPISODES)
    assert returns.mean() == pytest.approx(published, abs=3 * error)


# --- streams, clocks and restarts ---


def global_trajectory(config, streams, actions):
    simulator = Warehouse(config).global_simulator(streams)
    seen = [simulator.reset().observations]
    paid = []
    for each in actions:
        state, _, rewards, _ = simulator.step(each)
        seen.append(state.observations)
        paid.append(rewards)
    return np.array(seen), np.array(paid)


def test_an_episode_depends_on_its_own_stream_alone():
    config = WarehouseConfig(grid=(2, 2))
    actions = np.random.default_rng(0).integers(0, 4, (100, 4, 5))
    seen, paid = global_trajectory(config, generators(5), actions)
    for e in (0, 3):
        alone = global_trajectory(config, [generators(5)[e]], actions[:, :, e : e + 1])
        assert np.array_equal(alone[0], seen[:, :, e : e + 1])
        assert np.array_equal(alone[1], paid[:, :, e : e + 1])
    assert not np.array_equal(seen[:, :, 0], seen[:, :, 1])


def local_trajectory(regions, streams, actions, sources):
    domain = Warehouse(WarehouseConfig(grid=(2, 3)))
    simulator = domain.local_simulator(regions, actions.shape[-1], streams)
    seen = [simulator.reset(elapsed=np.arange(actions.shape[-1])).observations]
    paid = []
    for each, influence in zip(actions, sources, strict=True):
        state, rewards, done = simulator.step(each, influence)
        seen.append(simulator.reset(done).observations if done.any() else state.observations)
        paid.append(rewards)
    return np.array(seen), np.array(paid)


def test_a_region_depends_on_its_own_stream_alone():
    rng = np.random.default_rng(0)
    actions, sources = rng.integers(0, 4, (150, 6, 8)), rng.integers(0, 4, (150, 6, 8, 4))
    seen, paid = local_trajectory(range(6), generators(6), actions, sources)
    alone = local_trajectory([3], [generators(6)[3]], actions[:, 3:4], sources[:, 3:4])
    assert np.array_equal(alone[0], seen[:, 3:4])
    assert np.array_equal(alone[1], paid[:, 3:4])
    assert not np.array_equal(seen[:, 0], seen[:, 1])
    again = local_trajectory(range(6), generators(6), actions, sources)
    assert np.array_equal(again[0], seen)


def test_a_region_needs_its_stream():
    with pytest.raises(ValueError, match="2 regions need as many streams, not 1"):
        Warehouse(WarehouseConfig()).local_simulator([0, 1], 4, generators(1))


@pytest.mark.parametrize("kind", ["global", "local"])
def test_episodes_end_by_their_own_clocks(kind):
    domain = Warehouse(WarehouseConfig(grid=(2, 2), horizon=10))
    if kind == "global":
        simulator, extra = domain.global_simulator(generators(3)), ()
    else:
        simulator, extra = domain.local_simulator(range(4), 3, generators(4)), (np.full((4, 3, 4), 3),)
    actions = np.full((4, 3), UP)
    simulator.reset(elapsed=np.array([0, 4, 9]))
    ends = [[], [], []]
    for step in range(1, 21):
        done = simulator.step(actions, *extra).done
        for e in np.flatnonzero(done):
            ends[e].append(step)
        if done.any():
            simulator.reset(done)
    assert ends == [[10, 20], [6, 16], [1, 11]]


@pytest.mark.parametrize("kind", ["global", "local"])
def test_a_partial_reset_restarts_only_its_episodes(kind):
    domain = Warehouse(WarehouseConfig(grid=(2, 2), item_probability=0.3))
    if kind == "global":
        simulator, extra = domain.global_simulator(generators(3)), ()
    else:
        simulator, extra = domain.local_simulator(range(4), 3, generators(4)), (np.full((4, 3, 4), 3),)
    simulator.reset()
    for _ in range(5):
        before = simulator.step(np.full((4, 3), UP), *extra).state.observations
    after = simulator.reset(np.array([False, True, False])).observations
    assert np.array_equal(after[:, [0, 2]], before[:, [0, 2]])
    assert before[:, :, 2].all()  # UP from the centre ends on the middle of the top side
    assert after[:, 1, CENTRE].all() and (after[:, 1, :25].sum(axis=-1) == 1).all()
    assert 0.1 < after[:, 1, 25:].mean() < 0.6


def test_items_of_a_restarted_episode_are_fresh():
    domain = Warehouse(WarehouseConfig(grid=(1, 1), ring=False, item_probability=0.5))
    simulator = domain.global_simulator(generators(400))
    simulator.reset()
    for _ in range(30):
        simulator.step(np.full((1, 400), UP))
    restarted = np.arange(400) < 200
    simulator.reset(restarted)
    simulator.step(np.full((1, 400), LEFT))
    paid = simulator.step(np.full((1, 400), LEFT)).rewards[0]
    assert set(paid[restarted].tolist()) == {0.0, 0.5, 1.0}
    assert set(paid[~restarted].tolist()) - {0.0, 0.5, 1.0}


def test_other_episodes_do_not_notice_a_restart():
    config = WarehouseConfig(grid=(2, 2))
    actions = np.random.default_rng(0).integers(0, 4, (60, 4, 2))
    undisturbed, _ = global_trajectory(config, generators(2), actions)
    simulator = Warehouse(config).global_simulator(generators(2))
    simulator.reset()
    for step, each in enumerate(actions, start=1):
        observations = simulator.step(each).state.observations
        assert np.array_equal(observations[:, 0], undisturbed[step][:, 0])
        if step % 10 == 0:
            simulator.reset(np.array([False, True]))


def test_controllers_forget_their_targets_when_an_episode_restarts():
    domain = Warehouse(WarehouseConfig(grid=(2, 2), item_probability=0.3))
    simulator = domain.global_simulator(generators(50))
    simulator.reset()
    streams = generators(50, 1)
    controller = domain.controller("closest", simulator, streams)
    for _ in range(20):
        simulator.step(controller.act())
    restarted = np.arange(50) < 40
    simulator.reset(restarted)
    fresh = domain.controller("closest", simulator, copy.deepcopy(streams))
    old, new = controller.act(), fresh.act()
    assert np.array_equal(old[:, restarted], new[:, restarted])
    assert not np.array_equal(old[:, ~restarted], new[:, ~restarted])


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_item_probability_takes_its_bounds(probability):
    domain = Warehouse(WarehouseConfig(grid=(2, 2), item_probability=probability))
    simulator = domain.global_simulator(generators(2))
    assert (simulator.reset().observations[..., 25:] == probability).all()
    for _ in range(5):
        observations = simulator.step(np.full((4, 2), RIGHT)).state.observations
        assert (observations[..., 25:] == probability).all()


def test_states_are_bits_and_stay_as_they_were():
    simulator = Warehouse(WarehouseConfig(grid=(2, 2))).global_simulator(generators(2))
    first = simulator.reset()
    copies = first.observations.copy()
    step = simulator.step(np.full((4, 2), LEFT))
    assert first.observations.dtype == np.uint8 and step.rewards.dtype == np.float32
    assert first.observations.shape == first.inputs.shape == (4, 2, 37)
    assert step.sources.shape == (4, 2, 4) and step.done.shape == (2,)
    assert np.array_equal(first.observations, copies)
