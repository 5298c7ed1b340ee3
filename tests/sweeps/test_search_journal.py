"""The journal of a search: locks and damaged records after a process was killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PATIENCE_S

from afqmc.sweeps.study import StudyConfig, open_study
from afqmc.utils.errors import InputError
from afqmc.utils.file_lock import lock

ROOT = str(Path(__file__).parents[2])

# Takes the lock of the journal, prints a line, and waits to be killed.
HOLDER = """
import sys
from pathlib import Path
from afqmc.sweeps.study import StudyConfig
storage = StudyConfig().open_storage(Path(sys.argv[1]))
storage._backend._lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""
OPENER = """
import sys
from pathlib import Path
from afqmc.sweeps.study import StudyConfig, open_study
open_study(StudyConfig(), Path(sys.argv[1]), ["dev/f1"]).ask()
print("asked")
"""


def python(code, directory, cwd):
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory)],
        cwd=cwd, env={"PYTHONPATH": ROOT}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["relative", "absolute", "moved"])
def test_lock_ends_with_killed_process(tmp_path, kind):
    """The lock of a killed process does not block others, even if the directory was moved."""
    directory = tmp_path / "outputs/sweeps/s"
    directory.mkdir(parents=True)
    holder = python(HOLDER, directory if kind == "absolute" else "outputs/sweeps/s", tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.kill()
    holder.communicate(timeout=PATIENCE_S)
    if kind == "moved":
        (tmp_path / "outputs").rename(tmp_path / "elsewhere")
        directory = tmp_path / "elsewhere/sweeps/s"
    opener = python(OPENER, directory if kind == "absolute" else directory.relative_to(tmp_path), tmp_path)
    try:
        assert opener.communicate(timeout=PATIENCE_S)[0] == "asked\n"
    finally:
        opener.kill()


def test_lock_excludes_other_processes(tmp_path):
    """While a process holds the lock, others cannot take it."""
    holder = python(HOLDER, tmp_path, tmp_path)
    assert holder.stdout.readline() == "held\n"
    path = tmp_path / ".journal.lock"
    with path.open("r+") as file, pytest.raises(BlockingIOError):
        lock(file.fileno(), path)
    holder.communicate("", timeout=PATIENCE_S)
    open_study(StudyConfig(), tmp_path, ["dev/f1"]).ask()


def write_journal(directory, trials=2):
    """Create a journal of finished trials and return its path."""
    directory.mkdir(exist_ok=True)
    study = open_study(StudyConfig(), directory, ["dev/f1"])
    for number in range(trials):
        study.tell(study.ask(), number / 10)
    return directory / "journal.log"


def test_incomplete_last_record_is_dropped(tmp_path):
    """A journal truncated at any byte of its last record is resumed without it."""
    journal = write_journal(tmp_path)
    content = journal.read_bytes()
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    for end in range(start, len(content)):
        journal.write_bytes(content[:end])
        study = open_study(StudyConfig(), tmp_path, ["dev/f1"])
        assert len(study.trials) == 2
        study.ask()
        assert len(open_study(StudyConfig(), tmp_path, ["dev/f1"]).trials) == 3
        assert all(json.loads(line) for line in journal.read_bytes().splitlines())


@pytest.mark.parametrize("incomplete", [b'{"op_code":4,"worker_id":"x', b"\0" * 700, b'{"op_code"\0\0\0\n'])
def test_incomplete_record_is_dropped_while_open(tmp_path, incomplete, caplog):
    """An incomplete record is dropped even if another process has the journal open."""
    study = open_study(StudyConfig(), tmp_path, ["dev/f1"])
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(incomplete)
    study.tell(study.ask(), 0.5)
    assert [one.value for one in open_study(StudyConfig(), tmp_path, ["dev/f1"]).trials] == [0.5]
    assert "journal.log:2: the last record is incomplete and was dropped" in caplog.text


@pytest.mark.parametrize("size", [0, 1])
def test_empty_journal_starts_new_study(tmp_path, size):
    """A journal without a complete record starts a new study."""
    journal = write_journal(tmp_path)
    journal.write_bytes(journal.read_bytes()[:size])
    assert open_study(StudyConfig(), tmp_path, ["dev/f1"]).trials == []


@pytest.mark.parametrize("record", [b'{"op_code":4,"wor', b"[]", b"5", b"{}", b'{"op_code":99}', b"", b"\xff\xfe"])
def test_damaged_record_is_refused(tmp_path, record):
    """A damaged record before the last is refused; the error names file and line."""
    journal = write_journal(tmp_path)
    lines = journal.read_bytes().splitlines()
    lines[3] = record
    journal.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=r"journal\.log:4: .*another sweep\.name"):
        open_study(StudyConfig(), tmp_path, ["dev/f1"])
    assert len(journal.read_bytes().splitlines()) == len(lines)


def test_fifo_as_journal_is_refused(tmp_path):
    """A FIFO as the journal is refused without waiting for it."""
    os.mkfifo(tmp_path / "journal.log")
    with pytest.raises(InputError, match="not a regular file"):
        StudyConfig().open_storage(tmp_path)
