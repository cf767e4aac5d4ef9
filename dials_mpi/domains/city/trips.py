"""A demand of random trips for a network that comes without one, by SUMO's randomTrips and duarouter."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from dials_mpi.core import cache, first_start
from dials_mpi.core.errors import BadInput
from dials_mpi.domains.city.xml_files import shown
from dials_mpi.domains.sumo import installation, made_files

_FILE = "random.rou.xml"
_OPTIONS = ("--seed=1", "--fringe-factor=5", "--validate")


def random_trips(network: Path, vehicles: int, begin: float, end: float) -> Path:
    """A route file with about ``vehicles`` vehicles that depart at equal intervals in the window, seconds.

    It is made once and kept in the cache; those without a route are left out. BadInput: SUMO's tools are not
    found, or cannot make it.
    """
    window = (f"--begin={begin:g}", f"--end={end:g}", f"--period={(end - begin) / vehicles:g}")
    content = sha256(network.read_bytes()).hexdigest()
    key = cache.key(installation.version(), content, *window, *_OPTIONS)
    return made_files.folder(f"trips/{key}", (_FILE,), lambda: _make(network, window)) / _FILE


def _make(network: Path, window: tuple[str, ...]) -> dict[str, bytes]:
    with first_start.making("making random trips"), TemporaryDirectory(prefix="dials_mpi-") as work:
        files = (f"--output-trip-file={work}/trips.xml", f"--route-file={work}/{_FILE}")
        try:
            installation.tool("randomTrips.py", [f"--net-file={network}", *files, *window, *_OPTIONS])
            return {_FILE: Path(work, _FILE).read_bytes()}
        except (OSError, RuntimeError) as error:
            last = str(error).strip().splitlines()[-1]
            raise BadInput(f"no random trips can be made for {shown(network)}: {last}") from error
