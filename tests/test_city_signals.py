"""The change of signals in a city, against RESCO's rule in plain loops."""

import numpy as np
import pytest

from dials_mpi.domains.city.signals import Lights, transition

GREENS = (("GGrrr", "rrGGr", "rrrgG", "GrrrG"), ("Grs", "rGG"), ("GGgg", "GGrr", "rrGG"))


@pytest.mark.quick
@pytest.mark.parametrize(
    ("old", "new", "between"),
    [
        ("GGrr", "rrGG", "yyrr"),
        ("GGgg", "GGrr", "GGyy"),
        ("Ggrs", "sgGG", "ygrs"),  # s: turn on red after a stop, no green
        ("Grrr", "GGrr", "Grrr"),  # nobody loses green
        ("GOro", "rOGo", "yOro"),
    ],
)
def test_links_that_lose_green_show_yellow(old, new, between):
    assert transition(old, new) == between


def described(greens, requests, every, yellow, all_red, minimum):
    """The states of one signal in each second: a list that a request fills in advance.

    A green is shown for a second at least.
    """
    minimum = max(minimum, 1)
    shown, since, coming, states = 0, minimum, [], []
    for t in range(len(requests) * every):
        if t % every == 0 and not coming and since >= minimum and requests[t // every] != shown:
            old, new = greens[shown], greens[requests[t // every]]
            losing = [a in "gG" and b in "rs" for a, b in zip(old, new, strict=True)]
            for letter, seconds in (("y", yellow), ("r", all_red)):
                state = "".join(letter if lost else a for lost, a in zip(losing, old, strict=True))
                coming += [state] * seconds
            shown, since = requests[t // every], -len(coming)
        states.append(coming.pop(0) if coming else greens[shown])
        since += 1
    return states


@pytest.mark.quick
@pytest.mark.parametrize("every", [1, 5, 10])
@pytest.mark.parametrize(
    ("yellow", "all_red", "minimum"), [(3, 0, 0), (3, 2, 6), (0, 0, 0), (0, 2, 3), (2, 0, 9)]
)
def test_the_states_of_every_second(every, yellow, all_red, minimum):
    rng = np.random.default_rng(every)
    requests = np.stack([rng.integers(len(greens), size=60) for greens in GREENS], axis=1)
    lights = Lights(GREENS, yellow, all_red, minimum)
    shown, before = [], list(lights.states)
    for t in range(60 * every):
        if t % every == 0:
            lights.request(requests[t // every])
        changed = lights.second()
        assert changed == [k for k in range(len(GREENS)) if lights.states[k] != before[k]]
        before = list(lights.states)
        shown.append(before)
    for k, greens in enumerate(GREENS):
        expected = described(greens, requests[:, k].tolist(), every, yellow, all_red, minimum)
        assert [states[k] for states in shown] == expected


@pytest.mark.quick
def test_a_change_takes_effect_only_where_the_signal_is_free():
    lights = Lights(GREENS, yellow=3, minimum_green=4)
    free = []
    for t in range(12):
        if t in (0, 3):
            lights.request(np.array([1 - t // 3, 0, 0]))
        free.append(lights.free.tolist())
        lights.second()
    assert [row[0] for row in free] == [False] * 7 + [True] * 5  # 3 of yellow, 4 of green
    assert all(row[1] and row[2] for row in free)
    assert lights.green.tolist() == [1, 0, 0]


@pytest.mark.quick
def test_reset_shows_the_first_green():
    lights = Lights(GREENS, yellow=3, minimum_green=4)
    lights.request(np.array([1, 1, 1]))
    lights.second()
    lights.reset()
    assert lights.states == [greens[0] for greens in GREENS] and lights.free.all()
    assert lights.second() == []
