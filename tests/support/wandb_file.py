"""Read an offline ``.wandb`` file back: W&B's records in LevelDB's log format."""

import json
import time
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def records(path: Path):
    """Yield the records of the file, in order."""
    data, position, parts = path.read_bytes(), _HEADER, []
    assert data[:4] == b":W&B"
    while position + _HEADER <= len(data):
        if _BLOCK - position % _BLOCK < _HEADER:  # the rest of a block is padding
            position += _BLOCK - position % _BLOCK
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        body = data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        parts = [body] if kind in (_FULL, _FIRST) else [*parts, body]
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            yield record


def finished(path: Path):
    """Return all records once the last one is written, which happens shortly after wandb reports the end."""
    deadline = time.monotonic() + 120  # a killed run never writes the last record
    while True:
        try:
            found = list(records(path))
            if any(record.HasField("exit") for record in found) or time.monotonic() > deadline:
                return found
        except (AssertionError, DecodeError):
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


class Offline:
    """The contents of an offline run."""

    def __init__(self, run_dir: Path) -> None:
        (file,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
        self.records = finished(file)
        self.run, *later = [record.run for record in self.records if record.HasField("run")]
        self.tags = list((later or [self.run])[-1].tags)
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}

    def history(self):
        """Return the logged rows."""
        return [_items(record.history.item) for record in self.records if record.HasField("history")]

    def summary(self):
        """Return the last value of each summary key."""
        found = {}
        for record in self.records:
            if record.HasField("summary"):
                found |= _items(record.summary.update)
        return found

    def artifacts(self):
        """Return the logged artifacts, including tables."""
        requests = [record.request for record in self.records if record.HasField("request")]
        logged = [request.log_artifact.artifact for request in requests if request.HasField("log_artifact")]
        return logged + [record.artifact for record in self.records if record.HasField("artifact")]

    def exit_code(self):
        """Return the exit code that finish() recorded, or None."""
        codes = [record.exit.exit_code for record in self.records if record.HasField("exit")]
        return codes[-1] if codes else None


def _items(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
