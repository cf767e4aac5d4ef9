"""The projection, against arithmetic by hand on run files that are made here."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import SMALL, launch

from dials_mpi.bench import projection
from dials_mpi.bench.costs import Costs, read_run
from dials_mpi.bench.link import ASSUMED, Link
from dials_mpi.bench.playing import Playing, measure_playing
from dials_mpi.bench.projection import Line, Model, compare, growing, project
from dials_mpi.config import load
from dials_mpi.config.schedule import segments
from dials_mpi.core.errors import BadInput
from dials_mpi.core.timing import PHASES
from dials_mpi.parallel.communicator import POLL_SECONDS
from dials_mpi.storage.runfile import RunFile

FREE = Link(1e30, 0.0, measured=True)
"""A link that costs but naps."""

ROWS = (
    # Steps; collect of root; influence and train of the workers, communicate of all ranks; evaluate of root.
    # Workers wait for the datasets while root collects, and root while they work.
    (0, 0.0, (0.0, 0.0), (0.0, 0.0), (0.1, 0.1, 0.1), 3.0),
    (128, 5.0, (2.0, 4.0), (6.0, 8.0), (12.0, 8.0, 5.5), 3.0),
    (256, 5.0, (4.0, 2.0), (10.0, 6.0), (14.0, 5.25, 9.0), 3.0),
)


def made(directory, rows=ROWS, words=(), holders=(1, 1, 2, 2), ranks=3, last_session=None, waited=None):
    """A run file of the small system on three ranks, two regions on each of two workers."""
    config = load(None, [*SMALL, *words])
    run = RunFile(directory, {})
    directory.mkdir()
    run.create(config.to_yaml(), {"finished": True}, {})
    run.write({"placement/rank": list(holders)}, ranks=last_session or ranks)
    for steps, collect, influence, train, communicate, evaluate in rows:
        row = {phase: np.zeros((ranks, 2)) for phase in ("collect", "influence", "train", "evaluate")}
        row["communicate"] = np.zeros((ranks, 2))
        row["collect"][0] = row["collect"][0] + collect
        row["evaluate"][0] = row["evaluate"][0] + evaluate
        for phase, seconds in (("influence", influence), ("train", train)):
            row[phase][-len(seconds) :] = np.array(seconds)[:, None]
        row["communicate"][:, 0] = communicate
        if waited is not None:
            row["wait"] = np.full((ranks, 2), waited)
        run.append({f"timing/{phase}": values for phase, values in row.items()} | {"timing/env_steps": steps})
        run.append({"evaluation/wall_time": 20.0 + steps})
    for steps in (0, 128)[: len(rows) - 1]:
        run.append({"influence/env_steps": steps})
    run.commit()
    return directory


def test_costs_are_those_of_the_slowest_rank_and_of_all_that_root_does(tmp_path):
    run = read_run(str(made(tmp_path / "run")))
    assert run.costs.regions == 4
    assert run.costs.train == pytest.approx((8 + 10) / 2 / 256)  # per region of the slowest, per step
    assert run.costs.collect == pytest.approx(10 / 2 / 5)  # two refits of 5 episodes
    assert run.costs.evaluate == pytest.approx(1)  # 3 episodes
    assert (run.held, run.steps, run.whole, run.wall) == (2, 256, True, 276)
    assert run.seconds == pytest.approx(
        {"train": 18, "fit": 8, "collect": 10, "evaluate": 9, "communicate": 0.1 + 0.5 + 0.25}
    )


def test_a_run_that_tells_waiting_apart_says_what_exchanges_take(tmp_path):
    directory = made(tmp_path / "run", waited=1.0)
    assert read_run(str(directory)).seconds["communicate"] == pytest.approx(0.1 + 12 + 14)


@pytest.mark.quick
def test_the_projection_is_the_sum_that_is_done_by_hand(tmp_path):
    run = read_run(str(made(tmp_path / "run")))
    model = Model.of(run.config, [run.costs], checkpoint=0.5, link=FREE)
    terms = project(run.config, model, 8)
    # Segments, evaluations, predictors at the start and after fits, collecting and fits, networks at the end.
    naps = 2 * 1 + 3 * 2 + 3 * 1 + 2 * 2 + 2 * 1
    by_hand = {
        "train": 18 / 2,  # one region per worker
        "fit": 2 * (4 / 2 + 4 / 2) / 2,  # two refits, each region's 2 s
        "collect": 2 * 5 / 4 * 8,  # in proportion to the regions
        "evaluate": (3 + 3) * 3 / 4 * 8,  # three, and three policies that need no training
        "communicate": naps * POLL_SECONDS,
        "checkpoint": 2 * (0.5 * 8 + POLL_SECONDS),
    }
    assert terms == pytest.approx(by_hand)
    assert tuple(terms) == projection.TERMS


@pytest.mark.parametrize("agents", [1, 2])
def test_exchanges_are_the_bytes_and_messages_of_all_regions(agents):
    config = load(None, [*SMALL, f"warehouse.block=[1,{agents}]"])
    model = Model.of(config, [Costs(4, 0, 0, 0, 0)], 0.0, Link(1000.0, 0.25, measured=True))
    # GRU 16 -> 8 -> 4 actions and the value; GRU 8 -> 8 -> 4 sources of 4 classes, or the 6 around two
    # robots; 37 inputs of each.
    inputs, sources = 37 * agents, 2 + 2 * agents
    policy = 3 * 16 * (37 + 16 + 2) + 8 * 17 + 5 * 9
    predictor = 3 * 8 * (inputs + 8 + 2) + 8 * 9 + 4 * sources * 9
    state = agents * (3 * policy + 1) + 3 * predictor + 1
    metrics, costs, losses = agents * 8 * 6, 8 * (2 * len(PHASES) + 3), 8 * 3
    sent = 2 * metrics + 3 * (4 * agents * policy + costs)  # two segments, three evaluations
    sent += 3 * 4 * predictor + 2 * (100 * (inputs + sources) + losses)  # two refits of 100 samples
    sent += 4 * agents * policy + 4 * predictor  # at the end
    direct, trees = 3 + 3 + 2 + 2, 2 + 3 + 2
    by_hand = direct * 7 * 0.25 + trees * 3 * 0.25 + (direct + trees) * POLL_SECONDS + 7 * sent / 1000
    terms = project(config, model, 7)
    assert terms["communicate"] == pytest.approx(by_hand)
    assert terms["checkpoint"] == pytest.approx(2 * (POLL_SECONDS + 7 * 0.25 + 7 * 4 * state / 1000))


def test_ranks_of_a_group_share_all_but_the_simulation():
    """Six ranks are two groups of three, which play eight episodes each."""
    words = ["global_ranks=6", "evaluation_episodes=16", "dataset_size=320"]
    config, link = load(None, [*SMALL, *words]), Link(1000.0, 0.25, measured=True)
    horizon = config.domain_section.horizon
    assert config.dataset_episodes == 16
    model = Model.of(config, [Costs(4, 1.0, 0, 4.0, 8.0)], 0.0, link, Playing(0.5))
    messages, actions = 2 * horizon * 0.25, 8 * horizon * 2 / 1000  # log2(3) < 2 rounds; of two bytes each
    assert model.evaluate == pytest.approx((messages, 8 * (0.5 + 1.5 / 3) + actions))
    assert model.collect == pytest.approx((messages, 8 * (0.5 + 0.5 / 3) + actions))
    alone = projection.exposed(config, [Costs(4, 1.0, 0, 4.0, 8.0)], FREE, Playing(0.5), regions=4)
    assert list(alone) == list(projection.GLOBAL_RANKS) and alone[1] > alone[4] > alone[8]
    # All sixteen episodes on a rank: one pass, which costs as much as four; here one for each eight.
    passing = Model.of(config, [Costs(4, 1.0, 0, 4.0, 8.0)], 0.0, FREE, Playing(0.0, once=4.0))
    assert passing.evaluate.each == pytest.approx(16 * 2 / 20 * 12 / 3)
    measured = measure_playing(config)
    assert measured.simulation > 0 and measured.once >= 0
    assert measure_playing(load(None, ["domain=traffic", "dataset_size=600"])) == Playing(), (
        "these share no agents"
    )
    # A third of the policies and a third of the messages come to each global rank.
    groups, one = (
        project(other, Model.of(other, [Costs(4, 0, 0, 0, 0)], 0.0, link), 6)["communicate"]
        for other in (config, load(None, [*SMALL, *words, "global_ranks=2"]))
    )
    sizes = projection.Sizes.of(config)
    networks = 3 * sizes.policies + 3 * sizes.predictor
    assert one - groups == pytest.approx(2 / 3 * (6 * 6 * 0.25 + 6 * networks / 1000))


def test_a_longer_run_with_other_datasets_costs_in_proportion(tmp_path):
    """The same system with 5 segments of 128 steps, a refit before the first, and twice as much of all."""
    run = read_run(str(made(tmp_path / "run")))
    longer = ["total_steps=640", "retrain_every=640", "dataset_size=200", "evaluation_episodes=6"]
    config = load(None, [*SMALL, *longer])
    terms = project(config, Model.of(config, [run.costs], 0.0, FREE), 4)
    assert terms["train"] == pytest.approx(9 / 256 * 640)
    assert terms["collect"] == pytest.approx(10)
    assert terms["evaluate"] == pytest.approx((6 + 3) * 6)
    # 9 of 10 episodes are trained on in place of 4 of 5; the rest, one in each, is a little of it.
    assert terms["fit"] == pytest.approx(2 * 9 / 4, rel=0.1)


def test_two_sizes_tell_the_fixed_part():
    config = load(None, SMALL)
    costs = [Costs(4, 2e-3, 0, 1.0, 0.5), Costs(8, 1e-3, 0, 1.5, 1.0)]
    model = Model.of(config, costs, 0.0, FREE)
    assert model.train == 2e-3  # the slowest
    assert model.collect == pytest.approx((5 * 0.5, 5 * 0.125))  # per dataset of 5 episodes
    assert model.collect(16) == pytest.approx(5 * 2.5)
    assert model.evaluate == pytest.approx((0, 3 * 0.125))
    assert Line.through({4: 1.0, 8: 3.0}) == pytest.approx((0, 3 / 8))  # grows faster than the regions


def test_work_hides_behind_training_as_long_as_that_lasts():
    """Two segments of 4.5 s with a refit before each; collecting takes 10 s, an evaluation 6 s."""
    config = load(None, SMALL)
    model = Model(9 / 256, 0, Line(10, 0), Line(6, 0), 0, FREE)
    terms = projection._terms(config, model, 4, segments(config), held=1, hidden=True)
    # Before: 10. Beside the first segment: 10 + 6, less 4.5. Beside the second: 6, less 4.5. At the end: 6.
    share, last = 11.5 / 16, 1.5
    assert terms["collect"] == pytest.approx(10 + 10 * share)
    assert terms["evaluate"] == pytest.approx(6 * share + last + 6)
    assert terms["train"] == pytest.approx(9)
    much = Model(1.0, 0, Line(10, 0), Line(6, 0), 0, FREE)
    terms = projection._terms(config, much, 4, segments(config), held=1, hidden=True)
    assert (terms["collect"], terms["evaluate"]) == (10, 6)  # the first datasets, the last evaluation


def test_several_ranks_share_the_episodes_in_blocks():
    few = ["global_ranks=2", "dataset_size=500", "evaluation_episodes=15"]
    config = load(None, [*SMALL, *few])
    model = Model.of(config, [Costs(4, 0, 0, 4.0, 4.0)], 0.0, FREE)
    # 25 episodes in blocks of 8, 8, 8 and 1: two blocks each; 15 in blocks of 8 and 7.
    assert (model.collect(4), model.evaluate(4)) == (16 * 4, 8 * 4)


def test_fewer_workers_hold_several_regions_and_a_single_rank_hides_nothing():
    config = load(None, [*SMALL, "schedule=overlapped"])
    model = Model(9 / 256, 2.0, Line(0, 1), Line(0, 1), 0, FREE)
    assert project(config, model, 8, 3)["train"] == pytest.approx(3 * 9)  # 3, 3 and 2 regions
    alone, plain = project(config, model, 8, 0), project(load(None, SMALL), model, 8, 1)
    assert alone == plain and alone["fit"] == pytest.approx(2 * 8 * 2)


def test_a_run_is_compared_with_its_own_projection(tmp_path):
    run = read_run(str(made(tmp_path / "run")))
    compared = compare(run, [run.costs], 0.5, FREE)
    assert compared["train"] == pytest.approx((18, 18))
    assert compared["fit"] == pytest.approx((8, 8))
    assert compared["collect"] == pytest.approx((10, 10))
    assert compared["evaluate"] == pytest.approx((9, 9))
    naps = 15 * POLL_SECONDS
    assert compared["communicate"] == pytest.approx((naps, 0.85))
    assert compared["wall"] == pytest.approx((18 + 8 + 10 + 9 + naps + 2 * (0.5 * 4 + POLL_SECONDS), 276))


def test_the_term_that_grows_is_named():
    few, many = dict.fromkeys(projection.TERMS, 1.0), dict.fromkeys(projection.TERMS, 2.0)
    assert growing({4: {**few, "train": 100.0}, 9: {**many, "train": 100.0, "collect": 3.0}}) == "collect"


def test_rows_of_another_number_of_ranks_are_left_out(tmp_path):
    """The first session had three ranks, the last one two: rank 2 and its first rows do not count."""
    directory = made(tmp_path / "run", holders=(1, 1, 1, 1), last_session=2)
    run = RunFile(directory, {})
    row = {
        f"timing/{phase}": np.ones((2, 2)) for phase in ("collect", "influence", "evaluate", "communicate")
    }
    run.append({**row, "timing/train": np.full((2, 2), 16.0), "timing/env_steps": 384})
    run.append({"influence/env_steps": 256, "evaluation/wall_time": 500.0})
    run.commit()
    found = read_run(str(directory))
    assert found.costs.train == pytest.approx(16 / 4 / 128)
    assert found.costs.evaluate == pytest.approx(2 / 3)  # both ranks together: 3 episodes
    assert not found.whole


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"rows": ()}, "no timings yet"),
        ({"rows": ROWS[:1]}, "no training yet"),
        ({"words": ("mode=global",)}, "mode is global"),
        ({"holders": (1, 1, 2, -2)}, "damaged"),
    ],
)
def test_runs_that_tell_no_costs_are_refused(tmp_path, how, words):
    directory = made(tmp_path / "run", **how)
    with pytest.raises(BadInput, match=words):
        read_run(str(directory))


def test_a_run_without_refits_is_refused(tmp_path):
    directory = made(tmp_path / "run", last_session=3)
    run = RunFile(directory, {})
    run.write({"influence/env_steps": np.array([10**6])})
    run.commit()
    with pytest.raises(BadInput, match="no refit"):
        read_run(str(directory))


def project_by_program(folder, *arguments, ranks=None):
    """What the program printed and wrote."""
    command = ("-m", "dials_mpi.bench", "--project", *arguments, "--json", "bench.json")
    done = launch(*command, ranks=ranks, cwd=folder, timeout=240)  # the first one compiles
    assert (done.code, done.stderr) == (0, "")
    return done.stdout, json.loads((folder / "bench.json").read_text())


def test_the_program_projects_a_run_file(tmp_path):
    made(tmp_path / "run")
    _, figures = project_by_program(tmp_path, "run", ranks=3)
    assert list(figures["projection"]) == [str(count) for count in projection.REGIONS]
    printed, figures = project_by_program(tmp_path, "run", "--regions", "8,4", "--compare", "run")
    assert set(figures) == {"projection", "exposed", "comparison"}
    assert list(figures["projection"]) == ["4", "8"]
    terms = figures["projection"]["8"]
    assert (terms["train"], terms["fit"], terms["collect"], terms["evaluate"]) == pytest.approx(
        (9, 4, 20, 36)
    )
    # One rank has no link to measure, and the program says so.
    model = Model.of(load(None, SMALL), [Costs(4, 0, 0, 0, 0)], 0.0, ASSUMED)
    assert terms["communicate"] == pytest.approx(project(load(None, SMALL), model, 8)["communicate"])
    assert "assumed" in printed
    assert terms["checkpoint"] > 0
    assert figures["comparison"]["train"] == pytest.approx({"projected": 18, "measured": 18})
    assert "Grows most: evaluate" in printed


def test_the_program_projects_what_it_measures_on_three_ranks(tmp_path):
    printed, figures = project_by_program(
        tmp_path, *SMALL, "--updates", "2", "--regions", "4,52,100", ranks=3
    )
    few, middle, many = (figures["projection"][count] for count in ("4", "52", "100"))
    per_step = figures["slowest_cpu_seconds_per_agent_step"]
    assert few["train"] == many["train"] == pytest.approx(256 * per_step)
    assert few["fit"] == pytest.approx(2 * figures["slowest_fit_cpu_seconds_per_region"])
    assert few["collect"] == pytest.approx(2 * figures["collect_cpu_seconds"])
    assert few["evaluate"] == pytest.approx(6 * figures["evaluate_cpu_seconds"])
    for term in ("collect", "evaluate"):
        assert many[term] == pytest.approx(25 * few[term])
    few, middle, many = (terms["checkpoint"] for terms in (few, middle, many))  # some of it for each file
    assert few < middle == pytest.approx((few + many) / 2)
    assert "measured between these ranks" in " ".join(printed.split())


def test_runs_of_other_networks_and_partial_ones_are_refused(tmp_path):
    made(tmp_path / "run")
    made(tmp_path / "partial", ranks=3, last_session=3, rows=ROWS[:2])
    run = RunFile(tmp_path / "partial", {})
    run.append({f"timing/{phase}": np.ones((4, 2)) for phase in ("collect", "influence", "train")})
    run.append({f"timing/{phase}": np.ones((4, 2)) for phase in ("evaluate", "communicate")})
    run.append({"timing/env_steps": 256, "influence/env_steps": 128, "evaluation/wall_time": 9.0})
    run.write({"placement/rank": [1, 1, 2, 3]}, ranks=4)
    run.commit()
    for arguments, words in (
        (["run", *SMALL, "policy.hidden=[8,8]"], "policy.hidden"),
        (["run", "--compare", "partial"], "several numbers of ranks"),
    ):
        done = launch("-m", "dials_mpi.bench", "--project", *arguments, cwd=tmp_path)
        assert done.code == 2
        assert len(done.stderr.splitlines()) == len(done.ours()) == 1
        assert words in done.stderr
