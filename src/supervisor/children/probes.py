"""What the control segment says about the two processes."""

from __future__ import annotations

from ...shared.memory.control import Control
from ...shared.telemetry.lane_reading import lanes_of, oldest_turn


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

    def ready(self, pid: int) -> bool:
        """True once at least one of the server's processes serves."""
        return bool(lanes_of(self.control, pid))

    def progress_ns(self, pid: int) -> int | None:
        """The oldest last turn among the server's processes; None if none of them reports turns regularly."""
        return oldest_turn(self.control, lanes_of(self.control, pid))
