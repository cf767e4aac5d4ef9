"""The plan of a study: from its file, systems x methods x seeds, to the list of its runs."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from dials_mpi.config import Config, load
from dials_mpi.config.presets import located
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.domains import create
from dials_mpi.settings.yaml_text import parse, read, scalar

SWEEP = "sweep"
"""The key of a study file with ranges, which sweep_plan.py reads."""
KEYS = ("systems", "methods", "settings", "ranks")
SYSTEM_KEYS = ("config", "seeds", "settings")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,60}")
MOST_RUNS = 10_000
LARGEST_SEED = 2**32 - 1
MOST_RANKS = 1_000_000


class StudyRun(NamedTuple):
    """One run of a study. number: from 1, ``of`` so many; file and overrides: what ``config.load`` takes."""

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
    """A system with a method: what its runs have in common, all but the seed."""

    file: str
    overrides: tuple[str, ...]
    config: Config
    agents: int
    regions: int


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
            base, [*common, *base.overrides, *words, *overrides], f"{where}: {system} with {method}"
        )
        for system, base in systems.items()
        for method, words in methods.items()
    }
    folder = Path(output or f"runs/{name}")
    runs = [
        _run(number, count, folder, *place, cells[place[:2]])
        for number, place in enumerate(_grid(systems, methods), 1)
    ]
    _require_distinct(runs, where)
    return Study(name, runs, ranks_in(content, where))


def _cell(base: _System, overrides: Sequence[str], where: str) -> _Cell:
    """The cell's configuration and sizes. BadInput: the configuration is refused."""
    try:
        config = load(base.file, overrides)
    except BadInput as error:
        raise BadInput(f"{where}: {error}") from None
    domain = create(config.domain, config.domain_section)
    return _Cell(base.file, tuple(overrides), config, len(domain.agents), len(domain.regions))


def _run(number: int, of: int, folder: Path, system: str, method: str, seed: int, cell: _Cell) -> StudyRun:
    name = f"{system}-{method}-seed{seed}"
    words = (*cell.overrides, f"seed={seed}")
    config = replace(cell.config, seed=seed)
    sizes = cell.agents, cell.regions
    return StudyRun(number, of, name, folder / name, system, method, cell.file, words, config, *sizes)


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
    """Settings as on the command line of a run, from a mapping of dotted keys. BadInput: it is no mapping."""
    settings = {} if content is None else content
    if not isinstance(settings, dict):
        raise BadInput(f"{where} is {shown(content)}, but must be settings: lines like 'ppo.clip: 0.2'")
    return [f"{key}={scalar(value)}" for key, value in settings.items()]


def _overrides(content: Any, where: str) -> list[str]:
    """``words_of``, which may not set the seed."""
    words = words_of(content, where)
    _require_no_seed(words, where)
    return words


def _require_no_seed(overrides: Sequence[str], where: str) -> None:
    if any(text.partition("=")[0].strip() == "seed" for text in overrides):
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
