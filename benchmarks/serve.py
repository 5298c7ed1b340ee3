"""Load test of the service, on this machine only: speed, equality with predict, a kill under load, and memory.

    python -m benchmarks.serve RUN_DIR [--seconds 5] [--rounds 3] [--clients 1,8,64] [--requests 50000]

Each client sends one pair per request over a connection that stays open, and sends the next when it has the answer.

* Speed: requests/s and the 50th, 95th and 99th percentile of the time to an answer. ``batched`` is the service with its
  defaults, ``one by one`` has ``--max-batch 1 --max-delay-ms 0``. They take turns; ratios are computed within a round.
* Equality: the largest difference of a probability from ``Predictor.predict`` with all pairs at once.
* Kill: the service gets SIGKILL while 64 clients send. Each request must have its answer or fail visibly.
* Memory: resident set of the service after each tenth of ``--requests`` requests.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine

VARIANTS = {"batched": [], "one by one": ["--max-batch", "1", "--max-delay-ms", "0"]}
_PAIRS = 512
_PATIENCE_S = 120  # until a client counts as hanging
_KILL_AFTER_S = 2
_HEADER = (
    "\n| clients | service | requests/s | p50 ms | p95 ms | p99 ms | ratio to one by one |\n"
    "|---:|---|---:|---:|---:|---:|---:|"
)
_HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n"

SentencePair = tuple[str, str]


class ServiceProcess:
    """A service on a free port of the loopback interface."""

    def __init__(self, run_dir: Path, options: list[str]) -> None:
        command = [sys.executable, "-m", "afqmc.serve", str(run_dir), "--port", "0", "--queue", "4096", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def wait(self) -> None:
        """Wait until it answers."""
        assert self.process.stdout is not None
        match = re.search(r"http://[\d.]+:(\d+) ", self.process.stdout.readline())
        assert match is not None, "the service did not start"
        self.port = int(match[1])
        while not self._is_ready():
            time.sleep(0.05)

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready") as answer:
                return bool(answer.status == 200)
        except OSError:
            assert self.process.poll() is None, "the service has exited"
            return False

    def resident_mib(self) -> float:
        """Return the resident set of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def serving(run_dir: Path, options: list[str]) -> Iterator[ServiceProcess]:
    """Run a service."""
    service = ServiceProcess(run_dir, options)
    try:
        service.wait()
        yield service
    finally:
        service.process.kill()
        service.process.communicate()


class Client:
    """Sends requests one after another, and records seconds, probabilities and visible failures."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seconds: list[float] = []
        self.answers: list[tuple[int, float]] = []  # index of the pair, probability
        self.sent, self.failed = 0, 0

    async def run(self, pairs: list[SentencePair], indices: Iterator[int], until: float) -> None:
        """Send requests until a time of ``time.perf_counter``, or until one fails or there are no more indices."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            while time.perf_counter() < until and (index := next(indices, None)) is not None:
                body = json.dumps({"pairs": [pairs[index % len(pairs)]]}).encode()
                since = time.perf_counter()
                self.sent += 1
                writer.write(_HEAD.format(len(body)).encode() + body)
                answer = await asyncio.wait_for(self._read(reader), _PATIENCE_S)
                self.seconds.append(time.perf_counter() - since)
                self.answers.append((index % len(pairs), answer["predictions"][0]["probability"]))
        except (ConnectionError, asyncio.IncompleteReadError):
            self.failed += 1
        finally:
            writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Any:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"content-length: (\d+)", head, re.IGNORECASE)
        assert head.startswith("HTTP/1.1 200"), head
        assert length is not None
        return json.loads(await reader.readexactly(int(length[1])))


def run_clients(
    port: int, clients: int, pairs: list[SentencePair], seconds: float, requests: int = 10**9
) -> list[Client]:
    """Run clients concurrently, and return them with what they recorded."""

    async def run() -> list[Client]:
        all_clients = [Client(port) for _ in range(clients)]
        indices, until = iter(range(requests)), time.perf_counter() + seconds
        await asyncio.gather(*(client.run(pairs, indices, until) for client in all_clients))
        return all_clients

    return asyncio.run(run())


def speed(clients: list[Client], seconds: float) -> dict[str, float]:
    """Return requests/s and the percentiles in milliseconds."""
    times = [1000 * value for client in clients for value in client.seconds]
    cuts = statistics.quantiles(times, n=100)
    return {"rate": len(times) / seconds, "p50": statistics.median(times), "p95": cuts[94], "p99": cuts[98]}


def measure_speed(options: argparse.Namespace, pairs: list[SentencePair], expected: list[float]) -> float:
    """Print a table of both variants, and return the largest difference from ``expected``."""
    print(_HEADER)
    worst = 0.0
    for count in options.clients:
        rounds: list[dict[str, dict[str, float]]] = []
        for _ in range(options.rounds):
            row = {}
            for name, arguments in VARIANTS.items():
                with serving(options.run_dir, arguments) as service:
                    run_clients(service.port, count, pairs, options.seconds / 4)  # warm-up
                    clients = run_clients(service.port, count, pairs, options.seconds)
                row[name] = speed(clients, options.seconds)
                differences = (abs(value - expected[index]) for client in clients for index, value in client.answers)
                worst = max(worst, *differences)
            rounds.append(row)
        for name in VARIANTS:
            values = [statistics.median(row[name][key] for row in rounds) for key in ("rate", "p50", "p95", "p99")]
            ratios = [row[name]["rate"] / row["one by one"]["rate"] for row in rounds]
            cells = [f"{value:.1f}" for value in values]
            cells.append(f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})")
            print(f"| {count} | {name} | {' | '.join(cells)} |", flush=True)
    return worst


def measure_kill(options: argparse.Namespace, pairs: list[SentencePair]) -> str:
    """Kill the service under load, and return the number of answers and failures."""
    with serving(options.run_dir, []) as service:
        killer = threading.Timer(_KILL_AFTER_S, service.process.kill)
        killer.start()
        clients = run_clients(service.port, 64, pairs, 3600)
        killer.join()
    sent, answered = (sum(counts) for counts in zip(*((c.sent, len(c.answers)) for c in clients), strict=True))
    failed = sum(client.failed for client in clients)
    assert sent == answered + failed, "a request has neither an answer nor an error"
    return f"{sent} requests sent: {answered} answered, {failed} failed visibly, 0 without a result"


def measure_memory(options: argparse.Namespace, pairs: list[SentencePair]) -> list[float]:
    """Return the resident MiB after each tenth of the requests."""
    with serving(options.run_dir, []) as service:
        sizes = []
        for _ in range(10):
            run_clients(service.port, 64, pairs, 3600, options.requests // 10)
            sizes.append(service.resident_mib())
    return sizes


def main() -> None:
    """Run all parts, and print the results as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.partition("\n")[0])
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0, help="per measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=lambda text: [int(part) for part in text.split(",")], default=[1, 8, 64])
    parser.add_argument("--requests", type=int, default=50_000, help="of the memory test; 0 skips it")
    options = parser.parse_args()

    import afqmc
    from afqmc.data.sample import sample_files

    print(f"machine: {json.dumps(describe_machine())}")
    rows = map(json.loads, sample_files()["dev.json"].decode().splitlines())
    pairs = [(row["sentence1"], row["sentence2"]) for row in itertools.islice(rows, _PAIRS)]
    expected = [row["probability"] for row in afqmc.load(options.run_dir).predict(pairs)]
    worst = measure_speed(options, pairs, expected)
    print(f"\nlargest difference of a probability from predict: {worst:.2g}")
    assert worst <= 1e-5
    print(f"kill under load: {measure_kill(options, pairs)}")
    if options.requests:
        sizes = measure_memory(options, pairs)
        listed = ", ".join(f"{size:.0f}" for size in sizes)
        print(f"resident MiB after each tenth of {options.requests} requests: {listed}")


if __name__ == "__main__":
    main()
