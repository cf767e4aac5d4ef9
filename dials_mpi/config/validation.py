"""Checks of combinations of settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dials_mpi import domains
from dials_mpi.core.errors import BadInput
from dials_mpi.core.imports import NETWORKS, is_place, registered
from dials_mpi.core.text import shown
from dials_mpi.domains.decisions import require_whole_decisions

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.config import Influence as InfluenceConfig
    from dials_mpi.config import Policy as PolicyConfig

BUILT_IN = ("gru", "fnn")
RECURRENT = ("gru", "torch:gru")
MAX_SEGMENTS = 100_000


def check(config: Config) -> None:
    """BadInput: a combination of values is invalid; the message names the nearest valid values."""
    _check_network(config.policy)
    _check_network(config.influence)
    _check_device(config)
    _check_schedule(config)
    _check_memory(config)
    if config.policy.architecture in RECURRENT and not config.own_learner:
        require_whole_sequences(config)
    _check_dataset(config)
    _check_datasets(config)
    _check_weights(config)
    _check_global_training(config)
    _check_learner(config)
    _check_sharing(config)


def _check_network(config: PolicyConfig | InfluenceConfig) -> None:
    """An architecture is built in, ``module:Class`` or registered; the built-in ones take no arguments.

    Whether there is such a class shows when the network is built.
    """
    key, name = f"{config.key}.architecture", config.architecture
    if name in BUILT_IN:
        if config.arguments:
            raise BadInput(
                f"{config.key}.arguments is given, and the network {name} takes none: remove it, or set "
                f"{key}=module:Class"
            )
    elif not is_place(name) and name not in (others := registered(NETWORKS)):
        known = ", ".join([*BUILT_IN, "torch:gru", "torch:fnn", *others])
        raise BadInput(
            f"{key} is {shown(name)}: choose one of {known}, or name a torch.nn.Module of your own as "
            "module:Class"
        )


def _check_device(config: Config) -> None:
    """Only networks in PyTorch compute on a GPU; whether there is one shows when the run begins."""
    device, sections = config.learning.device, (config.policy, config.influence)
    if device != "cpu" and all(section.architecture in BUILT_IN for section in sections):
        raise BadInput(
            f"learning.device is {device}, and the built-in networks compute on the CPU: set it to cpu, or "
            "an architecture to torch:gru or module:Class"
        )


def _check_schedule(config: Config) -> None:
    """Steps between evaluations, between refits, in a segment, and in total."""
    every, memory = config.evaluate_every, config.ppo.memory_size
    _require_update("evaluate_every", every, memory)
    if config.segment_every:
        _require_update("segment_every", config.segment_every, memory)
        _require_multiple("evaluate_every", every, "segment_every", config.segment_every)
    _require_update("total_steps", config.total_steps, memory)
    _require_multiple("total_steps", config.total_steps, "evaluate_every", every)
    if config.retrain_every < config.total_steps:
        _require_multiple("retrain_every", config.retrain_every, "evaluate_every", every)
    key = "segment_every" if config.segment_every else "evaluate_every"
    every = getattr(config, key)
    if config.total_steps // every > MAX_SEGMENTS:
        least = -(-config.total_steps // MAX_SEGMENTS)
        raise BadInput(
            f"{key} is {every}, more than {MAX_SEGMENTS} segments in total_steps="
            f"{config.total_steps}: make it at least {least}"
        )
    if not config.checkpoint_every and not config.checkpoint_minutes:
        raise BadInput("checkpoint_every and checkpoint_minutes are both 0: set one of them")


def _check_memory(config: Config) -> None:
    """An update consists of whole rollouts and whole minibatches; of another learner than PPO, of steps in
    all environments."""
    ppo = config.ppo
    if config.own_learner:
        _require_multiple("ppo.memory_size", ppo.memory_size, "envs_per_region", config.envs_per_region)
        return
    unit = config.envs_per_region * ppo.rollout_steps
    _require_multiple("ppo.memory_size", ppo.memory_size, "envs_per_region x ppo.rollout_steps", unit)
    _require_divisor("ppo.minibatch_size", ppo.minibatch_size, "ppo.memory_size", ppo.memory_size)
    if ppo.normalise_advantages and ppo.minibatch_size < 2:
        raise BadInput(
            "ppo.minibatch_size is 1, and one step has no standard deviation: make it at least 2, or "
            "set ppo.normalise_advantages=false"
        )


def require_whole_sequences(config: Config) -> None:
    """BadInput: a policy with a state, which is trained on whole sequences, cannot be.

    Whether a network of the user's own has a state shows when it is built.
    """
    policy, ppo = config.policy, config.ppo
    length = policy.sequence_length
    _require_divisor(
        "policy.sequence_length", length, "ppo.memory_size / envs_per_region", config.steps_per_env
    )
    _require_multiple("ppo.minibatch_size", ppo.minibatch_size, "policy.sequence_length", length)


def _check_dataset(config: Config) -> None:
    """A dataset consists of whole episodes, with at least one for training and one for validation, and an
    episode of whole decisions."""
    key, horizon, held_out = config.domain_key, config.domain_section.horizon, config.influence.held_out
    require_whole_decisions(key, config.domain_section)
    if config.dataset_size < 2 * horizon:
        raise BadInput(
            f"dataset_size is {config.dataset_size}, less than two episodes of {horizon} steps: "
            f"make it at least {2 * horizon}"
        )
    _require_multiple("dataset_size", config.dataset_size, f"{key}.horizon", horizon)
    episodes = config.dataset_episodes
    if config.held_out_episodes >= episodes:
        raise BadInput(
            f"influence.held_out is {held_out:g}, which leaves none of {episodes} episodes for training: "
            f"make it at most {(episodes - 1) / episodes:.4g}"
        )


def _check_datasets(config: Config) -> None:
    """``datasets_from`` is used by the first refit; only the mode dials has refits."""
    if config.datasets_from and config.mode != "dials":
        raise BadInput(
            f"datasets_from is given, and mode={config.mode} fits no predictors: remove it, or set mode=dials"
        )


def _check_weights(config: Config) -> None:
    """Weights of another run: mode global has no predictors to start with them."""
    if config.predictors_from and config.mode == "global":
        raise BadInput(
            "predictors_from is given, and mode=global has no predictors: remove it, or set mode=dials or "
            "untrained"
        )
    if config.match_by != "number" and not (config.policies_from or config.predictors_from):
        raise BadInput(
            f"match_by is {config.match_by}, and neither policies_from nor predictors_from is given: remove "
            "it, or give one of them"
        )


def _check_global_training(config: Config) -> None:
    """Some global simulators have a single episode, so that agents train in one."""
    envs, domain = config.envs_per_region, domains.find(config.domain)[0]
    if config.mode == "global" and getattr(domain, "side_by_side", None) == 1 and envs > 1:
        raise BadInput(
            f"envs_per_region is {envs}, and mode=global trains in one episode of the domain "
            f"{config.domain_key} at a time: set envs_per_region=1"
        )


def _check_learner(config: Config) -> None:
    """A learner of the user's own trains one agent on its local simulator."""
    if not config.own_learner and config.learner_arguments:
        raise BadInput(
            "learner_arguments is given, and learner=ppo has its settings in the section ppo: remove "
            "learner_arguments, or choose another learner"
        )
    if config.own_learner and config.mode == "global":
        raise BadInput(
            f"learner is {shown(config.learner)}, and mode=global trains all agents in one simulator, which "
            "only learner=ppo does: use mode=dials or untrained, or learner=ppo"
        )


def _check_sharing(config: Config) -> None:
    """Only the built-in PPO has gradients that agents can share."""
    if config.own_learner and config.shared:
        raise BadInput(
            f"policy.share is {config.policy.share}, and learner is {shown(config.learner)}, which trains "
            "each agent by itself: set policy.share=none, or learner=ppo"
        )


def _require_update(key: str, value: int, memory: int) -> None:
    """Refuse a number of steps that is smaller than one update."""
    if value < memory:
        raise BadInput(
            f"{key} is {value}, less than one update of ppo.memory_size={memory} steps: "
            f"make it at least {memory}"
        )


def _require_multiple(key: str, value: int, of: str, unit: int) -> None:
    """Refuse a value that is not a multiple of ``unit``; the message names the nearest multiples,
    and for a value below the first one that the unit can be lowered instead."""
    if value % unit:
        below = value - value % unit
        other = "" if below else f", or lower {of} to {value}"
        _refuse(key, value, f"is not a multiple of {of}={unit}", [below, below + unit], other)


def _require_divisor(key: str, value: int, of: str, total: int) -> None:
    """Refuse a value that does not divide ``total``; the message names the nearest divisors."""
    if total % value:
        below = next(n for n in range(min(value, total), 0, -1) if total % n == 0)
        above = next(n for n in range(min(value, total), total + 1) if total % n == 0)
        _refuse(key, value, f"does not divide {of}={total}", [below, above])


def _refuse(key: str, value: int, why: str, better: list[int], other: str = "") -> None:
    """other: what else can be done, beside using one of the better values."""
    remedy = " or ".join(str(n) for n in sorted(set(better)) if n > 0)
    raise BadInput(f"{key} is {value}, which {why}: use {remedy}{other}")
