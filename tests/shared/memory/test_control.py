"""The control segment: creation, attaching, fields, history, commands."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tandem.shared.errors import LayoutMismatch, SegmentExists, SegmentInvalid, SegmentMissing
from tandem.shared.memory import layout
from tandem.shared.memory.control import Control, schema_hash


@pytest.fixture
def control(instance_name: str) -> Iterator[Control]:
    """A finished control segment."""
    made = Control.create(instance_name, {"slots": 4, "capacity": 10}, {"a": [1, 2]})
    made.finish()
    yield made
    made.close()


def test_every_field_holds_what_was_set(control: Control) -> None:
    """A value written to a field is read from it, and from no other."""
    names = [name for name in layout.FIELDS if name != "magic"]
    names += [f"slot.{j}.sequence" for j in range(layout.MAX_SLOTS)]
    names += [f"lane.{k}.{name}" for k in range(layout.MAX_LANES) for name in layout.LANE_FIELDS]
    for number, name in enumerate(names):
        control.set(name, number if layout.kind(name) == "u64" else number / 2)
    for number, name in enumerate(names):
        assert control.get(name) == (number if layout.kind(name) == "u64" else number / 2), name


def test_words_hold_all_64_bits_and_refuse_more(control: Control) -> None:
    """2**64-1 is the largest; one more, or a negative number, is an error and not a truncation."""
    control.set("version", 2**64 - 1)
    assert control.get("version") == 2**64 - 1
    for value in (2**64, -1):
        with pytest.raises((ValueError, OverflowError)):
            control.set("version", value)


def test_attaching_sees_the_same_memory(control: Control) -> None:
    """Two attachments are one memory; the schema comes along."""
    other = Control.attach(control.instance)
    other.set("lane.2.head", 77)
    other.add("lane.2.head", 3)
    assert control.get("lane.2.head") == 80
    assert control.lane(2)["head"] == 80
    assert other.schema["a"] == [1, 2]
    other.close()
    assert control.get("lane.2.head") == 80


def test_reading_needs_no_write_right(control: Control) -> None:
    """A read-only attachment reads everything and can write nothing."""
    other = Control.attach(control.instance, writable=False)
    assert other.get("slots") == 4
    with pytest.raises(TypeError):
        other.set("version", 1)
    other.close()


def test_what_is_missing_half_made_or_foreign_is_refused(instance_name: str) -> None:
    """Each case has its error."""
    with pytest.raises(SegmentMissing, match="ctl up"):
        Control.attach(instance_name)
    control = Control.create(instance_name, {}, {})
    with pytest.raises(SegmentInvalid, match="being created"):
        Control.attach(instance_name)
    with pytest.raises(SegmentExists):
        Control.create(instance_name, {}, {})
    control.set("magic", 12345)
    with pytest.raises(SegmentInvalid, match="not a control segment"):
        Control.attach(instance_name)
    control.close()


def test_attaching_waits_for_completion(instance_name: str) -> None:
    """With a timeout an attacher waits until the magic is there."""
    control = Control.create(instance_name, {"slots": 3}, {})
    found: list[int] = []

    def attach() -> None:
        other = Control.attach(instance_name, timeout=30)
        found.append(other.get("slots"))
        other.close()

    thread = threading.Thread(target=attach)
    thread.start()
    control.finish()
    thread.join(30)
    assert found == [3]
    control.close()


def test_a_schema_that_does_not_fit_is_refused(instance_name: str) -> None:
    """No segment is created for it."""
    with pytest.raises(ValueError, match="schema takes"):
        Control.create(instance_name, {}, {"a": "x" * layout.SCHEMA_ROOM})
    with pytest.raises(SegmentMissing):
        Control.attach(instance_name)


def test_commands_that_need_counters_only_skip_the_schema(control: Control) -> None:
    """A damaged schema does not keep `ctl version` from answering; everybody else refuses."""
    control.bytes[layout.SCHEMA_AT] ^= 1
    other = Control.attach(control.instance, check_schema=False)
    assert other.get("capacity") == 10
    other.close()
    with pytest.raises(LayoutMismatch, match="schema"):
        Control.attach(control.instance)


def test_history_returns_the_newest_rows_oldest_first(control: Control) -> None:
    """Rows above a version, at most so many; the ring of rows wraps."""
    for version in range(1, layout.HISTORY_ROWS + 11):
        control.append_history({"version": float(version), "loss": version / 2})
    rows = control.history(limit=5)
    assert [row["version"] for row in rows] == [layout.HISTORY_ROWS + 10 - k for k in (4, 3, 2, 1, 0)]
    assert rows[-1]["loss"] == (layout.HISTORY_ROWS + 10) / 2
    assert [row["version"] for row in control.history(since=layout.HISTORY_ROWS + 8)] == [
        layout.HISTORY_ROWS + 9,
        layout.HISTORY_ROWS + 10,
    ]
    assert len(control.history()) == layout.HISTORY_ROWS


def test_a_history_row_in_the_making_is_left_out(control: Control) -> None:
    """A crash in the middle of a row leaves a row that nobody shows."""
    for version in (1.0, 2.0, 3.0):
        control.append_history({"version": version})
    control.words[(layout.HISTORY_AT + layout.HISTORY_ROW_BYTES) >> 3] = 0
    assert [row["version"] for row in control.history()] == [1.0, 3.0]


def test_commands_are_numbered(control: Control) -> None:
    """Each command has a higher sequence, code and argument are those of the last; threads do not lose one."""
    assert control.command("checkpoint") == 1
    assert control.command("rollback", 7) == 2
    assert layout.COMMANDS[control.get("command.code")] == "rollback"
    assert control.get("command.argument") == 7
    with pytest.raises(ValueError, match="not in"):
        control.command("dance")
    assert control.get("command.sequence") == 2


def test_close_is_idempotent_and_leaves_foreign_views_alone(control: Control) -> None:
    """A view of somebody's keeps the mapping."""
    other = Control.attach(control.instance)
    view = other.bytes[:8]
    other.close()
    other.close()
    assert int.from_bytes(view, "little") == layout.MAGIC


def test_the_segment_is_private_to_its_owner(control: Control) -> None:
    """Mode 0600 unless configured."""
    assert os.stat(control.path).st_mode & 0o777 == 0o600


def test_an_operator_reads_it_with_the_standard_library_alone(control: Control) -> None:
    """The version lies where the table says, little-endian."""
    control.set("version", 123456789)
    code = (
        "import struct, sys; f = open(sys.argv[1], 'rb'); f.seek(int(sys.argv[2]));"
        " print(struct.unpack('<Q', f.read(8))[0])"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code, control.path, str(layout.offset("version"))],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == "123456789"


def test_the_schema_hash_is_the_start_of_sha256() -> None:
    """First 8 bytes, little-endian."""
    assert schema_hash(b"") == int.from_bytes(bytes.fromhex("e3b0c44298fc1c14"), "little")


def test_descriptors_are_given_back(channel: Callable[..., Any]) -> None:
    """Attaching and closing many times leaves no descriptor open, failures included."""
    made = channel()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        Control.attach(made.name).close()
    made.control.set("layout_version", 99)
    for _ in range(20):
        with pytest.raises(LayoutMismatch):
            Control.attach(made.name)
    assert len(os.listdir("/proc/self/fd")) == before
