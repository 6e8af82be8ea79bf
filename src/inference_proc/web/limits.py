"""How much one client may ask of the server."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...shared.configuration.config import InferenceConfig

ALLOWANCE = "tandem.allowance"
"""Under this name in the `state` of a WebSocket's ASGI scope the bundled server hands on the connection's allowance."""


@dataclass(frozen=True)
class Limits:
    """Bounds of the transport; sizes in bytes, times in seconds, rates in frames per second."""

    connections: int = 2048
    frame_bytes: int = 1 << 20
    body_bytes: int = 1 << 20
    client_id_length: int = 128
    frame_rate: float = 5000.0
    frame_burst: float = 10000.0
    ping_interval: float = 20.0
    ping_timeout: float = 20.0
    write_timeout: float = 20.0
    request_timeout: float = 10.0
    heartbeat_interval: float = 30.0
    shutdown_timeout: float = 2.0

    @classmethod
    def of(cls, config: InferenceConfig) -> Limits:
        """The limits that the section `inference` sets; a burst may last two seconds."""
        return cls(
            connections=config.max_connections,
            frame_bytes=config.max_frame_bytes,
            body_bytes=config.max_frame_bytes,
            frame_rate=config.max_frame_rate,
            frame_burst=2 * config.max_frame_rate,
        )


class Allowance:
    """A token bucket: `burst` frames at once and `rate` frames a second in the long run."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._left = burst
        self._at = time.monotonic()

    def take(self) -> bool:
        """True if one more frame is within the allowance."""
        if self._left < 1.0:
            now = time.monotonic()
            self._left = min(self._burst, self._left + (now - self._at) * self._rate)
            self._at = now
            if self._left < 1.0:
                return False
        self._left -= 1.0
        return True
