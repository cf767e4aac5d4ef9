"""One policy for several agents: the mean of gradients, updates against autograd, whole runs, refusals."""

from __future__ import annotations

import math
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from city_common import settings as city_settings
from conftest import SMALL, launch, train
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ppo import AGENT, SETUPS, Recording, as_tensors, plain_loss, watch_loss
from test_ranks import differing, results
from torch_twin import TorchTwin, assert_close
from unequal_domain import Unequal, UnequalConfig

from dials_mpi import config as c
from dials_mpi.algorithm.learners import Learners, NonFinite
from dials_mpi.algorithm.networks import require_networks
from dials_mpi.config import load
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput
from dials_mpi.core.timing import PHASES, Stopwatch
from dials_mpi.domains import create
from dials_mpi.learning.adam import Adam
from dials_mpi.learning.ppo import PPO
from dials_mpi.learning.sharing import Alone, SharedPolicies
from dials_mpi.run.sharing import require_simulators

ROOT = Path(__file__).parents[1]
RELAYS = {"PYTHONPATH": f"{ROOT}:{ROOT / 'examples' / 'relays'}"}

# The mean of gradients -----------------------------------------------------------------------------------


class Threads:
    """Ranks that are threads: arrays are reduced where all of them have come to."""

    def __init__(self, count: int) -> None:
        self.barrier, self.arrays = threading.Barrier(count, timeout=20), {}

    def reduce(self, numbers: np.ndarray, how: np.ufunc) -> None:
        self.arrays[threading.get_ident()] = numbers.copy()
        self.barrier.wait()
        found = how.reduce(list(self.arrays.values()))
        self.barrier.wait()
        numbers[:] = found

    def maximum(self, numbers: np.ndarray) -> None:
        self.reduce(numbers, np.maximum)

    def total(self, numbers: np.ndarray) -> None:
        self.reduce(numbers, np.add)


def means(gradients: np.ndarray, kinds: list[int], ranks: list[list[int]]) -> dict[int, np.ndarray]:
    """The gradient that each policy's optimiser gets, the same on all of these ranks, which hold agents."""
    exchange, size = Threads(len(ranks)), gradients.shape[1]
    found: list[dict[int, np.ndarray]] = []

    def run(own: list[int]) -> None:
        optimisers = {
            kinds[i]: Adam(np.zeros(size, np.float32), np.zeros(size, np.float32), 1e-8) for i in own
        }
        shared = SharedPolicies(kinds, [size] * len(kinds), optimisers, exchange)
        shared.descend({i: gradients[i] for i in own}, c.PPO(), 0.0)
        found.append({kind: optimiser.gradient for kind, optimiser in optimisers.items()})

    threads = [threading.Thread(target=run, args=(own,)) for own in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(ranks)
    together: dict[int, np.ndarray] = {}
    for each in found:
        for kind, mean in each.items():
            assert np.array_equal(together.setdefault(kind, mean), mean, equal_nan=True)
    return together


@settings(max_examples=40, deadline=None)
@given(data=st.data(), agents=st.integers(1, 9), seed=st.integers(0, 2**31))
def test_the_mean_is_that_of_fsum_on_any_ranks(data, agents, seed):
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.integers(-30, 30, (agents, 1)) if data.draw(st.booleans()) else 1e-3
    gradients = (rng.normal(size=(agents, 20)) * scales * 10.0 ** rng.integers(-6, 1, 20)).astype(np.float32)
    gradients[:, 0] = 0
    first = [min(i, data.draw(st.integers(0, 2))) for i in range(agents)]
    kinds = [first.index(kind) for kind in first]
    place = [data.draw(st.integers(0, 3)) for _ in range(agents)]
    ranks = [own for rank in range(4) if (own := [i for i in range(agents) if place[i] == rank])]
    found = means(gradients, kinds, ranks)
    alone = means(gradients, kinds, [list(range(agents))])
    for kind, mean in found.items():
        assert mean.tobytes() == alone[kind].tobytes()
        members = gradients[[i for i in range(agents) if kinds[i] == kind]].astype(float)
        exact = np.array([math.fsum(column) for column in members.T]) / len(members)
        error = 2.0**-24 * abs(exact) + 2.0**-55 * abs(members).max() + 1e-45
        assert (abs(mean - exact) <= error).all() and mean[0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_mean_with_a_number_that_is_not_finite_is_not_finite(bad):
    gradients = np.ones((3, 4), np.float32)
    gradients[1, 2] = bad
    for ranks in ([[0, 1, 2]], [[0, 2], [1]], [[2], [1], [0]]):
        found = means(gradients, [0, 0, 2], ranks)
        assert np.isnan(found[0]).all() and (found[2] == 1).all()


# An update -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setup", "norm"), [(SETUPS["gru"], 0.7), (SETUPS["fnn"], 0.0)], ids=["gru", "fnn"])
def test_updates_agree_with_autograd_on_the_mean_of_the_losses(setup, norm, monkeypatch):
    """Three agents with memories of their own; torch's Adam in double precision steps along their mean."""
    policy = c.Policy(setup.architecture, (12, 10), setup.sequence, share="all")
    config = c.PPO(
        rollout_steps=setup.rollout,
        memory_size=setup.memory,
        minibatch_size=setup.minibatch,
        learning_rate=3e-3,
        clip=0.2,
        max_gradient_norm=norm,
    )
    leader = PPO(policy, config, AGENT, setup.envs)
    leader.policy.network.initialise(np.random.default_rng(0))
    vector = leader.policy.network.vector
    optimiser = Adam(vector, np.zeros_like(vector), config.adam_epsilon)
    agents = {i: PPO(policy, config, AGENT, setup.envs, optimiser) for i in range(3)}
    twin = TorchTwin(leader.policy.network)
    reference = torch.optim.Adam(twin.parameters(), lr=3e-3, eps=config.adam_epsilon)
    learners = Learners.__new__(Learners)
    learners.agents, learners.config = agents, SimpleNamespace(ppo=config, own_learner=False)
    learners.shared = SharedPolicies([0] * 3, [vector.size] * 3, {0: optimiser}, Alone())
    seen = watch_loss(monkeypatch)
    lengths = []
    for agent in agents.values():
        agent.begin_segment(np.random.default_rng(1), np.random.default_rng(2))
    recordings = {i: Recording(agent, seed=i) for i, agent in agents.items()}
    for recording in recordings.values():
        recording.fill()
    observations = {i: recording.observations for i, recording in recordings.items()}
    learners._update(observations, segments(load(None, [*SMALL]))[0], progress=0.0)
    assert len(seen) == 3 * config.epochs * setup.memory // setup.minibatch
    for first in range(0, len(seen), 3):
        losses = []
        for part in seen[first : first + 3]:
            batch = as_tensors(part.batch)
            losses.append(
                plain_loss(twin(batch.observations, batch.state, batch.keep), batch, config, 0.2)[0]
            )
        reference.zero_grad()
        torch.stack(losses).mean().backward()
        lengths.append(float(torch.nn.utils.clip_grad_norm_(twin.parameters(), norm or torch.inf)))
        reference.step()
    assert max(lengths) > 0.7
    assert_close(vector, twin.flat(), 1e-4)
    assert all(agent.policy.network.vector.base is vector for agent in agents.values())


# Whole runs ----------------------------------------------------------------------------------------------

SHARED = (*SMALL, "policy.share=all")
KINDS = (
    *("--config", str(ROOT / "examples" / "relays" / "relays.yaml"), "policy.share=kind"),
    *("ppo.anneal=false", "total_steps=256", "evaluate_every=128", "retrain_every=128", "dataset_size=400"),
    *("evaluation_episodes=2", "influence.epochs=1", "policy.hidden=[16,8]", "ppo.max_gradient_norm=0.5"),
)


def shared_rows(directory: Path, names: tuple[str, ...]) -> list[list[int]]:
    """The agents in groups that have equal rows in all these datasets of a file; rows are trained."""
    groups: dict[bytes, list[int]] = {}
    with h5py.File(directory) as file:
        arrays = [file[name][:] for name in names]
    for i in range(len(arrays[0])):
        groups.setdefault(b"".join(array[i].tobytes() for array in arrays), []).append(i)
    return list(groups.values())


STATE = ("policy/parameters", "policy/first_moment", "policy/second_moment", "policy/adam_steps")


@pytest.mark.parametrize("ranks", [3, 5])
def test_agents_share_one_policy_on_any_ranks(trained, ranks):
    alone, many = trained(*SHARED), trained(*SHARED, ranks=ranks)
    assert differing(results(alone), results(many)) == []
    assert shared_rows(many / "run.h5", STATE[:1]) == [[0, 1, 2, 3]]
    assert shared_rows(many / "checkpoint-256.h5", STATE) == [[0, 1, 2, 3]]
    apart = trained(*SMALL)
    assert shared_rows(apart / "run.h5", STATE[:1]) == [[0], [1], [2], [3]]


@pytest.mark.parametrize(
    "more", [("mode=global",), ("schedule=overlapped", "ppo.anneal=false")], ids=lambda more: more[0]
)
def test_so_they_do_in_other_modes(trained, more):
    alone, many = trained(*SHARED, *more), trained(*SHARED, *more, ranks=3)
    assert differing(results(alone), results(many)) == []
    assert shared_rows(alone / "run.h5", STATE[:1]) == [[0, 1, 2, 3]]


def relays(output: Path, *more: str, ranks: int | None = None) -> Path:
    done = train(*KINDS, *more, "--output", str(output), ranks=ranks, environment=RELAYS)
    assert (done.code, done.stderr) == (0, "")
    return output


def test_each_kind_has_its_policy_on_any_ranks_and_after_a_stop(tmp_path):
    """Nodes with different numbers of queues; the run in two parts is on other ranks in each."""
    whole = relays(tmp_path / "whole")
    found = shared_rows(whole / "checkpoint-256.h5", STATE)
    with h5py.File(whole / "run.h5") as file:
        tables = file["policy/table_of"][:].tolist()
    expected = [[i for i in range(6) if tables[i] == table] for table in dict.fromkeys(tables)]
    assert found == expected and 1 < len(found) < 6
    assert differing(results(whole), results(relays(tmp_path / "five", ranks=5))) == []
    parts = tmp_path / "parts"
    relays(parts, "total_steps=128", ranks=3)
    relays(parts, "--resume", ranks=2)
    assert differing(results(whole), results(parts)) == []


def test_time_of_exchanges_counts_as_waiting_and_communication(trained):
    """Those of three ranks at 48 minibatches take longer than the few others of a segment."""
    with h5py.File(trained(*SHARED, ranks=3) / "run.h5") as file:
        shared = {name: file[f"timing/{name}"][:, 1:, 0].sum() for name in PHASES}
    assert shared["communicate"] > 0 and shared["wait"] > 0 and shared["train"] > 0
    watch = Stopwatch()
    with watch("train"):
        time.sleep(0.01)
        with watch("wait"):
            time.sleep(0.03)
        with watch("wait"), watch("communicate"):
            time.sleep(0.02)
    seconds = dict(zip(PHASES, watch.take()[:, 0], strict=True))
    for phase, expected in (("train", 0.01), ("wait", 0.03), ("communicate", 0.02), ("evaluate", 0)):
        assert expected <= seconds[phase] < expected + 0.009


def test_policies_begin_as_that_of_the_first_agent_of_their_kind():
    domain = Unequal(UnequalConfig())
    unequal = load(None, ["domain=unequal_domain:Unequal", "policy.share=kind", "dataset_size=100"])
    config = load(None, [*SHARED])
    warehouse = create("warehouse", config.domain_section)
    first = Learners(load(None, [*SMALL]), warehouse, [0]).vectors("policy")[0]
    for regions in ([2], [1, 3]):
        found = Learners(config, warehouse, regions).vectors("policy")
        assert sorted(found) == regions and all(np.array_equal(first, own) for own in found.values())
    assert Learners(unequal, domain, [1, 2]).shared.kinds == [0, 1, 2, 3]


def test_a_gradient_that_is_not_finite_ends_the_run_with_its_agent(monkeypatch):
    config = load(None, [*SHARED])
    learners = Learners(config, create("warehouse", config.domain_section), [0, 1, 2, 3])
    network = learners.agents[2].policy.network
    plain = network.backward

    def backward(gradient):
        plain(gradient)
        network.gradient[5] = np.nan

    monkeypatch.setattr(network, "backward", backward)
    with pytest.raises(NonFinite, match="gradient of agent 2 is not finite in segment 0") as caught:
        learners.train(segments(config)[0])
    assert {"rewards", "policy/parameters"} <= set(caught.value.arrays)


# Simulators ----------------------------------------------------------------------------------------------

CROSSINGS = (
    *("domain=traffic", "traffic.grid=[1,2]", "traffic.horizon=20", "total_steps=128"),
    *("evaluate_every=128", "retrain_every=128", "dataset_size=40", "evaluation_episodes=1"),
    *("influence.epochs=1", "influence.hidden=[8,8]", "policy.hidden=[16,8]", "policy.share=all"),
)


def test_a_rank_trains_in_several_simulators_at_a_time():
    """Two regions of 16 environments are two simulations of SUMO; the grid's results are those of one."""
    config = load(None, [*CROSSINGS, "traffic.sumo=traci"])
    learners = Learners(config, create("traffic", config.domain_section), [0, 1])
    learners.train(segments(config)[0])
    wide = create("traffic", config.domain_section)
    wide.side_by_side = 1000
    together = Learners(config, wide, [0, 1])
    together.train(segments(config)[0])
    assert learners.vectors("policy")[0].tobytes() == together.vectors("policy")[1].tobytes()


@pytest.mark.parametrize(
    ("words", "ranks", "enough"),
    [
        ((), 1, 3),
        ((), 2, 3),
        (("global_ranks=2",), 1, 4),
        (("envs_per_region=8",), 1, None),  # both regions fit into one simulator
        ((), 3, None),
        (("policy.share=none",), 1, None),
        (("traffic.sumo=traci",), 1, None),
        (("mode=global",), 1, None),
    ],
)
def test_with_libsumo_a_rank_has_one_simulator(words, ranks, enough):
    config = load(None, [*CROSSINGS, "traffic.sumo=libsumo", *words])
    domain = create("traffic", config.domain_section)
    if not enough:
        require_simulators(config, domain, ranks)
        return
    said = rf"with mpirun -n {ranks} a rank .* use mpirun -n {enough}, or set traffic\.sumo=traci$"
    with pytest.raises(BadInput, match=said):
        require_simulators(config, domain, ranks)


@pytest.mark.parametrize(
    ("words", "ranks", "said"),
    [
        (
            ("domain=unequal_domain:Unequal", "dataset_size=100", "policy.share=all"),
            2,
            "agent 0 needs a policy of 3 inputs, 3 outputs and ",
        ),
        (("learner=own_learner:Linear", "policy.share=kind"), 2, "set policy.share=none, or learner=ppo"),
        ((*CROSSINGS, "traffic.sumo=libsumo"), 2, "use mpirun -n 3, or set traffic.sumo=traci"),
        (("policy.share=some",), None, "policy.share"),
    ],
    ids=["unequal", "learner", "simulators", "value"],
)
def test_refusals_are_one_sentence_of_root(tmp_path, words, ranks, said):
    done = launch(
        *("-m", "dials_mpi.train", *words, "--output", str(tmp_path / "out")),
        ranks=ranks,
        environment={"PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"},
    )
    assert done.code == 2 and len(done.ours()) == 1 and said in done.ours()[0]
    assert not (tmp_path / "out").exists()


def test_all_agents_can_share_a_network_whose_parameters_do_not_depend_on_the_junction():
    """Agents of unequal sizes, and a module with equal parameters for all of them."""
    words = ["domain=unequal_domain:Unequal", "policy.architecture=torch_modules:Anyone", "policy.share=all"]
    more = ["envs_per_region=8", "dataset_size=100", "influence.hidden=[8,8]", "total_steps=128"]
    config = load(None, [*words, *more, "evaluate_every=128", "retrain_every=128"])
    domain = create(config.domain, config.domain_section)
    require_networks(config, domain)
    learners = Learners(config, domain, [0, 1, 2])
    learners.train(segments(config)[0])
    vectors = learners.vectors("policy")
    assert all(np.array_equal(vectors[0], vectors[i]) for i in range(4))
    first = Learners(config, domain, [0]).vectors("policy")[0]
    assert not np.array_equal(first, vectors[0])


@pytest.mark.slow
def test_a_city_gives_the_same_results_in_one_process_as_in_one_for_each_region(trained):
    """Four signals: four simulations of SUMO beside one process, or one inside each of four."""
    words = city_settings(
        *("mode=dials", "envs_per_region=2", "policy.share=kind"),
        *("influence.epochs=1", "influence.hidden=[8,8]"),
    )
    alone = trained(*words, "city.sumo=traci")
    many = trained(*words, "city.sumo=libsumo", ranks=5)
    assert differing(results(alone), results(many)) == []
    assert shared_rows(many / "run.h5", STATE[:1]) == [[0, 1, 2, 3]]
