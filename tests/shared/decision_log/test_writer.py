"""The decision log: what was decided is in it, once, whole, and what was not written is counted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tandem.evaluation.log.folder import read_log
from tandem.inference_proc.engine import Engine
from tandem.shared.decision_log.segments import OPEN, Segments
from tandem.shared.decision_log.writer import DecisionLogWriter

Make = Callable[..., Any]


def decide(engine: Engine, count: int, start: int = 0) -> None:
    """Decisions with their rewards: `start`, `start` + 1, ..."""
    for number in range(start, start + count):
        engine.decide(f"key {number}", [0.1, 0.2, 0.3, 0.4])
        assert engine.reward(f"key {number}", float(number))


def look(writer: DecisionLogWriter) -> None:
    """As if time had passed."""
    writer._next = 0.0
    writer.tick()


def logged(folder: Path) -> list[float]:
    """The rewards in the log, in the order of the decisions."""
    _, records = read_log(folder)
    assert len(np.unique(records["ticket"])) == len(records)
    return records["actual_reward"].tolist()


@pytest.fixture
def made(toy_instance: Make) -> Any:
    """`made(capacity, **decision_log)`: an engine, its log's writer, and how to make another."""
    engines = []

    def make(capacity: int = 256, **settings: Any) -> tuple[Engine, Callable[[], DecisionLogWriter]]:
        instance = toy_instance(
            trainer={"buffer_capacity": capacity}, decision_log={"enabled": True, **settings}, inference={"lanes": 1}
        )
        engines.append(Engine(instance))
        return engines[-1], lambda: DecisionLogWriter(instance, instance.config.decision_log)

    yield make
    for engine in engines:
        engine.close()


def test_every_completed_decision_is_logged_once(made: Any) -> None:
    """While the log grows, over a writer that comes after another, and after its end."""
    engine, writer_of = made()
    first = writer_of()
    decide(engine, 30)
    look(first)
    assert logged(first.folder) == list(range(30))
    decide(engine, 20, 30)
    look(first)
    look(first)
    second = writer_of()
    decide(engine, 10, 50)
    look(second)
    assert logged(first.folder) == list(range(60))
    second.close()
    assert not list(first.folder.glob(f"*{OPEN}"))
    assert logged(first.folder) == list(range(60))
    assert engine.control.get("metrics.logged") == 60
    assert engine.control.get("metrics.unlogged") == 0
    _, records = read_log(first.folder)
    assert bytes(records["key"][3]) == b"key 3"
    modes = {stat.S_IMODE(path.stat().st_mode) for path in first.folder.iterdir()}
    assert modes <= {0o600, 0o644 & ~os.umask(0o77)} or modes == {0o600}


def test_what_was_overwritten_is_counted(made: Any) -> None:
    """The ring holds 64: of 100 the last 64 are logged, the others are missing and counted as such."""
    engine, writer_of = made(capacity=64)
    writer = writer_of()
    decide(engine, 100)
    look(writer)
    assert logged(writer.folder) == list(range(36, 100))
    assert engine.control.get("metrics.unlogged") == 36


def test_a_damaged_record_is_left_out_and_logged_again(made: Any) -> None:
    """What a loss of power leaves may have its length and not its contents: such a record is not taken for one."""
    engine, writer_of = made()
    first = writer_of()
    decide(engine, 10)
    look(first)
    before = (first.folder / "positions.json").read_bytes()
    decide(engine, 3, 10)
    look(first)
    (first.folder / "positions.json").write_bytes(before)
    (path,) = first.folder.glob(f"*{OPEN}")
    data = bytearray(path.read_bytes())
    data[-60:] = bytes(60)
    path.write_bytes(data)
    assert logged(first.folder) == list(range(12))
    look(writer_of())
    assert logged(first.folder) == list(range(13))
    assert engine.control.get("metrics.unlogged") == 0


def test_a_gap_is_counted_also_by_a_successor(made: Any) -> None:
    """Killed after it appended what came after a gap, and before it said so: the gap is found in the segment."""
    engine, writer_of = made(capacity=64)
    first = writer_of()
    decide(engine, 10)
    look(first)
    before = (first.folder / "positions.json").read_bytes()
    decide(engine, 100, 10)
    look(first)
    (first.folder / "positions.json").write_bytes(before)
    engine.control.set("metrics.unlogged", 0)
    look(writer_of())
    assert engine.control.get("metrics.unlogged") == 36
    assert logged(first.folder) == [*range(10), *range(46, 110)]


@pytest.mark.parametrize("cut", [1, 7, 100, 150])
def test_a_torn_end_is_left_out_and_nothing_comes_twice(made: Any, cut: int) -> None:
    """The writer was killed in the middle of a write, before it marked how far it came: its successor writes on."""
    engine, writer_of = made()
    first = writer_of()
    decide(engine, 10)
    look(first)
    before = (first.folder / "positions.json").read_bytes()
    decide(engine, 10, 10)
    look(first)
    (first.folder / "positions.json").write_bytes(before)
    (path,) = first.folder.glob(f"*{OPEN}")
    os.truncate(path, path.stat().st_size - cut)
    second = writer_of()
    look(second)
    assert logged(first.folder) == list(range(20))
    second.close()
    assert logged(first.folder) == list(range(20))


def test_a_segment_that_was_completed_twice_counts_once(made: Any) -> None:
    """Killed after the complete segment was there and before the open one went."""
    engine, writer_of = made()
    first = writer_of()
    decide(engine, 10)
    look(first)
    (path,) = first.folder.glob(f"*{OPEN}")
    data = path.read_bytes()
    first.close()
    path.write_bytes(data)
    assert logged(first.folder) == list(range(10))
    look(writer_of())
    assert logged(first.folder) == list(range(10))
    assert not path.exists()


def test_segments_are_completed_and_the_oldest_go(made: Any) -> None:
    """At their size; and what is more than the log may take goes, oldest first."""
    engine, writer_of = made(segment_bytes=4096, max_bytes=12_000)
    writer = writer_of()
    for turn in range(20):
        decide(engine, 20, 20 * turn)
        look(writer)
    kept = logged(writer.folder)
    assert kept == list(range(400 - len(kept), 400))
    assert 20 < len(kept) < 200
    assert sum(path.stat().st_size for path in writer.folder.glob("*.npy")) <= 12_000


@pytest.mark.parametrize("keys", ["hashed", "none"])
def test_keys_need_not_be_on_the_disk(made: Any, keys: str) -> None:
    """Hashed, the same key is the same text and no key is readable; or there is none. Records stay whole."""
    engine, writer_of = made(keys=keys)
    writer = writer_of()
    for number in (1, 2, 1):
        engine.decide(f"key {number}", [0.1, 0.2, 0.3, 0.4])
        engine.reward(f"key {number}", 1.0)
    look(writer)
    _, records = read_log(writer.folder)
    found = [bytes(key) for key in records["key"]]
    assert len(found) == 3
    assert not any(b"key" in key for key in found)
    assert len(set(found)) == (2 if keys == "hashed" else 1)
    assert found[0] == found[2]
    assert (found[0] == b"") == (keys == "none")


def test_another_applications_log_is_not_touched(made: Any, tmp_path: Path) -> None:
    """A folder whose schema is of other decisions is left as it is; the failure is counted."""
    folder = tmp_path / "others"
    folder.mkdir()
    (folder / "schema.json").write_text("{}", encoding="utf-8")
    (folder / f"x{OPEN}").write_bytes(b"theirs")
    engine, writer_of = made(folder=str(folder))
    decide(engine, 3)
    look(writer_of())
    assert sorted(path.name for path in folder.iterdir()) == ["schema.json", f"x{OPEN}"]
    assert engine.control.get("metrics.log_failures") == 1


def test_a_full_disk_is_counted_and_made_good(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing can be written decisions go on; afterwards what the ring still holds is logged."""
    engine, writer_of = made()
    writer = writer_of()
    decide(engine, 5)
    look(writer)

    def full(*_: Any) -> None:
        raise OSError(28, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Segments, "append", full)
        decide(engine, 5, 5)
        look(writer)
        look(writer)
    assert engine.control.get("metrics.log_failures") == 2
    look(writer)
    assert logged(writer.folder) == list(range(10))
