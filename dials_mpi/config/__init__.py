"""The configuration of a run: its settings, checks of combinations, and the schedule of its segments."""

from dials_mpi.config.schema import PPO, Config, Influence, Policy, from_yaml, load, load_changed

__all__ = ["PPO", "Config", "Influence", "Policy", "from_yaml", "load", "load_changed"]
