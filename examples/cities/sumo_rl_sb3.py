"""Train the lights of a SUMO city with Stable-Baselines3 on sumo-rl's own environment, to compare with.

    pip install stable-baselines3==2.9.2 supersuit==3.11.0 sumo-rl==1.4.5 pettingzoo==1.27.0 gymnasium==1.4.0
    python examples/cities/sumo_rl_sb3.py resco:cologne8 --hours 40 --seed 0 --out cologne8.json

This package must be installed with its extras traffic and cities; SUMO 1.28.0 was used. One signal: PPO or
DQN on sumo-rl's Gymnasium environment. Several: one PPO policy for all of them, with padded observations and
actions (PettingZoo, SuperSuit). The settings of PPO and DQN are those of sumo-rl's experiments/sb3_grid4x4.py
and experiments/dqn_2way-single-intersection.py; rewards and observations are sumo-rl's defaults. Libsumo
allows one simulation in a process, so there is one environment (sb3_grid4x4.py: two). ``--algorithm fixed``
plays the programs of the network.

Each evaluation plays the same episodes (seeds of SUMO) with drawn actions. Its delay is computed as this
package does: timeLoss + departDelay, mean over all vehicles of the window, also those that did not arrive or
never departed. The JSON file is written again after each evaluation; cpu_seconds are those of the training.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city.scenario import Scenario, find
from dials_mpi.domains.city.statistics import read_trips, summarised
from dials_mpi.domains.city.xml_files import elements

PPO_SETTINGS = {
    **{"n_steps": 256, "batch_size": 256, "n_epochs": 5, "learning_rate": 0.00062211, "clip_range": 0.3},
    **{"gamma": 0.95, "gae_lambda": 0.99, "ent_coef": 0.0905168, "vf_coef": 0.042202, "max_grad_norm": 0.9},
}
DQN_SETTINGS = {
    **{"learning_rate": 0.001, "learning_starts": 0, "train_freq": 1, "target_update_interval": 500},
    **{"exploration_initial_eps": 0.05, "exploration_final_eps": 0.01},
}
UNFINISHED = ("--tripinfo-output.write-unfinished", "--tripinfo-output.write-undeparted")
TRAINING, EVALUATION = 0, 1
"""Which episodes: their seeds are drawn from different streams."""


@dataclass(frozen=True)
class City:
    """A map: its files, and how often its lights decide. decision, yellow: seconds."""

    scenario: Scenario
    decision: int
    yellow: int

    @classmethod
    def named(cls, name: str) -> City:
        """By the name of a scenario or a .sumocfg, with RESCO's times. BadInput: there is no such city."""
        decision, yellow = (5, 2) if name == "resco:arterial4x4" else (10, 3)
        return cls(find(name), decision, yellow)

    @property
    def signals(self) -> int:
        """How many traffic lights sumo-rl controls: all of the network."""
        return len({e.get("id") for e in elements(self.scenario.network) if e.tag == "tlLogic"})

    @property
    def episode(self) -> int:
        """Decisions in the window."""
        return math.ceil((self.scenario.end - self.scenario.begin) / self.decision)

    def steps(self, hours: float) -> int:
        """Decisions in simulated hours."""
        return round(hours * 3600 / self.decision)

    def arguments(self) -> dict[str, Any]:
        """Those of sumo-rl's environment. Its least green is shortened where a decision could not end it."""
        begin, end = round(self.scenario.begin), round(self.scenario.end)
        return {
            "net_file": str(self.scenario.network),
            "route_file": ",".join(map(str, self.scenario.routes)),
            **{"begin_time": begin, "num_seconds": end - begin, "time_to_teleport": -1},
            **{"delta_time": self.decision, "yellow_time": self.yellow},
            **{"min_green": min(5, self.decision - self.yellow), "sumo_warnings": False},
        }

    def options(self, tripinfo: Path | None) -> str:
        """SUMO's further options; tripinfo: the file that SUMO writes about the vehicles."""
        additional = self.scenario.additional
        files = ("-a", ",".join(map(str, additional))) if additional else ()
        written = ("--tripinfo-output", str(tripinfo), *UNFINISHED) if tripinfo else ()
        return " ".join(["--no-step-log", "--duration-log.disable", *files, *written])

    def delay(self, tripinfo: Path) -> float:
        """Seconds per vehicle in an episode. BadInput: SUMO's file is not complete."""
        end = self.scenario.begin + self.episode * self.decision
        return summarised(read_trips(tripinfo, end), ())["delay"]


def episode_seeds(seed: int, kind: int) -> Iterator[int]:
    """SUMO's random numbers of one episode after the other, of TRAINING or EVALUATION."""
    stream = np.random.default_rng([seed, kind])
    while True:
        yield int(stream.integers(2**31))


def write(path: Path, record: dict[str, Any]) -> None:
    """Replace the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(record, indent=1) + "\n")
    new.replace(path)


def environment(city: City, seeds: Iterator[int], folder: Path | None = None, fixed: bool = False) -> Any:
    """sumo-rl's as a vector environment of Stable-Baselines3, one row for each signal.

    seeds: of SUMO, one for each episode. folder: where SUMO writes 0.xml, 1.xml, ... about the episodes.
    """
    sumo_rl = _sumo_rl()
    _prepare_starts(sumo_rl.SumoEnvironment, city, seeds, folder)
    arguments = {**city.arguments(), "fixed_ts": fixed}
    if city.signals == 1:
        from stable_baselines3.common.vec_env import DummyVecEnv

        return DummyVecEnv([lambda: sumo_rl.SumoEnvironment(**arguments, single_agent=True)])
    import supersuit

    padded = supersuit.pad_observations_v0(sumo_rl.parallel_env(**arguments))
    rows = supersuit.pettingzoo_env_to_vec_env_v1(supersuit.pad_action_space_v0(padded))
    return supersuit.concat_vec_envs_v1(rows, 1, num_cpus=1, base_class="stable_baselines3")


def _sumo_rl() -> Any:
    """The package, which reads two variables of the environment when it is imported."""
    import sumo

    os.environ.setdefault("SUMO_HOME", sumo.SUMO_HOME)
    os.environ.setdefault("LIBSUMO_AS_TRACI", "1")
    import sumo_rl
    from pettingzoo.utils import AgentSelector

    # sumo-rl 1.4.5 is older than these libraries: it imports a module of PettingZoo where it needs the class,
    # and has no attribute that SuperSuit reads.
    sumo_rl.environment.env.agent_selector = AgentSelector
    sumo_rl.environment.env.SumoEnvironmentPZ.render_mode = None
    return sumo_rl


def _prepare_starts(kind: Any, city: City, seeds: Iterator[int], folder: Path | None) -> None:
    """Give each episode its own seed and file: without it, sumo-rl starts all of them with the same."""
    started, start = iter(range(sys.maxsize)), kind._start_simulation

    def prepared(env: Any) -> None:
        number, env.sumo_seed = next(started), next(seeds)
        env.additional_sumo_cmd = city.options(folder / f"{number}.xml" if folder else None)
        start(env)

    kind._start_simulation = prepared


def learner(algorithm: str, env: Any, seed: int) -> Any:
    """PPO or DQN of Stable-Baselines3."""
    from stable_baselines3 import DQN, PPO
    from stable_baselines3.common.utils import set_random_seed

    set_random_seed(seed)  # not PPO(seed=...): SuperSuit's environments have no method for it
    kind, settings = (PPO, PPO_SETTINGS) if algorithm == "ppo" else (DQN, DQN_SETTINGS)
    model = kind("MlpPolicy", env, **settings, device="cpu")
    model.action_space.seed(seed)
    return model


def play(name: str, algorithm: str, saved: Path, episodes: int, greedy: int, seed: int) -> list[float]:
    """The delay of each episode, s, in a process of its own: SUMO of the training is in the other one.

    saved: the file with the policy, without which ``fixed`` does. episodes: with drawn actions; greedy: those
    after them, with the best actions.
    """
    import stable_baselines3
    from stable_baselines3.common.utils import set_random_seed

    _one_thread()
    city, fixed = City.named(name), algorithm == "fixed"
    with TemporaryDirectory() as folder:
        env = environment(city, episode_seeds(seed, EVALUATION), Path(folder), fixed)
        model = None if fixed else getattr(stable_baselines3, algorithm.upper()).load(saved)
        set_random_seed(seed)
        observations, nothing = env.reset(), np.zeros(env.num_envs, int)
        for step in range((episodes + greedy) * city.episode):
            best = step >= episodes * city.episode
            actions = model.predict(observations, deterministic=best)[0] if model else nothing
            observations = env.step(actions)[0]
        env.close()
        return [city.delay(Path(folder) / f"{number}.xml") for number in range(episodes + greedy)]


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@dataclass
class Training:
    """A run; called after each decision, it evaluates when it is time.

    step: decisions of each signal so far. cpu: seconds of CPU of the training; since: the process's seconds
    at the last evaluation.
    """

    options: argparse.Namespace
    city: City
    model: Any = None
    step: int = 0
    cpu: float = 0.0
    since: float = 0.0
    evaluations: list[dict[str, Any]] = field(default_factory=list)

    def run(self) -> None:
        """Evaluate, train, evaluate."""
        options = self.options
        if options.algorithm != "fixed":
            env = environment(self.city, episode_seeds(options.seed, TRAINING))
            self.model = learner(options.algorithm, env, options.seed)
        self.evaluate()
        if self.model and self.total:
            self.model.learn(self.total * env.num_envs, callback=self)
            self.cpu += time.process_time() - self.since
            self.evaluate()

    @property
    def total(self) -> int:
        """Decisions until the end."""
        return self.city.steps(self.options.hours)

    @property
    def between(self) -> int:
        """Decisions between evaluations."""
        return max(1, self.city.steps(self.options.evaluate_every))

    def __call__(self, *_: Any) -> bool:
        """Whether to go on. The last rollout is complete if the end of the training is its end."""
        self.step += 1
        if self.step < self.total and self.step % self.between == 0:
            self.cpu += time.process_time() - self.since
            self.evaluate()
        return self.step < self.total or self.step % getattr(self.model, "n_steps", 1) == 0

    def evaluate(self) -> None:
        """Add an evaluation to the file; its seconds of CPU do not count."""
        delays, drawn = self._delays(), self.options.episodes
        self.evaluations.append(
            {
                "hours": self.step * self.city.decision / 3600,
                "delay": float(np.mean(delays[:drawn])),
                "delays": delays[:drawn],
                "delays_deterministic": delays[drawn:],
                "cpu_seconds": self.cpu,
            }
        )
        write(self.options.out, self.record())
        print(json.dumps(self.evaluations[-1]), flush=True)
        self.since = time.process_time()

    def _delays(self) -> list[float]:
        """Of the episodes with drawn actions, and of those with the best ones."""
        options = self.options
        greedy = options.greedy if self.model else 0
        process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        with TemporaryDirectory() as folder, process:
            saved = Path(folder) / "policy.zip"
            if self.model:
                self.model.save(saved)
            what = (options.map, options.algorithm, saved, options.episodes, greedy, options.seed)
            return process.submit(play, *what).result()

    def record(self) -> dict[str, Any]:
        """What the file contains."""
        options = self.options
        return {
            **{"map": options.map, "algorithm": options.algorithm, "seed": options.seed},
            **{"hours": options.hours, "signals": self.city.signals},
            "evaluations": self.evaluations,
            "cpu_seconds": self.cpu,
            "versions": {
                name: version(name) for name in ("stable_baselines3", "sumo-rl", "eclipse-sumo", "libsumo")
            },
        }


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("map", help="resco:NAME, lille, bologna or a .sumocfg")
    parser.add_argument("--algorithm", choices=("ppo", "dqn", "fixed"), default="ppo")
    parser.add_argument("--hours", type=float, default=40, help="simulated hours of training")
    parser.add_argument("--evaluate-every", type=float, default=10, help="simulated hours")
    parser.add_argument("--episodes", type=int, default=2, help="of an evaluation")
    parser.add_argument("--greedy", type=int, default=1, help="further episodes without drawing actions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    options = parser.parse_args(arguments)
    if options.hours < 0 or options.evaluate_every <= 0 or options.episodes < 1 or options.greedy < 0:
        parser.error("--evaluate-every and --episodes must be positive, --hours and --greedy not negative")
    return options


def main() -> None:
    """Train and evaluate; bad input ends it with a sentence."""
    options = parsed()
    try:
        city = City.named(options.map)
        if options.out.exists():
            raise BadInput(f"{options.out} exists: remove it, or give --out another name")
        if options.algorithm == "dqn" and city.signals > 1:
            raise BadInput(
                f"{options.map} has {city.signals} signals, and dqn needs one: use --algorithm ppo"
            )
        _one_thread()
        Training(options, city).run()
    except BadInput as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
