"""Log files that stay small while their writer knows nothing of it."""

from __future__ import annotations

import os
from pathlib import Path

from tandem.supervisor.logfile import LogFile, follow, tail


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
