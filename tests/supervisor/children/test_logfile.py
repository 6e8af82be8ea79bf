"""Log files that stay small while their writer knows nothing of it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tandem.supervisor.children.logfile import LogFile, follow, tail


def test_rotation_keeps_the_newest_and_the_writer_goes_on(tmp_path: Path) -> None:
    """A file above the limit is copied and truncated; its open writer appends to the emptied file."""
    log = LogFile(tmp_path / "logs" / "a.log", 100, 2)
    writer = log.open()
    os.write(writer, b"x" * 60 + b"y" * 60)
    assert log.rotate()
    os.write(writer, b"z")
    os.close(writer)
    assert log.path.read_bytes() == b"z"
    assert (tmp_path / "logs" / "a.log.1").read_bytes() == b"x" * 40 + b"y" * 60


def test_a_flood_never_takes_more_than_the_cap(tmp_path: Path) -> None:
    """However much is written between two looks, the rotated files together stay within files x max_bytes."""
    log = LogFile(tmp_path / "a.log", 1000, 3)
    writer = log.open()
    for number in range(20):
        os.write(writer, bytes([65 + number]) * 5000)
        assert log.rotate()
    os.close(writer)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 3000
    assert (tmp_path / "a.log.1").read_bytes() == b"T" * 1000


def test_a_small_or_missing_file_is_left_alone(tmp_path: Path) -> None:
    """Nothing is rotated below the limit."""
    log = LogFile(tmp_path / "a.log", 100, 2)
    assert not log.rotate()
    log.path.write_bytes(b"x" * 100)
    assert not log.rotate()


def test_tail_gives_the_lines_of_this_start_only(tmp_path: Path) -> None:
    """The last words of a process are those written since it started, even after a rotation."""
    log = LogFile(tmp_path / "a.log", 1000, 2)
    assert log.tail() == []
    log.path.write_text("old\n")
    start = log.size()
    with log.path.open("a") as file:
        file.write("one\ntwo\nthree\n")
    assert log.tail(2, start) == ["two", "three"]
    assert log.tail(10, start) == ["one", "two", "three"]
    log.path.write_text("new\n")
    assert tail(log.path, 10, 10**6) == ["new"]


def test_follow_survives_a_rotation(tmp_path: Path) -> None:
    """Following gives new bytes, nothing when there are none, and starts over when the file was emptied."""
    path = tmp_path / "a.log"
    path.write_bytes(b"before")
    reader = follow(path, 6)
    assert next(reader) == b""
    with path.open("ab") as file:
        file.write(b"more")
    assert next(reader) == b"more"
    path.write_bytes(b"anew")
    assert next(reader) == b"anew"
    path.unlink()
    assert next(reader) == b""


def test_a_rotation_that_is_refused_changes_nothing_and_is_tried_again(tmp_path: Path) -> None:
    """What the file system refuses is remembered and counted; older logs stay as they were, and once it yields the log
    is rotated as ever."""
    log = LogFile(tmp_path / "a.log", 100, 2)
    log.path.write_bytes(b"o" * 101)
    assert log.rotate()
    log.path.write_bytes(b"x" * 150)
    # As root the right to write is no obstacle; a folder in the place of the copy is.
    (tmp_path / "a.log.new").mkdir()
    assert not log.rotate()
    assert log.failures == 1
    assert "cannot be rotated" in log.fault
    assert (tmp_path / "a.log.1").read_bytes() == b"o" * 100
    assert log.path.read_bytes() == b"x" * 150
    assert not log.rotate(), "it is not tried at each turn"
    assert log.failures == 1
    (tmp_path / "a.log.new").rmdir()
    log._retry_at = 0.0
    assert log.rotate()
    assert log.fault == ""
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 100
    assert (tmp_path / "a.log.2").read_bytes() == b"o" * 100


def test_a_log_that_cannot_be_rotated_is_cut_off_at_twice_the_limit(tmp_path: Path) -> None:
    """A folder in which nothing can be made does not let a log grow without end."""
    log = LogFile(tmp_path / "a.log", 100, 1)
    (tmp_path / "a.log.new").mkdir()
    log.path.write_bytes(b"x" * 201)
    assert not log.rotate()
    assert log.size() == 0


def test_a_full_disk_gives_up_the_oldest_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no room for a copy, the rotated log that goes next anyway goes first."""
    log = LogFile(tmp_path / "a.log", 100, 1)
    (tmp_path / "a.log.1").write_bytes(b"o" * 100)
    log.path.write_bytes(b"x" * 150)
    copy = LogFile._copy_end

    def full(self: LogFile, size: int, target: Path) -> None:
        if (tmp_path / "a.log.1").exists():
            raise OSError(28, "No space left on device")
        copy(self, size, target)

    monkeypatch.setattr(LogFile, "_copy_end", full)
    assert log.rotate()
    assert (tmp_path / "a.log.1").read_bytes() == b"x" * 100


def test_a_removed_log_still_stays_small(tmp_path: Path) -> None:
    """Who writes to a file that lost its name does not fill the disk unseen; a process of our own gets a new file."""
    log = LogFile(tmp_path / "logs" / "a.log", 100, 1)
    writer = log.open_or_discard()
    shutil.rmtree(tmp_path / "logs")
    os.write(writer, b"x" * 500)
    assert log.is_lost
    for _ in range(3):
        assert not log.rotate()
    assert os.fstat(writer).st_size == 0
    assert "removed" in log.fault
    assert log.failures == 1
    log.take_over(writer)
    os.write(writer, b"back")
    assert log.path.read_bytes() == b"back"
    assert (log.is_lost, log.fault) == (False, "")
    log.release()
    os.close(writer)


def test_who_cannot_log_writes_to_nowhere(tmp_path: Path) -> None:
    """A folder that is a file is no reason not to start; nothing that only looks raises."""
    (tmp_path / "logs").write_text("a file")
    log = LogFile(tmp_path / "logs" / "a.log", 100, 1)
    descriptor = log.open_or_discard()
    os.write(descriptor, b"x" * 1000)
    os.close(descriptor)
    assert "cannot be opened" in log.fault
    assert (log.rotate(), log.size(), log.tail(), next(follow(log.path, 0))) == (False, 0, [], b"")
