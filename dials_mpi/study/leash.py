"""``python leash.py PARENT COMMAND...`` becomes a program that gets SIGTERM when the process PARENT ends.

However that ends: not even SIGKILL leaves the program behind. It is a program of its own since subprocess may
run nothing between fork and exec where there are threads, as behind a bar. Linux alone knows such a thing.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def become(parent: int, command: Sequence[str]) -> NoReturn:
    """Go on as this program, in the same process."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # which ended a moment ago
            sys.exit(128 + signal.SIGTERM)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
