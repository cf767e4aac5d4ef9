"""The plan of a study: from its file, systems x methods x seeds, to the list of its runs."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from dials_mpi.config import Config, from_yaml, load
from dials_mpi.config.presets import located
from dials_mpi.config.schema import OWN_EPISODES
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.domains import create
from dials_mpi.results.membership import Membership
from dials_mpi.settings.mappings import PlainMapping
from dials_mpi.settings.yaml_text import parse, read, scalar
from dials_mpi.storage.hdf5 import READ_ERRORS
from dials_mpi.storage.runfile import RunFile

SWEEP = "sweep"
"""The key of a study file with ranges, which sweep_plan.py reads."""
KEYS = ("systems", "methods", "settings", "ranks")
SYSTEM_KEYS = ("config", "seeds", "settings")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")
MOST_RUNS = 10_000
LARGEST_SEED = 2**32 - 1
MOST_RANKS = 1_000_000
EPISODES, SHARED = "evaluation_seed", 0
"""The setting by which runs share the episodes of their evaluations, and its value in studies."""
MAPPINGS = {entry.name for entry in fields(Config) if isinstance(entry.default, PlainMapping)}
"""The settings, outside of sections, whose values are mappings."""


class StudyRun(NamedTuple):
    """One run of a study. number: from 1, ``of`` so many; file and overrides: what ``config.load`` takes.

    membership: None for a trial of a sweep, which has no method.
    """

    number: int
    of: int
    name: str
    directory: Path
    system: str
    method: str
    file: str
    overrides: tuple[str, ...]
    config: Config
    agents: int
    regions: int
    membership: Membership | None = None


class Study(NamedTuple):
    """A study file, read. ranks: the most for each run, None if the file does not say."""

    name: str
    runs: list[StudyRun]
    ranks: int | None


class _System(NamedTuple):
    """A configuration file, with overrides of its own, and the seeds of the system's runs."""

    file: str
    overrides: list[str]
    seeds: list[int]


class _Cell(NamedTuple):
    """A system with a method: what its runs have in common, all but the seed.

    settles_episodes: whether the study or the system's configuration sets ``evaluation_seed``.
    """

    membership: Membership
    file: str
    overrides: tuple[str, ...]
    config: Config
    agents: int
    regions: int
    settles_episodes: bool


def load_study(file: str, output: str | None = None, overrides: Sequence[str] = ()) -> Study:
    """The study in a YAML file; checked completely before anything runs.

    output: the folder of the runs; runs/ and the file's name if None. overrides: for every run.
    BadInput: a key, a name or a configuration is refused, or two runs would be the same.
    """
    _require_no_seed(overrides, "the command line")
    name, where, file = Path(file).stem, printable(file), located(file, "studies/")
    content = parse(read(file), where)
    if SWEEP in content:
        raise BadInput(f"{where} has a sweep, which needs a sampler: give --sampler optuna")
    content = mapping(content, where, KEYS, needed=("systems", "methods"))
    systems = _systems(content["systems"], file, where)
    methods = {
        method: _overrides(settings, f"{where}: methods.{method}")
        for method, settings in _named(content["methods"], f"{where}: methods").items()
    }
    count = sum(len(system.seeds) for system in systems.values()) * len(methods)
    if count > MOST_RUNS:
        raise BadInput(f"{where}: {count} runs are more than {MOST_RUNS}: make several studies of it")
    common = _overrides(content.get("settings"), f"{where}: settings")
    cells = {
        (system, method): _cell(
            Membership(name, system, method, order),
            base,
            [*common, *base.overrides, *words, *overrides],
            f"{where}: {system} with {method}",
        )
        for system, base in systems.items()
        for order, (method, words) in enumerate(methods.items())
    }
    folder = Path(output or f"runs/{name}")
    places = [(*place, cells[place[:2]]) for place in _grid(systems, methods)]
    kept = _kept_episodes(folder, places)
    runs = [_run(number, count, folder, *place, kept) for number, place in enumerate(places, 1)]
    _require_distinct(runs, where)
    return Study(name, runs, ranks_in(content, where))


def _cell(membership: Membership, base: _System, overrides: Sequence[str], where: str) -> _Cell:
    """The cell's configuration and sizes. BadInput: the configuration is refused."""
    try:
        config = load(base.file, overrides)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    domain, settled = create(config.domain, config.domain_section), _settles_episodes(config, overrides)
    sizes = len(domain.agents), len(domain.regions)
    return _Cell(membership, base.file, tuple(overrides), config, *sizes, settled)


def _settles_episodes(config: Config, overrides: Sequence[str]) -> bool:
    return config.shares_episodes or any(_key(word) == EPISODES for word in overrides)


def _kept_episodes(folder: Path, places: Sequence[tuple[str, str, int, _Cell]]) -> dict[str, int]:
    """The setting ``evaluation_seed`` of runs that exist, by name, where the study leaves it open."""
    names = [_name(*place[:3]) for place in places if not place[-1].settles_episodes]
    found = {}
    for name in names:
        with suppress(BadInput, *READ_ERRORS):  # which the states of the runs report
            if RunFile(folder / name).exists():
                text = RunFile.open(folder / name, unchecked=True).configuration()
                found[name] = from_yaml(text).evaluation_seed
    return found


def _run(
    number: int, of: int, folder: Path, system: str, method: str, seed: int, cell: _Cell, kept: dict[str, int]
) -> StudyRun:
    """One run; kept: as of ``_kept_episodes``.

    All runs of a study are evaluated on the same episodes, unless the study says otherwise or was begun by a
    program that did not do so.
    """
    name = _name(system, method, seed)
    words, config = cell.overrides, replace(cell.config, seed=seed)
    if not cell.settles_episodes:
        usual = OWN_EPISODES if OWN_EPISODES in kept.values() else SHARED
        config = replace(config, evaluation_seed=kept.get(name, usual))
        if config.shares_episodes:
            words = (*words, f"{EPISODES}={config.evaluation_seed}")
    place = number, of, name, folder / name, system, method
    return StudyRun(
        *place, cell.file, (*words, f"seed={seed}"), config, cell.agents, cell.regions, cell.membership
    )


def _name(system: str, method: str, seed: int) -> str:
    return f"{system}-{method}-seed{seed}"


def _grid(systems: Mapping[str, _System], methods: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """All runs, seed by seed, so that an interrupted study has runs of all systems and methods."""
    for seeds in zip_longest(*(system.seeds for system in systems.values())):
        for system, seed in zip(systems, seeds, strict=True):
            for method in methods if seed is not None else ():
                yield system, method, seed


def _systems(content: Any, file: str, where: str) -> dict[str, _System]:
    systems = {}
    for name, entry in _named(content, f"{where}: systems").items():
        here = f"{where}: systems.{name}"
        entry = mapping(entry, here, SYSTEM_KEYS, needed=("config", "seeds"))
        path = configuration_in(entry, file, f"{here}.")
        overrides = _overrides(entry.get("settings"), f"{here}.settings")
        systems[name] = _System(path, overrides, _seeds(entry["seeds"], f"{here}.seeds"))
    return systems


def configuration_in(entry: Mapping[Any, Any], file: str, where: str) -> str:
    """The path in the key ``config``, which is relative to the study file. BadInput: it is no path."""
    if not isinstance(entry["config"], str) or not entry["config"]:
        raise BadInput(f"{where}config is {shown(entry['config'])}, but must be the path of a configuration")
    return os.path.normpath(os.path.join(os.path.dirname(file), entry["config"]))


def words_of(content: Any, where: str) -> list[str]:
    """Settings as on the command line of a run, from a mapping of nested or dotted keys.

    BadInput: it is no mapping, or has a key in both ways.
    """
    settings = {} if content is None else content
    if not isinstance(settings, dict):
        raise BadInput(f"{where} is {shown(content)}, but must be settings: lines like 'ppo.clip: 0.2'")
    words = [f"{key}={scalar(value)}" for key, value in _dotted(settings)]
    keys = [_key(word) for word in words]
    for key in keys:
        if keys.count(key) > 1:
            raise BadInput(f"{where}: {printable(key)} is set twice, dotted and nested: keep one of the two")
    return words


def _dotted(settings: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Dotted keys and values; a mapping is a section, unless it is the value of a setting."""
    for key, value in settings.items():
        if isinstance(value, dict) and "." not in str(key) and key not in MAPPINGS:
            yield from ((f"{key}.{name}", inner) for name, inner in value.items())
        else:
            yield key, value


def _key(word: str) -> str:
    return word.partition("=")[0].strip()


def _overrides(content: Any, where: str) -> list[str]:
    """``words_of``, which may not set the seed."""
    words = words_of(content, where)
    _require_no_seed(words, where)
    return words


def _require_no_seed(overrides: Sequence[str], where: str) -> None:
    if any(_key(text) == "seed" for text in overrides):
        raise BadInput(f"{where}: seed is set for each run: give the seeds of its system")


def _seeds(content: Any, where: str) -> list[int]:
    """A number of seeds, from 0 on, or a list of them."""
    if _whole(content, 1, MOST_RUNS):
        return list(range(content))
    if (
        not isinstance(content, list)
        or not content
        or not all(_whole(one, 0, LARGEST_SEED) for one in content)
    ):
        raise BadInput(
            f"{where} is {shown(content)}, but must be how many (from 1 to {MOST_RUNS}), or a list such as "
            "[0, 1, 2]"
        )
    if len(set(content)) < len(content):
        raise BadInput(f"{where} is {shown(content)}, which has a seed twice: keep one of the two")
    return content


def ranks_in(content: Mapping[Any, Any], where: str) -> int | None:
    """The key ``ranks`` of a study file, None without it. BadInput: it is no valid number."""
    ranks = content.get("ranks")
    if ranks is not None and not _whole(ranks, 1, MOST_RANKS):
        must = f"a whole number from 1 to {MOST_RANKS}"
        raise BadInput(f"{where}: ranks is {shown(ranks)}, but must be {must}")
    return ranks


def _whole(value: Any, low: int, high: int) -> bool:
    return type(value) is int and low <= value <= high


def _named(content: Any, where: str) -> dict[str, Any]:
    """A mapping whose keys are names, which become parts of directory names."""
    named = mapping(content, where)
    for name in named:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadInput(f"{where}: {shown(name)} is no name for directories: use letters, digits, . _ + -")
    return named


def mapping(
    content: Any, where: str, known: Sequence[str] = (), needed: Sequence[str] = ()
) -> dict[Any, Any]:
    """A mapping that is not empty. BadInput: it is no mapping, has an unknown key, or lacks a needed one."""
    if not isinstance(content, dict) or not content:
        found = "an empty mapping" if content == {} else shown(content)
        raise BadInput(f"{where} is {found}, but must be a mapping: lines like 'key: value'")
    for key in content if known else ():
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the keys are {', '.join(known)}"
            raise BadInput(f"{where}: unknown key {shown(key)}, {hint}")
    for key in needed:
        if key not in content:
            raise BadInput(f"{where}: there is no key {key}, which is needed")
    return content


def _require_distinct(runs: Sequence[StudyRun], where: str) -> None:
    """BadInput: two runs have the same directory, or the same settings."""
    for what, key in (("name", lambda run: run.name), ("settings", lambda run: run.config.digest())):
        seen: dict[str, StudyRun] = {}
        for run in runs:
            twin = seen.setdefault(key(run), run)
            if twin is not run:
                raise BadInput(
                    f"{where}: {twin.system} with {twin.method} and {run.system} with {run.method} have the "
                    f"same {what} for seed {run.config.seed}: change one of them"
                )
