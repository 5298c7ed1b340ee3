"""Run a real single-node Slurm from Debian packages: ``apt-get install slurm-wlm munge``; ``python slurm.py`` tries it.

It must run as root, without control groups, as in a container. Jobs of the partition ``high`` pre-empt those of
``low``, which are requeued. All daemons are stopped on exit.
"""

import os
import platform
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun")
CPUS = 4  # as configured in Slurm, whatever the machine has
_PATIENCE_S = 60
_SBIN = ":/usr/sbin:/sbin"


def missing_requirement():
    """Return why Slurm cannot run here, or None if it can."""
    if os.geteuid() != 0:
        return "Slurm's daemons must be started as root"
    missing = [name for name in NEEDED if _which(name) is None]
    return f"no {missing[0]}: apt-get install slurm-wlm munge" if missing else None


@contextmanager
def slurm(directory: Path, grace_s=0):
    """Run a cluster; yield the environment variables for sbatch, squeue and the other commands.

    Args:
        directory: Directory for all files.
        grace_s: Seconds between the signal of a pre-emption and its end.
    """
    configuration = _configure(directory, grace_s)
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    munge_socket = directory / "munge.socket"
    daemons = []

    def start(*words):
        words = [_which(words[0]), *words[1:]]
        daemons.append(subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    environment["PATH"] += _SBIN
    try:
        key, own = directory / "munge.key", ("--pid-file", "--seed-file", "--log-file")
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = [f"{option}={directory}/munge{option[1:]}" for option in own]
        start("munged", "-F", "-f", f"--key-file={key}", f"--socket={munge_socket}", *files)
        _until(munge_socket.exists, "munged made no socket")
        start("slurmctld", "-D", "-f", str(configuration))
        start("slurmd", "-D", "-f", str(configuration), "-N", _node())
        _until(lambda: _is_idle(environment), f"Slurm did not start: {directory}")
        yield environment
    finally:
        _output(environment, "scancel", "--user=root")
        _until(lambda: not _output(environment, "squeue", "-h"), "jobs did not end")  # slurmd waits for them
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(_PATIENCE_S)


def _configure(directory: Path, grace_s: int):
    for name in ("state", "spool"):
        (directory / name).mkdir(parents=True)
    node, (controller_port, node_port) = _node(), _free_ports(2)
    lines = [
        "ClusterName=tests",
        f"SlurmctldHost={node}(127.0.0.1)",
        "SlurmUser=root",
        "AuthType=auth/munge",
        f"AuthInfo=socket={directory}/munge.socket",
        f"SlurmctldPort={controller_port}",
        f"SlurmdPort={node_port}",
        f"StateSaveLocation={directory}/state",
        f"SlurmdSpoolDir={directory}/spool",
        f"SlurmctldPidFile={directory}/slurmctld.pid",
        f"SlurmdPidFile={directory}/slurmd.pid",
        f"SlurmctldLogFile={directory}/slurmctld.log",
        f"SlurmdLogFile={directory}/slurmd.log",
        "ProctrackType=proctrack/linuxproc",
        "TaskPlugin=task/none",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core",
        "MpiDefault=none",
        "ReturnToService=2",
        "SlurmdParameters=config_overrides",  # accept the number of cores below
        "PreemptType=preempt/partition_prio",
        "PreemptMode=REQUEUE",
        "KillWait=20",
        "SchedulerParameters=batch_sched_delay=0,sched_interval=2",
        f"NodeName={node} NodeAddr=127.0.0.1 CPUs={CPUS} State=UNKNOWN",
        f"PartitionName=low Nodes={node} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime={grace_s}",
        f"PartitionName=high Nodes={node} MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF",
    ]
    configuration = directory / "slurm.conf"
    configuration.write_text("\n".join(lines) + "\n")
    return configuration


def _node():
    return platform.node().partition(".")[0]


def _which(name):
    return shutil.which(name, path=os.environ["PATH"] + _SBIN)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _is_idle(environment):
    return set(_output(environment, "sinfo", "-h", "-o", "%T").split()) == {"idle"}


def _output(environment, *words):
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False, timeout=30).stdout


def _until(condition, error):
    since = time.monotonic()
    while not condition():
        if time.monotonic() - since > _PATIENCE_S:
            raise RuntimeError(error)
        time.sleep(0.2)


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as directory, slurm(Path(directory)) as environment:
        subprocess.run(["srun", "-n1", "hostname"], env=environment, check=True)
        subprocess.run(["sinfo"], env=environment, check=True)
