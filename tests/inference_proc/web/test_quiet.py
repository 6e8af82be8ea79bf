"""Libraries may not fill the log with what clients send."""

from __future__ import annotations

import logging

import pytest
from tandem.inference_proc.web import quiet
from tandem.inference_proc.web.quiet import Quiet, quiet_libraries


def record(text: str, *arguments: object) -> logging.LogRecord:
    """A record of a library."""
    return logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, arguments, None)


def test_each_text_is_logged_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever its arguments; another text is not held back, nor the same one ten seconds later."""
    now = [100.0]
    monkeypatch.setattr(quiet.time, "monotonic", lambda: now[0])
    limited = Quiet()
    assert [limited.filter(record("bad %s", number)) for number in range(3)] == [True, False, False]
    assert limited.filter(record("worse"))
    now[0] += 10.0
    assert limited.filter(record("bad %s", 9))
    for number in range(1000):
        limited.filter(record(f"text {number}"))
    assert len(limited._seen) <= 256


def test_limiting_twice_is_limiting_once() -> None:
    """The filters are not piled up."""
    quiet_libraries()
    quiet_libraries()
    filters = logging.getLogger("uvicorn.error").filters
    assert sum(isinstance(one, Quiet) for one in filters) == 1
