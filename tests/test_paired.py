"""Reports of studies: paired differences by hand, names of methods, folders, LaTeX, units, pictures."""

import re

import numpy as np
import pytest
from made_run import RETURNS, make_city, make_run, refused, rows_of
from matplotlib.figure import Figure

from dials_mpi import report
from dials_mpi.archive import archive
from dials_mpi.report import figures, paired
from dials_mpi.report.__main__ import main
from dials_mpi.report.latex import escaped
from dials_mpi.report.runtimes import duration, time_unit
from dials_mpi.results import membership
from dials_mpi.results.membership import Membership
from dials_mpi.results.style import style

SLOW = "slow-and-steady"
FAST = "fast"


def make_study(folder, seeds=(0, 1), shared=True, **how):
    """Two methods that differ in PPO's step size; the second one is better by the seed + 1, and by noise."""
    settings = ["evaluation_seed=0"] * shared
    for seed in seeds:
        for order, (method, rate) in enumerate({SLOW: 1e-4, FAST: 1e-3}.items()):
            name = f"four-{method}-seed{seed}"
            noise = np.array([0.5, -0.25])[None, :, None] * order
            returns = RETURNS + 10 * seed + order * (seed + 1) + noise
            words = [*settings, f"seed={seed}", f"ppo.learning_rate={rate}"]
            make_run(folder, name, returns, settings=words, **how)
            membership.write(folder / name, Membership("lr", "four", method, order))
    return str(folder)


def groups_of(*given):
    return report.group_runs(report.read_runs(given))


# Paired differences --------------------------------------------------------------------------------------


@pytest.mark.quick
def test_methods_are_compared_seed_by_seed(tmp_path, tables_alone):
    """By hand: differences of the means 1.125 and 2.125, with errors over two episodes of 0.375."""
    report.report([make_study(tmp_path / "lr")], str(tmp_path / "out"), html=str(tmp_path / "page.html"))
    rows = rows_of(tmp_path / "out" / "paired-seeds.csv")
    who = {"method": FAST, "minus": SLOW, "agents": "2"}
    assert rows == [
        {**who, "seed": "0", "difference": "1.125", "standard error": "0.375"},
        {**who, "seed": "1", "difference": "2.125", "standard error": "0.375"},
    ]
    (row,) = rows_of(tmp_path / "out" / "paired.csv")
    half = (
        12.7062 * 0.5
    )  # Student's t of one degree of freedom, and the standard error of the two differences
    assert {key: row[key] for key in ("method", "minus", "seeds")} == {**who, "seeds": "2"} | {} or row
    assert [float(row[key]) for key in ("difference", "from", "to")] == pytest.approx(
        [1.625, 1.625 - half, 1.625 + half], abs=1e-4
    )
    # The interval is narrower than that of a mean, which contains the difference of the seeds, 10.
    finals = {one["method"]: one for one in rows_of(tmp_path / "out" / "returns.csv")}
    assert float(finals[FAST]["mean to"]) - float(finals[FAST]["mean from"]) > 10 * 2 * half
    for file in ("out/tables.md", "out/tables.tex", "page.html"):
        text = (tmp_path / file).read_text()
        assert "Paired differences of final returns, by seed" in text and "0.375" in text, file


def test_seeds_without_a_partner_are_in_no_difference_and_said_so(tmp_path):
    folder = make_study(tmp_path / "lr", seeds=(0, 1, 2))
    (tmp_path / "lr" / f"four-{FAST}-seed1" / "run.h5").unlink()
    groups = groups_of(folder)
    assert [row["seed"] for row in paired.seed_rows(groups)] == [0, 2]
    assert paired.difference_rows(groups)[0]["seeds"] == 2
    assert f"{FAST} minus {SLOW}, 2 agents: seed 1 of one method alone is in no paired difference." in (
        report.notes(groups, None)
    )


def test_methods_without_a_common_seed_are_not_compared(tmp_path):
    folder = make_study(tmp_path / "lr")
    for name in (f"four-{FAST}-seed1", f"four-{SLOW}-seed0"):
        (tmp_path / "lr" / name / "run.h5").unlink()
    groups = groups_of(folder)
    assert paired.seed_rows(groups) == paired.difference_rows(groups) == []
    assert f"{FAST} minus {SLOW}, 2 agents: no seed in common, so no paired difference." in (
        report.notes(groups, None)
    )


def test_unfinished_runs_are_in_no_difference_and_said_so(tmp_path):
    make_study(tmp_path / "lr", finished=False)
    assert paired.comparisons(groups := groups_of(str(tmp_path / "lr"))) == []
    assert not any("paired" in note for note in report.notes(groups, None))
    make_run(tmp_path / "lr", f"four-{FAST}-seed0", settings=["evaluation_seed=0", "ppo.learning_rate=0.001"])
    groups = groups_of(str(tmp_path / "lr"))
    assert paired.comparisons(groups) == []
    said = f"2 agents: no finished run of {SLOW}, so no paired difference."
    assert said in report.notes(groups, None)


@pytest.mark.parametrize(
    ("words", "same"),
    [([], True), (["evaluation_seed=3"], False), (["segment_every=640"], False)],
)
def test_without_common_episodes_a_seed_has_no_standard_error(tmp_path, words, same):
    """Runs of one seed have them, but for another number of segments."""
    one = make_run(tmp_path, "one")
    other = make_run(tmp_path, "other", RETURNS + 1, settings=["ppo.clip=0.2", *words])
    (row,) = paired.seed_rows(groups := groups_of(one, other))
    assert abs(row["difference"]) == 1
    assert np.isnan(row["standard error"]) != same
    assert any("was evaluated on different episodes" in note for note in report.notes(groups, None)) != same


def test_a_statistic_is_compared_in_pairs(tmp_path):
    """An episode in which one of the two is not known is left out of the error."""
    delays = {"global": [[9, 9, 9, 9], [5, 6, 7, np.nan]], "dials": [[9, 9, 9, 9], [4, 4, 6, 5]]}
    runs = [make_city(tmp_path, mode, delays[mode], mode=mode) for mode in delays]
    groups = report.group_runs(report.read_runs(runs, statistic="delay"))
    (row,) = paired.seed_rows(groups)
    assert (row["method"], row["minus"]) == ("global simulator", "DIALS")
    assert row["difference"] == pytest.approx(6 - 4.75)
    differences = np.array([1, 2, 1])
    assert row["standard error"] == pytest.approx(differences.std(ddof=1) / np.sqrt(3))


def test_runs_that_differ_in_their_evaluation_episodes_are_one_method(tmp_path):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", settings=["seed=1", "evaluation_seed=0"])]
    (group,) = groups_of(*runs)
    assert [run.name for run in group.runs] == ["a", "b"]


def test_one_training_is_not_counted_twice(tmp_path, capsys):
    runs = [make_run(tmp_path, "a"), make_run(tmp_path, "b", settings=["evaluation_seed=0"])]
    assert "a and b have the same configuration and seed" in refused(capsys, *runs, "--out", tmp_path / "out")


# Names and folders ---------------------------------------------------------------------------------------


def test_the_names_of_a_study_are_those_of_its_report(tmp_path, tables_alone):
    """In the order of the study file, in legends, tables and CSV, also of copies that were archived."""
    folder = make_study(tmp_path / "lr")
    archive([str(path) for path in sorted((tmp_path / "lr").iterdir())], tmp_path / "kept")
    for given in (folder, str(tmp_path / "kept")):
        groups = groups_of(given)
        assert [group.label for group in groups] == [SLOW, FAST]
        figures.draw_learning_curves(figure := Figure(), groups, "wall")
        texts = [text.get_text() for text in figure.legends[0].get_texts()]
        assert texts[:2] == [f"{SLOW} (2 seeds)", f"{FAST} (2 seeds)"]
    report.report([folder], str(tmp_path / "out"))
    for name in ("summary", "curves"):
        methods = {row["run"]: row["method"] for row in rows_of(tmp_path / "out" / f"{name}.csv")}
        assert methods == {f"four-{m}-seed{s}": m for m in (SLOW, FAST) for s in (0, 1)}


def test_a_name_that_two_methods_have_names_neither(tmp_path):
    folder = make_study(tmp_path / "lr")
    for seed in (0, 1):
        membership.write(tmp_path / "lr" / f"four-{FAST}-seed{seed}", Membership("lr", "four", SLOW, 1))
    labels = {group.label for group in groups_of(folder)}
    assert labels == {f"DIALS, F = 4M, ppo.learning_rate={rate}" for rate in (0.0001, 0.001)}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"study": 1}', "[" * 5000, "x" * 20_000, '"' + "\x00"])
def test_a_file_that_no_study_has_written_names_nothing(tmp_path, text):
    (tmp_path / "study.json").write_text(text)
    assert membership.read(tmp_path) is None


def test_what_is_recorded_of_a_run_can_be_read(tmp_path):
    membership.write(tmp_path / "gone", one := Membership("lr", "four", "a", 3))
    assert membership.read(tmp_path / "gone") is None
    membership.write(tmp_path, one)
    assert membership.read(tmp_path) == one
    membership.write(tmp_path, one._replace(order=4))
    assert membership.read(tmp_path).order == 4


def test_a_folder_stands_for_its_runs(tmp_path, capsys, tables_alone):
    """Those without an evaluation are left out, with a word on each."""
    folder = make_study(tmp_path / "lr")
    make_run(tmp_path / "lr", "begun", returns=(), refit=False, finished=False)
    (tmp_path / "lr" / "notes").mkdir()
    with pytest.raises(SystemExit, match="0"):
        main([folder, "--out", str(tmp_path / "out")])
    assert f"{folder}/begun has no evaluation yet: left out" in capsys.readouterr().out
    assert len(rows_of(tmp_path / "out" / "summary.csv")) == 4
    empty = tmp_path / "lr" / "notes"
    assert "there is no run.h5 in" in refused(capsys, empty, "--out", tmp_path / "out")
    only = tmp_path / "only"
    make_run(only, "begun", returns=(), refit=False, finished=False)
    assert "holds no evaluation yet" in refused(capsys, only, "--out", tmp_path / "out")


# Tables and units ----------------------------------------------------------------------------------------


def test_statistics_of_the_domain_stand_in_the_tables(tmp_path, tables_alone):
    """Means over the finished seeds, and of the policies that need no training."""
    runs = [
        make_city(tmp_path, f"d{seed}", [[90, 80], [20 + seed, 30]], settings=[f"seed={seed}"])
        for seed in (0, 1)
    ]
    report.report(runs, str(tmp_path / "out"))
    rows = {row["method"]: row for row in rows_of(tmp_path / "out" / "statistics.csv")}
    assert float(rows["DIALS"]["delay (s)"]) == np.mean([[20, 30], [21, 30]])
    assert float(rows["actuated"]["delay (s)"]) == 40 and rows["actuated"]["finished runs"] == ""
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "## Statistics of the domain at the end" in text and "| actuated |" in text


def test_times_have_a_unit_that_fits(tmp_path, tables_alone):
    """13 s are 0.003635 h; the CSV file keeps hours, for programs."""
    timing = {
        "train": [np.zeros((1, 2)), np.full((1, 2), 12.0)],
        "collect": [np.ones((1, 2)), np.zeros((1, 2))],
        "influence": [np.zeros((1, 2)), np.zeros((1, 2))],
    }
    report.report([make_run(tmp_path, timing=timing, peak_rss=(1e9,))], str(tmp_path / "out"))
    text = (tmp_path / "out" / "tables.md").read_text()
    assert "| training, s, wall-clock |" in text and "| 12 | 1 | 13 |" in text
    (row,) = rows_of(tmp_path / "out" / "runtimes.csv")
    assert float(row["total, h, wall-clock"]) == pytest.approx(13 / 3600, rel=1e-5)


@pytest.mark.parametrize(
    ("hours", "unit", "text"),
    [(0.003635, "s", "13 s"), (0.02, "min", "72 s"), (0.5, "min", "30 min"), (3, "h", "3.0 h")],
)
def test_units(hours, unit, text):
    assert time_unit(hours).name == unit
    assert duration(3600 * hours) == text


def test_latex_has_the_cells_of_markdown(tmp_path, tables_alone):
    folder = make_study(tmp_path / "lr")
    report.report([folder], str(tmp_path / "out"))
    markdown, latex = ((tmp_path / "out" / f"tables.{kind}").read_text() for kind in ("md", "tex"))
    rows = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row] for row in rows if set("".join(row)) != {"-"}]
    found = [line.removesuffix(r" \\").split(" & ") for line in latex.splitlines() if line.endswith(r"\\")]
    assert [[escaped(cell) for cell in row if cell] for row in cells] == [
        [cell.strip() for cell in row if cell.strip()] for row in found
    ]
    assert latex.count(r"\begin{table}") == latex.count(r"\end{table}") == markdown.count("## ")
    for columns, first in re.findall(r"\\begin{tabular}{(\w+)}\n\\hline\n(.*)", latex):
        assert len(columns) == len(first.split(" & "))


def test_latex_shows_names_as_they_are():
    assert escaped(r"50%_a&b\c {^~}") == (
        r"50\%\_a\&b\textbackslash{}c \{\textasciicircum{}\textasciitilde{}\}"
    )


# Pictures ------------------------------------------------------------------------------------------------

LONG = "a-name-of-a-method-with-all-the-61-characters-that-it-may-have"


@pytest.mark.parametrize("size", [None, (3.5, 3.0)])
@pytest.mark.parametrize("named", [True, False])
def test_legends_are_not_cut(tmp_path, size, named):
    """Long names are wrapped; before, they reached beyond both edges."""
    words = ["ppo.clip=0.2", "policy.hidden=[64,64]", "ppo.learning_rate=0.001"]
    for k in range(3):
        make_run(tmp_path / "runs", f"r{k}", settings=[*words[k:], f"total_steps={2560 * (k + 1)}"])
        if named:
            membership.write(tmp_path / "runs" / f"r{k}", Membership("s", "four", f"{LONG[:-1]}{k}", k))
    groups = groups_of(str(tmp_path / "runs"))
    with style(9):
        for draw in (figures.draw_learning_curves, figures.draw_cross_entropy):
            draw(figure := figures._figure(size), groups, "wall")
            figure.draw_without_rendering()
            width, height = figure.bbox.width, figure.bbox.height
            for legend in figure.legends:
                box = legend.get_window_extent()
                assert box.x0 >= 0 and box.x1 <= width and box.y0 > 0 and box.y1 <= height
                assert all(axes.get_window_extent().y1 < box.y0 for axes in figure.axes)
            assert size is None or tuple(figure.get_size_inches()) == size


def test_the_size_and_the_fonts_of_pictures_can_be_chosen(tmp_path, monkeypatch):
    pictures = {"regions": figures.draw_regions, "learning-curves": figures.draw_learning_curves}
    monkeypatch.setattr(report, "pictures", lambda *_: pictures)
    run, out = make_run(tmp_path), tmp_path / "out"
    with pytest.raises(SystemExit, match="0"):
        main([run, "--out", str(out), "--size", "6x4", "--font-size", "9"])
    for file in out.glob("*.svg"):
        text = file.read_text()
        assert 'width="432pt" height="288pt"' in text, file.name
    assert len(list(out.glob("*.svg"))) == 2


@pytest.mark.parametrize(
    "words",
    [
        *(["--size", text] for text in ("6", "6x", "0x4", "6x400", "x", "6x4x2", "1e1x4", "-6x4", "nanx4")),
        *(["--font-size", text] for text in ("0", "100", "nine", "-7", "nan")),
    ],
)
def test_sizes_that_are_none_are_refused(tmp_path, capsys, words):
    run = make_run(tmp_path)
    assert words[0] in refused(capsys, run, "--out", tmp_path / "out", f"{words[0]}={words[1]}")
    assert not (tmp_path / "out").exists()


def test_a_size_without_pictures_is_refused(tmp_path, capsys):
    said = refused(capsys, make_run(tmp_path), "--html", tmp_path / "page.html", "--size", "6x4")
    assert "--size is given, and no picture is drawn: add --out FOLDER" in said
