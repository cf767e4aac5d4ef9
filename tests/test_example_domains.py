"""The domains of docs/domain.md, examples/relays and examples/river: their rules, and their pictures."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import generators, train
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from dials_mpi.check.contract import check_contract
from dials_mpi.check.findings import Verdict
from dials_mpi.domains.pictures import add_legend
from dials_mpi.results.frame import caption, framed_beside
from dials_mpi.results.style import style
from dials_mpi.storage.runfile import RunFile
from dials_mpi.watch.episodes import Moment
from dials_mpi.watch.picture import Picture

sys.path.append(str(Path(__file__).parents[1] / "examples" / "relays"))
sys.path.append(str(Path(__file__).parents[1] / "examples" / "river"))
import relays
import river
from relays_drawing import COLOURS

EXAMPLES = Path(__file__).parents[1] / "examples"
PAGE = Path(__file__).parents[1] / "docs" / "domain.md"
EPISODES = 5


def random_actions(domain, seed: int = 3):
    """Endless random actions, int [N, E]."""
    chance = np.random.default_rng(seed)
    while True:
        yield np.stack([chance.integers(agent.actions, size=EPISODES) for agent in domain.agents])


# The river -----------------------------------------------------------------------------------------------


class Given:
    """In place of a generator: ``random`` returns the numbers that it has been given."""

    numbers: np.ndarray

    def random(self, count: int) -> np.ndarray:
        assert self.numbers.shape == (count,)
        return self.numbers


def test_the_river_keeps_the_contract():
    found = list(check_contract(river.River(river.RiverConfig(horizon=20)), seed=0))
    assert len(found) >= 10 and not [finding for finding in found if finding.verdict is Verdict.WRONG]


def test_a_reservoir_repeats_what_it_did_in_the_whole_river():
    """Definition 3: with its sources and the random numbers of its rain; the reservoirs in another order."""
    domain, order = river.River(river.RiverConfig()), [5, 0, 7, 3, 1, 2, 6, 4]
    rain = [Given() for _ in domain.regions]
    whole = domain.global_simulator(generators(EPISODES))
    alone = domain.local_simulator(order, EPISODES, [rain[k] for k in order])
    state, own = whole.reset(), alone.reset()
    flooded = 0
    for _, actions in zip(range(60), random_actions(domain), strict=False):
        step = whole.step(actions)
        for stream, (numbers,) in zip(rain, whole.region_draws(), strict=True):
            stream.numbers = numbers
        local = alone.step(actions[order], [step.sources[k] for k in order])
        for place, k in enumerate(order):
            assert np.array_equal(own.observations[place], state.observations[k])
            assert np.array_equal(local.rewards[place], step.rewards[k])
        state, own = step.state, local.state
        flooded += (step.rewards < 0).sum()
    assert flooded > 20 and len(set(map(len, domain.map.tributaries))) == 3


def test_no_water_comes_from_nowhere():
    """What has rained is in the reservoirs, was lost in floods, or has left the river at its outlet."""
    domain = river.River(river.RiverConfig())
    whole = domain.global_simulator(generators(EPISODES))
    whole.reset()
    begun, unit = whole.reservoirs.level.sum(axis=0), domain.map.unit[0]
    rained, left = np.zeros((2, EPISODES), int)
    for _, actions in zip(range(50), random_actions(domain), strict=False):
        left += np.minimum(actions[0], whole.reservoirs.level[0] // unit) * unit
        weather = whole.step(actions).sources[0][:, 0]
        least, most = river.LEAST[weather], river.MOST[weather]
        for (numbers,) in whole.region_draws():
            rained += np.floor(least + numbers * (most - least + 1)).astype(int)
    held = whole.reservoirs.level.sum(axis=0)
    assert (begun + rained == held + whole.statistics()["flood"] + left).all() and (left > 100).all()


def test_the_weather_is_as_likely_as_its_chain_says():
    """The stationary distribution, from the eigenvector; and storms come only after clouds."""
    domain = river.River(river.RiverConfig(reservoirs=2, horizon=2000))
    whole = domain.global_simulator(generators(EPISODES))
    whole.reset()
    seen = np.stack([whole.step(np.zeros((2, EPISODES), int)).sources[0][:, 0] for _ in range(2000)])
    values, vectors = np.linalg.eig(river.NEXT_WEATHER.T)
    likely = np.real(vectors[:, np.argmax(np.real(values))])
    found = np.bincount(seen.ravel(), minlength=4) / seen.size
    assert np.abs(found - likely / likely.sum()).max() < 0.03
    stormy, before = seen[1:] == 2, seen[:-1]
    assert set(before[stormy].tolist()) == {1, 2}


@pytest.mark.slow
def test_the_river_is_learnt(tmp_path):
    """Better than random policies, and than policies that learnt with untrained predictors."""
    path = {"PYTHONPATH": f"{EXAMPLES.parent}:{EXAMPLES / 'river'}"}
    shorter = ("total_steps=60_000", "retrain_every=60_000")
    found = {}
    for mode in ("dials", "untrained"):
        words = ("--config", str(EXAMPLES / "river" / "river.yaml"), f"mode={mode}", *shorter)
        done = train(*words, "--output", str(tmp_path / mode), environment=path, timeout=120)
        assert (done.code, done.stderr) == (0, "")
        file = RunFile.open(str(tmp_path / mode))
        found[mode] = file.read("evaluation/returns")[-1].mean()
    random = file.read("reference/random").mean()
    assert found["dials"] > found["untrained"] + 4 and found["untrained"] > random + 20


# Pictures ------------------------------------------------------------------------------------------------


def heights(drawing) -> list[float]:
    return [bar.get_height() for bar in drawing.bars]


def test_the_bars_of_relays_are_its_queues():
    domain = relays.Relays(relays.RelaysConfig(nodes=4))
    whole, local = domain.global_simulator(generators(1)), domain.local_simulator([2], 1, generators(1))
    for simulator in (whole, local):
        simulator.reset()
    drawing = domain.drawing(whole, Figure().add_subplot(), None)
    alone = domain.drawing(local, Figure().add_subplot(), 2)
    own = slice(*domain.line.first[2:4])
    for _, actions in zip(range(30), random_actions(domain), strict=False):
        step = whole.step(actions[:, :1])
        sources = step.sources[2]
        local.step(actions[2:3, :1], [sources])
        drawing.update(None)
        alone.update(sources[0])
        assert heights(drawing) == whole.packets[0].tolist()
        assert heights(alone) == heights(drawing)[own]
        assert len(alone.entered.get_xdata()) == sources.sum()
        assert len(drawing.entered.get_xdata()) == np.concatenate(step.sources, axis=1).sum()
    assert max(heights(drawing)) > 2
    colours = [to_hex(bar.get_facecolor()).upper() for bar in drawing.bars]
    assert colours == [COLOURS[value] for value in domain.line.value.tolist()]


def test_the_drawing_on_the_page_runs():
    (block,) = re.findall(r"```python\n(class QueuesDrawing.*?)```", PAGE.read_text(), re.S)
    names = {}
    exec(block, names)
    simulator = relays.Relays(relays.RelaysConfig()).global_simulator(generators(1))
    simulator.reset()
    simulator.packets[0] = np.arange(simulator.packets.shape[1]) % 6
    with style():
        picture = Picture(6, 6, "relays", lambda axes: names["QueuesDrawing"](simulator, axes, 5))
        picture.follow(Moment(0, np.zeros(6)))
        picture.pixels()
    assert [bar.get_height() for bar in picture.drawing.artists] == simulator.packets[0].tolist()


def test_the_bars_of_the_river_are_its_levels():
    domain = river.River(river.RiverConfig(reservoirs=5))
    whole, local = domain.global_simulator(generators(1)), domain.local_simulator([1], 1, generators(1))
    for simulator in (whole, local):
        simulator.reset()
    drawing = domain.drawing(whole, Figure().add_subplot(), None)
    alone = domain.drawing(local, Figure().add_subplot(), 1)
    for _, actions in zip(range(9), random_actions(domain), strict=False):
        step = whole.step(actions[:, :1])
        local.step(actions[1:2, :1], [step.sources[1]])
        for own, shown, simulator in ((drawing, range(5), whole), (alone, [1], local)):
            own.update(step.sources[1][0] if own is alone else None)
            levels = simulator.reservoirs.level[:, 0]
            assert heights(own) == (levels / domain.map.capacity[list(shown)]).tolist()
            assert own.weather.get_text() == river.WEATHER[step.sources[0][0, 0]]


def labelled(axes):
    """A drawing with everything that may stand around one."""
    axes.plot([0, 1000], [0, 3])
    axes.set(xlabel="a label below", ylabel="a label beside it", title="a title")
    axes.set_yticks([0, 3], ["nothing", "a long label of a tick"])
    add_legend(axes, [Patch(label="a rather long entry of a legend") for _ in range(3)])


@pytest.mark.quick
@pytest.mark.parametrize("count", [1, 2])
def test_labels_and_legends_around_a_drawing_are_inside_the_picture(count):
    with style():
        figure, _ = framed_beside(1, [labelled] * count)
        caption(figure, "what it shows")
        figure.draw_without_rendering()
        outer = [axes.get_tightbbox() for axes in figure.axes]
        (written,) = (text.get_window_extent() for text in figure.texts)
        first = figure.axes[0]
        legend, below = (x.get_window_extent() for x in (first.get_legend(), first.xaxis.label))
    assert all(figure.bbox.count_contains(box.corners()) == 4 for box in outer)
    assert written.y0 > max(box.y1 for box in outer) and legend.y1 <= below.y0
    assert count == 1 or outer[0].x1 < outer[1].x0


def test_a_drawing_without_an_aspect_ratio_is_no_tower():
    with style():
        figure, _ = framed_beside(1, [lambda axes: axes.set(xlim=(0, 1), ylim=(0, 1000))])
    wide, high = figure.get_size_inches()
    assert wide / 3 < high < wide
