"""What a program needs to control a city's signals without this package; see export/traci_program.py."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dials_mpi.domains.city.approaches import MINIMUM_GAP, WAITING_UNIT
from dials_mpi.domains.city.global_simulator import WAITING_MEMORY, Rules
from dials_mpi.domains.city.net import Net, Signal
from dials_mpi.domains.city.scenario import Scenario
from dials_mpi.domains.sumo.simulation import OPTIONS

_RULES = ("decision_every", "yellow", "all_red", "minimum_green", "observe_waiting")


def control(scenario: Scenario, net: Net, rules: Rules) -> dict[str, Any]:
    """Files, window, rules and signals; all values fit into JSON, paths are absolute."""
    return {
        "network": _paths([scenario.network])[0],
        "routes": _paths(scenario.routes),
        "additional": _paths(scenario.additional),
        "begin": round(scenario.begin),
        "end": round(scenario.end),
        "options": [*OPTIONS, *WAITING_MEMORY],
        "minimum_gap": MINIMUM_GAP,
        "waiting_unit": WAITING_UNIT,
        **{name: getattr(rules, name) for name in _RULES},
        "signals": [_signal(signal, net) for signal in net.agents.values()],
    }


def _paths(files: Iterable[Path]) -> list[str]:
    return [str(path.resolve()) for path in files]


def _signal(signal: Signal, net: Net) -> dict[str, Any]:
    upstream = signal.upstream or ((),) * len(signal.incoming)
    approaches = [[lane, *before] for lane, before in zip(signal.incoming, upstream, strict=True)]
    return {
        "name": signal.name,
        "greens": list(signal.greens),
        "approaches": approaches,
        "lengths": [sum(net.lengths[lane] for lane in lanes) for lanes in approaches],
    }
