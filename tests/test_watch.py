"""Pictures of systems: what is drawn against the simulators' state, films, influence, and what is refused."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import bad_input
import numpy as np
import pytest
from bad_input import ODD, refused, table, with_files
from conftest import SMALL, generators
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image
from scipy.stats import binomtest

from dials_mpi import domains
from dials_mpi.algorithm import joint
from dials_mpi.algorithm.collect import collect
from dials_mpi.config import load
from dials_mpi.core.errors import BadInput
from dials_mpi.core.seeding import OTHER_EPISODES, Purpose, streams
from dials_mpi.domains import create
from dials_mpi.domains.traffic.network import SIDES
from dials_mpi.learning import calibration
from dials_mpi.learning.influence import Predictor
from dials_mpi.learning.tables import tables, widths
from dials_mpi.storage import files
from dials_mpi.storage.runfile import RunFile
from dials_mpi.watch import film
from dials_mpi.watch.__main__ import main
from dials_mpi.watch.picture import Picture

worker, originals = bad_input.worker, bad_input.originals

GRID = ("warehouse.grid=[2,3]", "warehouse.horizon=25")
TRAFFIC = ("domain=traffic", "traffic.grid=[2,2]", "traffic.inflow=0.4", "dataset_size=9900")


@pytest.fixture
def watch(in_process):
    """The command in this process: exit code, stdout, stderr."""
    return in_process(main)


@pytest.fixture
def run(trained):
    return trained(*SMALL, ranks=3)


def done(said: tuple[int, str, str]) -> list[str]:
    """The lines that a command has printed that did what it should."""
    assert (said[0], said[2]) == (0, ""), said
    return said[1].splitlines()


def domain_of(*settings: str):
    config = load(None, settings)
    return create(config.domain, config.domain_section)


def fresh_axes(width: float = 6.0):
    return Figure((width, width)).add_axes((0, 0, 1, 1))


def rounded(points) -> list[tuple[float, ...]]:
    return sorted(map(tuple, np.round(np.reshape(points, (-1, 2)), 6).tolist()))


# The warehouse -------------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("ring", ["true", "false"])
def test_robots_and_items_are_where_the_simulator_has_them(ring):
    domain = domain_of(*GRID, f"warehouse.ring={ring}", "warehouse.item_probability=0.1")
    simulator = domain.global_simulator(generators(1))
    policy = joint.RandomPolicy(domain.agents, generators(1, seed=1))
    state = simulator.reset()
    drawing = domain.drawing(simulator, fresh_axes(), None)
    rows, columns = (4, 5) if ring == "true" else (2, 3)
    inner = [(r, c) for r in range(rows) for c in range(columns)]
    if ring == "true":  # learners first
        inner.sort(key=lambda place: not (0 < place[0] < rows - 1 and 0 < place[1] < columns - 1))
    shelves = [
        (x, y) for y in range(4 * rows + 1) for x in range(4 * columns + 1) if (x % 4 == 0) != (y % 4 == 0)
    ]
    seen = 0
    for _ in range(20):
        drawing.update(None)
        robots = drawing.robots.get_offsets()
        assert len(robots) == len(inner)
        for (x, y), (r, c), cell in zip(robots, inner, simulator.cell[:, 0], strict=True):
            assert (round(float(x)), round(float(y))) == (4 * c + cell % 5, 4 * r + cell // 5)
        ages = simulator._items[0, 1:]
        items = [path.vertices[:4].mean(axis=0) for path in drawing.items.get_paths()]
        wanted = {place: age for place, age in zip(shelves, ages.tolist(), strict=True) if age}
        drawn = {tuple(map(float, place.round(6))) for place in items}
        assert drawn == set(wanted) and len(items) == len(wanted)
        of = {tuple(map(float, p.round(6))): a for p, a in zip(items, drawing.items.get_array(), strict=True)}
        assert of == wanted
        seen += len(wanted)
        state = simulator.step(policy(state.observations)).state
    assert seen > 100
    colours = drawing.robots.get_facecolor()
    assert len({tuple(colour) for colour in colours[:6]}) == 1
    assert ring == "false" or not (colours[6:] == colours[0]).all(axis=1).any()


def test_two_robots_at_one_shelf_are_both_seen():
    domain = domain_of("warehouse.grid=[1,2]", "warehouse.ring=false")
    simulator = domain.global_simulator(generators(1))
    simulator.reset()
    for actions in ((3, 2), (3, 2)):  # towards each other, to the shelf between them
        simulator.step(np.array(actions)[:, None])
    drawing = domain.drawing(simulator, fresh_axes(), None)
    drawing.update(None)
    (x0, y0), (x1, y1) = drawing.robots.get_offsets()
    assert y0 == y1 == 2 and x0 < 4 < x1 and x1 - x0 > 0.2


def test_sampled_neighbours_stand_where_the_sources_say():
    domain = domain_of(*GRID)
    local = domain.local_simulator([4], 1, generators(1))
    local.reset()
    drawing = domain.drawing(local, fresh_axes(), 4)
    drawing.update(None)
    assert len(drawing.ghosts.get_offsets()) == 0
    places = [
        [(4, 1), (4, 2), (4, 3)],
        [(1, 4), (2, 4), (3, 4)],
        [(0, 1), (0, 2), (0, 3)],
        [(1, 0), (2, 0), (3, 0)],
    ]
    stream = np.random.default_rng(3)
    for _ in range(30):
        sources = stream.integers(4, size=(1, 1, 4))
        local.step(stream.integers(4, size=(1, 1)), sources)
        drawing.update(sources[0, 0])
        wanted = [places[m][c] for m, c in enumerate(sources[0, 0]) if c < 3]
        drawn = [(round(float(x)), round(float(y))) for x, y in drawing.ghosts.get_offsets()]
        assert drawn == wanted
        assert len(drawing.items.get_paths()) == np.count_nonzero(local.ages)


# Traffic -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["greedy", "actuated"])
def test_cars_and_lights_are_as_in_sumo(policy):
    domain = domain_of(*TRAFFIC)
    simulator = domain.global_simulator(generators(1))
    controller = domain.controller(policy, simulator, generators(1, seed=1))
    simulator.reset()
    drawing = domain.drawing(simulator, fresh_axes(), None)
    api = simulator.junctions.simulation._api
    assert drawing.widening > 1
    states = set()
    for _ in range(45):
        simulator.step(controller.act())
        drawing.update(None)
        names = api.vehicle.getIDList()
        fronts = np.array([api.vehicle.getPosition(name) for name in names])
        drawn = [path.vertices[:-1] for path in drawing.cars.get_paths()]
        assert len(drawn) == len(names)
        for outline, front, name in zip(drawn, fronts, names, strict=True):
            along = 0 if api.vehicle.getAngle(name) in (90, 270) else 1  # x or y
            ahead = (outline[[0, 5]].mean(axis=0) - outline[[2, 3]].mean(axis=0)).round(6)
            assert abs(ahead[along]) == 5 and ahead[1 - along] == 0
            heading = {0: (0, 1), 90: (1, 0), 180: (0, -1), 270: (-1, 0)}[round(api.vehicle.getAngle(name))]
            assert (ahead / 5).tolist() == list(heading)
            middle = outline[[0, 5]].mean(axis=0)
            assert middle[along] == pytest.approx(front[along])
            # Aside it keeps to its lane: on the right of the road's middle.
            axis = drawing.centres[:, 1 - along]
            off = front[1 - along] - axis[np.abs(axis - front[1 - along]).argmin()]
            assert middle[1 - along] - front[1 - along] == pytest.approx((drawing.widening - 1) * off)
        speeds = [api.vehicle.getSpeed(name) for name in names]
        assert drawing.cars.get_array().tolist() == pytest.approx(speeds)
        colours = {"G": "#009E73", "g": "#009E73", "y": "#F0E442", "r": "#D55E00"}
        shown = drawing.lights.get_color().reshape(4, 4, 4)
        for k, name in enumerate(simulator.junctions.names):
            state = api.trafficlight.getRedYellowGreenState(name)
            incoming = [links[0][0] for links in api.trafficlight.getControlledLinks(name)]
            for m, side in enumerate(SIDES):
                light = state[incoming.index(f"{name}_{side}_0")]
                assert shown[k, m].tolist() == list(to_rgba(colours[light]))
                states.add(light.upper())
    assert states == {"G", "Y", "R"} and len(names) > 20
    for k, name in enumerate(simulator.junctions.names):
        for m, side in enumerate(SIDES):
            end = np.array(api.lane.getShape(f"{name}_{side}_0")[-1])
            bar = drawing._bars()[4 * k + m].mean(axis=0)
            along = 0 if side in ("west", "east") else 1
            assert bar[along] == pytest.approx(end[along])
            assert abs(bar[1 - along] - end[1 - along]) < 3.2 * drawing.widening


def test_a_large_grid_is_as_wide_as_it_should_be():
    """Lanes of a small picture are drawn wider; those of a large one are as they are."""
    domain = domain_of("domain=traffic", "traffic.grid=[1,3]", "dataset_size=9900")
    simulator = domain.global_simulator(generators(1))
    simulator.reset()
    axes = [fresh_axes(width) for width in (2, 30)]
    small, large = (domain.drawing(simulator, each, None).widening for each in axes)
    assert small > 3 and large == 1
    (left, right), (bottom, top) = axes[0].get_xlim(), axes[0].get_ylim()
    assert (round(right - left), round(top - bottom)) == (400, 200)


def test_sampled_cars_have_an_arrow():
    domain = domain_of(*TRAFFIC)
    local = domain.local_simulator([1], 1, generators(1))
    local.reset()
    drawing = domain.drawing(local, fresh_axes(), 1)
    drawing.update(None)
    assert not drawing.entering.get_paths()
    # The way in lies on the side that the vehicle comes from, in SUMO's coordinates.
    centre = drawing.centres[0]
    for m, (x, y) in enumerate([(-1, 0), (0, -1), (1, 0), (0, 1)]):
        drawing.update(np.eye(4, dtype=int)[m])
        (arrow,) = (path.vertices[:3] for path in drawing.entering.get_paths())
        away = (arrow.mean(axis=0) - centre) @ (x, y)
        tip = (arrow[0] - centre) @ (x, y)
        assert 95 < tip < away < 130
    drawing.update(np.ones(4, int))
    assert len(drawing.entering.get_paths()) == 4


# Pictures and films --------------------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("settings", [GRID, TRAFFIC])
def test_a_film_shows_what_a_picture_shows(settings):
    """Only what moves is drawn anew; the same comes out when everything is."""
    from dials_mpi.results.style import style
    from dials_mpi.watch.episodes import Moment

    domain = domain_of(*settings)
    simulator = domain.global_simulator(generators(1))
    state = simulator.reset()
    policy = joint.RandomPolicy(domain.agents, generators(1, seed=1))
    with style():
        picture = Picture(4, 4, "here", lambda axes: domain.drawing(simulator, axes, None))
        picture.follow(Moment(0, np.zeros(4)))
        frames = [picture.pixels()]
        for step in range(1, 12):
            state, _, rewards, _ = simulator.step(policy(state.observations))
            picture.follow(Moment(step, rewards[:, 0]))
            frames.append(picture.pixels())
        for artist in picture._moving:
            artist.set_animated(False)
        picture._canvas.draw()
    high, wide = frames[-1].shape[:2]
    whole = np.asarray(picture._canvas.buffer_rgba())[:high, :wide, :3]
    assert high % 2 == wide % 2 == 0
    assert (frames[-1] == whole).mean() > 0.9999
    assert all((one != two).any() for one, two in pairwise(frames))


def test_the_return_is_that_of_an_independent_replay(watch, run, tmp_path):
    """Of collect, which evaluations use, and of a plain loop over a region."""
    config = load(None, SMALL)
    domain = create(config.domain, config.domain_section)
    simulators, actions = (
        streams(5, purpose, 1, OTHER_EPISODES) for purpose in (Purpose.EVALUATION, Purpose.EVALUATION_ACTIONS)
    )
    played = collect(domain, simulators, lambda s, part: joint.scripted("oldest", domain, s, actions[part]))
    said = done(watch(run, "--policy", "oldest", "--seed", 5, "--out", tmp_path / "x.png"))
    assert said[0] == f"step 20, mean return {played.returns.mean():.2f}" and played.returns.mean() > 1

    width = widths(tables(config, domain))
    rows = RunFile.open(str(run)).read("predictor/parameters", (4, width["predictor"]))
    predictor = Predictor(config.influence, domain.regions[2], rows[2])
    keys = Purpose.SIMULATOR, Purpose.SOURCES, Purpose.ACTIONS
    chance, sampling, acting = (streams(5, purpose, range(2, 3), OTHER_EPISODES)[0] for purpose in keys)
    local, total, history = domain.local_simulator([2], 1, [chance]), 0.0, predictor.network.initial_state(1)
    inputs = local.reset().inputs
    for _ in range(20):
        drawn, history = predictor.sample(inputs[0], history, sampling.random((1, 4), dtype=np.float32))
        state, rewards, _ = local.step(acting.integers([[4]]), drawn[None])
        inputs, total = state.inputs, total + float(rewards[0, 0])
    said = done(watch(run, "--policy", "random", "--seed", 5, "--region", 2, "--out", tmp_path / "y.png"))
    assert said[0] == f"step 20, return {total:.2f}"


def test_a_gif_has_a_frame_for_every_step(watch, run, tmp_path):
    said = done(watch(run, "--out", tmp_path / "film.gif", "--steps", 7, "--fps", 5))
    with Image.open(tmp_path / "film.gif") as image:
        assert (image.n_frames, image.info["duration"]) == (8, 200)
        image.seek(7)
        last = np.asarray(image.convert("RGB")).astype(int)
    assert said[1].startswith("8 frames") and said[2] == str(tmp_path / "film.gif")
    assert list(tmp_path.iterdir()) == [tmp_path / "film.gif"]
    assert (last[:5] == 255).all()
    apart = {}
    for steps in (5, 6, 7):
        done(watch(run, "--out", tmp_path / "still.png", "--steps", steps))
        with Image.open(tmp_path / "still.png") as image:
            still = np.asarray(image.convert("RGB").resize(last.shape[1::-1])).astype(int)
        apart[steps] = np.abs(last - still).mean()
    assert min(apart, key=apart.get) == 7


def test_an_mp4_has_a_frame_for_every_step(watch, run, tmp_path):
    try:
        program = film.ffmpeg()
    except BadInput:
        pytest.skip("needs ffmpeg: install the extra film")
    done(watch(run, "--out", tmp_path / "film.mp4", "--steps", 9, "--region", 1, "--fps", 4))
    count = [program, "-i", tmp_path / "film.mp4", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    read = subprocess.run(count, capture_output=True)
    width = np.frombuffer(read.stdout, np.uint8)
    assert read.returncode == 0 and b"4 fps" in read.stderr
    assert len(width) % 10 == 0
    frames = width.reshape(10, -1).astype(int)
    assert all(np.abs(one - two).max() > 50 for one, two in pairwise(frames))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_command_gives_the_same_bytes(watch, run, tmp_path, kind):
    files = [tmp_path / f"{name}.{kind}" for name in "ab"]
    for file in files:
        done(watch(run, "--out", file, "--steps", 5))
    one, two = (file.read_bytes() for file in files)
    assert one == two
    done(watch(run, "--out", files[1], "--steps", 5, "--seed", 1))
    assert files[1].read_bytes() != one


def test_traffic_from_the_command_line(watch, tmp_path):
    for extra in ([], ["traffic.sumo=traci"]):
        file = tmp_path / f"{len(extra)}.png"
        done(watch(*TRAFFIC, *extra, "--policy", "greedy", "--steps", 30, "--out", file))
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / "1.png").read_bytes()


# Influence -----------------------------------------------------------------------------------------------


@pytest.mark.quick
def test_calibration_against_a_plain_loop():
    stream = np.random.default_rng(0)
    for classes in (2, 4):
        probabilities = stream.dirichlet([0.4] * classes, size=(6, 15)).astype(np.float32)
        sources = stream.integers(classes, size=(6, 15))
        found = calibration.calibrate(probabilities, sources)
        for k in range(10):
            inside, hits = [], 0
            for e in range(6):
                for t in range(15):
                    for c in range(classes):
                        p = float(probabilities[e, t, c])
                        if (c or classes > 2) and (k / 10 <= p < (k + 1) / 10 or (k == 9 and p >= 1)):
                            inside.append(p)
                            hits += int(sources[e, t] == c)
            assert found.number[k] == len(inside) > 0
            assert found.predicted[k] == pytest.approx(np.mean(inside))
            assert found.observed[k] == pytest.approx(hits / len(inside))
            assert found.low[k] <= found.observed[k] <= found.high[k]


def test_bins_without_predictions_say_nothing():
    found = calibration.calibrate(np.full((3, 4, 2), 0.5, np.float32), np.ones((3, 4), int))
    assert np.flatnonzero(found.number).tolist() == [5]
    assert np.isnan(found.observed[[0, 4, 6, 9]]).all() and found.observed[5] == 1
    assert found.high[5] == pytest.approx(1) and found.low[5] == pytest.approx(
        binomtest(3, 3).proportion_ci(method="wilson").low, abs=1e-4
    )


@pytest.mark.parametrize(("hits", "number"), [(0, 7), (3, 7), (7, 7), (40, 1000)])
def test_intervals_are_wilsons(hits, number):
    wanted = binomtest(hits, number).proportion_ci(method="wilson")
    assert calibration.wilson(hits / number, number) == pytest.approx(tuple(wanted), abs=1e-4)


@pytest.mark.parametrize("sticky", [False, True])
def test_intervals_hold_the_truth_as_often_as_they_say(sticky):
    """Also where the steps of an episode go together, which plain intervals would not survive."""
    stream, covered = np.random.default_rng(1), []
    for _ in range(300):
        draws = stream.random((60, 1 if sticky else 20)) * np.ones((1, 20))
        sources = (draws < 0.35).astype(int)
        probabilities = np.broadcast_to(np.array([0.65, 0.35], np.float32), (60, 20, 2))
        found = calibration.calibrate(probabilities, sources)
        covered.append(found.low[3] <= 0.35 <= found.high[3])
    assert 0.91 < np.mean(covered) < 0.985


def test_predictions_are_those_of_the_training(watch, run, tmp_path):
    """Step by step as over whole sequences; episodes part by part as all at once."""
    said = done(watch(run, "--influence", "--region", 3, "--episodes", 70, "--out", tmp_path / "x.png"))
    config = load(None, SMALL)
    domain = create(config.domain, config.domain_section)
    width = widths(tables(config, domain))
    stored = RunFile.open(str(run))
    policies = joint.policies(config, domain, stored.read("policy/parameters", (4, width["policy"])))
    rows = stored.read("predictor/parameters", (4, width["predictor"]))
    simulators, actions = (
        streams(config.seed, purpose, 70, OTHER_EPISODES)
        for purpose in (Purpose.EVALUATION, Purpose.EVALUATION_ACTIONS)
    )
    played = collect(domain, simulators, lambda _, part: joint.TrainedPolicies(policies, actions[part]))
    inputs, sources = played.datasets[3]
    predictor = Predictor(config.influence, domain.regions[3], rows[3])
    printed = [float(line.partition("cross-entropy ")[2].partition(",")[0]) for line in said[:4]]
    assert np.mean(printed) == pytest.approx(predictor.cross_entropy(inputs, sources), abs=6e-4)
    constant = [float(line.rpartition(" ")[2]) for line in said[:4]]
    for m in range(4):
        share = np.bincount(sources[..., m].ravel()) / sources[..., m].size
        assert constant[m] == pytest.approx(-sum(p * np.log(p) for p in share if p), abs=6e-4)
    predicted = calibration.predict(predictor, inputs, sources)
    assert predicted.shape == (70, 20, 4, 4) and np.allclose(predicted.sum(-1), 1, atol=1e-5)


def test_influence_shows_what_happened(watch, run, tmp_path, monkeypatch):
    """The marks of the first episode, source by source, and the heat behind them."""
    from dials_mpi.watch import influence_picture

    kept = {}

    def draw(*arguments):
        kept["arguments"], kept["figure"] = arguments, influence_picture_draw(*arguments)
        return kept["figure"]

    influence_picture_draw = influence_picture.draw
    monkeypatch.setattr(influence_picture, "draw", draw)
    options = ["--influence", "--region", 0, "--episodes", 3, "--steps", 11, "--policy", "random"]
    done(watch(run, *options, "--out", tmp_path / "x.svg"))
    _, names, dataset, predicted, _, steps = kept["arguments"]
    assert steps == 11 and [len(name.classes) for name in names] == [4] * 4
    strips = kept["figure"].subfigs[0].axes
    for m, axes in enumerate(strips):
        marks = axes.collections[0].get_offsets()
        assert marks.tolist() == [[t + 1, dataset.sources[0, t, m]] for t in range(11)]
        assert np.array_equal(axes.images[0].get_array(), predicted[0, :11, m].T)
    assert len(strips) == 4


# What is refused -----------------------------------------------------------------------------------------

OUT = ["--out", "x.png"]
REFUSALS: dict[str, tuple[list[str], list[str]]] = {
    "nothing": (OUT, ["neither a run nor a configuration"]),
    "nowhere to": (["run"], ["--out", "--help"]),
    "no run": (["nowhere", *OUT], ["no run.h5 in nowhere"]),
    "unknown policy": (["run", *OUT, "--policy", "clever"], ["--policy is clever", "closest"]),
    "no policy": (["--config", "good.yaml", *OUT], ["--policy is not given"]),
    "no kind": (["run", "--out", "picture"], ["--out is picture", "png"]),
    "unknown kind": (["run", "--out", "x.bmp"], ["--out is x.bmp", ".mp4"]),
    "odd kind": (["run", "--out", ODD], ["--out is"]),
    "nowhere": (["run", "--out", "nowhere/x.png"], ["nowhere/x.png cannot be written", "--out"]),
    "below a file": (["run", "--out", "good.yaml/x.gif"], ["cannot be written"]),
    "a name too long": (["run", "--out", "x" * 300 + ".png"], ["cannot be written"]),
    "NUL": (["run", "--out", "nul\0.png"], ["cannot be written"]),
    "region": (["run", *OUT, "--region", "4"], ["--region is 4", "0 to 3"]),
    "region -1": (["run", *OUT, "--region=-1"], ["--region is -1", "0 to 3"]),
    "region of text": (["run", *OUT, "--region", "left"], ["--region", "--help"]),
    "no steps": (["run", *OUT, "--steps", "0"], ["--steps is 0", "from 1 to 20"]),
    "more steps than an episode": (["run", *OUT, "--steps", "21"], ["--steps is 21", "from 1 to 20"]),
    "seed": (["run", *OUT, "--seed=-1"], ["--seed is -1"]),
    "no frames": (["run", "--out", "x.gif", "--fps", "0"], ["--fps is 0"]),
    "too many frames": (["run", "--out", "x.gif", "--fps", "51"], ["--fps is 51", "to 50"]),
    "too few frames": (["run", "--out", "x.gif", "--fps", "0.001"], ["--fps is 0.001", "from 0.1"]),
    "frames nan": (["run", "--out", "x.gif", "--fps", "nan"], ["--fps: is 'nan'"]),
    "hand-coded alone": (
        ["run", *OUT, "--region", "1", "--policy", "oldest"],
        ["needs the global simulator", "random"],
    ),
    "alone without a run": (
        ["--config", "good.yaml", *OUT, "--policy", "random", "--region", "1"],
        ["influence predictor", "directory"],
    ),
    "influence of all": (["run", *OUT, "--influence"], ["--influence", "--region"]),
    "a film of influence": (["run", "--out", "x.gif", "--influence", "--region", "1"], ["x.gif", ".svg"]),
    "no episodes": (["run", *OUT, "--influence", "--region", "1", "--episodes", "0"], ["--episodes is 0"]),
    "episodes of a picture": (["run", *OUT, "--episodes", "3"], ["--episodes is given without --influence"]),
    "checkpoint": (["run", *OUT, "--checkpoint", "512"], ["no 512 checkpoint"]),
    "checkpoint for no training": (
        ["run", *OUT, "--policy", "random", "--checkpoint", "best"],
        ["--checkpoint"],
    ),
}


@table(REFUSALS)
def test_a_bad_command_line(worker, originals, tmp_path, name):
    originals.copy(with_files(tmp_path), finished=True)
    arguments, mentions = REFUSALS[name]
    refused(worker, tmp_path, "watch", arguments, mentions)


def test_a_run_that_was_killed_before_its_first_checkpoint(worker, originals, tmp_path):
    run = originals.copy(tmp_path)
    for path in run.glob("checkpoint-*"):
        path.unlink()
    for more in ([], ["--region", "1"], ["--influence", "--region", "1"]):
        refused(worker, tmp_path, "watch", ["run", *OUT, *more], ["checkpoint in run"])


def test_a_checkpoint_has_predictors_for_any_policy(watch, originals, tmp_path):
    run = originals.copy(tmp_path)
    options = ["--policy", "random", "--region", 1, "--checkpoint", "256", "--steps", 3]
    done(watch(run, *options, "--out", tmp_path / "x.png"))
    done(watch(run, *options, "--influence", "--episodes", 2, "--out", tmp_path / "y.png"))


def refusal(said: tuple[int, str, str]) -> str:
    assert said[:2] == (2, "") and said[2].startswith("dials_mpi: ") and said[2].count("\n") == 1, said
    return said[2]


def test_a_run_without_predictors(watch, trained, tmp_path):
    run = trained(*SMALL, "mode=global")
    for more in ([], ["--influence"]):
        assert "mode global" in refusal(watch(run, "--region", 1, *more, "--out", tmp_path / "x.png"))
    done(watch(run, "--steps", 2, "--out", tmp_path / "x.png"))


def test_what_is_not_installed(watch, run, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert "ffmpeg" in refusal(watch(run, "--out", tmp_path / "x.mp4"))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "dials_mpi[report]" in refusal(watch(run, "--out", tmp_path / "x.png"))
    assert list(tmp_path.iterdir()) == []


def test_ffmpeg_that_fails(watch, run, tmp_path, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_text("#!/bin/sh\necho no encoder here >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert "no encoder here" in refusal(watch(run, "--steps", 3, "--out", tmp_path / "x.mp4"))
    assert [path.name for path in tmp_path.iterdir()] == ["ffmpeg"]


def test_a_domain_that_cannot_be_drawn(watch, tmp_path, monkeypatch):
    kind, section = domains.DOMAINS["warehouse"]
    bare = type("Bare", (), {name: value for name, value in vars(kind).items() if name != "drawing"})
    monkeypatch.setitem(domains.DOMAINS, "warehouse", (bare, section))
    said = refusal(watch(*GRID, "--policy", "random", "--out", tmp_path / "x.png"))
    assert "warehouse cannot be drawn" in said and "drawing" in said and "base.py" in said


def test_a_full_disk_leaves_nothing_behind(tmp_path):
    file = tmp_path / "x.png"
    file.write_text("what was there")
    with pytest.raises(BadInput, match="No space"), files.output_file(file) as partial:
        partial.write_text("half")
        raise OSError(28, "No space left on device")
    assert [path.name for path in Path(tmp_path).iterdir()] == ["x.png"]
    assert file.read_text() == "what was there"
