"""docs/shared-memory.md says what layout.py says."""

from __future__ import annotations

from pathlib import Path

import pytest
from tandem.reference.shared_memory import fill, main
from tandem.shared.memory import layout

PAGE = Path(__file__).parents[2] / "docs" / "shared-memory.md"


def test_the_page_is_up_to_date() -> None:
    """`python -m tandem.reference.shared_memory docs/shared-memory.md` would change nothing."""
    assert fill(PAGE.read_text(encoding="utf-8")) == PAGE.read_text(encoding="utf-8")


def test_every_field_is_on_the_page() -> None:
    """Each with its offset; of the workers from the third on, which are all alike, where the last one begins."""
    text = PAGE.read_text(encoding="utf-8")
    further = tuple(f"process.{name}." for name in layout.SERVERS[2:])
    last = f"process.{layout.SERVERS[-1]}.pid"
    assert layout.offset(last) == layout.offset("process.inference-2.pid") + 64 * (len(layout.SERVERS) - 2)
    assert f"to `{layout.SERVERS[-1]}` at {layout.offset(last)}." in text
    for name, (offset, kind) in layout.FIELDS.items():
        if name.startswith(further):
            continue
        assert f"| {offset} | `{name}` | {kind} |" in text
    for name, (offset, kind) in {**layout.SLOT_FIELDS, **layout.LANE_FIELDS}.items():
        assert f"| {offset} | `{name}` | {kind} |" in text


def test_a_changed_table_is_replaced_and_the_rest_kept(tmp_path: Path) -> None:
    """What a person wrote stays."""
    page = tmp_path / "page.md"
    page.write_text(
        PAGE.read_text(encoding="utf-8").replace("| 0 | `magic` | u64 |", "| 8 | `magic` | u32 |") + "\nend\n"
    )
    main([str(page)])
    assert page.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8") + "\nend\n"


def test_a_page_without_markers_is_refused() -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match="constants"):
        fill("# a page")
