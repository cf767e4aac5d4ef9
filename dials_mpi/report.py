"""Pictures and tables of runs, from run files alone: ``python -m dials_mpi.report DIR... --out FOLDER``.

Runs that differ only in their seed are averaged. An unfinished run is shown as far as it is, and as such.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from dials_mpi import settings
from dials_mpi.cli import Parser, refuse
from dials_mpi.config import Config, from_yaml
from dials_mpi.domains import DOMAINS
from dials_mpi.errors import BadInput
from dials_mpi.runfile import RunFile

if TYPE_CHECKING:
    from matplotlib.axes import Axes

EXAMPLES = """examples:
  python -m dials_mpi.report runs/warehouse-4-dials-seed0 --out figures
  python -m dials_mpi.report runs/warehouse-4-* --out figures       methods, seeds and F side by side

It writes learning-curves.png and .svg, cross-entropy.png and .svg, summary.csv and curves.csv."""

METHODS = {"dials": "DIALS", "untrained": "untrained", "global": "global simulator"}
COLOURS = {"dials": "#0072B2", "untrained": "#D55E00", "global": "#009E73"}  # Okabe and Ito
REFERENCE_COLOUR = "#555555"
SHADES = (0.0, -0.6, 0.35, 0.6)  # towards white, or black where negative
LINES = ("-", (0, (4, 1.2)), (0, (4, 1.2, 1, 1.2)), (0, (1.6, 0.8)))
LEVEL = (0, (1, 1.5))
WIDTH, HEIGHT, LEGEND_ROW = 3.3, 2.2, 0.13  # inches: a column of a paper
OPEN_CIRCLE = {"marker": "o", "markersize": 3.5, "markerfacecolor": "white", "ls": "", "clip_on": False}
LONGEST_LABEL = 32  # characters, of a legend with two columns
STYLE = {
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.xmargin": 0.025,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "legend.fontsize": 6.3,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "savefig.dpi": 300,
    "svg.hashsalt": "dials_mpi",
}


# Runs ----------------------------------------------------------------------------------------------------


class Refreshes(NamedTuple):
    """Each refresh of the predictors [R]: steps per agent, and nats per source averaged over regions."""

    env_steps: np.ndarray
    before: np.ndarray
    after: np.ndarray
    constant: np.ndarray


@dataclass(frozen=True)
class Run:
    """What a run file says of T evaluations.

    env_steps: [T] per agent; wall_time: [T] in seconds; returns: [T, E, N]; cross_entropy: [T], nats per
    source averaged over regions, where there are predictors. references: mean return of each policy that
    needs no training, empty before the end of a run. peak_memory: bytes, the ranks' peaks added up.
    """

    name: str
    config: Config
    finished: bool
    env_steps: np.ndarray
    wall_time: np.ndarray
    returns: np.ndarray
    cross_entropy: np.ndarray | None
    refreshes: Refreshes | None
    references: Mapping[str, float]
    peak_memory: float

    @property
    def agents(self) -> int:
        """The number of agents N."""
        return self.returns.shape[2]

    @cached_property
    def mean(self) -> np.ndarray:
        """Mean return per agent and episode [T]."""
        return self.returns.mean(axis=(1, 2))

    @cached_property
    def standard_error(self) -> np.ndarray:
        """Of the mean, over the episodes [T]; NaN for a single episode."""
        return standard_error(self.returns.mean(axis=2).T)


def read_run(directory: str) -> Run:
    """The run in a directory. BadInput: there is none, it cannot be read, or nothing is evaluated yet."""
    file = RunFile.open(directory)
    if not file.has("evaluation/env_steps"):
        raise BadInput(f"{file.path} holds no evaluation yet: report it after its first one")
    config = from_yaml(file.configuration(), str(file.path))
    steps = file.read("evaluation/env_steps")
    optional = {name: file.has(name) for name in ("evaluation/cross_entropy", "influence", "memory")}

    def series(name: str) -> np.ndarray:
        return file.read(f"evaluation/{name}")[: len(steps)]  # the run may have added a row since

    return Run(
        name=file.directory.resolve().name,
        config=config,
        finished=bool(file.attributes().get("finished")),
        env_steps=steps,
        wall_time=series("wall_time"),
        returns=series("returns"),
        cross_entropy=series("cross_entropy").mean(axis=1) if optional["evaluation/cross_entropy"] else None,
        refreshes=_read_refreshes(file) if optional["influence"] else None,
        references={
            name: float(file.read(f"reference/{name}").mean())
            for name in ("random", *DOMAINS[config.domain][0].hand_coded)
            if file.has(f"reference/{name}")
        },
        peak_memory=float(file.read("memory/peak_rss").sum()) if optional["memory"] else float("nan"),
    )


def _read_refreshes(file: RunFile) -> Refreshes:
    steps = file.read("influence/env_steps")
    losses = [
        file.read(f"influence/cross_entropy_{name}")[: len(steps)].mean(axis=1)
        for name in Refreshes._fields[1:]
    ]
    return Refreshes(steps, *losses)


def read_runs(directories: Sequence[str]) -> list[Run]:
    """All runs. BadInput: see ``read_run``, or they are not of the same system, or one is given twice."""
    runs = [read_run(directory) for directory in directories]
    names = [run.name for run in runs]
    if len(set(names)) < len(names):  # the directory's own name does not tell them apart
        runs = [replace(run, name=given) for run, given in zip(runs, directories, strict=True)]
    for run in runs[1:]:
        _require_same_system(runs[0], run)
    seen: dict[str, Run] = {}
    for run in runs:
        twin = seen.setdefault(run.config.digest(), run)
        if twin is not run:
            raise BadInput(
                f"{twin.name} and {run.name} have the same configuration and seed: give one of them"
            )
    return runs


def _require_same_system(one: Run, other: Run) -> None:
    domain, agents = one.config.domain, one.agents
    if other.config.domain != domain:
        raise BadInput(
            f"{one.name} is of the {domain} domain and {other.name} of the {other.config.domain} domain: "
            "report them separately"
        )
    if other.agents != agents:
        raise BadInput(
            f"{one.name} has {agents} agents and {other.name} has {other.agents}: report them separately"
        )
    theirs = settings.flat(other.config)
    for key, value in settings.flat(one.config).items():
        if key.startswith(f"{domain}.") and theirs[key] != value:
            raise BadInput(
                f"{key} is {value} in {one.name} and {theirs[key]} in {other.name}, so their returns cannot "
                "be compared: report them separately"
            )


# Groups --------------------------------------------------------------------------------------------------


class Curve(NamedTuple):
    """Steps per agent, mean and standard error, [T] each; NaN where there is no standard error."""

    env_steps: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray


@dataclass(frozen=True)
class Group:
    """Runs of one configuration that differ in their seed, and how they are drawn."""

    runs: Sequence[Run]
    label: str
    colour: tuple[float, ...]
    line: Any

    @cached_property
    def returns(self) -> Curve:
        """Mean return, with the standard error over seeds or, for a single run, over its episodes."""
        curve = self._average([run.mean for run in self.runs])
        if len(self.runs) == 1:
            return curve._replace(standard_error=self.runs[0].standard_error)
        return curve

    @cached_property
    def cross_entropy(self) -> Curve | None:
        """Nats per source, averaged over regions and seeds; None without predictors."""
        values = [run.cross_entropy for run in self.runs if run.cross_entropy is not None]
        return self._average(values) if values else None

    @cached_property
    def refreshes(self) -> Refreshes | None:
        """Averaged over the runs that have come so far; None without any."""
        parts = [run.refreshes for run in self.runs if run.refreshes is not None]
        if not parts:
            return None
        return Refreshes(*(np.nanmean(_padded(column), axis=0) for column in zip(*parts, strict=True)))

    @property
    def unfinished(self) -> list[Run]:
        """The runs that have not come to their end."""
        return [run for run in self.runs if not run.finished]

    def _average(self, values: Sequence[np.ndarray]) -> Curve:
        """At each step the mean over the runs that have come so far."""
        rows = _padded(values)
        steps = max((run.env_steps for run in self.runs), key=len)
        return Curve(steps, np.nanmean(rows, axis=0), standard_error(rows))


def standard_error(rows: np.ndarray) -> np.ndarray:
    """Of the mean over axis 0, leaving out NaN; NaN for fewer than two values."""
    count = np.isfinite(rows).sum(axis=0)
    squares = np.nansum((rows - np.nanmean(rows, axis=0)) ** 2, axis=0)
    return np.sqrt(squares / np.where(count > 1, (count - 1.0) * count, np.nan))


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ only in their seed go together; ordered by method, then from the largest F down."""
    by_configuration: dict[str, list[Run]] = {}
    for run in runs:
        by_configuration.setdefault(_without_seed(run.config).digest(), []).append(run)
    groups = []
    for mode in METHODS:
        members = [runs for runs in by_configuration.values() if runs[0].config.mode == mode]
        members.sort(key=lambda runs: -runs[0].config.retrain_every)
        varying = _varying([_without_seed(runs[0].config) for runs in members])
        for k, runs_of_one in enumerate(members):
            shade = _shade(COLOURS[mode], SHADES[k % len(SHADES)])
            label = _label(runs_of_one[0].config, varying)
            groups.append(Group(runs_of_one, label, shade, LINES[k % len(LINES)]))
    return groups


def _without_seed(config: Config) -> Config:
    """What runs that are averaged have in common; F means nothing where there are no refreshes."""
    every = config.retrain_every if config.mode == "dials" else config.total_steps
    return replace(config, seed=0, retrain_every=every)


def _varying(configs: Sequence[Config]) -> list[str]:
    """The settings in which these configurations differ."""
    values = [settings.flat(config) for config in configs]
    return [key for key in (values[0] if values else ()) if any(v[key] != values[0][key] for v in values)]


def _label(config: Config, varying: Iterable[str]) -> str:
    values = settings.flat(config)
    parts = [f"F = {short(values[k])}" if k == "retrain_every" else f"{k}={values[k]}" for k in varying]
    return ", ".join([METHODS[config.mode], *parts])


def short(steps: float) -> str:
    """A number of steps as people write it: 500K, 1.5M."""
    for unit, size in (("M", 1e6), ("K", 1e3)):
        if steps >= size:
            return f"{steps / size:g}{unit}"
    return f"{steps:g}"


def _shade(colour: str, amount: float) -> tuple[float, ...]:
    """The colour mixed with white or, for a negative amount, with black."""
    rgb = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    return tuple(round(part + abs(amount) * ((amount > 0) - part), 4) for part in rgb)


def _padded(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of different lengths as one array [len(rows), longest], NaN behind the shorter ones."""
    padded = np.full((len(rows), max(map(len, rows))), np.nan)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


# Pictures ------------------------------------------------------------------------------------------------


def draw_learning_curves(axes: Axes, groups: Sequence[Group]) -> None:
    """Mean return against steps per agent, with references where a run has come to its end."""
    for group in groups:
        curve = group.returns
        low, high = curve.mean - curve.standard_error, curve.mean + curve.standard_error
        axes.fill_between(curve.env_steps, low, high, color=group.colour, alpha=0.2, linewidth=0)
        _draw_curve(axes, group, curve.env_steps, curve.mean)
        _mark_unfinished(axes, group, curve)
    _draw_references(axes, [run for group in groups for run in group.runs])
    axes.set_ylabel("Mean return per agent and episode")
    if axes.dataLim.y0 >= 0:
        axes.set_ylim(bottom=0)
    axes.fill_between([], [], color=REFERENCE_COLOUR, alpha=0.25, linewidth=0, label=_band(groups))
    _finish_axes(axes, groups)


def draw_cross_entropy(axes: Axes, groups: Sequence[Group]) -> None:
    """Cross-entropy against steps, falling at each refresh, with the level of the constant rates.

    Between refreshes it is that of the evaluations' episodes, after a refresh that of the held-out ones.
    """
    for group in groups:
        steps, losses = _with_refreshes(group)
        _draw_curve(axes, group, steps, losses)
        _mark_unfinished(axes, group, group.cross_entropy)
        if group.refreshes is not None:
            _draw_refreshes(axes, group, group.refreshes)
    axes.set_ylabel("Cross-entropy (nats per source)")
    axes.set_yscale("log")
    _label_log_axis(axes)
    if any(group.refreshes is not None for group in groups):
        axes.plot([], [], "o", color=REFERENCE_COLOUR, markersize=2.4, label="just refreshed")
        axes.plot([], [], color=REFERENCE_COLOUR, linestyle=LEVEL, label="constant-rate predictor")
    _finish_axes(axes, groups)


def _draw_curve(axes: Axes, group: Group, steps: np.ndarray, values: np.ndarray) -> None:
    count = len(group.runs)
    label = group.label + (f" ({count} seeds)" if count > 1 else "")
    axes.plot(steps, values, color=group.colour, linestyle=group.line, label=label)


def _mark_unfinished(axes: Axes, group: Group, curve: Curve) -> None:
    """An open circle where a run is not there any more."""
    ends = sorted({len(run.env_steps) - 1 for run in group.unfinished})
    axes.plot(curve.env_steps[ends], curve.mean[ends], color=group.colour, **OPEN_CIRCLE)


def _with_refreshes(group: Group) -> tuple[np.ndarray, np.ndarray]:
    """The evaluations' steps and cross-entropies, and behind an evaluation those of the refresh there."""
    curve, refreshes = group.cross_entropy, group.refreshes
    if refreshes is None:
        return curve.env_steps, curve.mean
    where = np.searchsorted(curve.env_steps, refreshes.env_steps, side="right")
    steps = np.insert(curve.env_steps, where, refreshes.env_steps)
    return steps, np.insert(curve.mean, where, refreshes.after)


def _draw_refreshes(axes: Axes, group: Group, refreshes: Refreshes) -> None:
    axes.scatter(
        refreshes.env_steps,
        refreshes.after,
        s=6,
        color=[group.colour],
        linewidths=0,
        zorder=3,
        clip_on=False,
    )
    steps = np.append(refreshes.env_steps, max(group.cross_entropy.env_steps[-1], refreshes.env_steps[-1]))
    levels = np.append(refreshes.constant, refreshes.constant[-1])
    axes.step(steps, levels, where="post", color=group.colour, linestyle=LEVEL, linewidth=1)


def _draw_references(axes: Axes, runs: Sequence[Run]) -> None:
    """Dashed lines, each with its name on it: the first hand-coded policy and the random one."""
    from matplotlib.patheffects import withStroke

    hand_coded = DOMAINS[runs[0].config.domain][0].hand_coded[0]
    for name, label in ((hand_coded, f"hand-coded ({hand_coded})"), ("random", "random")):
        levels = [run.references[name] for run in runs if name in run.references]
        if not levels:
            continue
        level = float(np.mean(levels))
        axes.axhline(level, color=REFERENCE_COLOUR, linewidth=0.8, linestyle=(0, (5, 2.5)), zorder=1.5)
        axes.annotate(
            label,
            (1, level),
            xycoords=("axes fraction", "data"),
            xytext=(0, 1.5),
            textcoords="offset points",
            ha="right",
            va="bottom",
            fontsize=6.3,
            color=REFERENCE_COLOUR,
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
        )


def _band(groups: Sequence[Group]) -> str:
    """What the bands are."""
    single = [len(group.runs) == 1 for group in groups]
    if all(single):
        return "± standard error over episodes"
    return "± standard error over seeds" if not any(single) else "± s.e. (seeds; 1 run: episodes)"


def _finish_axes(axes: Axes, groups: Sequence[Group]) -> None:
    """What both pictures have in common: the axis of steps, and the legend above."""
    from matplotlib.ticker import MaxNLocator

    if any(group.unfinished for group in groups):
        axes.plot([], [], color=REFERENCE_COLOUR, **OPEN_CIRCLE, label="unfinished run")
    axes.set_xlabel("Steps per agent")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(lambda steps, _: short(steps))
    _, labels = axes.get_legend_handles_labels()
    columns = 2 if max(map(len, labels)) <= LONGEST_LABEL else 1
    axes.figure.legend(loc="outside upper center", ncols=columns)
    axes.figure.set_size_inches(WIDTH, HEIGHT + LEGEND_ROW * -(-len(labels) // columns))


def _label_log_axis(axes: Axes) -> None:
    """Plain numbers, a few in each decade, whether it spans one or many."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())


@contextmanager
def _style() -> Iterator[None]:
    """The pictures' own style, whatever the user's is. BadInput: matplotlib is not installed."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise BadInput(
            "matplotlib, which draws the pictures, is not installed: pip install 'dials_mpi[report]'"
        ) from error
    with style.context(["default", STYLE]):
        yield


def save_picture(
    stem: Path, draw: Callable[[Axes, Sequence[Group]], None], groups: Sequence[Group]
) -> list[Path]:
    """Draw into ``stem``.png and .svg, the same bytes for the same runs; the files written."""
    with _style():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure.add_subplot(), groups)
        files = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
        figure.savefig(files[0])
        figure.savefig(files[1], metadata={"Date": None})
    return files


# Tables --------------------------------------------------------------------------------------------------


def summary_row(run: Run) -> dict[str, Any]:
    """One run in a line; F is empty without refreshes, the best return is that of the best evaluation."""
    config, seconds = run.config, float(run.wall_time[-1])
    return {
        "run": run.name,
        "finished": "yes" if run.finished else "no",
        "domain": config.domain,
        "agents": run.agents,
        "mode": config.mode,
        "retrain_every": config.retrain_every if config.mode == "dials" else "",
        "seed": config.seed,
        "env_steps": int(run.env_steps[-1]),
        "final_return": float(run.mean[-1]),
        "standard_error": float(run.standard_error[-1]),
        "best_return": float(run.mean.max()),
        "wall_hours": seconds / 3600,
        "agent_steps_per_s": run.agents * int(run.env_steps[-1]) / seconds,
        "peak_memory_gib": run.peak_memory / 2**30,
    }


def curve_rows(run: Run) -> list[dict[str, Any]]:
    """One evaluation in a line: wall_time in seconds, cross_entropy in nats per source."""
    losses = np.full(len(run.env_steps), np.nan) if run.cross_entropy is None else run.cross_entropy
    return [
        {
            "run": run.name,
            "env_steps": int(steps),
            "wall_time": float(seconds),
            "mean_return": float(mean),
            "standard_error": float(error),
            "cross_entropy": float(loss),
        }
        for steps, seconds, mean, error, loss in zip(
            run.env_steps, run.wall_time, run.mean, run.standard_error, losses, strict=True
        )
    ]


def write_csv(file: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Rows with the same keys, which become the header; NaN is an empty cell."""
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    return file


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.6g}" if np.isfinite(value) else ""


def _summary_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    domain, agents = rows[0]["domain"], rows[0]["agents"]
    table = Table(title=f"Mean return per agent and episode, {domain}, {agents} agents")
    for heading in ("run", "mode"):
        table.add_column(heading)
    for heading in ("F", "seed", "steps", "return", "best", "hours", "agent-steps/s", "GiB"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in rows:
        table.add_row(
            escape(row["run"]),
            row["mode"],
            short(row["retrain_every"]) if row["retrain_every"] else "-",
            str(row["seed"]),
            f"{row['env_steps']:,}",
            f"{row['final_return']:.2f} ± {row['standard_error']:.2f}",
            f"{row['best_return']:.2f}",
            f"{row['wall_hours']:.2f}",
            f"{row['agent_steps_per_s']:,.0f}",
            f"{row['peak_memory_gib']:.2f}",
            "" if row["finished"] == "yes" else "unfinished",
        )
    return table


# Command line --------------------------------------------------------------------------------------------


def report(directories: Sequence[str], out: str) -> tuple[list[Run], list[Path]]:
    """Write the pictures and tables of these runs; the runs, and the files written.

    BadInput: see ``read_runs``, or matplotlib is missing, or the folder cannot be written.
    """
    with _style():  # know before anything is written whether there is matplotlib
        runs = read_runs(directories)
    groups = group_runs(runs)
    predicted = [group for group in groups if group.cross_entropy is not None]
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = save_picture(folder / "learning-curves", draw_learning_curves, groups)
        if predicted:
            files += save_picture(folder / "cross-entropy", draw_cross_entropy, predicted)
        files.append(write_csv(folder / "summary.csv", [summary_row(run) for run in runs]))
        files.append(write_csv(folder / "curves.csv", [row for run in runs for row in curve_rows(run)]))
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written ({error.strerror or error}): choose another folder with --out"
        ) from error
    return runs, files


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("report", "Draw and tabulate runs, finished or not, from their run files.", EXAMPLES)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the directory of a run")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="where the files go; made if missing")
    options = parser.parse_args(argv)
    try:
        runs, files = report(options.directories, options.out)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    console.print(_summary_table([summary_row(run) for run in runs]))
    console.print("return: at the end, ± standard error over episodes; GiB: the ranks' peaks added up")
    if all(run.cross_entropy is None for run in runs):
        console.print("no cross-entropy picture: these runs have no influence predictors")
    for file in files:
        console.print(str(file), markup=False, soft_wrap=True)
    sys.exit(0)


if __name__ == "__main__":
    main()
