"""The files that SUMO writes about an episode."""

from __future__ import annotations

import shutil
import weakref
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp

TRIPINFO, STATISTICS, SUMMARY, LANES = "tripinfo.xml", "statistics.xml", "summary.xml", "lanes.xml"
_LANES_WANTED = "lanes.add.xml"


def temporary_folder(owner: object) -> Path:
    """A new folder, which is removed with its owner (a TemporaryDirectory would warn then)."""
    folder = Path(mkdtemp(prefix="dials_mpi-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


class Outputs:
    """SUMO's files of the present episode, in a folder; the next episode overwrites them.

    folder: where to keep them, and SUMMARY, too; None: they are removed in the end. emissions: compute CO2,
    which makes SUMO a fifth slower.
    """

    def __init__(self, folder: Path | None = None, emissions: bool = False) -> None:
        self.emissions = emissions
        self._kept = folder
        self._temporary: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder, which is made where it is missing."""
        if self._kept:
            self._kept.mkdir(parents=True, exist_ok=True)
            return self._kept
        if not self._temporary:
            self._temporary = temporary_folder(self)
        return self._temporary

    def additional(self) -> Path:
        """An additional file for SUMO that asks for mean values of all lanes; it is written now."""
        path = self.folder / _LANES_WANTED
        # SUMO takes the output's name relative to this file.
        path.write_text(f'<additional><laneData id="lanes" file="{LANES}" excludeEmpty="true"/></additional>')
        return path

    def options(self) -> Sequence[str]:
        """SUMO's options."""
        folder = self.folder
        return (
            *("--tripinfo-output", str(folder / TRIPINFO)),
            *("--tripinfo-output.write-unfinished", "--tripinfo-output.write-undeparted"),
            *("--statistic-output", str(folder / STATISTICS)),
            *(("--summary-output", str(folder / SUMMARY)) if self._kept else ()),
            *(("--device.emissions.probability", "1") if self.emissions else ()),
        )

    def remove(self) -> None:
        """Remove the files, unless they are to be kept."""
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
