"""What survives a stop: rings, pending tables, lane counters and the newest weights, kept in the data folder.

Standard library only. `ctl down` keeps them once nobody writes any more; the next creation takes them back if they
were made for the same records. Everything is written under a temporary name and renamed: a kept folder is whole or
not there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from . import layout
from .ages import clock, rebase
from .control import Control
from .errors import SegmentError
from .segments import segment_path

log = logging.getLogger(__name__)

_STATE = "state.json"
_NOT_KEPT = ("owner", "owner_ticks", "progress", "progress_ns", "ready")
_LANE_PARTS = ("ring", "pending", "mail")


def _fingerprint(control: Control) -> dict[str, Any]:
    names = ("capacity", "record_bytes", "pending_capacity", "pending_bytes", "lanes")
    schema = control.schema
    return {
        **{name: control.get(name) for name in names},
        **{name: schema[name] for name in ("application", "features", "heads", "gate_components", "records")},
    }


def keep(control: Control, folder: Path) -> None:
    """Keep the instance's experiences in `folder`. Nobody may write to the instance any more. Raises OSError."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for lane in range(control.get("lanes")):
        for part in (f"{name}{lane}" for name in _LANE_PARTS):
            shutil.copyfile(segment_path(control.instance, part), temporary / part)
    version: int = control.get("version")
    slot = version % control.get("slots")
    if control.get(f"slot.{slot}.sequence") == 2 * version:
        shutil.copyfile(segment_path(control.instance, f"weights{slot}"), temporary / "weights.safetensors")
    lanes = [
        {name: value for name, value in control.lane(lane).items() if name not in _NOT_KEPT}
        for lane in range(control.get("lanes"))
    ]
    totals = [name for name, kind, _ in _trainer_fields() if name.startswith("metrics.total_") and kind == "u64"]
    state = {
        "fingerprint": _fingerprint(control),
        "lanes": lanes,
        "version": version,
        "clock": clock(),
        "fields": {name: control.get(name) for name in (*totals, "generation", "rollbacks", "first_version")},
    }
    (temporary / _STATE).write_text(json.dumps(state), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.rename(temporary, folder)


def _trainer_fields() -> list[layout.Field]:
    return next(fields for title, _, _, fields in layout.GROUPS if title == "trainer")


def kept_version(folder: Path) -> int:
    """The version of the kept weights; -1 if none are kept."""
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        return int(state["version"]) if (folder / "weights.safetensors").is_file() else -1
    except (OSError, ValueError, KeyError, TypeError):
        return -1


def restore(control: Control, folder: Path) -> bool:
    """Fill a new instance with what was kept; False (and an empty instance) if nothing is kept or it does not fit.

    Called between the creation of the segments and `Control.finish`. What was kept stays: a crash before the
    next stop falls back to it.
    """
    try:
        state = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        log.error("%s cannot be read (%s): the rings start empty", folder, error)
        return False
    differing = [name for name, value in _fingerprint(control).items() if state["fingerprint"].get(name) != value]
    if differing:
        log.error("%s was kept with another %s: the rings start empty", folder, ", ".join(differing))
        return False
    try:
        for lane, counters in enumerate(state["lanes"]):
            for part in (f"{name}{lane}" for name in _LANE_PARTS):
                data = (folder / part).read_bytes()
                if part == f"pending{lane}":
                    sizes = control.get("record_bytes"), control.get("pending_bytes")
                    data = rebase(data, *sizes, state.get("clock"))
                _fill(segment_path(control.instance, part), data, folder / part)
            for name, value in counters.items():
                control.set(f"lane.{lane}.{name}", value)
        for name, value in state["fields"].items():
            control.set(name, value)
    except (OSError, SegmentError, KeyError) as error:
        log.error("%s cannot be restored: %s", folder, error)
        raise
    return True


def _fill(segment: str, data: bytes, kept: Path) -> None:
    with open(segment, "r+b") as file:
        if os.fstat(file.fileno()).st_size != len(data):
            raise OSError(f"{kept} is {len(data)} bytes long, the segment {os.fstat(file.fileno()).st_size}")
        # The .npy header was just written and is the same: the rows alone are taken back.
        file.seek(4096)
        file.write(data[4096:])
