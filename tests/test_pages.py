"""docs/run-file.md and docs/checkpoint.md against a real run, which is reported as well."""

import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import SMALL, train
from made_run import rows_of

from dials_mpi import report
from dials_mpi.domains import DOMAINS
from dials_mpi.storage.dimensions import is_coordinate

PAGE = Path(__file__).parents[1] / "docs" / "run-file.md"
CHECKPOINT_PAGE = PAGE.with_name("checkpoint.md")


@pytest.fixture(scope="module", params=["warehouse", "traffic"])
def any_run(request, tmp_path_factory):
    """The directory of a small run, whose default name would be that of the page's example."""
    folder = tmp_path_factory.mktemp("page") / "runs" / f"{request.param}-4-dials-seed0"
    small = "total_steps=256 evaluate_every=128 evaluation_episodes=3 dataset_size=200"
    smaller = "influence.epochs=1 influence.hidden=[8,8] policy.hidden=[16,8]"
    domain = [f"domain={request.param}", f"{request.param}.grid=[1,2]", f"{request.param}.horizon=100"]
    words = [*domain, *small.split(), *smaller.split(), "--output", str(folder)]
    assert train(*words).code == 0
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
    if not kind.statistics:
        del rows["evaluation_statistics/env_steps"]
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
        del page["sumo"], page["sumo_module"], page["netconvert"]
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
        found = {name: item for name, item in found.items() if not is_coordinate(name) or name in page}
        assert set(found) == set(page)
        letters = {"t": 3, "s": 2, "r": 1, "E": 3, "N": 2, "R": 2, "W": 1, "K": 1, "2": 2}
        for name, dataset in found.items():
            shape, kind, unit = page[name][:3]
            axes = [letter for letter in shape.strip("[]").split(", ") if letter]
            letters["P"] = dataset.shape[-1] if "P" in axes else None
            assert dataset.shape == tuple(letters[letter] for letter in axes), name
            assert type_of(dataset) == kind, name
            assert dataset.attrs.get("unit", "") == unit, name
            assert ("units" in dataset.attrs) == bool(unit), name
        assert list(file["timing/clock"].asstr()) == ["wall", "CPU"]


def test_the_page_lists_the_dimensions_of_a_file(real_run):
    """Each axis of each dataset is named as the page's letter says; each name is a scale of that group."""
    rows = {name: letters.split(", ") for name, (letters, *_) in table_of_page("Dimensions").items()}
    names = {letter: name for name, letters in rows.items() for letter in letters}
    page = datasets_of_page("warehouse")
    with h5py.File(real_run / "run.h5") as file:
        for name, row in page.items():
            axes = [letter for letter in row[0].strip("[]").split(", ") if letter]
            if is_coordinate(name):
                continue
            for axis, letter in zip(file[name].dims, axes, strict=True):
                if file[name].is_scale:
                    continue
                (scale,) = axis.values()
                assert scale.name.rpartition("/")[2] == names[letter], name


def test_the_page_lists_the_attributes_of_a_configuration(real_run):
    with h5py.File(real_run / "run.h5") as file:
        own = set(file["config/0"].attrs)
    named = set(re.findall(r"`(\w+)`", table_of_page("Datasets")["config/k"][-1]))
    versions = set(table_of_page("Attributes of the file"))
    versions -= {"format_version", "domain", "mode", "seed", "sumo", "sumo_module", "netconvert"}
    versions -= {"finished", "references_paired"}
    assert own == (named | versions) - {"rebuilt_from"}


@pytest.mark.parametrize("schedule", ["synchronous", "overlapped"])
def test_the_page_of_checkpoints_lists_what_is_in_one(real_run, tmp_path, schedule):
    attributes = table_of_page("Attributes of the file", CHECKPOINT_PAGE)
    datasets = {}
    for name, cells in table_of_page("Datasets", CHECKPOINT_PAGE).items():
        datasets |= {name.replace("KIND", kind): cells for kind in ("policy", "predictor")}
    if schedule == "overlapped":
        settings = (*SMALL, "warehouse.grid=[1,2]", "schedule=overlapped")  # a refit would follow
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
        found = {name: item for name, item in found.items() if not is_coordinate(name)}
        assert set(found) == set(datasets)
        for name, dataset in found.items():
            shape, kind = datasets[name][:2]
            which = name in ("policy/table_of", "predictor/table_of")
            assert type_of(dataset) == kind.split(", ")[which if ", " in kind else 0], name
            axes = shape.split(", [")[which if ", [" in shape else 0].strip("[]").split(", ")
            sizes = {"N": 2, "n": 2, "K": 1, "1": 1, "W": 1, "13": 13}
            sizes["P"] = dataset.shape[-1] if dataset.shape else 0
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


def test_a_real_run_is_reported(any_run, tmp_path, tables_alone):
    domain, folder = any_run
    runs, _ = report.report([str(folder)], str(tmp_path))
    assert runs[0].finished and runs[0].env_steps.tolist() == [0, 128, 256]
    rows = rows_of(tmp_path / "curves.csv")
    with h5py.File(folder / "run.h5") as file:
        for statistic in DOMAINS[domain][0].statistics:
            series = file[f"evaluation_statistics/{statistic.name}"][()]
            written = [float(row[statistic.name] or "nan") for row in rows]
            np.testing.assert_allclose(written, [np.mean(row[np.isfinite(row)]) for row in series], rtol=1e-5)
