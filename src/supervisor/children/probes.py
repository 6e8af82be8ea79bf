"""What the control segment says about the two processes."""

from __future__ import annotations

import os

from ...shared.memory.control import Control

_REGULAR = 10
"""Turns after which a server of the user's own is known to report its progress regularly, and is held to it."""


class TrainerProbe:
    """The trainer writes its process id when it is warmed up, and each turn of its loop."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def ready(self, pid: int) -> bool:
        """True once this process trains."""
        return bool(self.control.get("trainer.ready") == pid)

    def progress_ns(self, pid: int) -> int | None:
        """Last turn of the training loop."""
        progress: int = self.control.get("trainer.progress_ns")
        return progress


class ServerProbe:
    """A server owns a writer lane for each of its processes, all of them in the session that the child leads."""

    def __init__(self, control: Control) -> None:
        self.control = control

    def _lanes(self, pid: int) -> list[str]:
        """Prefixes of the lanes whose owner belongs to the child and has said that it serves."""
        found = []
        for index in range(self.control.get("lanes")):
            lane = f"lane.{index}"
            owner = self.control.get(f"{lane}.owner")
            if owner and owner == self.control.get(f"{lane}.ready") and _session(owner) == pid:
                found.append(lane)
        return found

    def ready(self, pid: int) -> bool:
        """True once at least one of the server's processes serves."""
        return bool(self._lanes(pid))

    def progress_ns(self, pid: int) -> int | None:
        """The oldest last turn among the server's processes; None if none of them reports turns regularly."""
        lanes = [lane for lane in self._lanes(pid) if self.control.get(f"{lane}.progress") >= _REGULAR]
        return min((self.control.get(f"{lane}.progress_ns") for lane in lanes), default=None)


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0
