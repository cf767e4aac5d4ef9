"""The report's numbers against hand-computed ones, its refusals, and docs/run-file.md against a real run."""

import csv
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL, train

from dials_mpi import report
from dials_mpi.config import load
from dials_mpi.domains import DOMAINS
from dials_mpi.errors import BadInput
from dials_mpi.report.__main__ import main
from dials_mpi.report.figures import with_refreshes
from dials_mpi.report.runs import require_same_system
from dials_mpi.storage.runfile import RunFile

PAGE = Path(__file__).parents[1] / "docs" / "run-file.md"
CHECKPOINT_PAGE = PAGE.with_name("checkpoint.md")
# Two evaluations, two episodes, two agents: means 1 and 4, standard errors 0.5 and 1 over the episodes.
RETURNS = np.array([[[1.0, 0.0], [1.0, 2.0]], [[2.0, 4.0], [4.0, 6.0]]])


def make_run(
    folder, name="run", returns=RETURNS, finished=True, refresh=True, settings=(), mode="dials", **attributes
):
    words = ["warehouse.grid=[1,2]", "total_steps=2560", "evaluate_every=1280", f"mode={mode}"]
    config = load(None, [*words, *settings])
    (folder / name).mkdir(parents=True, exist_ok=True)
    run = RunFile(folder / name)
    run.create(config.to_yaml(), {"finished": False, **attributes}, {})
    for k, row in enumerate(returns):
        evaluation = {"env_steps": 1280 * k, "wall_time": 1.0 + 8 * k, "returns": row}
        if mode != "global":
            evaluation["cross_entropy"] = [0.5, 0.7 - 0.2 * k]
        run.append({f"evaluation/{key}": value for key, value in evaluation.items()})
        if k == 0 and refresh and mode == "dials":
            losses = {"before": [1.0, 1.2], "after": [0.3, 0.5], "constant": [0.6, 0.8]}
            row = {f"influence/cross_entropy_{key}": value for key, value in losses.items()}
            run.append({"influence/env_steps": 0, **row})
    run.write({"memory/peak_rss": np.array([2.0**29, 2.0**30])})
    if finished:
        run.write({"reference/random": np.full((2, 2), 0.5), "reference/oldest": np.full((2, 2), 5.0)})
        run.write({}, finished=True)
    run.commit()
    return str(folder / name)


def rows_of(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


# Numbers -------------------------------------------------------------------------------------------------


def test_summary_and_curves_hold_the_hand_computed_numbers(tmp_path):
    report.report([make_run(tmp_path, settings=["seed=3"])], str(tmp_path / "out"))
    assert rows_of(tmp_path / "out" / "summary.csv") == [
        {
            "run": "run",
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
    np.testing.assert_allclose(group.returns.mean, [3, 5])
    np.testing.assert_allclose(group.returns.standard_error, [2 / np.sqrt(3), 1])
    assert [run.name for run in group.unfinished] == ["c"]
    np.testing.assert_allclose(group.refreshes.after, [0.4])


def test_a_single_run_has_the_standard_error_over_its_episodes(tmp_path):
    (group,) = report.group_runs(report.read_runs([make_run(tmp_path)]))
    np.testing.assert_allclose(group.returns.standard_error, [0.5, 1])


def test_methods_have_their_colours_and_refresh_intervals_their_shades(tmp_path):
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


def test_f_does_not_separate_runs_without_refreshes(tmp_path):
    runs = [make_run(tmp_path, str(k), mode="global", settings=[f"seed={k}"]) for k in range(2)]
    runs.append(make_run(tmp_path, "2", mode="global", settings=["seed=2", "retrain_every=1280"]))
    (group,) = report.group_runs(report.read_runs(runs))
    assert len(group.runs) == 3


def test_labels_of_runs_without_refreshes_do_not_speak_of_f(tmp_path):
    runs = [make_run(tmp_path, n, mode="global", settings=[f"total_steps={n}"]) for n in ("1280", "2560")]
    labels = {group.label for group in report.group_runs(report.read_runs(runs))}
    assert labels == {"global simulator, total_steps=1280", "global simulator, total_steps=2560"}


@pytest.mark.parametrize("steps, text", [(0, "0"), (500, "500"), (1280, "1.28K"), (4_000_000, "4M")])
def test_short(steps, text):
    assert report.short(steps) == text


# Pictures ------------------------------------------------------------------------------------------------


def test_the_same_runs_give_the_same_bytes(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", finished=False, settings=["seed=1"])]
    _, files = report.report(runs, str(tmp_path / "one"))
    report.report(runs, str(tmp_path / "two"))
    names = {"learning-curves.png", "learning-curves.svg", "cross-entropy.png", "cross-entropy.svg"}
    assert {file.name for file in files} == names | {"summary.csv", "curves.csv"}
    for file in files:
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_a_picture_shows_references_unfinished_runs_and_the_band(tmp_path):
    from matplotlib.figure import Figure

    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "g", finished=False, mode="global")]
    axes = Figure().add_subplot()
    report.draw_learning_curves(axes, report.group_runs(report.read_runs(runs)))
    assert {text.get_text() for text in axes.texts} == {"hand-coded (oldest)", "random"}
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["DIALS", "global simulator", "± standard error over episodes", "unfinished run"]


def test_the_cross_entropy_falls_at_a_refresh(tmp_path):
    (group,) = report.group_runs(report.read_runs([make_run(tmp_path)]))
    steps, losses = with_refreshes(group)
    assert steps.tolist() == [0, 0, 1280]
    np.testing.assert_allclose(losses, [0.6, 0.4, 0.5])


def test_global_runs_have_no_cross_entropy_picture(tmp_path, capsys):
    run = make_run(tmp_path, mode="global", finished=False)
    with pytest.raises(SystemExit, match="0"):
        main([run, "--out", str(tmp_path / "out")])
    assert not list((tmp_path / "out").glob("cross-entropy*"))
    out = capsys.readouterr().out
    assert "no cross-entropy picture" in out and "unfinished" in out
    assert rows_of(tmp_path / "out" / "curves.csv")[0]["cross_entropy"] == ""


# Refusals ------------------------------------------------------------------------------------------------


def refused(capsys, *arguments):
    with pytest.raises(SystemExit, match="2"):
        main(list(map(str, arguments)))
    said = capsys.readouterr().err
    assert said.startswith("dials_mpi: ") and said.count("\n") == 1
    return said


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
        ({"settings": ["warehouse.grid=[2,2]"], "returns": np.ones((1, 2, 4))}, "a has 2 agents and b has 4"),
        ({}, "a and b have the same configuration and seed"),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(tmp_path, capsys, change, reason):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", refresh=False, **change)]
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


# The page that describes the format ----------------------------------------------------------------------


@pytest.fixture(scope="module", params=["warehouse", "traffic"])
def any_run(request, tmp_path_factory):
    """The directory of a small run, whose default name would be that of the page's example."""
    folder = tmp_path_factory.mktemp("page") / "runs" / f"{request.param}-4-dials-seed0"
    small = "total_steps=256 evaluate_every=128 evaluation_episodes=3 dataset_size=200"
    smaller = "influence.epochs=1 influence.hidden=[8,8] policy.hidden=[16,8]"
    domain = [f"domain={request.param}", f"{request.param}.grid=[1,2]", f"{request.param}.horizon=100"]
    words = [*domain, *small.split(), *smaller.split(), "--output", str(folder)]
    subprocess.run([sys.executable, "-m", "dials_mpi.train", *words], check=True, capture_output=True)
    return request.param, folder


@pytest.fixture
def real_run(any_run):
    domain, folder = any_run
    if domain != "warehouse":
        pytest.skip("the same in every domain")
    return folder


def table_of_page(heading, page=PAGE):
    """The first cell of each row, which may hold several names, -> the other cells."""
    section = page.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+`) \| (.*) \|$", section, re.M)
    cells = {names: [cell.strip() for cell in rest.split("|")] for names, rest in rows}
    return {name: rest for names, rest in cells.items() for name in re.findall(r"`(.+?)`", names)}


def datasets_of_page(domain):
    """Name -> shape, type, unit, meaning, with the domain's own policies and statistics put in."""
    rows, kind = table_of_page("Datasets"), DOMAINS[domain][0]
    rows["config/0"] = rows.pop("config/k")
    returns = rows.pop("reference/HAND_CODED")
    rows |= {f"reference/{name}": returns for name in kind.hand_coded}
    of_evaluation = rows.pop("evaluation_statistics/STATISTIC")
    of_reference = rows.pop("reference_statistics/POLICY/STATISTIC")
    for statistic in kind.statistics:
        rows[f"evaluation_statistics/{statistic.name}"] = [*of_evaluation[:2], statistic.unit]
        for policy in ("random", *kind.hand_coded):
            rows[f"reference_statistics/{policy}/{statistic.name}"] = [*of_reference[:2], statistic.unit]
    return rows


def type_of(value):
    return "text" if value.dtype == object or value.dtype.kind in "OSU" else value.dtype.name


def test_the_page_lists_the_attributes_of_a_file(any_run):
    domain, folder = any_run
    page = table_of_page("Attributes of the file")
    if domain != "traffic":
        del page["sumo"], page["sumo_module"]
    with h5py.File(folder / "run.h5") as file:
        assert set(file.attrs) == set(page)
        for name, value in file.attrs.items():
            assert page[name][0].split(" ")[0] == type_of(np.asarray(value)), name


def test_the_page_lists_the_statistics_of_the_traffic_domain():
    page = table_of_page("Statistics of the traffic domain")
    statistics = DOMAINS["traffic"][0].statistics
    assert {name: row[0] for name, row in page.items()} == {s.name: s.unit for s in statistics}


def test_the_page_lists_the_datasets_of_a_file(any_run):
    domain, folder = any_run
    page = datasets_of_page(domain)
    found = {}
    with h5py.File(folder / "run.h5") as file:
        file.visititems(lambda name, item: found.update({name: item}) if hasattr(item, "dtype") else None)
        assert set(found) == set(page)
        letters = {"t": 3, "s": 2, "r": 1, "E": 3, "N": 2, "W": 1, "K": 1, "2": 2}
        for name, dataset in found.items():
            shape, kind, unit = page[name][:3]
            axes = [letter for letter in shape.strip("[]").split(", ") if letter]
            letters["P"] = dataset.shape[-1] if "P" in axes else None
            assert dataset.shape == tuple(letters[letter] for letter in axes), name
            assert type_of(dataset) == kind, name
            assert dataset.attrs.get("unit", "") == unit, name
            assert ("columns" in dataset.attrs) == (axes[-1:] == ["2"]), name
        assert list(found["timing/train"].attrs["columns"]) == ["wall", "CPU"]


def test_the_page_lists_the_attributes_of_a_configuration(real_run):
    with h5py.File(real_run / "run.h5") as file:
        own = set(file["config/0"].attrs)
    assert own == set(re.findall(r"`(\w+)`", table_of_page("Datasets")["config/k"][-1]))


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_the_page_of_checkpoints_lists_what_is_in_one(real_run, tmp_path, schedule):
    attributes = table_of_page("Attributes of the file", CHECKPOINT_PAGE)
    datasets = {}
    for name, cells in table_of_page("Datasets", CHECKPOINT_PAGE).items():
        datasets |= {name.replace("KIND", kind): cells for kind in ("policy", "predictor")}
    if schedule == "overlapped":
        settings = (*SMALL, "warehouse.grid=[1,2]", "schedule=overlapped")  # a refresh would follow
        assert train(*settings, "--output", str(tmp_path)).code == 0
        real_run = tmp_path
    else:
        del datasets["earlier_policy/parameters"]
    with h5py.File(real_run / "checkpoint-256.h5") as file:
        assert set(file.attrs) == set(attributes)
        for name, value in file.attrs.items():
            kind = attributes[name][0]
            assert kind in ("", "bytes" if isinstance(value, bytes) else type_of(np.asarray(value))), name
        found = {}
        file.visititems(lambda name, item: found.update({name: item}) if hasattr(item, "dtype") else None)
        assert set(found) == set(datasets)
        for name, dataset in found.items():
            shape, kind = datasets[name][:2]
            which = name in ("policy/table_of", "predictor/table_of")
            assert type_of(dataset) == kind.split(", ")[which if ", " in kind else 0], name
            axes = shape.split(", [")[which if ", [" in shape else 0].strip("[]").split(", ")
            sizes = {"N": 2, "K": 1, "1": 1, "P": dataset.shape[-1] if dataset.shape else 0}
            assert dataset.shape == tuple(sizes[axis] for axis in axes if axis), name


def test_the_example_of_the_page_of_checkpoints_runs(real_run):
    example = re.search(r"```python\n(.*?)```", CHECKPOINT_PAGE.read_text(), re.S).group(1)
    example = example.replace("checkpoint-400000", "checkpoint-256")
    command = [sys.executable, "-c", example]
    done = subprocess.run(command, cwd=real_run.parents[1], capture_output=True, text=True, check=True)
    assert "'env_steps': np.int64(256)" in done.stdout


def test_the_example_of_the_page_runs(real_run):
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S).group(1)
    command = [sys.executable, "-c", "import matplotlib; matplotlib.use('Agg')\n" + example]
    done = subprocess.run(command, cwd=real_run.parents[1], capture_output=True, text=True, check=True)
    assert "'gru.weight_ih': (48, 37)" in done.stdout
    assert (real_run.parents[1] / "curve.png").stat().st_size > 1000


def test_a_real_run_is_reported(any_run, tmp_path):
    domain, folder = any_run
    runs, _ = report.report([str(folder)], str(tmp_path))
    assert runs[0].finished and runs[0].env_steps.tolist() == [0, 128, 256]
    rows = rows_of(tmp_path / "curves.csv")
    with h5py.File(folder / "run.h5") as file:
        for statistic in DOMAINS[domain][0].statistics:
            series = file[f"evaluation_statistics/{statistic.name}"][()]
            written = [float(row[statistic.name] or "nan") for row in rows]
            np.testing.assert_allclose(written, [np.mean(row[np.isfinite(row)]) for row in series], rtol=1e-5)
