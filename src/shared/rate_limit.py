"""Warnings at a limited rate: the hot path must not fill the disk when something fails at every decision."""

from __future__ import annotations

import logging
import time


class RateLimit:
    """Lets one message of each text through per `interval` seconds and says how many were held back."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._seen: dict[str, tuple[float, int]] = {}

    def _due(self, message: str) -> int | None:
        now = time.monotonic()
        last, held_back = self._seen.get(message, (-self._interval, 0))
        if now - last < self._interval:
            self._seen[message] = (last, held_back + 1)
            return None
        self._seen[message] = (now, 0)
        return held_back

    def warning(self, log: logging.Logger, message: str, *arguments: object) -> None:
        """`log.warning`, at most once per interval for this text."""
        held_back = self._due(message)
        if held_back is not None:
            log.warning(message + (f" ({held_back} more like this)" if held_back else ""), *arguments)

    def exception(self, log: logging.Logger, message: str, *arguments: object) -> None:
        """`log.exception`, at most once per interval for this text and these arguments."""
        held_back = self._due(message % arguments if arguments else message)
        if held_back is not None:
            log.exception(message + (f" ({held_back} more like this)" if held_back else ""), *arguments)
