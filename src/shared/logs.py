"""One line per event, as text or JSON. Called by our own processes only: a library never configures the root logger.

A message that begins with `version %d: ` names the model version it is about; as JSON that is a field of its own, as is
everything in `extra={"data": {...}}`.
"""

from __future__ import annotations

import json
import logging
import math
import sys
import time
from typing import Any

from .configuration.config import LoggingConfig

VERSION = "version %d: "
"""How a message begins that names its model version, the first argument."""


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object in one line.

    `time` (seconds since 1970), `level`, `logger`, `version` if the message names one, `message`, the record's `data`,
    and `error`, a traceback, if there is one. A number that is not finite is null.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        event: dict[str, Any] = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        arguments = record.args if isinstance(record.args, tuple) else ()
        if isinstance(record.msg, str) and record.msg.startswith(VERSION) and arguments:
            event["version"] = arguments[0]
            event["message"] = record.getMessage().partition(": ")[2]
        else:
            event["message"] = record.getMessage()
        event.update(getattr(record, "data", {}))
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json.dumps({name: _strict(value) for name, value in event.items()}, ensure_ascii=False, default=str)


def _strict(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z info tandem.trainer_proc.trainer: message`; a traceback follows on lines of its own."""

    converter = time.gmtime  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(level)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record.level = record.levelname.lower()
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The message in one line: what a client sent must not look like a line of ours."""
        return super().formatMessage(record).replace("\r", "\\r").replace("\n", "\\n")


def configure_logging(config: LoggingConfig) -> None:
    """Send every record of at least the configured level to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
