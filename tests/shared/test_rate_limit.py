"""Warnings at a limited rate."""

from __future__ import annotations

import logging

import pytest
from tandem.shared import rate_limit
from tandem.shared.rate_limit import RateLimit

log = logging.getLogger("tandem.test")


class Clock:
    """Stands in for the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that the rate limit sees."""
    made = Clock()
    monkeypatch.setattr(rate_limit, "time", made)
    return made


def test_one_line_per_interval_and_text(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Of each text one line per interval is written; the next one says how many were held back."""
    limit = RateLimit(10.0)
    for number in range(5):
        limit.warning(log, "version %d: it failed", number)
    limit.warning(log, "another text")
    clock.now += 10.0
    limit.warning(log, "version %d: it failed", 9)
    assert caplog.messages == ["version 0: it failed", "another text", "version 9: it failed (4 more like this)"]


def test_a_new_version_is_no_new_text(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """An exception at each version is written once per interval; another kind of failure is another text."""
    limit = RateLimit(10.0)
    for version in range(1000):
        try:
            raise ValueError
        except ValueError:
            limit.exception(log, "version %d: %s", version, "the gate failed")
            limit.exception(log, "version %d: %s", version, "the reward failed")
    assert caplog.messages == ["version 0: the gate failed", "version 0: the reward failed"]
    assert all(record.exc_info for record in caplog.records)


def test_memory_is_bounded(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """However many texts there are, only the newest are remembered."""
    limit = RateLimit(10.0)
    for number in range(2000):
        limit.warning(log, f"text {number}")
    assert len(limit._seen) <= 256
