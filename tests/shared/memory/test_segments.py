"""Named segments: names, creation, listing, removal."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from tandem.shared.errors import SegmentExists, SegmentInvalid, SegmentMissing, SegmentSpaceError
from tandem.shared.memory import segments
from tandem.shared.memory.segments import (
    check_instance,
    create,
    list_segments,
    map_descriptor,
    open_segment,
    remove_instance,
    segment_name,
    segment_path,
)


@pytest.mark.parametrize("name", ["default", "a", "A-1_b", "x" * 64])
def test_good_instance_names(name: str) -> None:
    """Letters, digits, '-' and '_', 1 to 64 of them."""
    assert check_instance(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "..", "a.b", "a b", "ä", "a\n"])
def test_bad_instance_names_are_refused(name: str) -> None:
    """Nothing that could leave the folder or be mistaken for another instance's part."""
    with pytest.raises(ValueError, match="is not a name"):
        segment_path(name, "control")


def test_a_segment_is_whole_zeroed_and_exclusive(instance_name: str) -> None:
    """Created once, fully allocated, mode as asked whatever the umask."""
    old = os.umask(0o077)
    try:
        descriptor = create(instance_name, "part", 100_000, 0o644)
    finally:
        os.umask(old)
    facts = os.fstat(descriptor)
    assert (facts.st_size, facts.st_mode & 0o777) == (100_000, 0o644)
    assert facts.st_blocks * 512 >= 100_000
    assert os.pread(descriptor, 100_000, 0) == bytes(100_000)
    os.close(descriptor)
    with pytest.raises(SegmentExists, match="ctl"):
        create(instance_name, "part", 10)
    assert os.stat(segment_path(instance_name, "part")).st_size == 100_000


def test_no_room_is_an_error_that_leaves_nothing(instance_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused allocation names bytes needed and free; the name is free again."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(SegmentSpaceError) as caught:
        create(instance_name, "part", 1000)
    assert caught.value.needed == 1000
    assert caught.value.free > 0
    assert not os.path.exists(segment_path(instance_name, "part"))


def test_a_size_beyond_any_file_system_is_the_same_error(instance_name: str) -> None:
    """A setting with many digits too many is no traceback."""
    for size in (2**62, 2**70):
        with pytest.raises(SegmentSpaceError) as caught:
            create(instance_name, "part", size)
        assert caught.value.needed == size
    assert not os.path.exists(segment_path(instance_name, "part"))


def test_other_failures_pass_and_leave_nothing(instance_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that is not about room is passed on."""

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(OSError, match="broken"):
        create(instance_name, "part", 1000)
    assert not os.path.exists(segment_path(instance_name, "part"))


def test_opening_a_missing_segment_never_creates_it(instance_name: str) -> None:
    """It is an error that says what to do."""
    with pytest.raises(SegmentMissing, match="ctl up"):
        open_segment(instance_name, "part")
    assert not os.path.exists(segment_path(instance_name, "part"))


def test_mapping_another_size_is_refused(instance_name: str) -> None:
    """Neither shorter nor longer files are mapped."""
    descriptor = create(instance_name, "part", 4096)
    for size in (4095, 8192):
        with pytest.raises(SegmentInvalid, match="should be"):
            map_descriptor(descriptor, "part", size)
    map_descriptor(descriptor, "part", 4096).close()
    os.close(descriptor)


def test_listing_and_removing_touch_one_instance_only(instance_name: str) -> None:
    """An instance whose name begins like another's is another; the lock file stays; removing twice is harmless."""
    other = instance_name + "-b"
    for name, part in ((instance_name, "control"), (instance_name, "ring0"), (instance_name, "lock"), (other, "ring0")):
        os.close(create(name, part, 10))
    assert list_segments(instance_name) == {instance_name: ["control", "lock", "ring0"]}
    assert set(list_segments()) >= {instance_name, other}
    assert remove_instance(instance_name) == ["control", "ring0"]
    assert list_segments(instance_name) == {instance_name: ["lock"]}
    assert remove_instance(instance_name) == []
    assert list_segments(other) == {other: ["ring0"]}


def test_the_control_segment_goes_first(instance_name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who looks while an instance is removed finds it gone, not half."""
    gone = []
    for part in ("arrays", "control", "ring0"):
        os.close(create(instance_name, part, 10))
    unlink = os.unlink

    def watch(path: str) -> None:
        gone.append(Path(path).name.rpartition(".")[2])
        unlink(path)

    monkeypatch.setattr(segments.os, "unlink", watch)
    remove_instance(instance_name)
    assert gone[0] == "control"


def test_names_are_those_of_multiprocessing(instance_name: str) -> None:
    """The standard library finds a segment under its name."""
    from multiprocessing.shared_memory import SharedMemory

    assert segment_name("a", "ring0") == "tandem.a.ring0"
    with pytest.raises(FileNotFoundError):
        SharedMemory(segment_name(instance_name, "ring0"))
