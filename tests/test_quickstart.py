"""The first commands of the README, whole: agents learn. Marked slow."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import train

from dials_mpi.storage.runfile import RunFile

CONFIGS = Path(__file__).parents[1] / "configs"
WAREHOUSE, TRAFFIC, CITY = (CONFIGS / domain / "fast.yaml" for domain in ("warehouse", "traffic", "city"))


def trained(config, tmp_path) -> tuple[RunFile, str]:
    """The run that the README's command makes, and what was shown."""
    done = train("--config", str(config), "--output", str(tmp_path / "run"), ranks=3, timeout=1700)
    assert (done.code, done.stderr) == (0, "")
    return RunFile.open(str(tmp_path / "run")), done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_robots_first_command_beats_the_hand_coded_policies(tmp_path):
    run, shown = trained(WAREHOUSE, tmp_path)
    returns = run.read("evaluation/returns")[-1]
    for policy in ("oldest", "closest"):
        assert returns.mean() > run.read(f"reference/{policy}").mean(), policy
    # Every region learnt, not only some.
    assert np.all(returns.mean(axis=0) > 5 * run.read("reference/random").mean())
    assert "trained" in shown and "oldest" in shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_citys_first_command_beats_every_hand_coded_controller(tmp_path):
    run, _ = trained(TRAFFIC, tmp_path)
    learnt = run.read("evaluation/returns")[-1].mean()
    for policy in ("random", "actuated", "fixed", "greedy", "max-pressure", "never"):
        assert learnt > run.read(f"reference/{policy}").mean() + 2, policy
    # Not by starving the network.
    arrived = run.read("evaluation_statistics/arrived")[-1].mean()
    assert arrived > run.read("reference_statistics/actuated/arrived").mean()
    assert run.read("evaluation_statistics/waiting_outside")[-1].mean() < 1


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.skipif(find_spec("sumo_rl") is None, reason="sumo-rl, which has the map, is not installed")
def test_the_lights_of_cologne_are_better_than_their_own_and_the_actuated_program(tmp_path):
    run, _ = trained(CITY, tmp_path)
    learnt = run.read("evaluation_statistics/delay")[-1].mean()
    for policy in ("native", "actuated", "random"):
        assert learnt < 0.75 * run.read(f"reference_statistics/{policy}/delay").mean(), policy
    assert (run.read("evaluation_statistics/undeparted")[-1] == 0).all()
