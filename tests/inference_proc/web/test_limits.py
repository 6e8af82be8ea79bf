"""How much one client may ask for."""

from __future__ import annotations

import pytest
from tandem.inference_proc.web import limits
from tandem.inference_proc.web.limits import Allowance, Limits
from tandem.shared.configuration.config import InferenceConfig


def test_the_configuration_sets_the_limits() -> None:
    """The section `inference` bounds connections, sizes and rates."""
    config = InferenceConfig(max_connections=3, max_frame_bytes=2048, max_frame_rate=10.0)
    found = Limits.of(config)
    assert (found.connections, found.frame_bytes, found.body_bytes) == (3, 2048, 2048)
    assert (found.frame_rate, found.frame_burst) == (10.0, 20.0)


def test_an_allowance_is_a_burst_and_then_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three at once, then two a second, and never more than three saved up."""
    now = [100.0]
    monkeypatch.setattr(limits.time, "monotonic", lambda: now[0])
    allowance = Allowance(rate=2.0, burst=3.0)
    assert [allowance.take() for _ in range(5)] == [True, True, True, False, False]
    now[0] += 0.5
    assert [allowance.take() for _ in range(2)] == [True, False]
    now[0] += 1000.0
    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
