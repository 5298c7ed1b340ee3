"""Read an offline ``.wandb`` file back: W&B's records in LevelDB's log format."""

import json
import time
from pathlib import Path

from google.protobuf.message import DecodeError
from wandb.proto.wandb_internal_pb2 import Record

_BLOCK, _HEADER = 32768, 7
_FULL, _FIRST, _LAST = 1, 2, 4


def records(path: Path):
    """Every record of the file, in order."""
    data, place, parts = path.read_bytes(), _HEADER, []
    assert data[:4] == b":W&B"
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:  # the rest of a block is padding
            place += _BLOCK - place % _BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        body = data[place + _HEADER : place + _HEADER + length]
        place += _HEADER + length
        parts = [body] if kind in (_FULL, _FIRST) else [*parts, body]
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(b"".join(parts))
            yield record


def finished(path: Path):
    """All records, once the last is there: W&B's process writes on for a moment after it has said that it is done."""
    deadline = time.monotonic() + 120  # a run that was killed never gets a last one
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
    """What an offline run holds."""

    def __init__(self, run_dir: Path) -> None:
        (file,) = (run_dir / "wandb").glob("offline-run-*/run-*.wandb")
        self.records = finished(file)
        self.run, *later = [record.run for record in self.records if record.HasField("run")]
        self.tags = list((later or [self.run])[-1].tags)
        self.config = {item.key: json.loads(item.value_json) for item in self.run.config.update}

    def history(self):
        """The logged rows."""
        return [_items(record.history.item) for record in self.records if record.HasField("history")]

    def summary(self):
        """The last value of each summary key."""
        found = {}
        for record in self.records:
            if record.HasField("summary"):
                found |= _items(record.summary.update)
        return found

    def artifacts(self):
        """The logged artifacts, tables among them."""
        requests = [record.request for record in self.records if record.HasField("request")]
        asked = [request.log_artifact.artifact for request in requests if request.HasField("log_artifact")]
        return asked + [record.artifact for record in self.records if record.HasField("artifact")]

    def exit_code(self):
        """What finish() said, None when it never did."""
        codes = [record.exit.exit_code for record in self.records if record.HasField("exit")]
        return codes[-1] if codes else None


def _items(items):
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
