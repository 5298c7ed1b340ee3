"""Unusual environments: closed or full streams, locales without Chinese, unusual paths, a clock that is set back."""

import codecs
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import PATIENCE_S, SMALL
from terminal import on_terminal

from afqmc.run_dir import RunDir
from afqmc.utils.environment import git_state
from afqmc.utils.files import write_bytes

ROOT = Path(__file__).parents[2]
ODD = 'it\'s a "place", x=1 [2] {3} (中文) & $HOME #%s ~'
ROWS = [
    {"句子一": f"花呗怎么还款{index}", "句子二": f"借呗如何还钱{index}", "标签": ["不同", "相同"][index % 2]}
    for index in range(32)
]
CHINESE = (
    "dataset=files", "dataset.path=数据", "dataset.train_file=训练.jsonl", "dataset.dev_file=训练.jsonl",
    "dataset.sentence1_field=句子一", "dataset.sentence2_field=句子二", "dataset.label_field=标签",
    "dataset.labels=[不同,相同]", "dataset.max_length=64", "epochs=1",
)  # fmt: skip
NO_CHINESE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def shell(line, cwd, env=None):
    """Run a line of bash in which ``afqmc.`` stands for ``python -m afqmc.``; output is bytes."""
    line = re.sub(r"\bafqmc\.(?=run|evaluate|predict|doctor)", f"{shlex.quote(sys.executable)} -m afqmc.", line)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "LC_", "LANG"))}
    return subprocess.run(
        ["bash", "-c", line],
        cwd=cwd,
        env={**inherited, "LC_ALL": "C.UTF-8", "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )


def small_run(*more):
    return shlex.join(["afqmc.run", *SMALL, "epochs=1", "hydra.run.dir=run", *more])


def check_complete(run_dir):
    """Check that the run is complete, its log included; return the RunDir."""
    run = RunDir(run_dir)
    assert json.loads((run.path / "status.json").read_text(encoding="utf-8"))["status"] == "completed"
    assert run.summary.exists()
    last = (run.path / "run.log").read_text(encoding="utf-8").splitlines()[-1]
    assert "run directory: " in last
    return run


# standard output and error


@pytest.mark.parametrize(
    ("line", "code", "errors"),
    [
        ("afqmc.run --help | head -1; exit ${PIPESTATUS[0]}", 0, ""),
        ("afqmc.run --help >&-", 0, ""),
        ("afqmc.run --help <&- >&- 2>&-", 0, ""),
        ("afqmc.run --help > /dev/full", 1, "standard output: No space left on device; the output from there"),
        ("afqmc.run --help > /dev/full 2>&1", 1, ""),
        ("afqmc.run lr=-1 2>&-", 2, ""),
        ("afqmc.run lr=-1 2> /dev/full", 2, ""),
    ],
)
def test_closed_or_full_streams(line, code, errors, tmp_path):
    """A closed or full output stream raises no traceback."""
    finished = shell(line, tmp_path)
    assert finished.returncode == code
    assert finished.stderr.decode().startswith(errors)
    assert len(finished.stderr.splitlines()) == bool(errors)


def test_reader_closes_pipe(tmp_path):
    """A training whose output is no longer read continues to its end."""
    finished = shell(f"{small_run()} | head -1; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert (finished.returncode, finished.stderr) == (0, b"")
    assert len(finished.stdout.splitlines()) == 1
    check_complete(tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("streams", "code"),
    [
        (">&-", 0),
        ("2>&-", 0),
        ("<&- >&- 2>&-", 0),
        ("2> /dev/full", 0),
        ("> /dev/full", 1),
        ("> /dev/full 2>&1", 1),
        ("2>&1 | head -1; exit ${PIPESTATUS[0]}", 0),
    ],
)
def test_training_survives_closed_streams(streams, code, tmp_path):
    """A training completes whatever happens to its streams; the exit code reports lost output."""
    finished = shell(f"{small_run()} {streams}", tmp_path)
    assert finished.returncode == code, finished.stderr
    assert b"Traceback" not in finished.stderr
    assert b"Logging error" not in finished.stderr
    check_complete(tmp_path / "run")
    assert (
        b"step 1/12" not in (tmp_path / "run/config.yaml").read_bytes()
    )  # a file must not get the file descriptor of standard output


@pytest.mark.slow
def test_unprinted_figures_are_a_failure(tmp_path):
    assert shell(small_run(), tmp_path).returncode == 0
    for full in ("afqmc.evaluate run --json > /dev/full", "afqmc.doctor experiment=quickstart > /dev/full"):
        finished = shell(full, tmp_path)
        assert finished.returncode == 1
        assert finished.stderr.decode().startswith("standard output: No space left on device")


def test_write_bytes_to_device_and_link(tmp_path):
    """A device is written into, and a link stays a link."""
    ours, theirs = os.pipe()
    write_bytes(Path(f"/dev/fd/{theirs}"), b"whole")
    assert os.read(ours, 100) == b"whole"
    os.close(ours)
    os.close(theirs)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_bytes(tmp_path / "link", b"whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"whole"


# locale


def test_chinese_arguments_in_c_locale(tmp_path):
    shown = shell("afqmc.run --cfg job dataset.path=数据 dataset.labels=[不同,相同]", tmp_path, NO_CHINESE)
    assert shown.returncode == 0, shown.stderr
    assert "path: 数据\n" in shown.stdout.decode("utf-8")
    refused = shell("afqmc.run lrr=数据", tmp_path, {**NO_CHINESE, "PYTHONIOENCODING": "ascii"})
    assert refused.stderr == b"lrr: no such key; did you mean 'lr'?\n"


@pytest.fixture
def chinese(tmp_path):
    """A directory with a Chinese dataset."""
    (tmp_path / "数据").mkdir()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "数据/训练.jsonl").write_text(text, encoding="utf-8")
    return tmp_path


def check_chinese(chinese, env):
    """Train, evaluate and predict with Chinese names everywhere; return the output of run and evaluate."""
    trained = shell(
        shlex.join(["afqmc.run", *SMALL, *CHINESE, "dataset.test_file=null", "hydra.run.dir=跑"]), chinese, env
    )
    assert trained.returncode == 0, trained.stderr
    assert b"Logging error" not in trained.stderr
    log = check_complete(chinese / "跑").path / "run.log"
    assert "'不同'" in log.read_text(encoding="utf-8")
    evaluated = shell("afqmc.evaluate 跑 --json", chinese, env)
    assert evaluated.returncode == 0, evaluated.stderr
    assert shell("afqmc.predict 跑 数据/训练.jsonl -o 预测.jsonl", chinese, env).returncode == 0
    rows = [json.loads(row) for row in (chinese / "预测.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["prediction"] for row in rows} <= {"不同", "相同"}
    return trained.stdout, evaluated.stdout


@pytest.mark.slow
def test_chinese_run_in_c_locale(chinese):
    printed, figures = check_chinese(chinese, NO_CHINESE)
    assert f"run directory: {chinese}/跑\n" in printed.decode("utf-8")
    assert json.loads(figures.decode("utf-8"))["file"].endswith("数据/训练.jsonl")


@pytest.mark.slow
def test_ascii_streams_escape_chinese(chinese):
    printed, figures = check_chinese(chinese, {**NO_CHINESE, "PYTHONIOENCODING": "ascii"})
    assert f"run directory: {chinese}/\\u8dd1\n" in printed.decode("ascii")
    assert json.loads(figures.decode("ascii"))["file"].endswith("数据/训练.jsonl")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("localedef"), reason="no localedef here, which makes locales")
@pytest.mark.parametrize(
    ("source", "charset", "name", "encoding"),
    [("en_US", "ISO-8859-1", "en_US.iso88591", "utf-8"), ("zh_CN", "GB18030", "zh_CN.gb18030", "gb18030")],
)
def test_older_locales(source, charset, name, encoding, tmp_path):
    """A locale with Chinese is also used for the terminal; without Chinese, UTF-8 is assumed."""
    subprocess.run(["localedef", "-i", source, "-f", charset, tmp_path / name], capture_output=True, check=False)
    if not (tmp_path / name / "LC_CTYPE").exists():
        pytest.skip(f"localedef cannot make {name} here")
    settings = {"LC_ALL": f"{source}.{charset}", "LOCPATH": str(tmp_path)}
    python = [sys.executable, "-c", "import sys; print(sys.getfilesystemencoding())"]
    python_encoding = subprocess.run(python, env=settings, capture_output=True, text=True, check=True).stdout.strip()
    assert codecs.lookup(python_encoding) == codecs.lookup(charset)
    line = os.fsdecode("afqmc.run --cfg job tracker.name=数据".encode(encoding))
    shown = shell(line, tmp_path, settings)
    assert shown.returncode == 0, shown.stderr
    assert "name: 数据\n" in shown.stdout.decode(encoding)


# paths


@pytest.mark.slow
def test_unusual_paths(tmp_path):
    home = tmp_path / ODD
    home.mkdir()
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (home / f"{ODD}.jsonl").write_text(text, encoding="utf-8")

    def typed(path):
        return str(path).replace(",", "\\,")

    where = [
        f"dataset.path={typed(home)}", f"dataset.train_file={typed(ODD)}.jsonl", f"dataset.dev_file={typed(ODD)}.jsonl",
        f"dataset.cache_dir={typed(home)}/cache", f"hydra.run.dir={typed(home)}/run", "dataset.test_file=null",
    ]  # fmt: skip
    names = [text for text in CHINESE if not text.startswith(("dataset.path", "dataset.train", "dataset.dev"))]
    trained = shell(shlex.join(["afqmc.run", *SMALL, *names, *where]), tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert trained.stdout.decode().splitlines()[-1] == f"run directory: {home}/run"
    check_complete(home / "run")
    assert list((home / "cache/tokens").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == [ODD]
    assert sorted(path.name for path in home.iterdir()) == ["cache", f"{ODD}.jsonl", "run"]

    scored = shell(shlex.join(["afqmc.evaluate", f"{home}/run", "--json"]), tmp_path)
    assert json.loads(scored.stdout)["file"] == f"{home}/{ODD}.jsonl", scored.stderr
    arguments = ["afqmc.predict", f"{home}/run", f"{home}/{ODD}.jsonl", "-o", f"{home}/{ODD}.out.jsonl"]
    predicted = shell(shlex.join(arguments), tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert len((home / f"{ODD}.out.jsonl").read_bytes().splitlines()) == len(ROWS)


@pytest.fixture
def no_utf8(tmp_path):
    """A directory whose name is encoded in GB18030."""
    home = Path(os.fsdecode(os.fsencode(tmp_path) + "/数据".encode("gb18030")))
    home.mkdir()
    return home


@pytest.mark.slow
def test_files_with_names_not_in_utf8(no_utf8, chinese):
    check_chinese(chinese, {})
    shutil.copy(chinese / "数据/训练.jsonl", no_utf8 / "x.jsonl")
    scored = shell(shlex.join(["afqmc.evaluate", "跑", "--data", f"{no_utf8}/x.jsonl", "--json"]), chinese)
    assert json.loads(scored.stdout)["file"] == str(no_utf8 / "x.jsonl"), scored.stderr
    arguments = ["afqmc.predict", "跑", f"{no_utf8}/x.jsonl", "-o", f"{no_utf8}/out"]
    assert shell(shlex.join(arguments), chinese).returncode == 0
    assert len((no_utf8 / "out").read_bytes().splitlines()) == len(ROWS)


@pytest.mark.parametrize("key", ["hydra.run.dir", "dataset.path"])
def test_settings_must_be_utf8(key, no_utf8, tmp_path):
    """Libraries that save tokenizers and read YAML accept only UTF-8, so other paths are refused before training."""
    refused = shell(shlex.join(["afqmc.run", *SMALL, f"{key}={no_utf8}/run"]), tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"{key}=".encode())
    assert b"not valid UTF-8" in refused.stderr
    assert not list(no_utf8.iterdir())


@pytest.mark.parametrize("where", ["run", "absolute"])
def test_working_directory_must_be_utf8(where, no_utf8, tmp_path):
    run = "run" if where == "run" else f"{tmp_path}/run"
    refused = shell(shlex.join(["afqmc.run", *SMALL, f"hydra.run.dir={run}"]), no_utf8)
    assert refused.returncode == 2
    assert b"is not valid UTF-8" in refused.stderr
    assert not list(no_utf8.iterdir())


@pytest.mark.parametrize(
    "override", [f"dataset.train_file={'x' * 300}", f"dataset.path={'x' * 300}", "dataset.path=~nobody_of_this_name/x"]
)
def test_impossible_file_names(override, tmp_path):
    from afqmc.config import compose
    from afqmc.data.loading import load_dataset
    from afqmc.utils.errors import InputError

    with pytest.raises(InputError, match=rf"^{override[:40]}"):
        load_dataset(compose(["dataset=files", "dataset.train_file=a", "dataset.dev_file=a", override]).dataset)


# the clock

BACK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
/* An hour, as soon as a certain file exists. */
static time_t back(void) { return access(getenv("CLOCK_BACK_WHEN"), F_OK) == 0 ? 3600 : 0; }
int clock_gettime(clockid_t id, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec -= back();
    return failed;
}
int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int (*real)(struct timeval *, void *) = dlsym(RTLD_NEXT, "gettimeofday");
    int failed = real(now, zone);
    if (!failed) now->tv_sec -= back();
    return failed;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def clock_back(tmp_path):
    """A library for LD_PRELOAD that sets the clock of a process back by an hour once a file exists."""
    if not sys.platform.startswith("linux") or not shutil.which("cc"):
        pytest.skip("needs Linux and a C compiler")
    (tmp_path / "back.c").write_text(BACK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "back.so", "back.c", "-ldl"], cwd=tmp_path, check=True)
    return tmp_path / "back.so"


@pytest.mark.slow
def test_clock_set_back(clock_back, tmp_path):
    """A clock that is set back changes no figure and does not stop the progress bar."""
    run = tmp_path / "run"
    env = {"LD_PRELOAD": str(clock_back), "CLOCK_BACK_WHEN": str(run / "metrics.jsonl")}
    since = time.monotonic()
    code, screen = on_terminal("run", *SMALL, "epochs=20", f"hydra.run.dir={run}", cwd=tmp_path, env=env)
    elapsed = time.monotonic() - since
    assert code == 0, screen
    check_complete(run)
    stamps = [line[:23] for line in (run / "run.log").read_text("utf-8").splitlines() if re.match(r"\d{4}-", line)]
    assert stamps[-1] < stamps[0], "the clock was not set back"
    figures = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert 0 < figures["train_seconds"] < figures["total_seconds"] < elapsed
    rows = [json.loads(row) for row in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert all(row["train/pairs_per_second"] > 0 for row in rows if "train/loss" in row)
    drawn = re.findall(r"(\d+)/240 \[(-?[\d:]+)<", screen)
    assert len({step for step, _ in drawn}) > 5
    assert not any(shown.startswith("-") for _, shown in drawn)


def test_git_environment_runs_no_program(tmp_path, monkeypatch):
    program = tmp_path / "program.sh"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/canary\n")
    program.chmod(0o755)
    before = git_state()
    assert (before is not None) == (Path(__file__).parents[2] / ".git").exists()
    for name, value in {"COUNT": "1", "KEY_0": "core.fsmonitor", "VALUE_0": str(program)}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    monkeypatch.setenv("GIT_DIR", str(tmp_path))
    assert git_state() == before
    assert not (tmp_path / "canary").exists()
