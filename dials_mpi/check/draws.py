"""Random numbers that were drawn before: local simulators that get the draws of recorded global episodes.

A domain says with ``RegionDraws`` (domains/base.py) which random numbers of the global simulator belong to a
region. A ``Replay`` in place of the region's stream gives them to its local simulator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, TypeAlias, TypeVar

import numpy as np

from dials_mpi.check.findings import require
from dials_mpi.core.seeding import Purpose, stream, streams
from dials_mpi.domains.base import Domain, LocalSimulator, LocalStep, RegionDraws, Rows, State

Draws: TypeAlias = Sequence[Sequence[np.ndarray]]
"""Of one call of ``reset`` or ``step``: for each region its arrays [E, ...], in the order of drawing."""

IN_PLACE = ("shuffle",)
"""Methods of a generator that write into their first argument."""

Result = TypeVar("Result")

NO_NUMBERS = ("bit_generator", "bytes", "spawn")
"""What else a generator has."""


class Replay(np.random.Generator):
    """A generator whose methods return given arrays, one after another, in place of new random numbers.

    where: whose numbers they are, for messages. gaps: by method, how far new numbers would differ from the
    given ones in their mean and mean square, [E, 2] for each call: the methods may have other arguments.
    """

    def __init__(self, where: str, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))
        self.where, self.given = where, list[np.ndarray]()
        self.gaps = defaultdict[str, list[np.ndarray]](list)

    def give(self, arrays: Sequence[np.ndarray]) -> None:
        """What is drawn next. Breach: something is left of what was given before."""
        self.finish()
        self.given = [np.asarray(array) for array in arrays]

    def finish(self) -> None:
        """Breach: something is left."""
        sizes = [list(array.shape) for array in self.given]
        require(
            not sizes,
            f"the local simulator of {self.where} does not draw the numbers of shape {sizes} of "
            "region_draws(), which says what the last step or reset has drawn (empty lists for nothing)",
        )

    def _take(self, method: str, like: Any) -> np.ndarray:
        """The next array, of the shape and type of ``like``. Breach: there is none, or it does not fit."""
        shape, kind = np.shape(like), np.asarray(like).dtype
        asked = f"the local simulator of {self.where} draws {method}() of shape {list(shape)}"
        require(bool(self.given), f"{asked}, and region_draws() has no more numbers")
        array = self.given.pop(0)
        said = f"region_draws() has {array.dtype.name} {list(array.shape)}"
        require(prod(shape) == array.size, f"{asked}, and {said}")
        require(np.can_cast(array.dtype, kind, "same_kind"), f"{asked} as {kind.name}, and {said}")
        self.gaps[method].append(_moments(np.reshape(like, array.shape)) - _moments(array))
        return array.reshape(shape).astype(kind)


def _moments(array: np.ndarray) -> np.ndarray:
    """The mean and the mean square of each row, [E, 2]."""
    rows = array.reshape(len(array), -1).astype(np.float64)
    return np.stack([rows.mean(axis=1), (rows**2).mean(axis=1)], axis=1)


def _replaying(name: str) -> Callable[..., Any]:
    """The method ``name`` of Replay: the original one, on new numbers, says what is asked for."""
    original = getattr(np.random.Generator, name)

    def draw(self: Replay, *arguments: Any, **keywords: Any) -> Any:
        result = original(self, *arguments, **keywords)
        target = arguments[0] if name in IN_PLACE else keywords.get("out")
        taken = self._take(name, result if target is None else target)
        if target is None:
            return taken if isinstance(result, np.ndarray) else taken[()]
        target[...] = taken
        return result

    return draw


for _name in sorted(set(dir(np.random.Generator)) - set(NO_NUMBERS)):
    if not _name.startswith("_"):
        setattr(Replay, _name, _replaying(_name))


class Streamed:
    """A local simulator and the streams of its regions.

    draws: the recorded random numbers that it gets, [T + 1] calls from a ``reset`` of all environments on, if
    the streams are ``Replay``.
    """

    def __init__(
        self,
        simulator: LocalSimulator,
        streams: Sequence[np.random.Generator],
        draws: Sequence[Draws] | None = None,
    ) -> None:
        self.simulator, self.streams, self.draws = simulator, streams, draws
        self.replays = [stream for stream in streams if isinstance(stream, Replay)]
        self.calls = iter(draws or ())

    def reset(self, where: np.ndarray | None = None, elapsed: np.ndarray | None = None) -> State:
        """As LocalSimulator; recorded draws begin anew. Breach: see ``Replay``."""
        self.calls = iter(self.draws or ())
        return self._drawing(partial(self.simulator.reset, where, elapsed))

    def step(self, actions: np.ndarray, sources: Rows) -> LocalStep:
        """As LocalSimulator. Breach: see ``Replay``."""
        return self._drawing(partial(self.simulator.step, actions, sources))

    def _drawing(self, call: Callable[[], Result]) -> Result:
        """Make a call that draws the next recorded numbers, and all of them."""
        if self.replays:
            for replay, arrays in zip(self.replays, next(self.calls), strict=True):
                replay.give(arrays)
        result = call()
        for replay in self.replays:
            replay.finish()
        return result


def region_draws(simulator: object, regions: int, episodes: int) -> Draws | None:
    """A copy of what the last call drew for each region; None: the simulator does not say it.

    Breach: it says something else than RegionDraws demands.
    """
    if not isinstance(simulator, RegionDraws):
        return None
    found = [[np.array(array) for array in arrays] for arrays in simulator.region_draws()]
    require(len(found) == regions, f"region_draws() has {len(found)} regions, not {regions}")
    for k, arrays in enumerate(found):
        for array in arrays:
            what = f"region_draws() of region {k} has {array.dtype.name} {list(array.shape)}"
            numbers = array.dtype.kind in "biuf" and array.shape[:1] == (episodes,)
            require(numbers, f"{what}, not numbers of shape [{episodes}, ...]")
    return found


def simulator_of(
    domain: Domain, regions: Sequence[int], environments: int, seed: int, draws: Sequence[Draws] | None = None
) -> Streamed:
    """The local simulator of some regions.

    draws: the recorded random numbers that it gets, of all regions; None: new ones.
    """
    if draws is None:
        own = [streams(seed, Purpose.SIMULATOR, len(domain.regions))[k] for k in regions]
        return Streamed(domain.local_simulator(regions, environments, own), own)
    replays = [Replay(f"region {k}", seed + k) for k in regions]
    simulator = domain.local_simulator(regions, environments, replays)
    return Streamed(simulator, replays, [[call[k] for k in regions] for call in draws])


def untouched(given: np.random.Generator, seed: int, region: int) -> bool:
    """Whether nothing was drawn from a region's stream."""
    own, new = given.bit_generator, stream(seed, Purpose.SIMULATOR, region).bit_generator
    spawned = own.seed_seq.n_children_spawned  # type: ignore[attr-defined]
    return str(own.state) == str(new.state) and not spawned
