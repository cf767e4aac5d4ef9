"""report --marl-eval: the structure that marl-eval's README describes, with the values of the run files."""

import json
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_run import FOUR, RETURNS, make_city, make_run

from dials_mpi import report
from dials_mpi.core.errors import BadInput
from dials_mpi.report.__main__ import main
from dials_mpi.report.marl_eval import inequalities

RUNS = Path(__file__).parents[1] / "results" / "runs" / "figure-3-warehouse-small"
STEP_KEYS = {"step_count", "elapsed_time"}


def strict(text):
    """JSON without NaN and Infinity, which marl-eval's arithmetic would spread."""

    def refuse(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refuse)


def written(tmp_path, runs, **options):
    report.report([str(run) for run in runs], marl_eval=str(tmp_path / "out.json"), **options)
    return strict((tmp_path / "out.json").read_text())


def require_structure(content):
    """Environment, task, algorithm, run, step, metric: nested as in marl-eval's README, equal everywhere."""
    for tasks in content.values():
        for algorithms in tasks.values():
            assert not any("," in name for name in algorithms)  # marl-eval refuses them
            for runs in algorithms.values():
                for steps in runs.values():
                    *names, last = steps
                    assert last == "absolute_metrics"
                    assert names == [f"step_{k}" for k in range(len(names))] and names
                    metrics = set(steps[last])
                    assert "return" in metrics and all(len(values) == 1 for values in steps[last].values())
                    counts = [steps[name]["step_count"] for name in names]
                    assert counts == sorted(set(counts)) and all(type(count) is int for count in counts)
                    for name in names:
                        assert set(steps[name]) == metrics | STEP_KEYS
                        assert all(steps[name][metric] for metric in metrics)
                        assert all(type(v) is float for metric in metrics for v in steps[name][metric])


@pytest.mark.quick
def test_values_are_those_of_the_run_files(tmp_path):
    runs = sorted(RUNS.glob("warehouse-4-*-seed[01]"))
    content = written(tmp_path, runs)
    require_structure(content)
    assert list(content) == ["warehouse"] and list(content["warehouse"]) == ["4 agents"]
    methods = content["warehouse"]["4 agents"]
    assert list(methods) == ["DIALS; F = 500K", "untrained", "global simulator"]
    assert all(list(seeds) == ["seed_0", "seed_1"] for seeds in methods.values())
    with h5py.File(RUNS / "warehouse-4-gs-seed1" / "run.h5") as file:
        returns, steps = file["evaluation/returns"][:], file["evaluation/env_steps"][:]
        seconds = file["evaluation/wall_time"][:]
    run = methods["global simulator"]["seed_1"]
    for t in range(len(steps)):
        step = run[f"step_{t}"]
        np.testing.assert_array_equal(step["return"], returns[t].mean(axis=1))
        assert (step["step_count"], step["elapsed_time"]) == (steps[t], seconds[t])
    np.testing.assert_allclose(run["absolute_metrics"]["return"], [returns.mean(axis=(1, 2)).max()])


def test_statistics_are_metrics_where_every_evaluation_knows_them(tmp_path):
    """An episode without a value is left out; a statistic without any value is left out everywhere."""
    run = make_city(tmp_path, "a", [[90, np.nan], [30, 40], [50, 70]])
    content = written(tmp_path, [run], statistic="delay")
    require_structure(content)
    (seeds,) = content["city"]["cologne8"].values()
    assert [seeds["seed_0"][f"step_{t}"]["delay"] for t in range(3)] == [[90], [30, 40], [50, 70]]
    assert seeds["seed_0"]["absolute_metrics"]["delay"] == [35]  # at the evaluation with the least delay
    assert seeds["seed_0"]["absolute_metrics"]["return"] == [-2]  # of the same evaluation
    unknown = make_city(tmp_path, "b", [[np.nan, np.nan], [30, 40], [50, 70]], settings=["seed=1"])
    both = written(tmp_path, [run, unknown])
    require_structure(both)
    steps = [step for seed in (*both["city"]["cologne8"].values(),) for step in seed.values()]
    assert steps and all("delay" not in step["step_0"] for step in steps)


def test_unequal_runs_are_written_and_reported(tmp_path, capsys):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", RETURNS[:1], False, settings=["seed=1"])]
    runs.append(make_run(tmp_path, "c", FOUR, mode="global", settings=["warehouse.grid=[2,2]"]))
    with pytest.raises(SystemExit, match="0"):
        main([*runs, "--marl-eval", str(tmp_path / "out.json")])
    said = capsys.readouterr().out
    for what in ("methods of each system", "numbers of seeds", "numbers of evaluations"):
        assert f"marl-eval needs equal {what}" in said
    assert str(tmp_path / "out.json") in said.replace("\n", "")
    require_structure(strict((tmp_path / "out.json").read_text()))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert inequalities(report.group_runs(report.read_runs(runs[:1]))) == []


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"cannot be written .* choose another --marl-eval"):
        report.report([make_run(tmp_path)], marl_eval=str(tmp_path / "none" / "out.json"))


def test_the_file_needs_neither_matplotlib_nor_scipy(tmp_path, monkeypatch):
    for library in ("matplotlib", "scipy"):
        monkeypatch.setitem(sys.modules, library, None)
    require_structure(written(tmp_path, [make_run(tmp_path)]))


def test_something_must_be_written(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([make_run(tmp_path)])
    assert "--out FOLDER, --html FILE or --marl-eval FILE" in capsys.readouterr().err
