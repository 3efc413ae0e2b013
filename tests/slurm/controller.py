"""A SLURM of one node on this machine, for as long as a test needs it: all of it in one folder, ports of its own.

Needs the Debian packages slurm-wlm and munge, and root, whose jobs it runs; nothing else on the machine is touched.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
AVAILABLE = os.geteuid() == 0 and all(map(shutil.which, DAEMONS))

CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000
PartitionName=main Nodes={host} Default=YES State=UP
"""


@contextmanager
def one_node(folder: Path) -> Iterator[dict[str, str]]:
    """Run the controller and its node of two cores; what SLURM's commands need in the environment to find them."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    controller, node = _free_ports(2)
    (folder / "slurm.conf").write_text(CONF.format(host=host, folder=folder, controller=controller, node=node))
    environment = {"SLURM_CONF": str(folder / "slurm.conf")}
    munge = [f"--{name}-file={folder}/munged.{name}" for name in ("pid", "log", "seed")]
    try:
        _run("munged", "--force", f"--socket={folder}/munge.socket", f"--key-file={key}", *munge)
        _run("slurmctld", "-c", environment=environment)
        _run("slurmd", environment=environment)
        _until(lambda: _idle(environment), f"the node does not come up, see the logs in {folder}")
        yield environment
    finally:
        for daemon in reversed(DAEMONS):  # each needs those before it to end
            _stop(folder / f"{daemon}.pid")


def jobs(environment: dict[str, str]) -> list[str]:
    """Ids of the jobs in the queue."""
    return _run("squeue", "--noheader", "--format=%i", environment=environment).split()


def _idle(environment: dict[str, str]) -> bool:
    return _run("sinfo", "--noheader", "--format=%T", environment=environment).strip() == "idle"  # idle*: not yet


def _run(*command: str, environment: dict[str, str] | None = None) -> str:
    result = subprocess.run(command, env=os.environ | (environment or {}), capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, f"{' '.join(command)}: {result.stderr}"
    return result.stdout


def _stop(pid_file: Path) -> None:
    """End the daemon that wrote this file, and wait for it."""
    if pid_file.exists():
        pid = int(pid_file.read_text())
        os.kill(pid, signal.SIGTERM)
        _until(lambda: not Path(f"/proc/{pid}").exists(), f"{pid_file.stem} does not end")


def _until(met, what: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def _free_ports(n: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
