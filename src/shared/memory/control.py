"""The control segment: counters, flags, metrics and history of one instance, readable by any process.

Standard library only. `ctl` creates it and writes its magic after every other segment is complete; each field has the
writer that layout.py names. Fields are aligned 64-bit words, stored and loaded whole; if a writer dies between two
fields, each of them still holds a value that was written.
"""

from __future__ import annotations

import fcntl
import os
import time

from ..errors import ForeignFile, LayoutMismatch, SegmentInvalid, SegmentMissing
from . import layout
from .ownership import ANYONE
from .processes import boot_id
from .rows import write_numbers
from .segments import create, map_descriptor, open_segment, segment_path

TYPE_CHECKING = False  # typing itself, json and hashlib cost operators' commands more than all the rest: see attach
if TYPE_CHECKING:
    from typing import Any


class Control:
    """One instance's control segment, mapped.

    `words` and `floats` are memoryviews of the whole segment as u64 and f64: item assignment stores one aligned word.
    (struct.pack_into would zero the field first, and a reader would see that.)
    """

    def __init__(self, instance: str, descriptor: int, writable: bool) -> None:
        self.instance = instance
        self.path = segment_path(instance, "control")
        self._descriptor = descriptor
        facts = os.fstat(descriptor)
        self.owner = facts.st_uid
        """Number of the user whose instance it is."""
        self.is_shared = facts.st_mode & 0o022 == 0o020
        """True if the owner's group may write to it: it can operate the instance, not choose what the owner runs."""
        self._mapping = map_descriptor(descriptor, self.path, layout.CONTROL_BYTES, writable)
        self.bytes = memoryview(self._mapping)
        self.words = self.bytes.cast("Q")
        self.floats = self.bytes.cast("d")

    @classmethod
    def create(
        cls, instance: str, values: dict[str, int | float], schema: dict[str, Any], mode: int = 0o600
    ) -> Control:
        """Create the segment with header `values` and the `schema`. It is not valid before `finish` is called.

        Raises SegmentExists, SegmentSpaceError, or ValueError if the schema is too long.
        """
        import json

        boot = int(boot_id().replace("-", ""), 16)
        header: dict[str, int | float] = {
            "layout_version": layout.LAYOUT_VERSION,
            "segment_bytes": layout.CONTROL_BYTES,
            "epoch": int.from_bytes(os.urandom(8), "little"),
            "boot_id_low": boot & (2**64 - 1),
            "boot_id_high": boot >> 64,
            "created_at": time.time(),
            "series": int.from_bytes(os.urandom(8), "little"),
            **values,
        }
        copied = {name: value for name, value in header.items() if name in layout.HEADER_FIELDS}
        text = json.dumps({**schema, "header": copied}, sort_keys=True, separators=(",", ":")).encode()
        if len(text) > layout.SCHEMA_ROOM:
            raise ValueError(f"the schema takes {len(text)} bytes and {layout.SCHEMA_ROOM} are there")
        control = cls(instance, create(instance, "control", layout.CONTROL_BYTES, mode), writable=True)
        control.bytes[layout.SCHEMA_AT : layout.SCHEMA_AT + len(text)] = text
        if mode & 0o022 == 0o020:
            _seal(instance, text, mode & ~0o022)
        header.update(schema_hash=schema_hash(text), schema_bytes=len(text))
        for name, value in header.items():
            control.set(name, value)
        return control

    def finish(self) -> None:
        """Make the instance valid: every other segment must be complete by now."""
        self.set("magic", layout.MAGIC)

    @classmethod
    def attach(
        cls, instance: str, writable: bool = True, timeout: float = 0.0, check_schema: bool = True, whose: str = ""
    ) -> Control:
        """Attach to a running instance, waiting up to `timeout` seconds for it to appear and be complete.

        `check_schema=False` leaves the schema text unread, for commands that want counters only and fast. `whose`
        instance it may be: as `open_segment`. Raises SegmentMissing, SegmentInvalid (never finished), LayoutMismatch or
        ForeignFile.
        """
        deadline = time.monotonic() + timeout
        while True:
            try:
                return cls._attach_once(instance, writable, check_schema, whose)
            except (SegmentMissing, SegmentInvalid):
                if time.monotonic() >= deadline:
                    raise
            time.sleep(0.01)

    @classmethod
    def _attach_once(cls, instance: str, writable: bool, check_schema: bool, whose: str) -> Control:
        descriptor = open_segment(instance, "control", writable, whose)
        path = segment_path(instance, "control")
        try:
            head = os.pread(descriptor, 16, 0)
            magic = int.from_bytes(head[:8], "little")
            version = int.from_bytes(head[8:], "little")
            if magic == 0:
                raise SegmentInvalid(path, "is being created, or its creator died before it was complete")
            if magic != layout.MAGIC:
                raise SegmentInvalid(path, "is not a control segment of Tandem")
            if version != layout.LAYOUT_VERSION:
                raise LayoutMismatch(
                    path,
                    f"has layout version {version}; this program reads {layout.LAYOUT_VERSION} (the program that made"
                    " it can stop it; `ctl clean` removes it once nobody uses it)",
                )
            facts = os.fstat(descriptor)
            if facts.st_mode & 0o002 and (whose or (ANYONE if not writable else "")) != ANYONE:
                raise ForeignFile(path, facts.st_uid, "may be written by every user: nothing in it can be trusted")
            control = cls(instance, descriptor, writable)
            if control.get("lanes") > layout.MAX_LANES or control.get("slots") > layout.MAX_SLOTS:
                raise SegmentInvalid(path, "is damaged: it has more lanes or slots than there can be")
        except BaseException:
            os.close(descriptor)
            raise
        if check_schema:
            try:
                control._check_header()
            except BaseException:
                control.close()
                raise
        return control

    def _check_header(self) -> None:
        """Compare the schema text with its hash and every header field with the copy that the schema holds."""
        if schema_hash(self._schema_text()) != self.get("schema_hash"):
            raise LayoutMismatch(
                self.path, "schema_hash or schema_bytes: the schema text does not match its hash; it is damaged"
            )
        for name, value in self.schema["header"].items():
            if self.get(name) != value:
                raise LayoutMismatch(self.path, f"{name} is {self.get(name)} and was {value} at creation")

    def get(self, name: str) -> Any:
        """Value of a field: int for u64, float for f64. Names as in `layout.offset`."""
        word = layout.offset(name) >> 3
        return self.words[word] if layout.kind(name) == "u64" else self.floats[word]

    def set(self, name: str, value: int | float) -> None:
        """Store one whole word. Only the field's writer may call this."""
        word = layout.offset(name) >> 3
        if layout.kind(name) == "u64":
            self.words[word] = int(value)
        else:
            self.floats[word] = float(value)

    def add(self, name: str, amount: int = 1) -> None:
        """Raise a counter. Only the field's writer may call this, from one thread at a time."""
        self.words[layout.offset(name) >> 3] += amount

    def lane(self, index: int) -> dict[str, Any]:
        """All fields of a lane (each is whole; together they may be of slightly different moments)."""
        return {name: self.get(f"lane.{index}.{name}") for name in layout.LANE_FIELDS}

    def _schema_text(self) -> bytes:
        length = min(self.get("schema_bytes"), layout.SCHEMA_ROOM)
        text = bytes(self.bytes[layout.SCHEMA_AT : layout.SCHEMA_AT + length])
        if self.is_shared and text != _sealed(self.instance, self.owner):
            raise LayoutMismatch(self.path, "schema_bytes: the schema text is not the one that the owner wrote")
        return text

    @property
    def schema(self) -> dict[str, Any]:
        """The schema that the instance was created with: record, pending entry, tensors, application.

        Raises LayoutMismatch if the group, which may write to the rest, changed it.
        """
        import json

        schema: dict[str, Any] = json.loads(self._schema_text())
        return schema

    def history(self, since: int = 0, limit: int = layout.HISTORY_ROWS) -> list[dict[str, float]]:
        """The newest rows of the step history whose version is above `since`, oldest first, at most `limit`.

        A row that is being written while it is read is left out.
        """
        head = self.get("history.head")
        names = [column for column, _ in layout.HISTORY_COLUMNS]
        rows: list[dict[str, float]] = []
        first = max(1, head - min(limit, layout.HISTORY_ROWS) + 1)
        # Versions rise, so the newest are looked at first and the search ends at the first that is known.
        for number in range(head, first - 1, -1):
            word = (layout.HISTORY_AT + (number - 1) % layout.HISTORY_ROWS * layout.HISTORY_ROW_BYTES) >> 3
            if self.words[word] != number:
                continue
            values: Any = self.floats[word + 1 : word + 1 + len(names)].tolist()
            if self.words[word] != number:
                continue
            if values[0] <= since:
                break
            rows.append(dict(zip(names, values, strict=True)))
        rows.reverse()
        return rows

    def append_history(self, row: dict[str, float]) -> None:
        """Append a row to the step history (the trainer only). A crash in the middle leaves an invalid row."""
        number = self.get("history.head") + 1
        start = layout.HISTORY_AT + (number - 1) % layout.HISTORY_ROWS * layout.HISTORY_ROW_BYTES
        values = [row.get(column, 0.0) for column, _ in layout.HISTORY_COLUMNS]
        write_numbers(self.words, self.floats, start, number, values)
        self.set("history.head", number)

    def command(self, code: str, argument: int = 0) -> int:
        """Ask the trainer for something and return the command's sequence number; `answer` tells when it is done."""
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        try:
            self.set("command.code", layout.COMMANDS.index(code))
            self.set("command.argument", argument)
            sequence: int = self.get("command.sequence") + 1
            self.set("command.sequence", sequence)
            return sequence
        finally:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    @property
    def is_removed(self) -> bool:
        """True if the segment is gone from the file system: the instance was stopped, and nobody else can join it."""
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """Unmap, if nothing refers to the mapping any more, and close the descriptor. Idempotent."""
        if self._descriptor < 0:
            return
        os.close(self._descriptor)
        self._descriptor = -1
        try:
            self.words.release()
            self.floats.release()
            self.bytes.release()
            self._mapping.close()
        except BufferError:
            pass  # an array of somebody's still views the mapping: it lives until that array goes


def _seal(instance: str, text: bytes, mode: int) -> None:
    """Write the schema a second time where only the owner may write: it names the commands and modules to run."""
    descriptor = create(instance, "schema", len(text), mode)
    try:
        os.pwrite(descriptor, text, 0)
    finally:
        os.close(descriptor)


def _sealed(instance: str, owner: int) -> bytes:
    descriptor = open_segment(instance, "schema", writable=False)
    try:
        facts = os.fstat(descriptor)
        if facts.st_uid != owner or facts.st_mode & 0o022:
            path = segment_path(instance, "schema")
            raise ForeignFile(path, facts.st_uid, "may be written by others than the instance's owner")
        return os.pread(descriptor, layout.SCHEMA_ROOM, 0)
    finally:
        os.close(descriptor)


def schema_hash(text: bytes) -> int:
    """First 8 bytes of the SHA-256 of the schema text, little-endian."""
    import hashlib

    return int.from_bytes(hashlib.sha256(text).digest()[:8], "little")
