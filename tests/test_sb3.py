"""Algorithms of Stable-Baselines3 as learners: what they learn, how they continue, and what is refused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL, Program, content, train
from test_city_runs import QUICK, city  # noqa: F401  (a fixture)
from test_learners import LONGER, STOPPER, results

from dials_mpi.learning.learner import Step, Task

torch = pytest.importorskip("torch")
pytest.importorskip("stable_baselines3")

from dials_mpi.learning import sb3  # noqa: E402

ENVS, SIZE, HORIZON = 4, 3, 8
TASK = Task(observation_size=SIZE, actions=SIZE, environments=ENVS, update_steps=32, total_steps=640)
FAST: dict[str, dict] = {
    "sb3:PPO": {"batch_size": 16, "n_epochs": 4, "learning_rate": 3e-3},
    "sb3:A2C": {"learning_rate": 3e-3},
    "sb3:DQN": {"learning_starts": 40, "buffer_size": 400, "learning_rate": 3e-3, "gradient_steps": 4},
    "sb3-contrib:RecurrentPPO": {"batch_size": 16, "n_epochs": 2, "policy_kwargs": {"lstm_hidden_size": 8}},
    "sb3-contrib:QRDQN": {"learning_starts": 40, "buffer_size": 400},
    "sb3-contrib:TRPO": {"batch_size": 16},
}


def has_contrib() -> bool:
    try:
        import sb3_contrib  # noqa: F401
    except ImportError:
        return False
    return True


VARIANTS = ("sb3:A2C", "sb3-contrib:QRDQN", "sb3-contrib:TRPO")
"""Algorithms that are like another one, for this package."""


def marks(name: str) -> list[pytest.MarkDecorator]:
    missing = "contrib" in name and not has_contrib()
    skipped = pytest.mark.skipif(missing, reason="no sb3_contrib")
    return [skipped, *([pytest.mark.slow] if name in VARIANTS else [])]


ALGORITHMS = [pytest.param(name, marks=marks(name)) for name in FAST]


class Matching:
    """Agents see a one-hot cell and are paid for naming it; episodes of HORIZON steps, started apart."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.paid, self.steps = np.random.default_rng(seed), [], 0

    def reset(self) -> np.ndarray:
        self.clock = np.arange(ENVS) * 2
        return self._show()

    def _show(self) -> np.ndarray:
        self.cells = self.rng.integers(SIZE, size=ENVS)
        return np.eye(SIZE, dtype=np.float32)[self.cells]

    def step(self, actions: np.ndarray) -> Step:
        rewards = (np.asarray(actions) == self.cells).astype(np.float32)
        self.paid.append(rewards.mean())
        self.steps += ENVS
        self.clock += 1
        done = self.clock == HORIZON
        self.clock[done] = 0
        final = self._show()
        return Step(self._show() if done.any() else final, rewards, done, final)


def made(name: str, seed: int = 0, **more: object) -> sb3.StableBaselines:
    return sb3.find(name)(TASK, np.random.default_rng(seed), **{**FAST[name], **more})


def trained_for(learner: sb3.StableBaselines, segments: range, steps: int = 96) -> list[dict]:
    return [dict(learner.learn(Matching(k), steps, np.random.default_rng(100 + k))) for k in segments]


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert list(one) == list(other)
    for name, array in one.items():
        assert (array.shape, array.dtype) == (other[name].shape, other[name].dtype), name
        assert array.tobytes() == other[name].tobytes(), name


# Learning ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("first", [32, 96])
def test_what_is_stored_is_all_that_it_continues_from(name, first):
    """After 32 steps the algorithms with a replay buffer have not updated their networks yet."""
    whole, stopped = made(name), made(name)
    for learner in (whole, stopped):
        learner.learn(Matching(0), first, np.random.default_rng(100))
    resumed = made(name, seed=5)  # other initial parameters
    resumed.parameters = {key: array.copy() for key, array in stopped.parameters.items()}
    resumed.state = {key: array.copy() for key, array in stopped.state.items()}
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)
    # As texts, since a mean may be NaN.
    assert repr(trained_for(whole, range(1, 3))) == repr(trained_for(resumed, range(1, 3)))
    same(whole.parameters, resumed.parameters)
    same(whole.state, resumed.state)


@pytest.mark.parametrize("name", ALGORITHMS)
def test_shapes_are_fixed_and_figures_are_those_named(name):
    learner = made(name)
    before = {**learner.parameters, **learner.state}
    found = trained_for(learner, range(2))[-1]
    after = {**learner.parameters, **learner.state}
    assert {key: (a.shape, a.dtype) for key, a in before.items()} == {
        key: (a.shape, a.dtype) for key, a in after.items()
    }
    assert set(learner.metrics) <= found.keys()
    assert any(before[key].tobytes() != after[key].tobytes() for key in learner.parameters)


@pytest.mark.parametrize("name", ["sb3:PPO", "sb3:DQN"])
def test_it_learns(name):
    learner, environment = made(name), Matching(3)
    for k in range(3):
        learner.learn(environment, 640, np.random.default_rng(k))
    assert np.mean(environment.paid[:20]) < 0.55 and np.mean(environment.paid[-20:]) > 0.85
    assert environment.steps == 3 * 640
    seen = np.eye(SIZE, dtype=np.float32)
    actions, _ = learner.act(seen, None, np.full(SIZE, 0.5, np.float32))
    assert actions.tolist() == [0, 1, 2]


def test_global_random_numbers_are_as_before():
    learner = made("sb3:DQN")
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = np.random.random(), torch.rand(1)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    trained_for(learner, range(1))
    assert (np.random.random(), torch.rand(1)) == expected  # noqa: NPY002


def test_schedules_are_those_of_the_whole_run():
    """Exploration falls from 1 to 0.1 in the first half of 640 steps, in two segments."""
    learner = made("sb3:DQN", exploration_fraction=0.5, exploration_final_eps=0.1)
    trained_for(learner, range(1), steps=160)
    assert learner.model.exploration_rate == pytest.approx(0.55)
    trained_for(learner, range(1), steps=160)
    assert learner.model.exploration_rate == pytest.approx(0.1)


# Acting --------------------------------------------------------------------------------------------------


def layers(values: dict[str, np.ndarray], name: str, x: np.ndarray, between) -> np.ndarray:
    """A multilayer perceptron in numpy: the layers whose names begin with ``name``."""
    weights = [key for key in values if key.startswith(name) and key.endswith("weight")]
    for key in weights:
        x = x @ values[key].T + values[key.removesuffix("weight") + "bias"]
        x = between(x) if key != weights[-1] or "policy_net" in name else x
    return x


def test_a_stochastic_policy_draws_with_its_probabilities():
    learner = made("sb3:PPO")
    trained_for(learner, range(2))
    x, p = np.random.default_rng(0).normal(size=(1, SIZE)).astype(np.float32), learner.parameters
    hidden = layers(p, "mlp_extractor.policy_net", x, np.tanh)
    logits = layers(p, "action_net", hidden, np.tanh)[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    uniforms = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    actions, _ = learner.act(np.repeat(x, 4000, axis=0), None, uniforms)
    assert np.bincount(actions, minlength=SIZE) / 4000 == pytest.approx(shares, abs=1e-3)


def test_an_algorithm_with_values_takes_the_best_action():
    learner = made("sb3:DQN")
    trained_for(learner, range(2))
    x = np.random.default_rng(0).normal(size=(50, SIZE)).astype(np.float32)
    values = layers(learner.parameters, "q_net.q_net", x, lambda y: np.maximum(y, 0))
    actions, state = learner.act(x, None, np.zeros(50, np.float32))
    assert actions.tolist() == values.argmax(axis=1).tolist() and state is None


@pytest.mark.skipif(not has_contrib(), reason="no sb3_contrib")
def test_a_recurrent_policy_keeps_its_state_by_episode():
    """Episodes played together act as each alone; at first the state is zero."""
    learner = made("sb3-contrib:RecurrentPPO")
    steps = np.random.default_rng(0).normal(size=(5, 3, SIZE)).astype(np.float32)
    uniforms = np.random.default_rng(1).random((5, 3), dtype=np.float32)

    def played(rows: slice) -> tuple[list, np.ndarray]:
        state, actions = None, []
        for x, u in zip(steps, uniforms, strict=True):
            taken, state = learner.act(x[rows], state, u[rows])
            actions.append(taken)
        return np.array(actions), state[0].numpy()[0]

    together, memory = played(slice(None))
    for b in range(3):
        alone, own = played(slice(b, b + 1))
        assert np.array_equal(together[:, b : b + 1], alone)
        assert memory[b] == pytest.approx(own[0], abs=1e-6)
    assert np.abs(memory).min() > 0


def test_uniform_numbers_choose_by_cumulated_probability():
    shares = np.array([[0.25, 0.5, 0.25]], np.float32)
    for uniform, action in ((0, 0), (0.2499, 0), (0.25, 1), (0.74, 1), (0.75, 2), (0.9999999, 2)):
        assert sb3.draw(shares, np.array([uniform], np.float32)).tolist() == [action]
    assert sb3.draw(np.array([[0, 1e-9, 0]], np.float32), np.zeros(1, np.float32)).tolist() == [1]


# Refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["learner=sb3:SAC"], "learner is 'sb3:SAC': choose from sb3:PPO, sb3:A2C, sb3:DQN, sb3-contrib:"),
        (
            ["learner=sb3:DQN", "learner_arguments={bufer_size: 3}"],
            "unexpected keyword argument 'bufer_size'",
        ),
        (["learner=sb3:DQN", "learner_arguments={seed: 3}"], "has seed, which the run decides: remove it"),
        (["learner=sb3:DQN", "learner_arguments={policy: Mlp}"], "Policy Mlp unknown"),
        (
            ["learner=sb3:PPO", "learner_arguments={policy_kwargs: {activation_fn: Relu}}"],
            "has no attribute 'Relu'",
        ),
        (
            ["learner=sb3:PPO", "learner_arguments={n_steps: 5}"],
            "does not divide ppo.memory_size=128: make that a multiple of 80",
        ),
        (
            ["learner=sb3:DQN", "learner_arguments={train_freq: [1, episode]}"],
            "train_freq` must be an integer",
        ),
    ],
)
def test_a_run_refuses_it_in_a_sentence(words, said, tmp_path, in_process):
    from dials_mpi.train import main

    done = in_process(main)(*SMALL, *words, "--output", tmp_path / "out")
    assert done.code == 2 and said in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_warning_of_the_library_goes_to_the_log(caplog, recwarn):
    caplog.set_level("INFO")
    made("sb3:PPO", batch_size=24)
    assert not recwarn.list and "there will be a truncated mini-batch of size 8" in caplog.text


def test_names_of_classes_become_classes():
    learner = made("sb3:DQN", policy_kwargs={"activation_fn": "Tanh", "net_arch": [5]})
    assert learner.model.policy.q_net.q_net[1].__class__ is torch.nn.Tanh
    assert learner.parameters["q_net.q_net.0.weight"].shape == (5, SIZE)


def test_the_command_refuses_on_several_ranks(tmp_path):
    done = train(*SMALL, "learner=sb3:SAC", "--output", str(tmp_path / "out"), ranks=3)
    assert done.code == 2 and len(done.ours()) == 1 and "Traceback" not in done.stderr


# Runs ----------------------------------------------------------------------------------------------------

RUNS = {
    "sb3:DQN": "{learning_starts: 64, buffer_size: 320}",
    "sb3:PPO": "{batch_size: 32, n_epochs: 2, policy_kwargs: {net_arch: [16]}}",
    "sb3-contrib:RecurrentPPO": "{n_epochs: 1, policy_kwargs: {lstm_hidden_size: 8}}",
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name != "sb3:DQN" else ()) for name in RUNS]
)
def test_a_run_is_the_same_on_any_ranks_and_when_it_is_resumed(name, trained, tmp_path):
    """Whole on one rank; stopped on three, and resumed on one from the checkpoint before."""
    if "contrib" in name and not has_contrib():
        pytest.skip("no sb3_contrib")
    settings = (*SMALL, *LONGER, "checkpoint_keep=9", f"learner={name}", f"learner_arguments={RUNS[name]}")
    (tmp_path / "stopper.py").write_text(STOPPER)
    where = {"PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    output = tmp_path / "out"
    stopping = ("sinks=[stopper:Stopper]", "--output", str(output))
    first = train(*settings, *stopping, ranks=3, environment=where)
    assert first.code == 75 and first.ours() == []
    (output / "checkpoint-384.h5").unlink()
    second = train(*settings, "sinks=[]", "--output", str(output), "--resume")
    assert (second.code, second.stderr) == (0, "")
    whole = trained(*settings)
    for file in ("run.h5", "checkpoint-512.h5"):
        assert results(output / file) == results(whole / file)


def killed_and_resumed(settings: tuple[str, ...], whole: Path, output: Path, steps: int, ranks: int) -> None:
    """Killed as soon as there is a checkpoint at so many steps, then resumed."""
    running = Program("-m", "dials_mpi.train", *settings, "--output", str(output), ranks=ranks)
    limit = time.monotonic() + 240
    while running.running() and not (output / f"checkpoint-{steps}.h5").exists():
        assert time.monotonic() < limit
        time.sleep(0.05)
    for pid in running.processes():
        os.kill(pid, signal.SIGKILL)
    assert running.wait().code != 0
    assert "reference/random" not in content(output / "run.h5")
    done = train(*settings, "--output", str(output), "--resume", ranks=ranks, timeout=240)
    assert done.code == 0 and done.ours() == []
    assert results(output / "run.h5") == results(whole / "run.h5")


DQN = ("learner=sb3:DQN", "learner_arguments={learning_starts: 64, buffer_size: 800}", "checkpoint_keep=9")
GRID = (
    *("domain=traffic", "traffic.grid=[2,2]", "traffic.horizon=50", "dataset_size=200", "influence.epochs=2"),
    *("evaluation_episodes=2", "total_steps=1024", "evaluate_every=256", "retrain_every=512"),
)


@pytest.mark.slow
def test_dqn_on_the_grid_is_killed_and_resumed(trained, tmp_path):
    killed_and_resumed((*GRID, *DQN), trained(*GRID, *DQN), tmp_path / "out", 256, ranks=4)


@pytest.mark.slow
def test_dqn_on_a_city_is_killed_and_resumed(trained, city, tmp_path):  # noqa: F811
    settings = (*QUICK, *city, *DQN)
    killed_and_resumed(settings, trained(*settings), tmp_path / "out", 48, ranks=3)
