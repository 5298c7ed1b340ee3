"""What several tests share: no hub, pairs, a tokenizer learnt from them, and modules to plug in."""

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

_cache = tempfile.mkdtemp(prefix="afqmc-tests-")  # no test reads or fills the person's own
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ["AFQMC_CACHE"] = _cache
os.environ["AFQMC_LANG"] = "en"  # tests read messages, and the developer's locale may be Chinese
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test may reach the network

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
    """A WordPiece tokenizer learnt from the pairs."""
    from afqmc.models.wordpiece import train_wordpiece

    return train_wordpiece([*pairs.sentence1, *pairs.sentence2] * 2, 100)


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
def little_garbage():
    """For what collects garbage in each call, as statsmodels does: what the session holds is not looked at again."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def plug(tmp_path, monkeypatch):
    """Make a module of some source importable; returns its name."""
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
