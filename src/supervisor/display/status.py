"""What an operator sees of an instance, read from its control segment. Standard library only, and quick."""

from __future__ import annotations

import fcntl
import os
import time

from ...shared.configuration.addresses import reachable
from ...shared.errors import ForeignFile, SegmentInvalid, SegmentMissing
from ...shared.memory import layout
from ...shared.memory.control import Control
from ...shared.memory.processes import boot_id, is_same_process
from ...shared.memory.segments import list_segments, open_segment
from ...shared.telemetry.learning_reasons import learning_notices, learning_reasons

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STALE = 5.0
"""Seconds without a turn after which a supervisor counts as stuck."""


def open_control(instance: str, writable: bool = False, whose: str = "") -> Control | None:
    """The control segment of an instance, without reading its schema; None if it has none that is complete.

    Raises ForeignFile if it is not that of `whose` (as `open_segment`), or is not open to this user.
    """
    try:
        control = Control.attach(instance, writable=writable, check_schema=False, whose=whose)
    except (SegmentMissing, SegmentInvalid):
        return None
    if control.get("boot_id_low") != int(boot_id().replace("-", ""), 16) & (2**64 - 1):
        # /dev/shm kept over a reboot: the processes named in it are strangers now.
        control.close()
        return None
    return control


def living(control: Control) -> list[int]:
    """Process ids of the living processes that the segment names: supervisor, children, owners of lanes."""
    names = [("supervisor.pid", "supervisor.start_ticks")]
    names += [(f"process.{name}.pid", f"process.{name}.start_ticks") for name in ("trainer", "inference")]
    names += [(f"lane.{index}.owner", f"lane.{index}.owner_ticks") for index in range(control.get("lanes"))]
    found = {control.get(pid) for pid, ticks in names if is_same_process(control.get(pid), control.get(ticks))}
    return sorted(found)


class Claimed:
    """Holds the flock of every ring and weights slot of an instance that nobody else holds, inside a `with` block.

    `held` names the segments of the others: rings by their writers, the weights by the trainer. What this user may not
    read is left out. While the flocks are
    held exclusively no server can claim a lane and no trainer can start.
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


def age(monotonic_ns: int) -> float | None:
    """Seconds since a moment on the monotonic clock; None for 0 (never)."""
    return round(max(0.0, (time.monotonic_ns() - monotonic_ns) / 1e9), 3) if monotonic_ns else None


def is_supervised(control: Control, name: str) -> bool:
    """True if the supervisor keeps this process; the configuration may leave one out."""
    return bool(control.get(f"process.{name}.started_ns") or control.get(f"process.{name}.state"))


def process(control: Control, name: str) -> dict[str, Any]:
    """State of one process; of servers that attach by themselves, the first one that lives."""
    prefix = f"process.{name}"
    if name == "inference" and not is_supervised(control, name):
        return _attached(control)
    pid = control.get(f"{prefix}.pid")
    state = layout.STATES[min(control.get(f"{prefix}.state"), len(layout.STATES) - 1)]
    alive = is_same_process(pid, control.get(f"{prefix}.start_ticks"))
    if pid and not alive and state in ("starting", "running", "stopping"):
        state = "stopped"
    return {
        "state": state,
        "pid": pid if alive else None,
        "uptime_s": age(control.get(f"{prefix}.started_ns")) if alive else None,
        "restarts": control.get(f"{prefix}.restarts"),
        "progress_age_s": _progress_age(control, name, pid) if alive else None,
    }


def _attached(control: Control) -> dict[str, Any]:
    shown = dict(stopped("")["inference"])
    for index in range(control.get("lanes")):
        owner = control.get(f"lane.{index}.owner")
        if is_same_process(owner, control.get(f"lane.{index}.owner_ticks")):
            state = "running" if control.get(f"lane.{index}.ready") == owner else "starting"
            shown.update(state=state, pid=owner, progress_age_s=age(control.get(f"lane.{index}.progress_ns")))
            break
    return shown


def _progress_age(control: Control, name: str, pid: int) -> float | None:
    if name == "trainer":
        return age(control.get("trainer.progress_ns"))
    last = [control.get(f"lane.{index}.progress_ns") for index in range(control.get("lanes"))]
    return age(max(last, default=0))


def buffer(control: Control) -> dict[str, Any]:
    """Size, capacity, pending decisions and utilisation over all lanes that were ever claimed."""
    count, capacity = control.get("lanes"), control.get("capacity")
    lanes = [index for index in range(count) if control.get(f"lane.{index}.claims")] or [0]
    size = sum(min(control.get(f"lane.{i}.head") - control.get(f"lane.{i}.floor"), capacity) for i in lanes)
    total = capacity * len(lanes)
    return {
        "size": size,
        "capacity": total,
        "pending": sum(control.get(f"lane.{i}.pending") for i in lanes),
        "utilization": round(size / total, 6) if total else 0.0,
    }


def stopped(instance: str) -> dict[str, Any]:
    """The status of an instance of which nothing runs."""
    nothing = {"state": "stopped", "pid": None, "uptime_s": None, "restarts": 0, "progress_age_s": None}
    return {
        "instance": instance,
        "state": "stopped",
        "trainer": dict(nothing),
        "inference": dict(nothing),
        "model_version": None,
        "model_age_s": None,
        "buffer": {"size": 0, "capacity": 0, "pending": 0, "utilization": 0.0},
        "supervisor": {"pid": None, "progress_age_s": None},
        "paused": False,
        "url": None,
        "reasons": [],
        "notices": [],
    }


def host(control: Control) -> str:
    """The address that the bundled server is configured to bind to; this machine's own if that cannot be read."""
    try:
        return str(control.schema["config"]["inference"]["host"])
    except (ValueError, KeyError, TypeError):
        return "127.0.0.1"


def status(instance: str) -> dict[str, Any]:
    """Everything that `ctl status` shows; `state` is running, degraded (a part does not run or learn) or stopped."""
    control = open_control(instance)
    if control is None:
        return stopped(instance)
    try:
        if not living(control):
            return stopped(instance)
        processes = {name: process(control, name) for name in ("trainer", "inference")}
        pid = control.get("supervisor.pid")
        supervised = is_same_process(pid, control.get("supervisor.start_ticks"))
        beat = age(control.get("supervisor.progress_ns")) if supervised else None
        healthy = all(shown["state"] == "running" for name, shown in processes.items() if is_supervised(control, name))
        port = control.get("supervisor.port")
        reasons = list(learning_reasons(control).values())
        is_well = healthy and beat is not None and beat < _STALE and not reasons
        return {
            "instance": instance,
            "state": "running" if is_well else "degraded",
            **processes,
            "model_version": control.get("version"),
            "model_age_s": age(control.get("published_ns")),
            "buffer": buffer(control),
            "supervisor": {"pid": pid if supervised else None, "progress_age_s": beat},
            "paused": bool(control.get("command.pause")),
            "url": f"http://{reachable(host(control), port)}" if port else None,
            "reasons": reasons,
            "notices": learning_notices(control),
        }
    finally:
        control.close()
