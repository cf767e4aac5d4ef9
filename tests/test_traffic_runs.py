"""Whole runs in the traffic domain: the same results everywhere, and what happens when SUMO fails."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import Program, launch, train

from dials_mpi.algorithm.evaluation import evaluate_scripted
from dials_mpi.core.seeding import OTHER_EPISODES
from dials_mpi.results.run import Run

SMALL = (
    "domain=traffic",
    "traffic.grid=[2,2]",
    "traffic.horizon=60",
    "total_steps=384",
    "evaluate_every=128",
    "retrain_every=256",
    "dataset_size=240",
    "evaluation_episodes=9",
    "envs_per_region=8",
    "ppo.rollout_steps=16",
    "policy.architecture=fnn",
    "policy.hidden=[16,8]",
    "influence.architecture=fnn",
    "influence.hidden=[8,8]",
    "influence.epochs=2",
)
"""A run of four junctions in a few seconds: 3 segments, 2 refits, 9 episodes in parts of 8 and 1."""

STATISTICS = {
    "arrived": "vehicles",
    "scheduled": "vehicles",
    "travel_time": "s",
    "time_spent": "s",
    "time_lost": "s",
    "time_lost_p90": "s",
    "waiting_inside": "vehicles",
    "waiting_outside": "vehicles",
}
MEASURED = ("timing", "memory", "placement", "evaluation/wall_time")  # differ from run to run


def content(directory: Path) -> dict[str, np.ndarray]:
    """All datasets of a run but the measured ones."""
    found = {}
    with h5py.File(directory / "run.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if hasattr(item, "shape") else None)
    return {name: values for name, values in found.items() if not name.startswith(MEASURED)}


def assert_same(one: Path, other: Path, *without: str) -> None:
    ours, theirs = content(one), content(other)
    assert ours.keys() == theirs.keys() and len(ours) > 30
    for name, values in ours.items():
        if name not in without:
            np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run without mpirun: every phase takes its turn in the one process."""
    directory = tmp_path_factory.mktemp("alone") / "out"
    result = train(*SMALL, "--output", str(directory), timeout=120)
    assert (result.code, result.stderr) == (0, "")
    for policy in ("random", "trained", "actuated", "fixed", "greedy", "max-pressure", "never"):
        assert policy in result.stdout
    return directory


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_every_number_of_ranks_gives_the_same_results_bit_for_bit(alone, tmp_path, ranks):
    result = train(*SMALL, "--output", str(tmp_path / "out"), ranks=ranks, timeout=120)
    assert (result.code, result.stderr) == (0, "")
    assert_same(alone, tmp_path / "out", "events/simulator_failures", "events/rank")
    with h5py.File(tmp_path / "out" / "run.h5") as file:
        workers = ranks - 1
        assert file["placement/rank"][:].tolist() == [i * workers // 4 + 1 for i in range(4)]
        assert file["events/simulator_failures"][:].tolist() == [[0] * ranks] * 4


def test_training_on_the_global_simulator_twice_is_the_same(tmp_path):
    for name, ranks in (("one", None), ("two", 2)):
        how = ("mode=global", "--output", str(tmp_path / name))
        result = train(*SMALL, *how, ranks=ranks, timeout=120)
        assert (result.code, result.stderr) == (0, "")
    assert_same_global = content(tmp_path / "one"), content(tmp_path / "two")
    for name, values in assert_same_global[0].items():
        if name not in ("events/simulator_failures", "events/rank"):
            np.testing.assert_array_equal(values, assert_same_global[1][name], err_msg=name)
    assert "influence/env_steps" not in assert_same_global[0]


def test_the_run_file_has_statistics_with_units_and_the_version_of_sumo(alone):
    with h5py.File(alone / "run.h5") as file:
        assert file.attrs["sumo"].count(".") == 2 and file.attrs["sumo_module"] in ("libsumo", "traci")
        for name, unit in STATISTICS.items():
            series = file[f"evaluation_statistics/{name}"]
            assert series.shape == (4, 9) and series.attrs["unit"] == unit
            for policy in ("random", "actuated", "fixed", "greedy", "max-pressure", "never"):
                reference = file[f"reference_statistics/{policy}/{name}"]
                assert reference.shape == (9,) and reference.attrs["unit"] == unit
        # Who never switches starves two of four ways, and it shows.
        starved, served = (file[f"reference_statistics/{name}"] for name in ("never", "greedy"))
        assert starved["waiting_inside"][:].mean() > 2 * served["waiting_inside"][:].mean()
        assert starved["time_lost"][:].mean() > 1.5 * served["time_lost"][:].mean()


def test_evaluate_plays_a_run_and_every_hand_coded_policy(alone, tmp_path):
    returns = {}
    for policy in ("trained", "actuated", "fixed", "greedy", "max-pressure", "never"):
        out = tmp_path / f"{policy}.json"
        arguments = (str(alone), "--policy", policy, "--episodes", "9", "--json", str(out))
        result = launch("-m", "dials_mpi.evaluate", *arguments)
        assert (result.code, result.stderr) == (0, "")
        assert "waiting outside:" in result.stdout and "travel time:" in result.stdout
        figures = json.loads(out.read_text())
        assert figures.keys() >= STATISTICS.keys()
        returns[policy] = figures["mean_return"]
        if policy == "never":
            run = Run.open(alone)
            played = evaluate_scripted(run.config, run.domain, policy, 9, OTHER_EPISODES)
            assert np.isclose(returns[policy], played.mean)
            assert np.isclose(figures["arrived"], played.statistic("arrived"))
    assert len(set(returns.values())) == 6


# SUMO fails ---------------------------------------------------------------------------------------------


def sumo_processes(program: Program) -> list[int]:
    """SUMO's own processes of a run with traci."""
    found = []
    for pid in program.processes():
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"/sumo"):
            found.append(pid)
    return found


def test_a_run_goes_on_when_sumo_is_killed_and_counts_it(tmp_path):
    out = tmp_path / "out"
    settings = (*SMALL, "total_steps=512", "retrain_every=512", "traffic.sumo=traci")
    words = ("-m", "dials_mpi.train", *settings, "--output", str(out))
    program = Program(*words, ranks=3, preloaded=True)
    killed, limit = 0, time.monotonic() + 60
    while program.running() and killed < 2 and time.monotonic() < limit:
        time.sleep(0.3)
        if not (out / "run.h5").exists():  # SUMO is only tried: a run without SUMO does not begin
            continue
        for pid in sumo_processes(program)[: 2 - killed]:  # four in a row would end the run
            os.kill(pid, signal.SIGKILL)
            killed += 1
    result = program.wait(timeout=150)
    assert result.code == 0, result.stderr
    assert result.left_over == [] and "Traceback" not in result.stderr
    with h5py.File(out / "run.h5") as file:
        failures = file["events/simulator_failures"][:].sum()
        assert file.attrs["finished"] and file.attrs["sumo_module"] == "traci"
        assert np.isfinite(file["evaluation/returns"][:]).all()
    # One that was killed when its work was done is not missed.
    assert 1 <= failures <= killed
    assert len([line for line in result.ours() if "SUMO" in line and "dropped" in line]) == failures


BREAKING = """
import os, sys
from dials_mpi import train
from dials_mpi.domains.sumo import simulation as sumo
step, count = sumo.Simulation.step, 0
rank = os.environ.get("PMI_RANK") or os.environ.get("OMPI_COMM_WORLD_RANK")
def breaking(self):
    global count
    count += len(self._lanes) == 2 * 8 * 4  # the training of two regions: 3 segments of 16 steps
    if rank == "1" and BREAKS(count):
        self._api.vehicle.getSpeed("nobody")  # SUMO's own error
    step(self)
breaking = sumo._guarded(breaking)
sumo.Simulation.step = breaking
train.main(sys.argv[1:])
"""


def broken(tmp_path: Path, breaks: str):
    driver = tmp_path / "driver.py"
    driver.write_text(BREAKING.replace("BREAKS(count)", breaks))
    return launch(str(driver), *SMALL, "--output", str(tmp_path / "out"), ranks=3, preloaded=True)


def test_a_run_goes_on_when_libsumo_fails_in_the_middle_of_a_segment(tmp_path):
    result = broken(tmp_path, "count in (20, 41)")
    assert result.code == 0, result.stderr
    lines = result.ours()
    assert len(lines) == 2 and all("rank 1: SUMO failed in breaking" in line for line in lines)
    with h5py.File(tmp_path / "out" / "run.h5") as file:
        assert file["events/simulator_failures"][:].sum(0).tolist() == [0, 2, 0]
        assert file.attrs["finished"]


def test_a_run_whose_sumo_fails_again_and_again_ends_at_once_and_says_why(tmp_path):
    result = broken(tmp_path, "count > 20")
    assert result.code not in (0, 2)
    assert result.left_over == []
    assert "rank 1 of 3" in result.stderr and "failed 4 times in a row" in result.stderr
    assert "nobody" in result.stderr


def test_without_sumo_there_is_one_sentence(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import sys\n"
        "sys.modules.update(dict.fromkeys(('sumo', 'libsumo', 'traci')))\n"
        "from dials_mpi import train\n"
        "train.main(sys.argv[1:])\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "SUMO_HOME": ""}
    result = launch(str(driver), *SMALL, "--output", str(tmp_path / "out"), ranks=3, environment=environment)
    assert result.code == 2
    assert len(result.ours()) == 1 and "pip install 'dials_mpi[traffic]'" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "out").exists()
