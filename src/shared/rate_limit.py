"""Warnings at a limited rate: the hot path must not fill the disk when something fails at every decision."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict

_TEXTS = 256
"""Different texts remembered; the one that was silent longest goes first."""


class RateLimit:
    """Lets one message of each text through per `interval` seconds and says how many were held back. Thread-safe."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._seen: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()
        self._lock = threading.Lock()

    def _due(self, text: tuple[str, ...]) -> int | None:
        now = time.monotonic()
        with self._lock:
            last, held_back = self._seen.get(text, (now - self._interval, 0))
            is_due = now - last >= self._interval
            self._seen[text] = (now, 0) if is_due else (last, held_back + 1)
            self._seen.move_to_end(text)
            if len(self._seen) > _TEXTS:
                self._seen.popitem(last=False)
            return held_back if is_due else None

    def warning(self, log: logging.Logger, message: str, *arguments: object) -> None:
        """`log.warning`, at most once per interval for this text, whatever the arguments."""
        held_back = self._due((message,))
        if held_back is not None:
            log.warning(message + (f" ({held_back} more like this)" if held_back else ""), *arguments)

    def exception(self, log: logging.Logger, message: str, *arguments: object) -> None:
        """`log.exception`, at most once per interval for this text and those of its arguments that are texts.

        A number makes no other text of it: the version in a message changes each second.
        """
        held_back = self._due((message, *(argument for argument in arguments if isinstance(argument, str))))
        if held_back is not None:
            log.exception(message + (f" ({held_back} more like this)" if held_back else ""), *arguments)
