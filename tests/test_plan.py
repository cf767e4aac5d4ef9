"""The plan of a run, against arithmetic by hand on costs that are given; and the command."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import replace

import pytest
from conftest import SMALL, launch, train
from test_projection import FREE

from dials_mpi.bench.__main__ import main
from dials_mpi.bench.costs import Costs
from dials_mpi.bench.flop import fit_flop
from dials_mpi.bench.plan import Plan, choices, doubled, suggested, usual_ranks
from dials_mpi.bench.plan_tables import job
from dials_mpi.bench.projection import Line
from dials_mpi.bench.sample import Sample
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.parallel.communicator import POLL_SECONDS

MB = 1e6


def sample(regions=4, train=0.125, fit=2.0, collect=1.0, evaluate=0.5, config=None):
    """Costs in seconds: of a step, of a whole refit, of an episode of each kind."""
    costs = Costs(regions, train, fit / fit_flop(config or load(None, SMALL)), collect, evaluate)
    return Sample(costs, Line(100 * MB, 10 * MB), Line(150 * MB, 5 * MB), 60 * MB, "all")


def plan(words=(), ranks=3, nodes=1, **costs):
    """A plan of the small system, 4 regions and 2 segments of 128 steps with a refit before each."""
    return Plan(load(None, [*SMALL, *words]), sample(**costs), 0.25, FREE, ranks, nodes)


@pytest.mark.quick
def test_hours_are_the_sum_that_is_done_by_hand():
    own = plan()  # two workers with two regions each
    exchanges = 2 * 1 + 3 * 3 + 2 * 1 + 2 * 2 + 2 * 1
    # Training; two refits of 5 episodes; 3 evaluations and those of 3 policies; 2 checkpoints.
    seconds = 2 * 256 * 0.125 + 2 * (2 * 2.0 + 5 * 1.0) + 6 * 3 * 0.5 + 2 * 4 * 0.25
    seconds += exchanges * POLL_SECONDS
    assert own.hours * 3600 == pytest.approx(seconds)
    assert own.core_hours == pytest.approx(3 * own.hours)
    assert own.segment == pytest.approx(seconds / 2)
    assert plan(ranks=1).terms["train"] == pytest.approx(4 * 256 * 0.125)  # one rank does all
    whole = plan(["mode=global"], ranks=1)
    assert (whole.terms["train"], whole.terms["fit"], whole.terms["collect"]) == (4 * 256 * 0.125, 0, 0)


def test_memory_is_that_of_each_role_and_of_the_fullest_node():
    # 100 samples of 4 regions: 37 bits, 4 sources; an action and a reward, float32, of 4 agents.
    samples, acts = 100 * 4 * (5 + 4), 100 * 4 * 5
    played = 150 * MB + 4 * 5 * MB + samples + acts
    root = played + samples  # copies on their way to the workers
    alone = played + 5 * 4 * 4 * 16 + samples  # none, but the states of 4 policies in 5 episodes; datasets
    policy = 4 * (3 * 16 * (37 + 16 + 2) + 17 * 8 + 9 * 6)  # bytes; larger than a predictor
    each = 10 * MB + 100 * (5 + 4) + policy  # a region of a worker
    worker, one = 100 * MB + 2 * each, 100 * MB + each
    assert plan().memory == pytest.approx((root, worker, root + 2 * worker - 2 * 60 * MB))
    assert plan(ranks=1).memory.node == pytest.approx(alone + 4 * 10 * MB)
    assert plan(ranks=5, nodes=2).memory == pytest.approx((root, one, root + 2 * (one - 60 * MB)))


@pytest.mark.slow
def test_sizes_on_disk_are_those_of_a_run(tmp_path):
    words = [*SMALL, "policy.hidden=[128,128]", "influence.hidden=[128,128]"]
    assert train(*words, "--output", str(tmp_path / "run")).code == 0
    disk = Plan(load(None, words), sample(), 0.25, FREE, 1).disk
    checkpoints = sum(path.stat().st_size for path in (tmp_path / "run").glob("checkpoint-*.h5"))
    assert disk.checkpoints == pytest.approx(checkpoints, rel=0.05)
    assert disk.run_file == pytest.approx((tmp_path / "run" / "run.h5").stat().st_size, rel=0.1)
    datasets = sum(path.stat().st_size for path in (tmp_path / "run" / "datasets").iterdir())
    assert 0 < datasets <= disk.datasets + 3e4


def test_a_long_evaluation_suggests_to_play_while_others_train():
    words = ["evaluation_episodes=32", "dataset_size=640"]
    slow = plan(words, ranks=5, collect=4.0, evaluate=4.0)
    found = choices(slow, fixed=False)
    # 32 episodes in blocks of 8, and 4 agents: more than 16 global ranks have no less work each.
    assert {each.config.global_ranks for each in found} == {1, 2, 4, 8, 16}
    assert all(each.ranks == 4 + each.config.global_ranks for each in found)
    best = suggested(found)
    assert (best.config.schedule, best.config.global_ranks) == ("overlapped", 16)
    assert best.hours < slow.hours / 2
    quick = choices(plan(words, ranks=5, collect=1e-3, evaluate=1e-3), fixed=False)
    assert suggested(quick).config.schedule == "synchronous" and suggested(quick).config.global_ranks == 1
    assert {each.ranks for each in choices(replace(slow, ranks=4), fixed=True)} == {4}


def test_the_job_of_a_plan_has_its_ranks_and_a_quarter_more_than_it_needs():
    words = ["evaluation_episodes=32", "dataset_size=640"]
    slow = plan(words, ranks=5, nodes=2, collect=4.0, evaluate=4.0)
    best = suggested(choices(slow, fixed=False))
    line = job(best, slow, ["my city.yaml", *words])
    head, _, run = line.partition(" jobs/train.sbatch ")
    options = dict(re.findall(r"--([a-z-]+)=(\S+)", head))
    count = best.config.global_ranks
    assert (options["nodes"], options["ntasks"]) == ("2", f"{4 + count}") and count > 1
    changes = ["schedule=overlapped", f"global_ranks={count}"]
    assert shlex.split(run) == ["--config", "my city.yaml", *words, *changes]
    need = 1.25 * best.memory.node / math.ceil((4 + count) / 2) / MB
    assert need <= float(options["mem-per-cpu"].removesuffix("M")) < need + 50
    hours, minutes, seconds = map(int, options["time"].split(":"))
    assert (minutes % 10, seconds) == (0, 0)
    assert max(0.5, 1.25 * best.hours) <= hours + minutes / 60 < max(0.5, 1.25 * best.hours) + 1 / 6 + 1e-9
    alone = job(plan(["mode=global"], ranks=1), plan(["mode=global"], ranks=1), ["a.yaml", "mode=global"])
    assert "--ntasks=1 " in alone and alone.endswith(" --config a.yaml mode=global")


def test_what_grows_with_what():
    own = plan()
    rows = doubled(own)
    regions, steps, datasets = (rows[name] for name in ("regions", "total_steps", "dataset_size"))
    assert (regions.regions, regions.ranks, regions.held) == (8, 5, 2)
    assert regions.terms["train"] == own.terms["train"]
    assert regions.terms["collect"] == 2 * own.terms["collect"]
    assert regions.memory.root - own.memory.root == pytest.approx(4 * 5 * MB, rel=0.01)
    assert regions.disk.checkpoints == pytest.approx(2 * own.disk.checkpoints, rel=0.01)
    assert steps.terms["train"] == 2 * own.terms["train"] and steps.memory == own.memory
    assert datasets.terms["collect"] == 2 * own.terms["collect"]
    assert datasets.disk.datasets == 2 * own.disk.datasets


@pytest.mark.parametrize(
    ("words", "ranks", "said"),
    [
        ([], 6, "6 ranks are more than 4 regions"),
        (["global_ranks=3"], 3, "leave none for the regions"),
        (["mode=global"], 2, "mode=global trains on one rank"),
        ([], 0, "--ranks is 0"),
    ],
)
def test_ranks_that_cannot_be_used_are_refused(words, ranks, said):
    with pytest.raises(BadInput, match=said):
        usual_ranks(load(None, [*SMALL, *words]), ranks)


def test_options_that_do_not_belong_together_are_refused(in_process, tmp_path):
    (tmp_path / "a.yaml").write_text("warehouse: {grid: [2, 2]}\n")
    given, said = in_process(main), ["--plan", tmp_path / "a.yaml"]
    for words, message in (
        ([*said, "--project"], "--project is given beside --plan"),
        (["--nodes", "2"], "--nodes is given without --plan"),
        ([*said, "--nodes", "9"], "there are 5 ranks: give 1 to 5"),
        (["--plan", tmp_path / "b.yaml"], "b.yaml"),
    ):
        refused = given(*words)
        assert refused.code == 2 and message in refused.stderr and refused.stderr.count("\n") == 1


def test_the_command_plans_what_it_measures(tmp_path):
    (tmp_path / "a.yaml").write_text("warehouse: {grid: [2, 2]}\n")
    command = ("-m", "dials_mpi.bench", "--plan", "a.yaml", *SMALL, "--ranks", "3", "--json", "plan.json")
    done = launch(*command, cwd=tmp_path)
    assert (done.code, done.stderr) == (0, "Measuring on this machine, for one to three minutes ...\n")
    assert "4 regions, 256 steps per agent, 3 ranks on 1 node" in done.stdout
    assert re.search(r"^Submit: sbatch --nodes=1 --ntasks=3 .* --config a.yaml ", done.stdout, re.MULTILINE)
    found = json.loads((tmp_path / "plan.json").read_text())["plan"]
    assert 0 < found["hours"] < 0.1 and found["core_hours"] == pytest.approx(3 * found["hours"])
    memory = found["memory_bytes"]
    assert 50 * MB < memory["worker"] < 1000 * MB and memory["node"] < memory["root"] + 2 * memory["worker"]
    assert all(seconds > 0 for seconds in found["terms_seconds"].values())
