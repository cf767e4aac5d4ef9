"""The configuration of a run: frozen dataclasses, read from YAML and overrides.

Every default is the paper's setting for the warehouse with 100 agents (Tables 4 to 6), or that of the
authors' code if the paper gives none. The constructor of Config checks combinations: every Config is
valid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from dials_mpi import domains, settings
from dials_mpi.config import validation as combinations
from dials_mpi.config.presets import located
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.settings import section, section_chosen_by, setting
from dials_mpi.settings.mappings import PlainMapping
from dials_mpi.settings.yaml_text import parse, read

_NETWORK = (
    "Network: gru (recurrent) or fnn (feed-forward), built in (Table {}); torch:gru or torch:fnn, the same "
    "in PyTorch; or a torch.nn.Module of your own: module:Class, or a name that an installed package "
    "registers (docs/networks.md)"
)
_ARGUMENTS = "Arguments by name for the constructor of a network of your own, such as {heads: 4}"
PPO_LEARNER = "ppo"
"""The setting ``learner`` of the built-in one."""
OWN_EPISODES = -1
"""The setting ``evaluation_seed`` of runs that share no episodes."""

MAINTENANCE = (
    *("checkpoint_every", "checkpoint_minutes", "checkpoint_keep", "checkpoint_writers"),
    *("silence", "global_ranks", "collect_chunk", "datasets", "sinks"),
)
"""Settings that do not affect results."""


@dataclass(frozen=True)
class Policy:
    """The policy network of each agent (Table 5)."""

    key: ClassVar[str] = "policy"
    architecture: str = setting("gru", _NETWORK.format(5))
    hidden: tuple[int, int] = setting(
        (256, 128),
        "Units of the first layer (the GRU, if there is one) and the second (Table 5)",
        low=1,
        high=4096,
    )
    sequence_length: int = setting(
        8,
        "Steps over which a network with a state is trained by backpropagation; an FNN ignores it (Table 5)",
        low=1,
        high=4096,
    )
    arguments: PlainMapping = setting(PlainMapping(), _ARGUMENTS, newer=True)
    share: str = setting(
        "none",
        "Which agents train one policy together: none; all; or kind: those whose networks have the same "
        "parameters by name and shape (docs/networks.md)",
        choices=("none", "all", "kind"),
        newer=True,
    )


@dataclass(frozen=True)
class PPO:
    """The training of each policy (Table 6; schedules and time limits as in the authors' code)."""

    rollout_steps: int = setting(
        8,
        "T: steps in an environment before advantages are estimated with a bootstrapped value (Table 6)",
        low=1,
        high=100_000,
    )
    memory_size: int = setting(128, "Steps per agent and update (Table 6)", low=1, high=1_000_000)
    minibatch_size: int = setting(32, "Steps per gradient step (Table 6)", low=1, high=1_000_000)
    epochs: int = setting(3, "Passes over the memory in an update (Table 6)", low=1, high=1000)
    learning_rate: float = setting(2.5e-4, "Adam's step size at the start (Table 6)", low=0, high=1)
    clip: float = setting(0.1, "Epsilon of the clipped policy ratio at the start (Table 6)", low=0, high=1)
    anneal: bool = setting(
        True, "Whether learning_rate and clip fall linearly to 0 over total_steps (authors' code)"
    )
    discount: float = setting(0.99, "Gamma, per decision (Table 6)", low=0, high=1)
    gae_lambda: float = setting(0.95, "Lambda of generalised advantage estimation (Table 6)", low=0, high=1)
    entropy_coefficient: float = setting(0.01, "Beta, weight of the entropy bonus (Table 6)", low=0, high=100)
    value_coefficient: float = setting(1.0, "C_1, weight of the value loss (Table 6)", low=0, high=100)
    clip_value_loss: bool = setting(
        True,
        "Use the larger of two value losses: with and without the change of value clipped (authors' code)",
    )
    normalise_advantages: bool = setting(
        True, "Scale advantages to mean 0 and standard deviation 1 in each minibatch (authors' code)"
    )
    max_gradient_norm: float = setting(
        0.0, "Longer gradients are clipped to this length; 0: no clipping (authors' code)", low=0, high=1e9
    )
    time_limit: str = setting(
        "bootstrap",
        "The value after an episode's last step: bootstrapped, or zero as in the authors' code, with which "
        "policies collapsed (docs/differences.md)",
        choices=("bootstrap", "terminal"),
    )
    adam_epsilon: float = setting(1e-8, "Adam's epsilon (torch's default)", low=1e-16, high=1)


@dataclass(frozen=True)
class Influence:
    """The approximate influence predictor of each region (Table 4)."""

    key: ClassVar[str] = "influence"
    architecture: str = setting("gru", _NETWORK.format(4))
    hidden: tuple[int, int] = setting(
        (64, 64),
        "Units of the first layer (the GRU, if there is one) and the second (Table 4)",
        low=1,
        high=4096,
    )
    learning_rate: float = setting(1e-4, "Adam's step size (Table 4)", low=0, high=1)
    batch_size: int = setting(
        32, "Per gradient step: whole episodes for a GRU, samples for an FNN (Table 4)", low=1, high=1_000_000
    )
    epochs: int = setting(300, "Passes over the dataset per refit (Table 4)", low=1, high=100_000)
    held_out: float = setting(
        0.1,
        "Validation share of the episodes (the last, at least one), for the reported loss (authors' code)",
        low=0,
        high=1,
    )
    adam_epsilon: float = setting(1e-8, "Adam's epsilon (torch's default)", low=1e-16, high=1)
    arguments: PlainMapping = setting(PlainMapping(), _ARGUMENTS, newer=True)
    heads: str = setting(
        "independent",
        "How the sources of a step depend on each other, given the history: independent (Equation 25); "
        "autoregressive: each on those before it (docs/predictors.md)",
        choices=("independent", "autoregressive"),
        newer=True,
    )
    patience: int = setting(
        0,
        "Epochs without a lower held-out loss after which a refit stops, with the parameters of the lowest; "
        "0: never, as in Table 4",
        low=0,
        high=100_000,
        newer=True,
    )
    start: str = setting(
        "own",
        "What a predictor starts from at the first refit: own: random weights of its own; first: the fitted "
        "predictor of the first region with equal sizes (docs/predictors.md)",
        choices=("own", "first"),
        newer=True,
    )
    refit_epochs: int = setting(
        0,
        "Passes over the dataset of a refit that starts from a fitted predictor: at later refits, and with "
        "start: first; 0: epochs",
        low=0,
        high=100_000,
        newer=True,
    )

    def fit_epochs(self, fitted: bool) -> int:
        """The epochs of a fit; fitted: it starts from a fitted predictor."""
        return (fitted and self.refit_epochs) or self.epochs

    def held_out_episodes(self, episodes: int) -> int:
        """The number of validation episodes of a dataset, at least one; they are its last ones."""
        return max(1, round(self.held_out * episodes))


@dataclass(frozen=True)
class Learning:
    """Where networks in PyTorch compute."""

    device: str = setting(
        "cpu",
        "Of networks in PyTorch: cpu; cuda: the first GPU of a rank's machine; cuda:auto: its ranks take its "
        "GPUs in turn. The built-in networks always compute on the CPU",
        choices=("cpu", "cuda", "cuda:auto"),
        newer=True,
    )


@dataclass(frozen=True)
class Config:
    """The configuration of one run.

    domain_section: the domain's dataclass; in YAML its key is the domain's name. It has the attribute
    ``horizon``, the number of steps of an episode.
    BadInput: an invalid combination of values; the message names valid ones.
    """

    domain: str = setting(
        "warehouse",
        "The system to simulate: warehouse, traffic, the name of a domain from an installed package, or a "
        "class of your own as module:Class",
    )
    mode: str = setting(
        "dials",
        "dials: predictors are trained; untrained: they keep random weights; global: no local simulators",
        choices=("dials", "untrained", "global"),
    )
    seed: int = setting(0, "Seed of all random streams; 32 bits", low=0, high=2**32 - 1)
    total_steps: int = setting(
        4_000_000,
        "Steps (decisions) each agent learns from (Section 5.3); a multiple of evaluate_every; a run ends "
        "with a whole update, and may take some steps more",
        low=1,
        high=10**12,
    )
    retrain_every: int = setting(
        4_000_000,
        "F: steps per agent between refits of the predictors; a multiple of evaluate_every; total_steps "
        "or more: one fit, at the start (warehouse: 4M, Appendix D.2)",
        low=1,
        high=10**12,
    )
    evaluate_every: int = setting(
        100_000,
        "Steps per agent between evaluations on the global simulator (authors' code)",
        low=1,
        high=10**12,
    )
    segment_every: int = setting(
        0,
        "Steps per agent between the points at which a run can stop and be resumed; simulators start new "
        "episodes there; 0: evaluate_every, else a divisor of it",
        low=0,
        high=10**12,
    )
    schedule: str = setting(
        "synchronous",
        "synchronous: training waits for evaluations and datasets; overlapped: they are made during the next "
        "segment, and a refit has data from a joint policy that is one segment older",
        choices=("synchronous", "overlapped"),
    )
    global_ranks: int = setting(
        1,
        "Ranks that run global simulators: they share the episodes, then the agents; a single rank is one",
        low=1,
        high=10_000,
    )
    evaluation_episodes: int = setting(32, "Episodes per evaluation", low=1, high=10_000)
    evaluation_seed: int = setting(
        OWN_EPISODES,
        "Seed of the episodes of all evaluations: runs with the same one are evaluated on the same episodes, "
        "whatever their seed (docs/studies.md); -1: each evaluation has episodes of its own, from seed",
        low=OWN_EPISODES,
        high=2**32 - 1,
        newer=True,
    )
    dataset_size: int = setting(
        10_000,
        "Samples per region and refit, one for each simulator step; a multiple of the horizon (Table 4)",
        low=1,
        high=10_000_000,
    )
    envs_per_region: int = setting(
        16, "Parallel environments of a region, which share one rollout buffer", low=1, high=4096
    )
    checkpoint_every: int = setting(
        1, "Segments between checkpoints; 0: only checkpoint_minutes counts", low=0, high=1_000_000
    )
    checkpoint_minutes: float = setting(
        0.0,
        "Minutes after which the end of a segment writes a checkpoint; 0: only checkpoint_every counts",
        low=0,
        high=1e6,
    )
    checkpoint_keep: int = setting(
        2,
        "Number of newest checkpoints to keep; the best one is kept as well",
        low=1,
        high=10**6,
    )
    checkpoint_writers: int = setting(
        1,
        "Ranks that write a checkpoint at the same time, if more than 1 each to a file of its own, on a disk "
        "that they share (docs/checkpoint.md)",
        low=1,
        high=10_000,
        newer=True,
    )
    silence: float = setting(
        600.0, "Seconds without a heartbeat after which a rank is reported; 0: never", low=0, high=1e6
    )
    collect_chunk: int = setting(
        0,
        "Episodes that a global rank plays before it sends them, when it collects: fewer need less memory "
        "(docs/speed.md); 0: as many as it plays side by side, at most 64",
        low=0,
        high=1_000_000,
        newer=True,
    )
    datasets: str = setting(
        "last",
        "Which refits' datasets are kept in DIR/datasets: none, those of the newest refit, or all",
        choices=("none", "last", "all"),
        newer=True,
    )
    learner: str = setting(
        PPO_LEARNER,
        "What trains each policy: ppo (the sections policy and ppo), an algorithm of Stable-Baselines3 such "
        "as sb3:DQN, the name of a learner from an installed package, or a class of your own as "
        "module:Class (docs/trainers.md)",
        newer=True,
    )
    learner_arguments: PlainMapping = setting(
        PlainMapping(),
        "Keyword arguments of the learner's class; ppo takes none",
        newer=True,
    )
    datasets_from: str = setting(
        "",
        "A run's directory, or one of its dataset files: the first refit reads these datasets in place of a "
        "collection; empty: it collects",
        newer=True,
    )
    policies_from: str = setting(
        "",
        "Another run's directory, or an archived copy of it with policies: the policies start with its "
        "weights (docs/warm-start.md); empty: with random ones",
        newer=True,
    )
    predictors_from: str = setting(
        "",
        "The same of the predictors; in mode untrained they keep these weights, in mode dials each refit "
        "trains them further",
        newer=True,
    )
    match_by: str = setting(
        "number",
        "Whose weights of the other run an agent or a region starts with: number: those of the same number "
        "there; size: those with networks of the same size take turns (docs/warm-start.md)",
        choices=("number", "size"),
        newer=True,
    )
    sinks: tuple[str, ...] = setting(
        (),
        "Where the run records its results beside the run file: csv, tensorboard, or a class of your own as "
        "module:Class (docs/sinks.md)",
        newer=True,
    )
    domain_section: Any = field(
        default_factory=domains.DOMAINS["warehouse"][1],
        metadata=section_chosen_by("domain", tuple(domains.DOMAINS), domains.section, "The domain."),
    )
    policy: Policy = field(default_factory=Policy, metadata=section("The policy network of each agent."))
    ppo: PPO = field(
        default_factory=PPO, metadata=section("Proximal policy optimisation, each agent its own.")
    )
    influence: Influence = field(
        default_factory=Influence, metadata=section("The influence predictor of each region.")
    )
    learning: Learning = field(
        default_factory=Learning, metadata=section("The device of networks in PyTorch.")
    )

    def __post_init__(self) -> None:
        combinations.check(self)

    @property
    def domain_key(self) -> str:
        """The key of the domain's section."""
        return domains.section(self.domain)[0]

    @property
    def overlapped(self) -> bool:
        """Whether the global simulators run during the training of the policies."""
        return self.schedule == "overlapped"

    @property
    def own_learner(self) -> bool:
        """Whether another learner than the built-in PPO trains the policies."""
        return self.learner != PPO_LEARNER

    @property
    def built_in(self) -> bool:
        """Whether the learner and all networks are built in: compiled code, without PyTorch."""
        networks = self.policy.architecture, self.influence.architecture
        return not self.own_learner and set(networks) <= set(combinations.BUILT_IN)

    @property
    def shared(self) -> bool:
        """Whether agents train one policy together."""
        return self.policy.share != "none"

    @property
    def shares_episodes(self) -> bool:
        """Whether all evaluations play the same episodes, also those of other runs with the same setting."""
        return self.evaluation_seed != OWN_EPISODES

    @property
    def episodes_seed(self) -> int:
        """The seed of the streams of evaluation episodes."""
        return self.evaluation_seed if self.shares_episodes else self.seed

    @property
    def steps_per_env(self) -> int:
        """Steps of one environment in the rollout buffer of an update."""
        return self.ppo.memory_size // self.envs_per_region

    @property
    def dataset_episodes(self) -> int:
        """Whole episodes per region and refit."""
        return self.dataset_size // self.domain_section.horizon

    @property
    def held_out_episodes(self) -> int:
        """The number of validation episodes per region and refit."""
        return self.influence.held_out_episodes(self.dataset_episodes)

    @property
    def total_updates(self) -> int:
        """Updates of each policy in the whole run."""
        return self.updates(self.total_steps)

    def updates(self, steps: int) -> int:
        """The least number of updates with at least ``steps`` steps per agent."""
        return -(-steps // self.ppo.memory_size)

    def to_yaml(self) -> str:
        """YAML with a comment for every key; ``from_yaml`` returns an equal Config."""
        return settings.dump(self)

    def decisive(self) -> dict[str, Any]:
        """Every setting that affects results, by its dotted key."""
        return {key: value for key, value in settings.flat(self).items() if key not in MAINTENANCE}

    def digest(self) -> str:
        """SHA-256 (hex) of the decisive settings, independent of how the user wrote them."""
        omitted = settings.newer_defaults(self)
        return settings.digest({key: value for key, value in self.decisive().items() if key not in omitted})


def load(file: str | None, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a run: defaults, then the YAML file, then overrides such as ``ppo.clip=0.2``.

    file: a path, or the name of a preset such as ``warehouse/fast``. BadInput: the file cannot be read, or a
    key, a value or a combination is refused.
    """
    if isinstance(overrides, str):  # else each character would be one
        raise BadInput(f"the settings are one text, {shown(overrides)}: give a list of texts key=value")
    if file is None:
        return settings.build(Config, {}, "the defaults", overrides)
    name = printable(file)
    return settings.build(Config, parse(read(located(file)), name), name, overrides)


def from_yaml(text: str, source: str = "the stored configuration") -> Config:
    """The configuration in a YAML text, such as that of ``Config.to_yaml``. BadInput as in ``load``."""
    return settings.build(Config, parse(text, source), source)


def load_changed(config: Config, overrides: Sequence[str]) -> Config:
    """The configuration with some settings changed, written as in ``load``. BadInput as in ``load``."""
    source = "the configuration of the run"
    return settings.build(Config, parse(config.to_yaml(), source), source, overrides)
