"""The control segment's table: aligned, free of overlaps, one writer for each cache line."""

from __future__ import annotations

from itertools import pairwise

import pytest
from tandem.shared.memory import layout


def spans() -> list[tuple[int, int, str]]:
    """Start, end and name of everything in the segment."""
    found = [(at, at + 8, name) for name, (at, _) in layout.FIELDS.items()]
    for table, _, start, stride, count, fields in layout.TABLES:
        for index in range(count):
            found += [
                (start + index * stride + 8 * place, start + index * stride + 8 * place + 8, f"{table}.{index}.{name}")
                for place, (name, _, _) in enumerate(fields)
            ]
    found.append((layout.HISTORY_AT, layout.HISTORY_AT + layout.HISTORY_ROWS * layout.HISTORY_ROW_BYTES, "history"))
    found.append((layout.SCHEMA_AT, layout.SCHEMA_AT + layout.SCHEMA_ROOM, "schema"))
    return sorted(found)


def test_nothing_overlaps_and_everything_fits() -> None:
    """Fields, tables, history and schema lie one after the other inside the segment."""
    found = spans()
    for (_, end, first), (start, _, second) in pairwise(found):
        assert end <= start, (first, second)
    assert found[-1][1] <= layout.CONTROL_BYTES


def test_words_are_aligned_and_writers_do_not_share_cache_lines() -> None:
    """A word never straddles a line, and a line has one writer."""
    assert all(start % 8 == 0 for start, _, _ in spans())
    assert all(start % 64 == 0 for _, _, start, _ in layout.GROUPS)
    assert layout.SLOT_BYTES % 64 == 0
    assert layout.LANE_BYTES % 64 == 0


def test_names_are_unique() -> None:
    """A name means one field."""
    names = [name for _, _, _, fields in layout.GROUPS for name, _, _ in fields]
    assert len(names) == len(set(names)) == len(layout.FIELDS)


@pytest.mark.parametrize("name", ["nothing", "lane.0.nothing", "slot.0.nothing", "lane.x.head"])
def test_an_unknown_name_is_a_key_error(name: str) -> None:
    """No name is guessed."""
    with pytest.raises(KeyError):
        layout.offset(name)
    with pytest.raises(KeyError):
        layout.kind(name)


def test_offsets_of_repeated_groups() -> None:
    """`lane.k.x` and `slot.j.x` are strides apart."""
    assert layout.offset("lane.3.head") - layout.offset("lane.2.head") == layout.LANE_BYTES
    assert layout.offset("slot.1.checksum") == layout.SLOTS_AT + layout.SLOT_BYTES + 8
    assert layout.kind("lane.0.reward_sum") == "f64"
    assert layout.kind("version") == "u64"
