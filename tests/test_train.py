"""Whole training runs: the command line, what a run leaves behind, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numba
import numpy as np
import pytest
import torch
from conftest import SMALL, Program, content, launch, mpirun, train, without_first_start

from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.algorithm.evaluation import evaluate
from dials_mpi.config import from_yaml, load
from dials_mpi.core.seeding import Purpose, streams
from dials_mpi.domains import create
from dials_mpi.train import main as train_main

N, EPISODES, SEGMENTS, HORIZON = 4, 3, 2, 20
PHASES = ("collect", "influence", "train", "wait", "communicate", "evaluate")


# The run file --------------------------------------------------------------------------------------------


@pytest.fixture
def run(trained):
    with h5py.File(trained(*SMALL, ranks=3) / "run.h5") as file:
        yield file


def test_attributes_say_where_the_run_came_from(run):
    attributes = dict(run.attrs)
    for name in ("creator", "git_commit", "python", "numba", "numpy", "h5py", "mpi4py", "mpi_library"):
        assert isinstance(attributes[name], str) and attributes[name], name
    assert attributes["format_version"] == 2
    assert attributes["numpy"] == np.__version__ and attributes["numba"] == numba.__version__
    assert (attributes["domain"], attributes["mode"], attributes["seed"]) == ("warehouse", "dials", 0)
    assert attributes["ranks"] == 3 and len(attributes["hosts"]) == 3
    assert len(set(attributes["hosts"])) == 1 and attributes["hosts"][0]
    assert attributes["finished"]


def test_the_resolved_configuration_is_stored(run):
    stored = from_yaml(run["config/0"].asstr()[()])
    assert stored == load(None, SMALL)
    assert run.attrs["config_digest"] == stored.digest()


@pytest.mark.quick
def test_evaluation(run):
    group = run["evaluation"]
    assert group["env_steps"][()].tolist() == [0, 128, 256]
    wall = group["wall_time"][()]
    assert wall.shape == (3,) and wall[0] > 0 and (np.diff(wall) > 0).all() and wall[-1] < 60
    returns = group["returns"][()]
    assert returns.shape == (3, EPISODES, N) and returns.dtype == np.float64
    assert (returns >= 0).all() and (returns <= HORIZON).all() and returns.any()


def test_influence(run):
    group = run["influence"]
    assert group["env_steps"][()].tolist() == [0, 128]
    for name in ("before", "after"):
        losses = group[f"cross_entropy_{name}"][()]
        assert losses.shape == (2, N) and (losses > 0).all() and (losses < 3).all()
    # One refit continues from the other: fresh networks are near log 4, and three epochs help.
    assert np.allclose(group["cross_entropy_before"][0], np.log(4), atol=0.2)
    assert group["cross_entropy_after"][()].mean() < group["cross_entropy_before"][()].mean()


@pytest.mark.quick
def test_training(run):
    group = run["training"]
    assert group["env_steps"][()].tolist() == [128, 256]
    for name in ("episode_return", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"):
        assert group[name].shape == (SEGMENTS, N), name
    for name in ("policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"):
        assert np.isfinite(group[name][()]).all(), name
    entropy, clipped = group["entropy"][()], group["clip_fraction"][()]
    assert (entropy > 1).all() and (entropy <= np.log(5) + 1e-6).all()
    assert (clipped >= 0).all() and (clipped <= 1).all()
    assert (group["value_loss"][()] >= 0).all()


def test_timing_of_each_rank(run):
    group = run["timing"]
    seconds = {phase: group[phase][()] for phase in PHASES}
    for phase, values in seconds.items():
        assert values.shape == (SEGMENTS + 1, 3, 2), phase
        assert (values >= 0).all(), phase
    wall = {phase: values[..., 0].sum(0) for phase, values in seconds.items()}
    assert wall["collect"][0] > 0 and (wall["collect"][1:] == 0).all()
    assert wall["evaluate"][0] > 0 and (wall["evaluate"][1:] == 0).all()
    assert (wall["train"][1:] > 10 * wall["train"][0]).all()
    assert (wall["influence"][1:] > 10 * wall["influence"][0]).all()
    # A rank waits without burning a core: in all it computes no longer than it was there.
    total = sum(values.sum((0, 1)) for values in seconds.values())
    assert total[1] <= total[0] + 0.3
    waiting = seconds["wait"][:, 0].sum(0)
    assert waiting[1] < 0.5 * waiting[0] + 0.1
    # Who trains waits for root to play, and root for them.
    assert (wall["wait"][1:] > 0.5 * (wall["collect"] + wall["evaluate"])[0]).all()
    assert wall["wait"][0] > 0.5 * wall["train"][1:].max()
    last = run["evaluation/wall_time"][-1]
    assert (sum(wall.values()) <= last + 1).all()


def test_memory_of_each_rank(run):
    peak = run["memory/peak_rss"][()]
    assert peak.shape == (3,) and (peak > 50e6).all() and (peak < 3e9).all()


@pytest.mark.parametrize("kind", ["policy", "predictor"])
def test_tables_describe_the_parameter_vectors(run, kind):
    parameters = run[f"{kind}/parameters"]
    assert parameters.dtype == np.float32 and parameters.shape[0] == N
    assert np.isfinite(parameters[()]).all()
    assert len(np.unique(parameters[()], axis=0)) == N, "each region's network is its own"
    tables = [json.loads(text) for text in run[f"{kind}/tables"].asstr()[()]]
    assert run[f"{kind}/table_of"][()].tolist() == [0] * N
    assert sum(int(np.prod(shape)) for _, shape in tables[0]) == parameters.shape[1]


def test_tables_rebuild_the_policies_with_torch_alone(run):
    """The last evaluation again, by torch's own layers filled from the table: the same returns."""
    config = from_yaml(run["config/0"].asstr()[()])
    domain = create(config.domain, config.domain_section)
    (table,) = [json.loads(text) for text in run["policy/tables"].asstr()[()]]

    def layers(vector):
        sizes = [int(np.prod(shape)) for _, shape in table]
        parts = torch.from_numpy(vector).split(sizes)
        named = {name: part.view(shape) for (name, shape), part in zip(table, parts, strict=True)}
        gru = torch.nn.GRUCell(named["gru.weight_ih"].shape[1], 16)
        gru.load_state_dict({key[4:]: value for key, value in named.items() if key.startswith("gru.")})
        return gru, named

    class Rebuilt:
        def __init__(self, random):
            self.random, self.layers = random, [layers(row) for row in run["policy/parameters"][()]]
            self.states = [torch.zeros(EPISODES, 16) for _ in range(N)]

        @torch.no_grad()
        def __call__(self, observations):
            uniforms = np.stack([stream.random(N, dtype=np.float32) for stream in self.random])
            actions = []
            for i, (gru, named) in enumerate(self.layers):
                x = torch.from_numpy(observations[i]).float()
                self.states[i] = gru(x, self.states[i])
                x = torch.relu(self.states[i] @ named["second.weight"].T + named["second.bias"])
                outputs = x @ named["head.weight"].T + named["head.bias"]
                cumulative = outputs[:, :-1].softmax(-1).cumsum(-1)[:, :-1]
                actions.append((torch.from_numpy(uniforms[:, i : i + 1]) >= cumulative).sum(-1).numpy())
            return np.stack(actions)

    simulators = streams(config.seed, Purpose.EVALUATION, EPISODES, SEGMENTS)
    random = streams(config.seed, Purpose.EVALUATION_ACTIONS, EPISODES, SEGMENTS)
    again = collect(domain, simulators, lambda *_: Rebuilt(random)).returns
    assert (again == run["evaluation/returns"][-1]).all()


@pytest.mark.quick
def test_stored_networks_give_the_last_evaluation_again(run):
    config = from_yaml(run["config/0"].asstr()[()])
    domain = create(config.domain, config.domain_section)
    policies = joint.policies(config, domain, run["policy/parameters"][()])
    predictors = joint.predictors(config, domain, run["predictor/parameters"][()])
    again = evaluate(config, domain, policies, predictors, EPISODES, segment=SEGMENTS)
    assert (again.returns == run["evaluation/returns"][-1]).all()
    assert np.allclose(again.cross_entropy, run["evaluation/cross_entropy"][-1], rtol=1e-5)


def test_the_run_can_be_read_while_it_goes_on(tmp_path):
    """Rows appear one after another, to a plain reader; one that never closes the file does no harm."""
    longer = (*SMALL, "total_steps=2560", "retrain_every=2560", "evaluation_episodes=20")
    program = Program("-m", "dials_mpi.train", *longer, "--output", str(tmp_path), ranks=2)
    path, seen, held = tmp_path / "run.h5", set(), None
    limit = time.monotonic() + 60
    while program.running() and time.monotonic() < limit:
        try:
            with h5py.File(path, locking=False) as file:
                steps = file["evaluation/env_steps"][()].tolist()
                assert steps == [128 * k for k in range(len(steps))]
                seen.add(len(steps))
        except (OSError, KeyError, RuntimeError):  # not there yet, or just being written
            pass
        if held is None and seen:
            reader = "import h5py, sys; f = h5py.File(sys.argv[1]); import time; time.sleep(60)"
            held = Program("-c", reader, str(path))
        time.sleep(0.01)
    result = program.wait()
    assert held is not None and held.running()
    held.kill()
    held.process.communicate()
    assert (result.code, result.stderr) == (0, "")
    assert len(seen) >= 3, "the rows came all at once"
    with h5py.File(path) as file:
        assert len(file["evaluation/env_steps"]) == 21 and file.attrs["finished"]


def test_what_a_batch_log_shows(tmp_path):
    """Plain lines with progress, the table at the end; the default directory's name says what it is."""
    result = train(*SMALL, "seed=5", "mode=untrained", ranks=3, cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "")
    directory = Path("runs") / "warehouse-4-untrained-seed5"
    assert (tmp_path / directory / "run.h5").is_file()
    assert "\x1b" not in result.stdout
    for part in ("256 of 256 steps", "return", "ETA", "agent-steps/s"):
        assert part in result.stdout, part
    for policy in ("random", "trained", "closest", "oldest"):
        assert policy in result.stdout, policy
    assert result.stdout.count(str(directory / "run.h5")) == 1


# What is refused -----------------------------------------------------------------------------------------


def refused(tmp_path: Path, arguments: list[str], ranks: int | None, **how: object) -> str:
    """The one sentence on stderr of a command that ends with exit code 2 and starts nothing."""
    result = train(*arguments, ranks=ranks, cwd=tmp_path, **how)
    assert result.code == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1 and result.ours() == [result.stderr.rstrip("\n")], result.stderr
    assert not (tmp_path / "runs").exists()
    return result.stderr


@pytest.mark.parametrize("ranks", [None, 3])
@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["ppo.learning_rat=1e-4"], "ppo.learning_rate"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--config", "bad.yaml"], "bad.yaml, line 2"),
        (["seed"], "key=value"),
        (["--nonsense"], "--nonsense"),
        ([*SMALL, "--output", "used"], "already"),
        ([*SMALL, "--output", "bad.yaml/below"], "--output"),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, arguments, part, ranks):
    (tmp_path / "bad.yaml").write_text("mode: [dials\n")
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "run.h5").write_bytes(b"precious")
    assert part in refused(tmp_path, arguments, ranks)
    assert (tmp_path / "used" / "run.h5").read_bytes() == b"precious"


def test_more_ranks_than_regions_and_root(tmp_path):
    message = refused(tmp_path, [*SMALL], 6)
    assert "6 ranks" in message and "at most 5" in message


def test_no_mpi_library(tmp_path):
    nowhere = {"MPI4PY_LIBMPI": str(tmp_path / "libmpi.so")}
    assert "no MPI library" in refused(tmp_path, [*SMALL], None, environment=nowhere)


@pytest.mark.parametrize(
    "names", [("PMI_SIZE", "PMI_RANK"), ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")]
)
def test_a_launcher_of_another_mpi(tmp_path, names):
    """It starts four processes, each of which sees itself alone: the first says so, the others are silent."""
    first = dict(zip(names, ("4", "0"), strict=True))
    assert "4 ranks" in refused(tmp_path, [*SMALL], None, environment=first)
    second = dict(zip(names, ("4", "1"), strict=True))
    result = train(*SMALL, cwd=tmp_path, environment=second)
    assert (result.code, result.stdout, result.stderr) == (2, "", "")


@pytest.mark.parametrize("ranks", [None, 3])
def test_help_is_shown_once(ranks):
    result = train("--help", ranks=ranks)
    assert (result.code, result.stderr) == (0, "")
    assert result.stdout.count("usage:") == 1
    assert "mpirun -n" in result.stdout and "--output DIR" in result.stdout


@pytest.mark.parametrize("ranks", [None, 3])
def test_the_printed_configuration_reads_back(tmp_path, ranks):
    result = train(*SMALL, "--print-config", ranks=ranks, cwd=tmp_path)
    assert (result.code, result.stderr) == (0, "")
    assert from_yaml(result.stdout) == load(None, SMALL)
    assert not (tmp_path / "runs").exists()


def test_a_run_is_continued_with_its_own_configuration(trained, tmp_path, in_process):
    """Settings on the command line change it; a file, or a directory without a run, is read as before."""

    def printed(*arguments: object):
        said = in_process(train_main)(*arguments, "--print-config")
        assert (said.code, said.stderr) == (0, "")
        return from_yaml(said.stdout)

    directory = trained(*SMALL, ranks=3)
    assert printed("--resume", "--output", directory) == load(None, SMALL)
    longer = printed("--resume", "--output", directory, "total_steps=512", "silence=5")
    assert longer == load(None, (*SMALL, "total_steps=512", "silence=5"))
    assert printed("--resume", "--output", directory, "--config", "traffic/4") == load("traffic/4")
    assert printed("--resume", "--output", tmp_path / "none") == printed("--output", directory) == load(None)


def test_settings_may_stand_before_and_after_options():
    result = launch("-m", "dials_mpi.train", "seed=3", "--print-config", "mode=global")
    assert (from_yaml(result.stdout).seed, from_yaml(result.stdout).mode) == (3, "global")


def test_the_script_for_a_laptop_starts_no_more_ranks_than_can_be_used(tmp_path):
    """Four regions and root; a single one where the cores leave none beside the global ranks."""
    paths = [str(Path(mpirun()).parent), str(Path(sys.executable).parent), os.environ["PATH"]]
    script = Path(__file__).parents[1] / "jobs" / "laptop.sh"
    cores = len(os.sched_getaffinity(0))
    for k, words in enumerate(([], ["schedule=overlapped", f"global_ranks={cores + 1}"])):
        done = subprocess.run(
            [script, *SMALL, *words, "--output", str(tmp_path / str(k))],
            env={**os.environ, "PATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        started = len(content(tmp_path / str(k) / "run.h5")["memory/pss"])
        said = without_first_start(done.stderr)
        assert done.returncode == 0 and said.startswith(f"dials_mpi: {started} rank")
        assert said.count("\n") == 1  # what --print-ranks says of its number
        assert started == (1 if words else min(5, cores + 1))


@pytest.mark.parametrize(
    ("cores", "words", "ranks"),
    [
        (64, [], 5),
        (2, [], 3),
        (64, ["mode=global"], 1),
        (64, ["schedule=overlapped", "global_ranks=3"], 7),
        (2, ["schedule=overlapped", "global_ranks=3"], 1),
        (3, ["schedule=overlapped", "global_ranks=3"], 4),
    ],
)
def test_the_ranks_that_suit_a_machine(monkeypatch, capsys, cores, words, ranks):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    with pytest.raises(SystemExit, match="0"):
        train_main([*SMALL, *words, "--print-ranks"])
    printed = capsys.readouterr()
    assert printed.out == f"{ranks}\n"  # for scripts
    assert printed.err.startswith(f"dials_mpi: {ranks} rank") and printed.err.count("\n") == 1
    if ranks > 1:
        workers, used = ranks - (3 if words else 1), 7 if words else 5
        assert f"and {workers} for 4 regions" in printed.err and f"can use {used})" in printed.err
