"""What survives a stop: rings, pending tables, lane counters and the newest weights, in the data folder.

Standard library only. `ctl down` saves them once nobody writes any more; the next creation takes them back if they
were made for the same records. Everything is written under a temporary name, synced, and renamed: whoever dies in
between leaves what was saved before, or what is saved now. Each file has its hash in `state.json`, which has one of its
own; what does not match is set aside by name and never loaded.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .durable import (
    check_file,
    copy_synced,
    read_checked,
    replace_synced,
    seal,
    set_aside,
    sync_folder,
    unseal,
    write_synced,
)
from .errors import SegmentError, TandemError
from .memory import layout
from .memory.ages import clock, rebase
from .memory.control import Control
from .memory.segments import segment_path

log = logging.getLogger(__name__)

FORMAT = 2
WEIGHTS = "weights.safetensors"
_STATE = "state.json"
_RESTORES = "restores.json"
_TICKETS_A_RESTORE, _MOST_RESTORES = 1 << 32, 1 << 14
"""More than any lane gives out between two stops: the tickets of two runs from the same saved state differ."""
_NOT_SAVED = ("owner", "owner_ticks", "progress", "progress_ns", "ready")
_LANE_PARTS = ("ring", "pending", "mail")


class SavedStateUnusable(TandemError):
    """A saved state cannot be used; `kind` is `damaged`, or `other` if it was made for something else."""

    def __init__(self, folder: Path, kind: str, why: str) -> None:
        self.folder = folder
        self.kind = kind
        self.why = why
        super().__init__(f"{folder}: {why}")


@dataclass(frozen=True)
class SavedState:
    """A folder of saved state whose files matched their hashes."""

    folder: Path
    state: dict[str, Any]

    @property
    def version(self) -> int:
        """The version of the saved weights; -1 if there are none."""
        return int(self.state["version"]) if WEIGHTS in self.state["files"] else -1

    def read(self, name: str) -> bytes:
        """The contents of one of its files, checked. Raises SavedStateUnusable."""
        try:
            return read_checked(self.folder / name, self.state["files"][name])
        except (OSError, ValueError, KeyError) as error:
            raise SavedStateUnusable(self.folder, "damaged", _reason(error)) from error


def _fingerprint(control: Control) -> dict[str, Any]:
    names = ("capacity", "record_bytes", "pending_capacity", "pending_bytes", "lanes")
    schema = control.schema
    return {
        **{name: control.get(name) for name in names},
        **{
            name: schema[name] for name in ("application", "features", "heads", "gate_components", "records", "meaning")
        },
    }


def save(control: Control, folder: Path) -> None:
    """Save the instance's state in `folder`. Nobody may write to the instance any more.

    Raises OSError if the disk refuses: what was saved before is still there then, and nothing half-written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    for left in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        _write(control, temporary)
        _replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write(control: Control, target: Path) -> None:
    files = {}
    for lane in range(control.get("lanes")):
        for part in (f"{name}{lane}" for name in _LANE_PARTS):
            files[part] = copy_synced(segment_path(control.instance, part), target / part)
    version: int = control.get("version")
    slots = range(control.get("slots"))
    slot = next((index for index in slots if control.get(f"slot.{index}.sequence") == 2 * version), None)
    if slot is not None:
        files[WEIGHTS] = copy_synced(segment_path(control.instance, f"weights{slot}"), target / WEIGHTS)
    lanes = [
        {name: value for name, value in control.lane(lane).items() if name not in _NOT_SAVED}
        for lane in range(control.get("lanes"))
    ]
    totals = [name for name, kind, _ in _trainer_fields() if name.startswith("metrics.total_") and kind == "u64"]
    state = {
        "format": FORMAT,
        "layout_version": layout.LAYOUT_VERSION,
        "fingerprint": _fingerprint(control),
        "lanes": lanes,
        "version": version,
        "clock": clock(),
        "fields": {name: control.get(name) for name in (*totals, "generation", "rollbacks", "first_version", "series")},
        "files": files,
    }
    write_synced(target / _STATE, seal(state))
    sync_folder(target)


def _replace(temporary: Path, folder: Path) -> None:
    """Give a complete folder its final name. At every moment the old or the new one is found by `find_saved`."""
    old = _old(folder)
    if os.path.lexists(folder):
        if folder.is_symlink() or not folder.is_dir():
            set_aside(folder, "damaged", "it is not a folder")
        else:
            _remove(old)
            os.rename(folder, old)
    os.rename(temporary, folder)
    sync_folder(folder.parent)
    _remove(old)


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _trainer_fields() -> list[layout.Field]:
    return next(fields for title, _, _, fields in layout.GROUPS if title == "trainer")


def find_saved(folder: Path, rename: bool = True) -> SavedState | None:
    """What the last stop saved, if it is whole, else None; what is damaged is named, and set aside if `rename`.

    A stop that was cut off between its two renames has left its predecessor under `<name>.old`.
    """
    for candidate in (folder, _old(folder)):
        try:
            found = _check(candidate)
        except SavedStateUnusable as error:
            put_aside(error, rename)
            continue
        if found is not None:
            return found
    return None


def put_aside(error: SavedStateUnusable, rename: bool = True) -> None:
    """Set a folder of saved state aside by name, or only say that it is left out."""
    if rename:
        set_aside(error.folder, error.kind, error.why)
    else:
        log.error("%s is left out: %s", error.folder, error.why)


def _check(folder: Path) -> SavedState | None:
    """The folder with every file compared with its hash; None if there is none. Raises SavedStateUnusable."""
    if not os.path.lexists(folder):
        return None
    try:
        state = unseal((folder / _STATE).read_bytes())
        if (state["format"], state["layout_version"]) != (FORMAT, layout.LAYOUT_VERSION):
            raise SavedStateUnusable(
                folder,
                "other",
                f"it was saved with layout version {state['layout_version']}; this program has {layout.LAYOUT_VERSION}",
            )
        for name, expected in state["files"].items():
            check_file(folder / name, expected)
        _check_state(state)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SavedStateUnusable(folder, "damaged", _reason(error)) from error
    return SavedState(folder, state)


def _check_state(state: dict[str, Any]) -> None:
    """Raises ValueError or KeyError if a value could not be stored."""
    _check_words("", {"version": state["version"], **state["fields"]})
    for index, counters in enumerate(state["lanes"]):
        _check_words(f"lane.{index}.", counters)
    for lane in range(state["fingerprint"]["lanes"]):
        missing = {f"{name}{lane}" for name in _LANE_PARTS} - state["files"].keys()
        if missing or lane >= len(state["lanes"]):
            raise ValueError(f"{_STATE} lacks lane {lane}")


def _check_words(prefix: str, values: dict[str, Any]) -> None:
    for name, value in values.items():
        whole = layout.kind(prefix + name) == "u64"
        fits = isinstance(value, int) and 0 <= value < 2**64 if whole else isinstance(value, (int, float))
        if isinstance(value, bool) or not fits:
            raise ValueError(f"{_STATE}: {prefix}{name} is {value!r}")


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"{_STATE} lacks {error}"
    if isinstance(error, OSError):
        return f"{Path(error.filename).name if error.filename else _STATE} cannot be read: {error.strerror}"
    return str(error)


def restore(control: Control, saved: SavedState) -> None:
    """Fill a new instance with a saved state. Raises SavedStateUnusable, also half way: the instance is spoilt then.

    Called between the creation of the segments and `Control.finish`. The saved state stays: a crash before the
    next stop falls back to it.
    """
    theirs = saved.state["fingerprint"]
    differing = [name for name, value in _fingerprint(control).items() if theirs.get(name) != value]
    if differing:
        raise SavedStateUnusable(
            saved.folder, "other", f"it was saved with another {', '.join(differing)}; the rings start empty"
        )
    try:
        for lane, counters in enumerate(saved.state["lanes"]):
            for part in (f"{name}{lane}" for name in _LANE_PARTS):
                data = saved.read(part)
                if part == f"pending{lane}":
                    sizes = control.get("record_bytes"), control.get("pending_bytes")
                    data = rebase(data, *sizes, saved.state.get("clock"))
                _fill(segment_path(control.instance, part), data)
            _set_all(control.set, f"lane.{lane}.", counters)
        _set_all(control.set, "", saved.state["fields"])
        _number_on(control, saved.folder.with_name(_RESTORES))
    except (OSError, SegmentError, KeyError, ValueError, OverflowError) as error:
        raise SavedStateUnusable(saved.folder, "damaged", f"it cannot be restored: {_reason(error)}") from error


def _number_on(control: Control, path: Path) -> None:
    """Begin the lanes' tickets where none was given out, also if this state was restored before and not saved since.

    The restores are counted on the disk. Without the count the instance keeps a series of its own: ids of before are
    unknown then.
    """
    try:
        restores = int(unseal(path.read_bytes())["restores"]) if path.exists() else 0
        replace_synced(path, seal({"restores": min(restores + 1, _MOST_RESTORES)}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.error("%s: %s; the ids of decisions made before are not known any more", path, error)
        control.set("series", int.from_bytes(os.urandom(8), "little"))
        return
    for lane in range(control.get("lanes")):
        name = f"lane.{lane}.tickets"
        control.set(name, max(control.get(name), min(restores + 1, _MOST_RESTORES) * _TICKETS_A_RESTORE))


def _set_all(store: Callable[[str, Any], None], prefix: str, values: dict[str, Any]) -> None:
    for name, value in values.items():
        store(prefix + name, value)


def _fill(segment: str, data: bytes) -> None:
    with open(segment, "r+b") as file:
        if os.fstat(file.fileno()).st_size != len(data):
            raise ValueError(f"it is {len(data)} bytes long, the segment {os.fstat(file.fileno()).st_size}")
        # The .npy header was just written and is the same: the rows alone are taken back.
        file.seek(4096)
        file.write(data[4096:])
