"""Writing the decision log: what the lanes completed since the last look goes to disk, beside the decision path.

It reads the rings by number, as anybody may, and marks how far it came in `positions.json`. A kill loses nothing: what
was appended and not marked is found in the segments again, and what was neither is still in the rings, unless it was
overwritten meanwhile, which is counted.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..configuration.config import DecisionLogConfig
from ..durable import replace_synced, replace_whole, seal, unseal
from ..experiences.records import KEY_BYTES
from ..instance import Instance
from ..memory.arrays import SharedArray
from ..rate_limit import RateLimit
from .schema import FOLDER, SCHEMA, log_schema, parts_of
from .segments import Segments, sums_of

log = logging.getLogger(__name__)

_EVERY = 0.2
"""Seconds between two looks."""
_POSITIONS, _SALT = "positions.json", "salt"


# Many attributes: where it reads, where it writes, and how far it came.
class DecisionLogWriter:
    """The log of one instance, for the one process that trains it. `tick` is called again and again and never raises.

    Counts what it wrote in `metrics.logged`, what was overwritten before in `metrics.unlogged`, and failures of the
    disk in `metrics.log_failures`.
    """

    def __init__(self, instance: Instance, settings: DecisionLogConfig) -> None:
        control = instance.control
        self._control = control
        self._settings = settings
        self.folder = Path(settings.folder).absolute() if settings.folder else instance.data_dir / FOLDER
        self._dtype = instance.records.record
        self._application = instance.application
        self._capacity: int = control.get("capacity")
        self._rings = [
            SharedArray(control.instance, f"ring{lane}", self._dtype, self._capacity)
            for lane in range(control.get("lanes"))
        ]
        self._series = f"{control.get('series'):016x}"
        self._segments: Segments | None = None
        self._marks: dict[int, int] = {}
        self._missed = 0
        self._salt = b""
        self._next = 0.0
        self._warn = RateLimit(60.0)

    def tick(self) -> None:
        """Write what is new, at most every 0.2 s. A failure is counted and logged; the next tick tries again."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        try:
            if self._segments is None:
                self._open()
            self._write_new()
        except (OSError, ValueError) as error:
            self._control.add("metrics.log_failures")
            self._warn.warning(log, "the decision log cannot be written: %s", error)

    def close(self) -> None:
        """Write what is new, and complete the segment that grows."""
        self._next = 0.0
        self.tick()
        try:
            if self._segments is not None:
                self._segments.rotate()
        except OSError as error:
            log.warning("the decision log's last segment stays open: %s", error)

    def _open(self) -> None:
        settings = self._settings
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # First of all: what lies in a log of other decisions must not be touched.
        self._write_schema()
        segments = Segments(
            self.folder, self._dtype, settings.segment_bytes, settings.max_bytes, settings.max_age_days * 86400.0
        )
        self._salt = self._read_salt()
        marks = self._read_positions()
        if marks is not None:
            # What was appended after the positions were written: all of it lies in one segment.
            for lane, numbers in segments.newest_numbers().items():
                newer = numbers[numbers > marks.get(lane, 0)]
                if len(newer):
                    self._missed += int(newer.max()) - marks.get(lane, 0) - len(newer)
                    marks[lane] = int(newer.max())
        self._marks = marks or {}
        for lane in range(len(self._rings)):
            # Rings that came back from an older saved state begin below what was logged.
            self._marks[lane] = min(self._marks.get(lane, 0), self._control.get(f"lane.{lane}.head"))
        self._control.set("metrics.unlogged", self._missed)
        self._segments = segments

    def _write_schema(self) -> None:
        path, schema = self.folder / SCHEMA, log_schema(self._application.name, *parts_of(self._application))
        if path.exists():
            if json.loads(path.read_text(encoding="utf-8")) != schema:
                raise ValueError(f"{path} is that of other decisions; name another folder (decision_log.folder)")
            return
        replace_synced(path, json.dumps(schema, indent=1).encode())

    def _read_salt(self) -> bytes:
        path = self.folder / _SALT
        if not path.exists():
            replace_synced(path, secrets.token_hex(16).encode())
            os.chmod(path, 0o600)
        return path.read_bytes()[:32]

    def _read_positions(self) -> dict[int, int] | None:
        """How far the lanes of this series were logged; None if the log is of others so far."""
        try:
            plain = unseal((self.folder / _POSITIONS).read_bytes())
            if plain["series"] != self._series:
                return None
            self._missed = int(plain["missed"])
            return {int(lane): int(number) for lane, number in plain["marks"].items()}
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s: %s; what the rings hold is logged again", self.folder / _POSITIONS, error)
            return None

    def _write_new(self) -> None:
        assert self._segments is not None
        parts, marks, missed = [], dict(self._marks), 0
        for lane in range(len(self._rings)):
            rows, head = self._new_of(lane, marks.get(lane, 0))
            missed += head - marks.get(lane, 0) - len(rows)
            marks[lane] = head
            if len(rows):
                parts.append(rows)
        if marks == self._marks:
            return
        if parts:
            rows = self._disguised(np.concatenate(parts))
            self._segments.append(rows)
            self._control.add("metrics.logged", len(rows))
        self._marks = marks
        if missed:
            self._missed += missed
            self._control.set("metrics.unlogged", self._missed)
            self._warn.warning(log, "%d decisions were overwritten before they could be logged", missed)
        named = {str(lane): number for lane, number in marks.items()}
        plain = {"series": self._series, "marks": named, "missed": self._missed}
        # Not synced: a kill loses nothing of it, and five waits for the disk a second would hold up training.
        replace_whole(self.folder / _POSITIONS, seal(plain))

    def _new_of(self, lane: int, mark: int) -> tuple[NDArray[Any], int]:
        """The whole records of a lane with numbers above `mark`, and the number of its newest."""
        head: int = self._control.get(f"lane.{lane}.head")
        if head < mark:
            return np.empty(0, self._dtype), mark
        numbers = np.arange(max(mark, head - self._capacity) + 1, head + 1, dtype=np.int64)
        rows = self._rings[lane].array[(numbers - 1) % self._capacity]
        # The checksum as well: a row that is overwritten while it is copied carries another one.
        return rows[(rows["sequence"] == numbers.astype(np.uint64)) & (sums_of(rows) == rows["checksum"])], head

    def _disguised(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The records with their keys as `decision_log.keys` wants them."""
        if self._settings.keys == "plain" or not len(rows):
            return rows
        if self._settings.keys == "none":
            rows["key"] = b""
        else:
            digests = [
                hashlib.blake2b(bytes(key), key=self._salt, digest_size=16).hexdigest().encode() for key in rows["key"]
            ]
            rows["key"] = np.array(digests, f"S{KEY_BYTES}")
        rows["checksum"] = sums_of(rows)
        return rows


@contextmanager
def logged(instance: Instance) -> Iterator[Callable[[], None]]:
    """What writes the log of an instance, to be called again and again; it does nothing where none is wanted."""
    settings = instance.config.decision_log
    if not settings.enabled:
        yield lambda: None
        return
    writer = DecisionLogWriter(instance, settings)
    try:
        yield writer.tick
    finally:
        writer.close()
