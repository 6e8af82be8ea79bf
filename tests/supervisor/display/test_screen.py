"""The screen of `ctl top`: what stands on it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from tandem.supervisor.display import status
from tandem.supervisor.display.screen import ASCII, bar, compose, plain, sparkline
from tandem.supervisor.display.top_sample import Reader, Reading


def reading(**changes: Any) -> Reading:
    """A reading of an instance that runs and has learned."""
    names = Reader("nobody")
    seen = status.stopped("nobody")
    process = {"state": "running", "pid": 4194000, "uptime_s": 7201.0, "restarts": 0, "progress_age_s": 0.02}
    seen.update(
        state="running", trainer=process, inference=process, model_version=123456, model_age_s=0.4,
        buffer={"size": 8500, "capacity": 10000, "pending": 3, "utilization": 0.85}, url="http://127.0.0.1:8010",
    )  # fmt: skip
    metrics = dict.fromkeys(
        ("steps_per_second", "average_loss", "mean_reward", "actual_reward", "live_score", "live_best", "entropy",
         "gradient_norm", "lag_mean", "lag_max", "average_step_ms", "total_steps", "total_errors", "skipped_steps",
         "overruns", "refused"), 1234.56789,
    )  # fmt: skip
    lanes = dict.fromkeys(
        ("send", "wait", "decided", "completed", "pending", "expired", "superseded", "dropped", "rejected", "lost",
         "errors", "unmatched"), 1234567,
    )  # fmt: skip
    fields: dict[str, Any] = {
        "metrics": metrics, "lanes": lanes, "rollbacks": 12, "restored_version": 123000, "pending_capacity": 1024,
        "decisions_per_second": 1234.5, "sent_share": 0.731, "percentiles": {50: 0.0002, 95: 0.0004, 99: 0.01},
    }  # fmt: skip
    assert names.columns
    return Reading(seen, **{**fields, **changes})


def reader() -> Reader:
    """A reader that has seen a thousand steps."""
    made = Reader("nobody")
    for column in made.columns.values():
        column.extend(float(number % 7) for number in range(1000))
    return made


def test_a_sparkline_spans_least_to_greatest() -> None:
    """The least value is the lowest block, the greatest the highest; NaN is a gap; the newest values are shown."""
    assert sparkline([0.0, 1.0, 2.0], 10) == "▁▄█" or sparkline([0.0, 1.0, 2.0], 10) == "▁▅█"
    assert sparkline([9.0, 0.0, math.nan, 1.0], 3) == "▁ █"
    assert sparkline([5.0, 5.0], 10) == "▄▄"
    assert sparkline([math.nan], 10) == sparkline([], 10) == sparkline([1.0], 0) == ""
    assert sparkline([0.0, 1.0], 10, ASCII) == ".@"


def test_a_bar_is_filled_by_its_share() -> None:
    """A bar has the width asked for, and never more than all of it is filled."""
    assert bar(0.5, 4, True) == "██░░"
    assert bar(7.0, 4, False) == "####"
    assert bar(-1.0, 2, False) == ".."


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("is_unicode", [True, False])
def test_it_fits(width: int, is_unicode: bool) -> None:
    """With large numbers everything fits into 22 lines of the terminal's width, and is ASCII where it has to be."""
    text = plain(compose(reader(), reading(), width, is_unicode))
    lines = text.splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) <= width
    assert text.isascii() or is_unicode


def test_essentials_are_shown() -> None:
    """Version, age, rates, reward, lag, gate, latency, ring and pending are on the screen."""
    text = plain(compose(reader(), reading(), 100))
    for expected in ("123456", "0.4 s old", "1234.57 steps/s", "mean 1234.6", "1234.5/s", "73%", "p99 10.00 ms"):
        assert expected in text
    for expected in ("8500 of 10000", "85%", "1234567 of 1024", "up 2.0 h", "http://127.0.0.1:8010", "12 rollbacks"):
        assert expected in text


def test_several_workers_take_one_line() -> None:
    """How many of them run, what the others do, their restarts and the oldest turn; the page stays as high."""
    seen = reading()
    one = seen.status["inference"]
    down = {**one, "state": "backoff", "pid": None, "restarts": 3, "progress_age_s": None}
    seen.status["workers"] = {"inference": one, "inference-2": down, "inference-3": {**one, "progress_age_s": 5.0}}
    lines = plain(compose(reader(), seen, 100)).splitlines()
    assert "inference  2 of 3   backoff   3 restarts   turned 5.0 s ago" in lines
    assert len(lines) == len(plain(compose(reader(), reading(), 100)).splitlines())


def test_before_the_first_step_nothing_is_made_up() -> None:
    """Before the first training step and the first decision, there are no figures of them."""
    empty = reading(decisions_per_second=None, sent_share=None, percentiles=None)
    empty.metrics["total_steps"] = 0
    text = plain(compose(Reader("nobody"), empty))
    assert "no training step yet" in text
    assert "nats" not in text


def test_freshness_is_shown_in_seconds() -> None:
    """Seconds within which half of the rewards were learned from, and 99 % of them; a dash before there was one."""
    text = plain(compose(reader(), reading(freshness=(0.0849, 1.5))))
    assert "\nfreshness  p50 0.08 s   p99 1.50 s\n" in text
    assert "\nfreshness  -\n" in plain(compose(reader(), reading()))


def test_what_is_not_known_yet_is_a_dash() -> None:
    """A trainer that has just taken over has no means of steps."""
    taken_over = reading()
    for name in ("average_loss", "lag_mean", "lag_max", "average_step_ms", "gradient_norm"):
        taken_over.metrics[name] = float("nan")
    text = plain(compose(Reader("nobody"), taken_over))
    assert "mean -, max - versions   step - ms   gradient -" in text
    assert "nan" not in text


def test_a_stopped_instance_is_said_to_be_stopped() -> None:
    """Of an instance that does not run, only that is shown."""
    text = plain(compose(Reader("nobody"), Reading(status.stopped("nobody"))))
    assert "stopped" in text
    assert "Nothing runs" in text
    assert "version" not in text
