"""Structured logs: one JSON object per line on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

log = logging.getLogger(__name__)


class JsonFormatter(logging.Formatter):
    """Formats a record as JSON: time (UTC), level, process, and the fields of ``log_event`` or the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields = getattr(record, "event_fields", None) or {"event": "message", "message": record.getMessage()}
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        row = {"time": f"{moment}.{int(record.msecs):03}Z", "level": record.levelname.lower(), "pid": record.process}
        if record.exc_info:
            fields = {**fields, "traceback": self.formatException(record.exc_info)}
        return json.dumps({**row, **fields}, ensure_ascii=True)


def configure_json_log() -> None:
    """Write all log records of this process to standard error as JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


def log_event(event: str, level: int = logging.INFO, exc_info: Any = None, **fields: Any) -> None:
    """Log an event with its fields."""
    log.log(level, event, extra={"event_fields": {"event": event, **fields}}, exc_info=exc_info)
