"""Run files made by hand, whose figures can be computed by hand."""

import csv

import numpy as np
import pytest

from dials_mpi.config import load
from dials_mpi.domains.city.statistics import STATISTICS
from dials_mpi.report.__main__ import main
from dials_mpi.storage.runfile import RunFile

# Two evaluations, two episodes, two agents: means 1 and 4, standard errors 0.5 and 1 over the episodes.
RETURNS = np.array([[[1.0, 0.0], [1.0, 2.0]], [[2.0, 4.0], [4.0, 6.0]]])


FOUR = np.concatenate([RETURNS, RETURNS + 1], axis=2)
"""The same of four agents, in a grid of two rows: means 1.5 and 4.5."""
# Seconds of wall-clock and CPU before each evaluation, of root and two others.
TIMING = {
    "train": [np.zeros((3, 2)), [[0, 0], [3600, 1800], [7200, 900]]],
    "collect": [[[360, 180], [0, 0], [0, 0]], np.zeros((3, 2))],
    "influence": [[[0, 0], [36, 18], [72, 9]], np.zeros((3, 2))],
}


def make_run(
    folder,
    name="run",
    returns=RETURNS,
    finished=True,
    refit=True,
    settings=(),
    mode="dials",
    timing=None,
    peak_rss=(2.0**29, 2.0**30),
    **attributes,
):
    words = ["warehouse.grid=[1,2]", "total_steps=2560", "evaluate_every=1280", f"mode={mode}"]
    config = load(None, [*words, *settings])
    (folder / name).mkdir(parents=True, exist_ok=True)
    run = RunFile(folder / name)
    run.create(config.to_yaml(), {"finished": False, **attributes}, {})
    for k, row in enumerate(returns):
        evaluation = {"env_steps": 1280 * k, "wall_time": 1.0 + 8 * k, "returns": row}
        if mode != "global":
            evaluation["cross_entropy"] = [0.5, 0.7 - 0.2 * k] * (np.shape(row)[1] // 2)
        run.append({f"evaluation/{key}": value for key, value in evaluation.items()})
        if k == 0 and refit and mode == "dials":
            losses = {"before": [1.0, 1.2], "after": [0.3, 0.5], "constant": [0.6, 0.8]}
            row = {f"influence/cross_entropy_{key}": value for key, value in losses.items()}
            run.append({"influence/env_steps": 0, **row})
        run.append({f"timing/{phase}": rows[k] for phase, rows in (timing or {}).items()})
    run.write({"memory/peak_rss": np.array(peak_rss), "memory/pss": np.array([1e8, 2e8])})
    if finished:
        run.write({"reference/random": np.full((2, 2), 0.5), "reference/oldest": np.full((2, 2), 5.0)})
        run.write({}, finished=True)
    run.commit()
    return str(folder / name)


CONTROLLERS = {"native": 60.0, "actuated": 40.0, "max-pressure": 31.0, "max-wave": 30.0, "random": 300.0}
"""The delays of the policies in a made city; longest-queue is not known."""


def make_city(
    folder,
    name,
    delays,
    scenario="resco:cologne8",
    agents=8,
    controllers=CONTROLLERS,
    finished=True,
    settings=(),
    mode="dials",
    timing=None,
):
    """A run with these delays [T, E], one evaluation every 1,280 steps; other statistics are 0."""
    words = ["domain=city", f"city.scenario={scenario}", f"mode={mode}", "dataset_size=7200"]
    words += ["envs_per_region=1", "ppo.memory_size=128", "total_steps=2560", "evaluate_every=1280"]
    config = load(None, [*words, *settings])
    (folder / name).mkdir(parents=True, exist_ok=True)
    run = RunFile(folder / name, {statistic.name: statistic.unit for statistic in STATISTICS})
    run.create(config.to_yaml(), {"finished": False}, {})
    for k, row in enumerate(np.array(delays, float)):
        others = {statistic.name: np.zeros(len(row)) for statistic in STATISTICS}
        returns = np.full((len(row), agents), -1.0 - k)
        values = {"env_steps": 1280 * k, "wall_time": 1.0 + k, "returns": returns}
        if mode != "global":
            values["cross_entropy"] = np.full(agents, 0.5)
        run.append({f"evaluation/{key}": value for key, value in values.items()})
        run.append({f"evaluation_statistics/{key}": v for key, v in {**others, "delay": row}.items()})
        run.append({f"timing/{phase}": rows[k] for phase, rows in (timing or {}).items()})
    run.write({"memory/peak_rss": np.array([1e8]), "memory/pss": np.array([1e8])})
    for policy, delay in controllers.items() if finished else ():
        run.write({f"reference/{policy}": np.full((2, agents), -2.0)})
        run.write({f"reference_statistics/{policy}/delay": np.array([delay - 1, delay + 1])})
    run.write({}, finished=finished)
    run.commit()
    return str(folder / name)


def rows_of(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def refused(capsys, *arguments):
    """What the report says, in one line, when it refuses its arguments."""
    with pytest.raises(SystemExit, match="2"):
        main(list(map(str, arguments)))
    said = capsys.readouterr().err
    assert said.startswith("dials_mpi: ") and said.count("\n") == 1
    return said
