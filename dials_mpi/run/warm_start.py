"""A run that starts with the weights of another one: which agent or region takes whose, and what must agree.

Root reads the other run once, before the ranks begin. Optimisers and steps start at zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dials_mpi import settings
from dials_mpi.core.errors import BadInput
from dials_mpi.core.text import printable, shown
from dials_mpi.domains.members import OWNERS
from dials_mpi.learning.tables import Table, shared_by, size, tables
from dials_mpi.run.session import InitialWeights, SessionStart
from dials_mpi.settings.yaml_text import scalar

if TYPE_CHECKING:
    from dials_mpi.config import Config
    from dials_mpi.domains.base import Domain
    from dials_mpi.results.run import Run

KEYS = {"policy": "policies_from", "predictor": "predictors_from"}
"""The setting that names the other run, by kind of network."""

AGREEING = {
    "policy": ("policy.architecture", "policy.hidden", "policy.arguments"),
    "predictor": tuple(f"influence.{key}" for key in ("architecture", "hidden", "arguments", "heads")),
}
"""Settings that decide what the parameters of a network mean."""

LISTED = 20
"""A note lists so many agents or regions; the run file has all."""


class Network(NamedTuple):
    """What networks that can take each other's parameters have in common; outputs: in words."""

    inputs: int
    outputs: str
    table: Table


def names(config: Config) -> list[str]:
    """The datasets of a checkpoint that another run's weights replace, as the configuration says."""
    return [f"{kind}/parameters" for kind, key in KEYS.items() if getattr(config, key)]


def with_weights(start: SessionStart, domain: Domain) -> SessionStart:
    """A session that begins a run, with the weights that its configuration takes from others, and a note on
    each kind.

    BadInput: a run that it names cannot be read, or its networks do not fit.
    """
    weights, notes = InitialWeights(), []
    for kind, key in KEYS.items():
        place = getattr(start.config, key)
        if place:
            run, theirs, env_steps = _read(key, place, kind)
            taken = _taken(f"{key}={printable(place)}", kind, start.config, domain, run)
            weights[f"{kind}/parameters"] = _rows(kind, start.config, domain, theirs, taken)
            weights.described |= _described(key, run.config, env_steps, taken)
            notes.append(_note(kind, place, env_steps, taken))
    return start._replace(weights=weights, notes=(*start.notes, *notes))


def _read(key: str, place: str, kind: str) -> tuple[Run, np.ndarray, int]:
    """The other run, its parameters [N or R, P], and the steps after which it had them.

    BadInput: it cannot be read, or has no network of this kind.
    """
    from dials_mpi.results.run import Run  # loads numba
    from dials_mpi.storage.checksum import Changed

    try:
        run = Run.open(place)
        if kind == "predictor" and run.config.mode == "global":
            raise BadInput(
                f"{printable(place)} is a run with mode=global, which has no predictors: give one with "
                "mode=dials or untrained"
            )
        return run, run.parameters(kind), run.env_steps
    except Changed as error:  # whose remedies are others
        raise BadInput(
            f"{key}: another program has changed the run in {printable(place)}: give another run, or an "
            "archived copy of it as it was"
        ) from error
    except BadInput as error:
        raise BadInput(f"{key}: {error}") from error


def _taken(where: str, kind: str, config: Config, domain: Domain, run: Run) -> list[int]:
    """For each agent or region the number of the one in the other run whose weights it takes.

    BadInput: there is none whose network fits.
    """
    _require_same_settings(where, kind, config, run.config)
    here, there = (_networks(kind, *one) for one in ((config, domain), (run.config, run.domain)))
    match = _by_size if config.match_by == "size" else _by_number
    found = match(where, OWNERS[kind], here, there)
    if kind == "predictor":
        return found
    # Agents that share a policy start with that of the first of them.
    return [found[i] for i in shared_by(config.policy, domain.agents, tables(config, domain)["policy"])]


def _require_same_settings(where: str, kind: str, config: Config, other: Config) -> None:
    """BadInput: a setting that decides what parameters mean differs."""
    keys: tuple[str, ...] = AGREEING[kind]
    if kind == "policy":
        keys = ("learner", *(("learner_arguments",) if config.own_learner else keys))
    here, there = settings.flat(config), settings.flat(other)
    for key in ("domain", *keys):
        if here[key] != there[key]:
            raise BadInput(
                f"{where} is a run with {key}={scalar(there[key])}, and here it is {scalar(here[key])}: set "
                f"{key} as there, or give another run"
            )


def _networks(kind: str, config: Config, domain: Domain) -> list[Network]:
    """The network of each agent or region."""
    every = tables(config, domain)[kind]
    if kind == "policy":
        agents = zip(domain.agents, every, strict=True)
        return [Network(one.observation_size, f"{one.actions} actions", table) for one, table in agents]
    regions = zip(domain.regions, every, strict=True)
    return [
        Network(one.input_size, f"sources of {shown(list(one.source_classes))} classes", table)
        for one, table in regions
    ]


def _by_number(where: str, owner: str, here: Sequence[Network], there: Sequence[Network]) -> list[int]:
    """Each takes the one of the same number. BadInput: there are more or fewer, or they differ in size."""
    if len(here) != len(there):
        raise BadInput(
            f"{where} has {len(there)} {owner}s, and this system has {len(here)}: set match_by=size, with "
            f"which {owner}s that need networks of the same size take turns with those there"
        )
    for i, (ours, theirs) in enumerate(zip(here, there, strict=True)):
        if ours != theirs:
            raise BadInput(
                f"{where} has other {owner}s ({owner} {i}: {_told(theirs)}; in this system: {_told(ours)}): "
                "give a run of a system with the same ones"
            )
    return list(range(len(here)))


def _by_size(where: str, owner: str, here: Sequence[Network], there: Sequence[Network]) -> list[int]:
    """Those here whose networks are equal take turns with those there that have such networks.

    BadInput: there is none for one of them.
    """
    turns: dict[Network, Iterator[int]] = {}
    for network in there:
        if network not in turns:
            turns[network] = cycle([j for j, other in enumerate(there) if other == network])
    for i, network in enumerate(here):
        if network not in turns:
            raise BadInput(
                f"{where} has no {owner} with a network of the size of {owner} {i} ({_told(network)}): give "
                "a run of a system that has one"
            )
    return [next(turns[network]) for network in here]


def _told(network: Network) -> str:
    """A network in words."""
    return f"{network.inputs} inputs, {network.outputs}, {size(network.table):,} parameters"


def _rows(kind: str, config: Config, domain: Domain, theirs: np.ndarray, taken: Sequence[int]) -> np.ndarray:
    """Their parameters in rows as this run has them, float32 [N or R, P]; a row may be followed by zeros."""
    lengths = [size(table) for table in tables(config, domain)[kind]]
    rows = np.zeros((len(lengths), max(lengths)), np.float32)
    for row, length, j in zip(rows, lengths, taken, strict=True):
        row[:length] = theirs[j, :length]
    return rows


def _described(key: str, other: Config, env_steps: int, taken: Sequence[int]) -> dict[str, Any]:
    """Which weights of the other run were taken, as attributes of the session in the run file, whose
    configuration names the run."""
    return {
        f"{key}_digest": other.digest(),
        f"{key}_env_steps": env_steps,
        f"{key}_numbers": np.array(taken, np.int64),
    }


def _note(kind: str, place: str, env_steps: int, taken: Sequence[int]) -> str:
    """Who takes whose weights, for the user."""
    owner, what = OWNERS[kind], "policies" if kind == "policy" else "predictors"
    begin = f"the {what} start with those of {printable(place)} after {env_steps:,} steps"
    if list(taken) == list(range(len(taken))):
        return f"{begin}: each {owner} with that of its own number"
    listed = ", ".join(map(str, taken[:LISTED]))
    rest = f" and so on (run.h5, attribute {KEYS[kind]}_numbers)" if len(taken) > LISTED else ""
    return f"{begin}: {owner}s 0 to {len(taken) - 1} with those of {owner}s {listed}{rest}"
