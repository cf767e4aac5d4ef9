"""One HTML file with everything about runs: no network, no library of scripts, readable without scripts.

page.html is its frame, page.css its style, page.js shows values under the pointer and sorts tables.
results.py and facts.py make the parts, charts.py, axes.py and maps.py draw, markup.py escapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

from dials_mpi.report.contents import RESULTS, notes, tables_of_controllers, tables_of_groups
from dials_mpi.report.groups import Group, by_system
from dials_mpi.report.others import Other
from dials_mpi.report.page import colours, facts, maps, results
from dials_mpi.report.page.markup import Markup, element, joined, json_text
from dials_mpi.report.page.results import Part
from dials_mpi.report.runs import RunData
from dials_mpi.report.runtimes import Clock
from dials_mpi.storage.files import output_file


class Section(NamedTuple):
    """A heading of the page, its place in addresses, and what is below it."""

    title: str
    name: str
    part: Part


def write_page(
    file: Path,
    runs: Sequence[RunData],
    groups: Sequence[Group],
    others: Sequence[Other],
    clock: Clock,
    steps: int | None,
) -> None:
    """Write the page in one step; the same runs give the same bytes. BadInput: it cannot be written."""
    with output_file(file, "--html") as temporary:
        temporary.write_text(page(runs, groups, others, clock, steps), encoding="utf-8")


def page(
    runs: Sequence[RunData],
    groups: Sequence[Group],
    others: Sequence[Other] = (),
    clock: Clock = "wall",
    steps: int | None = None,
) -> str:
    """The page. others: runs of another program. clock: of runtimes. steps: see ``tables.runtime_rows``."""
    sections = list(_sections(runs, groups, others, clock, steps))
    links = [element("a", one.title, href=f"#{one.name}") for one in sections]
    body = [element("section", element("h2", one.title), one.part.content, id=one.name) for one in sections]
    return Template(_file("page.html")).substitute(
        title=element("title", f"{_title(runs)} - dials_mpi"),
        style=element("style", Markup(_file("page.css")), colours.variables(groups)),
        heading=joined([element("h1", _title(runs)), element("p", _about(runs, groups), class_="about")]),
        figures=facts.figures(runs),
        links=element("nav", *links, aria_label="Sections"),
        content=joined([*body, _notes(groups, steps)]),
        data=json_text({"runs": [_data(run) for run in runs], "charts": _chart_data(sections)}),
        script=Markup(_file("page.js")),
    )


def _file(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _sections(
    runs: Sequence[RunData],
    groups: Sequence[Group],
    others: Sequence[Other],
    clock: Clock,
    steps: int | None,
) -> Iterator[Section]:
    """The sections that these runs have something for."""
    tables = {name: table for name, table in tables_of_groups(groups, steps).items() if table.rows}
    compared = [tables.pop(name) for name in RESULTS if name in tables]
    yield Section("Learning curves", "curves", results.curves(groups, others, clock))
    if any(run.finished for run in runs):
        beside = facts.tables_of([*tables_of_controllers(groups, others), *compared])
        yield Section("Final values", "final", _followed_by(results.final_values(groups), beside))
    if any(group.cross_entropy is not None for group in groups):
        yield Section("Influence predictors", "predictors", results.predictors(groups))
    if maps.known(groups):
        yield Section("Returns of the agents", "maps", Part(maps.of_returns(groups)))
    yield Section("Runs", "runs", Part(facts.runs_table(runs, groups)))
    costs = _followed_by(Part(facts.times(groups, clock)), facts.tables_of([*tables.values()]))
    yield Section("Time and memory", "costs", costs)
    yield Section("Settings", "settings", Part(facts.settings_of(runs)))
    yield Section("Sessions and versions", "sessions", Part(facts.sessions_of(runs)))


def _followed_by(part: Part, content: Markup) -> Part:
    return part._replace(content=joined([part.content, content]))


def _title(runs: Sequence[RunData]) -> str:
    domain = runs[0].config.domain
    return runs[0].name if len(runs) == 1 else f"{domain.partition(':')[2] or domain}: {len(runs)} runs"


def _about(runs: Sequence[RunData], groups: Sequence[Group]) -> str:
    """What was run, in a sentence."""
    methods = ", ".join(dict.fromkeys(group.label for group in groups))
    systems = ", ".join(same[0].system.title for same in by_system(groups))
    unfinished = sum(not run.finished for run in runs)
    if len(runs) == 1:
        state = "unfinished" if unfinished else "finished"
        return f"{methods}, {runs[0].config.domain}, {systems}, seed {runs[0].config.seed}; {state}."
    state = f"{unfinished} unfinished" if unfinished else "all finished"
    return f"{methods}; {systems}; {state}."


def _notes(groups: Sequence[Group], steps: int | None) -> Markup:
    lines = [element("li", note) for note in notes(groups, steps)]
    return element("section", element("h2", "Notes"), element("ul", *lines), id="notes")


def _chart_data(sections: Sequence[Section]) -> list[object]:
    return [data for section in sections for data in section.part.data]


def _data(run: RunData) -> dict[str, object]:
    """The numbers of a run, for other programs that read the page."""
    return {
        "name": run.name,
        "finished": run.finished,
        "seed": run.config.seed,
        "mode": run.config.mode,
        "env_steps": run.env_steps,
        "wall_time": run.wall_time,
        "measure": run.measure.name,
        "mean": run.level,
        "standard_error": run.level_error,
        "cross_entropy": run.cross_entropy,
    }
