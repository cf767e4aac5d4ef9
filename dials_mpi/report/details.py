"""What a run file says beside the results: sessions, versions, time by phase and rank, failures, a map."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.core.text import printable
from dials_mpi.storage.runfile import RunFile

PHASES = ("collect", "influence", "train", "wait", "communicate", "evaluate")
OTHER_ATTRIBUTES = (
    *("format_version", "archived", "finished", "domain", "mode", "seed"),
    *("env_steps", "config_digest", "ranks", "hosts", "rebuilt_from"),
    "references_paired",
)
"""Attributes of a file and of its sessions that are no versions."""


class Session(NamedTuple):
    """One session of a run.

    env_steps: steps per agent at its start. ranks: 0 if not recorded. hosts: distinct names. versions: of
    programs, as text. rebuilt_from: the changed file that the run file was rebuilt from, or "".
    """

    env_steps: int
    ranks: int
    hosts: Sequence[str]
    versions: Mapping[str, str]
    rebuilt_from: str


class Places(NamedTuple):
    """Where the agents are on a map of the system: names, and positions [N], x to the right and y up."""

    names: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True)
class Details:
    """sessions: the oldest first. phases: seconds (wall-clock, CPU) of each rank in all, [W, 2], of known
    phases; zeros of ranks that a session did not have. failures: of each rank's simulators, [W], empty if
    not known.
    """

    sessions: Sequence[Session]
    phases: Mapping[str, np.ndarray]
    failures: np.ndarray
    archived: bool


Series = Callable[[str, int], np.ndarray]
"""Reads a dataset by name with so many axes, one row per evaluation."""


def read_details(file: RunFile, series: Series) -> Details:
    """The details of a run. ValueError and others of READ_ERRORS: the file is not as a run writes it."""
    phases = {p: series(f"timing/{p}", 3) for p in PHASES if file.has(f"timing/{p}")}
    if any(rows.shape[2] != 2 for rows in phases.values()):
        raise ValueError("timing is not of two clocks")
    failures = "events/simulator_failures"
    return Details(
        _sessions(file),
        {phase: np.nan_to_num(rows).sum(axis=0) for phase, rows in phases.items()},
        series(failures, 2).sum(axis=0) if file.has(failures) else np.empty(0),
        file.archived(),
    )


def read_places(file: RunFile, agents: int) -> Places | None:
    """The places of the agents, if the file has them. ValueError: they are not those of so many agents."""
    if not file.has("map/x"):
        return None
    found = file.labelled("map")
    x, y = found["x"].values, found["y"].values
    names = found["name"].values.tolist() if "name" in found else [f"agent {k}" for k in range(agents)]
    if not x.shape == y.shape == (agents,) == (len(names),) or not np.isfinite([x, y]).all():
        raise ValueError("map is not of the agents")
    return Places(tuple(printable(str(name)) for name in names), x, y)


def _sessions(file: RunFile) -> list[Session]:
    sessions = file.session_attributes()
    if len(sessions) == 1:  # older programs wrote some attributes of a session to the file only
        sessions = [{**file.attributes(), **sessions[0]}]
    return [_session(attributes) for attributes in sessions]


def _session(attributes: Mapping[str, Any]) -> Session:
    versions = {name: value for name, value in attributes.items() if name not in OTHER_ATTRIBUTES}
    return Session(
        int(attributes.get("env_steps", 0)),
        int(attributes.get("ranks", 0)),
        _distinct(attributes.get("hosts", ())),
        {name: " and ".join(_distinct(value)) for name, value in sorted(versions.items())},
        " ".join(_distinct(attributes.get("rebuilt_from", ()))),
    )


def _distinct(value: Any) -> list[str]:
    texts = (" ".join(str(one).split()) for one in np.ravel(value))
    return list(dict.fromkeys(printable(text)[:200] for text in texts))
