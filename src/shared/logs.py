"""One line per event, as text or JSON. Called by our own processes only: a library never configures the root logger."""

from __future__ import annotations

import json
import logging
import sys
import time

from .config import LoggingConfig


class JsonFormatter(logging.Formatter):
    """A log record as one JSON object: time (seconds since 1970), level, logger, message, and error if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        event = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["error"] = self.formatException(record.exc_info)
        return json.dumps(event, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00Z info tandem.trainer_proc.trainer: message`."""

    converter = time.gmtime  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__("%(asctime)sZ %(level)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record.level = record.levelname.lower()
        return super().format(record)


def configure_logging(config: LoggingConfig) -> None:
    """Send every record of at least the configured level to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if config.format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(config.level.upper())
