"""Check that arrays belong to the caller (domains/base.py): those returned, and those given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dials_mpi.check.findings import require
from dials_mpi.check.play import agents_of, random_actions, random_sources
from dials_mpi.domains.base import Domain, State

STEPS = 20

Named = list[tuple[str, np.ndarray]]
"""Arrays, and what they are."""


GIVEN, RETURNED = BOTH = "given", "returned"
"""Arrays of the caller."""


class Call(NamedTuple):
    """A call of a simulator, the arrays that it is given, and its name."""

    name: str
    make: Callable[[], Any]
    given: Named


class Kept(NamedTuple):
    """An array that the caller keeps after a call, and a copy of it as it was then."""

    name: str
    array: np.ndarray
    copy: np.ndarray


def require_own_arrays(
    domain: Domain, seed: int, make: Callable[[], Any], episodes: int, regions: Sequence[int] = ()
) -> None:
    """Breach: a simulator changes or keeps an array that belongs to the caller.

    make: a simulator with these episodes side by side, of equal streams each time; regions: of a local one.
    """

    def play(overwritten: Sequence[str] = ()) -> list[Kept]:
        return _play(_calls(domain, seed, make(), episodes, regions), overwritten)

    plain = play()
    for kept in plain:
        require(
            np.array_equal(kept.array, kept.copy), f"the simulator changes {kept.name}: it must copy them"
        )
    if not _changed(plain, play(BOTH)):
        return
    for overwritten, what in ((GIVEN, "is given"), (RETURNED, "returns")):
        changed = _changed(plain, play(overwritten))
        require(not changed, f"writing into what the simulator {what} changes {changed}: it must copy arrays")


def _changed(plain: Sequence[Kept], again: Sequence[Kept]) -> str:
    """The first array that had other numbers in the second play; "": there is none."""
    pairs = zip(plain, again, strict=True)
    return next((one.name for one, other in pairs if not np.array_equal(one.copy, other.copy)), "")


def _play(calls: Iterator[Call], overwritten: Sequence[str]) -> list[Kept]:
    """Make the calls; overwritten: the caller's arrays in which it writes after each call."""
    kept = []
    for call in calls:
        given = [
            Kept(f"the {name} that {call.name} is given", array, array.copy()) for name, array in call.given
        ]
        result = [
            Kept(f"the {name} that {call.name} returns", array, array.copy())
            for name, array in _arrays(call.make())
        ]
        for whose, those, value in ((GIVEN, given, 0), (RETURNED, result, 1)):
            for one in those if whose in overwritten else ():
                if one.array.flags.writeable:
                    one.array[...] = value
        kept += given + result
    return kept


def _calls(
    domain: Domain, seed: int, simulator: Any, episodes: int, regions: Sequence[int]
) -> Iterator[Call]:
    """A reset, some steps, and between them the reset of one episode if there are several."""
    agents = agents_of(domain, regions) if regions else range(len(domain.agents))
    chosen = random_actions(domain, agents, seed, episodes)
    influence = random_sources(domain, regions, seed, episodes)
    yield Call("the first reset", simulator.reset, [])
    steps = min(STEPS, domain.horizon)
    for t in range(1, steps + 1):
        actions, sources = next(chosen).copy(), next(influence)
        given = [("actions", actions), *((f"sources[{r}]", part) for r, part in enumerate(sources))]
        yield Call(f"step {t}", partial(simulator.step, actions, *([sources] if regions else [])), given)
        if t == steps // 2 and episodes > 1:
            where, elapsed = np.arange(episodes) == 0, np.zeros(episodes, np.int64)
            again = partial(simulator.reset, where, elapsed)
            yield Call(f"the reset after step {t}", again, [("where", where), ("elapsed", elapsed)])


def _arrays(result: Any) -> Named:
    """The arrays that ``reset`` or ``step`` returned."""
    state = result if isinstance(result, State) else result.state
    found = [(f"observations[{i}]", part) for i, part in enumerate(state.observations)]
    found += [(f"inputs[{k}]", part) for k, part in enumerate(state.inputs)]
    if result is not state:
        found += [(f"sources[{k}]", part) for k, part in enumerate(getattr(result, "sources", ()))]
        found += [("rewards", result.rewards), ("done", result.done)]
    return [(name, array) for name, array in found if isinstance(array, np.ndarray)]
