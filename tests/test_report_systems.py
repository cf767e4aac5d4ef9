"""Reports of a domain's statistics: systems with names, hand-coded policies, and runs of another program."""

import json
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_run import CONTROLLERS, TIMING, make_city, make_run, refused, rows_of
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from scipy import stats

from dials_mpi import report
from dials_mpi.core.errors import BadInput
from dials_mpi.domains import find
from dials_mpi.domains.city import CityConfig
from dials_mpi.report import figures, panels, runtimes
from dials_mpi.report.__main__ import main
from dials_mpi.report.groups import by_system
from dials_mpi.report.others import read_others
from dials_mpi.results.style import style

ROOT = Path(__file__).parents[1]
COLOGNE1, INGOLSTADT1 = "resco:cologne1", "resco:ingolstadt1"
FALLING = [[150, 160], [40, 42], [20, 22]]
"""Delays of three evaluations with two episodes each; 30 s, the best hand-coded policy's, is passed last."""


def groups_of(*runs, statistic="delay"):
    return report.group_runs(report.read_runs(runs, statistic=statistic))


def delays(run):
    """The delay of each evaluation, as the file says, [T]."""
    with h5py.File(f"{run}/run.h5", "r", locking=False) as file:
        return file["evaluation_statistics/delay"][:].mean(axis=1)


def policy_delays(run):
    with h5py.File(f"{run}/run.h5", "r", locking=False) as file:
        known = file["reference_statistics"]
        return {name: known[name]["delay"][:].mean() for name in known}


def seeds_of(folder, method, shifts, **options):
    """A run for each seed, with the delays above and these shifts."""
    return [
        make_city(folder, f"{method}{k}", np.add(FALLING, shift), settings=[f"seed={k}"], **options)
        for k, shift in enumerate(shifts)
    ]


def written(folder, runs, *more, statistic="delay"):
    with pytest.raises(SystemExit, match="0"):
        main([*runs, "--out", str(folder), "--statistic", statistic, *more])
    return folder


# Systems -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"scenario": "resco:cologne8"}, "cologne8"),
        ({"scenario": "lille"}, "lille"),
        ({"scenario": "maps/my.town.sumocfg"}, "my.town"),
        ({"network": "maps/town.net.xml.gz", "routes": ("a.rou.xml",)}, "town"),
        ({"network": "town.net.xml"}, "town"),
        ({}, ""),
    ],
)
def test_a_city_has_the_name_of_its_map(settings, name):
    assert CityConfig(**settings).system_name == name


def test_maps_with_the_same_number_of_agents_are_systems_of_their_own(tmp_path):
    runs = [make_city(tmp_path, "b", FALLING)]
    runs += [
        make_city(tmp_path, "i", FALLING, INGOLSTADT1, 1),
        make_city(tmp_path, "c", FALLING, COLOGNE1, 1),
    ]
    runs += [make_city(tmp_path, "c1", FALLING, COLOGNE1, 1, settings=["seed=1"])]
    groups = groups_of(*runs)
    assert [group.system.title for group in groups] == ["cologne1", "ingolstadt1", "cologne8"]
    assert [len(group.runs) for group in groups] == [2, 1, 1]
    assert all(group.missing == [] for group in groups)  # of seeds of the same map
    figures.draw_learning_curves(figure := Figure(), groups, "wall")
    assert [axes.get_title() for axes in figure.axes] == ["cologne1", "ingolstadt1", "cologne8"]


def test_each_map_may_have_a_configuration_of_its_own(tmp_path):
    """Methods keep their name then; only groups of one map are told apart."""
    own = ["ppo.clip=0.3", "city.decision_every=5", "retrain_every=1280", "total_steps=5120", "city.yellow=2"]
    runs = [make_city(tmp_path, "one", FALLING, COLOGNE1, 1, settings=own), make_city(tmp_path, "b", FALLING)]
    runs += [make_city(tmp_path, "u", FALLING, mode="untrained")]
    assert [group.label for group in groups_of(*runs)] == ["DIALS", "DIALS", "untrained"]
    runs += [make_city(tmp_path, "often", FALLING, settings=["retrain_every=1280"])]
    assert [group.label for group in groups_of(*runs)] == [
        *("DIALS", "DIALS, F = 4M", "DIALS, F = 1.28K", "untrained"),
    ]


def test_a_map_with_other_settings_is_refused_but_for_its_blocks(tmp_path):
    run = make_city(tmp_path, "a", FALLING)
    blocks = make_city(tmp_path, "b", FALLING, settings=["city.block=auto:2"])
    assert len(groups_of(run, blocks)) == 2
    other = make_city(tmp_path, "c", FALLING, settings=["city.horizon=1800"])
    with pytest.raises(BadInput, match=r"city\.horizon is 3600 in a and 1800 in c, so they cannot"):
        groups_of(run, other)


def test_tables_name_the_system(tmp_path, tables_alone):
    runs = [make_city(tmp_path, "c", FALLING, COLOGNE1, 1), make_city(tmp_path, "i", FALLING, INGOLSTADT1, 1)]
    out = written(tmp_path / "out", runs)
    for table in ("finals", "controllers", "memory", "runtimes", "summary"):
        assert [row["system"] for row in rows_of(out / f"{table}.csv")] == ["cologne1", "ingolstadt1"], table


def test_the_axis_of_systems_names_them(tmp_path):
    runs = [make_city(tmp_path, "c", FALLING, COLOGNE1, 1), make_city(tmp_path, "b", FALLING)]
    panels.draw_final_values(axes := Figure().add_subplot(), by_system(groups_of(*runs)))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cologne1", "cologne8"]
    assert axes.get_ylabel() == "Final delay (s)" and axes.get_xlabel() == ""


# Curves --------------------------------------------------------------------------------------------------


def test_curves_and_final_values_are_those_of_the_statistic(tmp_path, tables_alone):
    runs = seeds_of(tmp_path, "d", [0, 3, 7])
    (group,) = groups_of(*runs)
    np.testing.assert_allclose(group.curve.mean, np.mean([delays(run) for run in runs], axis=0))
    assert group.scores.tolist() == [delays(run)[-1] for run in runs]
    (row,) = rows_of(written(tmp_path / "out", runs) / "finals.csv")
    ends = [delays(run)[-1] for run in runs]
    low, high = stats.t.interval(0.95, 2, np.mean(ends), stats.sem(ends))
    assert [float(row[key]) for key in ("mean", "mean from", "mean to")] == pytest.approx(
        [np.mean(ends), low, high], rel=1e-5
    )
    assert not (tmp_path / "out" / "returns.csv").exists()
    assert not list((tmp_path / "out").glob("regions*"))  # a statistic is of the whole system


def test_a_single_run_has_the_standard_error_of_the_statistic_over_its_episodes(tmp_path):
    (group,) = groups_of(make_city(tmp_path, "a", [[10, 14], [5, 5]]))
    np.testing.assert_allclose(group.curve.standard_error, [2, 0])


def test_an_episode_without_a_value_does_not_count(tmp_path):
    (group,) = groups_of(make_city(tmp_path, "a", [[np.nan, np.nan], [5, np.nan], [7, 9]]))
    np.testing.assert_allclose(group.curve.mean, [np.nan, 5, 8])


@pytest.mark.parametrize(("first", "scale"), [(150, "linear"), (400, "log")])
def test_every_policy_has_a_line_with_its_name(tmp_path, first, scale):
    """On a log axis if the values span a decade."""
    known = {**CONTROLLERS, "random": 200.0}
    run = make_city(tmp_path, "a", [[first, first], [25, 25]], controllers=known)
    panels.draw_learning_curves(axes := Figure().add_subplot(), groups_of(run))
    levels = {line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]}
    assert levels == set(policy_delays(run).values()) and {text.get_text() for text in axes.texts} == set(
        known
    )
    assert axes.get_yscale() == scale and axes.get_ylabel() == "Delay (s)"
    low, high = axes.get_ylim()
    assert low <= min(levels) and max(*levels, first) <= high


def test_names_of_policies_do_not_overlap(tmp_path):
    """Also where the policies are equally good."""
    known = dict.fromkeys(CONTROLLERS, 30.0) | {"random": 31.0}
    runs = [
        make_city(
            tmp_path, "a", FALLING, controllers=known, timing={k: [*v, v[1]] for k, v in TIMING.items()}
        )
    ]
    for name, draw in figures.pictures(groups_of(*runs)).items():
        with style():
            draw(figure := Figure(layout="constrained"), groups_of(*runs), "wall")
            FigureCanvasAgg(figure).draw()
        for axes in figure.axes:
            boxes = sorted((Text.get_window_extent(text) for text in axes.texts), key=lambda box: box.y0)
            assert all(below.y0 + 0.8 * below.height < above.y0 for below, above in pairwise(boxes)), name


def test_places_are_moved_apart_in_their_order_and_stay_inside():
    rng = np.random.default_rng(0)
    for places in [rng.random(6) ** power for power in (1, 3, 0.2) for _ in range(50)]:
        moved = panels.apart(places.tolist(), 0.07)
        order = np.argsort(places)
        assert (np.diff(np.array(moved)[order]) > 0.07 - 1e-9).all()
        assert min(moved) > 0.03 and max(moved) < 0.97
    assert panels.apart([0.5, 0.2], 0.1) == [0.5, 0.2]


def test_final_values_over_a_decade_are_points_beside_the_best_and_the_random_policy(tmp_path):
    runs = [make_city(tmp_path, "a", FALLING), make_city(tmp_path, "b", FALLING, settings=["seed=1"])]
    panels.draw_final_values(axes := Figure().add_subplot(), by_system(groups_of(*runs)))
    assert axes.get_yscale() == "log" and not axes.patches
    lines = dict(zip(axes.get_legend_handles_labels()[1], axes.get_legend_handles_labels()[0], strict=True))
    assert {name: line.get_segments()[0][0][1] for name, line in lines.items()} == {
        "best hand-coded policy": 30,
        "random policy": 300,
    }


def test_a_log_axis_over_many_decades_has_few_labels(tmp_path):
    """As cross-entropies of maps with one signal have it, from 1 to 0.00001 nats."""
    axes = Figure().add_subplot()
    axes.set_ylim(1e-5, 1)
    panels._plain_log_axis(axes, (1, 1.5, 2, 3, 4, 5, 7))
    ticks = [tick for tick in axes.get_yticks() if 1e-5 <= tick <= 1]
    assert 3 <= len(ticks) <= panels.MOST_TICKS


# Methods against hand-coded policies -----------------------------------------------------------------------


def test_the_table_of_controllers_holds_what_the_files_say(tmp_path, tables_alone):
    timing = {phase: [*rows, np.add(rows[0], 1)] for phase, rows in TIMING.items()}
    dials = seeds_of(tmp_path, "d", [0, 1, 2], timing=timing)
    slow = seeds_of(tmp_path, "u", [100, 100.5], mode="untrained", timing=timing)
    out = written(tmp_path / "out", [*dials, *slow])
    (row,) = rows_of(out / "controllers.csv")
    known = policy_delays(dials[0])
    assert {name: float(row[name]) for name in known} == known
    assert row["best controller"] == min(known, key=known.get) == "max-wave"
    ends = [delays(run)[-1] for run in dials]
    low, high = stats.t.interval(0.95, 2, np.mean(ends), stats.sem(ends))
    assert [float(row[f"DIALS{key}"]) for key in ("", " from", " to")] == pytest.approx(
        [np.mean(ends), low, high], rel=1e-5
    )
    assert high < 30 and row["DIALS better than the best controller"] == "yes"
    curve = np.mean([delays(run) for run in dials], axis=0)
    passed = next(t for t, delay in enumerate(curve) if delay < 30)
    assert passed == 2 and float(row["DIALS simulated hours until better"]) == pytest.approx(
        passed * 1280 * 10 / 3600, rel=1e-5
    )
    seconds = sum(
        float(np.array(timing[phase][t])[:, 1].sum())
        for phase in ("train", "collect", "influence")
        for t in range(passed + 1)
    )
    assert float(row["DIALS core-seconds until better"]) == pytest.approx(seconds, rel=1e-5)
    keys = ("better than the best controller", "simulated hours until better", "core-seconds until better")
    assert [row[f"untrained {key}"] for key in keys] == ["no", "-", "-"]
    page = (out / "tables.md").read_text()
    assert f"| max-wave | 22 ({low:.4g} to {high:.4g}) | yes |" in page
    assert "| cologne8 | 8 | max-wave | 7.111 |" in page


def test_more_is_better_where_the_domain_says_so(tmp_path, tables_alone):
    """A file whose throughputs are the delays of another: the best policy is the one with most."""
    run = make_city(tmp_path, "a", FALLING)
    with h5py.File(f"{run}/run.h5", "r+") as file:
        for kind in ("evaluation_statistics", *(f"reference_statistics/{name}" for name in CONTROLLERS)):
            values = file[f"{kind}/delay"][:]
            file[kind].pop("throughput", None)
            file[f"{kind}/throughput"] = values
    out = written(tmp_path / "out", [run], "--unchecked", statistic="throughput")
    (row,) = rows_of(out / "controllers.csv")
    assert row["best controller"] == "native"  # 60, the most among hand-coded ones
    assert row["DIALS simulated hours until better"] == "0"  # 155 at the beginning


def test_single_seeds_and_unfinished_runs_leave_open_what_is_not_known(tmp_path, tables_alone):
    unfinished = make_city(tmp_path, "a", FALLING, finished=False)
    (row,) = rows_of(written(tmp_path / "one", [unfinished]) / "controllers.csv")
    keys = ("", " better than the best controller", " simulated hours until better")
    assert [row[f"DIALS{key}"] for key in keys] == ["", "", ""] and row["best controller"] == ""
    single = make_city(tmp_path, "b", FALLING, settings=["seed=1"])
    (row,) = rows_of(written(tmp_path / "two", [unfinished, single]) / "controllers.csv")
    assert [row[f"DIALS{key}"] for key in keys] == ["21", "", "7.11111"]


def test_core_seconds_are_those_before_each_evaluation(tmp_path):
    """In the schedule overlapped a row is that of the segment after its evaluation."""
    run = report.read_run(make_run(tmp_path, timing=TIMING))
    first = 180.0 + 18 + 9
    np.testing.assert_allclose(runtimes.core_seconds(run), [first, first + 1800 + 900])
    late = report.read_run(make_run(tmp_path, "late", settings=["schedule=overlapped"], timing=TIMING))
    np.testing.assert_allclose(runtimes.core_seconds(late), [0, first])


def test_a_statistic_that_a_run_has_no_value_of_is_refused(tmp_path, capsys):
    """A committed run is from before ``time_spent``; it is read all the same."""
    run = ROOT / "results" / "runs" / "traffic-4-gs-seed0"
    assert np.isnan(report.read_run(str(run)).statistics["time_spent"]).all()
    said = refused(capsys, run, "--statistic", "time_spent", "--out", tmp_path / "out")
    assert "traffic-4-gs-seed0 has no value of it" in said


def test_a_domain_without_decisions_of_several_steps_counts_steps(tmp_path, tables_alone):
    runs = ROOT / "results" / "runs"
    out = written(tmp_path / "out", [str(runs / "traffic-4-gs-seed0")], statistic="time_lost")
    (row,) = rows_of(out / "controllers.csv")
    with h5py.File(runs / "traffic-4-gs-seed0" / "run.h5") as file:
        best = min(
            known["time_lost"][:].mean()
            for name, known in file["reference_statistics"].items()
            if name != "random"
        )
        losses = file["evaluation_statistics/time_lost"][:].mean(axis=1)
        steps = file["evaluation/env_steps"][np.argmax(losses < best)]
    assert row["global simulator steps until better"] == str(steps) and steps > 0


def test_the_probability_is_that_of_a_lower_delay(tmp_path, tables_alone):
    runs = [*seeds_of(tmp_path, "d", [0, 1]), *seeds_of(tmp_path, "g", [5, 6], mode="global")]
    out = written(tmp_path / "out", runs)
    (row,) = rows_of(out / "improvement.csv")
    assert (row["method"], row["over"], row["probability"]) == ("DIALS", "global simulator", "1")
    assert "Probability of a lower final delay" in (out / "tables.md").read_text()


def test_returns_are_reported_as_before(tmp_path, tables_alone):
    runs = [make_city(tmp_path, "a", FALLING)]
    with pytest.raises(SystemExit, match="0"):
        main([*runs, "--out", str(tmp_path / "out")])
    (row,) = rows_of(tmp_path / "out" / "returns.csv")
    assert row["mean"] == "-3" and not (tmp_path / "out" / "controllers.csv").exists()


# Another program -----------------------------------------------------------------------------------------


def json_of(folder, name, **changes):
    content = {
        **{"map": "resco:cologne8", "algorithm": "ppo", "seed": 0, "cpu_seconds": 800.0},
        "evaluations": [{"hours": 10 * k, "delay": 100.0 - 40 * k} for k in range(3)],
    }
    file = folder / name
    file.write_text(json.dumps({**content, **changes}))
    return str(file)


def test_runs_of_another_program_are_one_more_method(tmp_path):
    shifted = [{"hours": 10 * k, "delay": 102.0 - 40 * k} for k in range(3)]
    files = [json_of(tmp_path, "a.json"), json_of(tmp_path, "b.json", seed=1, evaluations=shifted)]
    run = make_city(tmp_path, "run", FALLING)
    (row,) = rows_of(written(tmp_path / "out", [run], "--compare", *files) / "controllers.csv")
    label = "Stable-Baselines3 ppo on sumo-rl"
    low, high = stats.t.interval(0.95, 1, 21, stats.sem([20, 22]))
    assert [float(row[label + key]) for key in ("", " from", " to")] == pytest.approx(
        [21, low, high], rel=1e-4
    )
    assert row[f"{label} better than the best controller"] == "no"
    assert row[f"{label} simulated hours until better"] == "20"
    assert row[f"{label} core-seconds until better"] == "800"
    (other,) = read_others(files, groups_of(run))
    panels.draw_learning_curves(axes := Figure().add_subplot(), groups_of(run), [other])
    (line,) = [line for line in axes.lines if line.get_label() == label]
    assert line.get_xdata().tolist() == [0, 3600, 7200]  # decisions of 10 s
    assert line.get_ydata().tolist() == [101, 61, 21]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"map": "resco:cologne3"}, "is of the map 'resco:cologne3', and no run is"),
        ({"evaluations": []}, "is not a run of another program"),
        ({"evaluations": [{"hours": 1}]}, "rising hours and delay"),
        ({"evaluations": [{"hours": 1, "delay": "many"}]}, "rising hours and delay"),
        ({"evaluations": 3, "seed": None}, "is not a run of another program"),
    ],
)
def test_a_file_of_another_program_that_does_not_fit_is_refused(tmp_path, capsys, changes, reason):
    run, file = make_city(tmp_path, "run", FALLING), json_of(tmp_path, "a.json", **changes)
    assert reason in refused(
        capsys, run, "--out", tmp_path / "out", "--statistic", "delay", "--compare", file
    )


def test_files_of_another_program_must_fit_each_other(tmp_path, capsys):
    words = [
        make_city(tmp_path, "run", FALLING),
        "--out",
        tmp_path / "out",
        "--statistic",
        "delay",
        "--compare",
    ]
    one, twin = json_of(tmp_path, "a.json"), json_of(tmp_path, "b.json")
    assert "the same map, algorithm and seed" in refused(capsys, *words, one, twin)
    short = json_of(tmp_path, "c.json", seed=1, evaluations=[{"hours": 0, "delay": 9}])
    assert "not evaluated at the same hours" in refused(capsys, *words, one, short)
    (tmp_path / "d.json").write_text("{")
    assert "d.json is not JSON" in refused(capsys, *words, tmp_path / "d.json")
    assert "cannot be read" in refused(capsys, *words, tmp_path / "none.json")
    assert "add --statistic" in refused(capsys, *words[:3], "--compare", one)


# Refusals ------------------------------------------------------------------------------------------------


def test_an_unknown_statistic_is_refused_with_those_of_the_domain(tmp_path, capsys):
    words = ["--out", tmp_path / "out", "--statistic", "dealy"]
    said = refused(capsys, make_city(tmp_path, "a", FALLING), *words)
    assert all(statistic.name in said for statistic in find("city")[0].statistics)
    assert "the domain warehouse has no statistics" in refused(capsys, make_run(tmp_path, "w"), *words)
    assert not (tmp_path / "out").exists()
