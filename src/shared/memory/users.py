"""Who uses an instance: the processes that its control segment names, and whoever holds one of its segments.

Standard library only.
"""

from __future__ import annotations

import fcntl
import os

from ..errors import ForeignFile, SegmentMissing
from . import layout
from .control import Control
from .processes import is_same_process
from .segments import list_segments, open_segment


def living(control: Control) -> list[int]:
    """Process ids of the living processes that the segment names: supervisor, children, owners of lanes."""
    names = [("supervisor.pid", "supervisor.start_ticks")]
    names += [(f"process.{name}.pid", f"process.{name}.start_ticks") for name in layout.PROCESSES]
    names += [(f"lane.{index}.owner", f"lane.{index}.owner_ticks") for index in range(control.get("lanes"))]
    found = {control.get(pid) for pid, ticks in names if is_same_process(control.get(pid), control.get(ticks))}
    return sorted(found)


class Claimed:
    """Holds the flock of every ring and weights slot of an instance that nobody else holds, inside a `with` block.

    `held` names the segments of the others: rings by their writers, the weights by the trainer. What this user may not
    read is left out. While the flocks are held exclusively no server can claim a lane and no trainer can start.
    """

    def __init__(self, instance: str, exclusive: bool = True) -> None:
        self.held: list[str] = []
        self._descriptors: list[int] = []
        mode = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        for part in list_segments(instance).get(instance, []):
            if not part.startswith(("ring", "weights")):
                continue
            try:
                descriptor = open_segment(instance, part, writable=False)
            except (SegmentMissing, ForeignFile):
                continue
            self._descriptors.append(descriptor)
            try:
                fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            except BlockingIOError:
                self.held.append(part)

    def __enter__(self) -> Claimed:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def users(instance: str) -> list[str]:
    """The segments that a living process holds by a flock."""
    with Claimed(instance, exclusive=False) as claimed:
        return claimed.held
