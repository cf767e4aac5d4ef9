"""The plan of a sweep: a study file with one configuration and ranges for some of its settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from dials_mpi import settings
from dials_mpi.config import Config, load
from dials_mpi.config.presets import located
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.domains import create
from dials_mpi.domains.base import Domain, Statistic
from dials_mpi.settings import setting
from dials_mpi.settings.yaml_text import parse, read
from dials_mpi.study.plan import LARGEST_SEED, SWEEP, StudyRun, configuration_in, mapping, ranks_in, words_of
from dials_mpi.study.ranges import Range, ranges_of

KEYS = ("config", "settings", "ranks", SWEEP)
RANGES = "ranges"
RETURN = "return"


@dataclass(frozen=True)
class Options:
    """The keys beside ``ranges``."""

    trials: int = setting(20, "Number of trials", low=1, high=10_000)
    seed: int = setting(0, "Seed of the sampler", low=0, high=LARGEST_SEED)
    objective: str = setting("last", "Which evaluation of a run counts", choices=("last", "best"))
    statistic: str = setting(RETURN, "The return, or a statistic of the domain")
    direction: str = setting(
        "auto",
        "Which values are better; auto: higher returns, and of a statistic what the domain says",
        choices=("auto", "higher", "lower"),
    )
    pruner: str = setting(
        "median", "median: stop a run that is worse than the median of the others", choices=("median", "none")
    )
    startup_trials: int = setting(
        5,
        "Trials before the sampler uses their results, and before the first one is pruned",
        low=1,
        high=10_000,
    )
    warmup_steps: int = setting(0, "Steps per agent before a run can be pruned", low=0, high=10**12)


class Sweep(NamedTuple):
    """A study file with a sweep, read.

    file and overrides: what ``config.load`` takes for the settings that are not swept; base: their
    configuration, and sizes its numbers of agents and regions. statistic: name of the objective, RETURN or
    one of the domain. higher: whether higher values are better. ranks: the most for each run, None if the
    file does not say.
    """

    name: str
    where: str
    folder: Path
    file: str
    overrides: tuple[str, ...]
    base: Config
    sizes: tuple[int, int]
    ranges: Mapping[str, Range]
    options: Options
    statistic: str
    higher: bool
    ranks: int | None

    def run(self, number: int, of: int, drawn: Mapping[str, Any] | None) -> StudyRun:
        """Trial ``number``, from 0, of so many; drawn: what a sampler has drawn for each range.

        With None, the run of the other settings stands for a trial that nothing is known of.
        BadInput: the configuration is refused, as a combination of values can be.
        """
        swept = [f"{key}={self.ranges[key].word(value)}" for key, value in (drawn or {}).items()]
        words = (*self.overrides, *swept)
        config = load(self.file, words) if swept else self.base
        same = config.domain_section == self.base.domain_section
        name, sizes = f"trial-{number:03}", self.sizes if same else _sizes(_domain(config))
        return StudyRun(
            number + 1, of, name, self.folder / name, self.name, "", self.file, words, config, *sizes
        )

    def drawn(self, config: Config) -> dict[str, Any] | None:
        """What a sampler has drawn for a trial with this configuration; None: it is not in the ranges."""
        values = settings.flat(config)
        drawn = {key: one.drawn(values[key]) if key in values else None for key, one in self.ranges.items()}
        return None if None in drawn.values() else drawn


def load_sweep(file: str, output: str | None = None, overrides: Sequence[str] = ()) -> Sweep:
    """The sweep in a study file; checked before anything runs.

    output: the folder of the trials; runs/ and the file's name if None. overrides: for every trial.
    BadInput: a key, a range or the configuration of the other settings is refused.
    """
    name, where, file = Path(file).stem, printable(file), located(file, "studies/")
    content = parse(read(file), where)
    if SWEEP not in content:
        raise BadInput(
            f"{where} has no sweep, and --sampler is given: leave it out, or add ranges to the file"
        )
    content = mapping(content, where, KEYS, needed=("config",))
    path = configuration_in(content, file, f"{where}: ")
    fixed = [*words_of(content.get("settings"), f"{where}: settings"), *overrides]
    base = _base(path, fixed, where)
    entry, here = mapping(content[SWEEP], f"{where}: {SWEEP}", needed=(RANGES,)), f"{where}: {SWEEP}"
    ranges = ranges_of(entry[RANGES], base, f"{here}.{RANGES}")
    _require_free(ranges, fixed, here)
    others = {key: value for key, value in entry.items() if key != RANGES}
    options = settings.build(Options, others, here)
    domain = _domain(base)
    higher = _higher(options, domain.statistics, here)
    folder, ranks = Path(output or f"runs/{name}"), ranks_in(content, where)
    return Sweep(
        *(name, where, folder, path, tuple(fixed), base, _sizes(domain), ranges, options),
        *(options.statistic, higher, ranks),
    )


def _base(path: str, words: Sequence[str], where: str) -> Config:
    try:
        return load(path, words)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None


def _require_free(ranges: Mapping[str, Range], fixed: Sequence[str], where: str) -> None:
    """BadInput: a setting has both a range and a value."""
    for text in fixed:
        key = text.partition("=")[0].strip()
        if key in ranges:
            raise BadInput(f"{where}.{RANGES}.{key}: {key} is also set to one value: remove one of the two")


def _domain(config: Config) -> Domain:
    """The domain of a configuration."""
    return create(config.domain, config.domain_section)


def _sizes(domain: Domain) -> tuple[int, int]:
    """The numbers of agents and regions."""
    return len(domain.agents), len(domain.regions)


def _higher(options: Options, statistics: Sequence[Statistic], where: str) -> bool:
    """Whether higher values of the objective are better. BadInput: the domain has no such statistic, or does
    not say."""
    better = {RETURN: "higher", **{one.name: one.better for one in statistics}}
    if options.statistic not in better:
        raise BadInput(f"{where}: statistic is {shown(options.statistic)}: choose from {', '.join(better)}")
    direction = better[options.statistic] if options.direction == "auto" else options.direction
    if not direction:
        raise BadInput(
            f"{where}: the domain does not say whether higher values of {options.statistic} are better: set "
            "direction to higher or lower"
        )
    return direction == "higher"
