"""One run over several hosts, which are network namespaces of this machine with addresses of their own; needs root.

    python tests/support/multinode.py [--hosts 2]

Three runs, each bounded in time: to its end, held to one process; with one host cut off in mid-run, which must end it
with that host named; and that one gone on with on all hosts, until one of them is terminated.
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
from unlikeness import values

from afqmc.run_dir import RunDir

ROOT = Path(__file__).parents[2]
NAME, NET, PORT = f"afq{os.getpid() % 10000}", "10.77.0", 29400
TIMEOUT_S, GRACE_S = 10, 90  # of the run; within which a host that is cut off must have ended it


def ip(*words):
    subprocess.run(["ip", *words], check=True)


@contextlib.contextmanager
def hosts(count):
    """Namespaces on one bridge, each with its address and name."""
    bridge = f"{NAME}b"
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for number in range(count):
            name, cable = f"{NAME}-{number}", f"{NAME}c{number}"
            ip("netns", "add", name)
            etc = Path("/etc/netns", name)  # what lies here stands in for /etc in that namespace
            etc.mkdir(parents=True)
            known = [f"{NET}.{other + 1} host-{other}" for other in range(count)]
            (etc / "hosts").write_text("\n".join(["127.0.0.1 localhost", *known, ""]))
            ip("link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", cable, "master", bridge, "up")
            for words in (("addr", "add", f"{NET}.{number + 1}/24", "dev", "eth0"), ("link", "set", "eth0", "up")):
                ip("-n", name, *words)
            ip("-n", name, "link", "set", "lo", "up")
            # torchrun asks its store without a time limit: a host that is cut off waits as long as its kernel tries to
            # send, a quarter of an hour by default, and so 26 seconds
            ip("netns", "exec", name, "sysctl", "-q", "-w", "net.ipv4.tcp_retries2=6")
        yield
    finally:
        for number in range(count):
            subprocess.run(["ip", "netns", "del", f"{NAME}-{number}"], check=False)
            shutil.rmtree(Path("/etc/netns", f"{NAME}-{number}"), ignore_errors=True)
        subprocess.run(["ip", "link", "del", bridge], check=False)


def cut_off(number, is_off):
    ip("link", "set", f"{NAME}c{number}", "down" if is_off else "up")


def start(count, place, name, *overrides):
    """torchrun on each host; rank 0 may be on any of them."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0",
        "HF_HUB_OFFLINE": "1", "AFQMC_CACHE": str(place / "cache"),
    }  # fmt: skip
    found = []
    for number in range(count):
        rendezvous = (
            f"--nnodes={count}", "--nproc_per_node=1", f"--node_rank={number}", "--rdzv_backend=c10d",
            f"--rdzv_endpoint={NET}.1:{PORT}", f"--rdzv_id={name}", f"--local_addr={NET}.{number + 1}",
        )  # fmt: skip
        named = ("unshare", "--uts", "sh", "-c", f'hostname host-{number}; exec "$@"', "sh")
        command = (sys.executable, "-m", "torch.distributed.run", *rendezvous, "-m", "afqmc.run", *overrides)
        log = (place / f"{name}-{number}.log").open("w")
        found.append(
            subprocess.Popen(
                ["ip", "netns", "exec", f"{NAME}-{number}", *named, *command],
                env=environment,
                cwd=place,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        )
    return found


def wait(processes, within):
    """Until all have ended; those that have not by then are killed, and how long it took is told."""
    since = time.monotonic()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, within - (time.monotonic() - since)))
    late = [number for number, process in enumerate(processes) if process.poll() is None]
    for number in late:
        os.killpg(processes[number].pid, 9)
        processes[number].wait()
    return time.monotonic() - since, late


def said(place, name):
    return "".join(path.read_text() for path in sorted(place.glob(f"{name}-*.log")))


def reach(run, steps, processes, text=""):
    deadline = time.monotonic() + 120
    while not run.metrics.exists() or run.metrics.read_bytes().count(b"train/loss") < steps or (
        text and text not in (run.path / "run.log").read_text("utf-8")
    ):  # fmt: skip
        assert all(process.poll() is None for process in processes), "ended early"
        assert time.monotonic() < deadline, "never came so far"
        time.sleep(0.05)


def whole_run(count, place):
    one, several = RunDir(place / "one"), RunDir(place / "several")
    (alone,) = start(1, place, "one", *SMALL, f"hydra.run.dir={one.path}")
    seconds, late = wait([alone], 120)
    assert not late, said(place, "one")
    seconds, late = wait(start(count, place, "several", *SMALL, f"hydra.run.dir={several.path}"), 180)
    assert not late, said(place, "several")
    assert several.summary.exists(), said(place, "several")
    worst = max(abs(a - b) for a, b in zip(values(one, "train/loss"), values(several, "train/loss"), strict=True))
    print(f"{count} hosts: complete in {seconds:.0f} s; largest difference of a step's loss to one process {worst:.1e}")
    assert worst < 1e-6


def cut_run(count, place):
    run = RunDir(place / "cut")
    long = (
        "epochs=9999",
        "checkpoint.save_steps=10",
        f"distributed.process_group_timeout_s={TIMEOUT_S}",
        f"hydra.run.dir={run.path}",
    )
    processes = start(count, place, "cut", *SMALL, *long)
    reach(run, 15, processes)
    cut_off(count - 1, True)
    since = time.monotonic()
    while run.read_status()["status"] == "running" and time.monotonic() - since < GRACE_S:
        time.sleep(0.1)
    told = time.monotonic() - since
    seconds, late = wait(processes, GRACE_S)
    status = run.read_status()
    print(
        f"host-{count - 1} cut off: told after {told:.0f} s, all ended after {told + seconds:.0f} s; {status['error']}"
    )
    assert not late, f"launchers that had to be killed: {late}"
    assert status["status"] == "failed", said(place, "cut")
    assert f"on host-{count - 1})" in status["error"], status["error"]
    cut_off(count - 1, False)
    return run


def gone_on(count, place, run):
    processes = start(count, place, "again", f"resume={run.path}")
    reach(run, 0, processes, "resumed at step")
    before = len(values(run, "train/loss"))
    reach(run, before + 5, processes)
    processes[-1].terminate()
    seconds, late = wait(processes, GRACE_S)
    steps = [row["step"] for row in map(json.loads, run.metrics.read_text().splitlines()) if "train/loss" in row]
    print(f"gone on with on {count} hosts; one terminated: {run.read_status()['status']} after {seconds:.0f} s")
    assert not late, said(place, "again")
    assert run.read_status()["status"] == "interrupted", said(place, "again")
    assert steps == list(range(1, len(steps) + 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=2)
    count = parser.parse_args().hosts
    with tempfile.TemporaryDirectory(prefix="afqmc-hosts-") as name, hosts(count):
        place = Path(name)
        whole_run(count, place)
        gone_on(count, place, cut_run(count, place))
    print("all well")
    return 0


if __name__ == "__main__":
    sys.exit(main())
