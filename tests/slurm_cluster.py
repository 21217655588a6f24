"""A real Slurm on this machine: several nodes on the loopback interface, as ordinary child processes.

Nodes ``n1`` ... are always there (partition ``debug``), nodes ``c1`` ... are powered up when a job wants them and down
again when they idle (partition ``cloud``). GPUs are devices that can be opened and nothing more.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mlflow_pytorch_estimator.schedulers.slurm.nodes import node_state

_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
_ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db")
_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_RESUME = """#!/bin/bash
# slurmctld starts this with standard streams closed and signals blocked: a slurmd that inherits that cannot be ended.
exec </dev/null >>{folder}/log/power.log 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF={folder}/etc/slurm.conf
sleep 2  # no machine boots in the second in which it is asked to, and slurmctld counts in seconds
for node in $(scontrol show hostnames "$1"); do
  [ -e {folder}/refuse ] && continue
  # -b reports a fresh boot, else slurmctld waits for a boot that this machine never had.
  {python} -c 'import os, signal, sys
signal.pthread_sigmask(signal.SIG_SETMASK, [])
os.execvp(sys.argv[1], sys.argv[1:])' slurmd -f $SLURM_CONF -N $node -b
done
"""
_SUSPEND = """#!/bin/bash
exec </dev/null >>{folder}/log/power.log 2>&1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF={folder}/etc/slurm.conf
for node in $(scontrol show hostnames "$1"); do
  kill $(cat {folder}/run/slurmd-$node.pid)
done
exit 0
"""


def missing(*, accounting: bool = False) -> str:
    """Which programs are not on this machine; "" for none."""
    wanted = (*_PROGRAMS, *(_ACCOUNTING if accounting else ()))
    return ", ".join(name for name in wanted if shutil.which(name, path=_PATH) is None)


@dataclass
class Slurm:
    """A cluster that is up."""

    folder: Path
    static: int
    cloud: int
    accounting: bool
    port: int
    strict: bool = False
    """Jobs that use more memory than they asked for are killed, and those of ``low`` and ``lowest`` make way for those
    of ``high``: the former come back."""
    hidden: Path | None = None
    """A folder of this machine in whose place each node has an empty disk of its own."""
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def conf(self) -> Path:
        return self.folder / "etc/slurm.conf"

    def environ(self) -> dict[str, str]:
        return {**os.environ, "PATH": _PATH, "SLURM_CONF": str(self.conf)}

    def command(self, *argv: str) -> str:
        """Run one of Slurm's commands."""
        done = subprocess.run(argv, env=self.environ(), capture_output=True, text=True, timeout=30, check=True)
        return done.stdout

    def start(self, *argv: str, name: str = "") -> None:
        """Start a daemon in the foreground."""
        with (self.folder / "log" / f"{name or argv[0]}.out").open("ab") as log:
            self.processes[name or argv[0]] = subprocess.Popen(
                argv, env=self.environ(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """End a daemon."""
        process = self.processes.pop(name)
        process.send_signal(number)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_controller(self) -> None:
        self.start("slurmctld", "-D", "-f", str(self.conf))
        _until(lambda: "is UP" in self.command("scontrol", "ping"), 20, "slurmctld", self.folder)

    def start_node(self, name: str) -> None:
        apart: tuple[str, ...] = ()
        if self.hidden:
            script = 'mount -t tmpfs none "$0" && exec "$@"'
            apart = ("unshare", "--mount", "--propagation=private", "sh", "-c", script, str(self.hidden))
        self.start(*apart, "slurmd", "-D", "-f", str(self.conf), "-N", name, name=name)

    def states(self, partition: str = "debug") -> dict[str, str]:
        """Node -> its state."""
        lines = self.command("sinfo", "--noheader", "--Node", f"--partition={partition}", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def up(self) -> None:
        """Start all daemons."""
        munge = self.folder / "munge"
        (munge / "key").write_bytes(secrets.token_bytes(1024))
        (munge / "key").chmod(0o400)
        run = self.folder / "run"
        self.start(
            *("munged", "--foreground", f"--key-file={munge}/key", f"--socket={run}/munge.sock"),
            *(f"--pid-file={run}/munged.pid", f"--seed-file={munge}/seed"),
        )
        _until((run / "munge.sock").exists, 10, "munged", self.folder)
        if self.accounting:
            self._start_accounting()
        self.start_controller()
        for number in range(self.static):
            self.start_node(f"n{number + 1}")
        if self.static:
            _until(lambda: set(self.states().values()) == {"idle"}, 30, "the nodes", self.folder)

    def down(self) -> None:
        """End all jobs and all daemons."""
        with contextlib.suppress(subprocess.SubprocessError):
            ids = self.command("squeue", "--noheader", "--format=%A").split()
            if ids:
                self.command("scancel", "--full", *ids)
                _until(lambda: not self.command("squeue", "--noheader"), 10, "the end of the jobs", self.folder)
        for name in [name for name in self.processes if name not in {"munged", "mariadbd", "slurmdbd"}]:
            self.stop(name)
        self._kill_powered()
        for name in reversed(list(self.processes)):
            self.stop(name)

    def _kill_powered(self) -> None:
        """What Slurm has started by itself: slurmd of powered nodes, and slurmstepd, whichever are left."""
        for path in Path("/proc").glob("[0-9]*"):
            try:
                program = (path / "comm").read_text().strip()
                words = (path / "environ").read_bytes()
            except OSError:
                continue
            if program in {"slurmd", "slurmstepd"} and str(self.folder).encode() in words:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)

    def _start_accounting(self) -> None:
        data, run = self.folder / "mysql", self.folder / "run"
        user = ("--user=root",) if os.getuid() == 0 else ()
        subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", *user, f"--datadir={data}", "--skip-test-db"),
                "--auth-root-authentication-method=normal",
            ],
            env=self.environ(),
            check=True,
            capture_output=True,
        )
        self.start(
            *("mariadbd", "--no-defaults", *user, f"--datadir={data}", f"--socket={run}/mysql.sock"),
            *("--bind-address=127.0.0.1", f"--port={self.port + 4}", "--innodb-lock-wait-timeout=900"),
            *("--innodb-buffer-pool-size=128M", "--innodb-flush-log-at-trx-commit=2"),
        )
        client = ("mariadb", "--no-defaults", f"--socket={run}/mysql.sock", "--user=root")
        _until(lambda: self.command(*client, "-e", "SELECT 1"), 30, "mariadbd", self.folder)
        grants = "".join(
            f"CREATE USER slurm@'{host}' IDENTIFIED BY 'slurm'; GRANT ALL ON slurm_acct_db.* TO slurm@'{host}';"
            for host in ("127.0.0.1", "localhost")
        )
        self.command(*client, "-e", f"CREATE DATABASE slurm_acct_db; {grants}")
        self.start("slurmdbd", "-D")
        _until(lambda: _open(self.port + 3), 30, "slurmdbd", self.folder)


def _open(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def _until(condition: Callable[[], object], seconds: float, what: str, folder: Path) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            if condition():
                return
        if time.monotonic() > deadline:
            said = "\n".join(f"{path}: {path.read_text(errors='replace')[-2000:]}" for path in folder.glob("log/*"))
            raise AssertionError(f"{what} did not come within {seconds:g} s\n{said}")
        time.sleep(0.1)


def _free_ports() -> int:
    """The first of a row of ports of which nobody uses any."""
    for base in range(17000 + 500 * (os.getpid() % 40), 60000, 500):
        try:
            for port in (*range(base, base + 5), *range(base + 101, base + 110), *range(base + 201, base + 210)):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return base
    raise AssertionError("no free ports")


@contextlib.contextmanager
def cluster(
    static: int = 2,
    cloud: int = 0,
    gpus: int = 2,
    *,
    accounting: bool = False,
    remembered: int = 30,
    cpus: int = 2,
    strict: bool = False,
    hidden: Path | None = None,
) -> Iterator[Slurm]:
    """A cluster for the length of a ``with`` block; jobs that have ended are ``remembered`` for so many seconds."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:  # short: paths of sockets have 107 bytes at most
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("etc", "run", "log", "state", "spool", "munge", "dev", "bin", "tmp", "mysql"):
            (folder / part).mkdir(mode=0o700 if part == "munge" else 0o755)
        for node in (*(f"n{n + 1}" for n in range(static)), *(f"c{n + 1}" for n in range(cloud))):
            (folder / "spool" / node).mkdir()
            (folder / "tmp" / node).mkdir()
        slurm = Slurm(folder, static, cloud, accounting, _free_ports(), strict, hidden)
        _configure(slurm, gpus, remembered, cpus)
        try:
            slurm.up()
            yield slurm
        finally:
            slurm.down()


def _configure(slurm: Slurm, gpus: int, remembered: int, cpus: int) -> None:
    folder, port, host = slurm.folder, slurm.port, socket.gethostname().split(".")[0]
    user = "root" if os.getuid() == 0 else os.environ["USER"]
    device = folder / "dev/gpu"
    try:
        for number in range(gpus):
            os.mknod(f"{device}{number}", 0o666 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        device = Path("/dev/tty")
    (folder / "etc/gres.conf").write_text(f"Name=gpu File={device}[0-{gpus - 1}]\n")
    if slurm.accounting:
        storage = (
            f"AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
            f"AccountingStoragePass={folder}/run/munge.sock\nAccountingStoragePort={port + 3}\n"
            "JobAcctGatherType=jobacct_gather/linux\n"
        )
        dbd = folder / "etc/slurmdbd.conf"
        dbd.write_text(
            f"AuthType=auth/munge\nAuthInfo=socket={folder}/run/munge.sock\nDbdHost={host}\nDbdAddr=127.0.0.1\n"
            f"DbdPort={port + 3}\nSlurmUser={user}\nPidFile={folder}/run/slurmdbd.pid\n"
            f"LogFile={folder}/log/slurmdbd.log\nStorageType=accounting_storage/mysql\nStorageHost=127.0.0.1\n"
            f"StoragePort={port + 4}\nStorageUser=slurm\nStoragePass=slurm\nStorageLoc=slurm_acct_db\n"
            "CommunicationParameters=NoInAddrAny\n"
        )
        dbd.chmod(0o600)
    else:
        storage = "AccountingStorageType=accounting_storage/none\nJobAcctGatherType=jobacct_gather/none\n"
    nodes = ""
    if slurm.strict:
        storage = storage.replace("jobacct_gather/none", "jobacct_gather/linux")
        storage += "JobAcctGatherFrequency=1\nJobAcctGatherParams=OverMemoryKill\n"
        storage += "PreemptType=preempt/partition_prio\nPreemptMode=REQUEUE\n"
    if slurm.static:
        nodes += (
            f"NodeName=n[1-{slurm.static}] NodeHostname={host} NodeAddr=127.0.0.1 "
            f"Port=[{port + 101}-{port + 100 + slurm.static}] State=UNKNOWN\n"
            f"PartitionName=debug Nodes=n[1-{slurm.static}] Default=YES MaxTime=INFINITE State=UP\n"
        )
    if slurm.strict:
        for name, settings in (
            ("low", "PriorityTier=1 PreemptMode=REQUEUE"),
            ("lowest", "PriorityTier=1 PreemptMode=CANCEL"),
            ("high", "PriorityTier=9 PreemptMode=OFF"),
        ):
            nodes += f"PartitionName={name} Nodes=n[1-{slurm.static}] MaxTime=INFINITE State=UP {settings}\n"
    if slurm.cloud:
        for name, text in (("resume", _RESUME), ("suspend", _SUSPEND)):
            program = folder / "bin" / name
            program.write_text(text.format(folder=folder, python=sys.executable))
            program.chmod(0o755)
        nodes += (
            f"ResumeProgram={folder}/bin/resume\nSuspendProgram={folder}/bin/suspend\n"
            "ResumeTimeout=60\nSuspendTimeout=3\nResumeRate=0\nSuspendRate=0\n"
            f"NodeName=c[1-{slurm.cloud}] NodeHostname={host} NodeAddr=127.0.0.1 "
            f"Port=[{port + 201}-{port + 200 + slurm.cloud}] State=CLOUD\n"
            f"PartitionName=cloud Nodes=c[1-{slurm.cloud}] MaxTime=INFINITE State=UP SuspendTime=5\n"
        )
    slurm.conf.write_text(
        f"ClusterName=lab\nSlurmctldHost={host}(127.0.0.1)\nSlurmctldPort={port + 1}\nSlurmdPort={port + 2}\n"
        f"SlurmUser={user}\nSlurmdUser={user}\nAuthType=auth/munge\nAuthInfo=socket={folder}/run/munge.sock\n"
        "CredType=cred/munge\nCommunicationParameters=NoInAddrAny,NoCtldInAddrAny\n"
        f"StateSaveLocation={folder}/state\nSlurmdSpoolDir={folder}/spool/%n\nTmpFS={folder}/tmp/%n\n"  # noqa: S108 - below the folder of the cluster
        f"SlurmctldPidFile={folder}/run/slurmctld.pid\nSlurmdPidFile={folder}/run/slurmd-%n.pid\n"
        f"SlurmctldLogFile={folder}/log/slurmctld.log\nSlurmdLogFile={folder}/log/slurmd-%n.log\n"
        "MailProg=/bin/true\nProctrackType=proctrack/linuxproc\nTaskPlugin=task/none\nSwitchType=switch/none\n"
        "MpiDefault=none\nSelectType=select/cons_tres\nSelectTypeParameters=CR_Core_Memory\nDefMemPerCPU=100\n"
        "SchedulerType=sched/backfill\n"
        "SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1\n"
        "SlurmdParameters=config_overrides\n"
        "SlurmctldParameters=cloud_dns,idle_on_node_suspend,power_save_interval=1\n"
        f"ReturnToService=2\nMinJobAge={remembered}\nKillWait=2\nSlurmdTimeout=10\n"
        f"{storage}GresTypes=gpu\nNodeName=DEFAULT CPUs={cpus} "
        f"RealMemory={2000 if slurm.strict else 500 * cpus} Gres=gpu:{gpus}\n{nodes}"
    )


def asleep(slurm: Slurm) -> bool:
    """Whether all nodes that can be are powered off."""
    return all(node_state(state) is None for state in slurm.states("cloud").values())


def watchers(home: Path) -> list[int]:
    """The watchers of a home directory, see ``schedulers.slurm.watcher``."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words, environ = (path / "cmdline").read_bytes(), (path / "environ").read_bytes()
        except OSError:
            continue
        if b"schedulers.slurm.watcher" in words and f"GPU_CLUSTER_HOME={home}\0".encode() in environ:
            found.append(int(path.name))
    return found


@pytest.fixture(scope="session")
def lab() -> Iterator[Slurm]:
    """Two nodes that are there, two that are powered up on demand, with two GPUs each; no accounting."""
    absent = missing()
    if absent:
        pytest.skip(f"Slurm is not installed: no {absent} (apt install slurm-wlm munge)")
    with cluster(static=2, cloud=2) as slurm:
        yield slurm


@pytest.fixture
def slurm(lab: Slurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """The cluster, without jobs and with all its nodes."""
    monkeypatch.setenv("SLURM_CONF", str(lab.conf))
    yield lab
    ids = lab.command("squeue", "--noheader", "--format=%A").split()
    if ids:
        lab.command("scancel", "--full", *ids)
    # After a controller that was away, daemons repeat what they had to say to it once a minute.
    _until(lambda: not lab.command("squeue", "--noheader"), 180, "an empty queue", lab.folder)
