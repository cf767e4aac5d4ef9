"""Run one program at a time, and pass this process's signals on to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from types import FrameType
from typing import IO, Any, NamedTuple

from dials_mpi.core import signals
from dials_mpi.core.text import printable
from dials_mpi.study import parent_death

TICK = 1.0
"""Seconds between two checks of a running program."""
TAIL = 10_000
LAST_LINES = 5
AT_ONCE = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Ended(NamedTuple):
    """How a program ended: its exit code, negative for a signal, and its last lines on stderr."""

    code: int
    last_lines: list[str]


def ended_with_this_process(command: Sequence[str]) -> list[str]:
    """The command line of a program that is ended when this process ends, for whatever reason."""
    return [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid()), *command]


class Processes:
    """A context that runs programs. stopped: a signal has come, and no other program may be started.

    Within the context SIGUSR1 is passed on as it is, SIGTERM, SIGINT and SIGHUP as SIGTERM; its end restores
    the former handlers. In a thread other than the main one, signals are not handled.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._pending: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Processes:
        for number in (signal.SIGUSR1, *AT_ONCE) if signals.available() else ():
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # set by nohup
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def run(self, command: Sequence[str], tick: Callable[[], object]) -> Ended:
        """Run a program without output; ``tick`` is called every second. OSError: it cannot be started."""
        with (
            tempfile.TemporaryFile() as stderr,
            subprocess.Popen(
                ended_with_this_process(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={"OMP_NUM_THREADS": "1", **os.environ},
                start_new_session=True,  # so that Ctrl-C reaches it once, through this process
            ) as process,
        ):
            self._process = process
            try:
                self._pass_on()
                self._wait(process, tick)
            except BaseException:
                process.terminate()
                raise
            finally:
                self._process = None
            return Ended(process.returncode, _last_lines(stderr))

    def stop_soon(self) -> None:
        """Send SIGUSR1 to the program that is running; others may be started after it."""
        if self._process:
            self._process.send_signal(signal.SIGUSR1)

    def _wait(self, process: subprocess.Popen[bytes], tick: Callable[[], object]) -> None:
        while process.poll() is None:
            try:
                process.wait(TICK)
            except subprocess.TimeoutExpired:
                tick()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.stopped = True
        self._pending = signal.SIGUSR1 if number == signal.SIGUSR1 else signal.SIGTERM
        self._pass_on()

    def _pass_on(self) -> None:
        """Send a pending signal to the running program, or to the next one if none is running."""
        if self._process and self._pending:
            number, self._pending = self._pending, None
            self._process.send_signal(number)


def _last_lines(stream: IO[bytes]) -> list[str]:
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - TAIL))
    lines = stream.read().decode(errors="replace").splitlines()
    return [printable(line) for line in lines if line.strip()][-LAST_LINES:]
