"""The journal of a search: a process that died with its lock or half a record in it stops no later search."""

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

ROOT = str(Path(__file__).parents[1])

# Takes the lock of the journal as an appending process does, says so, and waits to be killed.
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
def test_a_process_killed_with_the_lock_blocks_nobody(tmp_path, kind):
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


def test_a_living_process_keeps_others_from_the_journal(tmp_path):
    holder = python(HOLDER, tmp_path, tmp_path)
    assert holder.stdout.readline() == "held\n"
    path = tmp_path / ".journal.lock"
    with path.open("r+") as file, pytest.raises(BlockingIOError):
        lock(file.fileno(), path)
    holder.communicate("", timeout=PATIENCE_S)
    open_study(StudyConfig(), tmp_path, ["dev/f1"]).ask()


def filled(directory, trials=2):
    """A journal of so many finished trials; its path."""
    directory.mkdir(exist_ok=True)
    study = open_study(StudyConfig(), directory, ["dev/f1"])
    for number in range(trials):
        study.tell(study.ask(), number / 10)
    return directory / "journal.log"


def test_a_journal_cut_at_any_byte_of_its_last_record_is_resumed_without_it(tmp_path):
    journal = filled(tmp_path)
    content = journal.read_bytes()
    start = content.rindex(b"\n", 0, len(content) - 1) + 1
    for end in range(start, len(content)):
        journal.write_bytes(content[:end])
        study = open_study(StudyConfig(), tmp_path, ["dev/f1"])
        assert len(study.trials) == 2
        study.ask()
        assert len(open_study(StudyConfig(), tmp_path, ["dev/f1"]).trials) == 3
        assert all(json.loads(line) for line in journal.read_bytes().splitlines())


@pytest.mark.parametrize("torn", [b'{"op_code":4,"worker_id":"x', b"\0" * 700, b'{"op_code"\0\0\0\n'])
def test_a_torn_record_is_dropped_while_another_process_has_the_journal_open(tmp_path, torn, caplog):
    study = open_study(StudyConfig(), tmp_path, ["dev/f1"])
    with (tmp_path / "journal.log").open("ab") as file:
        file.write(torn)
    study.tell(study.ask(), 0.5)
    assert [one.value for one in open_study(StudyConfig(), tmp_path, ["dev/f1"]).trials] == [0.5]
    assert "journal.log:2: the last record is incomplete and was dropped" in caplog.text


@pytest.mark.parametrize("size", [0, 1])
def test_an_emptied_journal_starts_the_study_again(tmp_path, size):
    journal = filled(tmp_path)
    journal.write_bytes(journal.read_bytes()[:size])
    assert open_study(StudyConfig(), tmp_path, ["dev/f1"]).trials == []


@pytest.mark.parametrize("record", [b'{"op_code":4,"wor', b"[]", b"5", b"{}", b'{"op_code":99}', b"", b"\xff\xfe"])
def test_a_damaged_record_before_the_last_is_refused_by_file_and_line(tmp_path, record):
    journal = filled(tmp_path)
    lines = journal.read_bytes().splitlines()
    lines[3] = record
    journal.write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(InputError, match=r"journal\.log:4: .*another sweep\.name"):
        open_study(StudyConfig(), tmp_path, ["dev/f1"])
    assert len(journal.read_bytes().splitlines()) == len(lines)


def test_a_journal_that_is_a_fifo_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "journal.log")
    with pytest.raises(InputError, match="not a regular file"):
        StudyConfig().open_storage(tmp_path)
