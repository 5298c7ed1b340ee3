"""Fixtures for all tests: no network, sample pairs, a small tokenizer, and importable modules for plug-ins."""

import atexit
import gc
import itertools
import logging
import os
import random
import shutil
import sys
import tempfile

import pytest
import warm_process

from afqmc.utils.process import configure_threads

_cache = tempfile.mkdtemp(prefix="afqmc-tests-")  # instead of the user's cache
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["AFQMC_CACHE"] = _cache
os.environ["AFQMC_LANG"] = "en"  # tests read messages, and the developer's locale may be Chinese
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test may reach the network
if "PYTEST_XDIST_WORKER" not in os.environ and hasattr(os, "pidfd_open"):
    os.environ["AFQMC_WARM_PYTHON"] = warm_process.start(_cache)  # workers inherit it


@pytest.fixture(autouse=True)
def _same_environment():
    """Remove the variables that a command sets in this process: with them, the warm process could not be used."""
    before = warm_process.read_during_import(os.environ)
    yield
    for name in warm_process.read_during_import(os.environ).keys() - before.keys():
        del os.environ[name]


def pytest_configure(config):
    """Divide the cores among the workers, as for the jobs of a sweep; workers inherit the setting."""
    configure_threads(getattr(config.option, "numprocesses", None) or 1)


def pytest_collection_finish():
    """Exclude the objects of imported libraries from garbage collection: each collection would visit millions."""
    gc.freeze()


_CHARACTERS = "花呗借呗怎么还款额度提前逾期利息开通关闭支付宝为什么不能用了"
_numbers = itertools.count()


@pytest.fixture(scope="session")
def pairs():
    """50 pairs of two classes, their sentences between 1 and 20 characters long."""
    from afqmc.data.loading import Pairs

    rng = random.Random(7)
    sentences = ["".join(rng.choices(_CHARACTERS, k=rng.randint(1, 20))) for _ in range(100)]
    return Pairs("pairs.jsonl", list(range(50)), sentences[:50], sentences[50:], [rng.randrange(2) for _ in range(50)])


@pytest.fixture(scope="session")
def tiny_tokenizer(pairs):
    """A WordPiece tokenizer trained on the pairs."""
    from afqmc.models.wordpiece import train_wordpiece

    return train_wordpiece([*pairs.sentence1, *pairs.sentence2] * 2, 100)


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """A complete small run that all tests and workers share. Tests only read it, or a copy of it."""
    from filelock import FileLock
    from helpers import train

    from afqmc.run_dir import RunDir

    own = tmp_path_factory.getbasetemp()
    path = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "small-run"
    with FileLock(f"{path}.lock"):
        if not RunDir(path).summary.exists():
            train(path, "checkpoint.save_steps=5")

    def files():
        return {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file() and file.name != ".lock"}

    before = files()
    yield RunDir(path)
    assert files() == before, "a test has changed the shared run"


@pytest.fixture(autouse=True)
def own_log_handlers():
    """Remove the log handlers that a command adds: they write to the output of a test that is over."""
    root = logging.getLogger()
    before = list(root.handlers)
    yield
    for handler in [one for one in root.handlers if one not in before]:
        if not type(handler).__module__.startswith("_pytest"):
            root.removeHandler(handler)
            handler.close()


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """Return a function that makes source code importable, and returns the module's name."""
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(source):
        name = f"plugged_in_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        names.append(name)
        return name

    yield write
    for name in names:
        sys.modules.pop(name, None)
