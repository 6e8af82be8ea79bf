"""The registry of open WebSocket connections: bounded, counted, listed."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Connection:
    """One open WebSocket connection. `opened_at` and `last_frame_at` are seconds since 1970."""

    id: str
    named: bool
    peer: str = ""
    trusted: bool = True
    state: Any = None
    frames: int = 0
    replies: int = 0
    opened_at: float = field(default_factory=time.time)
    last_frame_at: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `GET /connections`."""
        return {
            "clientId": self.id,
            "named": self.named,
            "peer": self.peer,
            "frames": self.frames,
            "replies": self.replies,
            "opened_at": self.opened_at,
            "last_frame_at": self.last_frame_at or None,
        }


class Connections:
    """At most `limit` connections at once."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.accepted = 0
        self.refused = 0
        self._open: set[Connection] = set()

    def open(self, client_id: str | None, peer: str) -> Connection | None:
        """Register a connection, or return None if there is no room. Without `client_id` it is anonymous.

        An anonymous id is random, so that nobody comes upon the state of an earlier connection, whichever process's.
        """
        if len(self._open) >= self.limit:
            self.refused += 1
            return None
        named = client_id is not None
        connection = Connection(client_id or f"anonymous-{secrets.token_hex(8)}", named, peer)
        self._open.add(connection)
        self.accepted += 1
        return connection

    def close(self, connection: Connection) -> None:
        """Forget a connection. Idempotent."""
        self._open.discard(connection)

    def __len__(self) -> int:
        return len(self._open)

    def to_dict(self, most: int = 100) -> dict[str, Any]:
        """Plain data for `GET /connections`; at most the `most` oldest connections one by one."""
        oldest = sorted(self._open, key=lambda connection: connection.opened_at)[:most]
        return {
            "active_connections": len(self._open),
            "limit": self.limit,
            "accepted": self.accepted,
            "refused": self.refused,
            "connections": [connection.to_dict() for connection in oldest],
        }
