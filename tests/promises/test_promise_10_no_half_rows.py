"""A sampler never returns half a row, however fast the writer overwrites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from proof import figure, size

MakeChannel = Callable[..., Any]


def race(
    channel: MakeChannel, nursery: Any, lane: str, reader: str, rows: int, batch: int = 1, enough: int = 10**9
) -> Any:
    """A writer that overwrites a small ring at full rate, and a sampler, in two processes."""
    made = channel(capacity=64)
    writer = nursery.start("write_rows", name=made.name, lane=lane, batch=batch).ready()
    found = nursery.run("sample_rows", name=made.name, reader=reader, rows=rows, enough=enough)
    writer.stop()
    return found


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("batch", [1, 32])
def test_promise_10_no_half_rows(channel: MakeChannel, nursery: Any, batch: int) -> None:
    """Every row agrees with itself, written one by one or in batches."""
    rows = size(200_000, 10_000_000)
    found = race(channel, nursery, "Lane", "ReplayReader", rows, batch)
    assert found["seen"] >= rows
    assert found["wrong"] == found["repeated"] == 0
    assert found["torn"] > 0, "the writer never overtook the sampler: nothing was proved"
    figure(10, f"{found['wrong']} wrong in {found['seen']:,} rows (batches of {batch}; {found['torn']:,} given up)")


@pytest.mark.parametrize(("lane", "reader"), [("NoInvalidation", "ReplayReader"), ("Lane", "Unchecked")])
def test_without_the_protocol_rows_are_torn(channel: MakeChannel, nursery: Any, lane: str, reader: str) -> None:
    """The same check finds half rows if the writer invalidates none or the reader looks at no sequence."""
    found = race(channel, nursery, lane, reader, 20_000_000, enough=3)
    assert found["wrong"] >= 3
    figure(10, f"control ({lane}, {reader}): {found['wrong']} wrong in the first {found['seen']:,} rows")
