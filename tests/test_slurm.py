"""The batch scripts under a real SLURM that the tests start on this machine: run with -m slurm.

apt-get install slurm-wlm munge (or your system's packages of them) is all that is needed.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from conftest import MARK, SMALL, launch, mpirun, train
from slurm_machine import Machine, missing

from dials_mpi.storage.runfile import RunFile

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(missing()), reason=f"no {', '.join(missing())} on this machine"),
]

JOBS = Path(__file__).parents[1] / "jobs"
NODES = ("--nodes=2", "--ntasks=3")
SECONDS = (*SMALL, "total_steps=25600", "evaluate_every=1280", "retrain_every=12800")
"""A run of some seconds, 20 segments."""
A_MINUTE = (*SMALL, "total_steps=307200", "evaluate_every=5120", "retrain_every=51200")
"""A run that takes longer than SLURM waits with its signal when the limit is a minute, 60 segments."""
ENDLESS = (*SMALL, "total_steps=99998720", "evaluate_every=1280", "retrain_every=99998720")


class Job(NamedTuple):
    """A submitted job, or task of an array. mark: in the environment of its processes."""

    number: str
    output: Path
    log: Path
    mark: str = ""

    def attempts(self) -> int:
        return self.says().count(": attempt ")

    def says(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def moments(self, what: str) -> list[datetime]:
        """When the batch script said this."""
        pattern = rf"^(\S+ \S+) job \S+: {what}"
        return [datetime.fromisoformat(at) for at in re.findall(pattern, self.says(), re.MULTILINE)]

    def processes(self, rank: int | None = None) -> list[int]:
        """Its processes that are alive; of one rank only, if given."""
        sought = {f"{MARK}={self.mark}".encode()}
        sought |= set() if rank is None else {f"PMI_RANK={rank}".encode()}
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if sought <= set((entry / "environ").read_bytes().split(b"\0")):
                    found.append(int(entry.name))
            except OSError:
                continue
        return found


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with Machine(tmp_path_factory.mktemp("slurm")) as machine:
        yield machine


@pytest.fixture
def submit(slurm: Machine, tmp_path: Path) -> Callable[..., Job]:
    """submit(*settings, options=()): jobs/train.sbatch as a user submits it, on two nodes."""

    def run(*settings: str, options: tuple[str, ...] = ()) -> Job:
        output, log, mark = tmp_path / "out", tmp_path / "job.log", uuid.uuid4().hex
        arguments = (*NODES, f"--output={log}", *options, str(JOBS / "train.sbatch"), *settings)
        number = slurm.submit(
            *arguments, "--output", str(output), cwd=tmp_path, environment={**on_path(), MARK: mark}
        )
        return Job(number, output, log, mark)

    return run


def on_path() -> dict[str, str]:
    """What a user's modules and virtual environment do: this python and its mpirun come first."""
    folders = (str(Path(sys.executable).parent), str(Path(mpirun()).parent), os.environ["PATH"])
    return {"PATH": os.pathsep.join(folders)}


def until(holds: Callable[[], object], what: str, timeout: float = 60) -> None:
    limit = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < limit, f"not within {timeout} s: {what}"
        time.sleep(0.2)


def has_checkpoint(job: Job) -> bool:
    assert "exit code" not in job.says(), job.says()
    return any(job.output.glob("checkpoint-*.h5"))


def contents(directory: Path, *groups: str) -> dict[str, np.ndarray]:
    """The datasets of a run file's groups."""
    with h5py.File(directory / "run.h5", locking=False) as file:
        return {f"{group}/{name}": array[()] for group in groups for name, array in file[group].items()}


def sessions(directory: Path) -> int:
    """How often the run was begun or gone on with: one configuration for each."""
    return len(contents(directory, "config"))


def assert_same_bits(unbroken: Path, other: Path) -> None:
    expected, found = (
        contents(where, "evaluation", "training", "policy", "predictor") for where in (unbroken, other)
    )
    assert expected.keys() == found.keys() >= {"evaluation/returns", "training/entropy", "policy/parameters"}
    for name in expected.keys() - {"evaluation/wall_time"}:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name, strict=True)


def test_a_job_that_meets_its_limit_queues_again_and_ends_as_if_unbroken(slurm, submit, tmp_path):
    # With this limit SLURM sends the script's signal as soon as it looks at the job, which it does every half
    # minute from its own start on. This test is the first one, so that no rank is just starting then.
    job = submit(*A_MINUTE, options=("--time=1",))
    unbroken = train(*A_MINUTE, "--output", str(tmp_path / "unbroken"), ranks=3, timeout=300)
    assert unbroken.code == 0, unbroken.stderr

    ended = slurm.wait(job.number, "COMPLETED", "FAILED", "TIMEOUT", "CANCELLED", timeout=400)
    assert ended["JobState"] == "COMPLETED", job.says()
    assert int(ended["Restarts"]) >= 1
    assert job.attempts() == int(ended["Restarts"]) + 1
    assert "exit code 75" in job.says() and "attempt 2, 3 ranks on one,two" in job.says()
    assert sessions(job.output) == job.attempts()
    assert_same_bits(tmp_path / "unbroken", job.output)


def test_a_run_stops_before_its_jobs_end_without_being_told(slurm, submit):
    # bash does not even notice SIGURG: the run itself has to ask when its job ends.
    job = submit(*ENDLESS, options=("--time=1", "--signal=B:URG@1"))
    until(lambda: slurm.job(job.number)["Restarts"] == "1", "queued again", timeout=100)
    slurm.call("scancel", job.number)
    (begun, *_), (stopped, *_) = job.moments("attempt 1"), job.moments("exit code 75")
    assert 30 < (stopped - begun).total_seconds() < 60, job.says()
    assert "SIGTERM" not in job.says()


def test_a_cancelled_job_stays_cancelled(slurm, submit):
    job = submit(*ENDLESS)
    until(lambda: has_checkpoint(job), "a checkpoint")
    slurm.call("scancel", job.number)
    until(lambda: not job.processes(), "all processes ended", timeout=15)
    until(lambda: "exit code" in job.says(), "the script's last words")
    time.sleep(8)  # longer than a requeued job has to wait
    ended = slurm.job(job.number)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0"), job.says()
    assert job.attempts() == 1 and not job.processes()


def test_a_job_whose_rank_was_killed_fails_and_the_same_line_goes_on(slurm, submit, trained):
    job = submit(*SECONDS)
    until(lambda: has_checkpoint(job), "a checkpoint")
    for process in job.processes(rank=2):
        os.kill(process, signal.SIGKILL)
    ended = slurm.wait(job.number, "COMPLETED", "FAILED", timeout=30)
    assert (ended["JobState"], ended["Restarts"]) == ("FAILED", "0"), job.says()
    until(lambda: not job.processes(), "all processes ended", timeout=15)

    again = submit(*SECONDS)
    ended = slurm.wait(again.number, "COMPLETED", "FAILED", timeout=90)
    assert ended["JobState"] == "COMPLETED", again.says()
    assert sessions(again.output) == 2
    assert_same_bits(trained(*SECONDS, ranks=3), again.output)


def test_a_job_that_loses_a_node_goes_on_when_it_is_back(slurm, submit, trained):
    job = submit(*SECONDS)
    until(lambda: has_checkpoint(job), "a checkpoint")
    # SLURM queues it again by itself, and takes the node back when that one reports.
    slurm.call("scontrol", "update", "nodename=two", "state=down", "reason=test")
    ended = slurm.wait(job.number, "COMPLETED", "FAILED", "NODE_FAIL", timeout=120)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "1"), job.says()
    assert sessions(job.output) == job.attempts() == 2
    assert_same_bits(trained(*SECONDS, ranks=3), job.output)


STARTS = {
    "the batch script's own process": ("{python}", 1),
    "srun without PMI": ("srun --mpi=none --ntasks=3 {python}", 0),
    "one task of srun": ("srun --mpi=none --nodes=1 --ntasks=1 {python}", 1),
    "srun with PMI2": ("srun --mpi=pmi2 --ntasks=3 {python}", 3),
    "mpirun, whose daemons srun starts": ("mpirun -n 3 {python}", 3),
    "one rank of mpirun": ("mpirun -n 1 {python}", 1),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_without_mpi_is_refused_and_no_other_one(slurm, tmp_path, start):
    """Three tasks on two nodes; what is refused is said once, and nothing is written."""
    line, ranks = STARTS[start]
    script, log = tmp_path / "job.sh", tmp_path / "job.log"
    program = f"{sys.executable} -m dials_mpi.train {' '.join(map(shlex.quote, SMALL))} --output out"
    script.write_text(f"#!/bin/bash\n{line.format(python=program)}\n")
    number = slurm.submit(*NODES, f"--output={log}", str(script), cwd=tmp_path, environment=on_path())
    ended = slurm.wait(number, "COMPLETED", "FAILED", timeout=120)
    if not ranks:
        assert ended["ExitCode"] == "2:0" and not (tmp_path / "out").exists()
        assert log.read_text().count("started 3 ranks (SLURM_STEP_NUM_TASKS)") == 1
    else:
        assert ended["JobState"] == "COMPLETED", log.read_text()
        assert RunFile.open(str(tmp_path / "out")).ranks() == [ranks]


def test_bad_input_is_not_tried_again(slurm, submit):
    job = submit("nonsense=1")
    ended = slurm.wait(job.number, "COMPLETED", "FAILED", timeout=60)
    assert (ended["JobState"], ended["Restarts"], ended["ExitCode"]) == ("FAILED", "0", "2:0"), job.says()
    assert "nonsense" in job.says()


def test_an_array_trains_each_seed_and_queues_them_one_by_one(slurm, tmp_path, trained):
    number = slurm.submit(
        "--array=0-1",
        *NODES,
        f"--output={tmp_path}/job%a.log",
        str(JOBS / "seeds.sbatch"),
        str(tmp_path / "seeds"),
        *SECONDS,
        cwd=JOBS.parent,
        environment=on_path(),
    )
    jobs = [
        Job(f"{number}_{seed}", tmp_path / "seeds" / f"seed{seed}", tmp_path / f"job{seed}.log")
        for seed in (0, 1)
    ]
    # The last task has the number of the array, and must not take the other one along into the queue.
    until(lambda: has_checkpoint(jobs[1]), "a checkpoint")
    slurm.call("scancel", "--batch", "--signal=USR1", jobs[1].number)
    for seed, job in enumerate(jobs):
        ended = slurm.wait(job.number, "COMPLETED", "FAILED", timeout=120)
        assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", str(seed)), job.says()
        assert RunFile.open(str(job.output)).attributes()["seed"] == seed
        assert sessions(job.output) == job.attempts() == seed + 1
        assert job.says().count("this job ends in") == job.attempts(), job.says()
    assert_same_bits(trained(*SECONDS, ranks=3), jobs[0].output)
    first, second = (contents(job.output, "evaluation")["evaluation/returns"] for job in jobs)
    assert not np.array_equal(first, second)


def test_an_array_does_each_run_of_a_study(slurm, tmp_path, trained):
    (tmp_path / "base.yaml").write_text("domain: warehouse\n")
    last = dict(word.split("=") for word in SECONDS)
    settings = ", ".join(f"{key}: {value}" for key, value in last.items())
    (tmp_path / "study.yaml").write_text(
        f"systems: {{four: {{config: base.yaml, seeds: 1, settings: {{{settings}}}}}}}\n"
        "methods: {dials: {mode: dials}, gs: {mode: global}, untrained: {mode: untrained}}\n"
    )
    arguments = (str(tmp_path / "study.yaml"), "--output", str(tmp_path / "out"))
    count = launch("-m", "dials_mpi.study", *arguments, "--count").stdout.strip()
    assert count == "3"
    number = slurm.submit(
        f"--array=1-{count}",
        *NODES,
        f"--output={tmp_path}/job%a.log",
        str(JOBS / "study.sbatch"),
        *arguments,
        cwd=JOBS.parent,
        environment=on_path(),
    )
    jobs = [
        Job(f"{number}_{k}", tmp_path / "out" / f"four-{method}-seed0", tmp_path / f"job{k}.log")
        for k, method in enumerate(("dials", "gs", "untrained"), 1)
    ]
    until(lambda: has_checkpoint(jobs[0]), "a checkpoint")
    slurm.call("scancel", "--batch", "--signal=USR1", jobs[0].number)
    for job, (mode, ranks, restarts) in zip(
        jobs, (("dials", 3, 1), ("global", 1, 0), ("untrained", 3, 0)), strict=True
    ):
        ended = slurm.wait(job.number, "COMPLETED", "FAILED", timeout=200)
        assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", str(restarts)), job.says()
        assert sessions(job.output) == job.attempts() == restarts + 1
        attributes = RunFile.open(str(job.output)).attributes()
        assert (attributes["mode"], attributes["ranks"]) == (mode, ranks)
    one = trained(*SECONDS, "mode=dials", "evaluation_seed=0", ranks=3)  # as in studies
    assert_same_bits(one, jobs[0].output)
