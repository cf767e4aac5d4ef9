"""Log files: DIR/log.txt of root, and one per rank on request. Every line has the time and rank/size."""

from __future__ import annotations

import logging
from pathlib import Path

from dials_mpi.core.errors import print_error

LOG = logging.getLogger("dials_mpi")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False


class _File(logging.FileHandler):
    def handleError(self, record: logging.LogRecord) -> None:
        """Ignore it: a full disk is reported by the run file and the checkpoints."""


def open_logs(directory: str, rank: int, size: int, every_rank: bool) -> None:
    """Start logging; appends to an existing log. every_rank: write DIR/log-RANK.txt on each rank."""
    names = (["log.txt"] if rank == 0 else []) + ([f"log-{rank}.txt"] if every_rank else [])
    width = len(str(size - 1))
    for name in names:
        try:
            handler = _File(Path(directory) / name, encoding="utf-8")
        except OSError as error:
            print_error(
                f"{Path(directory) / name} cannot be written ({error.strerror}): the run continues without it"
            )
            continue
        line = f"%(asctime)s {rank:{width}}/{size} %(levelname)-7s %(message)s"
        handler.setFormatter(logging.Formatter(line))
        LOG.addHandler(handler)
        LOG.setLevel(logging.INFO)


def close_logs() -> None:
    """Close the log files of ``open_logs``."""
    for handler in [one for one in LOG.handlers if isinstance(one, _File)]:
        LOG.removeHandler(handler)
        handler.close()


def warn(text: str, rank: int) -> None:
    """Warn the user, from any rank: on stderr, and in the rank's log."""
    print_error(f"rank {rank}: {text}")
    LOG.warning(text)
