"""The report's numbers against hand-computed ones, what its pictures show, and its refusals."""

import sys
import warnings
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from made_run import FOUR, RETURNS, TIMING, make_run, refused, rows_of
from matplotlib.figure import Figure

from dials_mpi import report
from dials_mpi.core.errors import BadInput
from dials_mpi.report import figures, panels, runtimes, statistics
from dials_mpi.report.__main__ import main
from dials_mpi.report.groups import by_system
from dials_mpi.report.runs import require_same_system

PICTURES = ("learning-curves", "overview", "cross-entropy", "refresh-intervals", "regions")
TEXTS = {"tables.md", "tables.tex"}
TABLES = ("summary", "curves", "returns", "runtimes", "memory")


def groups_of(*runs):
    return report.group_runs(report.read_runs(runs))


# Numbers -------------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_summary_and_curves_hold_the_hand_computed_numbers(tmp_path, tables_alone):
    report.report([make_run(tmp_path, settings=["seed=3"])], str(tmp_path / "out"))
    assert rows_of(tmp_path / "out" / "summary.csv") == [
        {
            "run": "run",
            "method": "DIALS, F = 4M",
            "finished": "yes",
            "domain": "warehouse",
            "agents": "2",
            "mode": "dials",
            "retrain_every": "4000000",
            "seed": "3",
            "env_steps": "1280",
            "final_return": "4",
            "standard_error": "1",
            "best_return": "4",
            "wall_hours": "0.0025",
            "agent_steps_per_s": "284.444",  # 2 x 1280 / 9
            "peak_memory_gib": "1.5",
        }
    ]
    keys = ("env_steps", "wall_time", "mean_return", "standard_error", "cross_entropy")
    curves = [[row[key] for key in keys] for row in rows_of(tmp_path / "out" / "curves.csv")]
    assert curves == [["0", "1", "1", "0.5", "0.6"], ["1280", "9", "4", "1", "0.5"]]


def test_seeds_are_averaged_over_those_that_have_come_so_far(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", RETURNS + 2, settings=["seed=1"])]
    runs.append(make_run(tmp_path, "c", RETURNS[:1] + 4, finished=False, settings=["seed=2"]))
    (group,) = report.group_runs(report.read_runs(runs))
    np.testing.assert_allclose(group.curve.mean, [3, 5])
    np.testing.assert_allclose(group.curve.standard_error, [2 / np.sqrt(3), 1])
    assert [run.name for run in group.unfinished] == ["c"]
    np.testing.assert_allclose(group.refits.after, [0.4])


def test_runs_that_differ_in_their_blocks_are_compared(tmp_path):
    """The whole system is the same."""
    blocks = [make_run(tmp_path, f"b{b}", settings=[f"warehouse.block=[1,{b}]"]) for b in (1, 2)]
    assert [group.label for group in groups_of(*blocks)] == [
        f"DIALS, F = 4M, warehouse.block=(1, {b})" for b in (1, 2)
    ]


def test_a_single_run_has_the_standard_error_over_its_episodes(tmp_path):
    (group,) = report.group_runs(report.read_runs([make_run(tmp_path)]))
    np.testing.assert_allclose(group.curve.standard_error, [0.5, 1])


def test_methods_have_their_colours_and_refit_intervals_their_shades(tmp_path):
    runs = [
        make_run(tmp_path, "often", settings=["retrain_every=1280"]),
        make_run(tmp_path, "once", settings=["retrain_every=4_000_000"]),
        make_run(tmp_path, "u", mode="untrained"),
        make_run(tmp_path, "g", mode="global"),
    ]
    groups = report.group_runs(report.read_runs(runs))
    labels = ["DIALS, F = 4M", "DIALS, F = 1.28K", "untrained", "global simulator"]
    assert [group.label for group in groups] == labels
    assert len({group.colour for group in groups}) == 4
    alone = {g.label: g.colour for run in runs[2:] for g in report.group_runs(report.read_runs([run]))}
    assert all(alone[group.label] == group.colour for group in groups[2:])
    assert groups[0].line != groups[1].line


def test_f_looks_the_same_in_every_report(tmp_path):
    """Alone, as in Figure 3, and beside others, as in Figure 4."""
    every = {"1": 2560, "4": 640, "20": 128}
    runs = {
        name: make_run(tmp_path, name, settings=[f"retrain_every={steps}", "evaluate_every=128"])
        for name, steps in every.items()
    }
    together = {group.label: group for group in groups_of(*runs.values())}
    assert list(together) == ["DIALS, F = 2.56K", "DIALS, F = 640", "DIALS, F = 128"]
    for run in runs.values():
        (group,) = groups_of(run)
        assert group.colour == together[group.label].colour and group.line == together[group.label].line


def test_runs_of_other_settings_are_not_averaged_over_sizes(tmp_path):
    runs = [
        make_run(tmp_path, "two", settings=["retrain_every=1280", "ppo.clip=0.2"]),
        make_run(tmp_path, "four", FOUR, settings=["warehouse.grid=[2,2]", "retrain_every=2560"]),
    ]
    labels = [group.label for group in groups_of(*runs)]
    assert labels == ["DIALS, F = 1.28K, ppo.clip=0.2", "DIALS, F = 2.56K, ppo.clip=0.1"]
    other = make_run(tmp_path, "six", FOUR, settings=["warehouse.grid=[2,2]", "warehouse.horizon=50"])
    with pytest.raises(BadInput, match=r"warehouse\.horizon is 100 in two and 50 in six"):
        report.read_runs([runs[0], other])


def test_f_does_not_separate_runs_without_refits(tmp_path):
    runs = [make_run(tmp_path, str(k), mode="global", settings=[f"seed={k}"]) for k in range(2)]
    runs.append(make_run(tmp_path, "2", mode="global", settings=["seed=2", "retrain_every=1280"]))
    (group,) = report.group_runs(report.read_runs(runs))
    assert len(group.runs) == 3


def test_labels_of_runs_without_refits_do_not_speak_of_f(tmp_path):
    runs = [make_run(tmp_path, n, mode="global", settings=[f"total_steps={n}"]) for n in ("1280", "2560")]
    labels = {group.label for group in report.group_runs(report.read_runs(runs))}
    assert labels == {"global simulator, total_steps=1280", "global simulator, total_steps=2560"}


@pytest.mark.parametrize("steps, text", [(0, "0"), (500, "500"), (1280, "1.28K"), (4_000_000, "4M")])
def test_short(steps, text):
    assert report.short(steps) == text


# Tables 1 to 3 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clock", "hours"), [("wall", (2.0, 0.1 + 0.02)), ("cpu", (0.5, 0.05 + 0.005))])
def test_runtimes_are_those_of_the_slowest_rank_in_each_phase(tmp_path, clock, hours):
    run = report.read_run(make_run(tmp_path, timing=TIMING))
    assert runtimes.runtime(run, clock) == pytest.approx(hours)


def test_runtimes_of_more_steps_are_scaled_by_steps_and_by_refits(tmp_path):
    run = report.read_run(make_run(tmp_path, settings=["retrain_every=2560"], timing=TIMING))
    # 1,280 steps and one refit were done; 12,800 steps take ten times the training and five refits.
    assert runtimes.runtime(run, "wall", 12_800) == pytest.approx((20.0, 0.6))
    untrained = report.read_run(make_run(tmp_path, "u", mode="untrained", timing=TIMING))
    assert runtimes.runtime(untrained, "wall", 12_800) == pytest.approx((20.0, 0.0))


def test_the_tables_hold_the_hand_computed_numbers(tmp_path, tables_alone):
    run = make_run(tmp_path, settings=["retrain_every=2560"], timing=TIMING)
    report.report([run], str(tmp_path / "out"), steps=2560)
    (times,) = rows_of(tmp_path / "out" / "runtimes.csv")
    assert times == {
        "method": "DIALS, F = 2.56K",
        "agents": "2",
        "finished runs": "1",
        "ranks": "2",
        "env_steps": "2560",
        "training, h, wall-clock": "4",
        "data and predictors, h, wall-clock": "0.12",
        "total, h, wall-clock": "4.12",
        "training, h, one core per rank": "1",
        "data and predictors, h, one core per rank": "0.055",
        "total, h, one core per rank": "1.055",
    }
    (memory,) = rows_of(tmp_path / "out" / "memory.csv")
    assert list(memory.values()) == [
        "DIALS, F = 2.56K",
        "2",
        "1",
        "2",
        "536.871",
        "1073.74",
        "1610.61",
        "300",
    ]
    page = (tmp_path / "out" / "tables.md").read_text()
    assert "| DIALS, F = 2.56K | 2 | 1 | 2 | 2560 | 4 | 0.12 | 4.12 | 1 | 0.055 | 1.055 |" in page
    assert "Runtimes are scaled to 2,560 steps per agent" in page


def test_an_unfinished_run_is_in_no_mean_and_said_so(tmp_path, tables_alone):
    runs = [make_run(tmp_path, "a", timing=TIMING)]
    slow = {phase: [9 * np.array(row) for row in rows] for phase, rows in TIMING.items()}
    runs.append(make_run(tmp_path, "b", RETURNS + 9, finished=False, settings=["seed=1"], timing=slow))
    report.report(runs, str(tmp_path / "out"))
    assert rows_of(tmp_path / "out" / "returns.csv")[0]["mean"] == "4"
    assert rows_of(tmp_path / "out" / "runtimes.csv")[0]["total, h, wall-clock"] == "2.12"
    assert "b is unfinished, at 1,280 of 2,560 steps" in (tmp_path / "out" / "tables.md").read_text()


def test_without_a_finished_run_there_is_no_table_of_returns(tmp_path, tables_alone):
    _, files = report.report([make_run(tmp_path, finished=False, timing=TIMING)], str(tmp_path / "out"))
    assert "returns.csv" not in {file.name for file in files}
    assert rows_of(tmp_path / "out" / "runtimes.csv")[0]["total, h, wall-clock"] == ""


# Statistics ----------------------------------------------------------------------------------------------


def test_the_interquartile_mean_is_that_of_the_middle_half():
    middle = statistics.interquartile_mean([np.array([100.0, 3, 4, 5, 6, -50, 0, 7])])
    assert middle.estimate == pytest.approx((3 + 4 + 5 + 6) / 4)
    assert middle.low < middle.estimate < middle.high
    both = statistics.interquartile_mean([np.array([1.0, 2, 3, 4]), np.array([5.0, 6, 7, 8])])
    assert both.estimate == pytest.approx((3 + 4 + 5 + 6) / 4)


def test_the_interval_covers_the_mean_of_a_normal_sample_as_theory_says():
    """Its standard deviation is next to 1.09 / sqrt(40): the efficiency of the middle half is 0.84."""
    sample = np.random.default_rng(0).standard_normal(40)
    _, low, high = statistics.interquartile_mean([sample])
    assert high - low == pytest.approx(2 * 1.96 * 1.09 / np.sqrt(40), rel=0.25)


def test_the_bootstrap_draws_within_each_size():
    """Sizes that do not vary leave nothing to draw, however far apart they are."""
    middle = statistics.interquartile_mean([np.full(5, 2.0), np.full(5, 8.0)])
    assert (middle.low, middle.high) == (middle.estimate, middle.estimate)


def test_the_probability_of_improvement_counts_pairs():
    these = [np.array([1.0, 5, 5, 4, 0]), np.array([2.0, 2, 2, 3, 1])]
    those = [np.array([0.0, 5, 1, 1, 9]), np.array([3.0, 1, 2, 2, 0])]
    by_size = []
    for one, other in zip(these, those, strict=True):
        wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in one for b in other]
        by_size.append(sum(wins) / len(wins))
    probability = statistics.probability_of_improvement(these, those)
    assert probability.estimate == pytest.approx(np.mean(by_size))
    assert probability.low <= probability.estimate <= probability.high
    assert statistics.probability_of_improvement(those, these).estimate == pytest.approx(1 - np.mean(by_size))


def test_few_runs_have_no_bootstrap_interval():
    """Of three it would be from the least to the greatest, which is no 95 %."""
    five, four = np.arange(5.0), np.arange(4.0)
    assert np.isfinite(statistics.interquartile_mean([five]).low)
    assert np.isnan(statistics.interquartile_mean([five, four]).low)
    assert np.isfinite(statistics.probability_of_improvement([five], [four]).low)
    assert np.isnan(statistics.probability_of_improvement([five], [four[:1]]).low)
    assert np.isnan(statistics.mean(np.array([1.0])).low)


@pytest.mark.parametrize(("runs", "sizes"), [(3, 1), (5, 1), (5, 2), (10, 1)])
@pytest.mark.parametrize("apart", [0.0, 1.0, 2.0])
def test_the_interval_of_a_probability_covers_it_in_95_of_100_cases(runs, sizes, apart):
    """Normal scores, so many standard deviations apart; a bootstrap's covers in 60, of five two apart."""
    truth = NormalDist().cdf(apart / np.sqrt(2))
    draws = np.random.default_rng(0).standard_normal((1000, 2, sizes, runs))
    draws[:, 0] += apart
    found = [statistics.probability_of_improvement(list(one), list(other)) for one, other in draws]
    assert all(0 <= low <= middle <= high <= 1 for middle, low, high in found)
    covered = np.mean([low <= truth <= high for _, low, high in found])
    assert 0.9 < covered < 0.99
    assert np.mean([middle for middle, *_ in found]) == pytest.approx(truth, abs=0.02)


def test_the_interval_of_a_probability_is_a_mirror_image():
    """And where all runs of a method end above all of the other, it has a width."""
    one, other = np.arange(5.0), np.array([0.5, 3.5, 3.6])
    there, back = (statistics.probability_of_improvement([a], [b]) for a, b in ((one, other), (other, one)))
    assert [back.estimate, back.low, back.high] == pytest.approx(
        [1 - p for p in (there[0], there[2], there[1])]
    )
    apart = statistics.probability_of_improvement([one + 9], [one])
    assert (apart.estimate, apart.high) == (1, 1) and 0.5 < apart.low < 0.8


def test_the_interval_of_a_mean_of_three_covers_it_in_95_of_100_cases():
    samples = np.random.default_rng(0).standard_normal((2000, 3))
    bounds = [statistics.mean(sample) for sample in samples]
    covered = np.mean([low <= 0 <= high for _, low, high in bounds])
    assert covered == pytest.approx(0.95, abs=0.02)
    assert [mean for mean, *_ in bounds] == pytest.approx(samples.mean(axis=1))


def test_methods_are_compared_by_size_and_in_all(tmp_path, tables_alone):
    runs = []
    for k, seed in enumerate((0, 1)):
        seeds = [f"seed={seed}"]
        runs += [make_run(tmp_path, f"a{k}", RETURNS + k, settings=seeds)]
        runs += [make_run(tmp_path, f"b{k}", FOUR + k, settings=[*seeds, "warehouse.grid=[2,2]"])]
        runs += [make_run(tmp_path, f"c{k}", RETURNS - 5, settings=seeds, mode="global")]
    report.report(runs, str(tmp_path / "out"))
    returns = [
        (row["method"], row["agents"], row["mean"]) for row in rows_of(tmp_path / "out" / "returns.csv")
    ]
    assert returns == [
        ("DIALS, F = 4M", "2", "4.5"),
        ("DIALS, F = 4M", "4", "5"),
        ("DIALS, F = 4M", "all", "4.75"),
        ("global simulator", "2", "-1"),
    ]
    (better,) = rows_of(tmp_path / "out" / "improvement.csv")
    assert list(better.values())[:4] == ["DIALS, F = 4M", "global simulator", "2", "1"]
    assert 0 < float(better["probability from"]) < float(better["probability to"]) == 1


# Pictures ------------------------------------------------------------------------------------------------


def test_the_same_runs_give_the_same_bytes(tmp_path):
    runs = [make_run(tmp_path, "a", timing=TIMING)]
    runs.append(make_run(tmp_path, "b", finished=False, settings=["seed=1"], timing=TIMING))
    _, files = report.report(runs, str(tmp_path / "one"))
    report.report(runs, str(tmp_path / "two"))
    names = {f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")}
    assert {file.name for file in files} == names | {f"{name}.csv" for name in TABLES} | TEXTS
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_picture_shows_references_unfinished_runs_and_the_band(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "g", finished=False, mode="global")]
    figure = Figure()
    figures.draw_learning_curves(figure, groups_of(*runs), "wall")
    assert {text.get_text() for text in figure.axes[0].texts} == {"hand-coded (oldest)", "random"}
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["DIALS, F = 4M", "global simulator", "± standard error over episodes", "unfinished run"]


def test_bars_are_as_high_as_final_returns_of_finished_runs(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", RETURNS + 2, settings=["seed=1"])]
    runs.append(make_run(tmp_path, "c", RETURNS[:1] + 9, finished=False, settings=["seed=2"]))
    runs.append(make_run(tmp_path, "d", FOUR, settings=["warehouse.grid=[2,2]"]))
    axes = Figure().add_subplot()
    panels.draw_final_values(axes, by_system(groups_of(*runs)))
    assert [bar.get_height() for bar in axes.patches] == [5, 4.5]  # (4 + 6) / 2, without the unfinished one
    circles = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "o"]
    assert circles == [10]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4"]


def test_runtime_bars_tell_finished_runs_from_unfinished_ones(tmp_path):
    runs = [make_run(tmp_path, "a", timing=TIMING)]
    runs.append(make_run(tmp_path, "g", finished=False, mode="global", timing=TIMING))
    axes = Figure().add_subplot()
    panels.draw_runtimes(axes, by_system(groups_of(*runs)), "wall")
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([2.12, 2.12])
    assert [bool(bar.get_hatch()) for bar in axes.patches] == [False, True]
    assert axes.get_ylabel() == "Runtime (h), wall-clock"
    assert axes.get_yscale() == "log" and axes.yaxis.get_transform().base == 2


def test_a_run_that_has_only_begun_is_drawn_without_a_warning(tmp_path):
    run = make_run(tmp_path, returns=RETURNS[:1], finished=False, timing=TIMING, refit=False)
    nothing = {phase: [np.zeros((3, 2))] for phase in TIMING}
    other = make_run(tmp_path, "b", RETURNS[:1], finished=False, settings=["seed=1"], timing=nothing)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        report.report([run, other], str(tmp_path / "out"))
        report.report([other], str(tmp_path / "out"))


def test_runtime_bars_of_all_sizes_have_one_axis(tmp_path):
    long = {phase: [90 * np.array(row) for row in rows] for phase, rows in TIMING.items()}
    short = {phase: [np.array(row) / 60 for row in rows] for phase, rows in TIMING.items()}
    four = make_run(tmp_path, "b", FOUR, settings=["warehouse.grid=[2,2]"], timing=long)
    figure = Figure()
    figures.draw_learning_curves(figure, groups_of(make_run(tmp_path, "a", timing=short), four), "wall")
    small, large = figure.axes[1], figure.axes[3]
    assert small.get_ylim() == large.get_ylim() and small.get_ylabel() == large.get_ylabel()
    assert [axes.patches[0].get_height() for axes in (small, large)] == pytest.approx([2.12 / 60, 2.12 * 90])


def test_runtimes_below_an_hour_are_drawn_in_minutes(tmp_path):
    short = {phase: [np.array(row) / 6 for row in rows] for phase, rows in TIMING.items()}
    axes = Figure().add_subplot()
    panels.draw_runtimes(axes, by_system(groups_of(make_run(tmp_path, timing=short))), "wall")
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([21.2])
    assert axes.get_ylabel() == "Runtime (min), wall-clock"


def test_a_domain_without_hand_coded_policies_is_drawn(tmp_path, monkeypatch):
    groups = groups_of(make_run(tmp_path))
    monkeypatch.setattr(panels.find("warehouse")[0], "hand_coded", ())
    assert panels.main_references(groups) == {"random": 0.5}
    panels.draw_learning_curves(Figure().add_subplot(), groups)


def test_pictures_fit_a_page(tmp_path):
    runs = [make_run(tmp_path, "a", timing=TIMING, settings=["retrain_every=1280"])]
    runs += [make_run(tmp_path, "b", FOUR, timing=TIMING, settings=["warehouse.grid=[2,2]"])]
    for name, draw in figures.pictures(groups_of(*runs)).items():
        draw(figure := Figure(layout="constrained"), groups_of(*runs), "wall")
        assert figure.get_size_inches()[0] < 7.01, name


def test_a_runtime_can_be_read_off_its_axis(tmp_path):
    """Two powers of two at least, however close the runtimes are."""
    for name, hours in (("a", 1.1), ("b", 1.9)):
        timing = {phase: np.array(rows) * hours / 2 for phase, rows in TIMING.items()}
        figures.draw_overview(figure := Figure(), groups_of(make_run(tmp_path, name, timing=timing)), "wall")
        axes = figure.axes[2]
        low, high = axes.get_ylim()
        assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 2
        assert low < axes.patches[0].get_height() < high


def test_legends_count_the_runs_that_are_in_final_figures(tmp_path):
    runs = [make_run(tmp_path, str(k), settings=[f"seed={k}"], timing=TIMING) for k in range(2)]
    runs.append(make_run(tmp_path, "2", finished=False, settings=["seed=2"], timing=TIMING))
    runs.append(make_run(tmp_path, "g", finished=False, mode="global", timing=TIMING))
    figures.draw_overview(figure := Figure(), groups_of(*runs), "wall")
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ["DIALS, F = 4M (2 seeds)", "global simulator"]
    assert labels[-2:] == ["unfinished run", "so far, of an unfinished run"]


def test_names_are_shown_as_they_are(tmp_path):
    """Not as mathematics, and not longer than there is room."""
    words = ["ppo.clip=0.2", "ppo.epochs=2", "ppo.discount=0.9", "ppo.gae_lambda=0.8"]
    runs = [make_run(tmp_path, "50%$^$off"), make_run(tmp_path, "n" * 80, settings=words)]
    report.report(runs, str(tmp_path / "out"))
    assert "50%$^$off" in (tmp_path / "out" / "tables.md").read_text()
    figures.draw_regions(figure := Figure(), groups_of(*runs), "wall")
    lines = [line for axes in figure.axes for line in axes.get_title().splitlines()]
    assert lines and max(map(len, lines)) <= panels.NARROW


def test_runtimes_of_a_method_that_never_finished_can_be_scaled(tmp_path, tables_alone):
    """As those of 100 agents on the global simulator in the paper's Tables 1 and 2."""
    report.report([make_run(tmp_path, finished=False, timing=TIMING)], str(tmp_path / "out"), steps=12_800)
    (row,) = rows_of(tmp_path / "out" / "runtimes.csv")
    assert (row["finished runs"], row["training, h, wall-clock"]) == ("0", "20")
    assert (
        "no run is finished, the runtimes are of unfinished ones" in (tmp_path / "out/tables.md").read_text()
    )


def test_six_groups_of_a_method_differ_in_colour_and_line(tmp_path):
    every = [1280 * 2**k for k in range(6)]
    settings = [["total_steps=81920", f"retrain_every={steps}"] for steps in every]
    groups = groups_of(*(make_run(tmp_path, f"a{k}", settings=words) for k, words in enumerate(settings)))
    assert len({group.colour for group in groups}) == len(groups) == 6


def test_maps_and_memory_are_of_finished_runs(tmp_path):
    grid = "warehouse.grid=[2,2]"
    cut = make_run(tmp_path, "cut", FOUR[:1], finished=False, settings=[grid], peak_rss=[1.0, 1.0])
    whole = make_run(tmp_path, "whole", FOUR, settings=[grid, "seed=1"])
    (group,) = groups_of(whole, cut)
    np.testing.assert_allclose(panels.regional_returns(group), [[3, 5], [4, 6]])
    assert runtimes.mean_memory(group).root == 2**29 / 1e6
    axes = Figure().add_subplot()
    panels.draw_map(axes, group, 3, 6)
    assert axes.get_title() == "DIALS, F = 4M\n4 agents, 1 unfinished"


def test_data_that_are_collected_beside_the_training_count_as_far_as_they_take_longer(tmp_path):
    """In the schedule overlapped; a row of timing is there of the segment after its evaluation."""
    settings = ["schedule=overlapped", "retrain_every=1280"]
    late = {
        "train": [[[0, 0], [3600, 1800], [7200, 900]], np.zeros((3, 2))],
        "collect": [[[360, 180], [0, 0], [0, 0]], [[1800, 900], [0, 0], [0, 0]]],
        "influence": [[[0, 0], [36, 18], [72, 9]], np.zeros((3, 2))],
    }
    run = report.read_run(make_run(tmp_path, settings=settings, timing=late))
    np.testing.assert_allclose(runtimes.spent(run, "wall"), [[0, 0], [2.0, 0.12]])
    middle = {phase: [rows[0], rows[0], np.zeros((3, 2))] for phase, rows in late.items()}
    three = np.concatenate([RETURNS, RETURNS[:1]])
    more = report.read_run(make_run(tmp_path, "more", three, settings=settings, timing=middle))
    np.testing.assert_allclose(runtimes.spent(more, "wall"), [[0, 0], [2.0, 0.12], [2.0, 0.02]])


def test_the_map_lies_as_the_regions_do(tmp_path):
    (group,) = groups_of(make_run(tmp_path, returns=FOUR, settings=["warehouse.grid=[2,2]"]))
    np.testing.assert_allclose(panels.regional_returns(group), [[3, 5], [4, 6]])
    axes = Figure().add_subplot()
    panels.draw_map(axes, group, 3, 6)
    written = {text.get_position(): text.get_text() for text in axes.texts}
    assert written == {(0, 0): "3.00", (1, 0): "5.00", (0, 1): "4.00", (1, 1): "6.00"}  # x is the column


@pytest.mark.parametrize(
    ("largest", "decimals"), [(0.1, 2), (9.994, 2), (9.996, 1), (14.6, 1), (99.94, 1), (99.96, 0), (4321, 0)]
)
def test_all_returns_of_a_map_have_the_same_decimals(largest, decimals):
    assert panels.three_digits(largest) == decimals
    assert len(f"{largest:.{decimals}f}") <= 4


def test_curves_against_the_runtime_end_at_the_same_hour(tmp_path):
    long = {phase: [2 * np.array(row) for row in rows] for phase, rows in TIMING.items()}
    often = make_run(tmp_path, "often", RETURNS + 1, settings=["retrain_every=1280"], timing=long)
    groups = groups_of(make_run(tmp_path, "once", timing=TIMING), often)
    axes = Figure().add_subplot()
    panels.draw_curves_in_time(axes, groups, "cpu")
    curves = [line for line in axes.lines if len(line.get_xdata()) == 2 and not is_level(line)]
    ends = sorted(round(line.get_xdata()[-1], 6) for line in curves)
    assert ends == [0.555, 1.11, 1.11, 1.11]  # two curves, and two dotted levels up to the longest


def is_level(line):
    return line.get_xdata()[0] == 0 and line.get_xdata()[1] == 1


def test_pictures_name_the_seeds_that_are_missing(tmp_path, capsys, tables_alone):
    runs = [make_run(tmp_path, f"a{k}", settings=[f"seed={k}"]) for k in range(3)]
    runs.append(make_run(tmp_path, "g", mode="global", settings=["seed=1"]))
    figure = Figure()
    figures.draw_learning_curves(figure, groups_of(*runs), "wall")
    assert figure.axes[0].get_title() == "global simulator without seeds 0, 2"
    assert "DIALS, F = 4M (3 seeds)" in [text.get_text() for text in figure.legends[0].get_texts()]
    with pytest.raises(SystemExit, match="0"):
        main([*runs, "--out", str(tmp_path / "out")])
    said = "global simulator, 2 agents: seed 0, 2 is missing."
    assert said in capsys.readouterr().out and said in (tmp_path / "out" / "tables.md").read_text()


def test_systems_of_several_sizes_have_a_panel_each(tmp_path):
    four = make_run(tmp_path, "b", FOUR, settings=["warehouse.grid=[2,2]"], timing=TIMING)
    groups = groups_of(make_run(tmp_path, "a", timing=TIMING), four)
    assert [group.label for group in groups] == ["DIALS, F = 4M"] * 2
    assert groups[0].colour == groups[1].colour
    expected = {"learning-curves": 4, "overview": 3, "cross-entropy": 2, "refresh-intervals": 4, "regions": 4}
    drawn = figures.pictures(groups)
    assert set(drawn) == set(expected)
    for name, count in expected.items():
        figure = Figure()
        drawn[name](figure, groups, "wall")
        assert len(figure.axes) == count, name


def test_the_cross_entropy_falls_at_a_refit(tmp_path):
    (group,) = groups_of(make_run(tmp_path))
    steps, losses = panels.with_refits(group)
    assert steps.tolist() == [0, 0, 1280]
    np.testing.assert_allclose(losses, [0.6, 0.4, 0.5])


def test_global_runs_have_no_cross_entropy_picture(tmp_path, capsys, tables_alone):
    run = make_run(tmp_path, mode="global", finished=False)
    with pytest.raises(SystemExit, match="0"):
        main([run, "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").glob("cross-entropy*"))
    out = capsys.readouterr().out
    assert "no cross-entropy picture" in out and "unfinished" in out
    assert rows_of(tmp_path / "out" / "curves.csv")[0]["cross_entropy"] == ""


# Refusals ------------------------------------------------------------------------------------------------


def test_no_run_is_refused(tmp_path, capsys):
    assert "there is no run.h5" in refused(capsys, tmp_path, "--out", tmp_path / "out")
    assert "DIR" in refused(capsys, "--out", tmp_path / "out")


def test_a_run_without_an_evaluation_is_refused(tmp_path, capsys):
    run = make_run(tmp_path, returns=[], finished=False)
    assert "no evaluation yet" in refused(capsys, run, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"settings": ["warehouse.item_probability=0.5"]}, "warehouse.item_probability is 0.02 in a and 0.5"),
        ({}, "a and b have the same configuration and seed"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path, capsys, change, reason):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", refit=False, **change)]
    assert reason in refused(capsys, *runs, "--out", tmp_path / "out")


def test_different_domains_are_refused(tmp_path):
    from dataclasses import replace

    run = report.read_run(make_run(tmp_path))
    other = replace(run, name="other", config=replace(run.config))
    object.__setattr__(other.config, "domain", "traffic")
    with pytest.raises(BadInput, match="run is of the warehouse domain and other of the traffic domain"):
        require_same_system(run, other)


def test_a_damaged_file_is_refused(tmp_path, capsys):
    run = make_run(tmp_path)
    file = Path(run) / "run.h5"
    file.write_bytes(file.read_bytes()[:3000])
    assert "run.h5" in refused(capsys, run, "--out", tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(capsys, make_run(tmp_path), "--out", tmp_path / "file")


def test_missing_matplotlib_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused(capsys, make_run(tmp_path), "--out", tmp_path / "out")
    assert "pip install 'dials_mpi[report]'" in said
    assert not (tmp_path / "out").exists()


def test_missing_scipy_is_refused_before_anything_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    said = refused(capsys, make_run(tmp_path), "--out", tmp_path / "out")
    assert "scipy" in said and "pip install 'dials_mpi[report]'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "words", [["--steps", "0"], ["--steps", "-4"], ["--steps", "many"], ["--clock", "sun"]]
)
def test_bad_options_are_refused(tmp_path, capsys, words):
    assert words[0] in refused(capsys, make_run(tmp_path), "--out", tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_a_run_of_a_newer_format_is_refused(tmp_path, capsys):
    run = make_run(tmp_path, format_version=99)
    assert "format version 99" in refused(capsys, run, "--out", tmp_path / "out")
