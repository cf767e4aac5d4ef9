"""Log files: DIR/log.txt of root, and one per rank where wanted. Every line has the time and rank/size."""

from __future__ import annotations

import logging
from pathlib import Path

from dials_mpi.core.errors import print_error

LOG = logging.getLogger("dials_mpi")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk is told by the files that matter, not by the log."""


def open_logs(directory: str, rank: int, size: int, every_rank: bool) -> None:
    """Begin to log; a log that is there is continued. every_rank: DIR/log-RANK.txt for each."""
    names = (["log.txt"] if rank == 0 else []) + ([f"log-{rank}.txt"] if every_rank else [])
    width = len(str(size - 1))
    for name in names:
        try:
            handler = _File(Path(directory) / name, encoding="utf-8")
        except OSError as error:
            print_error(
                f"{Path(directory) / name} cannot be written ({error.strerror}): the run goes on without"
            )
            continue
        line = f"%(asctime)s {rank:{width}}/{size} %(levelname)-7s %(message)s"
        handler.setFormatter(logging.Formatter(line))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)


def warn(text: str, rank: int) -> None:
    """Something that the user should know, from any rank: on stderr, and in the rank's log."""
    print_error(f"rank {rank}: {text}")
    LOG.warning(text)
