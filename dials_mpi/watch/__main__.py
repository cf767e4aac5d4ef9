"""The command ``watch``."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from dials_mpi.cli import Parser, add_run_arguments, integer, policy_of, real, run_of, word
from dials_mpi.core.console import progress_bar
from dials_mpi.core.errors import CRASHED, BadInput, print_error, refuse
from dials_mpi.core.output import command_line
from dials_mpi.core.text import printable
from dials_mpi.domains.base import Drawable, Scored, SimulatorFailure
from dials_mpi.results.run import RANDOM, TRAINED, Run
from dials_mpi.results.style import STILLS, style
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
  python -m dials_mpi.watch --config configs/city/cologne8.yaml --before native --policy random --out a.png

A png, svg or pdf file shows the last step, a gif or mp4 file all steps. --influence plays episodes of the
global simulator and draws two pictures: the probabilities that the region's predictor gives to each influence
source along one episode, with the observed classes; and over all episodes how often a class is observed,
against its predicted probability. With influence.heads=autoregressive each source is predicted from the
observed classes of those before it in the same step."""

EPISODES, MOST_EPISODES = 200, 100_000
MOST_SEED = 2**32 - 1


@command_line
def main(argv: Sequence[str] | None = None) -> NoReturn:
    """The command line; it needs no MPI."""
    parser = Parser(
        "watch", "Draw episodes of a system, or the predictions of a region's influence predictor.", EXAMPLES
    )
    add_run_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FILE", type=word, help="png, svg, pdf, gif or mp4")
    parser.add_argument(
        "--region", type=integer, metavar="I", help="show the local simulator of region I, not the global one"
    )
    parser.add_argument("--steps", type=integer, help="number of steps (default: a whole episode)")
    parser.add_argument(
        "--seed", type=integer, help="seed of the episode (default: of the run's evaluations)"
    )
    parser.add_argument("--fps", type=real, default=10, help="frames per second of a film (default 10)")
    parser.add_argument(
        "--before",
        metavar="POLICY",
        type=word,
        help="draw two maps: how an episode went in each region under this policy, and under --policy",
    )
    parser.add_argument(
        "--influence", action="store_true", help="draw the predictions of the region's predictor"
    )
    parser.add_argument(
        "--episodes", type=integer, help=f"number of episodes of --influence (default {EPISODES})"
    )
    options = parser.parse_intermixed_args(argv)
    try:
        with style():  # first, since matplotlib may be missing
            lines = _watch(options)
    except BadInput as refusal:
        sys.exit(refuse(refusal))
    except SimulatorFailure as failure:
        print_error(f"{failure}; nothing was written")
        sys.exit(CRASHED)
    for line in lines:
        print(line)
    sys.exit(0)


def _watch(options: argparse.Namespace) -> list[str]:
    """Write the picture or film; the lines to print. BadInput: the options or the run do not allow it."""
    run = run_of(options)
    policy = policy_of(options, run, predictors=options.influence or options.region is not None)
    _check(options, run, policy)
    with output_file(Path(options.out)) as file:
        draw = _draw_episode
        if options.influence or options.before:
            draw = _draw_influence if options.influence else _draw_comparison
        lines = draw(options, run, policy, file)
    return [*lines, printable(options.out)]


def _check(options: argparse.Namespace, run: Run, policy: str) -> None:
    """BadInput: the options contradict each other, or do not fit the system."""
    regions = len(run.domain.regions)
    kind = Path(options.out).suffix.lower()
    known = STILLS if options.influence or options.before else (*STILLS, *FILMS)
    if kind not in known:
        raise BadInput(f"--out is {printable(options.out)}: choose a name that ends with {', '.join(known)}")
    _drawable(run)
    if options.before:
        _check_comparison(options, run)
    if options.region is not None and not 0 <= options.region < regions:
        raise BadInput(f"--region is {options.region}: there are 0 to {regions - 1}")
    _check_number("--steps", options.steps, run.domain.horizon)
    _check_number("--episodes", options.episodes, MOST_EPISODES)
    if not LEAST_FPS <= options.fps <= MOST_FPS:
        raise BadInput(f"--fps is {options.fps:g}: give a number from {LEAST_FPS} to {MOST_FPS}")
    if options.seed is not None and not 0 <= options.seed <= MOST_SEED:
        raise BadInput(f"--seed is {options.seed}: give a number from 0 to {MOST_SEED}")
    if options.influence and options.region is None:
        raise BadInput(f"--influence draws one region: give --region, 0 to {regions - 1}")
    if options.episodes is not None and not options.influence:
        raise BadInput("--episodes is given without --influence, and one episode is drawn: leave it out")
    if options.region is not None:
        _check_region(options, run, policy)
    if kind == ".mp4":
        ffmpeg()


def _check_comparison(options: argparse.Namespace, run: Run) -> None:
    """BadInput: the domain has no maps, or there is no such policy, or another picture is wanted, too."""
    if not isinstance(run.domain, Scored):
        raise BadInput(f"--before is given, and the domain {run.config.domain} has no maps: leave it out")
    if options.before not in run.joint_policies:
        raise BadInput(
            f"--before is {printable(options.before)}: choose {', '.join(run.joint_policies)}"
            + ("" if run.file else " (trained needs the directory of a run)")
        )
    if options.region is not None or options.influence:
        raise BadInput("--before draws the whole system: leave out --region and --influence")


def _check_number(option: str, given: int | None, most: int) -> None:
    if given is not None and not 1 <= given <= most:
        raise BadInput(f"{option} is {given}: give a number from 1 to {most}")


def _drawable(run: Run) -> Drawable:
    """The run's domain. BadInput: it cannot be drawn."""
    if not isinstance(run.domain, Drawable):
        raise BadInput(
            f"the domain {run.config.domain} cannot be drawn: write its methods sources and drawing, as "
            "Drawable in dials_mpi/domains/base.py describes"
        )
    return run.domain


def _check_region(options: argparse.Namespace, run: Run, policy: str) -> None:
    """BadInput: there is no predictor, or the policy needs the global simulator."""
    if run.file is None:
        raise BadInput("--region needs an influence predictor, which only a run has: give its directory")
    if not run.predictors:
        raise BadInput(
            "--region needs an influence predictor, and a run in mode global has none: leave it out"
        )
    if not options.influence and policy not in (TRAINED, RANDOM):
        raise BadInput(
            f"--policy is {policy}, which needs the global simulator: with --region choose trained or random"
        )


def _draw_influence(options: argparse.Namespace, run: Run, policy: str, file: Path) -> list[str]:
    """Compare the region's predictor with the observed sources; each source's cross-entropies, as text."""
    from dials_mpi.learning import calibration
    from dials_mpi.results.frame import save
    from dials_mpi.watch import influence
    from dials_mpi.watch.influence_picture import draw

    region, domain = options.region, run.domain
    episodes = options.episodes or EPISODES
    with progress_bar("episodes", episodes) as advance:
        dataset = influence.play(run, policy, region, episodes, _seed(options, run), advance)
    predicted = calibration.predict(run.predictors[region], dataset.inputs, dataset.sources)
    calibrations, lines = [], []
    names = _drawable(run).sources(region)
    for m, (source, count) in enumerate(zip(names, domain.regions[region].source_classes, strict=True)):
        own = predicted[:, :, m, :count], dataset.sources[:, :, m]
        calibrations.append(calibration.calibrate(*own))
        ours, baseline = calibration.cross_entropies(*own)
        lines.append(f"{source.name}: cross-entropy {ours:.3f}, of the class frequencies {baseline:.3f}")
    caption = f"{run.config.domain_key}, influence on region {region}, {policy}"
    steps = options.steps or domain.horizon
    save(draw(caption, names, dataset, predicted, calibrations, steps), file)
    return lines


def _draw_comparison(options: argparse.Namespace, run: Run, policy: str, file: Path) -> list[str]:
    """Draw two maps of how an episode went; what to print about each."""
    from dials_mpi.results.frame import save
    from dials_mpi.watch import comparison

    assert isinstance(run.domain, Scored)  # see _check_comparison
    steps, policies = options.steps or run.domain.horizon, (options.before, policy)
    with progress_bar("steps", 2 * (steps + 1)) as advance:
        figure, lines = comparison.draw(run, run.domain, policies, _seed(options, run), steps, advance)
    save(figure, file)
    return lines


def _draw_episode(options: argparse.Namespace, run: Run, policy: str, file: Path) -> list[str]:
    """Draw the last step of an episode, or a film of all steps; what to print about it."""
    from dials_mpi.results.frame import save

    steps = options.steps or run.domain.horizon
    picture, moments = _begin_episode(options, run, policy, steps)
    write = FILMS.get(file.suffix.lower())
    with progress_bar("steps", steps) as advance:
        began = time.perf_counter()
        if write:
            write(file, _frames(picture, moments, advance), options.fps)
            rate = (steps + 1) / (time.perf_counter() - began)
            return [picture.clock, f"{steps + 1} frames, {rate:.0f} a second"]
        for moment in moments:
            picture.follow(moment)
            advance(1)
    save(picture.figure, file)
    return [picture.clock]


def _begin_episode(
    options: argparse.Namespace, run: Run, policy: str, steps: int
) -> tuple[Picture, Iterator[Moment]]:
    """The picture of an episode's beginning, and the moments that follow."""
    from dials_mpi.watch.picture import Picture

    seed, region, domain = _seed(options, run), options.region, run.domain
    regions = len(domain.regions)
    if region is None:
        episode: Episode = GlobalEpisode(run, policy, seed)
        agents, place = len(domain.agents), f"{regions} region{'s' * (regions > 1)}"
    else:
        episode = LocalEpisode(run, policy, region, seed)
        agents, place = len(domain.regions[region].agents), f"region {region} alone"
        regions = 1
    moments = episode.play(steps)
    first = next(moments)  # resets the simulator, which cannot be drawn before
    caption = f"{run.config.domain_key}, {place}, {policy}"
    draw = partial(_drawable(run).drawing, episode.simulator, region=region)
    picture = Picture(regions, agents, caption, draw)
    picture.follow(first)
    return picture, moments


def _frames(
    picture: Picture, moments: Iterable[Moment], advance: Callable[[int], None]
) -> Iterator[np.ndarray]:
    """The picture as it is, and after each of the moments."""
    yield picture.pixels()
    for moment in moments:
        picture.follow(moment)
        yield picture.pixels()
        advance(1)


def _seed(options: argparse.Namespace, run: Run) -> int:
    return run.config.episodes_seed if options.seed is None else int(options.seed)


if __name__ == "__main__":
    main()
