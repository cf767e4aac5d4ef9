"""Small cities for tests: irregular networks that SUMO's netgenerate makes, and their demand."""

import functools
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from dials_mpi.domains.city.net import read
from dials_mpi.domains.city.scenario import Scenario
from dials_mpi.domains.sumo import installation

resco = pytest.mark.skipif(find_spec("sumo_rl") is None, reason="sumo-rl is not installed")

_FOLDER = tempfile.TemporaryDirectory(prefix="dials_mpi-test-")


@functools.cache
def network(*options: str) -> Path:
    """A network that netgenerate makes with these options."""
    path = Path(_FOLDER.name, f"{len(list(Path(_FOLDER.name).iterdir()))}.net.xml")
    made = [installation.program("netgenerate"), *options, f"--output-file={path}"]
    installation._run(made)
    return path


def grid(*options: str) -> Path:
    """Two rows and columns of signals with turn lanes, 150 m apart."""
    size = ("--grid", "--grid.number=2", "--grid.length=150", "--grid.attach-length=150")
    lanes = ("--default.lanenumber=2", "--turn-lanes=1", "--no-turnarounds=true")
    return network(*size, *lanes, "--default-junction-type=traffic_light", *options)


@functools.cache
def busy(seconds: int = 300, period: float = 1.5) -> Scenario:
    """The grid with trips that cross it, more than its signals let through in time."""
    path = grid()
    net = read(path)
    before = {edge for edge in net.edges if edge in net.before}
    entries = sorted(set(net.edges) - before)
    exits = sorted(edge for edge in net.edges if not net.connections[edge])
    lines = []
    for i in range(int(seconds / period)):
        start, end = entries[i % len(entries)], exits[(5 * i + 3) % len(exits)]
        lines.append(f'<trip id="car{i}" depart="{100 + i * period:.2f}" from="{start}" to="{end}"/>')
    routes = path.with_name("busy.rou.xml")
    routes.write_text(f"<routes>{''.join(lines)}</routes>")
    return Scenario(path, (routes,), (), 100.0, 100.0 + seconds)


def settings(*more: str, seconds: int = 100) -> tuple[str, ...]:
    """Of the busy grid for its first seconds, and of a run that is over in a few of ours."""
    scenario = busy()
    return (
        *("domain=city", 'city.scenario=""', f"city.network={scenario.network}"),
        *(f"city.routes=[{scenario.routes[0]}]", "city.begin=100", f"city.horizon={seconds}"),
        *("total_steps=32", "evaluate_every=32", "retrain_every=32", f"dataset_size={2 * seconds}"),
        *("ppo.memory_size=32", "ppo.learning_rate=0.005"),
        *("evaluation_episodes=1", "mode=global", "envs_per_region=1", "policy.hidden=[16,8]", *more),
    )
