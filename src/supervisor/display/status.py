"""What an operator sees of an instance, read from its control segment. Standard library only, and quick."""

from __future__ import annotations

from ...shared.configuration.addresses import reachable
from ...shared.errors import SegmentInvalid, SegmentMissing
from ...shared.memory import layout
from ...shared.memory.control import Control
from ...shared.memory.processes import boot_id
from ...shared.memory.users import living
from ...shared.telemetry.lane_reading import read_lanes
from ...shared.telemetry.process_reading import ProcessReading, seconds_since
from ...shared.telemetry.snapshot import Snapshot, read_server, read_trainer, read_worker

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


def is_supervised(control: Control, name: str) -> bool:
    """True if the supervisor runs this process; the configuration may leave one out."""
    return bool(control.get(f"process.{name}.started_ns") or control.get(f"process.{name}.state"))


def age(monotonic_ns: int) -> float | None:
    """Seconds since a moment on the monotonic clock, to the millisecond; None for 0 (never)."""
    return _shown(seconds_since(monotonic_ns))


def _shown(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


def process(control: Control, name: str) -> dict[str, Any]:
    """The trainer or a process of the server (layout.SERVERS), as `ctl status --json` gives it."""
    if name in layout.SERVERS[1:]:
        return _process(read_worker(control, name))
    return _process(read_trainer(control) if name == "trainer" else read_server(control, read_lanes(control)))


def _process(reading: ProcessReading) -> dict[str, Any]:
    return {
        "state": reading.state,
        "pid": reading.pid,
        "uptime_s": _shown(reading.uptime_s),
        "restarts": reading.restarts,
        "progress_age_s": _shown(reading.progress_age_s),
    }


def _workers(snapshot: Snapshot) -> dict[str, Any]:
    """Each process of the server by its name, if it has more than one."""
    workers = snapshot.workers
    return {} if len(workers) == 1 else {"workers": {worker.name: _process(worker) for worker in workers}}


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


def servers(shown: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The processes of the server by their names, of a status as `status` gives it."""
    return shown.get("workers") or {"inference": shown["inference"]}


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
        return status_of(control, Snapshot(control)) if living(control) else stopped(instance)
    finally:
        control.close()


def status_of(control: Control, snapshot: Snapshot) -> dict[str, Any]:
    """As `status`, of a reading of an instance that runs."""
    supervisor, processes = snapshot.supervisor, (snapshot.trainer, *snapshot.workers)
    healthy = all(reading.state == "running" for reading in processes if reading.is_supervised)
    port = control.get("supervisor.port")
    reasons = list(snapshot.reasons.values())
    is_well = healthy and supervisor.is_progressing(_STALE) and not reasons
    return {
        "instance": snapshot.instance,
        "state": "running" if is_well else "degraded",
        "trainer": _process(snapshot.trainer),
        "inference": _process(snapshot.server),
        **_workers(snapshot),
        "model_version": snapshot.version,
        "model_age_s": _shown(snapshot.model_age_s),
        "buffer": {
            "size": snapshot.size,
            "capacity": snapshot.total_capacity,
            "pending": snapshot.total("pending"),
            "utilization": round(snapshot.size / snapshot.total_capacity, 6),
        },
        "supervisor": {"pid": supervisor.pid, "progress_age_s": _shown(supervisor.progress_age_s)},
        "paused": snapshot.is_paused,
        "url": f"http://{reachable(host(control), port)}" if port else None,
        "reasons": reasons,
        "notices": snapshot.notices,
    }
