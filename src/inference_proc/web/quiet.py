"""What libraries log about what clients send, at a limited rate: nobody outside can fill the log."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict

_INTERVAL = 10.0
_TEXTS = 256
_LOGGERS = ("uvicorn.error", "uvicorn.asgi", "asyncio", "websockets.server")


class Quiet(logging.Filter):
    """Lets one record of each text through per ten seconds, whatever its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: OrderedDict[str, float] = OrderedDict()

    def filter(self, record: logging.LogRecord) -> bool:
        """True if the record is to be logged."""
        text, now = str(record.msg), time.monotonic()
        if now - self._seen.get(text, -_INTERVAL) < _INTERVAL:
            return False
        self._seen[text] = now
        self._seen.move_to_end(text)
        if len(self._seen) > _TEXTS:
            self._seen.popitem(last=False)
        return True


def quiet_libraries() -> None:
    """Limit the loggers of the libraries that serve the network. Idempotent."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, Quiet) for known in logger.filters):
            logger.addFilter(Quiet())
