"""What `ctl top` reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tandem.inference_proc.engine import Engine
from tandem.supervisor.display.top_sample import Reader


def test_a_reading_is_of_the_time_since_the_last(toy_instance: Callable[..., Any]) -> None:
    """Rates, the share of SEND and percentiles are those of the decisions between two looks; steps fill the columns."""
    engine = Engine(toy_instance())
    control = engine.control
    reader = Reader(control.instance)
    for _ in range(5):
        engine.decide("before", [0.1, 0.2, 0.3, 0.4])
    for version in range(1, 4):
        control.append_history({"version": version, "loss": version / 2, "reward": float("nan"), "event": 0})
    control.append_history({"version": 4, "loss": float("nan"), "event": 1})
    first = reader.read()
    assert first.decisions_per_second is None
    assert first.lanes["send"] == 5
    assert list(reader.columns["loss"]) == [0.5, 1.0, 1.5]

    engine.lane.counters.count_decision(1, 1, 1_000_000)
    engine.lane.counters.count_decision(1, 1, 1_000_000)
    engine.lane.counters.count_decision(0, 1, 1_000_000)
    control.append_history({"version": 5, "loss": 9.0, "event": 0})
    second = reader.read()
    assert second.decisions_per_second is not None
    assert second.decisions_per_second > 0
    assert second.sent_share in (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert second.percentiles is not None
    assert 0.7e-3 < second.percentiles[50] < 1.1e-3
    assert list(reader.columns["loss"]) == [0.5, 1.0, 1.5, 9.0]
    engine.close()


def test_an_instance_that_goes_is_stopped(toy_instance: Callable[..., Any]) -> None:
    """When nothing of the instance lives, a reading says so, and a new instance of the name begins anew."""
    from tandem.shared.configuration.config import parse
    from tandem.shared.instance import create_instance
    from tandem.shared.memory.segments import remove_instance

    instance = toy_instance()
    engine = Engine(instance)
    reader = Reader(instance.name)
    engine.control.append_history({"version": 1, "loss": 1.0, "event": 0})
    assert reader.read().status["state"] == "degraded", "there is no supervisor"
    assert list(reader.columns["loss"]) == [1.0]
    plain = instance.config.to_dict()
    engine.close()
    remove_instance(instance.name)
    assert reader.read().status["state"] == "stopped"
    create_instance(instance.name, parse(plain, "the test"))
    again = Engine.attach(instance.name)
    assert reader.read().lanes["send"] == 0
    assert list(reader.columns["loss"]) == []
    again.close()
