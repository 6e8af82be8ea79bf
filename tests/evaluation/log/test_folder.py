"""A folder of logged decisions: what is written is read, and what is damaged is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tandem.evaluation.errors import EvaluationError
from tandem.evaluation.log.folder import NEEDED, SCHEMA, LogSchema, read_log, write_segment
from tandem.shared.application import ActionHead

LOG = LogSchema("toy", ("a", "b"), (ActionHead("place", 3, ("x", "y", "z")), ActionHead("kind", 2)), ("size",))


def records(first: int, count: int) -> Any:
    rows = np.zeros(count, LOG.layout.record)
    rows["timestamp"] = first + np.arange(count)
    rows["actual_reward"] = 0.5
    rows["observation"] = 7.0
    return rows


def test_segments_are_read_in_the_order_of_time(tmp_path: Path) -> None:
    """Two segments make one array; what belongs to a row in shared memory is left out; hidden files are ignored."""
    write_segment(tmp_path, LOG, records(100, 3), "000001")
    write_segment(tmp_path, LOG, records(50, 2), "000002")
    (tmp_path / ".000003.npy").write_bytes(b"half")
    schema, rows = read_log(tmp_path)
    assert schema == LOG
    assert rows["timestamp"].tolist() == [50, 51, 100, 101, 102]
    assert rows["observation"].tolist() == [[7.0, 7.0]] * 5
    assert {"sequence", "checksum", "padding"} & set(rows.dtype.names or ()) == set()
    assert set(NEEDED) <= set(rows.dtype.names or ())


def test_the_rings_own_records_can_be_read(tmp_path: Path) -> None:
    """A plain array with sequence and checksum, saved by numpy, is a segment too."""
    (tmp_path / SCHEMA).write_text(json.dumps(LOG.to_dict()), encoding="utf-8")
    np.save(tmp_path / "ring.npy", records(0, 4))
    assert len(read_log(tmp_path)[1]) == 4


def test_a_log_of_something_else_is_refused(tmp_path: Path) -> None:
    """Segments of another schema are not added."""
    write_segment(tmp_path, LOG, records(0, 1), "a")
    other = LogSchema("toy", ("a", "c"), LOG.heads, LOG.gate_components)
    with pytest.raises(EvaluationError, match="another log"):
        write_segment(tmp_path, other, records(0, 1), "b")


def truncated(folder: Path) -> None:
    path = folder / "a.npy"
    path.write_bytes(path.read_bytes()[:-30])


def without_field(folder: Path) -> None:
    rows = records(0, 2)
    np.save(folder / "a.npy", rows[[name for name in rows.dtype.names or () if name != "probability"]])


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda folder: (folder / SCHEMA).unlink(), "no log of decisions"),
        (lambda folder: (folder / SCHEMA).write_text("{}"), "cannot be used"),
        (lambda folder: (folder / SCHEMA).write_text('{"format": 9}'), "its format is 9"),
        (lambda folder: (folder / "a.npy").unlink(), "holds no segment"),
        (lambda folder: (folder / "a.npy").write_bytes(b"nothing"), "no whole .npy file"),
        (truncated, "no whole .npy file"),
        (lambda folder: np.save(folder / "a.npy", np.ones((2, 2))), "not records"),
        (without_field, "no field 'probability'"),
        (lambda folder: np.save(folder / "a.npy", np.zeros(1, LogSchema("t", ("a",), LOG.heads).layout.record)),
         "'observation'"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(tmp_path: Path, damage: Any, what: str) -> None:
    """Each fault ends in one error with the file's name and what is wrong with it."""
    write_segment(tmp_path, LOG, records(0, 3), "a")
    damage(tmp_path)
    with pytest.raises(EvaluationError, match=what):
        read_log(tmp_path)
