"""The benchmark: its count of operations against torch's own counter, its profile, and the program."""

from __future__ import annotations

import json
import time

import pytest
import torch
from city_common import busy
from conftest import SMALL, launch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dials_mpi.bench.flop import count, fit_flop, flop_per_agent_step, mean_epochs, policy_count
from dials_mpi.bench.shares import PARTS, Method, Profile, shares
from dials_mpi.config import load
from dials_mpi.core.provenance import own_memory
from dials_mpi.domains import create
from dials_mpi.domains.traffic import Traffic, TrafficConfig
from dials_mpi.domains.traffic.throughput import reset_often, throughput

TRAFFIC = (
    "domain=traffic",
    "traffic.horizon=20",
    "traffic.entries=drop",
    "policy.architecture=fnn",
    "influence.architecture=fnn",
    *SMALL[2:],
)


# Operations ----------------------------------------------------------------------------------------------


class Twin:
    """A network of torch's own layers that runs step by step."""

    def __init__(self, architecture, inputs, hidden, outputs):
        first, second = hidden
        self.gru = architecture == "gru"
        self.inputs, self.size = inputs, first
        self.first = nn.GRUCell(inputs, first) if self.gru else nn.Linear(inputs, first)
        self.rest = nn.Sequential(nn.Linear(first, second), nn.ReLU(), nn.Linear(second, outputs))

    def forward(self, steps, batch):
        """All outputs along zeros, from a state that needs no gradient."""
        h, outputs = torch.zeros(batch, self.size), []
        for _ in range(steps):
            x = torch.zeros(batch, self.inputs)
            h = self.first(x, h) if self.gru else torch.relu(self.first(x))
            outputs.append(self.rest(h))
        return torch.stack(outputs)

    def learn(self, steps, batch):
        """Forward and backward."""
        self.forward(steps, batch).sum().backward()


def policy_and_predictor(config):
    """Twins of the networks of agent 0 and region 0."""
    domain = create(config.domain, config.domain_section)
    agent, region = domain.agents[0], domain.regions[0]
    logits = sum(1 if classes == 2 else classes for classes in region.source_classes)
    policy, influence = config.policy, config.influence
    return (
        Twin(policy.architecture, agent.observation_size, policy.hidden, agent.actions + 1),
        Twin(influence.architecture, region.input_size, influence.hidden, logits),
    )


@pytest.mark.parametrize("architecture", ["fnn", "gru"])
@pytest.mark.parametrize(("inputs", "hidden", "outputs"), [(37, (64, 128), 5), (7, (12, 10), 3)])
def test_operations_of_a_network_are_those_that_torch_counts(architecture, inputs, hidden, outputs):
    twin, counted = Twin(architecture, inputs, hidden, outputs), count(architecture, inputs, hidden, outputs)
    steps, batch = 4, 3
    with FlopCounterMode(display=False) as counter:
        twin.forward(steps, batch)
        assert counter.get_total_flops() == steps * batch * counted.forward
    with FlopCounterMode(display=False) as counter:
        twin.learn(steps, batch)
        assert counter.get_total_flops() == pytest.approx(steps * batch * counted.training(steps), rel=1e-12)


def test_operations_of_networks_in_pytorch_are_those_of_the_built_in_ones_or_twice_the_parameters():
    words = [*SMALL, "policy.architecture=torch:fnn", "influence.architecture=torch:gru"]
    ours = [*SMALL, "policy.architecture=fnn", "influence.architecture=gru"]
    assert flop_per_agent_step(load(None, words)) == flop_per_agent_step(load(None, ours))
    config = load(None, [*SMALL, "policy.architecture=torch_modules:Plain"])
    domain = create(config.domain, config.domain_section)
    parameters = 37 * 8 + 8 + 8 * 5 + 5
    assert policy_count(config, domain.agents[0]).forward == 2 * parameters


@pytest.mark.parametrize("mode", ["dials", "global"])
@pytest.mark.parametrize("time_limit", ["bootstrap", "terminal"])
@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_operations_of_an_agent_step_are_those_of_an_update_step_by_step(mode, time_limit, architecture):
    config = load(
        None,
        [
            *SMALL,
            *(f"mode={mode}", f"ppo.time_limit={time_limit}", "warehouse.horizon=4", "dataset_size=20"),
            *(f"policy.architecture={architecture}", f"influence.architecture={architecture}"),
            *("ppo.rollout_steps=4", "ppo.memory_size=128", "envs_per_region=16", "policy.sequence_length=4"),
        ],
    )
    policy, predictor = policy_and_predictor(config)
    with FlopCounterMode(display=False) as counter:
        for step in range(1, 9):  # 16 environments fill a memory of 128
            with torch.no_grad():
                policy.forward(1, 16)
                if mode != "global":
                    predictor.forward(1, 16)
                if time_limit == "bootstrap" and step % 4 == 0:  # episodes of 4 steps
                    policy.forward(1, 16)
        with torch.no_grad():
            policy.forward(1, 16)
        for _ in range(3):  # epochs
            for _ in range(4):  # minibatches of 32 steps
                if architecture == "gru":
                    policy.learn(4, 8)
                else:
                    policy.learn(1, 32)
        assert flop_per_agent_step(config) == pytest.approx(counter.get_total_flops() / 128, rel=1e-12)


@pytest.mark.parametrize("block", ["[1,1]", "[1,2]", "[2,2]"])
def test_the_agents_of_a_region_share_the_operations_of_its_predictor(block):
    apart, config = (
        load(None, [*SMALL, f"warehouse.block={block}", f"mode={m}"]) for m in ("global", "dials")
    )
    agents = len(create("warehouse", config.domain_section).regions[0].agents)
    _, predictor = policy_and_predictor(config)
    with FlopCounterMode(display=False) as counter:
        predictor.forward(1, 16)
    shared = counter.get_total_flops() / 16 / agents
    assert flop_per_agent_step(config) - flop_per_agent_step(apart) == pytest.approx(shared)


@pytest.mark.parametrize("architecture", ["gru", "fnn"])
def test_operations_of_a_fit_are_those_of_its_epochs_and_held_out_episodes(architecture):
    config = load(None, [*SMALL, f"influence.architecture={architecture}", "influence.epochs=2"])
    _, predictor = policy_and_predictor(config)
    with FlopCounterMode(display=False) as counter:
        for _ in range(2):  # epochs of 4 of the 5 episodes of 20 steps
            predictor.learn(20, 4)
        with torch.no_grad():
            predictor.forward(20, 1)
            predictor.forward(20, 1)
        assert fit_flop(config) == pytest.approx(counter.get_total_flops(), rel=1e-12)


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        ([], [6, 6, 6, 6]),
        (["influence.refit_epochs=2"], [4, 4, 4, 4]),  # 6 and 2
        (["influence.refit_epochs=2", "influence.start=first"], [4, 2, 2, 2]),
        (["influence.start=first"], [6, 6, 6, 6]),
        (["influence.refit_epochs=2", "influence.start=first", "retrain_every=256"], [6, 2, 2, 2]),
    ],
)
def test_epochs_of_a_refit_are_the_mean_over_those_of_the_run(words, epochs):
    """Two refits, but for the last case."""
    config = load(None, [*SMALL, "influence.epochs=6", *words])
    assert mean_epochs(config, create("warehouse", config.domain_section).regions) == epochs


@pytest.mark.quick
def test_the_papers_warehouse_costs_five_million_operations_per_agent_step():
    # By hand: policy 37 -> GRU 256 -> 128 -> 5, predictor 37 -> GRU 64 -> 64 -> 16.
    policy_in, state, policy_rest = 2 * 37 * 768, 2 * 256 * 768, 2 * (256 * 128 + 128 * 5)
    predictor = 2 * (37 * 192 + 64 * 192 + 64 * 64 + 64 * 16)
    forward = policy_in + state + policy_rest
    acting = forward * (1 + 1 / 8 + 1 / 100) + predictor
    learning = 2 * policy_in + (3 - 1 / 8) * state + 3 * policy_rest
    assert flop_per_agent_step(load(None)) == pytest.approx(acting + 3 * learning)
    assert 4.9e6 < acting + 3 * learning < 5.1e6


# Shares --------------------------------------------------------------------------------------------------


class Work:
    """Methods of known length, one of which calls another."""

    def outer(self):
        time.sleep(0.02)
        self.inner()
        time.sleep(0.02)

    def inner(self):
        time.sleep(0.08)

    def fails(self):
        raise KeyError("as it should")


class Derived(Work):
    """Its methods are Work's."""


@pytest.mark.quick
def test_a_parts_time_is_exclusive_and_all_parts_are_all_of_the_time():
    profile, originals = Profile(), dict(vars(Work))
    with profile.watching([Method(Work, "outer", "update"), Method(Derived, "inner", "adam")]):
        profile.take()
        start = time.perf_counter()
        Derived().outer()
        with profile("waiting"):
            time.sleep(0.04)
        spent = dict(zip(PARTS, profile.take(), strict=True))
        elapsed = time.perf_counter() - start
    assert sum(spent.values()) == pytest.approx(elapsed, abs=5e-3)
    assert spent["update"] >= 0.04
    assert spent["adam"] >= 0.08
    assert spent["waiting"] >= 0.04
    # What a part holds too much on a busy machine, another does not lack.
    assert all(spent[part] < 1e-3 for part in ("simulator", "predictor", "policy", "communication"))
    assert dict(vars(Work)) == originals
    assert "inner" not in vars(Derived)


def test_a_method_that_fails_gives_the_clock_back():
    profile = Profile()
    with profile.watching([Method(Work, "fails", "update")]), profile("policy"):
        with pytest.raises(KeyError):
            Work().fails()
        time.sleep(0.02)
    spent = dict(zip(PARTS, profile.take(), strict=True))
    assert spent["policy"] >= 0.02 > spent["update"]
    assert sum(shares(profile.take(), load(None)).values()) == pytest.approx(1)


# The program ---------------------------------------------------------------------------------------------


ALWAYS = {
    *("ranks", "training_ranks", "agents", "regions", "cores", "matmul_library"),
    *("agent_steps_per_second", "agent_steps_per_second_per_core", "flop_per_agent_step", "utilisation"),
    *("slowest_cpu_seconds_per_agent_step", "matmul_gflops", "memory_copy_gigabytes_per_second", "shares"),
    *("evaluate_cpu_seconds", "evaluate_cpu_microseconds_per_agent_step"),
    *("proportional_set_bytes", "proportional_set_bytes_of_root", "proportional_set_bytes_per_training_rank"),
    *("peak_resident_set_bytes_of_root", "peak_resident_set_bytes_of_a_training_rank"),
    *("checkpoint_bytes", "checkpoint_write_seconds", "checkpoint_plain_write_seconds"),
    *(
        "checkpoint_busiest_rank_write_cpu_seconds",
        "checkpoint_read_seconds",
        "checkpoint_share_of_plain_write",
    ),
    "checkpoint_growth_of_peak_memory_bytes",
}
WITH_PREDICTORS = {
    *("fit_cpu_seconds_per_region", "slowest_fit_cpu_seconds_per_region", "fit_flop_per_region"),
    *("fit_utilisation", "collect_cpu_seconds", "collect_cpu_microseconds_per_agent_step"),
}
IN_TRAFFIC = {"sumo_bare_steps_per_second", "sumo_ratio", "collect_ratio_to_bare_sumo"}


def bench(tmp_path, *arguments, ranks=None):
    """What the program printed, and the figures that it wrote."""
    file = tmp_path / "bench.json"
    command = ("-m", "dials_mpi.bench", *arguments, "--json", str(file))
    done = launch(*command, ranks=ranks, cwd=tmp_path, timeout=240)  # the first one compiles
    assert (done.code, done.stderr) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["bench.json"]
    return done.stdout, json.loads(file.read_text())


def test_agents_and_regions_are_counted_apart(tmp_path):
    _, figures = bench(tmp_path, *SMALL, "warehouse.block=[1,2]", "--updates", "2", "--project", ranks=2)
    assert (figures["agents"], figures["regions"], figures["training_ranks"]) == (4, 2, 1)
    fit = figures["fit_cpu_seconds_per_region"]
    assert fit == pytest.approx(figures["slowest_fit_cpu_seconds_per_region"])
    # All of four regions on workers of their own: the steps of two agents each, one after the other.
    steps = 2 * 256 * figures["slowest_cpu_seconds_per_agent_step"]
    assert figures["projection"]["4"]["train"] == pytest.approx(steps)


@pytest.mark.parametrize("ranks", [None, 3])
def test_the_program_writes_what_it_measured(tmp_path, ranks):
    printed, figures = bench(tmp_path, *SMALL, "--updates", "2", ranks=ranks)
    assert set(figures) == ALWAYS | WITH_PREDICTORS
    assert figures["ranks"] == (ranks or 1)
    assert figures["training_ranks"] == (2 if ranks else 1)
    assert figures["agent_steps_per_second_per_core"] > 0
    # Two workers that run side by side, or one after the other.
    several = figures["agent_steps_per_second"] / figures["agent_steps_per_second_per_core"]
    assert 0 < several < figures["training_ranks"] + 0.1
    assert 0 < figures["utilisation"] < 1
    assert 0 < figures["fit_utilisation"] < 1
    rate = figures["agent_steps_per_second_per_core"] * figures["flop_per_agent_step"]
    assert figures["utilisation"] == pytest.approx(rate / figures["matmul_gflops"] / 1e9)
    assert set(figures["shares"]) == set(PARTS) - {"sumo"}
    assert all(share > 0 for share in figures["shares"].values())
    assert sum(figures["shares"].values()) == pytest.approx(1)
    for name in set(figures) - {"shares"} | set(figures["shares"]):
        assert name in printed


def test_sumo_is_measured_too(tmp_path):
    _, figures = bench(tmp_path, *TRAFFIC, "--updates", "2")
    assert set(figures) == ALWAYS | WITH_PREDICTORS | IN_TRAFFIC
    ratio = figures["agent_steps_per_second_per_core"] / figures["sumo_bare_steps_per_second"]
    assert figures["sumo_ratio"] == pytest.approx(ratio)
    assert 0 < ratio < 1 < figures["collect_ratio_to_bare_sumo"]
    assert set(figures["shares"]) == set(PARTS)
    assert figures["shares"]["sumo"] > 0
    assert sum(figures["shares"].values()) == pytest.approx(1)


def test_a_city_is_compared_with_sumo_alone(tmp_path):
    given, folder = busy(), tmp_path / "here"
    folder.mkdir()
    files = [f"city.network={given.network}", f"city.routes=[{given.routes[0]}]", 'city.scenario=""']
    window = ["city.begin=100", "city.end=160", "dataset_size=120", "evaluation_episodes=1"]
    small = ["ppo.memory_size=12", "ppo.minibatch_size=12", "ppo.rollout_steps=6", "envs_per_region=2"]
    small += ["policy.sequence_length=6"]
    schedule = ["total_steps=120", "evaluate_every=60", "retrain_every=60"]
    _, figures = bench(folder, "domain=city", *files, *window, *small, *schedule, "--updates", "1")
    assert 1 < figures["collect_ratio_to_bare_hour"] < 50
    assert 0 < figures["local_share_of_bare_stepping_8_copies"] < 1
    assert set(figures) > ALWAYS | WITH_PREDICTORS


def test_networks_in_pytorch_are_measured_beside_the_built_in_ones(tmp_path):
    printed, figures = bench(tmp_path, *SMALL, "--updates", "2", "--torch")
    added = {name for name in figures if name.startswith("torch_")}
    assert set(figures) - added == ALWAYS | WITH_PREDICTORS
    ratio = figures["torch_agent_steps_per_second_per_core"] / figures["agent_steps_per_second_per_core"]
    assert figures["torch_ratio_to_built_in"] == pytest.approx(ratio)
    assert 0 < ratio < 1  # at these sizes eager PyTorch is several times slower
    assert figures["torch_speed_of_equal_networks_together"] > 0
    assert figures["torch_added_memory_bytes_per_training_rank"] > 20e6  # the library alone takes more
    assert "networks in PyTorch" in printed


def test_agents_of_the_global_simulator_are_measured_without_predictors(tmp_path):
    _, figures = bench(tmp_path, *SMALL, "mode=global", "--updates", "1", "--matmul", "numpy", ranks=2)
    assert set(figures) == ALWAYS
    assert figures["matmul_library"] == "numpy"
    assert figures["shares"]["predictor"] == 0
    assert figures["shares"]["simulator"] > 0


def test_only_as_many_ranks_as_cores_load_torch(tmp_path):
    """It takes memory that a hundred ranks do not have."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import atexit, sys\n"
        "from dials_mpi.bench import measure\n"
        "from dials_mpi.bench.__main__ import main\n"
        "measure._cores = lambda: 1\n"
        "ranks = []\n"
        "before = measure.measure\n"
        "measure.measure = lambda config, own, *rest: ranks.append(own.rank) or before(config, own, *rest)\n"
        "atexit.register(lambda: open(f'modules{ranks[0]}', 'w').write(' '.join(sys.modules)))\n"
        "main(sys.argv[1:])\n"
    )
    done = launch(str(driver), *SMALL, "--updates", "1", ranks=3, cwd=tmp_path, timeout=240)
    assert (done.code, done.stderr) == (0, "")
    loaded = ["torch" in (tmp_path / f"modules{rank}").read_text().split() for rank in range(3)]
    assert loaded == [False, True, False]


@pytest.mark.parametrize("tiles", [1, 5])
def test_local_junctions_are_measured_beside_sumos_own_stepping(tiles):
    rate, bare = throughput(Traffic(TrafficConfig(horizon=30)), tiles, seconds=0.2)
    assert 0 < rate < bare < 1e7


def test_resets_leave_nothing_behind():
    """A leak of one vehicle's parameters, some hundred bytes, per vehicle would be far more than this."""
    domain = Traffic(TrafficConfig())
    reset_often(domain, 10)
    before = own_memory()
    reset_often(domain, 60)
    assert own_memory() - before < 1e6


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--updates", "0"], "--updates is 0"),
        (["ppo.clipp=1"], "ppo.clipp"),
        (["--json", "no/file"], "no/file"),
        (["--json", "."], "is a folder"),
        (["--folder", "none"], "--folder none"),
        (["--tiles"], "--tiles"),
        (["--torch", "policy.architecture=torch:gru"], "policy.architecture is 'torch:gru'"),
        (["--compare", "run"], "--project"),
        (["--regions", "4"], "--project"),
        (["run"], "--project"),
        (["--project", "nowhere"], "no run.h5 in nowhere"),
        (["--project", "--compare", "nowhere"], "no run.h5 in nowhere"),
        (["--project", "--regions", "0"], "--regions is 0"),
        (["--project", "--regions", "4,,9"], "--regions is 4,,9"),
        (["--project", "--regions", "4,99999999"], "--regions"),
        (["--project", "mode=global"], "mode is global"),
        (["domain=traffic", "policy.architecture=fnn", "traffic.sumo=traci", "dataset_size=9900"], "traci"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, words):
    done = launch("-m", "dials_mpi.bench", *arguments, cwd=tmp_path)
    assert done.code == 2
    assert len(done.stderr.splitlines()) == len(done.ours()) == 1
    assert words in done.stderr


def test_bad_input_on_three_ranks_is_roots_one_sentence(tmp_path):
    done = launch("-m", "dials_mpi.bench", "--project", "nowhere", ranks=3, cwd=tmp_path)
    assert done.code == 2
    assert len(done.ours()) == 1
