"""``python parent_death.py PARENT COMMAND...``: run a program that gets SIGTERM when process PARENT ends.

So a study that is killed, even by SIGKILL, leaves no run behind. It is a separate program because subprocess
must not run code between fork and exec if there are threads, as with a progress bar. Only Linux has this.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

PR_SET_PDEATHSIG = 1


def become(parent: int, command: list[str]) -> NoReturn:
    """Replace this process by the program."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # the parent has ended already
            sys.exit(128 + signal.SIGTERM)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    become(int(sys.argv[1]), sys.argv[2:])
