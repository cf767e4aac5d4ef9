"""report --html: the page's numbers against the run files, its escapes, its refusals, and in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
import warnings
from fnmatch import fnmatch
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import h5py
import numpy as np
import pytest
from made_run import FOUR, RETURNS, TIMING, make_city, make_run, refused

from dials_mpi import report
from dials_mpi.core.errors import BadInput
from dials_mpi.report.page import axes, colours, maps, markup
from dials_mpi.storage.hdf5 import rewriting
from dials_mpi.storage.runfile import RunFile

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "results" / "runs" / "figure-3-warehouse-small"
EMPTY = {"meta", "link", "br", "col"}


class Page(HTMLParser):
    """A page read back: tables by caption, texts of elements by tag, attributes. Its tags must match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tables, self.texts, self.attributes, self.sortable = [], {}, {}, [], {}
        self.feed(text)
        self.close()
        assert self.open == []
        (content,) = [text for text, how in self.texts["script"] if how.get("id") == "data"]
        self.data = json.loads(content)

    def handle_starttag(self, tag, attributes):
        how = dict(attributes)
        self.attributes.append((tag, how))
        self.texts.setdefault(tag, []).append(["", how])
        if tag not in EMPTY:
            self.open.append((tag, self.texts[tag][-1]))

    def handle_data(self, data):
        for _, entry in self.open:
            entry[0] += data

    def handle_endtag(self, tag):
        assert self.open[-1][0] == tag, f"{tag} ends in {self.open[-1][0]}"
        _, entry = self.open.pop()
        if tag == "caption":
            self.rows = self.tables.setdefault(entry[0], [])
        elif tag == "tr":
            self.rows.append([])
        if tag in ("th", "td"):
            self.cells = [*getattr(self, "cells", []), (entry[0], entry[1].get("data-value"))]
        if tag == "tr":
            self.rows[-1], self.cells = self.cells, []

    def table(self, caption):
        """Rows as mappings: the exact number of a cell, or else its text."""
        head, *rows = self.tables[caption]
        return [
            {
                name: float(value) if value else text
                for (name, _), (text, value) in zip(head, row, strict=True)
            }
            for row in rows
        ]

    def chart(self, k):
        """The lines of a chart by label."""
        return {line["label"]: line for line in self.data["charts"][k]["series"]}


def written(tmp_path, runs, **options):
    file = tmp_path / "page.html"
    report.report([str(run) for run in runs], html=str(file), **options)
    return Page(file.read_text())


def of_files(runs, name):
    found = []
    for run in runs:
        with h5py.File(run / "run.h5", "r", locking=False) as file:
            found.append(file[name][()])
    return found


# Numbers -------------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.quick
def test_a_page_of_one_run_has_the_numbers_of_its_file(tmp_path):
    run = STUDY / "warehouse-4-dials-seed0"
    page = written(tmp_path, [run])
    (returns,), (steps,) = of_files([run], "evaluation/returns"), of_files([run], "evaluation/env_steps")
    (data,) = page.data["runs"]
    np.testing.assert_allclose(data["mean"], returns.mean(axis=(1, 2)))
    episodes = returns.mean(axis=2)
    errors = episodes.std(axis=1, ddof=1) / np.sqrt(episodes.shape[1])
    np.testing.assert_allclose(data["standard_error"], errors)
    assert data["env_steps"] == steps.tolist() and data["finished"] is True
    line = page.chart(0)["DIALS, F = 500K"]
    np.testing.assert_allclose(line["y"], returns.mean(axis=(1, 2)))
    assert np.all(np.diff(line["px"]) > 0)
    np.testing.assert_array_equal(np.sign(np.diff(line["py"])), -np.sign(np.diff(line["y"])))  # y is down
    (row,) = page.table("Runs")
    assert row["return"] == pytest.approx(returns[-1].mean()) and row["state"] == "finished"
    assert row["memory, GiB"] == pytest.approx(of_files([run], "memory/peak_rss")[0].sum() / 2**30)
    (losses,) = of_files([run], "evaluation/cross_entropy")
    np.testing.assert_allclose(page.chart(2)["DIALS, F = 500K"]["y"], losses.mean(axis=1))
    numbers = page.table("4 agents, by steps: mean return per agent")
    assert [row["mean return per agent"] for row in numbers] == pytest.approx(returns.mean(axis=(1, 2)))


def test_times_by_phase_are_those_of_the_file(tmp_path):
    run = STUDY / "warehouse-4-dials-seed0"
    rows = written(tmp_path, [run]).table("Seconds by phase")
    assert [(row["rank"], row["clock"]) for row in rows] == [
        (rank, clock) for rank in ("rank 0", "other ranks, mean") for clock in ("wall-clock", "CPU")
    ]
    for phase in ("collect", "influence", "train", "wait", "communicate", "evaluate"):
        seconds = of_files([run], f"timing/{phase}")[0].sum(axis=0)
        expected = [*seconds[0], *seconds[1:].mean(axis=0)]
        np.testing.assert_allclose([row[phase] for row in rows], expected, err_msg=phase)


def test_a_page_of_a_study_has_its_means_and_intervals(tmp_path):
    page = written(tmp_path, sorted(STUDY.iterdir()))
    runs = [STUDY / f"warehouse-4-gs-seed{k}" for k in range(3)]
    means = np.array([returns.mean(axis=(1, 2)) for returns in of_files(runs, "evaluation/returns")])
    line = page.chart(0)["global simulator"]
    np.testing.assert_allclose(line["y"], means.mean(axis=0))
    np.testing.assert_allclose(line["error"], means.std(axis=0, ddof=1) / np.sqrt(3))
    rows = [r for r in page.table("Final returns") if (r["method"], r["agents"]) == ("global simulator", 4)]
    half = 4.302653 * means[:, -1].std(ddof=1) / np.sqrt(3)  # Student's t, two degrees of freedom
    values = [rows[0][name] for name in ("mean", "mean from", "mean to")]
    middle = means[:, -1].mean()
    np.testing.assert_allclose(values, [middle, middle - half, middle + half], rtol=1e-6)
    assert len(page.table("Runs")) == 15 == len(page.table("Sessions"))
    differ = page.table("Settings in which the runs differ")
    assert list(differ[0]) == ["run", "mode", "seed", "warehouse.grid"]
    assert {row["mode"] for row in differ} == {"dials", "global", "untrained"}
    maps = [how["aria-label"] for tag, how in page.attributes if tag == "svg" and "regions" in str(how)]
    assert len(maps) == 6 and "5 by 5 regions" in maps[-1]


def on_map(folder, returns, x, y, names=("a", "<b>", "c")):
    """A run of a city with three agents that are at these positions, and its page."""
    run = Path(make_city(folder, "placed", [[30.0, 40.0], [20.0, 24.0]], agents=3, timing={}))
    with rewriting(run / "run.h5") as file:
        file["evaluation/returns"][-1] = returns
    placed = RunFile(run)
    placed.write({"map/name": list(names), "map/x": x, "map/y": y})
    placed.commit()
    return run


def test_a_map_shows_each_agent_where_it_is(tmp_path):
    page = written(tmp_path, [on_map(tmp_path, [-3.0, -1.0, -2.0], [0.0, 100.0, 50.0], [0.0, 50.0, -50.0])])
    of_viridis = ["#fde725", "#22908c", "#440154"]  # its first, middle and last colours
    points = [how for tag, how in page.attributes if tag == "circle" and how.get("fill") in of_viridis]
    hints = [text for text, _ in page.texts["title"] if text[:1] in "a<c"]
    assert hints == ["<b>: -1", "c: -2", "a: -3"]  # lower returns later, on top
    x, y = ([float(one[axis]) for one in points] for axis in ("cx", "cy"))
    assert x == [210.0, 110.0, 10.0]  # 100 m are 200 units
    assert y == [10.0, 210.0, 110.0]  # north is up
    assert [one["fill"] for one in points] == of_viridis


def test_a_few_outliers_do_not_make_all_others_look_equal():
    values = np.array([[*np.linspace(-4, 0, 40), -200.0]])
    low, high = maps._limits(values)
    assert -20 < low < -4 and high == 0
    assert maps._limits(values[:, :-1]) == (-4, 0) and maps._limits(np.ones((2, 3))) == (1, 1)


@pytest.mark.parametrize(
    "arrays", [{"map/x": [0.0, 1.0]}, {"map/x": [0.0, 1.0, np.nan]}, {"map/name": ["a", "b"]}]
)
def test_a_map_that_is_not_of_the_agents_is_refused(tmp_path, capsys, arrays):
    run = on_map(tmp_path, [-3.0, -1.0, -2.0], [0.0, 100.0, 50.0], [0.0, 50.0, -50.0])
    changed = RunFile(run)
    changed.write(arrays)
    changed.commit()
    assert "map is not of the agents" in refused(capsys, run, "--html", tmp_path / "page.html")


def test_tables_of_the_page_are_those_of_the_folder(tmp_path):
    runs = [make_run(tmp_path, "a", timing=TIMING), make_run(tmp_path, "b", RETURNS + 2, settings=["seed=1"])]
    page = written(tmp_path, runs, out=str(tmp_path / "out"), steps=2560)
    text = (tmp_path / "out" / "tables.md").read_text()
    for title in re.findall("## (.*)", text):
        assert page.tables[title]
    assert "Runtimes are scaled to 2,560 steps" in " ".join(text for text, _ in page.texts["li"])


@pytest.mark.parametrize(("clock", "seconds"), [("wall", 7200 + 360 + 72), ("cpu", 1800 + 180 + 18)])
def test_the_clock_is_that_of_the_curves_against_the_runtime(tmp_path, clock, seconds):
    page = written(tmp_path, [make_run(tmp_path, timing=TIMING)], clock=clock)
    chart = page.data["charts"][1]
    assert ("one core per rank" if clock == "cpu" else "wall-clock") in chart["x"]
    unit = {"h": 3600, "min": 60}[chart["x"].split(", ")[1]]
    assert chart["series"][0]["x"][-1] * unit == pytest.approx(seconds)


def test_a_statistic_takes_the_place_of_the_return(tmp_path):
    runs = [make_city(tmp_path, "a", [[90, 110], [30, 40], [20, 24]], timing={})]
    page = written(tmp_path, runs, statistic="delay")
    assert page.chart(0)["DIALS"]["y"] == [100, 35, 22]
    assert page.table("Runs")[0]["delay (s)"] == 22
    assert page.tables["Controllers and methods, delay (s)"] and "maps" not in str(page.attributes)
    levels = {text for text, how in page.texts["text"] if how.get("class") == "tick"}
    assert {"native", "actuated", "max-pressure", "max-wave", "random"} <= levels


def test_sessions_failures_and_versions_are_shown(tmp_path):
    run = Path(make_run(tmp_path, finished=False, git_commit="abc" * 14))
    file = RunFile.open(run)
    session = {"env_steps": 1280, "ranks": 5, "hosts": ["node1", "node1", "node2"], "python": "3.99"}
    file.continue_run(file.configuration(), {}, session, file.lengths())
    file.append({"events/simulator_failures": np.array([0, 2, 1])})
    file.append({"events/simulator_failures": np.array([1, 0, 0])})
    file.commit()
    page = written(tmp_path, [run])
    first, second = page.table("Sessions")
    assert (first["began"], first["ended"], second["ended"]) == ("started", "stopped", "unfinished")
    assert second["began"] == "resumed at 1,280 steps" and second["ranks"] == 5
    assert second["machines"] == "node1, node2"
    assert second["simulator failures of the run"] == 4
    assert {"program": "python", "version": "3.99", "runs": "1"} in page.table("Versions")


# What is shown -------------------------------------------------------------------------------------------


def test_an_unfinished_run_is_marked(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", RETURNS[:1], False, settings=["seed=1"])]
    page = written(tmp_path, runs)
    assert [row["state"].strip() for row in page.table("Runs")] == ["finished", "0 % done"]
    assert [how["value"] for tag, how in page.attributes if tag == "progress"] == ["0"]
    circles = [how for tag, how in page.attributes if tag == "circle" and how.get("class") == "end"]
    assert circles and page.table("Final returns")[0]["mean"] == 4
    assert any("b is unfinished" in text for text, _ in page.texts["li"])
    alone = written(tmp_path, runs[1:])
    assert "Final values" not in [text for text, _ in alone.texts["h2"]]


def test_runs_that_have_only_begun_have_a_page(tmp_path):
    """With one evaluation, without timing in one of two systems, and with predictors that are never wrong."""
    nothing = {phase: [np.zeros((3, 2))] for phase in TIMING}
    runs = [make_run(tmp_path, returns=RETURNS[:1], finished=False, timing=nothing, refit=False)]
    runs.append(make_run(tmp_path, "b", FOUR[:1], False, settings=["warehouse.grid=[2,2]"], refit=False))
    file = RunFile.open(runs[1])
    file.write({"evaluation/cross_entropy": np.zeros((1, 4))})
    file.commit()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = written(tmp_path, runs)
        alone = written(tmp_path, [make_run(tmp_path, "g", RETURNS[:1], False, mode="global")])
    assert [line["y"] for chart in page.data["charts"] for line in chart["series"]] == [
        [1],
        [1],
        [1.5],
        [0.6],
        [0],
    ]
    assert "Influence predictors" not in [text for text, _ in alone.texts["h2"]]


def test_runs_of_another_program_are_in_the_learning_curves(tmp_path):
    run = make_city(tmp_path, "a", [[90, 110], [30, 40], [20, 24]])
    other = {"map": "resco:cologne8", "algorithm": "ppo", "seed": 0}
    other["evaluations"] = [{"hours": 0, "delay": 150.0}, {"hours": 1, "delay": 31.5}]
    (tmp_path / "o.json").write_text(json.dumps(other))
    page = written(tmp_path, [run], statistic="delay", compare=[str(tmp_path / "o.json")])
    line = page.chart(0)["Stable-Baselines3 ppo on sumo-rl"]
    assert line["y"] == [150, 31.5] and line["x"][0] == 0
    assert "Stable-Baselines3 ppo on sumo-rl" in [text for text, _ in page.texts["li"]]


def test_names_are_text(tmp_path):
    """Those of runs, machines and settings: no markup, no end of the script."""
    odd = "<script>alert(1)<!--&amp;$title"
    run = make_run(tmp_path, odd, settings=["seed=1"], hosts=[f"</{'td'}><b>host"], python="</script><i>")
    page = written(tmp_path, [run, make_run(tmp_path, "plain")])
    assert {row["run"] for row in page.table("Runs")} == {odd, "plain"}
    assert page.data["runs"][0]["name"] == odd
    assert {how.get("id") for _, how in page.texts["script"]} == {"data", None}
    assert not {"b", "i"} & {tag for tag, _ in page.attributes}
    assert page.table("Sessions")[0]["machines"] == "</td><b>host"


def test_the_page_needs_no_network(tmp_path):
    written(tmp_path, [make_run(tmp_path)])
    text = (tmp_path / "page.html").read_text()
    page = Page(text)
    for tag, how in page.attributes:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert how.get(name, "#").startswith("#") or (tag, how[name]) == ("link", "data:,")
    assert not re.search(r"@import|url\(|fetch\(|XMLHttpRequest|import\(", text)
    (policy,) = [how["content"] for tag, how in page.attributes if "http-equiv" in how]
    assert policy.startswith("default-src 'none';")


def test_the_page_can_be_read_by_a_screen_reader(tmp_path):
    page = written(tmp_path, sorted(STUDY.glob("warehouse-4-*")))
    assert len(page.texts["h1"]) == 1
    assert all(
        how.get("aria-label") or how.get("aria-hidden") for tag, how in page.attributes if tag == "svg"
    )
    assert all(how.get("scope") in ("col", "row") for tag, how in page.attributes if tag == "th")
    assert len(page.texts["caption"]) == len(page.texts["table"])
    anchors = [how["href"] for tag, how in page.attributes if tag == "a"]
    ids = {f"#{how['id']}" for _, how in page.attributes if "id" in how}
    assert anchors and set(anchors) <= ids


def test_the_same_runs_give_the_same_bytes(tmp_path):
    run = make_run(tmp_path, timing=TIMING)
    written(tmp_path, [run])
    first = (tmp_path / "page.html").read_bytes()
    written(tmp_path, [run])
    assert (tmp_path / "page.html").read_bytes() == first


def test_systems_of_several_sizes_have_charts_each(tmp_path):
    four = make_run(tmp_path, "b", FOUR, settings=["warehouse.grid=[2,2]"], timing=TIMING)
    page = written(tmp_path, [make_run(tmp_path, "a", timing=TIMING), four])
    titles = [text for text, _ in page.texts["figcaption"]]
    assert titles[:4] == [f"{n} agents, by {what}" for n in (2, 4) for what in ("steps", "runtime")]


# Parts ---------------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (0, 14.3), (-3, 250), (1e-5, 2.5), (7, 7), (0.31, 0.33), (1, 1e7)]
)
def test_axes_have_round_ticks_within_their_limits(low, high, log):
    if log and low <= 0:
        low = high / 7
    axis = axes.axis("x", np.array([low, high]), 0, 100, log=log)
    ticks = np.array([value for value, _ in axis.ticks])
    assert 2 <= len(ticks) <= axes.MOST_TICKS + 1 and (np.diff(ticks) > 0).all()
    places = axis.place(ticks)
    assert places.min() >= -1e-6 and places.max() <= 100 + 1e-6
    assert axis.low <= low <= high <= axis.high
    assert "-0" not in [text for _, text in axis.ticks]


def test_a_value_that_a_log_axis_does_not_have_has_no_place():
    axis = axes.axis("x", np.array([1.0, 100.0]), 0, 10, log=True)
    assert np.isnan(axis.place([0.0, -1.0])).all() and axis.place(10.0) == pytest.approx(5)


@pytest.mark.parametrize("rgb", [(0.0, 0.45, 0.7), (0.0, 0.18, 0.28), (0.0, 0.0, 0.0), (0.9, 0.9, 0.9)])
def test_colours_can_be_seen_on_a_dark_page(rgb):
    """Contrast as in WCAG 2, to the background of page.css."""

    def luminance(colour):
        parts = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return np.dot([0.2126, 0.7152, 0.0722], parts)

    back = luminance([0x14 / 255, 0x18 / 255, 0x1C / 255])
    assert (luminance(colours._lightened(rgb)) + 0.05) / (back + 0.05) > 3.5


def test_json_has_no_nan_and_cannot_end_its_element():
    text = markup.json_text({"a": np.array([1.5, np.nan]), "b": ["</script>", np.int64(3), float("inf")]})
    assert "<" not in text and json.loads(text) == {"a": [1.5, None], "b": ["</script>", 3, None]}


def test_the_files_of_the_page_are_in_the_wheel():
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    for name in ("page.html", "page.css", "page.js"):
        assert any(fnmatch(f"report/page/{name}", pattern) for pattern in package["dials_mpi"])


# Refusals ------------------------------------------------------------------------------------------------


def test_a_page_needs_scipy_and_no_matplotlib(tmp_path, capsys, monkeypatch):
    run, file = make_run(tmp_path), tmp_path / "page.html"
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    written(tmp_path, [run])
    file.unlink()
    monkeypatch.setitem(sys.modules, "scipy", None)
    assert "pip install 'dials_mpi[report]'" in refused(capsys, run, "--html", file)
    assert not file.exists()


def test_a_page_that_cannot_be_written_is_refused(tmp_path, capsys):
    run = make_run(tmp_path)
    said = refused(capsys, run, "--html", tmp_path / "none" / "page.html")
    assert "cannot be written" in said and "choose another --html" in said
    assert "--html" in refused(capsys, run, "--html", "")


def test_a_broken_run_among_others_is_refused_and_the_old_page_stays(tmp_path, capsys):
    good, bad, file = (
        make_run(tmp_path, "good"),
        make_run(tmp_path, "bad", mode="global"),
        tmp_path / "p.html",
    )
    file.write_text("old")
    damaged = Path(bad) / "run.h5"
    damaged.write_bytes(damaged.read_bytes()[:3000])
    assert str(damaged) in refused(capsys, good, bad, "--html", file)
    assert file.read_text() == "old" and {path.name for path in tmp_path.iterdir()} == {
        "good",
        "bad",
        "p.html",
    }


@pytest.mark.parametrize(
    ("name", "content"),
    {
        "events/simulator_failures": [[b"x"], [b"y"]],
        "timing/wait": np.zeros((2, 3, 1)),
        "timing/communicate": np.zeros((1, 3, 2)),
        "timing/evaluate": 3.0,
    }.items(),
)
def test_other_content_of_a_file_is_refused(tmp_path, name, content):
    run = Path(make_run(tmp_path, timing=TIMING))
    with rewriting(run / "run.h5") as file:
        file[name] = content
    with pytest.raises(BadInput, match=r"run\.h5 is not a run file, or a damaged one"):
        written(tmp_path, [run])


# In a browser --------------------------------------------------------------------------------------------

BEFORE = """<script>
window.found = [];
addEventListener("error", (event) => found.push(event.message));
addEventListener("securitypolicyviolation", (event) => found.push(event.blockedURI));
console.error = console.warn = (...words) => found.push(words.join(" "));
</script>"""
AFTER = """<script>
const svg = document.querySelector("figure.lines svg"), box = svg.getBoundingClientRect();
const at = { clientX: box.left + box.width * 0.72, clientY: box.top + 40, bubbles: true };
svg.dispatchEvent(new PointerEvent("pointermove", at));
const tip = document.querySelector(".tip"), inside = tip.getBoundingClientRect();
const heads = [...document.querySelectorAll("#runs thead th")];
const column = heads.findIndex((head) => head.textContent === "return");
const rows = () => [...document.querySelectorAll("#runs tbody tr")];
const order = () => rows().map((row) => row.cells[column].dataset.value);
const click = () => document.querySelectorAll("#runs thead button")[column].click();
click();
const up = order();
click();
for (const part of document.querySelectorAll("details")) part.open = true;
const result = {
  found, up, down: order(), tip: tip.textContent,
  seen: !tip.hidden && inside.left >= 0 && inside.right <= innerWidth,
  width: innerWidth, needed: document.documentElement.scrollWidth,
  requests: performance.getEntriesByType("resource").map((entry) => entry.name),
};
parent.postMessage(JSON.stringify(result), "*");
</script>"""
FRAME = """<body><pre id="result"></pre><script>
addEventListener("message", (event) => { document.getElementById("result").textContent = event.data; });
</script><iframe src="tried.html" style="border: 0; width: WIDTHpx; height: 900px"></iframe></body>"""
"""Around the page, because a browser's window cannot be as narrow as a phone."""


def browsed(tmp_path, width):
    """What a browser finds on the page, shown so many pixels wide."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("there is no chromium")
    text = (tmp_path / "page.html").read_text()
    text = text.replace("<title>", f"{BEFORE}<title>", 1).replace("</body>", f"{AFTER}</body>")
    (tmp_path / "tried.html").write_text(text)
    (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    options += ["--window-size=1500,1000", "--enable-logging=stderr", "--timeout=20000", "--dump-dom"]
    done = subprocess.run(
        [chromium, *options, f"file://{tmp_path / 'frame.html'}"], capture_output=True, text=True, timeout=120
    )
    assert "CONSOLE" not in done.stderr, done.stderr
    return json.loads(unescape(re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.S)[1]))


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("which", ["one", "study", "unfinished", "city"])
def test_a_browser_shows_the_page_without_errors_and_without_requests(tmp_path, width, which):
    runs = {
        "one": lambda: [STUDY / "warehouse-4-dials-seed0"],
        "study": lambda: sorted(STUDY.iterdir()),
        "unfinished": lambda: [make_run(tmp_path, "u" * 120, RETURNS[:2], False, timing=TIMING)],
        "city": lambda: sorted((ROOT / "results" / "runs" / "cities").glob("cologne*")),
    }[which]()
    written(tmp_path, runs, statistic="delay" if which == "city" else None)
    seen = browsed(tmp_path, width)
    assert seen["found"] == [] and seen["requests"] == []
    assert seen["width"] == width and seen["needed"] <= width
    assert seen["seen"] and re.search(r"^steps per agent: [\d,]+.*: -?[\d.]+", seen["tip"])
    values = list(map(float, seen["up"]))
    assert values == sorted(values) and seen["down"] == seen["up"][::-1]
