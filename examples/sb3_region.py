"""Train one region of a run with Stable-Baselines3 on its IALS, and compare with this package's training.

    pip install -e '.[gym]' stable-baselines3
    python -m dials_mpi.train --config configs/warehouse/fast.yaml --output runs/fast
    python examples/sb3_region.py runs/fast --region 0

Both agents train on the same local simulator with the same influence predictor (``RegionEnv``), for as many
steps and with the same settings of PPO. The policy of Stable-Baselines3 has no memory, while this package's
default is recurrent: compare with a run with ``policy.architecture=fnn``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from dials_mpi.config import Config
from dials_mpi.gym import RegionEnv
from dials_mpi.storage.runfile import RunFile


class RegionVecEnv(VecEnv):
    """A RegionEnv as a vector environment of Stable-Baselines3, with the same automatic reset.

    returns: those of complete episodes.
    """

    def __init__(self, env: RegionEnv) -> None:
        self.env, self.returns = env, []  # first: the next line asks it for its render_mode
        super().__init__(env.num_envs, env.single_observation_space, env.single_action_space)
        self._running, self._whole = np.zeros(env.num_envs), np.zeros(env.num_envs, bool)

    def reset(self) -> np.ndarray:
        """Start at different times of the episode, as this package's trainer does."""
        elapsed = np.arange(self.num_envs) * self.env.horizon // self.num_envs
        self._running[:], self._whole[:] = 0, elapsed == 0
        return self.env.reset(seed=self._seeds[0], options={"elapsed": elapsed})[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for ``step_wait``."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Put the final observations where Stable-Baselines3 reads them, to bootstrap the time limit."""
        observations, rewards, _, truncated, infos = self.env.step(self._actions)
        self._running += rewards
        each = [{} for _ in range(self.num_envs)]
        for e in np.flatnonzero(truncated):
            each[e] = {"terminal_observation": infos["final_obs"][e], "TimeLimit.truncated": True}
        self.returns += self._running[truncated & self._whole].tolist()
        self._running[truncated], self._whole = 0, self._whole | truncated
        return observations, rewards, truncated, each

    def close(self) -> None:
        """Close the region's environment."""
        self.env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the region's environment, once for each of the requested environments."""
        return [getattr(self.env, attr_name)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not available: parallel environments have no separate attributes or methods."""
        raise NotImplementedError

    def env_method(self, method_name: str, *arguments: Any, indices: Any = None, **named: Any) -> list[Any]:
        """Not available: parallel environments have no separate attributes or methods."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """False for each environment."""
        return [False] * len(list(self._get_indices(indices)))


class Curve(BaseCallback):
    """The mean return of the training episodes between one of the given numbers of steps and the next."""

    def __init__(self, env: RegionVecEnv, steps: list[int]) -> None:
        super().__init__()
        self.env, self.steps, self.means = env, list(steps), []

    def _on_step(self) -> bool:
        if len(self.means) < len(self.steps) and self.num_timesteps >= self.steps[len(self.means)]:
            self.means.append(float(np.mean(self.env.returns)))
            self.env.returns.clear()
        return True


def agent(config: Config, env: RegionVecEnv, seed: int) -> PPO:
    """Stable-Baselines3's PPO with the run's settings."""
    ppo = config.ppo

    def annealed(start: float) -> Callable[[float], float]:
        return lambda left: start * left if ppo.anneal else start

    layers = list(config.policy.hidden)
    return PPO(
        "MlpPolicy",
        env,
        n_steps=ppo.memory_size // env.num_envs,
        batch_size=ppo.minibatch_size,
        n_epochs=ppo.epochs,
        learning_rate=annealed(ppo.learning_rate),
        clip_range=annealed(ppo.clip),
        clip_range_vf=annealed(ppo.clip) if ppo.clip_value_loss else None,
        gamma=ppo.discount,
        gae_lambda=ppo.gae_lambda,
        ent_coef=ppo.entropy_coefficient,
        vf_coef=ppo.value_coefficient,
        max_grad_norm=ppo.max_gradient_norm or float("inf"),
        policy_kwargs={
            "net_arch": {"pi": layers, "vf": layers},
            "activation_fn": torch.nn.ReLU,
            "optimizer_kwargs": {"eps": ppo.adam_epsilon},
        },
        seed=seed,
        device="cpu",
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="the directory of a finished run")
    parser.add_argument("--region", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = RunFile.open(options.run)
    steps = run.read("training/env_steps").tolist()
    env = RegionVecEnv(RegionEnv.from_run(options.run, options.region))
    (own_agent,) = env.env.domain.regions[options.region].agents
    ours = run.read("training/episode_return")[:, own_agent]
    curve = Curve(env, steps)
    agent(env.env.config, env, options.seed).learn(steps[-1], callback=curve)
    print("mean return of training episodes on the IALS of region", options.region)
    print(f"{'steps':>9} {'ours':>6} {'SB3':>6}")
    for end, own, theirs in zip(steps, ours, curve.means, strict=True):
        print(f"{end:9,} {own:6.2f} {theirs:6.2f}")


if __name__ == "__main__":
    main()
