"""Start programs in a fraction of the time: a server that has loaded the libraries forks a process for each.

Most of the time of the tests would be spent loading numba and compiled code. ``command`` gives the command of
a client in place of ``python ARGUMENTS``. The client passes its file descriptors, environment and
folder to the server, whose child runs the program as Python would. The client passes SIGNALS on to the
child and ends with its exit status; if the client is killed, so is the child. Under mpirun the clients are
the ranks.

Programs that these start with ``sys.executable`` are preloaded, too: it is ``Server.python`` there.

Not for tests of start-up, terminals and SIGSTOP: these programs are started as users do it.
"""

from __future__ import annotations

import array
import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, NoReturn

NOT_COMPARED = (
    *("PYTEST_", "PMI_", "MPI_LOCAL", "HYD", "GFORTRAN_", "PWD", "OLDPWD", "DIALS_MPI_TEST", "PYTHONPATH"),
    *("SUMO_HOME", "PROJ_"),  # libsumo sets them in the process that imports it
    *("UCX_", "MKL_CBWR", "CUBLAS_", "TORCHINDUCTOR_"),  # we and PyTorch set them; they are read later
    *("PYGAME_", "SDL_", "HDF5_PLUGIN_PATH"),  # gymnasium, netCDF4
)
"""Beginnings of environment variables that no library reads when it is loaded.

Tests in this process may set them. Otherwise none of the programs after these tests would be preloaded.
"""

READY = b"ready\n"

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def short_name(mark: str) -> str:
    """The name under which the kernel knows the child that runs a program with this mark."""
    return mark[:15]


class Server:
    """A server process. environment: the variables with which its libraries were loaded."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="preload")
        self.address = str(Path(self._folder.name, "socket"))
        self.python = _python_of(self.address)
        self._write_scripts()
        self.environment = _compared(os.environ)
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(self.address)
        self._listening.listen(64)
        own = self._listening.fileno()
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", str(own)],
            pass_fds=[own],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self.stop)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == READY  # compiling may take a minute

    def _write_scripts(self) -> None:
        """``python``, which lets the server run the package's modules, and ``mpirun``, sought beside it."""
        client = f'exec {shlex.join([*_client(self.address)])} "$@"'
        itself = f'exec {shlex.quote(sys.executable)} "$@"'
        scripts = {self.python: f'case "$1 $2" in "-m dials_mpi"*) {client};; *) {itself};; esac'}
        beside = Path(sys.executable).with_name("mpirun")
        if beside.exists():
            scripts[self.python.with_name("mpirun")] = f'exec {shlex.quote(str(beside))} "$@"'
        for file, content in scripts.items():
            file.write_text(f"#!/bin/sh\n{content}\n")
            file.chmod(0o755)

    def stop(self) -> None:
        """End the server; it ends by itself if this process is killed."""
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()


_servers: dict[int, Server] = {}


def running() -> Server:
    """The server of this process. Once it runs, the compiled code is in the cache."""
    if os.getpid() not in _servers:
        _servers[os.getpid()] = Server()
    return _servers[os.getpid()]


def command(arguments: tuple[str, ...], environment: dict[str, str]) -> list[str] | None:
    """The command that starts ``python ARGUMENTS`` in this environment, or None: start it as usual.

    arguments: ``-m MODULE``, ``-c CODE`` or a script, and what follows it.
    """
    server = running()
    if _compared(environment) != server.environment:
        return None
    return [*_client(server.address), *arguments]


def left_behind() -> list[str]:
    """The variables of this process that keep its programs from being preloaded now."""
    if os.getpid() not in _servers:
        return []
    now, then = _compared(os.environ), _servers[os.getpid()].environment
    return sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))


def _client(address: str) -> list[str]:
    return [sys.executable, "-I", "-S", __file__, "connect", address]


def _python_of(address: str) -> Path:
    """The script that stands for Python, by the server's address."""
    return Path(address).with_name("python")


def _compared(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if not name.startswith(NOT_COMPARED)}


# The client ---------------------------------------------------------------------------------------------


def connect(address: str, arguments: list[str]) -> int:
    """Let the server run a program with this process's files, environment and folder; its exit status."""
    files = [0, 1, 2, *(int(os.environ[name]) for name in ("PMI_FD",) if name in os.environ)]
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        request = json.dumps([arguments, os.getcwd(), dict(os.environ), files]).encode()
        server.sendall(struct.pack("I", len(request)))
        descriptors = array.array("i", files).tobytes()
        server.sendmsg([request[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
        server.sendall(request[1:])
        for number in files[1:]:
            os.close(number)  # their readers see the end of the child, not of this process
        child = server.recv(4, socket.MSG_WAITALL)
        if child:
            _pass_on_signals(*struct.unpack("i", child))
        answer = server.recv(4, socket.MSG_WAITALL)
    return os.waitstatus_to_exitcode(struct.unpack("i", answer)[0]) if answer else 1


def _pass_on_signals(child: int) -> None:
    for each in SIGNALS:
        signal.signal(each, lambda number, _: os.kill(child, number))


# The server ---------------------------------------------------------------------------------------------


class Request(NamedTuple):
    """What a client asks for: arguments, folder, environment; its file descriptors, there and here."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    numbers: list[int]
    files: list[int]


class Children:
    """The programs that run, and the clients that wait for them."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._events = selectors.DefaultSelector()
        self._events.register(listening, selectors.EVENT_READ, self._accept)
        self._events.register(sys.stdin.fileno(), selectors.EVENT_READ, self._end)
        self._running: dict[int, tuple[int, socket.socket]] = {}  # by pidfd

    def serve(self) -> Request:
        """Answer clients until the tests end. Returns only in the children, with what they are to run."""
        while True:
            for key, _ in self._events.select():
                request = key.data(key.fd)
                if request is not None:
                    return request

    def _accept(self, _: int) -> Request | None:
        client, _ = self._listening.accept()
        request = _received(client)
        if any("=torch" in argument for argument in request.arguments):
            import torch  # noqa: F401  once: it takes seconds
        child = os.fork()
        if not child:
            self._forget(client)
            return request
        for file in request.files:
            os.close(file)
        with suppress(OSError):  # the client may have been killed
            client.sendall(struct.pack("i", child))
        pidfd = os.pidfd_open(child)
        self._running[pidfd] = child, client
        self._events.register(pidfd, selectors.EVENT_READ, self._ended)
        self._events.register(client, selectors.EVENT_READ, lambda _: self._kill(pidfd))
        return None

    def _ended(self, pidfd: int) -> None:
        """A program has ended: its client gets the status."""
        child, client = self._running.pop(pidfd)
        self._events.unregister(pidfd)
        os.close(pidfd)
        status = os.waitpid(child, 0)[1]
        if client.fileno() >= 0:
            self._events.unregister(client)
            with suppress(OSError):  # the client was killed at the same moment
                client.sendall(struct.pack("i", status))
            client.close()

    def _kill(self, pidfd: int) -> None:
        """A client was killed: so is its program."""
        if pidfd in self._running:
            child, client = self._running[pidfd]
            os.kill(child, signal.SIGKILL)
            self._events.unregister(client)
            client.close()

    def _end(self, _: int) -> None:
        """The tests have ended."""
        for child, _ in self._running.values():
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    def _forget(self, client: socket.socket) -> None:
        """In a child: close the server's files."""
        self._events.close()
        for each in (self._listening, client, *(other for _, other in self._running.values())):
            each.close()
        for pidfd in self._running:
            os.close(pidfd)


def _received(client: socket.socket) -> Request:
    size = struct.unpack("I", client.recv(4, socket.MSG_WAITALL))[0]
    first, ancillary, _, _ = client.recvmsg(1, socket.CMSG_SPACE(16 * 4))
    files = array.array("i")
    for _, _, data in ancillary:
        files.frombytes(data[: len(data) - len(data) % files.itemsize])
    rest = client.recv(size - 1, socket.MSG_WAITALL) if size > 1 else b""
    return Request(*json.loads(first + rest), list(files))


def load() -> None:
    """Load what most programs need, and the compiled code, which is in the cache from then on."""
    import h5py  # noqa: F401
    import rich.progress  # noqa: F401

    import dials_mpi.cli
    import dials_mpi.results.checkpoints
    import dials_mpi.run.sinks.console
    import dials_mpi.run.sinks.run_file
    import dials_mpi.run.system  # noqa: F401
    from dials_mpi import domains
    from dials_mpi.config import load as configuration
    from dials_mpi.parallel.communicator import library
    from dials_mpi.run.warm_up import warm_up

    library()  # loads MPI, and does not initialise it
    with open(Path(tempfile.gettempdir(), f"preload-{os.getuid()}.lock"), "w") as one_at_a_time:
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)  # the others read what one has compiled
        for kind in ("gru", "fnn"):
            config = configuration(None, [f"policy.architecture={kind}", f"influence.architecture={kind}"])
            warm_up(config, domains.create(config.domain, config.domain_section))


def become(request: Request) -> None:
    """Take over the client's files, environment and folder, and run the program as ``python -m`` does."""
    os.setsid()
    spare = [os.dup2(file, 100 + n) for n, file in enumerate(request.files)]  # none of them is in the way
    for file in request.files:
        os.close(file)
    for file, number in zip(spare, request.numbers, strict=True):
        os.dup2(file, number, inheritable=True)
        os.close(file)
    os.chdir(request.folder)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    wanted = request.environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [*filter(None, wanted), *(path for path in sys.path if path not in given)]
    os.environ.clear()
    os.environ.update(request.environment)
    Path("/proc/self/comm").write_text(short_name(request.environment.get("DIALS_MPI_TEST", "preloaded")))
    end(lambda: start(*request.arguments))


def end(program: Callable[[], None]) -> NoReturn:
    """Run a program and end this process as Python does, but for freeing the memory: that takes long here."""
    try:
        program()
        code: object = 0
    except SystemExit as leaving:
        code = 0 if leaving.code is None else leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    MPI = sys.modules["mpi4py.MPI"]
    if MPI.Is_initialized() and not MPI.Is_finalized():
        MPI.Finalize()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    ctypes.CDLL(None).exit(code & 0xFF)  # MPICH tells the launcher in one of C's exit functions


def start(what: str, *arguments: str) -> None:
    """Run a module, code or a script as Python does."""
    if what == "-m":
        sys.path.append(os.getcwd())  # where dials_mpi moves it
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.path.insert(0, "")
        sys.argv = ["-c", *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})
    else:
        sys.path.insert(0, str(Path(what).parent))
        sys.argv = [what, *arguments]
        runpy.run_path(what, run_name="__main__")


if __name__ == "__main__":
    if sys.argv[1] == "connect":
        code = connect(sys.argv[2], sys.argv[3:])
        if code < 0:  # the child was killed by a signal
            signal.signal(-code, signal.SIG_DFL)
            os.kill(os.getpid(), -code)
        os._exit(code)
    sys.path.remove(str(Path(__file__).parent))
    load()
    gc.collect()
    gc.freeze()  # the children's collector need not look at, and so copy, what is loaded
    os.write(1, READY)
    with socket.socket(fileno=int(sys.argv[2])) as own:
        sys.executable = str(_python_of(own.getsockname()))
        wanted = Children(own).serve()
    become(wanted)
