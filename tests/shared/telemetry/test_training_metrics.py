"""Training metrics in the control segment."""

from __future__ import annotations

import math

import pytest
from tandem.shared.learning import event_row
from tandem.shared.telemetry.training_metrics import WINDOW, TrainingMetrics, mean


def row(version, loss, actual=0.5):
    """A step's history row."""
    return {**event_row(version, 0), "loss": loss, "reward": 0.1, "actual_reward": actual, "batch": 8.0, "step_ms": 2.0}


def test_means_are_over_the_last_hundred_steps(toy_instance):
    """Rolling means forget what is older; lifetime totals do not."""
    control = toy_instance().control
    metrics = TrainingMetrics(control)
    for version in range(1, WINDOW + 51):
        metrics.record(row(version, 100.0 if version <= 50 else 1.0))
    assert control.get("metrics.average_loss") == pytest.approx(1.0)
    assert control.get("metrics.total_steps") == WINDOW + 50
    assert control.get("metrics.total_samples") == 8 * (WINDOW + 50)
    assert control.get("metrics.steps_per_second") > 0


def test_a_batch_without_a_sent_decision_leaves_the_actual_reward(toy_instance):
    """NaN does not enter the mean."""
    control = toy_instance().control
    metrics = TrainingMetrics(control)
    metrics.record(row(1, 0.0, actual=0.4))
    metrics.record(row(2, 0.0, actual=math.nan))
    assert control.get("metrics.actual_reward") == pytest.approx(0.4)


def test_an_event_is_history_but_no_step(toy_instance):
    """A rollback appears in the history and is not counted as a training step."""
    control = toy_instance().control
    TrainingMetrics(control).record_event(event_row(3, 1))
    assert [item["event"] for item in control.history()] == [1.0]
    assert control.get("metrics.total_steps") == 0


def test_the_mean_of_nothing_is_nan():
    """There is no mean to report before the first step."""
    assert math.isnan(mean([]))
