"""Learners of the user's own: a whole run with one, its files, what it is given, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL, content, generators, launch, train

from dials_mpi.algorithm.failures import Failures
from dials_mpi.algorithm.ials import IALS
from dials_mpi.algorithm.own import AgentEnvironment, OwnAgent
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import create
from dials_mpi.domains.base import Agent, SimulatorFailure
from dials_mpi.learning import learner
from dials_mpi.learning.influence import Predictor

ROOT = Path(__file__).parents[1]
HERE = str(Path(__file__).parent)
LONGER = ("segment_every=128", "evaluate_every=256", "retrain_every=256", "total_steps=512")
OWN = (*SMALL, *LONGER, "learner=own_learner:Linear")
TIMES = re.compile(r"timing/|memory/|events/|placement/|config|evaluation/wall_time|unrecorded|rank$")
"""Datasets that differ from run to run."""

STOPPER = """
from dials_mpi.run.sinks import Sink

class Stopper(Sink):
    def on_segment_end(self, run):
        if run.env_steps == 384:
            run.stop()
"""


@pytest.fixture(autouse=True)
def own_learner_is_found(monkeypatch):
    monkeypatch.syspath_prepend(HERE)
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{ROOT}")


def results(file: Path) -> dict[str, bytes]:
    """Every dataset that must be equal in equal runs, as bytes."""
    found = {name: value for name, value in content(file).items() if not TIMES.match(name)}
    return {name: repr(v).encode() if v.dtype == object else v.tobytes() for name, v in found.items()}


# Runs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [3, 5])
def test_any_number_of_ranks_gives_the_same_results(trained, ranks):
    alone, many = trained(*OWN), trained(*OWN, ranks=ranks)
    for name in ("run.h5", "checkpoint-512.h5"):
        assert results(alone / name) == results(many / name)


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_a_stopped_run_continues_as_if_it_had_not_been(trained, schedule, tmp_path):
    """Stopped at 384 steps on three ranks, resumed from the checkpoint before, on one."""
    settings = (*OWN, f"schedule={schedule}", "checkpoint_keep=9")
    (tmp_path / "stopper.py").write_text(STOPPER)
    environment = {"PYTHONPATH": f"{tmp_path}:{HERE}:{ROOT}"}
    output = tmp_path / "out"
    first = train(
        *settings, "sinks=[stopper:Stopper]", "--output", str(output), ranks=3, environment=environment
    )
    assert first.code == 75 and first.ours() == []
    (output / "checkpoint-384.h5").unlink()
    second = train(*settings, "sinks=[]", "--output", str(output), "--resume")
    assert (second.code, second.stderr) == (0, "")
    whole = trained(*settings)
    for name in ("run.h5", "checkpoint-512.h5"):
        assert results(output / name) == results(whole / name)


def test_the_files_hold_its_figures_parameters_and_state(trained):
    run = trained(*OWN)
    found = content(run / "run.h5")
    assert {name for name in found if name.startswith("training/")} == {
        f"training/{name}" for name in ("env_steps", "episode_return", "segments", "unused")
    }
    assert found["training/segments"].tolist() == [[k] * 4 for k in (1, 2, 3, 4)]
    assert np.isnan(found["training/unused"]).all()
    (table,) = found["policy/tables"]
    names = [name for name, _ in json.loads(table)]
    assert names == ["weights", "bias"]
    agent = create("warehouse", load(None, [*OWN]).domain_section).agents[0]
    cells = agent.observation_size * agent.actions
    kept = content(run / "checkpoint-512.h5")
    assert kept["policy/parameters"].shape == (4, cells + 1)
    state = kept["policy/learner"]
    assert state.dtype == np.uint8 and state.shape == (4, 8 * cells + 8)
    assert state[:, -8:].copy().view(np.int64).ravel().tolist() == [4, 4, 4, 4]


def test_its_policies_are_evaluated_and_exported(trained, tmp_path):
    run = trained(*OWN)
    again = launch("-m", "dials_mpi.evaluate", str(run), "--episodes", "2", "--checkpoint", "newest")
    assert (again.code, again.stderr) == (0, "")
    out = tmp_path / "all.npz"
    done = launch("-m", "dials_mpi.export", str(run), "--all", "--out", str(out))
    assert (done.code, done.stderr) == (0, "")
    exported, stored = np.load(out), content(run / "run.h5")["policy/parameters"]
    for i in range(4):
        assert exported[f"{i}/weights"].ravel().tolist() == stored[i, :-1].tolist()
    assert json.loads(str(exported["description"]))["learner"] == "own_learner:Linear"
    single = launch("-m", "dials_mpi.export", str(run), "--agent", "0", "--out", str(tmp_path / "one.pt"))
    assert single.code == 2 and "export their parameters with --all" in single.stderr


def test_it_learns_in_a_domain_of_unequal_agents(tmp_path):
    """The line of examples/relays, where the reward of a decision comes at once."""
    environment = {"PYTHONPATH": f"{HERE}:{ROOT}:{ROOT / 'examples' / 'relays'}"}
    settings = ("total_steps=12_800", "evaluate_every=6400", "retrain_every=6400", "dataset_size=400")
    done = train(
        *("--config", str(ROOT / "examples" / "relays" / "relays.yaml"), *settings, "influence.epochs=2"),
        *("learner=own_learner:Linear", "learner_arguments={rate: 0.2}", "--output", str(tmp_path / "out")),
        environment=environment,
    )
    assert (done.code, done.stderr) == (0, "")
    with h5py.File(tmp_path / "out" / "run.h5") as file:
        returns, random = file["evaluation/returns"][:].mean(axis=(1, 2)), file["reference/random"][:].mean()
    assert returns[-1] > random + 0.5 * (file_best(tmp_path / "out") - random)


def file_best(run: Path) -> float:
    """The mean return of the hand-coded policy."""
    with h5py.File(run / "run.h5") as file:
        return float(file["reference/longest"][:].mean())


# What a learner is given ---------------------------------------------------------------------------------

CONFIG = load(None, [*SMALL, "learner=own_learner:Linear", "envs_per_region=4", "warehouse.horizon=20"])
DOMAIN = create("warehouse", CONFIG.domain_section)
ENVS = 4


def local(seed: int = 0) -> IALS:
    """A local simulator of region 1 with an untrained predictor; equal at every call."""
    predictor = Predictor(CONFIG.influence, DOMAIN.regions[1])
    predictor.network.initialise(np.random.default_rng(7))
    simulator, sources = generators(2, seed)
    return IALS(DOMAIN.local_simulator([1], ENVS, [simulator]), [predictor], ENVS, [sources])


def environment_of(simulators, steps: int = 400) -> AgentEnvironment:
    return AgentEnvironment(simulators, DOMAIN, DOMAIN.agents[1], ENVS, steps, Failures())


def test_the_environment_is_the_local_simulator():
    """Against the simulator itself, which is started anew where an episode ends."""
    environment, plain = environment_of(local()), local()
    elapsed = np.array([0, 5, 10, 15])
    expected = plain.reset(elapsed=elapsed)[0]
    seen, total, ended = environment.reset(), np.zeros(ENVS), []
    whole = elapsed == 0
    for actions in np.random.default_rng(1).integers(DOMAIN.agents[1].actions, size=(60, ENVS)):
        assert seen.dtype == np.float32 and np.array_equal(seen, expected)
        step, outcome = environment.step(actions), plain.step(actions[None])
        assert np.array_equal(step.final, outcome.observations[0])
        assert np.array_equal(step.rewards, outcome.rewards[0]) and np.array_equal(step.done, outcome.done)
        total += outcome.rewards[0]
        ended += total[outcome.done & whole].tolist()
        total[outcome.done], whole = 0, whole | outcome.done
        expected = (plain.reset(where=outcome.done) if outcome.done.any() else outcome.observations)[0]
        seen = step.observations
    assert environment.left == 400 - 60 * ENVS
    assert len(ended) == 9 and environment.returns.means()[0] == pytest.approx(np.mean(ended))


@pytest.mark.parametrize(
    "actions", [[0, 0, 0], [0, 0, 0, 4], [0, 0, 0, -1], [0.0] * 4, [[0]] * 4, None, [True] * 4]
)
def test_other_actions_are_refused(actions):
    environment = environment_of(local())
    environment.reset()
    with pytest.raises(ValueError, match="give 4 integers from 0 to"):
        environment.step(actions)


def test_a_segment_has_its_steps_and_begins_with_a_reset():
    environment = environment_of(local(), steps=8)
    with pytest.raises(RuntimeError, match="call reset first"):
        environment.step(np.zeros(ENVS, int))
    environment.reset()
    for _ in range(2):
        environment.step(np.zeros(ENVS, int))
    with pytest.raises(RuntimeError, match="all steps of this segment are taken"):
        environment.step(np.zeros(ENVS, int))


class Failing:
    """Simulators that fail at one of their steps."""

    def __init__(self, inner: IALS, at: int) -> None:
        self.inner, self.left = inner, at

    def reset(self, where=None, elapsed=None):
        return self.inner.reset(where, elapsed)

    def step(self, actions):
        self.left -= 1
        if not self.left:
            raise SimulatorFailure("it fell over")
        return self.inner.step(actions)


def test_a_failure_ends_all_episodes(capsys):
    environment = environment_of(Failing(local(), at=3))
    before = environment.reset()
    for _ in range(2):
        before = environment.step(np.zeros(ENVS, int)).observations
    step = environment.step(np.zeros(ENVS, int))
    assert step.done.all() and not step.rewards.any() and np.array_equal(step.final, before)
    assert environment.failures.take() == 1 and "it fell over" in capsys.readouterr().err
    assert not environment.step(np.zeros(ENVS, int)).done.any()


class Lazy:
    """Leaves out a step."""

    def __init__(self, task, rng):
        self.parameters, self.state = {"w": np.zeros((2, 3), np.float32)}, {}

    def act(self, observations, state, uniforms):
        return np.zeros(len(observations), int), state

    def learn(self, environment, steps, rng):
        environment.reset()


class Mixed(Lazy):
    """Arrays of several types and shapes."""

    def __init__(self, task, rng):
        super().__init__(task, rng)
        self.parameters["bias"] = rng.random(3, dtype=np.float32)
        self.state = {"flag": np.array(True), "n": np.arange(3, dtype=np.int16), "m": rng.random((2, 2))}


def configured(name: str):
    return replace(CONFIG, learner=f"{__name__}:{name}")


def test_steps_that_are_left_out_are_a_mistake():
    agent = OwnAgent(configured("Lazy"), DOMAIN.agents[1])
    with pytest.raises(RuntimeError, match="learn of Lazy has left out 400 steps"):
        agent.learn(environment_of(local()), np.random.default_rng(0))


def test_parameters_and_state_come_back_from_their_rows():
    one, other = (
        OwnAgent(configured("Mixed"), DOMAIN.agents[0], rng=np.random.default_rng(k)) for k in (1, 2)
    )
    one.learner.state["n"][:] = 7
    one.learner.parameters["w"][:] = 0.5
    for part, row in one.state().items():
        other.restore(part, np.concatenate([row, np.zeros(9, row.dtype)]))
    for member in ("parameters", "state"):
        mine, theirs = getattr(one.learner, member), getattr(other.learner, member)
        assert list(mine) == list(theirs)
        for name, array in mine.items():
            assert np.array_equal(array, theirs[name]) and array.dtype == theirs[name].dtype
            assert theirs[name].shape == array.shape and theirs[name].flags.writeable


# Refusals ------------------------------------------------------------------------------------------------


class WithoutLearn:
    parameters, state, act = {}, {}, None

    def __init__(self, task, rng):
        pass


class NoWeights(Lazy):
    def __init__(self, task, rng):
        self.parameters, self.state = {}, {}


class Doubles(Lazy):
    def __init__(self, task, rng):
        self.parameters, self.state = {"w": np.zeros(2)}, {}


class Texts(Lazy):
    def __init__(self, task, rng):
        self.parameters, self.state = {"w": np.zeros(2, np.float32)}, {"name": np.array("x")}


class Taken(Lazy):
    metrics = ("episode_return",)


class Breaks(Lazy):
    def __init__(self, task, rng):
        raise ZeroDivisionError("by\nzero")


class ReadOnly(Lazy):
    """Its parameters cannot be assigned, so that a run could not be resumed."""

    def __init__(self, task, rng):
        self.state = {}

    @property
    def parameters(self):
        return {"w": np.zeros(2, np.float32)}


class ActsAlone(Lazy):
    def act(self, observations, state, uniforms):
        return np.zeros(len(observations), int)


class OtherActions(Lazy):
    def act(self, observations, state, uniforms):
        return np.full(len(observations), 2), state


class Unnamed(Lazy):
    """Returns a metric that it does not name."""

    metrics = ("policy_loss",)

    def learn(self, environment, steps, rng):
        return {"policy_los": 1.0}


def test_a_metric_without_a_name_is_a_mistake():
    agent = OwnAgent(configured("Unnamed"), DOMAIN.agents[1])
    with pytest.raises(
        RuntimeError, match="learn of Unnamed returned 'policy_los', which is not in its metr"
    ):
        agent.learn(environment_of(local()), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Nothing", "has no class Nothing"),
        ("Lasy", "has no class Lasy: did you mean Lazy?"),
        ("ReadOnly", "fails when its parameters are assigned and it acts (AttributeError"),
        ("ActsAlone", "act of ActsAlone returns a ndarray: return (actions, state)"),
        ("OtherActions", "the actions are array([2, 2, 2]): give 3 integers from 0 to 1"),
        ("WithoutLearn", "WithoutLearn has no learn, which every learner needs"),
        ("NoWeights", "parameters of NoWeights is empty"),
        (
            "Doubles",
            "of Doubles is not a dictionary of names and float32 arrays, since w is of type float64",
        ),
        ("Texts", "state of Texts is not a dictionary of names and arrays of numbers, since"),
        ("Taken", "names a metric 'episode_return'"),
        ("Breaks", "ZeroDivisionError: by zero"),
    ],
)
def test_what_is_no_learner_is_refused_in_a_sentence(name, said):
    with pytest.raises(BadInput) as refusal:
        learner.sizes(configured(name), Agent(3, 2))
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_an_entry_point_gives_a_learner_a_name(tmp_path, monkeypatch):
    info = tmp_path / "learners-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: learners\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[dials_mpi.learners]\nlinear = own_learner:Linear\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert learner.find("linear").__name__ == "Linear"
    with pytest.raises(BadInput, match=r"learner is 'line': choose from ppo, .*, linear, or name a class"):
        learner.find("line")


REFUSED = {
    "argument": (["learner=own_learner:Linear", "learner_arguments={rat: 1}"], "argument 'rat'"),
    "unknown": (["learner=dqn"], "learner is 'dqn': choose from ppo, sb3:PPO"),
    "blocks": (
        ["learner=own_learner:Linear", "warehouse.block=[2,1]"],
        "region 0 has 2 agents, which only learner=ppo trains together",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_refuses_it_before_it_begins(name, tmp_path):
    words, said = REFUSED[name]
    output = tmp_path / "out"
    done = train(*SMALL, *words, "--output", str(output), ranks=3)
    assert done.code == 2 and len(done.ours()) == 1 and said in done.ours()[0]
    assert "Traceback" not in done.stderr and not output.exists()


def test_the_bench_measures_the_built_in_learner_only():
    done = launch("-m", "dials_mpi.bench", *SMALL, "learner=own_learner:Linear")
    assert done.code == 2 and "the bench measures learner=ppo only" in done.stderr


@pytest.mark.parametrize("name", ["sb3:A2C", "sb3-contrib:TRPO"])
def test_a_run_without_stable_baselines_names_the_extra(name, monkeypatch):
    for package in ("stable_baselines3", "sb3_contrib"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "dials_mpi.learning.sb3", raising=False)
    with pytest.raises(BadInput, match=r"pip install 'dials_mpi\[sb3\]'"):
        learner.find(name)
