"""The command line of watch."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
from rich.progress import Progress

from dials_mpi.cli import Parser, integer, real, word
from dials_mpi.core.console import PlainConsole
from dials_mpi.core.errors import CRASHED, BadInput, print_error, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Drawable, SimulatorFailure
from dials_mpi.results.choice import Choice, add_arguments
from dials_mpi.results.style import style
from dials_mpi.storage.files import output_file
from dials_mpi.watch.episodes import Episode, GlobalEpisode, LocalEpisode, Moment
from dials_mpi.watch.film import FILMS, LEAST_FPS, MOST_FPS, ffmpeg

if TYPE_CHECKING:
    from dials_mpi.watch.picture import Picture

EXAMPLES = """examples:
  python -m dials_mpi.watch runs/warehouse-4-dials-seed0 --out warehouse.gif
  python -m dials_mpi.watch runs/traffic-4-dials-seed0 --region 2 --out local.mp4 --fps 15
  python -m dials_mpi.watch --config configs/traffic/25.yaml --policy greedy --steps 120 --out grid.png
  python -m dials_mpi.watch runs/warehouse-4-dials-seed0 --influence --region 0 --out influence.pdf

png, svg and pdf show the last of the steps, gif and mp4 all of them. --influence draws how likely the
region's predictor takes each influence source along an episode of the global simulator, beside what happened,
and how often over many episodes what it takes to be so likely does happen."""

STILLS = (".png", ".svg", ".pdf")
EPISODES, MOST_EPISODES = 200, 100_000
MOST_SEED = 2**32 - 1


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser("watch", "Draw a system at work, or a region's influence predictor.", EXAMPLES)
    add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FILE", type=word, help="png, svg, pdf, gif or mp4")
    parser.add_argument(
        "--region", type=integer, metavar="I", help="its local simulator in place of the global"
    )
    parser.add_argument("--steps", type=integer, help="how many (default: a whole episode)")
    parser.add_argument("--seed", type=integer, help="which episode (default: the run's seed)")
    parser.add_argument("--fps", type=real, default=10, help="frames per second of a film (default 10)")
    parser.add_argument("--influence", action="store_true", help="the region's predictor, and what happened")
    parser.add_argument("--episodes", type=integer, help=f"of --influence (default {EPISODES})")
    options = parser.parse_intermixed_args(argv)
    try:
        with style():  # which refuses a missing matplotlib before anything else
            said = _watch(options)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    except SimulatorFailure as failure:
        print_error(f"{failure}; nothing was written")
        sys.exit(CRASHED)
    for line in said:
        print(line)
    sys.exit(0)


def _watch(options: argparse.Namespace) -> list[str]:
    """Write what the command line asks for; what there is to say of it. BadInput: it cannot be had."""
    choice = Choice(options, predictors=options.influence or options.region is not None)
    _check(options, choice)
    with output_file(Path(options.out)) as file:
        task = _draw_influence if options.influence else _show
        said = task(options, choice, file)
    return [*said, printable(options.out)]


def _check(options: argparse.Namespace, choice: Choice) -> None:
    """BadInput: the options do not go with each other, or with the system."""
    domain, regions = choice.domain, len(choice.domain.regions)
    kind = Path(options.out).suffix.lower()
    known = STILLS if options.influence else (*STILLS, *FILMS)
    if kind not in known:
        raise BadInput(f"--out is {printable(options.out)}: choose a name that ends with {', '.join(known)}")
    if not isinstance(domain, Drawable):
        raise BadInput(
            f"the domain {choice.config.domain} cannot be watched: write its methods sources and drawing, "
            "as Drawable in dials_mpi/domains/base.py says"
        )
    if options.region is not None and not 0 <= options.region < regions:
        raise BadInput(f"--region is {options.region}: there are 0 to {regions - 1}")
    _check_number("--steps", options.steps, domain.horizon)
    _check_number("--episodes", options.episodes, MOST_EPISODES)
    if not LEAST_FPS <= options.fps <= MOST_FPS:
        raise BadInput(f"--fps is {options.fps:g}: give a number from {LEAST_FPS} to {MOST_FPS}")
    if options.seed is not None and not 0 <= options.seed <= MOST_SEED:
        raise BadInput(f"--seed is {options.seed}: give a number from 0 to {MOST_SEED}")
    if options.influence and options.region is None:
        raise BadInput(f"--influence is of one region: give --region, 0 to {regions - 1}")
    if options.episodes is not None and not options.influence:
        raise BadInput("--episodes goes with --influence: one episode is drawn without it")
    if options.region is not None:
        _check_predictors(options, choice)
    if kind == ".mp4":
        ffmpeg()


def _check_number(option: str, given: int | None, most: int) -> None:
    if given is not None and not 1 <= given <= most:
        raise BadInput(f"{option} is {given}: give a number from 1 to {most}")


def _check_predictors(options: argparse.Namespace, choice: Choice) -> None:
    """BadInput: there is no predictor, or no policy for a region alone."""
    if choice.run is None:
        raise BadInput("--region needs an influence predictor, which only a run has: give its directory")
    if not choice.predictors:
        raise BadInput(
            "--region needs an influence predictor, and a run in mode global has none: leave it out"
        )
    if not options.influence and choice.policy not in ("trained", "random"):
        raise BadInput(
            f"--policy is {choice.policy}, which reads the whole system: with --region choose trained or "
            "random"
        )


def _draw_influence(options: argparse.Namespace, choice: Choice, file: Path) -> list[str]:
    """Compare the region's predictor with what happens under the joint policy."""
    from dials_mpi.watch import influence
    from dials_mpi.watch.influence_picture import draw
    from dials_mpi.watch.picture import save

    region, domain = options.region, choice.domain
    episodes = options.episodes or EPISODES
    with _progress("episodes", episodes) as beat:
        dataset = influence.play(choice, region, episodes, _seed(options, choice), beat)
    predicted = influence.predict(choice.predictors[region], dataset.inputs)
    calibrations, said = [], []
    names = domain.sources(region)
    for m, (source, count) in enumerate(zip(names, domain.regions[region].source_classes, strict=True)):
        own = predicted[:, :, m, :count], dataset.sources[:, :, m]
        calibrations.append(influence.calibrate(*own))
        ours, constant = influence.cross_entropies(*own)
        said.append(f"{source.name}: cross-entropy {ours:.3f}, of the class frequencies {constant:.3f}")
    caption = f"{choice.config.domain_key}, influence on region {region}, {choice.policy}"
    steps = options.steps or domain.horizon
    save(draw(caption, names, dataset, predicted, calibrations, steps), file)
    return said


def _show(options: argparse.Namespace, choice: Choice, file: Path) -> list[str]:
    """Draw an episode."""
    from dials_mpi.watch.picture import Picture, save

    seed, region, domain = _seed(options, choice), options.region, choice.domain
    steps, regions = options.steps or domain.horizon, len(domain.regions)
    agents = len(domain.agents if region is None else domain.regions[region].agents)
    if region is None:
        episode: Episode = GlobalEpisode(choice, seed)
        caption = f"{choice.config.domain_key}, {regions} region{'s' * (regions > 1)}, {choice.policy}"
    else:
        episode, regions = LocalEpisode(choice, region, seed), 1
        caption = f"{choice.config.domain_key}, region {region} alone, {choice.policy}"
    moments = episode.play(steps)
    first = next(moments)  # there is nothing to draw before it
    picture = Picture(regions, agents, caption, partial(domain.drawing, episode.simulator, region=region))
    picture.follow(first)
    write = FILMS.get(file.suffix.lower())
    with _progress("steps", steps) as beat:
        began = time.perf_counter()
        if write:
            write(file, _frames(picture, moments, beat), options.fps)
            rate = (steps + 1) / (time.perf_counter() - began)
            return [picture.clock, f"{steps + 1} frames, {rate:.0f} a second"]
        for moment in moments:
            picture.follow(moment)
            beat(1)
    save(picture.figure, file)
    return [picture.clock]


def _frames(picture: Picture, moments: Iterable[Moment], beat: Callable[[int], None]) -> Iterator[np.ndarray]:
    """The picture as it is, and after each of the moments."""
    yield picture.pixels()
    for moment in moments:
        picture.follow(moment)
        yield picture.pixels()
        beat(1)


def _seed(options: argparse.Namespace, choice: Choice) -> int:
    return choice.config.seed if options.seed is None else options.seed


@contextmanager
def _progress(what: str, number: int) -> Iterator[Callable[[int], None]]:
    """A bar at a terminal; what it gives is told how many more are done."""
    console = PlainConsole(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=number)
        yield lambda more: bar.update(task, advance=more)


if __name__ == "__main__":
    main()
