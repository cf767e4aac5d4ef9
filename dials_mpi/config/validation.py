"""Which values of several settings go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dials_mpi.core.errors import BadInput

if TYPE_CHECKING:
    from dials_mpi.config import Config

MOST_SEGMENTS = 100_000


def check(config: Config) -> None:
    """BadInput: values do not go together; the nearest that do are named."""
    _check_schedule(config)
    _check_memory(config)
    _check_sequences(config)
    _check_dataset(config)
    _check_datasets(config)


def _check_schedule(config: Config) -> None:
    """Steps between evaluations, refits, stops and in all."""
    every, memory = config.evaluate_every, config.ppo.memory_size
    _require_update("evaluate_every", every, memory)
    if config.segment_every:
        _require_update("segment_every", config.segment_every, memory)
        _require_multiple("evaluate_every", every, "segment_every", config.segment_every)
    _require_multiple("total_steps", config.total_steps, "evaluate_every", every)
    if config.retrain_every < config.total_steps:
        _require_multiple("retrain_every", config.retrain_every, "evaluate_every", every)
    key = "segment_every" if config.segment_every else "evaluate_every"
    every = getattr(config, key)
    if config.total_steps // every > MOST_SEGMENTS:
        least = -(-config.total_steps // MOST_SEGMENTS)
        raise BadInput(
            f"{key} is {every}, more than {MOST_SEGMENTS} segments in total_steps="
            f"{config.total_steps}: make it at least {least}"
        )
    if not config.checkpoint_every and not config.checkpoint_minutes:
        raise BadInput("checkpoint_every and checkpoint_minutes are both 0: set one of them")


def _check_memory(config: Config) -> None:
    """An update is made of whole rollouts, and of whole minibatches."""
    ppo = config.ppo
    unit = config.envs_per_region * ppo.rollout_steps
    _require_multiple("ppo.memory_size", ppo.memory_size, "envs_per_region x ppo.rollout_steps", unit)
    _require_divisor("ppo.minibatch_size", ppo.minibatch_size, "ppo.memory_size", ppo.memory_size)
    if ppo.normalise_advantages and ppo.minibatch_size < 2:
        raise BadInput(
            "ppo.minibatch_size is 1, and a single step has no deviation: make it at least 2, or "
            "set ppo.normalise_advantages=false"
        )


def _check_sequences(config: Config) -> None:
    """A recurrent policy learns from whole sequences."""
    policy, ppo = config.policy, config.ppo
    if policy.architecture != "gru":
        return
    length = policy.sequence_length
    _require_divisor(
        "policy.sequence_length", length, "ppo.memory_size / envs_per_region", config.steps_per_env
    )
    _require_multiple("ppo.minibatch_size", ppo.minibatch_size, "policy.sequence_length", length)


def _check_dataset(config: Config) -> None:
    """A dataset has whole episodes, some to train on and some held out."""
    horizon, held_out = config.domain_section.horizon, config.influence.held_out
    if config.dataset_size < 2 * horizon:
        raise BadInput(
            f"dataset_size is {config.dataset_size}, less than two episodes of {horizon} steps: "
            f"make it at least {2 * horizon}"
        )
    _require_multiple("dataset_size", config.dataset_size, f"{config.domain_key}.horizon", horizon)
    episodes = config.dataset_episodes
    if config.held_out_episodes >= episodes:
        raise BadInput(
            f"influence.held_out is {held_out:g}, which leaves none of {episodes} episodes to train on: "
            f"make it at most {(episodes - 1) / episodes:.4g}"
        )


def _check_datasets(config: Config) -> None:
    """Kept datasets are read by a refit, of which there is none in the other modes."""
    if config.datasets_from and config.mode != "dials":
        raise BadInput(
            f"datasets_from is given, and mode={config.mode} fits no predictors: leave it out, or set "
            "mode=dials"
        )


def _require_update(key: str, value: int, memory: int) -> None:
    """Refuse a number of steps that holds not even one update."""
    if value < memory:
        raise BadInput(
            f"{key} is {value}, less than one update of ppo.memory_size={memory} steps: "
            f"make it at least {memory}"
        )


def _require_multiple(key: str, value: int, of: str, unit: int) -> None:
    """Refuse a value that is no multiple of ``unit``, naming the nearest multiples."""
    if value % unit:
        below = value - value % unit
        _refuse(key, value, f"is not a multiple of {of}={unit}", [below, below + unit])


def _require_divisor(key: str, value: int, of: str, whole: int) -> None:
    """Refuse a value that does not divide ``whole``, naming the nearest divisors."""
    if whole % value:
        below = next(n for n in range(min(value, whole), 0, -1) if whole % n == 0)
        above = next(n for n in range(min(value, whole), whole + 1) if whole % n == 0)
        _refuse(key, value, f"does not divide {of}={whole}", [below, above])


def _refuse(key: str, value: int, why: str, better: list[int]) -> None:
    remedy = " or ".join(str(n) for n in sorted(set(better)) if n > 0)
    raise BadInput(f"{key} is {value}, which {why}: use {remedy}")
