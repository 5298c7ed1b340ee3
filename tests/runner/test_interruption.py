"""Ctrl-C and SIGTERM at any moment: the status is saved, and the exit code is right, without a traceback."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import PATIENCE_S, PYTHON, SMALL, environment
from wandb_server import WandbServer

from afqmc.utils.signals import defer_signals, handle_termination

ROOT = Path(__file__).parents[2]


class Started:
    """A run in a subprocess."""

    def __init__(self, tmp_path, *overrides, env=None):
        self.path = tmp_path / "run"
        usual = {key: value for key, value in environment().items() if not key.startswith("WANDB_")}
        self.process = subprocess.Popen(
            [PYTHON, "-m", "afqmc.run", *SMALL, f"hydra.run.dir={self.path}", *overrides],
            cwd=tmp_path,
            env={**usual, **(env or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, arrived, what="it"):
        deadline = time.monotonic() + PATIENCE_S
        while not arrived():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"{what} never came"
            time.sleep(0.05)
        return self

    def training(self):
        return self.wait_for((self.path / "metrics.jsonl").exists, "training")

    def ends(self, code, within=PATIENCE_S):
        """Check exit code and time, and return standard output and error."""
        since = time.monotonic()
        out, errors = self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == code, errors
        assert "Traceback" not in errors
        assert time.monotonic() - since < within
        return out, errors

    @property
    def status(self):
        return json.loads((self.path / "status.json").read_text("utf-8"))["status"]

    @property
    def has_summary(self):
        return (self.path / "summary.json").exists()


@pytest.fixture
def started(tmp_path):
    runs = []

    def start(*overrides, env=None):
        runs.append(Started(tmp_path, *overrides, env=env))
        return runs[-1]

    yield start
    for run in runs:
        if run.process.poll() is None:
            run.process.kill()
            run.process.communicate()


@pytest.fixture
def server():
    fake = WandbServer()
    yield fake
    fake.close()


@pytest.mark.parametrize(
    ("signum", "code", "outcome"),
    [
        (signal.SIGINT, 130, "interrupted"),
        (signal.SIGTERM, 143, "terminated"),
        (signal.SIGUSR1, 143, "terminated"),
    ],
)
def test_signal_during_training(started, signum, code, outcome):
    """A signal during training saves the run and prints how to resume it."""
    run = started("epochs=10000").training()
    run.process.send_signal(signum)
    out, errors = run.ends(code)
    assert errors.strip() == outcome
    assert out.splitlines()[-2:] == [
        f"run directory: {run.path}",
        f"to resume: python -m afqmc.run resume={run.path}",
    ]
    assert f"{outcome} at step " in (run.path / "run.log").read_text(encoding="utf-8")
    assert run.status == "interrupted"
    assert not run.has_summary


@pytest.fixture
def interrupts_itself(tmp_path):
    """Make the import of a module interrupt the process."""

    def shadow(module):
        directory = tmp_path / "first" / module
        directory.mkdir(parents=True)
        (directory / "__init__.py").write_text(
            "import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\n", "utf-8"
        )
        return {"PYTHONPATH": os.pathsep.join((str(directory.parent), str(ROOT)))}

    return shadow


def test_ctrl_c_during_hydra_import(started, interrupts_itself):
    """Ctrl-C during the import of hydra prints no traceback."""
    run = started(env=interrupts_itself("hydra"))
    assert run.ends(130)[1].strip() == "interrupted"
    assert not run.path.exists()


def test_ctrl_c_during_torch_import(started, interrupts_itself):
    """Ctrl-C during the import of torch leaves a run directory with the right status."""
    run = started(env=interrupts_itself("torch"))
    run.ends(130)
    assert run.status == "interrupted"
    assert (run.path / "config.yaml").exists()


@pytest.mark.slow
def test_ctrl_c_while_wandb_finishes(started, server):
    """Ctrl-C while W&B finishes leaves a completed run."""
    run = started("tracker=wandb", "trainer.max_steps=400", "trainer.eval_steps=400", env=server.environment())
    run.training().wait_for(lambda: server.variables("upsertBucket"), "W&B")
    server.silent.set()
    run.wait_for(lambda: run.has_summary and run.status == "completed", "the summary")
    run.process.send_signal(signal.SIGINT)
    out, _ = run.ends(130, within=60)
    assert run.status == "completed"
    assert f"run directory: {run.path}" in out


@pytest.mark.slow
def test_second_ctrl_c_with_silent_wandb(started, server):
    """A second Ctrl-C does not wait for W&B."""
    server.silent.set()
    run = started("tracker=wandb", "epochs=10000", env=server.environment()).training()
    run.process.send_signal(signal.SIGINT)
    run.wait_for(lambda: run.status == "interrupted", "the status")
    run.process.send_signal(signal.SIGINT)
    run.ends(130, within=4.5)  # it waits 5 s for W&B


@pytest.mark.slow
def test_ctrl_c_waits_for_wandb(started, server):
    """After Ctrl-C the run waits a few seconds for W&B, and prints a message about it."""
    run = started("tracker=wandb", "epochs=10000", env=server.environment()).training()
    run.wait_for(lambda: server.variables("upsertBucket"), "W&B")
    server.silent.set()
    run.process.send_signal(signal.SIGINT)
    out, _ = run.ends(130, within=60)
    assert "closing W&B, at most 5 s" in out
    assert run.status == "interrupted"


def printed_by(source):
    """Return what a script prints. Signals are sent to it, and not to the process of the tests.

    Some libraries that the tests load leave too small a stack for signals, and the process would crash.
    """
    imports = "import os, signal, time\nfrom afqmc.utils.signals import *\n"
    done = subprocess.run([PYTHON, "-c", imports + source], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_handlers_are_restored():
    """The previous signal handlers are restored."""
    assert printed_by("""
before = signal.getsignal(signal.SIGTERM)
try:
    with handle_termination():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
except Terminated:
    print("raised", signal.getsignal(signal.SIGTERM) is before)
""") == ["raised", "True"]


def test_defer_signals():
    """A signal is raised at the end of defer_signals."""
    assert printed_by("""
try:
    with handle_termination():
        with defer_signals():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            print("written")
        print("not_reached")
except KeyboardInterrupt:
    print("raised")
""") == ["written", "raised"]


def test_allow_signals():
    """A deferred signal is raised when allow_signals begins."""
    assert printed_by("""
try:
    with handle_termination(), defer_signals():
        os.kill(os.getpid(), signal.SIGUSR1)
        print("step")
        with defer_signals():
            print("within")
        with allow_signals():
            print("not_reached")
except Terminated:
    print("raised")
""") == ["step", "within", "raised"]


def test_second_ctrl_c_while_deferred(tmp_path):
    """A second Ctrl-C exits immediately, even while signals are deferred."""
    source = (
        "import os, signal, time\n"
        "from afqmc.utils.signals import defer_signals, handle_termination\n"
        "with handle_termination(), defer_signals():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('one', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('not reached', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "one\n")


def test_other_threads():
    """Outside the main thread no handler is set."""
    inside = []

    def work():
        with handle_termination(), defer_signals():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [signal.getsignal(signal.SIGTERM)]
