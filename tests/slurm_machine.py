"""A SLURM of our own on this machine: munged, slurmctld and two slurmd, all they write in one folder."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
AuthType=auth/munge
CredType=cred/munge

# cred_expire is also how long a requeued job has to wait; two minutes if not set.
AuthInfo=socket={folder}/munge.socket,cred_expire=5

# What asks for no cgroups and no database. linuxproc finds the processes of a job by their parents.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none

# SIGTERM is followed by SIGKILL sooner than after the usual 30 s, a finished job stays in sight longer.
KillWait=10
MinJobAge=3600
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0

# Two nodes that may claim more cores and memory than there are.
SlurmdParameters=config_overrides
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
NodeName=one NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=6 RealMemory=8000 State=UNKNOWN
NodeName=two NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=6 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=one,two Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> list[str]:
    """The programs of SLURM and munge that are not on this machine."""
    return [name for name in PROGRAMS if not find(name)]


def find(program: str) -> str | None:
    """Where a program lies; those of administrators are not on everyone's path."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin")))


class Machine:
    """Starts on entry, with two nodes ready; ends all that it started on exit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # The tests may run in a job of another SLURM.
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        self.environment = {**inherited, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: list[subprocess.Popen] = []

    def __enter__(self) -> Machine:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._daemons:
            self.call("scancel", "--user", getpass.getuser(), check=False)
            self._until(lambda: self.call("squeue", "--noheader", "--states=R,CG", check=False) == "", 20)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def call(
        self,
        *command: str,
        check: bool = True,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """What a command of SLURM says."""
        done = subprocess.run(
            command,
            env={**self.environment, **(environment or {})},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0 or not check, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *arguments: str, cwd: Path, environment: Mapping[str, str]) -> str:
        """Submit with sbatch's options, script and arguments: the job's number."""
        return self.call("sbatch", "--parsable", *arguments, cwd=cwd, environment=environment)

    def job(self, number: str) -> dict[str, str]:
        """What scontrol shows of a job or of one task of an array: JobState, Restarts, ExitCode, ..."""
        shown = self.call("scontrol", "show", "job", number, "--oneliner").splitlines()[0]
        return dict(field.split("=", 1) for field in shown.split(" ") if "=" in field)

    def wait(self, number: str, *states: str, timeout: float) -> dict[str, str]:
        """Wait until a job is in one of these states: what scontrol shows of it then."""
        job: dict[str, str] = {}

        def there() -> bool:
            job.update(self.job(number))
            return job["JobState"] in states

        assert self._until(there, timeout), f"{job['JobState']} after {timeout} s\n{self.logs()}"
        return job

    def logs(self) -> str:
        """The ends of the daemons' logs."""
        return "\n".join(
            f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}" for log in self.folder.glob("*.log")
        )

    def _start(self) -> None:
        self.folder.chmod(0o755)  # munged refuses a socket that others cannot reach
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        settings = CONFIGURATION.format(
            folder=self.folder, host=socket.gethostname(), user=getpass.getuser(), ports=free_ports(3)
        )
        (self.folder / "slurm.conf").write_text(settings)
        self._daemon(
            "munged",
            "--foreground",
            "--force",
            f"--key-file={key}",
            *(f"--{name}-file={self.folder}/munge.{name}" for name in ("pid", "log", "seed")),
            f"--socket={self.folder}/munge.socket",
        )
        assert self._until((self.folder / "munge.socket").exists, 10), self.logs()
        self._daemon("slurmctld", "-D", "-c")
        for node in ("one", "two"):
            self._daemon("slurmd", "-D", "-N", node)
        assert self._until(lambda: self._nodes() == {"idle"}, 30), self.logs()

    def _nodes(self) -> set[str]:
        return set(self.call("sinfo", "--noheader", "--Node", "--format=%T", check=False).split())

    def _daemon(self, program: str, *arguments: str) -> None:
        with (self.folder / f"{program}.out").open("ab") as log:
            self._daemons.append(
                subprocess.Popen(
                    [find(program), *arguments],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )

    @staticmethod
    def _until(holds: Callable[[], object], timeout: float) -> bool:
        limit = time.monotonic() + timeout
        while time.monotonic() < limit:
            if holds():
                return True
            time.sleep(0.3)
        return False


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens now."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
