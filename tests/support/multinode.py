"""Train one run across several hosts, simulated by network namespaces of this machine. Requires root.

    python tests/support/multinode.py [--hosts 2]

There are three runs, each with a time limit: a complete run, compared with one process; a run with one host
disconnected, which must end and name that host; and that run resumed on all hosts, until one of them is terminated.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from helpers import SMALL
from run_differences import values

from afqmc.run_dir import RunDir

ROOT = Path(__file__).parents[2]
NAME, NET, PORT = f"afq{os.getpid() % 10000}", "10.77.0", 29400
TIMEOUT_S, GRACE_S = 10, 90  # process group timeout; limit for the end of a run with a lost host


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def hosts(count):
    """Create network namespaces on one bridge, each with its own address and host name."""
    bridge = f"{NAME}b"
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for number in range(count):
            name, cable = f"{NAME}-{number}", f"{NAME}c{number}"
            ip("netns", "add", name)
            etc = Path("/etc/netns", name)  # ip netns exec mounts these files over /etc in the namespace
            etc.mkdir(parents=True)
            known = [f"{NET}.{other + 1} host-{other}" for other in range(count)]
            (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", cable, "master", bridge, "up")
            for words in (("addr", "add", f"{NET}.{number + 1}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                ip("-n", name, *words)
            ip("-n", name, "link", "set", "lo", "up")
            # torchrun queries its store without a timeout, so a disconnected host waits until its kernel stops
            # retransmitting: 15 minutes by default, 26 seconds with this setting
            ip("netns", "exec", name, "sysctl", "-q", "-w", "net.ipv4.tcp_retries2=6")
        yield
    finally:
        for number in range(count):
            subprocess.run(["ip", "netns", "del", f"{NAME}-{number}"], check=False)
            shutil.rmtree(Path("/etc/netns", f"{NAME}-{number}"), ignore_errors=True)
        subprocess.run(["ip", "link", "del", bridge], check=False)


def set_link(number, state):
    """Connect or disconnect a host."""
    ip("link", "set", f"{NAME}c{number}", state)


def start(count, directory, name, *overrides):
    """Start torchrun on each host; any of them can get rank 0."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0",
        "HF_HUB_OFFLINE": "1", "AFQMC_CACHE": str(directory / "cache"),
    }  # fmt: skip
    processes = []
    for number in range(count):
        rendezvous = (
            f"--nnodes={count}", "--nproc_per_node=1", f"--node_rank={number}", "--rdzv_backend=c10d",
            f"--rdzv_endpoint={NET}.1:{PORT}", f"--rdzv_id={name}", f"--local_addr={NET}.{number + 1}",
        )  # fmt: skip
        named = ("unshare", "--uts", "sh", "-c", f'hostname host-{number}; exec "$@"', "sh")
        command = (sys.executable, "-m", "torch.distributed.run", *rendezvous, "-m", "afqmc.run", *overrides)
        log = (directory / f"{name}-{number}.log").open("w")
        processes.append(
            subprocess.Popen(
                ["ip", "netns", "exec", f"{NAME}-{number}", *named, *command],
                env=environment,
                cwd=directory,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
    return processes


def wait(processes, within):
    """Wait until all have ended, and kill those that take longer; return the seconds taken, and the killed ones."""
    since = time.monotonic()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, within - (time.monotonic() - since)))
    late = [number for number, process in enumerate(processes) if process.poll() is None]
    for number in late:
        os.killpg(processes[number].pid, 9)
        processes[number].wait()
    return time.monotonic() - since, late


def logs(directory, name):
    """Return the output of all hosts."""
    return "".join(path.read_text() for path in sorted(directory.glob(f"{name}-*.log")))


def reach(run, steps, processes, text=""):
    """Wait until the run has logged a number of steps, and a text."""
    deadline = time.monotonic() + 120
    while not run.metrics.exists() or run.metrics.read_bytes().count(b"train/loss") < steps or (
        text and text not in (run.path / "run.log").read_text("utf-8")
    ):  # fmt: skip
        assert all(process.poll() is None for process in processes), "ended early"
        assert time.monotonic() < deadline, "the run did not progress"
        time.sleep(0.05)


def complete_run(count, directory):
    """Check that a complete run on all hosts has the losses of a run in one process."""
    one, several = RunDir(directory / "one"), RunDir(directory / "several")
    (single,) = start(1, directory, "one", *SMALL, f"hydra.run.dir={one.path}")
    seconds, late = wait([single], 120)
    assert not late, logs(directory, "one")
    seconds, late = wait(start(count, directory, "several", *SMALL, f"hydra.run.dir={several.path}"), 180)
    assert not late, logs(directory, "several")
    assert several.summary.exists(), logs(directory, "several")
    worst = max(abs(a - b) for a, b in zip(values(one, "train/loss"), values(several, "train/loss"), strict=True))
    print(f"{count} hosts: complete in {seconds:.0f} s; largest difference of a step's loss to one process {worst:.1e}")
    assert worst < 1e-6


def disconnected_run(count, directory):
    """Disconnect one host, and check that the run fails with a message that names it."""
    run = RunDir(directory / "disconnected")
    long = (
        "epochs=9999",
        "checkpoint.save_steps=10",
        f"distributed.process_group_timeout_s={TIMEOUT_S}",
        f"hydra.run.dir={run.path}",
    )
    processes = start(count, directory, "disconnected", *SMALL, *long)
    reach(run, 15, processes)
    set_link(count - 1, "down")
    since = time.monotonic()
    while run.read_status()["status"] == "running" and time.monotonic() - since < GRACE_S:
        time.sleep(0.1)
    reported = time.monotonic() - since
    seconds, late = wait(processes, GRACE_S)
    status = run.read_status()
    print(
        f"host-{count - 1} disconnected: reported after {reported:.0f} s, all ended after {reported + seconds:.0f} s;"
        f" {status['error']}"
    )
    assert not late, f"launchers that had to be killed: {late}"
    assert status["status"] == "failed", logs(directory, "disconnected")
    assert f"on host-{count - 1})" in status["error"], status["error"]
    set_link(count - 1, "up")
    return run


def resumed_run(count, directory, run):
    """Resume the run on all hosts, terminate one, and check that the run is interrupted."""
    processes = start(count, directory, "resumed", f"resume={run.path}")
    reach(run, 0, processes, "resumed at step")
    before = len(values(run, "train/loss"))
    reach(run, before + 5, processes)
    processes[-1].terminate()
    seconds, late = wait(processes, GRACE_S)
    steps = [row["step"] for row in map(json.loads, run.metrics.read_text().splitlines()) if "train/loss" in row]
    print(f"resumed on {count} hosts; one terminated: {run.read_status()['status']} after {seconds:.0f} s")
    assert not late, logs(directory, "resumed")
    assert run.read_status()["status"] == "interrupted", logs(directory, "resumed")
    assert steps == list(range(1, len(steps) + 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2)
    count = parser.parse_args().hosts
    with tempfile.TemporaryDirectory(prefix="afqmc-hosts-") as name, hosts(count):
        directory = Path(name)
        complete_run(count, directory)
        resumed_run(count, directory, disconnected_run(count, directory))
    print("all checks passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
